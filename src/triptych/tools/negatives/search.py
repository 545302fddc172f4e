"""Search for mining: ranked candidates, and scores of given passages; in memory, or through an `Index`.

In memory, dense and lexical scores are computed for all pairs, a block of queries at a time; the best of each route
are united, and only the union gets its token vectors compared. What does not fit into a GPU's memory stays in the
host's and is moved over in parts. An index scales further than memory, and is approximate where its engine is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from triptych.encode.encoder import Encoder
from triptych.errors import InputError
from triptych.index.index import BLOCK, Index
from triptych.scores import on_numpy, on_torch
from triptych.tools.negatives.options import Scoring
from triptych.tools.negatives.passages import ARTICLE, CorpusPassage, Passages, name_in, passage_language
from triptych.types import Encoded, Floats, Head, HeadWeights, Progress, Ragged

NOTHING = -1
"""Fills the rows of a query that has fewer candidates than another."""
_PAIRS = (
    2**25
)  # scores of one block of queries with all passages: 128 MB in float32, a few such arrays at a time
_NUMBERS = {"cpu": 2**22, "cuda": 2**28}  # of token vectors that are compared at once
_MOVED = 2**28  # numbers that are moved to a GPU at once
_SHARE = 0.6  # of a GPU's free memory that the vectors of one head may take
_FETCHED = 1000  # documents of an index that are read at once


@dataclass(frozen=True, slots=True)
class RankedPassages:
    """The candidates of Q queries.

    Attributes:
        rows: int64 ``[Q, K]``, rows of the passages by descending score, equal ones by id; `NOTHING` after the last.
        scores: float32 ``[Q, K]``, their scores.
        wanted: For each query the scores of the passages that were asked for.
    """

    rows: NDArray[np.int64]
    scores: Floats
    wanted: Sequence[Floats]


class Searcher(Protocol):
    """Finds candidates among `Passages`."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that queries need."""
        ...

    def search(self, queries: Encoded, wanted: Sequence[Sequence[int]], depth: int) -> RankedPassages:
        """Ranks the searchable passages.

        Args:
            queries: Q queries with `heads`.
            wanted: For each query the rows of passages to score, found or not.
            depth: K, the last rank.
        """
        ...


