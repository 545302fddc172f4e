"""Writes the tables of docs/performance.md and its picture from the lines of benchmarks/results/encode.jsonl.

    python scripts/make_performance_docs.py [--check]

Of each machine, shape, workload and system the newest line counts. With `--check` nothing is written; the exit
code says whether the page is up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINES = ROOT / "benchmarks" / "results" / "encode.jsonl"
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- from benchmarks/results/encode.jsonl -->", "<!-- end -->"
GOALS, GOALS_END = "<!-- goals, from the same lines -->", "<!-- end of the goals -->"
WORKLOADS = ("short", "mix", "long", "query")
# Lines before this day whose name says what they were not: FlagEmbedding went back to float32 at each call.
WRONG = {"flagembedding-bfloat16": "2026-11-24"}
Line = dict[str, Any]
Groups = dict[tuple[str, str], dict[tuple[str, str], Line]]


def newest(lines: Iterable[Line]) -> Groups:
    """(machine, shape) → (workload, system) → the newest line."""
    found: Groups = {}
    for line in lines:
        if line.get("workload") not in WORKLOADS or line["shape"] == "tiny":
            continue
        if line["run"] < WRONG.get(line["system"], "") and "gpu" not in line["machine"]:
            continue
        found.setdefault((machine(line), line["shape"]), {})[line["workload"], line["system"]] = line
    return found


def machine(line: Line) -> str:
    """In words what a line was measured on."""
    facts = line["machine"]
    if "gpu" in facts:
        return facts["gpu"]
    fast = [name for name in facts["features"] if name.startswith(("amx", "avx512_bf16", "avx512_vnni"))]
    return f"{facts['cpu']}, {facts['threads']} of {facts['cores']} cores in use, {', '.join(fast)}"


def cost(line: Line) -> float:
    """What the ratios compare: processor time, which other work on the machine changes less; on a GPU the clock.

    For a token, since runs differ in how many texts they take.
    """
    if "p50_ms" in line:
        return line["p50_ms"]
    return (line.get("processor_s") or line["wall_s"]) / line["tokens"]


def table(group: dict[tuple[str, str], Line], same_run: dict[tuple[str, str, str], Line]) -> list[str]:
    """One table for a machine and a shape.

    Args:
        group: Its newest lines.
        same_run: (run, shape, workload) → our line there: a ratio compares what ran side by side, where it did.
    """
    rows = [
        "| workload | system | tokens/s | tokens/processor-s | p50 / p95 ms | of the product's limit | "
        "ours is faster by |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for workload in WORKLOADS:
        lines = [line for (name, _), line in group.items() if name == workload]
        for line in lines:
            ours = same_run.get((line["run"], line["shape"], workload), group.get((workload, "triptych")))
            ratio = f"{cost(line) / cost(ours):.2f}" if ours else ""
            latency = f"{line['p50_ms']:.1f} / {line['p95_ms']:.1f}" if "p50_ms" in line else ""
            share = f"{line['of_limit']:.0%}" if "of_limit" in line and workload != "query" else ""
            rows.append(
                f"| {workload} | {line['system']} | {_number(line, 'tokens_per_s')} | "
                f"{_number(line, 'tokens_per_processor_s')} | {latency} | {share} | {ratio} |"
            )
    return rows


def _number(line: Line, key: str) -> str:
    return f"{line[key]:,.0f}" if key in line else ""


def section(groups: Groups, lines: Iterable[Line]) -> str:
    """All tables with their headings."""
    parts: list[str] = []
    same_run = {
        (line["run"], line["shape"], line["workload"]): line
        for line in lines
        if line.get("system") == "triptych" and line.get("workload") in WORKLOADS
    }
    for (where, shape), group in sorted(groups.items()):
        by_age = sorted(group.values(), key=lambda line: line["run"])
        used = {k: v for line in by_age for k, v in line["machine"]["versions"].items() if v}
        days = sorted({line["run"][:10] for line in by_age})
        parts += [
            f"### `{shape}` on {where}",
            "",
            f"{' and '.join(days)}; {', '.join(f'{k} {v}' for k, v in used.items())}.",
            "",
            *table(group, same_run),
            "",
        ]
    return "\n".join(parts)


def goals(groups: Groups, passes: dict[tuple[str, str], float]) -> list[str]:
    """Goal beside figure, for each machine and shape."""
    rows = ["| goal, on | which | got | reached |", "|---|---|---:|---|"]
    for (where, shape), group in sorted(groups.items()):
        gpu = "cores in use" not in where
        flag, sentence = (1.9, 1.2) if gpu else (8, 1.5)
        ours = _least(group, "mix", "triptych", but="int8") or {}
        found: list[tuple[str, float | None, float, str]] = [
            (f"mix, {flag} × FlagEmbedding", _ratio(group, "mix", "flagembedding", ours), flag, "{:.2f} ×"),
            (
                f"mix, {sentence} × sentence-transformers, its dense head alone",
                _ratio(group, "mix", "sentence-transformers", ours),
                sentence,
                "{:.2f} ×",
            ),
        ]
        if gpu:
            found.append(
                ("mix, the pass alone, 60 % of the products", passes.get((where, shape)), 0.6, "{:.0%}")
            )
        else:
            found.append(("mix, 65 % of the products", ours.get("of_limit"), 0.65, "{:.0%}"))
            query = group.get(("query", "triptych"))
            times = _ratio(group, "query", "sentence-transformers", query or {})
            found.append(("one query, 2 × sentence-transformers", times, 2, "{:.2f} ×"))
        for goal, got, least, form in found:
            if got is not None:
                reached = "yes" if got >= least else "**no**"
                rows.append(f"| {goal} | `{shape}`, {_short(where)} | {form.format(got)} | {reached} |")
    return rows


def _least(group: dict[tuple[str, str], Line], workload: str, begins: str, but: str) -> Line | None:
    """The fastest line of a workload among a library's ways with the same heads."""
    lines = [
        line
        for (name, system), line in group.items()
        if name == workload and system.startswith(begins) and not system.endswith(("dense", but))
    ]
    return min(lines, key=cost, default=None)


