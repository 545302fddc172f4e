import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from triptych.errors import InputError
from triptych.model import checkpoint as layouts
from triptych.model.checkpoint import Checkpoint
from triptych.model.packed import Packed
from triptych.train.retromae import Alphabet, Masking, RetroMAE, draw, hide, load_mlm_head, visibility

from .made import VOCABULARY, tiny

SPECIAL = np.isin(np.arange(VOCABULARY), [0, 1, 2, 3])
STARTS = np.arange(VOCABULARY) % 3 == 0
ALPHABET = Alphabet(mask=3, special=SPECIAL, starts=STARTS)
SMALL = settings(max_examples=30, deadline=None)
lengths = st.lists(st.integers(2, 40), min_size=1, max_size=5)


def texts_of(sizes: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.array([0, *rng.integers(4, VOCABULARY, n - 2), 2]) for n in sizes]


def hidden(sizes: list[int], masking: Masking | None = None, seed: int = 0):
    return hide(texts_of(sizes), ALPHABET, masking or Masking(patterns=8), np.random.default_rng(seed))


@SMALL
@given(lengths, st.booleans())
def test_the_encoder_s_share_of_each_text_is_hidden_and_nothing_special(sizes, whole_words):
    batch = hidden(sizes, Masking(encoder=0.3, patterns=4, whole_words=whole_words))
    ids = batch.texts.ids
    assert not torch.from_numpy(SPECIAL)[ids[batch.encoder_positions]].any()
    changed = (batch.masked != ids).nonzero().squeeze(1)
    assert set(changed.tolist()) <= set(batch.encoder_positions.tolist())
    for i, size in enumerate(sizes):
        first, last = batch.texts.offsets[i], batch.texts.offsets[i + 1]
        count = int(((batch.encoder_positions >= first) & (batch.encoder_positions < last)).sum())
        wanted = max(1, round(0.3 * (size - 2))) if size > 2 else 0
        assert count == wanted if not whole_words else (count > 0) == (size > 2)


def test_of_the_hidden_tokens_8_in_10_are_masked_and_1_in_10_replaced():
    batch = hidden([30000])
    ids, masked = batch.texts.ids[batch.encoder_positions], batch.masked[batch.encoder_positions]
    assert float((masked == 3).float().mean()) == pytest.approx(0.8, abs=0.02)
    # One replacement in 26 is the token itself.
    assert float((masked == ids).float().mean()) == pytest.approx(0.1 + 0.1 / 26, abs=0.02)
    assert not torch.isin(masked, torch.tensor([0, 1, 2])).any()


@SMALL
@given(st.integers(1, 60), st.integers(1, 9), st.floats(0.1, 0.9), st.integers(0, 99))
def test_a_draw_takes_exactly_its_share(count, times, share, seed):
    chosen = draw(count, times, share, np.random.default_rng(seed))
    assert (chosen.sum(axis=1) == max(1, round(share * count))).all()


@SMALL
@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.floats(0.1, 0.9), st.integers(0, 99))
def test_a_draw_of_words_takes_whole_ones_and_not_more_than_its_share_but_one(sizes, share, seed):
    words = np.repeat(np.arange(len(sizes)), sizes)
    for row in draw(len(words), 5, share, np.random.default_rng(seed), words):
        taken = [row[words == word] for word in range(len(sizes))]
        assert all(part.all() or not part.any() for part in taken)
        number = sum(bool(part.all()) for part in taken)
        assert number == 1 or row.sum() <= max(1, round(share * len(words)))


def test_places_are_drawn_evenly():
    counts = draw(10, 20000, 0.3, np.random.default_rng(0)).mean(axis=0)
    assert counts == pytest.approx(np.full(10, 0.3), abs=0.02)


def slow_visibility(batch, text: int) -> list[list[bool]]:
    """Position i of a text sees j: the first always, itself never, the others by its pattern."""
    first, last = int(batch.texts.offsets[text]), int(batch.texts.offsets[text + 1])
    rows = []
    for i in range(first, last):
        pattern = int(batch.pattern[i])
        rows.append([j == first or (j != i and bool(batch.visible[pattern, j])) for j in range(first, last)])
    return rows


@SMALL
@given(lengths)
def test_visibility_equals_the_slow_form(sizes):
    batch = hidden(sizes)
    longest = max(sizes)
    last = batch.texts.offsets[1:, None] - 1
    where = (batch.texts.offsets[:-1, None] + torch.arange(longest)).clamp(max=last)
    seen = visibility(batch, where)
    for i, size in enumerate(sizes):
        assert seen[i, :size, :size].tolist() == slow_visibility(batch, i)
        assert not seen[i, :size, size:].any()


def model_of(tmp_path, kind: str) -> RetroMAE:
    torch.manual_seed(0)
    return RetroMAE(tiny(tmp_path, kind, dropout=0.0).model)