class ExactSearch:
    """Compares queries with every passage; a `Searcher`.

    Args:
        blocks: Representations of all passages, block by block, in the order of their rows.
        searchable: Rows before this one are searched, the others are only scored.
        scoring: Which scores, with which weights.
        device: Where to compute.
        token_dtype: Type in which token vectors are held; they are compared in float32.
    """

    def __init__(
        self,
        blocks: Iterable[Encoded],
        searchable: int,
        scoring: Scoring,
        device: torch.device,
        *,
        token_dtype: torch.dtype = torch.float16,
    ) -> None:
        self._scoring, self._searchable, self._device = scoring, searchable, device
        dense: list[Tensor] = []
        lexical: list[sparse.csr_array] = []
        values: list[Tensor] = []
        lengths: list[NDArray[np.int64]] = []
        self._count = 0
        for block in blocks:
            self._count += len(block)
            if "dense" in scoring.heads:
                dense.append(torch.from_numpy(cast(Floats, block.dense)))
            if "lexical" in scoring.heads:
                lexical.append(cast(sparse.csr_array, block.lexical))
            if "multi" in scoring.heads:
                multi = cast(Ragged, block.multi)
                values.append(torch.from_numpy(np.ascontiguousarray(multi.values)).to(token_dtype))
                lengths.append(multi.lengths)
        self._dense = _concat(dense, device) if dense else None
        # By token id: the product with a block of queries needs no other order.
        self._postings: Any = sparse.vstack(lexical, format="csr").T.tocsr() if lexical else None
        self._tokens = _concat(values, device) if values else None
        self._offsets = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that queries need."""
        return self._scoring.heads

    def search(self, queries: Encoded, wanted: Sequence[Sequence[int]], depth: int) -> RankedPassages:
        """See `Searcher`."""
        step = max(1, _PAIRS // self._count)
        parts = [
            self._search_block(queries[start : start + step], wanted[start : start + step], depth)
            for start in range(0, len(queries), step)
        ]
        rows, scores = [part.rows for part in parts], [part.scores for part in parts]
        return RankedPassages(
            _stack(rows, NOTHING), _stack(scores, 0), [row for part in parts for row in part.wanted]
        )

    def _search_block(self, queries: Encoded, wanted: Sequence[Sequence[int]], depth: int) -> RankedPassages:
        routes, heads = self._scoring.routes, self._scoring.heads
        # Token vectors are compared with all passages only where they recall.
        whole: dict[Head, Tensor] = {
            head: self._all_scores(queries, head) for head in heads if head != "multi" or head in routes
        }
        recalled = [
            on_torch.top_k(
                whole[route][:, : self._searchable],
                self._scoring.candidates,
                0.0 if route == "lexical" else -torch.inf,
            )
            for route in routes
        ]
        rows = union(recalled)
        width = max((len(each) for each in wanted), default=0)
        asked = torch.full((len(wanted), width), NOTHING)
        for i, each in enumerate(wanted):
            asked[i, : len(each)] = torch.tensor(each)
        scores = self._scores(queries, whole, torch.cat([rows, asked.to(self._device)], dim=1))
        found = scores[:, : rows.shape[1]].masked_fill(rows == NOTHING, -torch.inf)
        # Rows ascend within a query, so that a stable order leaves equal scores in the order of the ids.
        order = found.argsort(dim=1, descending=True, stable=True)[:, :depth]
        given = scores[:, rows.shape[1] :].cpu().numpy()
        return RankedPassages(
            rows.gather(1, order).cpu().numpy(),
            scores.gather(1, order).cpu().numpy(),
            [given[i, : len(each)] for i, each in enumerate(wanted)],
        )

    def _scores(self, queries: Encoded, whole: dict[Head, Tensor], rows: Tensor) -> Tensor:
        """The weighted sums of some passages, float32 ``[Q, C]``; those of `NOTHING` mean nothing."""
        scores = {head: values.gather(1, rows.clamp(min=0)) for head, values in whole.items()}
        if "multi" in self._scoring.heads and "multi" not in scores:
            query, column = (rows != NOTHING).nonzero(as_tuple=True)
            scores["multi"] = torch.zeros(rows.shape, device=self._device)
            scores["multi"][query, column] = self._pair_scores(
                cast(Ragged, queries.multi), query, rows[query, column]
            )
        return on_torch.combine(
            scores.get("dense"), scores.get("lexical"), scores.get("multi"), self._scoring.weights
        )

    def _all_scores(self, queries: Encoded, head: Head) -> Tensor:
        """The scores of all pairs, float32 ``[Q, N]`` on the device."""
        device = self._device
        if head == "lexical":
            product = (cast(sparse.csr_array, queries.lexical) @ self._postings).toarray()
            return torch.from_numpy(np.asarray(product, dtype=np.float32)).to(device)
        if head == "dense":
            query, vectors = (
                torch.from_numpy(cast(Floats, queries.dense)).to(device),
                cast(Tensor, self._dense),
            )
            parts = vectors.split(max(1, _MOVED // vectors.shape[1]))
            return torch.cat([on_torch.dense_scores(query, part.to(device)) for part in parts], dim=1)
        multi, tokens = cast(Ragged, queries.multi), cast(Tensor, self._tokens)
        values, offsets = (
            torch.from_numpy(multi.values).to(device),
            torch.from_numpy(multi.offsets).to(device),
        )
        budget = max(1, 16 * _NUMBERS.get(device.type, _NUMBERS["cpu"]) // max(1, tokens.shape[1]))
        scores: list[Tensor] = []
        for part in on_numpy.cuts(np.diff(self._offsets), budget):
            bounds = self._offsets[part.start : part.stop + 1]
            rows = tokens[bounds[0] : bounds[-1]].to(device).float()
            ends = torch.from_numpy(bounds - bounds[0]).to(device)
            scores.append(on_torch.maxsim_scores(values, offsets, rows, ends))
        return torch.cat(scores, dim=1)

    def _pair_scores(self, queries: Ragged, query: Tensor, rows: Tensor) -> Tensor:
        """MaxSim of chosen pairs, float32 ``[P]`` on the device."""
        tokens = cast(Tensor, self._tokens)
        if self._device.type == "cpu":
            passages = Ragged(tokens.numpy(), self._offsets)
            scores = on_numpy.maxsim_of_pairs(queries, passages, query.numpy(), rows.numpy())
            return torch.from_numpy(scores)
        budget = _NUMBERS.get(self._device.type, _NUMBERS["cpu"]) // max(1, tokens.shape[1])
        offsets = torch.from_numpy(self._offsets).to(self._device)
        return on_torch.maxsim_of_pairs(queries, tokens, offsets, query, rows, budget)


def union(lists: Sequence[Tensor]) -> Tensor:
    """Each query's lists as one, every row once, ascending; `NOTHING` in the place of repeats."""
    rows = torch.cat(list(lists), dim=1).sort(dim=1).values
    repeated = torch.zeros_like(rows, dtype=torch.bool)
    repeated[:, 1:] = rows[:, 1:] == rows[:, :-1]
    return rows.masked_fill(repeated, NOTHING)


