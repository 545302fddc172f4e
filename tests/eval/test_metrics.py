"""Metrics equal those of ir_measures and plain loops; answers are found as the paper's evaluation finds them."""

import json
import math
from pathlib import Path

import ir_measures
import numpy as np
import pytest

from triptych.collections.base import METRICS, MemoryCorpus, Ranked, Wanted
from triptych.collections.catalogue import read_collections
from triptych.errors import InputError
from triptych.eval.metrics import answer_recall, check_metrics, depth_of, is_answer_recall, measure, passages
from triptych.eval.protocols import Ranking, reciprocal_ranks

Judged = dict[str, dict[str, int]]


def random_run(seed: int, ties: int) -> tuple[Judged, dict[str, dict[str, float]]]:
    """Judgements with grades 0 to 3, and scores that are one of `ties` values."""
    rng = np.random.default_rng(seed)
    documents = [f"d{number}" for number in range(40)]
    qrels: Judged = {}
    run: dict[str, dict[str, float]] = {}
    for number in range(25):
        some = rng.choice(documents, rng.integers(1, 12), replace=False)
        qrels[f"q{number}"] = {str(name): int(rng.integers(0, 4)) for name in some}
        listed = rng.choice(documents, rng.integers(0, 40), replace=False)
        run[f"q{number}"] = {str(name): float(rng.integers(0, ties)) / 7 for name in listed}
    return qrels, run


def strict(scores: dict[str, float]) -> dict[str, float]:
    """The same order, equal scores by id, with distinct scores."""
    order = sorted(scores, key=lambda name: (-scores[name], name))
    return {name: 1000.0 - rank for rank, name in enumerate(order)}


def test_fractions_of_relevance_give_the_ndcg_of_their_own_values_and_are_relevant(tmp_path: Path) -> None:
    values = {"a": 0.5, "b": 1.0, "c": 0.0, "d": 1 / 3}
    (tmp_path / "qrels").mkdir()
    rows = [json.dumps({"_id": name, "text": name}) for name in values]
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "x"}\n')
    lines = [f"q\t{name}\t{value!r}" for name, value in values.items()]
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines, ""]))
    said: list[str] = []
    (collection,) = read_collections(tmp_path, Wanted(warn=said.append))
    order = ("c", "a", "d", "b")
    run = {"q": Ranked(order, np.array([4.0, 3.0, 2.0, 1.0], np.float32))}
    found = measure(run, collection.qrels, ["q"], ["nDCG@10", "R@2", "RR@10"])
    dcg = sum(values[name] / np.log2(rank + 2) for rank, name in enumerate(order))
    best = sum(value / np.log2(rank + 2) for rank, value in enumerate(sorted(values.values(), reverse=True)))
    assert found["nDCG@10"][0] == pytest.approx(dcg / best, abs=1e-6)
    assert found["R@2"][0] == pytest.approx(1 / 3)
    assert found["RR@10"][0] == 0.5
    assert any("fractions of relevance" in sentence for sentence in said)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [3, 1_000_000])
