"""An evaluation as one HTML page that needs nothing beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from triptych.errors import MissingExtra
from triptych.eval import plots
from triptych.eval.compare import TOGETHER
from triptych.eval.results import Evaluation, Subset
from triptych.io import write_atomically

_SIGNIFICANT = 0.05
_WIDE = 40  # subsets, above which only the mean stands in the table


def write_report(result: Evaluation, path: Path) -> None:
    """Writes the page.

    Raises:
        MissingExtra: Without matplotlib or jinja2.
        StorageError: If it cannot be written.
    """
    write_atomically(path, render(result).encode())


def render(result: Evaluation) -> str:
    """The page as text."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingExtra("the report", "eval") from error
    text = resources.files("triptych.eval").joinpath("report.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(text).render(
        title="Retrieval: " + ", ".join(result.datasets),
        created=result.created.replace("T", " ").removesuffix("+00:00") + " UTC",
        duration=_duration(result.seconds),
        options=result.options,
        versions=result.versions,
        sets=[_set(result, dataset, number) for number, dataset in enumerate(result.datasets)],
        systems=list(_systems(result)),
        tuned=list(_tuned(result)),
        contenders=[
            {
                "name": name,
                "fingerprint": one.fingerprint[:16],
                "facts": ", ".join(f"{key} {_plain(value)}" for key, value in one.facts.items()),
            }
            for name, one in result.contenders.items()
        ],
    )


def _set(result: Evaluation, dataset: str, number: int) -> dict[str, Any]:
    subsets = result.of(dataset)
    averages = result.averages[dataset]
    metric = subsets[0].primary
    shown = subsets if 1 < len(subsets) <= _WIDE else []
    table = {
        system: [found[metric], *(subset.metrics[system][metric] for subset in shown)]
        for system, found in averages.items()
    }
    stars = _stars(result, dataset)
    columns = [TOGETHER, *(subset.subset for subset in shown)]
    metrics = result.metrics(dataset)
    tests = [one for one in result.significance if (one.dataset, one.subset) == (dataset, TOGETHER)]
    return {
        "name": dataset,
        "anchor": f"set-{number}",
        "size": _size(subsets),
        "metric": metric,
        "subsets": f"{len(subsets)} subsets" if len(subsets) > 1 else "all queries",
        "heads": ["mean" if len(subsets) > 1 else "all", *columns[1:]],
        "rows": _rows(table, {system: [(c, system) in stars for c in columns] for system in table}),
        "starred": bool(stars),
        "test": "t-test" if result.options.get("test") == "t" else "randomisation test",
        "pictures": list(_pictures(result, dataset)),
        "metrics": {
            "heads": metrics,
            "rows": _rows({s: [f[m] for m in metrics] for s, f in averages.items()}),
        },
        "tests": [
            {
                "pair": f"{one.a} − {one.b}",
                "difference": f"{100 * one.difference:+.1f}",
                "p": f"{one.p:.2g}",
                "corrected": f"{one.p_holm:.2g}",
                "significant": one.p_holm < _SIGNIFICANT,
            }
            for one in tests
        ],
        "notes": [note for subset in subsets for note in subset.notes],
    }


def _pictures(result: Evaluation, dataset: str) -> Iterator[dict[str, str]]:
    subsets = result.of(dataset)
    if len(subsets) > 1:
        yield {"title": "By language", "svg": plots.languages(result, dataset), "note": ""}
    if (svg := plots.lengths(result, dataset)) is not None:
        yield {"title": "By length of the relevant document", "svg": svg, "note": ""}
    if (svg := plots.compression(result, dataset)) is not None:
        note = (
            "Each point is a form of the documents' token vectors; the lines join those that no smaller one beats. The "
            "first 20 of every list of the evaluation are ranked again; queries keep their full precision. "
            "PCA: principal components of this corpus."
        )
        yield {"title": "Smaller token vectors", "svg": svg, "note": note}
    if (svg := plots.latency(result, dataset)) is not None:
        note = "Queries that were read from the cache have no encoding in their time."
        models = {one.contender for one in result.systems.values() if one.weights}
        cached = any(result.contenders[name].encode_seconds_per_query is None for name in models)
        yield {"title": "Time and quality", "svg": svg, "note": note if cached else ""}


def _rows(
    table: Mapping[str, Sequence[float]], stars: Mapping[str, Sequence[bool]] | None = None
) -> list[dict[str, Any]]:
    best = [max(column) for column in zip(*table.values(), strict=True)]
    return [
        {
            "name": name,
            "cells": [
                {
                    "text": f"{100 * value:.1f}",
                    "best": f"{100 * value:.1f}" == f"{100 * best[i]:.1f}" and len(table) > 1,
                    "star": bool(stars and stars[name][i]),
                }
                for i, value in enumerate(values)
            ],
        }
        for name, values in table.items()
    ]


def _stars(result: Evaluation, dataset: str) -> set[tuple[str, str]]:
    reference = result.options.get("reference")
    return {
        (one.subset, one.a if one.b == reference else one.b)
        for one in result.significance
        if one.dataset == dataset and one.p_holm < _SIGNIFICANT and reference in (one.a, one.b)
    }


def _systems(result: Evaluation) -> Iterator[dict[str, str]]:
    for name, one in result.systems.items():
        encode = result.contenders[one.contender].encode_seconds_per_query
        yield {
            "name": name,
            "weights": ", ".join(f"{weight:g}" for weight in one.weights) if one.weights else "–",
            "rank": _number(one.seconds_per_query, 1000),
            "encode": _number(encode, 1000),
            "size": _number(one.bytes_per_document, 1 / 1024),
        }


def _tuned(result: Evaluation) -> Iterator[dict[str, str]]:
    for one in result.tuned:
        yield {
            "system": one.system,
            "weights": ", ".join(f"{weight:g}" for weight in one.weights),
            "ndcg": f"{100 * one.ndcg:.1f}",
            "fixed": f"{100 * one.fixed_ndcg:.1f}",
            "queries": f"{one.queries:,}",
            "on": ", ".join(one.development),
        }


def _size(subsets: Sequence[Subset]) -> str:
    queries = sum(subset.queries for subset in subsets)
    documents = sum({subset.corpus: subset.documents for subset in subsets}.values())
    splits = ", ".join(dict.fromkeys(subset.split for subset in subsets))
    many = f"{len(subsets)} subsets, " if len(subsets) > 1 else ""
    return f"{splits}: {many}{queries:,} queries, {documents:,} documents"


def _number(value: float | None, factor: float) -> str:
    return "–" if value is None else f"{value * factor:.3g}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _plain(value: Any) -> str:
    return re.sub(r'["{}]', "", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
