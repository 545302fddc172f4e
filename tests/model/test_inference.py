"""The inference engine computes what the plain forward computes, with every set of kernels that runs here."""

import numpy as np
import pytest
import torch

from model.backbones import batch, make
from triptych.model import inference
from triptych.model.backbone import padded_states
from triptych.model.inference import Engine, attend, attend_first
from triptych.model.kernels import Kernels, OneDnnKernels, TorchKernels, choose, problem_of
from triptych.model.packed import Packed, Shape

CPU = torch.device("cpu")
PAD = {"bert": 0, "roberta": 1, "xlm-roberta": 1}
LENGTHS = [40, 17, 17, 9, 5, 5, 2, 1]
EVERY: list[Kernels] = [
    TorchKernels(torch.float32),
    TorchKernels(torch.bfloat16),
    OneDnnKernels(torch.float32),
    OneDnnKernels(torch.bfloat16),
]


def engine_of(kind: str, kernels: Kernels, **changes: object) -> tuple[torch.nn.Module, Engine]:
    """The backbone as it was, and an engine made of its twin."""
    twin = make(kind, **changes).to(kernels.dtype)
    return make(kind, **changes), Engine(twin, kernels)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1).min())


@pytest.mark.parametrize("kernels", EVERY, ids=lambda k: k.name)
@pytest.mark.parametrize("kind", PAD)
def test_the_engine_equals_the_padded_forward(kind: str, kernels: Kernels) -> None:
    model, engine = engine_of(kind, kernels)
    texts = batch(LENGTHS)
    with torch.inference_mode():
        expected, got = padded_states(model, texts, PAD[kind]), engine(texts)
    if kernels.dtype == torch.float32:
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5)
    else:
        assert cosine(got, expected) > 0.999


@pytest.mark.parametrize("kernels", EVERY, ids=lambda k: k.name)
def test_first_only_gives_the_rows_of_the_first_positions(kernels: Kernels) -> None:
    _, engine = engine_of("xlm-roberta", kernels)
    texts = batch(LENGTHS)
    with torch.inference_mode():
        whole, first = engine(texts), engine(texts, first_only=True)
    limit = 2e-5 if kernels.dtype == torch.float32 else 0.06
    torch.testing.assert_close(first, whole[texts.offsets[:-1]], atol=limit, rtol=limit)


@pytest.mark.parametrize("act", ["relu", "gelu_new", "gelu_python"])
def test_an_activation_that_no_kernel_fuses_is_the_models_own(act: str) -> None:
    model, engine = engine_of("bert", OneDnnKernels(torch.float32), hidden_act=act)
    texts = batch(LENGTHS)
    with torch.inference_mode():
        torch.testing.assert_close(engine(texts), padded_states(model, texts, 0), atol=2e-5, rtol=2e-5)