def slow_decoder(model: RetroMAE, batch, states: torch.Tensor) -> list[torch.Tensor]:
    """The decoder, text by text and position by position."""
    decoder, found = model.decoder, []
    asking, looked_at = model._inputs(batch.texts, model._sentence(states, batch.texts))
    width = asking.shape[1] // decoder.heads
    for text in range(len(batch.texts)):
        first, last = int(batch.texts.offsets[text]), int(batch.texts.offsets[text + 1])
        seen = slow_visibility(batch, text)
        for i in range(first, last):
            context = []
            for head in range(decoder.heads):
                part = slice(head * width, (head + 1) * width)
                query = decoder.query(asking[i])[part]
                visible = [j for j in range(first, last) if seen[i - first][j - first]]
                weights = torch.stack([query @ decoder.key(looked_at[j])[part] for j in visible]) / width**0.5
                values = torch.stack([decoder.value(looked_at[j])[part] for j in visible])
                context.append(weights.softmax(0) @ values)
            state = decoder.norm(decoder.output(torch.cat(context)) + asking[i])
            found.append(decoder.last_norm(decoder.wide(state) + state))
    return found


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert", "modernbert"])
def test_the_decoder_equals_the_slow_form(tmp_path, kind):
    model = model_of(tmp_path, kind).eval()
    batch = hidden([7, 12, 5, 9])
    states = torch.randn(33, 32)
    with torch.no_grad():
        got = model.decoder(*model._inputs(batch.texts, model._sentence(states, batch.texts)), batch)
        expected = slow_decoder(model, batch, states)
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert", "modernbert"])
def test_the_loss_is_the_mean_over_predicted_tokens_of_both_halves(tmp_path, kind):
    model = model_of(tmp_path, kind).eval()
    batch = hidden([7, 12, 5, 9])
    found = model(batch)
    masked = Packed(batch.masked, batch.texts.offsets, batch.texts.lengths)
    with torch.no_grad():
        from triptych.model.forward import last_states

        states = last_states(model.encoder.backbone, masked, model.encoder.special.pad)
        logits = model.transform(states[batch.encoder_positions]) @ model._table.weight.T + model.bias
        expected = torch.nn.functional.cross_entropy(logits, batch.texts.ids[batch.encoder_positions])
    torch.testing.assert_close(found["encoder"], expected)
    torch.testing.assert_close(found["loss"].detach(), found["encoder"] + found["decoder"])


def test_the_decoder_s_loss_reaches_the_encoder_through_the_sentence_vector(tmp_path):
    model = model_of(tmp_path, "xlm-roberta")
    batch = hidden([7, 12])
    states = torch.randn(19, 32, requires_grad=True)
    decoded = model.decoder(*model._inputs(batch.texts, model._sentence(states, batch.texts)), batch)
    decoded.square().sum().backward()
    starts = batch.texts.offsets[:-1]
    touched = states.grad.abs().sum(1) > 0
    assert touched[starts].all()
    assert int(touched.sum()) == 2


def test_a_few_steps_lower_both_losses(tmp_path):
    model = model_of(tmp_path, "xlm-roberta")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    texts = texts_of([20, 30, 25, 18])
    first: dict[str, float] = {}
    found: dict[str, torch.Tensor] = {}
    for step in range(40):
        found = model(hide(texts, ALPHABET, Masking(patterns=16), np.random.default_rng(step)))
        first = first or {name: value.item() for name, value in found.items()}
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
    assert found["encoder"].item() < 0.7 * first["encoder"]
    assert found["decoder"].item() < 0.7 * first["decoder"]


def test_the_encoder_is_exported_in_our_layout(tmp_path):
    made = tiny(tmp_path / "start")
    model = RetroMAE(made.model)
    layouts.save(Checkpoint(model.encoder, made.tokenizer), tmp_path / "end")
    loaded = layouts.load(tmp_path / "end")
    assert loaded.fingerprint == made.fingerprint


@pytest.mark.parametrize("wrong", [{"encoder": 0.0}, {"decoder": 1.0}, {"patterns": 0}])
def test_a_wrong_share_is_refused(wrong):
    with pytest.raises(InputError, match="masking"):
        Masking(**wrong)


def test_whole_words_need_a_tokenizer_that_marks_them():
    with pytest.raises(InputError, match="whole_words"):
        hide(texts_of([5]), Alphabet(3, SPECIAL), Masking(whole_words=True), np.random.default_rng(0))


HEADS = {
    "xlm-roberta": (
        "lm_head.dense.weight",
        "lm_head.dense.bias",
        "lm_head.layer_norm.weight",
        "lm_head.layer_norm.bias",
        "lm_head.bias",
    ),
    "bert": (
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.LayerNorm.bias",
        "cls.predictions.bias",
    ),
}


@pytest.mark.parametrize("form", ["safetensors", "pickle"])
@pytest.mark.parametrize("kind", HEADS)
def test_the_head_for_masked_tokens_begins_as_the_backbones_own(tmp_path, kind, form):
    model = tiny(tmp_path / "model", kind).model
    width, vocabulary = 32, model.backbone.get_input_embeddings().num_embeddings  # type: ignore[operator,union-attr]
    shapes = [(width, width), (width,), (width,), (width,), (vocabulary,)]
    own = {name: torch.randn(shape) for name, shape in zip(HEADS[kind], shapes, strict=True)}
    (tmp_path / "base").mkdir()
    if form == "safetensors":
        save_file(own, tmp_path / "base" / "model.safetensors")
    else:
        torch.save(own, tmp_path / "base" / "pytorch_model.bin")
    head = load_mlm_head(tmp_path / "base", width, vocabulary)
    module = RetroMAE(model, head)
    weight, bias, scale, shift, output = own.values()
    states = torch.randn(5, width)
    dense = torch.nn.functional.gelu(states @ weight.T + bias)
    eps = model.backbone.config.layer_norm_eps  # type: ignore[union-attr]
    expected = torch.nn.functional.layer_norm(dense, (width,), scale, shift, eps)
    torch.testing.assert_close(module.transform(states), expected)
    torch.testing.assert_close(module.bias.detach(), output)
    assert load_mlm_head(tmp_path / "base", width * 2, vocabulary) is None
    assert load_mlm_head(tmp_path / "model", width, vocabulary) is None