def test_metrics_equal_those_of_ir_measures_on_random_runs_with_ties(seed: int, ties: int) -> None:
    names = [*METRICS, "AP", "nDCG", "P@5", "R@1", "Success@1", "RR"]
    qrels, run = random_run(seed, ties)
    ours = measure({q: Ranked.of(s) for q, s in run.items()}, qrels, list(qrels), names)
    reference = {(q, name): 0.0 for q in qrels for name in names}
    parsed = {ir_measures.parse_measure(name): name for name in names}
    for one in ir_measures.iter_calc(list(parsed), qrels, {q: strict(s) for q, s in run.items()}):
        reference[one.query_id, parsed[one.measure]] = one.value
    for name in names:
        for query, value in zip(qrels, ours[name], strict=True):
            assert abs(value - reference[query, name]) < 1e-9, (query, name)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_their_definitions_in_plain_loops(seed: int) -> None:
    qrels, run = random_run(seed, 3)
    ours = measure({q: Ranked.of(s) for q, s in run.items()}, qrels, list(qrels), METRICS)
    for row, (query, judged) in enumerate(qrels.items()):
        order = sorted(run[query], key=lambda name, q=query: (-run[q][name], name))
        gains = [judged.get(name, 0) for name in order]
        relevant = sum(value > 0 for value in judged.values())
        hits = [rank for rank, gain in enumerate(gains, 1) if gain > 0]
        ideal = sorted(judged.values(), reverse=True)

        def dcg(values: list[int]) -> float:
            return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(values[:10], 1))

        expected = {
            "nDCG@10": dcg(gains) / dcg(ideal) if dcg(ideal) else 0.0,
            "R@10": sum(rank <= 10 for rank in hits) / relevant if relevant else 0.0,
            "R@100": len(hits) / relevant if relevant else 0.0,
            "RR@10": 1 / hits[0] if hits and hits[0] <= 10 else 0.0,
            "AP@100": sum((n + 1) / rank for n, rank in enumerate(hits)) / relevant if relevant else 0.0,
            "Success@5": float(bool(hits) and hits[0] <= 5),
        }
        assert {name: ours[name][row] for name in METRICS} == pytest.approx(expected, abs=1e-9)


def test_a_query_without_a_ranking_scores_zero() -> None:
    found = measure({"a": Ranked.of({})}, {"a": {"x": 1}, "b": {"x": 1}}, ["a", "b"], ["nDCG@10"])
    assert found["nDCG@10"].tolist() == [0, 0]


def test_unknown_metrics_are_refused_and_depth_is_that_of_the_deepest_cutoff() -> None:
    with pytest.raises(InputError, match="nDGC@10"):
        check_metrics(["nDGC@10"])
    with pytest.raises(InputError, match="got none"):
        check_metrics([])
    assert check_metrics(["AnswerRecall@20", "R@100", "R@100"]) == ("AnswerRecall@20", "R@100")
    assert depth_of(["nDCG@10", "R(rel=2)@1000", "AP"]) == 1000
    assert depth_of(["AP"]) == 1
    assert [is_answer_recall(name) for name in ("AnswerRecall@20", "AnswerRecall@0", "R@20")] == [
        20,
        None,
        None,
    ]


def test_an_answer_counts_from_the_rank_of_the_first_passage_that_has_it() -> None:
    corpus = MemoryCorpus.of(
        {"a": "Nothing here.", "b": "In São Paulo, 1955.", "c": "A Paulownia", "d": "unread"}
    )
    texts = passages(corpus, {"a", "b", "c"})
    assert set(texts) == {"a", "b", "c"}
    run = {"x": Ranked.of({"a": 3, "c": 2, "b": 1}), "y": Ranked.of({"a": 1}), "z": Ranked.of({"c": 1})}
    answers = {"x": ("rio", "são  PAULO"), "y": ("",), "z": ("paulo",), "w": ("here",)}
    found = answer_recall(run, answers, ["x", "y", "z", "w"], texts, [1, 2, 3])
    assert {k: values.tolist() for k, values in found.items()} == {1: [0] * 4, 2: [0] * 4, 3: [1, 0, 0, 0]}


def test_reciprocal_rank_fusion_equals_its_formula() -> None:
    first = Ranking(np.array([4, 2, 0]), np.array([9, 8, 7], np.float32))
    second = Ranking(np.array([0, 3]), np.array([0.5, 0.1], np.float32))
    fused = reciprocal_ranks([first, second], np.arange(5), k=60)
    expected = {0: 1 / 63 + 1 / 61, 4: 1 / 61, 2: 1 / 62, 3: 1 / 62}
    assert fused.rows.tolist() == [0, 4, 2, 3]
    np.testing.assert_allclose(fused.totals, [expected[row] for row in (0, 4, 2, 3)], rtol=1e-6)