def test_one_text_with_the_padding_id_in_it_gets_the_right_positions() -> None:
    model, engine = engine_of("xlm-roberta", OneDnnKernels(torch.float32))
    text = Packed.of([[0, 5, 1, 6, 2]])
    with torch.inference_mode():
        expected = model(input_ids=text.ids[None], attention_mask=torch.ones(1, 5)).last_hidden_state[0]
        torch.testing.assert_close(engine(text), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("lengths", [[700], [1100, 1100, 64], [3000], [65, 64, 63]], ids=str)
def test_attention_in_tiles_equals_exact_attention(
    lengths: list[int], amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        inference, "has_amx", lambda: amx
    )  # which decides from what length on there are tiles
    heads, width = 3, 16
    total = sum(lengths)
    qkv = torch.randn(total, 3 * heads * width, generator=torch.Generator().manual_seed(0)).bfloat16()
    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    got = attend(qkv, heads, Shape.of(tuple(lengths), bounds))
    first = attend_first(qkv, heads, Shape.of(tuple(lengths), bounds))
    parts = qkv.double().view(total, 3, heads, width).permute(1, 2, 0, 3)
    for i, length in enumerate(lengths):
        q, k, v = parts[:, :, bounds[i] : bounds[i] + length]
        exact = (torch.softmax(q @ k.transpose(1, 2) / width**0.5, -1) @ v).transpose(0, 1).flatten(1)
        part = got[bounds[i] : bounds[i] + length].double()
        assert float((part - exact).norm() / exact.norm()) < 0.01
        assert float((first[i].double() - exact[0]).norm() / exact[0].norm()) < 0.02


@pytest.mark.parametrize("kernels", EVERY, ids=lambda k: k.name)
def test_the_engine_holds_the_weights_once_and_gives_back_what_it_took(kernels: Kernels) -> None:
    model = make("bert").to(kernels.dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine = Engine(model, kernels)
    kept = sum(p.numel() for p in model.parameters())
    assert kept < 0.4 * sum(tensor.numel() for tensor in before.values())
    engine.give_back()
    after = model.state_dict()
    assert set(after) == set(before)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    assert len({p.untyped_storage().data_ptr() for p in model.parameters()}) == len(list(model.parameters()))


def test_another_architecture_has_no_engine_and_the_reason_is_given() -> None:
    engine, why = Engine.of(make("modernbert"), CPU, torch.float32)
    assert engine is None
    assert "modernbert" in why


def test_half_precision_on_a_processor_falls_back_to_torch() -> None:
    kernels, why = choose(CPU, torch.float16)
    assert kernels.name == "torch-float16"
    assert "float16" in why


def test_kernels_that_compute_something_else_are_found_out() -> None:
    class Wrong(TorchKernels):
        def linear_add(self, x, weights, residual):
            return super().linear_add(x, weights, residual) * 1.5

    assert problem_of(TorchKernels(torch.float32), torch.float32) is None
    assert "linear_add is wrong" in (problem_of(Wrong(torch.float32), torch.float32) or "")


def test_a_torch_without_the_operators_falls_back_to_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(OneDnnKernels, "__init__", absent)
    kernels, why = choose(CPU, torch.float32)
    assert kernels.name == "torch-float32"
    assert "no fused oneDNN layers" in why


def test_long_texts_taken_apart_from_the_others_give_the_same_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a GPU does, with the kernel for unequal lengths put in by the plain way."""
    from triptych.model import forward, inference

    lengths = (1500, 1500, 1100, 300, 7, 7)
    qkv = torch.randn(sum(lengths), 3 * 32, generator=torch.Generator().manual_seed(0))
    shape = Shape.of(lengths, torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32))
    expected = attend(qkv, 2, shape)
    asked: list[tuple[int, ...]] = []

    def unequal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: Shape) -> torch.Tensor:
        asked.append(shape.lengths)
        assert shape.bounds.tolist() == [0, *np.cumsum(shape.lengths)]
        return forward.attention(query, key, value, shape)

    monkeypatch.setattr(inference, "flash_usable", lambda *_: True)
    monkeypatch.setattr(inference, "flash_attention", unequal)
    torch.testing.assert_close(attend(qkv, 2, shape), expected, atol=1e-5, rtol=1e-5)
    short = Shape.of(lengths[3:], shape.bounds[3:] - shape.bounds[3])
    torch.testing.assert_close(attend(qkv[4100:], 2, short), expected[4100:], atol=1e-5, rtol=1e-5)
    assert asked == [(1100, 300, 7, 7), (300, 7, 7)]


@pytest.mark.parametrize("heads", [("dense", "lexical", "multi"), ("dense",)])
def test_a_batch_that_is_known_on_the_processor_too_gives_the_same(heads: tuple[str, ...]) -> None:
    """`host` is what a GPU's batch carries along; here the device is the processor itself."""
    from triptych.config import M3Config
    from triptych.model.m3 import M3Model
    from triptych.model.packed import SpecialIds

    for pooling in ("cls", "mean", "mcls"):
        config = M3Config(pooling=pooling, max_length=64, multi_dim=8)
        model = M3Model(make("xlm-roberta"), config, SpecialIds(cls=0, eos=2, pad=1)).eval()
        plain = batch(LENGTHS, low=0)
        with torch.inference_mode():
            expected = model(plain, heads)
            got = model(Packed(plain.ids, plain.offsets, plain.lengths, plain), heads)
        for name in (*heads, "offsets", "multi_offsets"):
            assert torch.equal(getattr(got, name), getattr(expected, name)), (pooling, name)


def test_a_text_with_junk_behind_it_up_to_a_fixed_size_gets_the_same_states() -> None:
    """What a CUDA graph is recorded of: one size for texts of several lengths."""
    _, engine = engine_of("xlm-roberta", TorchKernels(torch.float32))
    text, size = batch([9]), 16
    ids = torch.randint(5, 20, (size,), generator=torch.Generator().manual_seed(0))
    ids[:9] = text.ids
    places = torch.arange(2, 2 + size)
    shape = Shape((9, size - 9), torch.tensor([0, 9, size], dtype=torch.int32), size)
    with torch.inference_mode():
        torch.testing.assert_close(engine.graphed(ids, places, shape)[:9], engine(text))


def test_graphs_are_recorded_only_where_attention_takes_texts_of_unequal_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, _ = Engine.of(make("bert"), CPU, torch.float32)
    assert engine is not None
    assert engine.graphs is None
    with monkeypatch.context() as patch:
        patch.setattr("triptych.model.inference.flash_usable", lambda *_: True)
        engine.accelerate()
    assert engine.graphs is not None
    with torch.inference_mode():
        engine(batch([5]))  # on a processor they take nothing
    engine.give_back()
    assert engine.graphs is None
