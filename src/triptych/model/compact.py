"""One safetensors file in which a matrix may be stored in 4 or 8 bits.

A compact tensor NAME is two tensors of the file, ``NAME::codes`` and ``NAME::scales`` (see
`triptych.ops.rowquant`), and an entry of the JSON object that the file's metadata holds under
``triptych.quantized``::

    {"NAME": {"bits": 4, "block": 32, "shape": [rows, columns]}}

All other tensors are as in any safetensors file; a file without compact tensors is an ordinary one.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from triptych.errors import InputError, ModelError, StorageError
from triptych.files import replacing
from triptych.ops.rowquant import BLOCK, Quantized

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
    """Reads a file of tensors as `read_tensors` does, but leaves compact ones compact; `write_tensors` takes them."""
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
        with cast(Any, safe_open)(path, framework="np") as file:
            described = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            names: list[str] = list(file.keys())
            wide = [name for name in names if file.get_slice(name).get_dtype() == "BF16"]
            tensors.update({name: file.get_tensor(name) for name in names if name not in wide})
        tensors.update(_read_bfloat16(path, wide))
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read as a safetensors file: {error}") from error
    if not isinstance(described, dict):
        raise ModelError(f"{path}: metadata {METADATA_KEY!r}: got {described!r}; expected an object")
    return tensors, cast(dict[str, Any], described)


def _read_bfloat16(path: Path, names: list[str]) -> dict[str, Tensor]:
    if not names:
        return {}
    with cast(Any, safe_open)(path, framework="pt") as file:
        return {name: file.get_tensor(name).float().numpy() for name in names}


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
