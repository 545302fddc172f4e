"""Weights of the sum, chosen on a development split: never on what is reported.

What smaller token vectors cost: fewer dimensions, fewer bits, fewer vectors.

What is tried with a vector model beside the evaluation proper: other weights, smaller token vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from triptych.collections.base import Collection
from triptych.errors import InputError
from triptych.eval.contenders import TUNED, VectorModel
from triptych.eval.groups import Group
from triptych.eval.protocols import Pool, exact, pool_of
from triptych.eval.results import Compressed, Tuned
from triptych.eval.running import Cost, ModelRun, Options, Tools, scope_of
from triptych.eval.scan import Variant, rescore, same
from triptych.model.tensors import Quantized
from triptych.types import HEADS, Floats, Head, HeadWeights, Ragged

_RATIOS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_FINER = (0.8, 0.9, 1.0, 1.1, 1.25)
_K = 10


@dataclass(frozen=True, slots=True)
class Development:
    """Candidates of development queries, in arrays of equal width.

    Attributes:
        scores: float32 ``[3, Q, C]``: dense, lexical, multi.
        gains: float32 ``[Q, C]``, the relevance of each candidate; -1 where there is none.
        ideal: float64 ``[Q]``, the DCG@10 of the best order of all judged documents.
    """

    scores: Floats
    gains: Floats
    ideal: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        pool: Pool,
        places: Sequence[tuple[int, Mapping[int, int], NDArray[np.int64]]],
        ranks: NDArray[np.int64],
    ) -> Development:
        """Takes candidates and judgements.

        Args:
            pool: Candidates of distinct queries.
            places: For each judged query its number in the pool, {row: relevance} (rows that the corpus lacks are
                negative numbers), and the rows that are left out.
            ranks: Of all documents; equal sums are ordered by it.
        """
        width = max((len(pool.rows[number]) for number, _, _ in places), default=0)
        scores = np.zeros((len(HEADS), len(places), width), dtype=np.float32)
        gains = np.full((len(places), width), -1, dtype=np.float32)
        ideal = np.zeros(len(places))
        for i, (number, judged, excluded) in enumerate(places):
            order = np.argsort(ranks[pool.rows[number]])
            rows = pool.rows[number][order]
            scores[:, i, : len(rows)] = pool.scores[number][:, order]
            known = np.asarray([max(0, judged.get(int(row), 0)) for row in rows], dtype=np.float32)
            gains[i, : len(rows)] = np.where(np.isin(rows, excluded), -1, known)
            best = sorted((value for value in judged.values() if value > 0), reverse=True)[:_K]
            ideal[i] = (np.asarray(best) / np.log2(np.arange(2, len(best) + 2))).sum()
        return cls(scores, gains, ideal)

    @classmethod
    def join(cls, parts: Sequence[Development]) -> Development:
        """All queries of several parts."""
        width = max(part.gains.shape[1] for part in parts)
        scores = [np.pad(p.scores, ((0, 0), (0, 0), (0, width - p.gains.shape[1]))) for p in parts]
        gains = [np.pad(p.gains, ((0, 0), (0, width - p.gains.shape[1])), constant_values=-1) for p in parts]
        return cls(
            np.concatenate(scores, axis=1), np.concatenate(gains), np.concatenate([p.ideal for p in parts])
        )

    def ndcg(self, weights: HeadWeights) -> float:
        """The mean nDCG@10 of the candidates by a weighted sum."""
        total = np.tensordot(np.asarray(weights, np.float32), self.scores, 1)
        total[self.gains < 0] = -np.inf
        k = min(_K, total.shape[1])
        order = np.argsort(-total, axis=1, kind="stable")[:, :k]
        gains = np.take_along_axis(self.gains, order, 1).clip(0)
        found = (gains / np.log2(np.arange(2, k + 2))).sum(axis=1)
        return float(np.mean(np.divide(found, self.ideal, out=np.zeros_like(found), where=self.ideal > 0)))


def tune(development: Development, heads: Sequence[Head]) -> tuple[HeadWeights, float]:
    """The weights with the best mean nDCG@10, and that mean.

    Only ratios matter, so one weight is 1: a coarse grid of ratios first (each head alone included), then finer
    steps around the best. Of equal ones the first counts.

    Args:
        development: Candidates and judgements.
        heads: The heads that may have a weight.
    """
    best, value = HeadWeights(), -1.0
    for candidate in _grid(heads):
        found = development.ndcg(candidate)
        if found > value + 1e-12:
            best, value = candidate, found
    for candidate in list(_around(best)):
        found = development.ndcg(candidate)
        if found > value + 1e-12:
            best, value = candidate, found
    unit = best.dense or max(best)
    return HeadWeights(*(float(f"{weight / unit:.4g}") for weight in best)), value


def _grid(heads: Sequence[Head]) -> Iterator[HeadWeights]:
    none = (0.0,)
    denses = (1.0, 0.0) if "dense" in heads else none
    lexicals, multis = (_RATIOS if head in heads else none for head in ("lexical", "multi"))
    for dense, lexical, multi in product(denses, lexicals, multis):
        if dense or lexical or multi:
            yield HeadWeights(dense, lexical, multi)


def _around(weights: HeadWeights) -> Iterator[HeadWeights]:
    for lexical in _FINER:
        for multi in _FINER:
            yield HeadWeights(weights.dense, weights.lexical * lexical, weights.multi * multi)


Bits: TypeAlias = Literal[32, 16, 8, 4, 1]


class Form(NamedTuple):
    """A form of token vectors.

    Attributes:
        bits: A number: 32 and 16 are floats, 8 and 4 codes with scales, 1 the sign.
        dims: Numbers a vector that are kept; None: all.
        basis: Which: the "first" (as of a model trained for that), or principal components ("pca") of the corpus.
        pooled: How many neighbouring tokens are averaged to one vector.
    """

    bits: Bits = 32
    dims: int | None = None
    basis: Literal["first", "pca"] = "first"
    pooled: int = 1

    @property
    def name(self) -> str:
        """Such as ``pca 96, 4 bits``."""
        parts = [f"{self.basis} {self.dims} dimensions"] if self.dims else []
        parts += [f"{self.pooled} tokens a vector"] if self.pooled > 1 else []
        parts += [f"{self.bits} bit{'s' if self.bits > 1 else ''}"] if self.bits < 32 or not parts else []
        return ", ".join(parts)


def forms(width: int) -> tuple[Form, ...]:
    """What is compared for vectors of this width: the bits, the dimensions and the pooling alone, and some of both."""
    halves = [width // 2, width // 4, width // 8]
    dims = [dim for dim in halves if dim >= 8]
    found = [Form(), Form(16), Form(8), Form(4), Form(1)]
    found += [Form(32, dim, basis) for dim in dims for basis in ("pca", "first")]
    found += [Form(32, pooled=2), Form(32, pooled=4)]
    found += [Form(4, dim, "pca") for dim in dims[:2]] + [Form(4, pooled=2)]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Change:
    """A form, ready to be applied.

    Attributes:
        form: Which.
        turn: float32 ``[D', dims]``, onto what is kept; None: everything is.
    """

    form: Form
    turn: Floats | None

    @classmethod
    def of(cls, form: Form, axes: Floats, width: int) -> Change:
        """`axes` are ``[D', D']``: the principal components in falling order, as columns."""
        if form.dims is None or form.dims >= width:
            return cls(form, None)
        whole = axes if form.basis == "pca" else np.eye(width, dtype=np.float32)
        return cls(form, np.ascontiguousarray(whole[:, : form.dims]))

    def queries(self, tokens: Ragged) -> Ragged:
        """Query vectors keep their numbers as they are: they are stored nowhere."""
        return self._turned(tokens)

    def documents(self, tokens: Ragged) -> Ragged:
        """What is left of the documents' vectors, as float32."""
        tokens = self._turned(_pooled(tokens, self.form.pooled))
        return Ragged(_rounded(tokens.values, self.form.bits), tokens.offsets)

    def bytes(self, tokens: Ragged) -> int:
        """What documents take in this form: codes and scales."""
        width = tokens.width if self.turn is None else self.turn.shape[1]
        rows = int((-(-tokens.lengths // self.form.pooled)).sum())
        row = {32: 4 * width, 16: 2 * width, 8: width + 4, 4: -(-width // 32) * 18, 1: -(-width // 8)}
        return rows * row[self.form.bits]

    def _turned(self, tokens: Ragged) -> Ragged:
        if self.turn is None:
            return tokens
        return Ragged(_unit(tokens.values.astype(np.float32, copy=False) @ self.turn), tokens.offsets)


def variant(form: Form, queries: Ragged, axes: Floats) -> Variant:
    """The form as the re-scoring takes it."""
    if form == Form():
        return Variant(queries, same)
    change = Change.of(form, axes, queries.width)
    return Variant(change.queries(queries), change.documents)


def principal_axes(tokens: Ragged, most: int = 200_000) -> Floats:
    """The directions in which token vectors lie, the most important first, as columns ``[D', D']``.

    They are those of the second moments about 0, not about the mean: inner products are what has to be kept.
    """
    values = cast(NDArray[np.float32], tokens.values[:most].astype(np.float64))
    _, vectors = np.linalg.eigh(values.T @ values)
    return np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)


def _rounded(values: NDArray[np.float32], bits: Bits) -> Floats:
    rounds: dict[int, Callable[[NDArray[np.float32]], Floats]] = {
        32: lambda x: x.astype(np.float32, copy=False),
        16: lambda x: x.astype(np.float16).astype(np.float32),
        8: lambda x: Quantized.of(x, 8).dequantize(),
        4: lambda x: Quantized.of(x, 4).dequantize(),
        1: lambda x: np.where(x >= 0, 1, -1).astype(np.float32) / np.float32(np.sqrt(x.shape[1])),
    }
    return rounds[bits](values) if len(values) else values.astype(np.float32)


def _pooled(tokens: Ragged, factor: int) -> Ragged:
    """Means of runs of `factor` neighbours (the last of a text may be shorter), of length 1 again."""
    if factor == 1 or not len(tokens.values):
        return tokens
    counts = -(-tokens.lengths // factor)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    starts = np.repeat(tokens.offsets[:-1], counts) + factor * within
    sums = np.add.reduceat(tokens.values.astype(np.float32), starts, axis=0)
    return Ragged(_unit(sums), offsets)


def _unit(values: Floats) -> Floats:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)


TUNABLE = ("dense+lexical", "all")
"""The modes whose weights can be chosen."""

_DEVELOPMENT_DEPTH, _COMPRESSION_DEPTH = 200, 20
_COMPRESSION_QUERIES = 300
"""Most queries for which smaller token vectors are tried, spread evenly over all."""

_ABSENT = -1
_NONE = np.zeros(0, dtype=np.int64)


def tuned_modes(
    development: Sequence[Group],
    model: VectorModel,
    options: Options,
    tools: Tools,
    left_out: int = 0,
) -> tuple[dict[str, HeadWeights], list[Tuned]]:
    """Chooses the weights of the sums on development collections.

    Args:
        development: Collections that are not reported.
        model: The model.
        options: How.
        tools: With what.
        left_out: How many queries were left out of them; told with the result.

    Returns:
        Further modes with their weights, and how they were found.
    """
    wanted = [name for name in TUNABLE if name in model.modes]
    if not wanted or not development:
        return {}, []
    parts: list[Development] = []
    for group in development:
        scope = scope_of(group, model, options, Cost())
        work = tools.work(f"{model.name}: tuning on {group.label}")
        found = exact(scope, model.modes, _DEVELOPMENT_DEPTH, candidates=options.candidates, work=work)
        assert found.scanned is not None  # the exact protocol has lists
        pool = pool_of(found.scanned, scope, work=work)
        parts.append(Development.of(pool, _places(group, group.collections), group.survey.ranks))
    joined = Development.join(parts)
    labels = [collection.label for group in development for collection in group.collections]
    modes: dict[str, HeadWeights] = {}
    told: list[Tuned] = []
    for name in wanted:
        fixed = model.modes[name]
        weights, ndcg = tune(joined, fixed.heads)
        modes[name + TUNED] = weights
        told.append(
            Tuned(
                f"{model.name}/{name}{TUNED}",
                (weights.dense, weights.lexical, weights.multi),
                labels,
                len(joined.ideal),
                ndcg,
                joined.ndcg(fixed),
                left_out,
            )
        )
    return modes, told


def apart(development: Sequence[Collection], tested: Sequence[Collection]) -> tuple[list[Collection], int]:
    """The development collections without queries that are reported, and how many those were.

    Raises:
        InputError: If one is itself reported, or none of its queries is left.
    """
    reported = {text for one in tested for text in one.queries.values()}
    names = {(one.name, one.subset, one.split) for one in tested}
    kept: list[Collection] = []
    for one in development:
        left = {query: text for query, text in one.queries.items() if text not in reported}
        if (one.name, one.subset, one.split) in names or not left:
            raise InputError(
                f"tuning on {one.label} ({one.split}): its queries are reported, too; expected weights to be chosen on "
                "other queries than those that are reported"
            )
        qrels = {query: judged for query, judged in one.qrels.items() if query in left}
        kept.append(replace(one, queries=left, qrels=qrels))
    return kept, sum(len(one.queries) for one in development) - sum(len(one.queries) for one in kept)


def compressed(group: Group, model: VectorModel, run: ModelRun, tools: Tools) -> list[Compressed]:
    """Ranks the best candidates again with smaller token vectors.

    The candidates are the first of all lists of the pass, so the loss is that of re-ranking, which is what token
    vectors are for in an index.

    Args:
        group: The collections.
        model: The model, evaluated on the group.
        run: What the evaluation found.
        tools: With what.
    """
    queries, scanned = run.scope.queries.multi, run.found.scanned
    modes = {name: model.modes[name] for name in ("multi", "all") if name in model.modes}
    if queries is None or scanned is None or not modes:
        return []
    work = tools.work(f"{model.name}: smaller token vectors")
    pool = pool_of(scanned, run.scope, _COMPRESSION_DEPTH, work)
    sample = next(run.scope.vectors.blocks(heads=("multi",)))[1].multi
    assert sample is not None  # the queries have token vectors
    axes = principal_axes(sample)
    chosen = forms(queries.width)
    variants = [variant(form, queries, axes) for form in chosen]
    asked = set(np.linspace(0, len(pool.rows) - 1, _COMPRESSION_QUERIES).astype(int).tolist())
    rows = [wanted if query in asked else _NONE for query, wanted in enumerate(pool.rows)]
    scored = rescore(run.scope.vectors, variants, rows, scoring=tools.scoring, progress=work.progress)
    multi = HEADS.index("multi")
    names = dict.fromkeys(collection.name for collection in group.collections)
    found: list[Compressed] = []
    for form, scores in zip(chosen, scored, strict=True):
        bytes_each = Change.of(form, axes, sample.width).bytes(sample) / len(sample)
        changed: list[NDArray[np.float32]] = []
        for query, (old, new) in enumerate(zip(pool.scores, scores, strict=True)):
            changed.append(old.copy() if query in asked else old)
            if query in asked:
                changed[-1][multi] = new
        for dataset in names:
            members = [collection for collection in group.collections if collection.name == dataset]
            places = [place for place in _places(group, members) if place[0] in asked]
            if not places:
                continue
            part = Development.of(Pool(pool.rows, changed), places, group.survey.ranks)
            ndcg = {name: part.ndcg(weights) for name, weights in modes.items()}
            found.append(Compressed(dataset, model.name, form.name, bytes_each, ndcg))
    return found


def _places(
    group: Group, collections: Sequence[Collection]
) -> list[tuple[int, Mapping[int, int], NDArray[np.int64]]]:
    """Where the queries are, and their judgements by row; those of documents that are not there by negative numbers."""
    places: list[tuple[int, Mapping[int, int], NDArray[np.int64]]] = []
    for collection in collections:
        for query in collection.queries:
            judged = {
                group.survey.row_of.get(name, _ABSENT - number): value
                for number, (name, value) in enumerate(collection.qrels.get(query, {}).items())
            }
            places.append((group.place(collection, query), judged, group.excluded(collection, query)))
    return places
