"""Exact search in memory, on a processor or a GPU.

Dense and lexical scores are computed for all pairs, a block of queries at a time; the best of each route are united,
and only the union gets its token vectors compared. What does not fit into a GPU's memory stays in the host's and
goes over in parts.

What a search has to give for mining: ranked candidates, and scores of given passages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from triptych.scores import on_torch as torch_scores
from triptych.tools.negatives.options import Scoring
from triptych.types import Encoded, Floats, Head, Ragged

_PAIRS = 2**25
"""Scores of one block of queries with all passages: 128 MB in float32, a few such arrays at a time."""
_TOKENS = {"cpu": 2**22, "cuda": 2**28}
"""Numbers of token vectors that are compared at once."""
_SHARED = 2**28
"""Entries of the dense matrix of passages in a block's own vocabulary, on a GPU."""
_SHARE = 0.6
"""How much of a GPU's free memory the vectors of one head may take."""


class ExactSearch:
    """Compares queries with every passage; fulfils `Searcher`.

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
        for block in blocks:
            if "dense" in scoring.heads:
                dense.append(torch.from_numpy(cast(Floats, block.dense)))
            if "lexical" in scoring.heads:
                lexical.append(cast(sparse.csr_array, block.lexical))
            if "multi" in scoring.heads:
                multi = cast(Ragged, block.multi)
                values.append(torch.from_numpy(np.ascontiguousarray(multi.values)).to(token_dtype))
                lengths.append(multi.lengths)
        self._dense = _joined(dense, device) if dense else None
        self._lexical = _lexical(lexical, device) if lexical else None
        self._multi = _Tokens.of(values, lengths, device) if values else None

    @property
    def heads(self) -> tuple[Head, ...]:
        """See `Searcher.heads`."""
        return self._scoring.heads

    def search(self, queries: Encoded, wanted: Sequence[Sequence[int]], depth: int) -> Found:
        """See `Searcher.search`."""
        step = max(1, _PAIRS // self._count)
        parts = [
            self._part(queries[start : start + step], wanted[start : start + step], depth)
            for start in range(0, len(queries), step)
        ]
        scores = [row for part in parts for row in part.wanted]
        return Found(
            _stacked([part.rows for part in parts], NOTHING), _stacked([p.scores for p in parts], 0), scores
        )

    @property
    def _count(self) -> int:
        if self._dense is not None:
            return len(self._dense)
        return self._lexical.count if self._lexical is not None else len(cast(_Tokens, self._multi))

    def _part(self, queries: Encoded, wanted: Sequence[Sequence[int]], depth: int) -> Found:
        scoring = self._scoring
        whole: dict[Head, Tensor] = {head: self._all(queries, head) for head in self._whole_heads}
        lists = [
            best_rows(
                whole[route][:, : self._searchable],
                scoring.candidates,
                0.0 if route == "lexical" else -torch.inf,
            )
            for route in scoring.routes
        ]
        rows = united(lists)
        asked = _padded(wanted, self._device)
        scores = self._scores(queries, whole, torch.cat([rows, asked], dim=1))
        rank, judged = (_weighted(scores, weights) for weights in (scoring.rank, scoring.judge))
        found = rank[:, : rows.shape[1]].masked_fill(rows == NOTHING, -torch.inf)
        # Rows ascend within a query, so that a stable order leaves equal scores in the order of the ids.
        order = found.argsort(dim=1, descending=True, stable=True)[:, :depth]
        given = judged[:, rows.shape[1] :].cpu().numpy()
        return Found(
            rows.gather(1, order).cpu().numpy(),
            judged.gather(1, order).cpu().numpy(),
            [given[i, : len(each)] for i, each in enumerate(wanted)],
        )

    @property
    def _whole_heads(self) -> tuple[Head, ...]:
        """Heads whose scores are computed for all pairs: token vectors only where they recall."""
        scoring = self._scoring
        return tuple(head for head in scoring.heads if head != "multi" or "multi" in scoring.routes)

    def _all(self, queries: Encoded, head: Head) -> Tensor:
        """float32 ``[Q, N]`` on the device."""
        if head == "dense":
            query = torch.from_numpy(cast(Floats, queries.dense)).to(self._device)
            return _product(query, cast(Tensor, self._dense))
        if head == "lexical":
            return cast(_Postings | _SharedColumns, self._lexical).scores(
                cast(sparse.csr_array, queries.lexical)
            )
        return cast(_Tokens, self._multi).all_scores(cast(Ragged, queries.multi))

    def _scores(self, queries: Encoded, whole: dict[Head, Tensor], rows: Tensor) -> dict[Head, Tensor]:
        """The scores of some passages, float32 ``[Q, C]`` a head; those of `NOTHING` mean nothing."""
        scores: dict[Head, Tensor] = {
            head: values.gather(1, rows.clamp(min=0)) for head, values in whole.items()
        }
        if "multi" in self._scoring.heads and "multi" not in scores:
            query, place = (rows != NOTHING).nonzero(as_tuple=True)
            tokens = cast(_Tokens, self._multi)
            values = tokens.pair_scores(cast(Ragged, queries.multi), query, rows[query, place])
            scores["multi"] = torch.zeros(rows.shape, device=self._device)
            scores["multi"][query, place] = values
        return scores


class _Postings:
    """The passages' lexical weights by token id, for a processor: a product of two sparse matrices."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        self.count = cast(tuple[int, int], matrix.shape)[0]
        self._turned: Any = matrix.T.tocsr()

    def scores(self, queries: sparse.csr_array) -> Tensor:
        """float32 ``[Q, N]``."""
        return torch.from_numpy(np.asarray((queries @ self._turned).toarray(), dtype=np.float32))


