"""The page of the bundled model's results, made of made-up ones."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from triptych.eval.results import SCHEMA, Evaluation, ModeFacts, Subset, SystemFacts, averages
from triptych.types import DefaultWeights

ROOT = Path(__file__).parents[1]
SETS = {"pooled": {"xquad": 2, "cmrc": 1, "afriqa": 1, "xquad-cross": 2}, "long": {"long": 2}}
SETS["hard"] = SETS["pooled"]
SYSTEMS = {
    "small/dense": 0.70,
    "small/lexical": 0.60,
    "small/multi": 0.90,
    "small/all": 0.98,
    "previous/all": 0.65,
    "e5/dense": 0.50,
    "gemma/dense": 0.9,
    "bm25 (words)": 0.55,
    "bm25 (pieces)": 0.61,
}


@pytest.fixture(scope="module")
def page() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        yield importlib.import_module("make_evaluation_docs")


def subset(name: str, number: int, levels: Mapping[str, float], noise: Sequence[float]) -> Subset:
    values = {system: [level + each for each in noise] for system, level in levels.items()}
    ids = [f"{name}-{number}-{query}" for query in range(len(noise))]
    means = {system: {"nDCG@10": float(np.mean(own))} for system, own in values.items()}
    clusters = [f"{name}/{query}" for query in range(len(noise))]
    facts = (len(ids), len(ids), means, "nDCG@10", ids, values, [9] * len(ids), [], clusters)
    return Subset(name, f"l{number}", "test", "c", 12345, *facts)


def write(root: Path, pools: Sequence[str], weights: tuple[float, ...] = tuple(DefaultWeights())) -> None:
    noise = np.linspace(-0.01, 0.01, 40)
    (root / "benchmarks" / "results").mkdir(parents=True)
    (root / "docs").mkdir()
    for pool in pools:
        subsets = [
            subset(name, number, SYSTEMS, (noise * (number + 1)).tolist())
            for name, count in SETS[pool].items()
            for number in range(count)
        ]
        triple = (weights[0], weights[1], weights[2])
        modes = {name: ModeFacts(name.partition("/")[0], name.partition("/")[2], triple) for name in SYSTEMS}
        contenders = {one.contender: SystemFacts("x") for one in modes.values()}
        found = averages(subsets)
        result = Evaluation(SCHEMA, "2026", {}, {}, contenders, modes, subsets, found)
        result.write(root / "benchmarks" / "results" / f"eval-{pool}.json.zst")


def rows(text: str, *parts: str) -> list[str]:
    return [line for line in text.splitlines() if all(part in line for part in parts)]


def test_the_page_says_what_was_reached_and_what_was_missed(page: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, ("pooled", "hard", "long"))
    page.main(tmp_path)
    text = (tmp_path / "docs" / "evaluation-results.md").read_text("utf-8")
    assert "the default" in text
    assert rows(text, "| all | xquad, 12 languages | 65.0 | 98.0 | ≥ 97 | reached |")
    assert rows(text, "| multi | xquad across languages", "reached")
    assert not rows(text, "| all | xquad, 12", "missed")
    for title in ("BM25, words", "BM25, pieces", "EmbeddingGemma-300M", "multilingual-e5-small (4-bit copy)"):
        heads = [line for line in text.splitlines() if line.startswith(("| data set", "| sets | pool"))]
        assert len(heads) == 4
        assert all(title in line for line in heads)
    # Lexical is one point behind BM25 over pieces, in every group, beyond noise.
    behind = rows(text, "| lexical, BM25, pieces |")
    assert len(behind) == 5
    assert all("| -1.0 |" in line and "**missed**" in line for line in behind)
    assert all("| ahead |" in line for line in rows(text, "| all, multi |"))
    assert len(rows(text, "| xquad, 12 languages | hard |")) == 1


def test_other_weights_than_the_default_are_named(page: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, ("pooled",), (1.0, 0.3, 1.0))
    page.main(tmp_path)
    text = (tmp_path / "docs" / "evaluation-results.md").read_text("utf-8")
    assert "1·dense + 0.3·lexical + 1·multi, not the default of this version" in text
    assert "hard" not in text


def test_the_cards_table_is_renewed_between_its_marks(page: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, ("pooled", "long"))
    card = tmp_path / page.CARD.relative_to(ROOT)
    card.parent.mkdir(parents=True)
    card.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.main(tmp_path)
    text = card.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert rows(text, "| 2,340 long documents", "| 98.")


def test_the_committed_page_is_that_of_the_committed_results(page: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "results").symlink_to(ROOT / "benchmarks" / "results")
    (tmp_path / "docs").mkdir()
    card = tmp_path / page.CARD.relative_to(ROOT)
    card.parent.mkdir(parents=True)
    card.write_bytes(page.CARD.read_bytes())
    page.main(tmp_path)
    made = tmp_path / "docs" / "evaluation-results.md"
    assert made.read_text("utf-8") == (ROOT / "docs" / "evaluation-results.md").read_text("utf-8")
    assert card.read_text("utf-8") == page.CARD.read_text("utf-8")
