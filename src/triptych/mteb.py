"""For people who evaluate with mteb 2: each mode of a model as what that package asks for.

    import mteb
    from triptych import Encoder
    from triptych.mteb import DenseModel, SearchModel

    encoder = Encoder.from_pretrained("small")
    tasks = mteb.get_tasks(tasks=["MIRACLRetrieval"])
    mteb.evaluate(DenseModel(encoder), tasks)  # every kind of task
    mteb.evaluate(SearchModel(encoder, "all"), tasks)  # retrieval and re-ranking, by any mode

A document is its title, a blank and its text, and a query is followed by its instruction, if the task has one, as
mteb's own models read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triptych.encode.encoder import Encoder
from triptych.errors import InputError
from triptych.eval.systems import modes_of
from triptych.scores.on_numpy import Best, combine, head_scores
from triptych.types import Encoded, Floats, Head, HeadWeights

if TYPE_CHECKING:
    from mteb.models import ModelMeta

_TYPES = {"dense": "dense", "lexical": "sparse", "multi": "late-interaction"}


class DenseModel:
    """The dense vectors of an encoder; fulfils ``mteb.models.EncoderProtocol``.

    Args:
        model: An encoder, or what `Encoder.from_pretrained` takes.
        revision: Not used; mteb passes it.
        device: For a model that is loaded here.
    """

    def __init__(
        self, model: Encoder | str | Path, revision: str | None = None, *, device: str | None = None
    ) -> None:
        self.encoder = _encoder(model, device)
        modes_of(self.encoder.heads, ["dense"])

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What results are filed under: the model's name and fingerprint."""
        return _meta(self.encoder, "dense", HeadWeights(1, 0, 0))

    def encode(
        self, inputs: Iterable[Mapping[str, Any]], *, prompt_type: Any = None, **kwargs: Any
    ) -> Floats:
        """Encodes the texts of a data loader.

        Args:
            inputs: Batches with ``text``.
            prompt_type: ``PromptType.document`` takes the model's prefix of documents; a query and everything
                else that of queries, as the models that have prefixes advise for symmetric tasks.
            kwargs: What else mteb passes: task, split, sizes of batches, which are chosen here.

        Returns:
            float32 ``[N, D]``, rows of length 1.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        is_document = getattr(prompt_type, "value", prompt_type) == "document"
        encode = self.encoder.encode_document if is_document else self.encoder.encode_query
        dense = encode(texts, outputs=("dense",)).dense
        assert dense is not None
        return dense

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Floats:
        """Cosines of all pairs, ``[N, M]``."""
        return np.atleast_2d(_floats(embeddings1)) @ np.atleast_2d(_floats(embeddings2)).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Floats:
        """Cosines of the pairs in their order, ``[N]``."""
        products = np.atleast_2d(_floats(embeddings1)) * np.atleast_2d(_floats(embeddings2))
        return np.asarray(products.sum(axis=1), dtype=np.float32)


class SearchModel:
    """Exact search by one mode; fulfils ``mteb.models.SearchProtocol``.

    Args:
        model: An encoder, or what `Encoder.from_pretrained` takes.
        mode: "dense", "lexical", "multi", "dense+lexical" or "all".
        weights: Other weights than the mode's usual ones.
        device: For a model that is loaded here.
        block: Documents that are encoded and compared together.

    Raises:
        InputError: For an unknown mode, or one whose heads the model lacks.
    """

    def __init__(
        self,
        model: Encoder | str | Path,
        mode: str = "all",
        weights: HeadWeights | Sequence[float] | None = None,
        *,
        device: str | None = None,
        block: int = 1024,
    ) -> None:
        self.encoder = _encoder(model, device)
        other = None if weights is None else {mode: HeadWeights.of(weights)}
        self.mode, self.weights = mode, modes_of(self.encoder.heads, [mode], other)[mode]
        self.block = block
        self._corpus: Any = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What results are filed under: the model's name with the mode, its fingerprint, the weights."""
        return _meta(self.encoder, self.mode, self.weights)

    def index(self, corpus: Any, **kwargs: Any) -> None:
        """Keeps the corpus; it is encoded block by block while it is searched.

        Args:
            corpus: A ``datasets.Dataset`` with ``id``, ``text`` and, perhaps, ``title``.
            kwargs: What else mteb passes.
        """
        self._corpus = corpus

    def search(
        self,
        queries: Any,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """The best documents of each query with their scores.

        Args:
            queries: A ``datasets.Dataset`` with ``id`` and ``text``.
            top_k: Maximum documents per query.
            top_ranked: For re-ranking: the only documents of each query.
            kwargs: What else mteb passes.

        Raises:
            InputError: Before `index`.
        """
        if self._corpus is None:
            raise InputError("SearchModel.search: got no corpus; expected index to be called before")
        names = [str(id_) for id_ in queries["id"]]
        ids = [str(id_) for id_ in self._corpus["id"]]
        allowed = None if top_ranked is None else _allowed(names, ids, top_ranked)
        kept = np.arange(len(ids)) if allowed is None else np.flatnonzero(allowed.any(axis=0))
        best = Best(len(names), max(1, min(top_k, len(ids))), 0)
        if len(names) and len(kept):
            texts = [_query_text(row) for row in queries]
            asked = self.encoder.encode_query(texts, outputs=self.weights.heads)
            self._scan(asked, kept, _ranks(ids), allowed, best)
        best.settle()
        return {
            name: {ids[row]: float(score) for row, score in zip(rows, scores, strict=True) if row >= 0}
            for name, rows, scores in zip(names, best.rows, best.totals, strict=True)
        }

    def _scan(self, asked: Encoded, kept: Any, ranks: Any, allowed: Any, best: Best) -> None:
        for start in range(0, len(kept), self.block):
            rows = kept[start : start + self.block]
            chosen = self._corpus.select(rows.tolist())
            texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in chosen]
            documents = self.encoder.encode_document(texts, outputs=self.weights.heads)
            scores: dict[Head, Floats] = {
                head: head_scores(asked, documents, head) for head in self.weights.heads
            }
            totals = combine(scores, self.weights, asked)
            if self.mode == "lexical":
                totals = np.where(totals > 0, totals, np.float32(-np.inf))  # nothing in common: not found
            if allowed is not None:
                totals = np.where(allowed[:, rows], totals, np.float32(-np.inf))
            best.add(0, rows, ranks[rows], totals, np.zeros((0, *totals.shape), np.float32))