class _SharedColumns:
    """The passages' lexical weights for a GPU: dense products in the vocabulary of the queries alone."""

    def __init__(self, matrix: sparse.csr_array, device: torch.device) -> None:
        self.count, self._width = cast(tuple[int, int], matrix.shape)
        self._device = device
        self._starts: NDArray[np.int64] = matrix.indptr.astype(np.int64)
        self._columns = torch.from_numpy(matrix.indices.astype(np.int64)).to(device)
        self._weights = torch.from_numpy(matrix.data.astype(np.float32)).to(device)
        lengths = torch.from_numpy(np.diff(self._starts)).to(device)
        self._rows = torch.repeat_interleave(torch.arange(self.count, device=device), lengths)

    def scores(self, queries: sparse.csr_array) -> Tensor:
        """float32 ``[Q, N]``."""
        shared = np.unique(queries.indices).astype(np.int64)
        if not len(shared):
            count = cast(tuple[int, int], queries.shape)[0]
            return torch.zeros(count, self.count, device=self._device)
        chosen: Any = queries[:, shared]
        query = torch.from_numpy(np.asarray(chosen.toarray(), dtype=np.float32)).to(self._device)
        column = torch.full((self._width,), NOTHING, device=self._device)
        column[torch.from_numpy(shared).to(self._device)] = torch.arange(len(shared), device=self._device)
        step = max(1, _SHARED // len(shared))
        parts = [
            query @ self._some(start, min(start + step, self.count), column, len(shared)).T
            for start in range(0, self.count, step)
        ]
        return torch.cat(parts, dim=1)

    def _some(self, first: int, last: int, column: Tensor, width: int) -> Tensor:
        """Passages `first` to `last` in the columns that are not `NOTHING`, dense."""
        entries = slice(int(self._starts[first]), int(self._starts[last]))
        place = column[self._columns[entries]]
        kept = place != NOTHING
        matrix = torch.zeros(last - first, width, device=self._device)
        matrix[self._rows[entries][kept] - first, place[kept]] = self._weights[entries][kept]
        return matrix


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The passages' token vectors.

    Attributes:
        values: ``[T, D']``, on the device if they fit there.
        offsets: int64 ``[N + 1]`` on the device.
        device: Where to compute.
    """

    values: Tensor
    offsets: Tensor
    device: torch.device

    @classmethod
    def of(cls, values: list[Tensor], lengths: Sequence[NDArray[np.int64]], device: torch.device) -> _Tokens:
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths), dtype=np.int64)])
        return cls(_joined(values, device), torch.from_numpy(offsets).to(device), device)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def pair_scores(self, queries: Ragged, query: Tensor, rows: Tensor) -> Tensor:
        """MaxSim (arXiv 2402.03216v4, section 3.2) of query ``query[i]`` with passage ``rows[i]``, float32."""
        if self.device.type == "cpu":
            scores = self._by_passage(queries, query.numpy(), rows.numpy())
            return torch.from_numpy(scores)
        return self.in_batches(queries, query, rows)

    def _by_passage(self, queries: Ragged, query: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
        """One product for each passage with all its queries: its vectors are read once, where they stand."""
        offsets = self.offsets.numpy()
        scores = np.zeros(len(rows), dtype=np.float32)
        filled = np.flatnonzero((queries.lengths[query] > 0) & (np.diff(offsets)[rows] > 0))
        order = filled[np.argsort(rows[filled], kind="stable")]
        spans = [np.arange(*queries.offsets[i : i + 2]) for i in range(len(queries))]
        for some in np.split(order, np.flatnonzero(np.diff(rows[order])) + 1) if len(order) else []:
            first, last = offsets[rows[some[0]]], offsets[rows[some[0]] + 1]
            chosen = [spans[i] for i in query[some]]
            similarity = queries.values[np.concatenate(chosen)] @ self.values[first:last].float().numpy().T
            lengths = queries.lengths[query[some]]
            starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            scores[some] = np.add.reduceat(similarity.max(axis=1), starts) / lengths
        return scores

    def in_batches(self, queries: Ragged, query: Tensor, rows: Tensor) -> Tensor:
        """The same for a GPU, which wants many pairs of about the same height at once."""
        padded, lengths = _padded_queries(queries, self.device)
        heights = self.offsets.diff()[rows]
        scores = torch.zeros(len(rows), device=self.device)
        order = heights.argsort(descending=True, stable=True)
        tall: list[int] = heights[order].tolist()
        budget = _TOKENS.get(self.device.type, _TOKENS["cpu"]) // max(1, self.values.shape[1])
        start = 0
        while start < len(tall) and tall[start]:  # a passage without vectors keeps its 0
            stop = start + max(1, budget // tall[start])
            some = order[start:stop]
            best = self._best(padded[query[some]], rows[some], tall[start])
            scores[some] = best.sum(1) / lengths[query[some]].clamp(min=1)
            start = stop
        return scores

    def _best(self, queries: Tensor, rows: Tensor, height: int) -> Tensor:
        """``[P, S]``: the best similarity of each query vector; a query's padding is 0 and stays 0."""
        position = self.offsets[rows][:, None] + torch.arange(height, device=self.device)
        inside = position < self.offsets[rows + 1][:, None]
        place = position.clamp(max=len(self.values) - 1).to(self.values.device)
        vectors = self.values[place].to(self.device).float()
        similarity = torch.bmm(vectors, queries.transpose(1, 2)).masked_fill_(~inside[:, :, None], -torch.inf)
        best = similarity.max(dim=1).values
        return best.masked_fill_(~inside[:, :1], 0)

    def all_scores(self, queries: Ragged) -> Tensor:
        """The same for all pairs, float32 ``[Q, N]``."""
        query = torch.from_numpy(queries.values).to(self.device)
        offsets = torch.from_numpy(queries.offsets).to(self.device)
        bounds: list[int] = self.offsets.tolist()
        step = max(1, 16 * _TOKENS.get(self.device.type, _TOKENS["cpu"]) // max(1, self.values.shape[1]))
        parts: list[Tensor] = []
        first = 0
        while first < len(self):
            last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + step, side="right")) - 1)
            some = self.values[bounds[first] : bounds[last]].to(self.device).float()
            ends = self.offsets[first : last + 1] - bounds[first]
            parts.append(torch_scores.maxsim_scores(query, offsets, some, ends))
            first = last
        return torch.cat(parts, dim=1)


