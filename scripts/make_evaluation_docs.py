"""Writes docs/evaluation-results.md from the results of `triptych eval` in benchmarks/results/eval-*.json.

python scripts/make_evaluation_docs.py

eval-NAME.json is the bundled model's, eval-NAME-first.json that of its first version, whose dense vectors are
multilingual-e5-small's; eval-long-N.json is the bundled model on the first N tokens of long documents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.eval.compare import holm, paired_t
from triptych.io import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HEADS = ("dense", "lexical", "multi", "all")
CROSS = ("afriqa", "xquad-cross")
HEADER = """# The bundled model on held-out sets

nDCG@10 × 100, the mean of each data set's languages or pairs of languages; the whole corpus of each table is searched,
passages of all languages and sets together. How the sets are made: [evaluation-data.md](evaluation-data.md); how the
model was made: [experiments](history/experiments.md). The results, with every query's figure and the tests of
significance, are the files named below; this page is made of them by `python scripts/make_evaluation_docs.py`.

The files that end in `-first` are of the model's first version, before it was trained. Its dense vectors are
multilingual-e5-small's (from the same 4-bit weights, equal to what sentence-transformers makes of them within 2e-7):
`small/dense` is that baseline there. It cuts texts to 512 tokens. BM25 stands in the same files.
"""

Values = NDArray[np.float64]
Result = Mapping[str, Any]
Chosen = Callable[[str], bool]
Key = tuple[str, str]


def main() -> None:
    """Writes the page."""
    files = sorted(RESULTS.glob("eval-*.json"))
    parts = [HEADER, _goals(), *(_table(path.stem) for path in files)]
    write_atomically(ROOT / "docs" / "evaluation-results.md", "\n".join(parts).encode())


def _goals() -> str:
    pooled, first = _read("eval-pooled"), _read("eval-pooled-first")
    rows = [
        *_before_and_after(pooled, first),
        *_against_baselines(pooled, first),
        *_combination(pooled),
        *_long(),
    ]
    corrected = holm([row[-1] for row in rows])
    lines = [
        _row(["what", "sets", "is", "beside", "difference", "better on", "p"]),
        _row(["---", "---", "---:", "---:", "---:", "---:", "---:"]),
    ]
    for (what, sets, ours, theirs, better, count, _), p in zip(rows, corrected, strict=True):
        cells = [what, sets, f"{ours:.1f}", f"{theirs:.1f}", f"{ours - theirs:+.1f}", f"{better} of {count}"]
        lines.append(_row([*cells, f"{p:.2g}"]))
    return (
        "## What was aimed at\n\nMeans over languages, or pairs of them; `better on` counts those on which the first is"
        " at least as good; p is that of a paired t-test over the queries that both files have, after Holm's"
        " correction over this table.\n\n" + "\n".join(lines) + "\n"
    )


def _before_and_after(pooled: Result, first: Result) -> Iterator[tuple[Any, ...]]:
    for head in HEADS:
        for name, chosen in _groups():
            yield _compared(
                f"{head}, first version's {head}",
                name,
                (pooled, f"small/{head}"),
                (first, f"small/{head}"),
                chosen,
            )


def _against_baselines(pooled: Result, first: Result) -> Iterator[tuple[Any, ...]]:
    others = {"multilingual-e5-small": (first, "small/dense"), "BM25, words": (first, "bm25 (words)")}
    for other, system in others.items():
        for name, chosen in _groups():
            yield _compared(f"all, {other}", name, (pooled, "small/all"), system, chosen)
    for name, chosen in _groups()[:2]:
        system = (first, "bm25 (pieces)")
        yield _compared("lexical, BM25 over the same pieces", name, (pooled, "small/lexical"), system, chosen)


def _combination(pooled: Result) -> Iterator[tuple[Any, ...]]:
    for head in HEADS[:3]:
        for name, chosen in _groups():
            yield _compared(f"all, {head}", name, (pooled, "small/all"), (pooled, f"small/{head}"), chosen)


def _long() -> Iterator[tuple[Any, ...]]:
    first, cut = _read("eval-long-first"), _read("eval-long-512")
    for head in HEADS:
        ours, theirs = (cut, f"small/{head}"), (first, f"small/{head}")
        yield _compared(f"{head} of 512 tokens, first version's {head}", "long", ours, theirs, _any)
    longest = max(
        RESULTS.glob("eval-long-[0-9]*.json"), key=lambda path: int(path.stem.rsplit("-", 1)[1])
    ).stem
    tokens = longest.rsplit("-", 1)[1]
    if longest == "eval-long-512":
        return
    whole = _read(longest)
    for head in HEADS:
        ours, theirs = (whole, f"small/{head}"), (cut, f"small/{head}")
        yield _compared(f"{head} of {tokens} tokens, of the first 512", "long", ours, theirs, _any)
    yield _compared(
        f"all of {tokens} tokens, BM25, words", "long", (whole, "small/all"), (first, "bm25 (words)"), _any
    )


def _groups() -> list[tuple[str, Chosen]]:
    return [
        ("xquad", lambda name: name == "xquad"),
        ("other sets", lambda name: name != "xquad" and name not in CROSS),
        ("afriqa (across languages)", lambda name: name == "afriqa"),
        ("xquad-cross", lambda name: name == "xquad-cross"),
    ]


def _any(_: str) -> bool:
    return True


def _compared(
    what: str, sets: str, ours: tuple[Result, str], theirs: tuple[Result, str], chosen: Chosen
) -> tuple[Any, ...]:
    """Means of two systems over the chosen subsets, on how many the first is at least as good, and the p-value."""
    a, b = _shared(*(dict(_subsets(*side, chosen)) for side in (ours, theirs)))
    if not a or not all(map(len, a.values())):
        raise ValueError(f"{what}: the two results have no subset, or none of its queries, in common")
    means = np.array([[values.mean() for values in side.values()] for side in (a, b)]) * 100
    better = int((means[0] >= means[1] - 1e-9).sum())
    p = paired_t(np.concatenate(list(a.values())), np.concatenate(list(b.values())))
    return what, sets, means[0].mean(), means[1].mean(), better, len(a), p


def _shared(
    a: Mapping[Key, Mapping[str, float]], b: Mapping[Key, Mapping[str, float]]
) -> tuple[dict[Key, Values], dict[Key, Values]]:
    """The values of the queries that both have, in the same order."""
    ids = {key: sorted(a[key].keys() & b[key].keys()) for key in a.keys() & b.keys()}
    one, two = ({key: np.array([side[key][i] for i in ids[key]]) for key in sorted(ids)} for side in (a, b))
    return one, two


def _subsets(
    result: Result, system: str, chosen: Chosen
) -> Iterator[tuple[tuple[str, str], Mapping[str, float]]]:
    for subset in result["subsets"]:
        if chosen(subset["dataset"]):
            values = dict(zip(subset["ids"], subset["per_query"][system], strict=True))
            yield (subset["dataset"], subset["subset"]), values


def _read(name: str) -> Result:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _table(name: str) -> str:
    result = _read(name)
    averages: Mapping[str, Mapping[str, Mapping[str, float]]] = result["averages"]
    systems = [name for name in result["systems"] if not name.endswith(("rrf", "dense+lexical tuned"))]
    sizes = {each: [s for s in result["subsets"] if s["dataset"] == each] for each in averages}
    options = result["options"]
    documents = max(subset["documents"] for subset in result["subsets"])
    rows = [
        _row(["data set", "subsets", "queries", *systems]),
        _row(["---", *["---:"] * (len(systems) + 2)]),
    ]
    for dataset, found in averages.items():
        values = [f"{100 * found[system]['nDCG@10']:.1f}" for system in systems]
        best = max(values, key=float)
        marked = [f"**{value}**" if value == best else value for value in values]
        queries = sum(subset["queries"] for subset in sizes[dataset])
        rows.append(_row([dataset, str(len(sizes[dataset])), str(queries), *marked]))
    limit = options.get("candidates")
    how = f"{documents:,} documents, protocol `{options['protocol']}`."
    if limit is not None:
        how += f" Modes with token vectors rank the best {limit} by dense, lexical and dense+lexical score."
    return f"## {name}.json\n\n{how}\n\n" + "\n".join(rows) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
