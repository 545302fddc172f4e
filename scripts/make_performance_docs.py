"""Writes the tables of docs/performance.md and its picture from the lines in benchmarks/results.

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
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
LINES = ROOT / "benchmarks" / "results" / "encode.jsonl"
WAYS = ROOT / "benchmarks" / "results" / "gpu_heads.jsonl"
DISTRIBUTED = ROOT / "benchmarks" / "results" / "gpu_distributed.jsonl"
LOADED = ROOT / "benchmarks" / "results" / "encode_loaded.jsonl"
STARTS = ROOT / "benchmarks" / "results" / "start.jsonl"
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- from benchmarks/results/encode.jsonl -->", "<!-- end -->"
HEADLINE, HEADLINE_END = (
    "<!-- headline, from benchmarks/results/encode.jsonl -->",
    "<!-- end of the headline -->",
)
GOALS, GOALS_END = "<!-- goals, from the same lines -->", "<!-- end of the goals -->"
HEADS, HEADS_END = "<!-- heads, from benchmarks/results/gpu_heads.jsonl -->", "<!-- end of the heads -->"
FORMS, FORMS_END = (
    "<!-- forms, from benchmarks/results/gpu_distributed.jsonl -->",
    "<!-- end of the forms -->",
)
START, START_END = "<!-- start, from benchmarks/results/start.jsonl -->", "<!-- end of the start -->"
WORKLOADS = ("short", "mix", "long", "query")
# Lines before this day whose name says what they were not: FlagEmbedding went back to float32 at each call.
WRONG = {"flagembedding-bfloat16": "2026-11-24"}
Line = dict[str, Any]
Groups = dict[tuple[str, str], dict[tuple[str, str], Line]]
# What was measured side by side: (run, shape, workload) → its lines.
Runs = dict[tuple[str, str, str], list[Line]]
# The clock says nothing of a system that had less than this share of a core while it was measured.
UNDISTURBED = 0.8


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


def side_by_side(lines: Iterable[Line]) -> Runs:
    """The lines of each run and workload."""
    found: Runs = {}
    for line in lines:
        if line.get("workload") in WORKLOADS:
            found.setdefault((line["run"], line["shape"], line["workload"]), []).append(line)
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


def beside(line: Line, group: dict[tuple[str, str], Line], runs: Runs) -> Line | None:
    """Our fastest way with all heads in the run of `line`, or the newest where that run had none."""
    ran = runs[line["run"], line["shape"], line["workload"]]
    newest_of_all = [other for (name, _), other in group.items() if name == line["workload"]]
    for candidates in (ran, newest_of_all):
        ours = [other for other in candidates if _all_heads(other["system"])]
        if ours:
            return min(ours, key=cost)
    return None


def _all_heads(system: str) -> bool:
    return system.startswith("triptych") and not system.endswith(("dense", "int8"))


def table(group: dict[tuple[str, str], Line], runs: Runs) -> list[str]:
    """One table for a machine and a shape; ratios compare what ran side by side, where it did."""
    rows = [
        "| workload | system | tokens/s | tokens/processor-s | p50 / p95 ms | of the product's limit | "
        "ours is faster by |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for workload in WORKLOADS:
        for line in (line for (name, _), line in group.items() if name == workload):
            ran = runs[line["run"], line["shape"], workload]
            ours = next((other for other in ran if other["system"] == "triptych"), None)
            ours = ours or group.get((workload, "triptych"))
            ratio = f"{cost(line) / cost(ours):.2f}" if ours else ""
            latency = f"{line['p50_ms']:.1f} / {line['p95_ms']:.1f}" if "p50_ms" in line else ""
            share = f"{line['of_limit']:.0%}" if "of_limit" in line and workload != "query" else ""
            disturbed = "processor_s" in line and line["processor_s"] < UNDISTURBED * line["wall_s"]
            rows.append(
                f"| {workload} | {line['system']} | {'' if disturbed else _number(line, 'tokens_per_s')} | "
                f"{_number(line, 'tokens_per_processor_s')} | {latency} | {share} | {ratio} |"
            )
    return rows


def _number(line: Line, key: str) -> str:
    return f"{line[key]:,.0f}" if key in line else ""


def section(groups: Groups, runs: Runs) -> str:
    """All tables with their headings."""
    parts: list[str] = []
    for (where, shape), group in sorted(groups.items()):
        by_age = sorted(group.values(), key=lambda line: line["run"])
        used = {k: v for line in by_age for k, v in line["machine"]["versions"].items() if v}
        days = sorted({line["run"][:10] for line in by_age})
        parts += [
            f"### `{shape}` on {where}",
            "",
            f"{' and '.join(days)}; {', '.join(f'{k} {v}' for k, v in used.items())}.",
            "",
            *table(group, runs),
            "",
        ]
    return "\n".join(parts)


PAIRS = (
    ("bfloat16 against FlagEmbedding as it runs on a processor, float32", "triptych", "flagembedding"),
    ("the same type: bfloat16 both", "triptych", "flagembedding-bfloat16"),
    ("the same type: float32 both", "triptych-float32", "flagembedding"),
    ("bfloat16 both; sentence-transformers, dense alone", "triptych", "sentence-transformers"),
    ("float32 both; fastembed, dense alone", "triptych-float32", "fastembed"),
    ("float32 both; m3serve", "triptych-float32", "m3serve"),
    ("bfloat16 against onnxruntime on our graph in dynamic 8 bits", "triptych", "onnxruntime-int8"),
)


def headline(groups: Groups, lines: Iterable[Line]) -> list[str]:
    """Ours against others on the mix on one core, with the types of both; only what ran side by side.

    The newest quiet run with both counts; where there is none, one on a busy machine, which is said.
    """
    shapes = [shape for where, shape in sorted(groups) if "1 of" in where]
    ran: Runs = {}
    for line in lines:
        alone = "1 of" in machine(line) and line.get("workload") == "mix"
        if alone and line["run"] >= WRONG.get(line["system"], ""):
            ran.setdefault((line["run"], line["shape"], ""), []).append(line)
    rows = [
        f"| on one core of a processor, `mix`, processor time | {' | '.join(f'`{shape}`' for shape in shapes)} |",
        "|---|" + "---:|" * len(shapes),
    ]
    for name, ours, theirs in PAIRS:
        cells: list[str] = []
        for shape in shapes:
            found: list[tuple[bool, str, float]] = []
            for (run, own, _), members in ran.items():
                by_name = {line["system"]: line for line in members}
                if own == shape and {ours, theirs} <= set(by_name):
                    one, other = by_name[ours], by_name[theirs]
                    found.append(("busy" not in one, run, cost(other) / cost(one)))
            quiet, _, ratio = max(found, default=(True, "", 0.0))
            cells.append(f"{ratio:.2f} ×{'' if quiet else ' (busy machine)'}" if ratio else "not measured")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def goals(groups: Groups, runs: Runs, passes: dict[tuple[str, str], float]) -> list[str]:
    """Goal beside figure, for each machine and shape."""
    rows = ["| goal, on | which | got | reached |", "|---|---|---:|---|"]
    for (where, shape), group in sorted(groups.items()):
        gpu = "cores in use" not in where
        flag, sentence = (1.9, 1.2) if gpu else (8, 1.5)

        def times(workload: str, system: str, group: dict[tuple[str, str], Line] = group) -> float | None:
            other = group.get((workload, system))
            ours = other and beside(other, group, runs)
            return cost(other) / cost(ours) if other and ours else None

        found: list[tuple[str, float | None, float, str]] = [
            (f"mix, {flag} × FlagEmbedding", times("mix", "flagembedding"), flag, "{:.2f} ×"),
            (
                f"mix, {sentence} × sentence-transformers, its dense head alone",
                times("mix", "sentence-transformers"),
                sentence,
                "{:.2f} ×",
            ),
        ]
        if gpu:
            found.append(
                ("mix, the pass alone, 60 % of the products", passes.get((where, shape)), 0.6, "{:.0%}")
            )
        else:
            share = group.get(("mix", "triptych"), {}).get("of_limit")
            found.append(("mix, 65 % of the products", share, 0.65, "{:.0%}"))
            query = times("query", "sentence-transformers")
            found.append(("one query, 2 × sentence-transformers", query, 2, "{:.2f} ×"))
        for goal, got, least, form in found:
            if got is not None:
                reached = "yes" if got >= least else "**no**"
                rows.append(f"| {goal} | `{shape}`, {_short(where)} | {form.format(got)} | {reached} |")
    return rows


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


def starts(lines: list[Line]) -> list[str]:
    """What a start costs, of the newest run."""
    found = [line for line in lines if line["run"] == lines[-1]["run"]]
    torch = next(line for line in found if line["system"] == "import torch")
    rows = [
        f"{machine(torch)}; {torch['run'][:10]}, medians of {torch['rounds']} rounds in turn.",
        "",
        "| what | processor time, s | × `import torch` | memory at the end, MB | above torch, MB |",
        "|---|---:|---:|---:|---:|",
    ]
    for line in found:
        memory = line.get("resident_mb")
        share = line["processor_s"] / torch["processor_s"]
        cells = ["", ""] if memory is None else [f"{memory:.0f}", f"{memory - torch['resident_mb']:.0f}"]
        rows.append(f"| {line['system']} | {line['processor_s']:.2f} | {share:.2f} | {' | '.join(cells)} |")
    return rows


def newest_run(lines: list[Line], part: str, shape: str | None = "m3") -> list[Line]:
    """The lines of a part of a benchmark in its newest run with BGE-M3's shape; without a shape, in its newest run."""
    chosen = [line for line in lines if line["part"] == part and line.get("shape") == shape]
    last = max((line["run"] for line in chosen), default="")
    return [line for line in chosen if line["run"] == last]


