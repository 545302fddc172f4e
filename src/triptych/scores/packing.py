"""An `Encoded` as named arrays, the form in which it is written to files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from scipy import sparse

from triptych.types import Encoded, Ragged

DIGEST = "digest"
"""The key of the metadata under which a file has the digest of all its arrays."""


def pack(encoded: Encoded) -> dict[str, NDArray[Any]]:
    """An `Encoded` as named arrays."""
    arrays: dict[str, NDArray[Any]] = {}
    if encoded.dense is not None:
        arrays["dense"] = encoded.dense
    if encoded.lexical is not None:
        csr = encoded.lexical
        arrays |= {"lexical.data": csr.data, "lexical.indices": csr.indices, "lexical.indptr": csr.indptr}
        arrays["lexical.shape"] = np.array(csr.shape)
    if encoded.multi is not None:
        arrays |= {"multi.values": encoded.multi.values, "multi.offsets": encoded.multi.offsets}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def digest(arrays: Mapping[str, NDArray[Any]], also: str = "") -> str:
    """BLAKE2b of named arrays, 16 bytes as hex: of their names, types, shapes and bytes, and of what else is said."""
    found = hashlib.blake2b(also.encode(), digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.data.cast("B") if array.size else b"")
    return found.hexdigest()


def damage(path: Path) -> str | None:
    """Compares encoded texts in a safetensors file with the digests in it, of all arrays or of each.

    Returns:
        What is wrong; None: nothing; the empty string: it has no digest.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            written, names = dict(file.metadata() or {}), set(file.keys())
            if DIGEST not in written and written.keys() != names:
                return ""
            arrays = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        return f"cannot be read ({error}); remove it, and it will be made again"
    if DIGEST in written:
        whole = written[DIGEST] == digest(arrays)
    else:
        whole = all(written[name] == digest({name: array}) for name, array in arrays.items())
    return None if whole else "is damaged (its digest differs); remove it, and it will be made again"


def unpack(arrays: Mapping[str, NDArray[Any]]) -> Encoded:
    """The inverse of `pack`."""
    lexical = multi = None
    if "lexical.data" in arrays:
        parts = tuple(arrays[f"lexical.{name}"] for name in ("data", "indices", "indptr"))
        rows, columns = arrays["lexical.shape"].tolist()
        lexical = sparse.csr_array(parts, shape=(rows, columns))
    if "multi.values" in arrays:
        multi = Ragged(arrays["multi.values"], arrays["multi.offsets"])
    return Encoded(arrays.get("dense"), lexical, multi)
