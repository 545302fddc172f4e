"""The tensors and the JSON files of a checkpoint; matrices in 4 or 8 bits keep the bundled model's tables small.

4 bits: a row is cut into blocks of 32 columns, and every block has a float16 scale d and 32 codes::

    value = d · (code − 8),   code in 0..15

The codes of a block are 16 bytes; byte i holds column i in its low half and column i + 16 in its high half.
This is the "Q4_0" form of the GGML file formats, so that a source in that form is taken over byte by byte.

8 bits: every row has one float32 scale d, and every column one byte::

    value = d · (code − 128),   code in 1..255

In a safetensors file a compact tensor NAME is two tensors, ``NAME::codes`` and ``NAME::scales``, and an entry of the
JSON object that the file's metadata holds under ``triptych.quantized``::

    {"NAME": {"bits": 4, "block": 32, "shape": [rows, columns]}}

All other tensors are as in any safetensors file; a file without compact tensors is an ordinary one.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from triptych.errors import InputError, ModelError, StorageError
from triptych.io import replacing

_Kind = TypeVar("_Kind", dict[str, Any], list[Any])


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds a JSON object.

    Raises:
        ModelError: If it is missing, not JSON, or holds something else; names the file.
    """
    return _read(path, dict[str, Any](), "object")


def read_list(path: Path) -> list[Any]:
    """Reads a file that holds a JSON array; raises as `read_object`."""
    return _read(path, list[Any](), "array")


def _read(path: Path, kind: _Kind, name: str) -> _Kind:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(values, type(kind)):
        raise ModelError(f"{path}: expected a JSON {name}, got {type(values).__name__}")
    return values


Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]

BLOCK = 32
"""Columns that share a scale in the 4-bit form."""

_ROWS_AT_ONCE = 8192
"""Rows that are worked on together: bounds the float32 copies that quantisation makes."""

# A block's largest value (by magnitude) stands for one of these multiples of its scale. −8 uses all 16 codes;
# the others let a block that was made with any scale be found again exactly, and often fit better.
_MULTIPLES = (-8, 7, 6, 5, 4, 3, 2, 1)


