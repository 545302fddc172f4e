"""Models run by FlagEmbedding itself, from a folder, as contenders: BGE-M3 with its three heads, or any dense one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from triptych.errors import MissingExtra
from triptych.eval.contenders import fingerprint, in_blocks, modes_of, the_folder
from triptych.types import HEADS, Encoded, Head, HeadWeights, Ragged

_HEAD_FILES = ("sparse_linear.pt", "colbert_linear.pt")
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True, slots=True, eq=False)
class FlagContender:
    """A model of FlagEmbedding in an evaluation.

    Attributes:
        model: The library's object.
        name: For tables.
        fingerprint: See `triptych.eval.contenders.VectorModel`.
        heads: All three of a folder in BGE-M3's published layout, else the dense one.
    """

    model: Any
    name: str
    fingerprint: str
    heads: tuple[Head, ...]

    @classmethod
    def open(
        cls, folder: Path, device: str | None = None, *, half: bool = False, query_prompt: str | None = None
    ) -> FlagContender:
        """Loads a folder; the pooling of a dense model is what ``1_Pooling/config.json`` says, else [CLS].

        Args:
            folder: Of the model.
            device: None: the library's choice.
            half: Compute in float16.
            query_prompt: Put before queries.

        Raises:
            MissingExtra: Without FlagEmbedding.
            ModelError: If the folder holds no model.
        """
        try:
            import FlagEmbedding
        except ImportError as error:
            raise MissingExtra("a FlagEmbedding model", "parity") from error
        options: dict[str, Any] = {"use_fp16": half, "devices": device}
        if query_prompt is not None:
            options["query_instruction_for_retrieval"] = query_prompt
            options["query_instruction_format"] = "{}{}"
        heads: tuple[Head, ...] = HEADS
        package: Any = FlagEmbedding
        if all((the_folder(folder) / name).is_file() for name in _HEAD_FILES):
            model: Any = package.BGEM3FlagModel(str(folder), **options)
        else:
            heads = ("dense",)
            model = package.FlagModel(str(folder), pooling_method=_pooling(folder), **options)
        mark = fingerprint(folder, {"half": half, "prompt": query_prompt})
        return cls(model, f"{folder.resolve().name} (FlagEmbedding)", mark, heads)

    @property
    def modes(self) -> Mapping[str, HeadWeights]:
        """All that the heads allow."""
        return modes_of(self.heads)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a reader wants to know of it."""
        return {"library": f"FlagEmbedding {version('FlagEmbedding')}", "half": bool(self.model.use_fp16)}

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """Encodes queries."""
        return self._encoded(self.model.encode_queries, texts)

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        """Encodes documents in blocks."""
        return in_blocks(texts, block, lambda part: self._encoded(self.model.encode_corpus, part))

    def _encoded(self, method: Any, texts: Sequence[str]) -> Encoded:
        """The library's output as an `Encoded`; it is never called without a text, which it cannot encode."""
        given = list(texts) or [" "]
        if self.heads != HEADS:
            return Encoded(dense=_floats(method(given)))[np.arange(len(texts))]
        output = method(given, return_dense=True, return_sparse=True, return_colbert_vecs=True)
        whole = Encoded(
            dense=_floats(output["dense_vecs"]),
            lexical=_rows(output["lexical_weights"], self.model.tokenizer.vocab_size),
            multi=Ragged.of([_floats(each) for each in output["colbert_vecs"]]),
        )
        return whole[np.arange(len(texts))]


def _pooling(folder: Path) -> str:
    from triptych.model.tensors import read_object

    path = folder / "1_Pooling" / "config.json"
    flags = read_object(path) if path.is_file() else {}
    return next((name for flag, name in _POOLINGS.items() if flags.get(flag)), "cls")


def _floats(values: Any) -> Any:
    return np.asarray(values, dtype=np.float32)


def _rows(weights: Sequence[Mapping[str, Any]], columns: int) -> sparse.csr_array:
    """Token id (as a string) to weight, for each text, as a matrix."""
    lengths = np.cumsum([0, *(len(row) for row in weights)])
    ids = np.array([int(token) for row in weights for token in row], dtype=np.int64)
    values = np.array([float(weight) for row in weights for weight in row.values()], dtype=np.float32)
    matrix = sparse.csr_array((values, ids, lengths), shape=(len(weights), columns))
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix
