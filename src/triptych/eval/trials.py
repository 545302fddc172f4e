"""What is tried with a vector model beside the evaluation proper: other weights, smaller token vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError
from triptych.eval.collection import Collection
from triptych.eval.compression import Change, forms, principal_axes, variant
from triptych.eval.contender import VectorModel
from triptych.eval.groups import Group
from triptych.eval.modes import TUNED
from triptych.eval.protocols import Pool, exact, pool_of
from triptych.eval.results import Compressed, Tuned
from triptych.eval.running import Cost, ModelRun, Options, Tools, scope_of
from triptych.eval.scan import rescore
from triptych.eval.tuning import Development, tune
from triptych.types import HEADS, HeadWeights

TUNABLE = ("dense+lexical", "all")
"""The modes whose weights can be chosen."""

_DEVELOPMENT_DEPTH, _COMPRESSION_DEPTH = 200, 50
_COMPRESSION_QUERIES = 500
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