def forms(lines: list[Line]) -> list[str]:
    """What a training step costs in each form, and how far the gradients are from one process's."""
    by_form: dict[str, list[Line]] = {}
    for line in newest_run(lines, "speed"):
        by_form.setdefault(line["form"], []).append(line)

    def middle(form: str, key: str) -> float:
        return median(line[key] for line in by_form[form])

    first = by_form["one"][0]
    rows = [
        f"{first['gpu']}, torch {first['torch']}, {first['run'][:10]}; {first['tokens_per_gpu']:,} tokens a GPU; "
        f"medians of {len(by_form['one'])} rounds in turn.",
        "",
        "| form | GPUs | step, ms | of linear | peak MB a GPU |",
        "|---|---:|---:|---:|---:|",
    ]
    for form, (line, *_) in by_form.items():
        one = (
            "one, before"
            if "one, before" in by_form and {"before", "layers"} & set(form.split(", "))
            else "one"
        )
        seconds = middle(form, "step_s")
        share = "" if line["gpus"] == 1 else f"{middle(one, 'step_s') / seconds:.2f}"
        peak = f"{middle(form, 'peak_mb'):,.0f}"
        rows.append(f"| {line.get('what', form)} | {line['gpus']} | {seconds * 1e3:.0f} | {share} | {peak} |")
    rows += [
        "",
        "| gradient against one process, float32 | DDP | FSDP | float32 against float64 |",
        "|---|---:|---:|---:|",
    ]
    equal = newest_run(lines, "equal", None)
    for heads in dict.fromkeys(line["heads"] for line in equal):
        own = [line for line in equal if line["heads"] == heads]
        worst = [
            max(line["gradient_error"] for line in own if line["form"] == form) for form in ("ddp", "fsdp")
        ]
        rounding = max((line["rounding"] for line in own if "rounding" in line), default=None)
        cells = [f"{value:.1e}" for value in worst] + ["" if rounding is None else f"{rounding:.1e}"]
        rows.append(f"| {heads} | {' | '.join(cells)} |")
    return rows


