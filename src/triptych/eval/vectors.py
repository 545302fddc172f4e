"""The vectors of a corpus, block by block: encoded once, kept on disk, read as often as needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from triptych.errors import DataError, InputError
from triptych.eval.collection import Corpus
from triptych.eval.contender import Progress, VectorModel
from triptych.files import write_atomically, write_json
from triptych.ops.packing import pack, unpack
from triptych.types import Encoded, Head, Ragged

TokenType: TypeAlias = Literal["float32", "float16"]

BLOCK = 1024
"""Documents that are encoded, written and scored at once."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """All documents of a corpus as a model encodes them; can be gone through any number of times.

    Attributes:
        model: What encodes.
        corpus: What is encoded.
        size: Number of documents.
        folder: Where the blocks are kept; what is there is not encoded again. None: nothing is kept, and every
            pass encodes anew.
        tokens: Form in which token vectors are kept: float16 takes half the room and moves scores by about 1e-4.
        block: Documents a block.
    """

    model: VectorModel
    corpus: Corpus
    size: int
    folder: Path | None
    tokens: TokenType = "float32"
    block: int = BLOCK

    @classmethod
    def of(
        cls,
        model: VectorModel,
        corpus: Corpus,
        size: int,
        cache: Path | None,
        *,
        tokens: TokenType = "float32",
        block: int = BLOCK,
    ) -> Vectors:
        """The vectors under `cache`, in a folder named after all that determines them."""
        folder = None
        if cache is not None:
            facts = {"corpus": corpus.digest, "tokens": tokens, "block": block} | _facts(model)
            folder = cache / _key(facts)
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "about.json").is_file():
                write_json(folder / "about.json", {"model": model.name, "documents": size, **facts})
        return cls(model, corpus, size, folder, tokens, block)

    def blocks(
        self, progress: Progress | None = None, heads: Sequence[Head] | None = None
    ) -> Iterator[tuple[int, Encoded]]:
        """The blocks in order, each with the number of its first document.

        Args:
            progress: Called with (documents done, size) after each block.
            heads: What to read of the kept blocks; None: all. A block that is encoded has all in any case.

        Raises:
            DataError: If a kept block cannot be read.
            InputError: If the model gives another number of texts than it was asked for.
        """
        done = 0
        for path in self._kept():
            yield done, _read(path, heads)
            done = min(self.size, done + self.block)
            if progress is not None:
                progress(done, self.size)
        if done == self.size:
            return
        texts = (document.text for document in islice(self.corpus, done, None))
        for part in self.model.encode_documents(texts, self.block):
            if len(part) != min(self.block, self.size - done):
                raise InputError(
                    f"{self.model.name}: encoded {len(part)} documents at {done}; expected blocks of {self.block}, "
                    f"{self.size} in all"
                )
            part = self._stored(part, done // self.block)
            yield done, part
            done += len(part)
            if progress is not None:
                progress(done, self.size)
        if done != self.size:
            raise InputError(f"{self.model.name}: encoded {done} documents; expected {self.size}")

    def _kept(self) -> Iterator[Path]:
        """The files that are there, from the first to the first that is missing."""
        if self.folder is None:
            return
        for number in range(-(-self.size // self.block)):
            path = self._path(self.folder, number)
            if not path.is_file():
                return
            yield path

    def _stored(self, part: Encoded, number: int) -> Encoded:
        if part.multi is not None and self.tokens == "float16":
            halves = Ragged(part.multi.values.astype(np.float16), part.multi.offsets)
            part = Encoded(part.dense, part.lexical, halves)
        if self.folder is not None:
            write_atomically(self._path(self.folder, number), save(pack(part)))
        return part

    @staticmethod
    def _path(folder: Path, number: int) -> Path:
        return folder / f"{number:06d}.safetensors"


def encode_queries(model: VectorModel, texts: Sequence[str], cache: Path | None) -> Encoded:
    """Encodes queries, or reads what an earlier run encoded of the same texts with the same model."""
    if cache is None:
        return model.encode_queries(texts)
    digest = hashlib.blake2b(json.dumps(list(texts)).encode(), digest_size=16).hexdigest()
    path = cache / f"queries-{_key({'texts': digest} | _facts(model))}.safetensors"
    if path.is_file():
        return _read(path, None)
    encoded = model.encode_queries(texts)
    cache.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(pack(encoded)))
    return encoded


def heads_of(model: VectorModel) -> tuple[Head, ...]:
    """The heads that some mode of the model uses."""
    used = {head for weights in model.modes.values() for head in weights.heads}
    return tuple(head for head in ("dense", "lexical", "multi") if head in used)


def _facts(model: VectorModel) -> dict[str, Any]:
    return {"fingerprint": model.fingerprint, "heads": heads_of(model)}


def _key(facts: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()


def _read(path: Path, heads: Sequence[Head] | None) -> Encoded:
    try:
        if heads is None:
            return unpack(load_file(path))
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if name.split(".")[0] in heads]  # noqa: SIM118
            return unpack({name: file.get_tensor(name) for name in names})
    except (SafetensorError, OSError) as error:
        raise DataError(f"cannot be read ({error}); remove it, and it will be made again", path) from error
