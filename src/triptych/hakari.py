"""A model loader for HAKARI-Bench (arXiv 2606.22778), which compares kinds of retrieval on many small sets.

``--model-loader triptych.hakari:load_model`` with the benchmark's ``dense``, ``sparse`` and ``late-interaction`` gives
the three heads; its ``reranker`` scores pairs by the weighted sum of a mode, named by
``--model-loader-kwargs '{"mode": "all"}'``.
The benchmark's classes are known by their methods, so that it need not be installed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from triptych.encode.encoder import Encoder
from triptych.errors import InputError
from triptych.eval.systems import modes_of
from triptych.model.backbone import Dtype
from triptych.scores.on_numpy import combine, head_scores
from triptych.types import Encoded, Floats, Head

_DTYPES: dict[str, Dtype] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_HEADS: dict[str, Head] = {"dense": "dense", "sparse": "lexical", "late-interaction": "multi"}


class Representations:
    """One head, by the methods that the benchmark calls.

    Args:
        encoder: The model.
        head: Which representation.
    """

    similarity_fn_name = "dot"

    def __init__(self, encoder: Encoder, head: Head) -> None:
        modes_of(encoder.heads, [head])
        self.encoder, self.head = encoder, head
        self.max_seq_length = encoder.config.max_length

    def encode_query(self, sentences: Sequence[str], **options: Any) -> Any:
        """Queries: float32 ``[N, D]``; a sparse tensor ``[N, V]``; or N arrays ``[T, D']``."""
        del options  # batches are chosen here
        return self._of(self.encoder.encode_query(list(sentences), outputs=(self.head,)))

    def encode_document(self, sentences: Sequence[str], **options: Any) -> Any:
        """Documents, as for `encode_query`."""
        del options
        return self._of(self.encoder.encode_document(list(sentences), outputs=(self.head,)))

    def encode(self, sentences: Sequence[str], *, is_query: bool = True, **options: Any) -> Any:
        """What late interaction calls."""
        return (self.encode_query if is_query else self.encode_document)(sentences, **options)

    def metadata(self) -> dict[str, Any]:
        """What the benchmark writes beside its results."""
        return {"backend_library": "triptych", "head": self.head, "fingerprint": self.encoder.fingerprint}

    def _of(self, encoded: Encoded) -> Any:
        if self.head == "lexical":
            rows = cast(Any, encoded.lexical).tocoo()
            places = torch.from_numpy(np.stack([rows.row, rows.col]).astype(np.int64))
            return torch.sparse_coo_tensor(
                places, torch.from_numpy(rows.data), rows.shape, check_invariants=True
            ).coalesce()
        if self.head == "multi":
            return list(cast(Any, encoded.multi))
        return encoded.dense


class PairScores:
    """The weighted sum of a mode for pairs of a query and a document, as a re-ranker of the benchmark.

    Args:
        encoder: The model.
        mode: "dense", "lexical", "multi", "dense+lexical" or "all".

    Raises:
        InputError: For an unknown mode, or one whose heads the model lacks.
    """

    def __init__(self, encoder: Encoder, mode: str = "all") -> None:
        self.encoder, self.mode = encoder, mode
        self.weights = modes_of(encoder.heads, [mode])[mode]
        self.max_seq_length = encoder.config.max_length

    def predict(self, pairs: Sequence[Sequence[str]], **options: Any) -> Floats:
        """Scores, float32 ``[len(pairs)]``; a query is encoded once, whatever number of documents it has."""
        del options
        scores = np.zeros(len(pairs), dtype=np.float32)
        places: dict[str, list[int]] = {}
        for place, (query, _) in enumerate(pairs):
            places.setdefault(query, []).append(place)
        asked = self.encoder.encode_query(list(places), outputs=self.weights.heads)
        listed = self.encoder.encode_document([document for _, document in pairs], outputs=self.weights.heads)
        for row, own in enumerate(places.values()):
            sides = asked[row : row + 1], listed[np.asarray(own)]
            single: dict[Head, Floats] = {head: head_scores(*sides, head) for head in self.weights.heads}
            scores[own] = combine(single, self.weights, sides[0])[0]
        return scores

    def metadata(self) -> dict[str, Any]:
        """What the benchmark writes beside its results."""
        weights = [self.weights.dense, self.weights.lexical, self.weights.multi]
        facts = {"mode": self.mode, "weights": weights, "fingerprint": self.encoder.fingerprint}
        return {"backend_library": "triptych", **facts}


def load_model(config: Any) -> Representations | PairScores:
    """What the benchmark calls.

    Args:
        config: Its description of a model: ``model_name_or_path``, ``model_type``, ``dtype``, ``device``,
            ``max_seq_length``, ``model_loader_kwargs`` and so on.

    Raises:
        InputError: For a kind of model that this is not, or unknown arguments.
    """
    given = dict(config.model_loader_kwargs or {})
    mode = given.pop("mode", None)
    kinds = (*_HEADS, "reranker")
    if config.model_type not in kinds or given or (mode is not None and config.model_type != "reranker"):
        raise InputError(
            f"load_model: got model type {config.model_type!r} with {config.model_loader_kwargs}; expected one of "
            f"{', '.join(kinds)}, and `mode` for a reranker alone"
        )
    options: dict[str, Any] = {"device": config.device, "trust_remote_code": config.trust_remote_code}
    if config.max_seq_length is not None:
        options["max_length"] = config.max_seq_length
    encoder = Encoder.from_pretrained(config.model_name_or_path, dtype=_DTYPES[config.dtype], **options)
    if config.model_type == "reranker":
        return PairScores(encoder, mode or "all")
    return Representations(encoder, _HEADS[config.model_type])