class Quantized(NamedTuple):
    """A matrix ``[R, C]`` in few bits.

    Attributes:
        codes: uint8; 4 bits ``[R, ⌈C/32⌉·16]``, 8 bits ``[R, C]``.
        scales: 4 bits float16 ``[R, ⌈C/32⌉]``, 8 bits float32 ``[R, 1]``.
        bits: 4 or 8.
        columns: C.
    """

    codes: Bytes
    scales: NDArray[Any]
    bits: int
    columns: int

    @classmethod
    def of(cls, matrix: NDArray[Any], bits: int) -> Quantized:
        """Quantises `matrix`; see `quantize`."""
        return cls(*quantize(matrix, bits), bits, int(matrix.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """(R, C)."""
        return len(self.codes), self.columns

    def dequantize(self) -> Floats:
        """float32 ``[R, C]``; see `dequantize`."""
        return dequantize(self.codes, self.scales, self.bits, self.columns)

    def rows(self, numbers: NDArray[np.int64]) -> Floats:
        """Some rows of `dequantize`, float32 ``[N, C]``."""
        return dequantize(self.codes[numbers], self.scales[numbers], self.bits, self.columns)

    def elements(self, numbers: NDArray[np.int64]) -> Floats:
        """Some elements of the flat `dequantize`, float32 ``[N]``."""
        rows, columns = np.divmod(numbers, self.columns)
        if self.bits == 8:
            return (self.codes[rows, columns].astype(np.float32) - 128) * self.scales[rows, 0]
        blocks, within = np.divmod(columns, BLOCK)
        both = self.codes[rows, blocks * (BLOCK // 2) + within % (BLOCK // 2)]
        codes = np.where(within < BLOCK // 2, both & 15, both >> 4).astype(np.float32)
        return (codes - 8) * self.scales[rows, blocks].astype(np.float32)


def quantize(matrix: NDArray[Any], bits: int) -> tuple[Bytes, NDArray[Any]]:
    """Codes and scales of a matrix.

    **Math** (4 bits): with m the value of the largest magnitude in a block, d is that one of m/k, k in
    {−8, 7, 6, …, 1}, rounded to float16, whose codes ``round(x/d)`` limited to −8..7 have the least squared
    error. Hence a block that is already of the form d·q is recovered without loss, and ``|x − x̂| ≤ |d|/2``
    but for values that k = −8 clips from +8 to +7. 8 bits: ``d = max|row| / 127`` in float32, and
    ``|x − x̂| ≤ d/2``.

    Args:
        matrix: ``[R, C]``, any real type, finite.
        bits: 4 or 8.

    Returns:
        codes and scales as in `Quantized`.

    Raises:
        InputError: For another number of bits, an array that is not a matrix, a value that is not finite, or
            (4 bits) one too large for a float16 scale.
    """
    if matrix.ndim != 2:
        raise InputError(f"quantize: got an array of shape {matrix.shape}; expected a matrix")
    step = _choose(bits, _quantize4, _quantize8, "quantize")
    parts = [
        step(np.asarray(matrix[start : start + _ROWS_AT_ONCE], dtype=np.float32))
        for start in range(0, max(len(matrix), 1), _ROWS_AT_ONCE)
    ]
    return np.concatenate([codes for codes, _ in parts]), np.concatenate([scales for _, scales in parts])


def dequantize(codes: Bytes, scales: NDArray[Any], bits: int, columns: int) -> Floats:
    """The matrix that `quantize` coded.

    Args:
        codes: As `quantize` gave them.
        scales: As `quantize` gave them.
        bits: 4 or 8.
        columns: C, which the padding of the last block hides from the codes.

    Returns:
        float32 ``[R, columns]``.

    Raises:
        InputError: If the arrays' types or shapes do not fit each other, `bits` and `columns`.
    """
    step = _choose(bits, _dequantize4, _dequantize8, "dequantize")
    blocks = -(-columns // BLOCK)
    width, per_row = (blocks * BLOCK // 2, blocks) if bits == 4 else (columns, 1)
    rows = len(codes)
    fits = codes.shape == (rows, width) and scales.shape == (rows, per_row)
    if not fits or codes.dtype != np.uint8 or scales.dtype.kind != "f":
        raise InputError(
            f"dequantize: got codes {codes.dtype}{list(codes.shape)}, "
            f"scales {scales.dtype}{list(scales.shape)}; "
            f"expected for {bits} bits and {columns} columns uint8[R, {width}] and floats [R, {per_row}]"
        )
    matrix = np.empty((rows, columns), dtype=np.float32)
    for start in range(0, rows, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        matrix[part] = step(codes[part], scales[part].astype(np.float32))[:, :columns]
    return matrix


def _choose(bits: int, four: Any, eight: Any, where: str) -> Any:
    if bits not in (4, 8):
        raise InputError(f"{where}: got bits = {bits!r}; expected 4 or 8")
    return four if bits == 4 else eight


def _check_finite(values: Floats) -> None:
    if not np.isfinite(values).all():
        raise InputError("quantize: got a value that is not finite; expected finite numbers")


def _quantize4(rows: Floats) -> tuple[Bytes, NDArray[Any]]:
    _check_finite(rows)
    count, columns = rows.shape
    blocks = np.zeros((count, -(-columns // BLOCK) * BLOCK), dtype=np.float32)
    blocks[:, :columns] = rows
    blocks = blocks.reshape(-1, BLOCK)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    if (np.abs(extreme) > np.float32(np.finfo(np.float16).max)).any():
        raise InputError("quantize: got a value above 65504; expected values that a float16 scale can reach")
    best = np.full(len(blocks), np.inf)
    codes = np.zeros(blocks.shape, dtype=np.uint8)
    scales = np.zeros((len(blocks), 1), dtype=np.float16)
    for multiple in _MULTIPLES:
        tried = (extreme / np.float32(multiple)).astype(np.float16)
        number = _round_to(blocks, tried.astype(np.float32))
        error = np.square(blocks - number * tried.astype(np.float32), dtype=np.float64).sum(axis=1)
        better = error < best
        best[better], scales[better] = error[better], tried[better]
        codes[better] = (number[better] + 8).astype(np.uint8)
    packed = codes[:, : BLOCK // 2] | (codes[:, BLOCK // 2 :] * np.uint8(16))
    width = -(-columns // BLOCK)
    return packed.reshape(count, width * BLOCK // 2), scales.reshape(count, width)


def _round_to(blocks: Floats, scales: Floats) -> Floats:
    """The numbers −8..7 nearest to blocks / scales; 0 where the scale is 0."""
    safe = np.where(scales == 0, np.float32(1), scales)
    return np.where(scales == 0, np.float32(0), np.rint(blocks / safe).clip(-8, 7))


def _dequantize4(codes: Bytes, scales: Floats) -> Floats:
    blocks = codes.reshape(-1, BLOCK // 2)
    values = np.concatenate([blocks & 15, blocks >> 4], axis=1).astype(np.float32) - 8
    return (values * scales.reshape(-1, 1)).reshape(len(codes), scales.shape[1] * BLOCK)


def _quantize8(rows: Floats) -> tuple[Bytes, NDArray[Any]]:
    _check_finite(rows)
    scales = np.abs(rows).max(axis=1, keepdims=True, initial=0) / np.float32(127)
    safe = np.where(scales == 0, np.float32(1), scales)
    return (np.rint(rows / safe).clip(-127, 127) + 128).astype(np.uint8), scales


def _dequantize8(codes: Bytes, scales: Floats) -> Floats:
    return (codes.astype(np.float32) - 128) * scales


Tensor: TypeAlias = NDArray[Any]

METADATA_KEY = "triptych.quantized"
CODES = "::codes"
SCALES = "::scales"


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Reads a file of tensors; compact ones are expanded.

    Args:
        path: A safetensors file, ours or any other.

    Returns:
        Name → array, by name. What was compact or bfloat16 is float32, the rest has the type it is stored in.

    Raises:
        ModelError: If the file is missing or broken, or a compact tensor incomplete; names the file.
    """
    found = read_stored(path)
    return {
        name: _expanded(Path(path), name, tensor) if isinstance(tensor, Quantized) else tensor
        for name, tensor in found.items()
    }


def read_stored(path: Path | str) -> dict[str, Tensor | Quantized]:
    """Reads a file of tensors as `read_tensors` does, but leaves compact ones compact; `write_tensors` takes them.

    The arrays are views of the file, which is mapped into memory: they are read from it when they are used. Changes
    of the arrays do not reach the file.
    """
    stored, described = _read_raw(Path(path))
    compact: dict[str, Quantized] = {}
    for name, entry in described.items():
        codes, scales = stored.pop(name + CODES, None), stored.pop(name + SCALES, None)
        if codes is None or scales is None:
            raise ModelError(f"{path}: compact tensor {name!r}: got no codes or no scales; expected both")
        if name in stored:
            raise ModelError(f"{path}: tensor {name!r} is there twice, compact and plain; expected one")
        compact[name] = _described(Path(path), name, entry, codes, scales)
    stray = [name for name in stored if name.endswith((CODES, SCALES))]
    if stray:
        raise ModelError(
            f"{path}: got {stray} without an entry in the metadata {METADATA_KEY!r}; expected one for each"
        )
    return dict(sorted({**stored, **compact}.items()))


def write_tensors(
    path: Path | str, tensors: Mapping[str, Tensor | Quantized], bits: Mapping[str, int] | None = None
) -> None:
    """Writes a file of tensors; the file appears whole or not at all.

    Args:
        path: The file; its folder must exist. A file that is there is replaced.
        tensors: Name → array, or an already quantised matrix, which is stored as it is.
        bits: Name → 4 or 8 for the matrices to store compactly.

    Raises:
        InputError: For a name in `bits` that is no tensor, or an array that cannot be stored so.
        StorageError: If the file cannot be written (disk full, no permission); what was there is kept.
    """
    compact = dict(bits or {})
    unknown = sorted(set(compact) - set(tensors))
    if unknown:
        raise InputError(
            f"write_tensors: bits names {unknown}, which are no tensors; expected names among the tensors"
        )
    plain: dict[str, Tensor] = {}
    described: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if name in compact and not isinstance(tensor, Quantized):
            tensor = Quantized.of(tensor, compact[name])
        if isinstance(tensor, Quantized):
            plain[name + CODES], plain[name + SCALES] = tensor.codes, tensor.scales
            block = BLOCK if tensor.bits == 4 else tensor.columns
            described[name] = {"bits": tensor.bits, "block": block, "shape": list(tensor.shape)}
        else:
            if tensor.dtype.kind not in "biuf":
                raise InputError(f"write_tensors: {name!r} has type {tensor.dtype}; expected real numbers")
            plain[name] = tensor
    # One entry alone, since the library writes several in random order. transformers asks for "format"; it
    # cannot read a file with compact tensors anyway.
    metadata = {METADATA_KEY: json.dumps(described, sort_keys=True)} if described else {"format": "pt"}
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in plain.items()}
    with replacing(Path(path)) as temporary:
        try:
            save_file(arrays, temporary, metadata)
        except SafetensorError as error:  # a full disk comes as this, without its number
            raise StorageError(errno.EIO, f"{path}: cannot be written: {error}") from error


def _read_raw(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file; expected a safetensors file")
    tensors: dict[str, Tensor] = {}
    try:
        # For torch, since the library copies what it gives to NumPy.
        with cast(Any, safe_open)(path, framework="pt") as file:
            described = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                tensors[name] = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read as a safetensors file: {error}") from error
    if not isinstance(described, dict):
        raise ModelError(f"{path}: metadata {METADATA_KEY!r}: got {described!r}; expected an object")
    return tensors, cast(dict[str, Any], described)


def _described(path: Path, name: str, entry: Any, codes: Tensor, scales: Tensor) -> Quantized:
    try:
        bits, (rows, columns) = entry["bits"], entry["shape"]
        if entry["block"] != (BLOCK if bits == 4 else columns) or rows != len(codes):
            raise InputError(
                f"got {entry!r} with {len(codes)} rows of codes; expected the same rows, block {BLOCK}"
            )
        return Quantized(codes, scales, bits, columns)
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, name, error) from error


def _expanded(path: Path, name: str, tensor: Quantized) -> Tensor:
    try:
        return tensor.dequantize()
    except (TypeError, ValueError) as error:
        raise _broken(path, name, error) from error


def _broken(path: Path, name: str, error: Exception) -> ModelError:
    return ModelError(f"{path}: compact tensor {name!r}: cannot be expanded: {error!r}")
