"""Matrices in few bits, and the file that holds them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from triptych.errors import InputError, ModelError, StorageError
from triptych.model import tensors as compact
from triptych.model.tensors import BLOCK, Quantized, dequantize, quantize


def slow_dequantize4(codes: np.ndarray, scales: np.ndarray, columns: int) -> np.ndarray:
    """value = d · (code − 8), one number at a time."""
    matrix = np.zeros((len(codes), columns))
    for r in range(len(codes)):
        for c in range(columns):
            block, place = divmod(c, BLOCK)
            byte = int(codes[r, block * 16 + place % 16])
            code = byte & 15 if place < 16 else byte >> 4
            matrix[r, c] = float(scales[r, block]) * (code - 8)
    return matrix


def slow_best_error4(block: np.ndarray) -> float:
    """Least squared error over the scales m/k, rounded to float16."""
    extreme = max(block.tolist(), key=abs)
    errors = []
    for multiple in (-8, 7, 6, 5, 4, 3, 2, 1):
        scale = float(np.float16(np.float32(extreme) / np.float32(multiple)))
        near = [min(max(round(x / scale), -8), 7) if scale else 0 for x in block.tolist()]
        errors.append(sum((x - scale * q) ** 2 for x, q in zip(block.tolist(), near, strict=True)))
    return min(errors)


shapes = st.tuples(st.integers(0, 5), st.integers(1, 70))


def some_matrix(shape: tuple[int, int], seed: int, size: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * size).astype(np.float32)


@given(shapes, st.integers(0, 1000), st.sampled_from([1e-2, 1.0, 300.0]))
def test_four_bits_are_off_by_at_most_a_scale_and_by_half_on_average(
    shape: tuple[int, int], seed: int, size: float
) -> None:
    matrix = some_matrix(shape, seed, size)
    codes, scales = quantize(matrix, 4)
    assert codes.dtype == np.uint8
    assert scales.dtype == np.float16
    back = dequantize(codes, scales, 4, shape[1])
    # With k = −8 a value of the other sign may be clipped from +8 to +7, which is off by a whole scale.
    bound = np.repeat(np.abs(scales.astype(np.float64)), BLOCK, axis=1)[:, : shape[1]]
    assert (np.abs(back - matrix) <= bound * 1.01).all()
    assert (np.abs(back - matrix).mean() if matrix.size else 0) <= (bound.mean() / 2 if matrix.size else 0)


@given(shapes, st.integers(0, 1000))
def test_four_bits_agree_with_the_slow_inverse_and_the_least_error(shape: tuple[int, int], seed: int) -> None:
    matrix = some_matrix(shape, seed)
    codes, scales = quantize(matrix, 4)
    back = dequantize(codes, scales, 4, shape[1])
    np.testing.assert_array_equal(back, slow_dequantize4(codes, scales, shape[1]))
    for r in range(shape[0]):
        for start in range(0, shape[1], BLOCK):
            block = matrix[r, start : start + BLOCK]
            error = float(np.square(block.astype(np.float64) - back[r, start : start + BLOCK]).sum())
            assert error <= slow_best_error4(block) * (1 + 1e-9) + 1e-12


@given(shapes, st.integers(0, 1000), st.integers(0, 7), st.integers(0, 7))
def test_values_of_the_form_scale_times_code_are_recovered_without_loss(
    shape: tuple[int, int], seed: int, low: int, high: int
) -> None:
    generator = np.random.default_rng(seed)
    numbers = generator.integers(-low - 1, high + 1, shape)
    scales = generator.standard_normal((shape[0], -(-shape[1] // BLOCK))).astype(np.float16)
    matrix = (numbers * np.repeat(scales.astype(np.float32), BLOCK, axis=1)[:, : shape[1]]).astype(np.float32)
    assert (Quantized.of(matrix, 4).dequantize() == matrix).all()


@pytest.mark.parametrize("bits", [4, 8])
@given(shapes, st.integers(0, 1000))
def test_quantising_twice_changes_nothing_more(bits: int, shape: tuple[int, int], seed: int) -> None:
    once = Quantized.of(some_matrix(shape, seed), bits).dequantize()
    twice = Quantized.of(once, bits).dequantize()
    np.testing.assert_allclose(twice, once, rtol=0 if bits == 4 else 1e-6)


@given(shapes, st.integers(0, 1000), st.sampled_from([1e-3, 1.0, 1e6]))
def test_eight_bits_are_off_by_at_most_half_a_scale(shape: tuple[int, int], seed: int, size: float) -> None:
    matrix = some_matrix(shape, seed, size)
    codes, scales = quantize(matrix, 8)
    assert codes.shape == shape
    assert scales.shape == (shape[0], 1)
    assert scales.dtype == np.float32
    back = dequantize(codes, scales, 8, shape[1])
    assert (np.abs(back - matrix) <= scales * 0.5001).all()
    expected = np.abs(matrix).max(axis=1, keepdims=True, initial=0) / np.float32(127)
    np.testing.assert_array_equal(scales, expected)


def test_many_rows_are_the_same_as_row_by_row() -> None:
    matrix = some_matrix((8192 + 3, 40), 0)
    for bits in (4, 8):
        whole = Quantized.of(matrix, bits).dequantize()
        for rows in (slice(0, 2), slice(8190, 8195)):
            np.testing.assert_array_equal(whole[rows], Quantized.of(matrix[rows], bits).dequantize())


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zero(bits: int) -> None:
    assert not Quantized.of(np.zeros((2, 33)), bits).dequantize().any()


@pytest.mark.parametrize(
    ("matrix", "bits", "message"),
    [
        (np.zeros((2, 2)), 3, "bits = 3; expected 4 or 8"),
        (np.zeros(3), 4, "expected a matrix"),
        (np.array([[np.nan]]), 4, "finite"),
        (np.array([[np.inf]]), 8, "finite"),
        (np.array([[7e4]]), 4, "65504"),
    ],
)
def test_what_cannot_be_quantised_is_an_error(matrix: np.ndarray, bits: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantize(matrix, bits)


@pytest.mark.parametrize(("bits", "columns"), [(4, 65), (4, 32), (8, 63), (5, 64)])
def test_codes_that_do_not_fit_are_an_error(bits: int, columns: int) -> None:
    codes, scales = quantize(np.ones((2, 64)), 4)
    with pytest.raises(InputError, match="dequantize"):
        dequantize(codes, scales, bits, columns)


def tensors() -> dict[str, np.ndarray]:
    return {
        "table": some_matrix((9, 64), 1),
        "other": some_matrix((4, 40), 2),
        "bias": np.arange(3, dtype=np.float32),
        "half": np.ones((2, 2), dtype=np.float16),
        "whole": np.array(7, dtype=np.int64),
        "none": np.zeros((0, 5), dtype=np.float32),
    }


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    compact.write_tensors(path, tensors(), {"table": 4, "other": 8})
    back = compact.read_tensors(path)
    assert list(back) == sorted(tensors())
    for name, tensor in tensors().items():
        bits = {"table": 4, "other": 8}.get(name)
        expected = tensor if bits is None else Quantized.of(tensor, bits).dequantize()
        assert back[name].dtype == expected.dtype
        np.testing.assert_array_equal(back[name], expected)


def test_a_quantised_matrix_is_stored_as_it_is(tmp_path: Path) -> None:
    # These values are 1 and 2 quarters: quantising anew would choose other scales.
    given_ = Quantized(np.full((2, 16), 0x9A, np.uint8), np.full((2, 1), 0.25, np.float16), 4, 32)
    compact.write_tensors(tmp_path / "f", {"table": given_})
    raw = load_file(tmp_path / "f")
    np.testing.assert_array_equal(raw["table::codes"], given_.codes)
    np.testing.assert_array_equal(raw["table::scales"], given_.scales)
    np.testing.assert_array_equal(compact.read_tensors(tmp_path / "f")["table"], given_.dequantize())


def test_a_file_without_compact_tensors_is_one_that_safetensors_reads(tmp_path: Path) -> None:
    compact.write_tensors(tmp_path / "f", tensors())
    theirs = load_file(tmp_path / "f")
    assert set(theirs) == set(tensors())
    for name, tensor in tensors().items():
        np.testing.assert_array_equal(theirs[name], tensor)


def test_a_file_of_safetensors_is_read(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "f")
    for name, tensor in compact.read_tensors(tmp_path / "f").items():
        np.testing.assert_array_equal(tensor, tensors()[name])


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    values = torch.tensor([[1.0, -2.5, 3.140625]], dtype=torch.bfloat16)
    save_torch({"w": values}, tmp_path / "f")
    back = compact.read_tensors(tmp_path / "f")["w"]
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, [[1.0, -2.5, 3.140625]])


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    compact.write_tensors(tmp_path / "a", tensors(), {"table": 4})
    compact.write_tensors(tmp_path / "b", dict(reversed(tensors().items())), {"table": 4})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_bits_for_an_unknown_tensor_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tabel"):
        compact.write_tensors(tmp_path / "f", tensors(), {"tabel": 4})
    assert list(tmp_path.iterdir()) == []


def test_a_type_that_the_format_does_not_know_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="complex128"):
        compact.write_tensors(tmp_path / "f", {"w": np.zeros(2, dtype=np.complex128)})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_storage_error_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    compact.write_tensors(path, tensors())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"model\.safetensors: .*No space left"):
        compact.write_tensors(path, {"w": np.ones(3)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        compact.write_tensors(tmp_path / "nowhere" / "f", tensors())


def test_a_missing_file_is_a_model_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.safetensors.*no such file"):
        compact.read_tensors(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_cut_file_is_a_model_error_that_names_it(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    compact.write_tensors(path, tensors(), {"table": 4})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        compact.read_tensors(path)


def described(entry: Any) -> dict[str, str]:
    return {compact.METADATA_KEY: json.dumps({"w": entry})}


def whole(bits: Any = 4, block: Any = 32, shape: Any = (2, 64)) -> dict[str, Any]:
    return {"bits": bits, "block": block, "shape": shape}


@pytest.mark.parametrize(
    ("metadata", "drop"),
    [
        (described(whole()), "w::codes"),
        (described(whole()), "w::scales"),
        (described(whole(bits=8)), ""),
        (described(whole(bits="4")), ""),
        (described(whole(block=16)), ""),
        (described(whole(shape=[2, 96])), ""),
        (described(whole(shape=[3, 64])), ""),
        (described(whole(shape=[2])), ""),
        (described({}), ""),
        (described(7), ""),
        ({compact.METADATA_KEY: "[]"}, ""),
        ({compact.METADATA_KEY: "{"}, ""),
        ({}, ""),
    ],
)
def test_an_incomplete_compact_tensor_is_a_model_error(
    tmp_path: Path, metadata: dict[str, str], drop: str
) -> None:
    codes, scales = quantize(np.ones((2, 64)), 4)
    parts = {"w::codes": codes, "w::scales": scales, "x": np.ones(1)}
    parts.pop(drop, None)
    save_file(parts, tmp_path / "f", metadata)
    with pytest.raises(ModelError, match=str(tmp_path / "f")):
        compact.read_tensors(tmp_path / "f")


def test_a_tensor_both_compact_and_plain_is_a_model_error(tmp_path: Path) -> None:
    codes, scales = quantize(np.ones((2, 64)), 4)
    save_file({"w::codes": codes, "w::scales": scales, "w": np.ones(1)}, tmp_path / "f", described(whole()))
    with pytest.raises(ModelError, match="twice"):
        compact.read_tensors(tmp_path / "f")