def _encoder(model: Encoder | str | Path, device: str | None) -> Encoder:
    return model if isinstance(model, Encoder) else Encoder.from_pretrained(model, device=device)


def _floats(values: Any) -> Floats:
    """An array of mteb's, which may be a tensor on a device."""
    on_host = values.cpu() if hasattr(values, "cpu") else values
    return np.asarray(on_host, dtype=np.float32)


def _ranks(ids: Sequence[str]) -> Any:
    """The place of each id in the order of the ids, by which equal scores go."""
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[np.argsort(np.array(ids, dtype=object), kind="stable")] = np.arange(len(ids))
    return ranks


def _allowed(names: Sequence[str], ids: Sequence[str], top_ranked: Mapping[str, Sequence[str]]) -> Any:
    """Which documents a query may list: bool ``[Q, N]``."""
    place = {id_: row for row, id_ in enumerate(ids)}
    allowed = np.zeros((len(names), len(ids)), dtype=bool)
    for row, name in enumerate(names):
        allowed[row, [place[id_] for id_ in top_ranked.get(name, ()) if id_ in place]] = True
    return allowed


def _query_text(row: Mapping[str, Any]) -> str:
    """A query and its instruction. The turns of a conversation are joined."""
    text, instruction = row["text"], row.get("instruction")
    if not isinstance(text, str):
        turns = [turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text]
        return " ".join(([instruction] if instruction else []) + ["; ".join(turns)])
    return f"{text} {instruction}" if instruction else text


def _meta(encoder: Encoder, mode: str, weights: HeadWeights) -> ModelMeta:
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction

    config = encoder.config
    kind: Any = _TYPES.get(mode, "hybrid")
    return ModelMeta(
        loader=None,
        name=f"triptych/{Path(encoder.source).name or 'model'}-{mode}",
        revision=encoder.fingerprint,
        release_date=None,
        languages=None,
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=config.max_length,
        embed_dim=encoder.widths.get("dense"),
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE if mode == "dense" else ScoringFunction.CUSTOM,
        use_instructions=bool(config.query_prefix or config.document_prefix),
        training_datasets=None,
        model_type=[kind],
        experiment_kwargs=None if mode in _TYPES else {"weights": list(weights)},
    )