def heads(lines: list[Line]) -> list[str]:
    """Three heads beside the pass alone."""
    found = newest_run(lines, "heads")
    if not found:
        return ["Not measured yet."]
    first = found[0]
    rows = [
        f"{first['machine']['gpu']}, {first['run'][:10]}; {first['texts']:,} texts, {first['tokens']:,} tokens; "
        f"medians of {len(first['wall_all_s'])} rounds in turn.",
        "",
        "| way | ms | tokens/s | of the pass alone | the thread is busy, ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for line in found:
        busy = f"{line['busy_s'] * 1e3:.0f}" if line["busy_s"] else ""
        speed = f"{line['wall_s'] * 1e3:.0f} | {line['tokens_per_s']:,.0f} | {line['of_pass']:.2f}"
        rows.append(f"| {line['way']} | {speed} | {busy} |")
    return rows


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


def _read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Writes the page and the picture, or compares them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    lines = _read(LINES)
    busy = [line | {"busy": True} for line in _read(LOADED)]
    groups, runs = newest(lines), side_by_side(lines)
    old = PAGE.read_text(encoding="utf-8")
    new = _between(old, BEGIN, END, section(groups, runs))
    for (begin, end), rows in (
        ((START, START_END), starts(_read(STARTS))),
        ((FORMS, FORMS_END), forms(_read(DISTRIBUTED))),
        ((HEADS, HEADS_END), heads(_read(WAYS) if WAYS.exists() else [])),
    ):
        new = _between(new, begin, end, "\n".join(rows) + "\n")
    new = _between(new, GOALS, GOALS_END, "\n".join(goals(groups, runs, passes_alone(lines))) + "\n")
    new = _between(new, HEADLINE, HEADLINE_END, "\n".join(headline(groups, [*lines, *busy])) + "\n")
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
