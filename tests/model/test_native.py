"""The compiled functions and the 8-bit layers against torch; what happens where they cannot be had."""

import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from model.backbones import batch, make
from triptych.model import kernels, native
from triptych.model.backbone import padded_states
from triptych.model.inference import Engine, attend
from triptych.model.packed import Shape

HERE = native.load()
needs_c = pytest.mark.skipif(HERE.rows is None, reason=HERE.why)
EIGHT, WHY = kernels._eight_bits(torch.device("cpu"))
needs_int8 = pytest.mark.skipif(EIGHT is None, reason=WHY)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@needs_c
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 384), (64, 1024), (2, 4099)], ids=str)
def test_quantised_rows_are_within_half_a_step(shape: tuple[int, int]) -> None:
    x = random(*shape)
    codes, steps = HERE.rows.quantize(x)
    back = (codes.double() - 128) * steps.double()[:, None]
    # Half a step, and the rounding of the division in float32.
    assert ((back - x.double()).abs() <= steps.double()[:, None] * 0.5001).all()
    assert codes.min() >= 1
    assert codes.max() <= 255


@needs_c
def test_a_row_of_zeros_is_quantised_to_zeros() -> None:
    codes, steps = HERE.rows.quantize(torch.zeros(2, 8, dtype=torch.bfloat16))
    assert (codes == 128).all()
    assert torch.isfinite(steps).all()


@needs_c
@pytest.mark.parametrize("rows", [1, 7, 33])
@pytest.mark.parametrize("columns", [3, 384, 1025])
def test_finishing_a_product_rescales_adds_and_activates(rows: int, columns: int) -> None:
    y, residual = random(rows, columns, seed=1), random(rows, columns, seed=2)
    scales, bias = random(rows, seed=3).float().abs(), random(columns, seed=4).float()
    whole = y.double() * scales.double()[:, None] + bias.double()
    close = {"atol": 2e-3, "rtol": 0.008}  # one rounding to bfloat16
    finish = HERE.rows.finish
    torch.testing.assert_close(finish(y.clone(), scales, bias).double(), whole, **close)
    torch.testing.assert_close(
        finish(y.clone(), scales, bias, residual).double(), whole + residual.double(), **close
    )
    expected = torch.nn.functional.gelu(whole)
    torch.testing.assert_close(finish(y.clone(), scales, bias, act=True).double(), expected, **close)


@needs_c
@pytest.mark.parametrize("spread", [0.1, 3.0, 300.0])
def test_the_softmax_is_torchs_up_to_one_rounding(spread: float) -> None:
    scores = random(5, 9, 300) * spread
    expected = torch.softmax(scores.double() * 0.25, -1)
    sums = HERE.rows.softmax(scores, 0.25)
    torch.testing.assert_close(scores.double() * sums.double()[..., None], expected, atol=1e-4, rtol=0.01)


@needs_c
@pytest.mark.parametrize("tokens", [1, 2, 7, 15, 16])
@pytest.mark.parametrize("heads", [(1, 16), (12, 32), (3, 128)], ids=str)
@pytest.mark.parametrize("spread", [0.1, 3.0, 100.0])
def test_attention_within_short_texts_is_exact_up_to_one_rounding(
    tokens: int, heads: tuple[int, int], spread: float
) -> None:
    texts = 3
    parts = random(texts * tokens, 3, *heads) * spread
    out = torch.full((texts * tokens, *heads), torch.nan, dtype=torch.bfloat16)
    HERE.rows.attend(parts, out, tokens)
    query, key, value = parts.double().view(texts, tokens, 3, *heads).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(query @ key.transpose(2, 3) / heads[1] ** 0.5, -1)
    expected = (weights @ value).transpose(1, 2).reshape(out.shape)
    torch.testing.assert_close(out.double(), expected, atol=2e-4 * spread, rtol=0.008)


@needs_c
@pytest.mark.parametrize("tokens", [16, 17])
@pytest.mark.parametrize("width", [24, 32, 144])
def test_texts_and_heads_of_any_size_are_computed_by_what_takes_them(tokens: int, width: int) -> None:
    lengths = (tokens, tokens, 3)
    qkv = random(sum(lengths), 3 * 2 * width)
    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    found = attend(qkv, 2, Shape.of(lengths, bounds)).double()
    for first, last in pairwise(bounds.tolist()):
        query, key, value = qkv[first:last].double().view(-1, 3, 2, width).permute(1, 2, 0, 3)
        exact = torch.softmax(query @ key.transpose(1, 2) / width**0.5, -1) @ value
        part = exact.transpose(0, 1).flatten(1)
        assert float((found[first:last] - part).norm() / part.norm()) < 0.01


