"""What only a GPU can show: Triton's kernels, CUDA graphs, copies beside the computation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import XLMRobertaConfig, XLMRobertaModel

import checkpoints
import twin
from triptych import Encoder
from triptych.config import M3Config
from triptych.model.inference import Engine
from triptych.model.kernels import FusedKernels, rows_problem
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed, SpecialIds
from triptych.model.single import OneText

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LENGTHS = (1500, 1500, 1100, 300, 65, 64, 63, 7, 2)
HALVES = (torch.bfloat16, torch.float16)


def make() -> M3Model:
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=200,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=1600,
        type_vocab_size=1,
        pad_token_id=1,
    )
    backbone = XLMRobertaModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for name, weight in backbone.named_parameters():
            weight.mul_(1.0 if "LayerNorm" in name else 3.0)
    return M3Model(backbone, M3Config(multi_dim=32), SpecialIds(0, 2, 1, 3)).eval()


def texts(lengths: tuple[int, ...], low: int = 5) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [np.array([0, *draw.integers(low, 199, length - 2), 2]) for length in lengths]


def on_gpu(dtype: torch.dtype) -> M3Model:
    model = make().to("cuda", dtype)
    model.engine, why = Engine.of(model.backbone, torch.device("cuda"), dtype)
    assert model.engine is not None
    assert isinstance(model.engine.kernels, FusedKernels), why
    return model


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.double().cpu() - expected.double().cpu()).norm() / expected.double().norm())


@pytest.mark.parametrize("dtype", HALVES)
def test_each_kernel_gives_what_torch_gives_in_64_bits(dtype: torch.dtype) -> None:
    from triptych.model import fused

    assert rows_problem(fused, dtype, torch.device("cuda")) is None


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("low", [5, 1])  # 1 is the padding id, which a text may hold
def test_the_fused_pass_is_the_float32_one_up_to_rounding(dtype: torch.dtype, low: int) -> None:
    batch = Packed.of(texts(LENGTHS, low))
    with torch.inference_mode():
        expected = make().double()(batch)
        got = on_gpu(dtype)(batch.to(torch.device("cuda")))
    for head in ("dense", "lexical", "multi"):
        there = getattr(got, head)
        assert bool(there.isfinite().all())
        assert error(there, getattr(expected, head)) < 3e-2, head
    assert torch.equal(got.multi_offsets.cpu(), expected.multi_offsets)


def test_one_text_by_its_graph_is_what_a_batch_of_it_gives() -> None:
    model = on_gpu(torch.bfloat16)
    single = OneText.of(model)
    assert single is not None
    for ids in texts((2, 9, 16, 17, 200, 512, 9)):
        assert single.takes(ids)
        found = single(ids, ("dense", "lexical", "multi"), ())
        with torch.inference_mode():
            expected = make().double()(Packed.of([ids]))
        assert found.dense is not None
        assert found.lexical is not None
        assert found.multi is not None
        assert error(torch.from_numpy(found.dense), expected.dense) < 3e-2
        assert error(torch.from_numpy(found.multi.values), expected.multi) < 3e-2
        weights = torch.zeros(200, dtype=torch.float64).scatter_reduce(
            0, torch.from_numpy(ids), expected.lexical.double(), "amax"
        )
        if weights.norm() > 0:
            assert error(torch.from_numpy(found.lexical.toarray()[0]), weights) < 3e-2
    assert not single.takes(np.arange(5, 600))
    assert not single.takes(np.array([0, 1, 2]))


def test_an_encoder_on_a_gpu_gives_a_processors_vectors(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triptych.encode import pieces

    monkeypatch.setattr(pieces, "_SIZES", (200, 400, 800))
    many = [f"{text} {i}" for i in range(20) for text in checkpoints.TEXTS]
    here = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    there = Encoder.from_pretrained(folder, device="cuda", dtype="float32")
    expected = here.encode(many)
    twin.assert_same(there.encode(many, token_budget=64), expected, 1e-3)
    half = Encoder.from_pretrained(folder, device="cuda", dtype="bfloat16")
    together = half.encode(many, token_budget=64)
    assert (together.dense * expected.dense).sum(1).min() > 0.999
    for i in range(8):
        alone = half.encode([many[i]])
        assert float((alone.dense[0] * expected.dense[i]).sum()) > 0.999
        assert len(alone.multi[0]) == len(expected.multi[i])
    streamed = list(half.encode_stream(many, block=16))
    assert sum(map(len, streamed)) == len(many)