def _lexical(blocks: Sequence[sparse.csr_array], device: torch.device) -> _Postings | _SharedColumns:
    matrix = sparse.csr_array(sparse.vstack(list(blocks), format="csr"))
    return _Postings(matrix) if device.type == "cpu" else _SharedColumns(matrix, device)


def best_rows(scores: Tensor, k: int, floor: float) -> Tensor:
    """The k best columns of each row above `floor`, equal scores by column.

    Args:
        scores: ``[Q, N]``.
        k: How many.
        floor: Only scores above it count.

    Returns:
        int64 ``[Q, min(k, N)]``, ascending columns; `NOTHING` in the place of those that do not count.
    """
    k = min(k, scores.shape[1])
    bar = scores.topk(k, dim=1).values[:, -1:]
    above, level = scores > bar, scores == bar
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (level & (level.cumsum(dim=1, dtype=torch.int32) <= room))
    columns = chosen.nonzero()[:, 1].view(len(scores), k)
    return columns.masked_fill(scores.gather(1, columns) <= floor, NOTHING)


def united(lists: Sequence[Tensor]) -> Tensor:
    """Each query's lists as one, every row once, ascending; `NOTHING` in the place of repeats."""
    rows = torch.cat(list(lists), dim=1).sort(dim=1).values
    repeated = torch.zeros_like(rows, dtype=torch.bool)
    repeated[:, 1:] = rows[:, 1:] == rows[:, :-1]
    return rows.masked_fill(repeated, NOTHING)


