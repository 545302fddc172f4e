"""Protocols against plain loops, and against each other where they must agree."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from eval import made
from triptych.collections.base import Collection, Run
from triptych.eval.groups import grouped
from triptych.eval.running import EvalOptions, Tools, run_system
from triptych.eval.through_index import ThroughIndex
from triptych.scores.on_numpy import Best


def runs(
    one: Collection, toy: made.Toy | None = None, tools: Tools | None = None, **options: object
) -> dict[str, Run]:
    toy = toy or made.Toy()
    [group] = grouped([one])
    settings = EvalOptions(rrf=False, **{"depth": 20, "block": 7, **options})  # type: ignore[arg-type]
    return {mode: run for _, mode, run in run_system(group, toy, toy.modes, settings, tools or Tools())[0]}


def same(a: Mapping[str, Run], b: Mapping[str, Run], modes: list[str] | None = None) -> None:
    for mode in modes or list(a):
        for query in a[mode]:
            assert a[mode][query].documents == b[mode][query].documents, (mode, query)
            np.testing.assert_allclose(a[mode][query].scores, b[mode][query].scores, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("excluded", [0, 9])
def test_exact_runs_equal_plain_loops_with_ties_by_id_and_documents_left_out(
    seed: int, excluded: int
) -> None:
    one = made.collection(seed=seed, excluded=excluded)
    toy = made.Toy()
    expected = made.scores(toy, one)
    for mode, run in runs(one).items():
        for query, ranked in run.items():
            wanted = made.ranking(expected[query], toy.modes[mode], one.excluded.get(query, frozenset()))[:20]
            assert ranked.documents == tuple(name for name, _ in wanted), (mode, query)
            np.testing.assert_allclose(ranked.scores, [score for _, score in wanted], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_papers_protocol_equals_plain_loops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from triptych.eval import protocols, running

    def short(*arguments: object, **keywords: object) -> protocols.Found:
        return protocols.paper(*arguments, listed=15, reranked=6, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(running, "paper", short)
    one = made.collection(seed=seed, excluded=5)
    toy = made.Toy()
    expected = made.scores(toy, one)
    found = runs(one, protocol="paper")
    for query in one.queries:
        left_out = one.excluded[query]
        lists = {
            head: dict(made.ranking(expected[query], toy.modes[head], left_out)[:15])
            for head in ("dense", "lexical")
        }
        union = {
            name: lists["dense"].get(name, 0) + 0.5 * lists["lexical"].get(name, 0)
            for name in {*lists["dense"], *lists["lexical"]}
        }
        both = sorted(union.items(), key=lambda item: (-item[1], item[0]))
        assert found["dense+lexical"][query].documents == tuple(name for name, _ in both[:20])
        first = list(lists["dense"])[:6]
        for mode in ("multi", "all"):
            again = made.ranking({name: expected[query][name] for name in first}, toy.modes[mode])
            assert found[mode][query].documents == tuple(name for name, _ in again)
        for mode in ("dense", "lexical"):
            assert found[mode][query].documents == tuple(lists[mode])


@pytest.mark.parametrize("excluded", [0, 5])
def test_paper_and_exact_agree_where_the_lists_hold_the_whole_corpus(excluded: int) -> None:
    one = made.collection(excluded=excluded)
    same(runs(one), runs(one, protocol="paper"))


@pytest.mark.parametrize("engine", ["exact", "edge"])
def test_an_index_that_compares_with_everything_agrees_with_the_exact_protocol(engine: str) -> None:
    one = made.collection(excluded=3)
    through = ThroughIndex(engine, {"multi": "float32"}, candidates=len(list(one.corpus)))  # type: ignore[arg-type]
    same(runs(one), runs(one, tools=Tools(index=through), protocol="index"))


def test_an_index_with_few_candidates_finds_less() -> None:
    one = made.collection(300, 30)
    through = ThroughIndex("exact", candidates=5)
    few = runs(one, tools=Tools(index=through), protocol="index", depth=5)
    whole = runs(one, depth=5)
    assert any(few["multi"][query].documents != whole["multi"][query].documents for query in one.queries)


def test_as_many_candidates_as_documents_are_the_exact_protocol() -> None:
    one = made.collection(excluded=3)
    same(runs(one), runs(one, candidates=60))


def test_few_candidates_change_only_modes_with_token_vectors() -> None:
    one = made.collection(300, 30)
    exact, few = runs(one), runs(one, candidates=5)
    same(exact, few, ["dense", "lexical", "dense+lexical"])
    for query in one.queries:
        assert len(few["all"][query]) <= 15 < len(exact["all"][query])


@pytest.mark.parametrize("protocol", ["exact", "paper"])
@pytest.mark.parametrize("block", [1, 7, 60, 1000])
def test_the_size_of_blocks_changes_nothing(block: int, protocol: str) -> None:
    one = made.collection(excluded=2)
    same(runs(one, protocol=protocol), runs(one, protocol=protocol, block=block))


def test_vectors_read_back_from_the_cache_give_the_same_runs(tmp_path: Path) -> None:
    one, toy = made.collection(), made.Toy()
    fresh = runs(one, toy, cache=tmp_path)
    assert (toy.encoded, toy.asked) == (60, 12)
    same(fresh, runs(one, toy, cache=tmp_path))
    assert (toy.encoded, toy.asked) == (60, 12)
    same(fresh, runs(one))


def test_an_interrupted_encoding_goes_on_where_it_was(tmp_path: Path) -> None:
    one, dies = made.collection(), made.Toy(fails_at=21)
    with pytest.raises(KeyboardInterrupt):
        runs(one, dies, cache=tmp_path)
    assert dies.encoded == 21
    goes_on = made.Toy()
    same(runs(one), runs(one, goes_on, cache=tmp_path))
    assert goes_on.encoded == 60 - 21


def test_the_cache_tells_models_corpora_and_blocks_apart(tmp_path: Path) -> None:
    one, toy = made.collection(), made.Toy()
    runs(one, toy, cache=tmp_path)
    for other, model, block in (
        (made.collection(seed=1), made.Toy(), 7),
        (one, made.Toy(name="other"), 7),
        (one, made.Toy(), 8),
    ):
        runs(other, model, cache=tmp_path, block=block)
        assert model.encoded == 60


def test_token_vectors_of_16_bits_in_the_cache_are_near_those_of_32(tmp_path: Path) -> None:
    one = made.collection()
    same(runs(one), runs(one, cache=tmp_path, tokens="float16"))  # the toy's numbers are exact in 16 bits
    sizes = [path.stat().st_size for path in tmp_path.rglob("000000.safetensors")]
    runs(one, cache=tmp_path / "other")
    assert sizes[0] < next((tmp_path / "other").rglob("000000.safetensors")).stat().st_size


@pytest.mark.parametrize("seed", range(20))
def test_the_best_kept_from_blocks_are_those_of_a_sort(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, documents, k = rng.integers(1, 6), rng.integers(1, 80), int(rng.integers(1, 12))
    totals = rng.integers(0, 6, (queries, documents)).astype(np.float32)
    totals[rng.random(totals.shape) < 0.2] = -np.inf
    parts = rng.random((2, queries, documents)).astype(np.float32)
    ranks = rng.permutation(documents)
    best = Best(int(queries), k, 2)
    start = 0
    while start < documents:
        end = min(documents, start + int(rng.integers(1, 30)))
        rows = np.arange(start, end)
        best.add(0, rows, ranks[rows], totals[:, rows], parts[:, :, rows])
        start = end
    best.settle()
    for query in range(queries):
        order = [row for row in np.lexsort((ranks, -totals[query])) if totals[query, row] > -np.inf][:k]
        real = best.rows[query] >= 0
        assert best.rows[query][real].tolist() == order
        assert best.totals[query][real].tolist() == totals[query, order].tolist()
        assert best.parts[:, query, real].tolist() == parts[:, query, order].tolist()