def _ratio(group: dict[tuple[str, str], Line], workload: str, system: str, ours: Line) -> float | None:
    other = group.get((workload, system))
    return cost(other) / cost(ours) if other and ours else None


def _short(where: str) -> str:
    return where.split(",")[1].strip() if "cores in use" in where else where


def passes_alone(lines: Iterable[Line]) -> dict[tuple[str, str], float]:
    """(machine, shape) → the best share of the limit that the forward pass alone had on the mix, of the newest run."""
    best: dict[tuple[str, str], tuple[str, float]] = {}
    for line in lines:
        if line.get("part") != "forward" or line.get("of", "mix") != "mix" or line["shape"] == "tiny":
            continue
        key, run = (machine(line), line["shape"]), line["run"]
        before = best.get(key, ("", 0.0))
        best[key] = (run, max(line["of_limit"], before[1] if before[0] == run else 0.0))
    return {key: share for key, (_, share) in best.items()}


def picture(groups: Groups) -> str:
    """Bars of tokens a second on the mix, one block for each machine and shape, as SVG."""
    rows: list[str] = []
    y = 10
    for (where, shape), group in sorted(groups.items()):
        bars = [(system, line) for (workload, system), line in group.items() if workload == "mix"]
        if not bars:
            continue
        key = "tokens_per_processor_s" if "tokens_per_processor_s" in bars[0][1] else "tokens_per_s"
        most = max(line[key] for _, line in bars)
        title = f"{shape}, mix, {key.replace('_', ' ').replace(' per ', '/')}: {where}"
        rows.append(f'<text x="10" y="{y + 14}" font-weight="bold">{title}</text>')
        y += 24
        for system, line in bars:
            width = 420 * line[key] / most
            color = "#2b6cb0" if system.startswith("triptych") else "#a0aec0"
            rows += [
                f'<text x="200" y="{y + 12}" text-anchor="end">{system}</text>',
                f'<rect x="208" y="{y}" width="{width:.0f}" height="16" fill="{color}"/>',
                f'<text x="{214 + width:.0f}" y="{y + 12}">{line[key]:,.0f}</text>',
            ]
            y += 20
        y += 14
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{y}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *rows, "</svg>", ""])


def _between(page: str, begin: str, end: str, text: str) -> str:
    before, rest = page.split(begin, 1)
    return f"{before}{begin}\n\n{text}\n{end}{rest.split(end, 1)[1]}"


def main() -> None:
    """Writes the page and the picture, or compares them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    lines = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    groups = newest(lines)
    old = PAGE.read_text(encoding="utf-8")
    new = _between(old, BEGIN, END, section(groups, lines))
    new = _between(new, GOALS, GOALS_END, "\n".join(goals(groups, passes_alone(lines))) + "\n")
    image = picture(groups)
    if check:
        current = PICTURE.read_text(encoding="utf-8") if PICTURE.exists() else ""
        sys.exit(
            0
            if (new, image) == (old, current)
            else f"{PAGE.name} is not up to date: run {Path(__file__).name}"
        )
    PAGE.write_text(new, encoding="utf-8")
    PICTURE.write_text(image, encoding="utf-8")


if __name__ == "__main__":
    main()