def _weighted(scores: dict[Head, Tensor], weights: Any) -> Tensor:
    return torch_scores.combine(
        scores.get("dense"), scores.get("lexical"), scores.get("multi"), tuple(weights)
    )


def _joined(parts: list[Tensor], device: torch.device) -> Tensor:
    """All rows in one array, on the device if that leaves it room to work; the parts are given up one by one."""
    shape = (sum(len(part) for part in parts), parts[0].shape[1])
    needed = shape[0] * shape[1] * parts[0].element_size()
    place = device
    if device.type == "cuda" and needed > _SHARE * torch.cuda.mem_get_info(device)[0]:
        place = torch.device("cpu")
    whole = torch.empty(shape, dtype=parts[0].dtype, device=place)
    start = 0
    while parts:
        part = parts.pop(0)
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def _product(queries: Tensor, documents: Tensor) -> Tensor:
    """Inner products of all pairs; documents of the host go over in parts."""
    if documents.device == queries.device:
        return queries @ documents.T
    step = max(1, _SHARED // max(1, documents.shape[1]))
    return torch.cat([queries @ part.to(queries.device).T for part in documents.split(step)], dim=1)


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    width = max((len(row) for row in rows), default=0)
    table = np.full((len(rows), width), NOTHING, dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table).to(device)


def _padded_queries(queries: Ragged, device: torch.device) -> tuple[Tensor, Tensor]:
    """float32 ``[Q, S, D']`` with zeros after each query's vectors, and how many each has."""
    lengths = queries.lengths
    table = np.zeros((len(queries), int(lengths.max(initial=0)), queries.width), dtype=np.float32)
    for i, vectors in enumerate(queries):
        table[i, : len(vectors)] = vectors
    return torch.from_numpy(table).to(device), torch.from_numpy(lengths).to(device)


def _stacked(parts: Sequence[NDArray[Any]], fill: float) -> NDArray[Any]:
    """Tables of different widths under each other."""
    width = max((part.shape[1] for part in parts), default=0)
    wide = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=fill) for part in parts]
    return np.concatenate(wide) if wide else np.zeros((0, 0))


NOTHING = -1
"""Fills the rows of a query that has fewer candidates than another."""


@dataclass(frozen=True, slots=True)
class Found:
    """The answer for Q queries.

    Attributes:
        rows: int64 ``[Q, K]``, rows of the passages by descending score of the ranking, equal ones by id;
            `NOTHING` after the last.
        scores: float32 ``[Q, K]``, their scores by the judge's weights.
        wanted: For each query the scores, by the judge's weights, of the passages that were asked for.
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

    def search(self, queries: Encoded, wanted: Sequence[Sequence[int]], depth: int) -> Found:
        """Ranks the searchable passages.

        Args:
            queries: Q queries with `heads`.
            wanted: For each query the rows of passages to score, found or not.
            depth: K, the last rank.
        """
        ...
