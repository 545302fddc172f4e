"""An evaluation as one HTML page that needs nothing beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from triptych.errors import require_extra
from triptych.eval import plots, tables
from triptych.eval.results import Evaluation
from triptych.io import write_atomically


def write_report(result: Evaluation, path: Path) -> None:
    """Writes the page.

    Raises:
        MissingExtra: Without matplotlib or jinja2.
        StorageError: If it cannot be written.
    """
    write_atomically(path, render(result).encode())


def render(result: Evaluation) -> str:
    """The page as text."""
    with require_extra("the report", "eval"):
        from jinja2 import Environment, StrictUndefined
    text = resources.files("triptych.eval").joinpath("report.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    seconds = result.seconds
    return environment.from_string(text).render(
        title="Retrieval: " + ", ".join(result.datasets),
        created=result.created.replace("T", " ").removesuffix("+00:00") + " UTC",
        duration=f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s",
        options=result.options,
        versions=result.versions,
        sets=[
            {
                "name": dataset,
                "anchor": f"set-{number}",
                "table": tables.dataset_table(result, dataset),
                "pictures": list(_pictures(result, dataset)),
                "metrics": tables.metrics_table(result, dataset),
                "tests": tables.tests_table(result, dataset),
                "notes": [note for subset in result.of(dataset) for note in subset.notes],
            }
            for number, dataset in enumerate(result.datasets)
        ],
        systems=tables.costs_table(result),
        tuned=tables.tuned_table(result),
        contenders=[
            {
                "name": name,
                "fingerprint": one.fingerprint[:16],
                "facts": ", ".join(f"{key} {_plain(value)}" for key, value in one.facts.items()),
            }
            for name, one in result.contenders.items()
        ],
    )


def _pictures(result: Evaluation, dataset: str) -> Iterator[dict[str, str]]:
    if len(result.of(dataset)) > 1:
        yield {"title": "By language", "svg": plots.languages(result, dataset), "note": ""}
    if (svg := plots.lengths(result, dataset)) is not None:
        yield {"title": "By length of the relevant document", "svg": svg, "note": ""}
    if (svg := plots.latency(result, dataset)) is not None:
        note = "Queries that were read from the cache have no encoding in their time."
        models = {one.contender for one in result.systems.values() if one.weights}
        cached = any(result.contenders[name].encode_seconds_per_query is None for name in models)
        yield {"title": "Time and quality", "svg": svg, "note": note if cached else ""}


def _plain(value: Any) -> str:
    return re.sub(r'["{}]', "", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
