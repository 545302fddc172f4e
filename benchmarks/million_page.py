"""The page and the picture of a million passages, made of what `million.py` wrote.

python benchmarks/million_page.py        # docs/scale.md and docs/pictures/growth.svg, from results/million.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pages import fill
from triptych.index.layout import Layout

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "million.jsonl"
PAGE = ROOT / "docs" / "scale.md"
ALL = "all, 200 candidates"
VACUUM = 0.2  # the engine's `deleted_threshold`
NAMES = {"edge": "Triptych", "postgres": "Triptych on PostgreSQL"}

Row = dict[str, Any]


def read(path: Path = RESULTS) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def last(rows: Sequence[Row], kind: str, **facts: Any) -> Row:
    """The last row of a kind with these facts; empty if there is none."""
    found = [row for row in rows if row["kind"] == kind and all(row.get(k) == v for k, v in facts.items())]
    return found[-1] if found else {}


def sizes(rows: Sequence[Row]) -> list[int]:
    return sorted({row["passages"] for row in rows if row["kind"] == "build" and row["engine"] == "edge"})


def _latency(found: Row, step: str) -> str:
    return " / ".join(_number(found[step][part]) for part in ("p50_ms", "p95_ms")) if step in found else ""


def _number(value: float | None, form: str = ",.3g") -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 and form == ",.3g" else f"{value:{form}}"


LINES: tuple[tuple[str, Callable[[Row, Row], str]], ...] = (
    ("processors of the one process that built it", lambda b, _: _number(b.get("builder_cores"))),
    ("seconds to add and to build the graph", lambda b, _: _number(b["add_seconds"] + b["optimize_seconds"])),
    ("passages a second", lambda b, _: _number(b["passages_per_second"])),
    ("GB on the disk, at most meanwhile", lambda b, _: f"{b['disk_mb'] / 1e3:.3g}, {b['disk_peak_mb'] / 1e3:.3g}"),
    ("bytes a passage", lambda b, _: _number(b["bytes_per_passage"])),
    ("memory while building, MB", lambda b, _: _number(b["anonymous_peak_mb"] - b["before"]["anonymous_mb"])),
    ("seconds to open", lambda _, s: _number(s.get("open_seconds"))),
    ("dense, ms (p50 / p95), and found of its ten best", lambda _, s: _route(s, "dense")),
    ("lexical", lambda _, s: _route(s, "lexical")),
    ("both, exact scores of the union, ms", lambda _, s: _latency(s, ALL)),
    ("memory while searching, MB", lambda _, s: _number(s.get("anonymous_mb"))),
    ("of the ten best of all passages, found", lambda _, s: _number(s.get("recall"), ".3f")),
    ("… of those by vectors as encoded", lambda _, s: _number(s.get("recall_of_exact_as_encoded"), ".3f")),
)  # fmt: skip


def _route(found: Row, step: str) -> str:
    share = found.get(step, {}).get("recall")
    return _latency(found, step) + ("" if share is None else f", {share:.3f}")


def ours(rows: Sequence[Row]) -> str:
    """A column for each size."""
    pairs = [(last(rows, "build", engine="edge", passages=n), last(rows, "search", engine="edge", passages=n))
             for n in sizes(rows)]  # fmt: skip
    lines = [
        "| passages | " + " | ".join(f"{n:,}" for n in sizes(rows)) + " |",
        "|---|" + "---:|" * len(pairs),
    ]
    lines += [f"| {name} | " + " | ".join(show(*pair) for pair in pairs) + " |" for name, show in LINES]
    picture = "![Time, room and searches against the number of passages](pictures/growth.svg)"
    return "\n".join([*lines, "", *reached(rows), picture])


def reached(rows: Sequence[Row]) -> list[str]:
    """Says that the largest collection was cut short by the time, and what a whole one would take."""
    built = last(rows, "build", engine="edge", passages=max(sizes(rows), default=0))
    wanted = int(built.get("wanted", "0").split()[0])
    if not built or wanted <= built["passages"]:
        return []
    room = built["bytes_per_passage"] * wanted / 1e9
    return [
        f"{wanted:,} passages were wanted; when the time of the run was out, {built['passages']:,} of them were "
        f"indexed by one process, at {built['passages_per_second']:,} passages a second. A collection of {wanted:,} "
        f"was neither built nor searched: by extrapolation it takes {room:.1f} GB on the disk (the bytes of a passage "
        f"× {wanted:,}).",
        "",
    ]


def changed(rows: Sequence[Row]) -> str:
    """What a third of changes does."""
    churn, after = last(rows, "churn", engine="edge"), last(rows, "search after churn", engine="edge")
    if not churn or not after:
        return ""
    before = last(rows, "search", engine="edge", passages=churn["passages"])
    share = f"{churn['changed']:,} of {churn['passages']:,} passages were removed or replaced"
    part, limit = churn["changed"] / churn["passages"], Layout({"dense": 1}).exact_below
    compaction = (
        f"`optimize` took {churn['optimize_seconds']:.3g} s; the folder had {churn['disk_before_mb']:,.0f} MB before "
        f"it and {churn['disk_mb']:,.0f} MB after"
    )
    if part < VACUUM:
        compaction += (
            f", since the engine leaves a segment as it is until a fifth of it has gone (here {part:.0%})"
        )
    told = (
        f"{share} in {churn['seconds']:,.0f} s. {compaction}. A search by both took {_latency(before, ALL)} ms "
        f"(p50 / p95) before the changes and {_latency(after, ALL)} ms after them; the dense vectors alone "
        f"{_latency(before, 'dense')} and {_latency(after, 'dense')} ms."
    )
    if churn["left"] < limit <= churn["passages"]:
        told += (
            f" That is no wear: with {churn['left']:,} passages left the collection is smaller than "
            f"`exact_below` ({limit:,}), and a smaller one is compared as a whole, without the graph, so that none of "
            "the ten best is missed; the time of that grows with the number of passages. Lower `exact_below` if that "
            "is too slow."
        )
    return told


def others(rows: Sequence[Row]) -> str:
    """A line for each engine, size and way of searching."""
    lines = ["| engine | passages | by | built, s | GB | memory at the end, MB | p50 / p95, ms | ten best found |",
             "|---|---:|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    found = list[tuple[int, str, str]]()
    for row in rows:
        if row["kind"] == "peer":
            for step, search in row.items():
                if isinstance(search, dict) and "p50_ms" in search:
                    cells = [row["name"], f"{row['passages']:,}", step, _number(row["build_seconds"]),
                             f"{row['disk_mb'] / 1e3:.3g}", _number(row["anonymous_mb"]), _latency(row, step),
                             _number(search.get("recall"), ".3f")]  # fmt: skip
                    found.append((row["passages"], row["name"], " | ".join(cells)))
        elif row["kind"] == "search":
            built = last(rows, "build", engine=row["engine"], passages=row["passages"])
            name = NAMES[row["engine"]]
            for step in ("dense", "lexical", ALL):
                cells = [name, f"{row['passages']:,}", step, _number(built["add_seconds"] + built["optimize_seconds"]),
                         f"{built['disk_mb'] / 1e3:.3g}", _number(row["anonymous_mb"]), _latency(row, step),
                         _number(row.get("recall") if step == ALL else row[step].get("recall"), ".3f")]  # fmt: skip
                found.append((row["passages"], "" if row["engine"] == "edge" else name, " | ".join(cells)))
    largest = max((count for count, name, _ in found if name), default=0)
    ordered = sorted(found, key=lambda each: each[:2])
    lines += [f"| {line} |" for count, _, line in ordered if count <= largest]
    ended = [f"{row['name']} passages ({_why(row)})" for row in rows if row["kind"] == "failed"]
    return "\n".join([*lines, "", f"Without a result: {', '.join(ended)}."] if ended else lines)


def _why(failed: Row) -> str:
    return "the time was out" if failed["error"].startswith("TimeoutExpired") else failed["error"][:80]


def encoded(rows: Sequence[Row]) -> str:
    facts, run = last(rows, "encode"), last(rows, "passages")
    if not facts:
        return ""
    each = {step: f"{1e3 * seconds / facts['passages']:.2f} ms" for step, seconds in facts["steps"].items()}
    form = run.get("options", {}).get("multi")
    return (
        f"{facts['passages']:,} passages of {facts['tokens'] / facts['passages']:.0f} token vectors were encoded in "
        f"{facts['seconds']:,.0f} s by {facts['processes']} processes on one GPU, shared with other work. In such a "
        f"process the encoding of a passage takes {each['encode']}, and the pooling of its token vectors "
        f"({run.get('pool')} to 1) {each['pool']}; both are left out of the times of building. Token vectors are "
        f"kept as `{form}`. There were {run.get('processors')} processors, of which a search had 2."
    )


def not_run() -> str:
    """What is known without a run: the engine alone, with random vectors."""
    runs = json.loads((RESULTS.parent / "index_scale.json").read_text("utf-8"))
    name, run = next((name, run) for name, run in runs.items() if name.startswith("20000 edge multi=2bit"))
    built, searched = run["build"], run["search"]
    spent = f"{searched[ALL]['processor_p50_ms']:.0f} ms of a processor"
    each = f"{1e3 * built['processor_seconds'] / built['passages']:.2f} ms of a processor"
    memory = built["anonymous_peak_mb"] - built["before"]["anonymous_mb"]
    return (
        "**Not run yet**: no figures of a million passages are here, and the tables below are empty. The engine alone "
        f"stored {built['passages']:,} random passages of {run['tokens']} token vectors in two bits, with a graph, in "
        f"{each} and {built['bytes_per_passage']:,} bytes each, with {memory} MB of memory; a search with exact scores "
        f"of the union of 200 candidates each took {spent}, on a machine "
        f"busy with other work (results/index_scale.json: `{name}`).\n"
    )


def render(text: str, rows: Sequence[Row]) -> str:
    """The page with its tables made anew."""
    tables = {"encoded": encoded, "sizes": ours, "churn": changed, "other engines": others}
    parts = {f"million: {name}": make(rows) + "\n" if rows else "" for name, make in tables.items()}
    return fill(text, parts if rows else parts | {"million: encoded": not_run()}, PAGE)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text("utf-8"), read()), "utf-8")
    if RESULTS.is_file():
        sys.path.insert(0, str(ROOT / "docs"))
        import pictures

        pictures.main(["growth"])
