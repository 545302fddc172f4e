"""The packed forward equals the plain padded one, gradients included."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from model.backbones import batch, make
from triptych.model.backbone import padded_states
from triptych.model.forward import attention, packed_states, supported
from triptych.model.packed import Packed, Shape, lexical_rows, position_ids, runs

KINDS = ["bert", "roberta", "xlm-roberta"]
PAD = {"bert": 0, "roberta": 1, "xlm-roberta": 1}
LENGTHS = [5, 17, 1, 17, 40, 5, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_packed_states_equal_padded_states(kind: str) -> None:
    model, texts = make(kind), batch(LENGTHS)
    with torch.no_grad():
        expected, got = padded_states(model, texts, PAD[kind]), packed_states(model, texts)
    assert got.shape == (sum(LENGTHS), 32)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_packed_forward_equal_those_of_the_padded_one(kind: str) -> None:
    texts = batch(LENGTHS)
    target = torch.randn(sum(LENGTHS), 32, generator=torch.Generator().manual_seed(3))
    grads = []
    for forward in (lambda m: padded_states(m, texts, PAD[kind]), lambda m: packed_states(m, texts)):
        model = make(kind)
        (forward(model) * target).sum().backward()
        # The words, the heads and each projection; padding rows of the tables get none on either side.
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert set(grads[1]) <= set(grads[0])
    for name, expected in grads[0].items():
        torch.testing.assert_close(
            grads[1].get(name, torch.zeros_like(expected)),
            expected,
            atol=2e-4,
            rtol=1e-4,
        )
    assert float(grads[1]["embeddings.word_embeddings.weight"].abs().sum()) > 0


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), data=st.data())
def test_permuting_the_texts_permutes_the_states(lengths: list[int], data: st.DataObject) -> None:
    model, texts = make("xlm-roberta"), batch(lengths)
    order = data.draw(st.permutations(range(len(lengths))))
    pieces = texts.ids.split(lengths)
    moved = Packed.of([pieces[i].numpy() for i in order])
    with torch.no_grad():
        plain = packed_states(model, texts).split(lengths)
        permuted = packed_states(model, moved)
    torch.testing.assert_close(permuted, torch.cat([plain[i] for i in order]), atol=1e-5, rtol=1e-5)


def test_a_text_that_holds_the_padding_id_gets_the_positions_hugging_face_gives_it() -> None:
    model = make("xlm-roberta")
    texts = Packed.of([[0, 5, 1, 6, 2], [0, 1, 1, 2], [0, 7, 2]])
    expected = [2, 3, 1, 4, 5, 2, 1, 1, 3, 2, 3, 4]
    assert position_ids(texts, 1).tolist() == expected
    for text in texts.ids.split(list(texts.lengths)):
        one = Packed.of([text.numpy()])
        with torch.no_grad():
            whole = model(input_ids=text[None], attention_mask=torch.ones(1, len(text))).last_hidden_state[0]
            torch.testing.assert_close(packed_states(model, one), whole, atol=1e-5, rtol=1e-5)


def test_an_empty_batch_gives_no_states() -> None:
    assert packed_states(make("bert"), Packed.of([])).shape == (0, 32)


def test_attention_in_a_text_is_that_of_the_text_alone() -> None:
    lengths = (7, 7, 3, 1)
    parts = torch.randn(3, sum(lengths), 4, 8, generator=torch.Generator().manual_seed(0))
    bounds = torch.tensor([0, 7, 14, 17, 18], dtype=torch.int32)
    got = attention(parts[0], parts[1], parts[2], Shape.of(lengths, bounds))
    for first, last in pairwise(bounds.tolist()):
        alone = scaled_dot_product_attention(*(p[first:last].transpose(0, 1) for p in parts)).transpose(0, 1)
        torch.testing.assert_close(got[first:last], alone, atol=1e-6, rtol=1e-5)


def test_runs_cover_all_tokens_in_groups_of_equal_length() -> None:
    assert runs([9, 9, 4, 2, 2, 2]) == [(0, 2, 9), (18, 1, 4), (22, 3, 2)]
    assert runs([]) == []


def test_dropout_acts_in_training_mode_and_has_the_mean_of_the_padded_forward() -> None:
    texts = batch([6, 9, 6])
    model = make(
        "xlm-roberta", num_hidden_layers=1, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2
    )
    model.train()
    draws = 1500
    sums = []
    for forward in (lambda: padded_states(model, texts, 1), lambda: packed_states(model, texts)):
        torch.manual_seed(1)
        with torch.no_grad():
            sample = torch.stack([forward() for _ in range(draws)])
        assert not torch.equal(sample[0], sample[1])
        sums.append((sample.mean(0), sample.std(0)))
    (mean_a, std_a), (mean_b, std_b) = sums
    # Five standard errors of the difference, and a tenth of the spread.
    assert ((mean_a - mean_b).abs() < 5 * std_a * (2 / draws) ** 0.5 + 1e-6).all()
    assert (std_a - std_b).abs().max() < 0.1 * std_a.max()


def test_gradient_checkpointing_of_the_backbone_is_kept_and_changes_no_gradient() -> None:
    texts, calls = batch(LENGTHS), []
    results = []
    for recompute in (False, True):
        model = make("xlm-roberta", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
        if recompute:
            enable = getattr(
                model, "activation_checkpointing_enable", None
            )  # its name since transformers 5.20
            (enable or model.gradient_checkpointing_enable)()
        model.encoder.layer[0].intermediate.dense.register_forward_hook(lambda *_: calls.append(1))
        packed_states(model, texts).square().sum().backward()
        results.append(model.encoder.layer[0].intermediate.dense.weight.grad)
    torch.testing.assert_close(results[0], results[1])
    assert len(calls) == 3  # once without, twice with recomputation


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (make("modernbert"), "modernbert is not one of"),
        (make("bert", is_decoder=True), "decoder"),
        (torch.nn.Linear(2, 2), "Linear is not one of"),
    ],
    ids=["another architecture", "a decoder", "no encoder"],
)
def test_supported_says_why_a_backbone_cannot_be_packed(model: torch.nn.Module, reason: str) -> None:
    assert reason in (supported(model) or "")


def test_supported_says_nothing_of_a_backbone_that_can_be_packed() -> None:
    assert [supported(make(kind)) for kind in KINDS] == [None, None, None]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.25, 0.5, 1.75])), max_size=70))
def test_one_text_has_the_lexical_row_that_it_has_among_others(pairs: list[tuple[int, float]]) -> None:
    ids = np.array([token for token, _ in pairs], np.int64)
    weights = np.array([weight for _, weight in pairs], np.float32)
    alone = lexical_rows(ids, weights, np.array([0, len(ids)]), 250_037)
    among = lexical_rows(
        np.tile(ids, 2), np.tile(weights, 2), np.array([0, len(ids), 2 * len(ids)]), 250_037
    )[[0]]
    largest = {token: max(w for t, w in pairs if t == token) for token, _ in pairs}
    assert dict(zip(alone.indices.tolist(), alone.data.tolist(), strict=True)) == {
        token: weight for token, weight in largest.items() if weight > 0
    }
    for part in ("data", "indices", "indptr"):
        got, expected = getattr(alone, part), getattr(among, part)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