@needs_c
def test_attention_is_the_same_with_and_without_the_compiled_functions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = (200, 200, 77)
    qkv = random(sum(lengths), 3 * 48)
    shape = Shape.of(lengths, torch.tensor([0, 200, 400, 477], dtype=torch.int32))
    compiled = attend(qkv, 3, shape)
    monkeypatch.setattr(native, "load", lambda: native.Native(None, "not here"))
    plain = attend(qkv, 3, shape)
    assert float((compiled.double() - plain.double()).norm() / plain.double().norm()) < 0.01


@needs_int8
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_the_engine_in_8_bits_stays_close_to_the_exact_one(kind: str) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 256}
    model, twin = make(kind, **sizes), make(kind, **sizes).bfloat16()
    engine = Engine(twin, EIGHT)
    texts = batch([40, 17, 17, 5, 1])
    with torch.inference_mode():
        expected, got = padded_states(model, texts, 0 if kind == "bert" else 1), engine(texts)
    cosine = torch.nn.functional.cosine_similarity(got.double(), expected.double(), dim=-1)
    assert float(cosine.mean()) > 0.995
    assert float(cosine.min()) > 0.98


@needs_int8
def test_what_8_bits_give_back_is_within_half_a_step_of_what_they_took() -> None:
    model = make("bert").bfloat16()
    before = {name: tensor.clone().float() for name, tensor in model.state_dict().items()}
    engine = Engine(model, EIGHT)
    engine.give_back()
    for name, tensor in model.state_dict().items():
        step = before[name].abs().amax(-1, keepdim=True) / 127 if tensor.dim() == 2 else 0
        # Half a step, and the rounding to bfloat16.
        assert ((tensor.float() - before[name]).abs() <= 0.51 * step + before[name].abs() * 0.005).all(), name


def test_8_bits_that_cannot_be_had_fall_back_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: native.Native(None, "no C compiler"))
    chosen, why = kernels.choose(torch.device("cpu"), torch.bfloat16, int8=True)
    assert "int8" not in chosen.name
    assert why.startswith("int8 was asked for, but")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and `load` as in a new process."""
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    native.load.cache_clear()
    yield tmp_path
    native.load.cache_clear()


@needs_c
def test_the_library_is_compiled_once_and_then_found(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.load().rows is not None
    built = list((fresh / "triptych").glob("rows-*.so"))
    assert len(built) == 1
    left = [path for path in (fresh / "triptych").iterdir() if path.suffix != ".ok"]
    assert left == built, "nothing else is left but the mark that they were tried"
    compiled = []
    run = subprocess.run
    monkeypatch.setattr(
        native.subprocess, "run", lambda command, **k: compiled.append(command) or run(command, **k)
    )
    native.load.cache_clear()
    assert native.load().rows is not None
    assert compiled == []


def test_without_a_compiler_there_are_no_functions_and_a_reason(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native.shutil, "which", lambda _: None)
    assert native.load() == native.Native(None, "no C compiler (cc, gcc, clang) on the path")


def test_a_compiler_that_fails_is_a_reason_not_an_error(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = fresh / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(native.shutil, "which", lambda _: str(broken))
    rows, why = native.load()
    assert rows is None
    assert "cannot be compiled" in why


@needs_c
def test_functions_that_compute_something_else_are_found_out() -> None:
    class Wrong(native.Rows):
        def softmax(self, scores, scale):
            return super().softmax(scores, scale * 1.3)

    assert "softmax is wrong" in (native.problem_of(Wrong(HERE.rows._library)) or "")
    assert native.problem_of(HERE.rows) is None


@needs_int8
def test_an_encoder_in_8_bits_says_so_and_ranks_as_the_exact_one(folder: Path) -> None:
    from checkpoints import TEXTS
    from triptych import Encoder

    exact = Encoder.from_pretrained(folder, device="cpu", dtype="float32").encode(TEXTS)
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="int8")
    assert encoder.describe() | {"why": ""} == {
        "device": "cpu",
        "dtype": "int8",
        "engine": "packed",
        "kernels": "onednn-int8",
        "why": "",
    }
    got = encoder.encode(TEXTS)
    assert (got.dense * exact.dense).sum(1).min() > 0.98
    assert np.abs(got.lexical - exact.lexical).max() < 0.15 * exact.lexical.max()