def _concat(parts: list[Tensor], device: torch.device) -> Tensor:
    """All rows in one array, on the device if that leaves it room to work; the parts are freed one by one."""
    shape = (sum(len(part) for part in parts), parts[0].shape[1])
    needed = shape[0] * shape[1] * parts[0].element_size()
    if device.type == "cuda" and needed > _SHARE * torch.cuda.mem_get_info(device)[0]:
        device = torch.device("cpu")
    whole = torch.empty(shape, dtype=parts[0].dtype, device=device)
    start = 0
    while parts:
        part = parts.pop(0)
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def _stack(parts: Sequence[NDArray[Any]], fill: float) -> NDArray[Any]:
    """Stacks tables of different widths."""
    width = max((part.shape[1] for part in parts), default=0)
    wide = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=fill) for part in parts]
    return np.concatenate(wide) if wide else np.zeros((0, 0))


class IndexSearch:
    """Searches an index; a `Searcher`.

    The scores of passages that are asked for are computed from their texts, those of hits are the index's.

    Args:
        index: An open index that holds exactly the searchable passages.
        encoder: Its model.
        passages: What the rows are.
        scoring: Which scores, with which weights.
        passage_length: Maximum tokens of a passage that is asked for.

    Raises:
        InputError: If the index lacks a head that is needed.
    """

    def __init__(
        self, index: Index, encoder: Encoder, passages: Passages, scoring: Scoring, passage_length: int | None
    ) -> None:
        if lacking := [head for head in scoring.heads if head not in index.heads]:
            raise InputError(
                f"search: needs {' and '.join(lacking)}; this index holds {', '.join(index.heads)}"
            )
        self._index, self._encoder, self._passages, self._scoring = index, encoder, passages, scoring
        self._length = passage_length
        self._row = {name: row for row, name in enumerate(passages.ids)}

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that queries need."""
        return self._index.heads

    def search(self, queries: Encoded, wanted: Sequence[Sequence[int]], depth: int) -> RankedPassages:
        """See `Searcher`."""
        scoring = self._scoring
        results = self._index.search_encoded(
            queries, depth, weights=scoring.weights, routes=scoring.routes, candidates=scoring.candidates
        )
        rows = np.full((len(results), depth), NOTHING, dtype=np.int64)
        scores = np.zeros((len(results), depth), dtype=np.float32)
        for i, hits in enumerate(results):
            known = [hit for hit in hits if hit.id in self._row]  # a blank passage is none
            rows[i, : len(known)] = [self._row[hit.id] for hit in known]
            scores[i, : len(known)] = [hit.score for hit in known]
        return RankedPassages(rows, scores, self._wanted_scores(queries, wanted, scoring.weights))

    def _wanted_scores(
        self, queries: Encoded, wanted: Sequence[Sequence[int]], weights: HeadWeights
    ) -> list[Floats]:
        rows = sorted({row for each in wanted for row in each})
        number = {row: i for i, row in enumerate(rows)}
        texts = [self._passages.texts[row] for row in rows]
        encoded = self._encoder.encode_document(texts, outputs=weights.heads, max_length=self._length)
        scores: list[Floats] = []
        for i, each in enumerate(wanted):
            some = encoded[np.array([number[row] for row in each], dtype=np.int64)]
            single: dict[Head, Floats] = {
                head: on_numpy.head_scores(queries[i], some, head) for head in weights.heads
            }
            scores.append(on_numpy.combine(single, weights)[0])
        return scores


def add_missing(index: Index, passages: Sequence[CorpusPassage], progress: Progress | None = None) -> None:
    """Adds the passages that an index does not hold yet, or holds with another text.

    An interrupted run is completed by the next one.
    """
    for start in range(0, len(passages), BLOCK):
        some = [each for each in passages[start : start + BLOCK] if each.text.strip()]
        held = index.get([each.id for each in some])
        new = [each for each, old in zip(some, held, strict=True) if old is None or old["text"] != each.text]
        if new:
            fields = [{"article": each.article, "lang": each.language, "also": each.also} for each in new]
            metadata = [{name: value for name, value in each.items() if value is not None} for each in fields]
            index.add([each.id for each in new], [each.text for each in new], metadata)
        if progress:
            progress("indexing", min(start + BLOCK, len(passages)), len(passages))


def passages_in(index: Index, article_fields: Sequence[str] = ARTICLE) -> Iterator[CorpusPassage]:
    """The documents of an index as passages."""
    names = sorted(index.ids)
    for start in range(0, len(names), _FETCHED):
        for payload in index.get(names[start : start + _FETCHED]):
            if payload is not None:
                fields = payload["metadata"]
                also = fields.get("also") if isinstance(fields.get("also"), str) else None
                names_ = name_in(fields, article_fields), passage_language(fields)
                yield CorpusPassage(payload["id"], payload["text"], *names_, also)
