"""What every engine must do, each compared with plain loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from fakes import FakeEncoder, random_texts
from oracle import Document

import reference
from triptych.errors import InputError
from triptych.index.filters import Filter
from triptych.index.index import Index
from triptych.index.store import EngineName
from triptych.scores.tokens import Tokens, pool
from triptych.types import HEADS, Hit

# The client's local mode says so of every exact search; it stands in for a server here.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

WEIGHTS = [(1.0, 0.3, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.2, 0.8, 0.0)]
QUERIES = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10", "w1 unknown words"]


class Corpus:
    def __init__(self, n: int = 60, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.texts = random_texts(rng, n)
        # Not in the order of insertion, so that ties by id differ from ties by position.
        self.ids = [f"doc {i:03d}" for i in rng.permutation(n)]
        self.metadata: list[dict[str, Any]] = [
            {
                "lang": ["en", "fr", "de"][i % 3],
                "year": 2000 + i % 10,
                "open": i % 2 == 0,
                "part": {"no": i / 2},
            }
            for i in range(n)
        ]

    def fill(self, index: Index) -> None:
        assert index.add(self.ids, self.texts, self.metadata, block=16) == len(self.ids)

    def documents(self, encoder: FakeEncoder) -> list[Document]:
        vectors = encoder.encode_document(self.texts)
        return [Document(name, vectors[i], self.metadata[i]) for i, name in enumerate(self.ids)]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus()


@pytest.fixture
def documents(corpus: Corpus, encoder: FakeEncoder) -> list[Document]:
    return corpus.documents(encoder)


@pytest.fixture
def index(engine: EngineName, encoder: FakeEncoder, corpus: Corpus, new_index: Callable[..., Index]) -> Index:
    made = new_index(engine, encoder, multi="float32")
    corpus.fill(made)
    return made


def assert_hits(hits: list[Hit], expected: list[Any], k: int | None = None, tolerance: float = 2e-5) -> None:
    """Whether `hits` are the first k of `expected` up to the order of documents whose sums differ by rounding."""
    sums = {row[0]: row[1] for row in expected}
    assert len({hit.id for hit in hits}) == len(hits) == min(k or len(expected), len(expected))
    np.testing.assert_allclose(
        [hit.score for hit in hits], [row[1] for row in expected][: len(hits)], atol=tolerance
    )
    np.testing.assert_allclose([hit.score for hit in hits], [sums[hit.id] for hit in hits], atol=tolerance)
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_search_equals_plain_loops_with_ties_by_id(
    index: Index, encoder: FakeEncoder, documents: list[Document], weights: tuple[float, float, float]
) -> None:
    for query, hits in zip(QUERIES, index.search(QUERIES, 30, weights=weights), strict=True):
        expected = oracle.search(encoder.encode_query(query), documents, weights)
        assert_hits(hits, expected, 30)
        singles = {row[0]: row[2] for row in expected}
        for hit in hits:
            assert hit.scores == pytest.approx(singles[hit.id], abs=2e-5)


@pytest.mark.parametrize("routes", [("dense",), ("lexical",), ("multi",), ("dense", "multi"), HEADS])
def test_each_subset_of_routes_recalls_what_plain_loops_recall(
    index: Index, encoder: FakeEncoder, documents: list[Document], routes: tuple[Any, ...]
) -> None:
    for query in QUERIES:
        vectors = encoder.encode_query(query)
        everything = oracle.search(vectors, documents, None, routes)
        assert_hits(index.search(query, 60, routes=routes), everything)
        # With fewer candidates than documents; documents equal in a route's score may replace one another there.
        few = index.search(query, 5, candidates=5, routes=routes)
        assert {hit.id for hit in few} <= {row[0] for row in everything}
        assert few == sorted(few, key=lambda hit: (-hit.score, hit.id))


@pytest.mark.parametrize("route", HEADS)
def test_recall_gives_the_best_scores_of_a_route_in_descending_order(
    index: Index, encoder: FakeEncoder, documents: list[Document], route: Any
) -> None:
    engine = index._store.engine
    found = engine.recall(encoder.encode_query(QUERIES), route, 7)
    for query, candidates in zip(QUERIES, found, strict=True):
        vectors = encoder.encode_query(query)
        single = {engine.key(d.id): oracle.scores(vectors, d.vectors)[route] for d in documents}
        names = oracle.recall(vectors, documents, route, 7)
        np.testing.assert_allclose(candidates.scores, [single[engine.key(name)] for name in names], atol=2e-5)
        np.testing.assert_allclose(candidates.scores, [single[key] for key in candidates.keys], atol=2e-5)


@pytest.mark.parametrize("weights", [(1.0, 0.3, 0.0), (1.0, 0.3, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)])
def test_the_papers_protocol_counts_a_missing_score_as_zero_and_reranks_the_dense_list(
    engine: EngineName,
    encoder: FakeEncoder,
    new_index: Callable[..., Index],
    weights: tuple[float, float, float],
) -> None:
    corpus = Corpus(40, seed=3)
    corpus.texts = [f"{text} only{i}" for i, text in enumerate(corpus.texts)]  # no ties at the lists' ends
    index = new_index(engine, encoder, multi="float32")
    corpus.fill(index)
    for query in QUERIES:
        expected = oracle.paper(encoder.encode_query(query), corpus.documents(encoder), weights, 10)
        assert_hits(index.search(query, 10, candidates=10, weights=weights, protocol="paper"), expected, 10)


def test_the_exact_and_the_papers_protocol_differ(index: Index) -> None:
    exact = index.search(QUERIES[2], 10, candidates=10, weights=(1, 0.3, 0))
    paper = index.search(QUERIES[2], 10, candidates=10, weights=(1, 0.3, 0), protocol="paper")
    assert [hit.score for hit in exact] != [hit.score for hit in paper]


FILTERS: list[Mapping[str, Any]] = [
    {"lang": "fr"},
    {"lang": ["fr", "de"], "open": True},
    {"year": 2003},
    {"year": 2003.0},
    {"year": {"gte": 2002, "lt": 2005}},
    {"part.no": {"gt": 3, "lte": 10.5}},
    {"open": False, "year": [2001, 2002, 2003]},
    {"lang": "xx"},
    {},
]


@pytest.mark.parametrize("where", FILTERS)
def test_a_filter_keeps_what_plain_python_keeps(
    index: Index, encoder: FakeEncoder, documents: list[Document], where: Mapping[str, Any]
) -> None:
    found = Filter.of(where)

    def matches(metadata: Mapping[str, Any]) -> bool:
        return found is None or found.matches({"id": "x", "text": "", "metadata": dict(metadata)})

    assert index.count(where) == sum(matches(d.metadata) for d in documents)
    for routes in (("dense", "lexical"), ("multi",)):
        expected = oracle.search(encoder.encode_query(QUERIES[0]), documents, None, routes, matches=matches)
        assert_hits(index.search(QUERIES[0], 60, routes=routes, filter=where), expected)  # type: ignore[arg-type]


ODD_METADATA: list[dict[str, Any]] = [
    {"a b": {"ü-ü": "x"}, "tags": ["p", "q"], "n": 1},
    {"a b": {"ü-ü": "y"}, "tags": [], "n": True},
    {"when": "2024-02-29", "n": 1.5, "none": None},
    {"when": "2024-03-01T12:00:00+02:00", "n": "1", "deep": {"list": [{"x": 1}]}},
    {},
]


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"a b.ü-ü": "x"}, [0]),
        ({"tags": "q"}, [0]),
        ({"tags": ["a", "p"]}, [0]),
        ({"n": 1}, [0]),
        ({"n": True}, [1]),
        ({"n": "1"}, [3]),
        ({"n": [1, 1.5]}, [0, 2]),
        ({"n": [True, "1"]}, [1, 3]),
        ({"when": {"gte": "2024-01-01", "lt": "2024-03-01"}}, [2]),
        ({"when": {"gt": "2024-03-01T09:59:00Z", "lte": "2024-03-01T10:00:00"}}, [3]),
        ({"when": {"lt": date(2024, 3, 1)}}, [2]),
        ({"none": "x"}, []),
    ],
)
def test_filters_mean_the_same_on_odd_metadata(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index], where: Any, rows: list[int]
) -> None:
    index = new_index(engine, encoder)
    index.add([f"{i}" for i in range(5)], ["w1"] * 5, ODD_METADATA)
    assert [d["metadata"] for d in index.get([f"{i}" for i in range(5)]) if d] == ODD_METADATA
    assert sorted(hit.id for hit in index.search("w1", filter=where)) == [f"{row}" for row in rows]


def test_documents_with_equal_scores_are_ordered_by_id(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    index = new_index(engine, encoder)
    names = ["m", "B", "z", "a", "é", "10", "9", "ab"]
    index.add(names, ["w1 w2"] * len(names))
    for k in range(1, 9):  # the cut goes through documents with equal scores
        assert [hit.id for hit in index.search("w1", k, weights=(1, 0, 0))] == sorted(names)[:k]
        assert [hit.id for hit in index.search("w1", k, weights=(0, 1, 0))] == sorted(names)[:k]


def test_search_k_is_a_prefix_of_search_k_plus_1(index: Index) -> None:
    for weights in WEIGHTS:
        longest = index.search(QUERIES[0], 60, candidates=60, weights=weights)
        for k in range(1, 60, 4):
            assert index.search(QUERIES[0], k, candidates=60, weights=weights) == longest[:k]


def test_several_queries_at_once_give_what_each_gives_alone(index: Index) -> None:
    many = QUERIES * 20  # more than one block of queries
    together = index.search(many, 10)
    for query, hits in zip(many, together, strict=True):
        alone = index.search(query, 10)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in alone], atol=1e-6)
    assert index.search([]) == []


def test_adding_an_id_again_replaces_the_whole_document(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    index = new_index(engine, encoder, multi="float16")
    index.add(["a", "b"], ["w1 w2", "w3"], [{"x": 1}, {"x": 1}])
    index.add(["a"], [""], [{"y": 2}])
    assert len(index) == 2
    assert index.get(["a"]) == [{"id": "a", "text": "", "metadata": {"y": 2}}]
    assert index.count({"x": 1}) == 1
    hits = {hit.id: hit for hit in index.search("w1 w2", 5)}
    assert hits["a"].scores["lexical"] == hits["a"].scores["multi"] == 0
    assert [hit.id for hit in index.search("w1 w2", 5, routes=("multi",))] == ["b"]
    assert index.search("w1 w2", 5, routes=("lexical",)) == []
    index.add(["a"], ["w1 w2"])
    assert [hit.id for hit in index.search("w1 w2", 5, routes=("lexical",))] == ["a"]
    assert index.get(["a"]) == [{"id": "a", "text": "w1 w2", "metadata": {}}]


def test_deleted_documents_are_gone_and_counted_once(index: Index, corpus: Corpus) -> None:
    gone = corpus.ids[:5]
    assert index.delete([*gone, "unknown", gone[0]]) == 5
    assert index.delete(gone) == 0
    assert index.delete([]) == 0
    assert len(index) == 55
    assert set(index.ids) == set(corpus.ids[5:])
    assert index.get([gone[0], corpus.ids[5]])[0] is None
    assert not set(gone) & {hit.id for hit in index.search(QUERIES[0], 60, routes=HEADS)}


def test_everything_is_there_after_closing_and_opening(
    engine: EngineName, place: str, encoder: FakeEncoder, corpus: Corpus
) -> None:
    with Index.create(place, encoder, engine=engine, multi="float32") as index:
        corpus.fill(index)
        index.delete(corpus.ids[:3])
        before = index.search(QUERIES, 20)
    for _ in range(2):
        with Index.open(place, encoder) as index:
            assert len(index) == 57
            assert index.search(QUERIES, 20) == before
            assert index.info()["layout"]["multi"] == "float32"
            assert index.info()["model"] == {"source": encoder.source, "fingerprint": encoder.fingerprint}
            assert index.info()["documents"] == 57


def test_optimizing_changes_no_answer_and_survives_reopening(
    engine: EngineName, place: str, encoder: FakeEncoder, corpus: Corpus
) -> None:
    with Index.create(place, encoder, engine=engine, multi="float32") as index:
        index.optimize()
        corpus.fill(index)
        index.delete(corpus.ids[:3])
        before = index.search(QUERIES, 20)
        index.optimize()
        assert index.search(QUERIES, 20) == before
        index.add([corpus.ids[0]], [corpus.texts[0]], [corpus.metadata[0]])
        index.flush()
        after = index.search(QUERIES, 20)
    with Index.open(place, encoder) as index:
        assert len(index) == 58
        assert index.search(QUERIES, 20) == after


def test_an_empty_index_answers_with_nothing(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    index = new_index(engine, encoder, multi="float16")
    assert len(index) == 0
    assert index.search("w1", routes=HEADS, filter={"a": 1}) == []
    assert index.search(["w1", "w2"], protocol="paper") == [[], []]
    assert index.add([], []) == 0
    assert list(index.ids) == []
    assert index.get(["a"]) == [None]
    index.add(["a"], ["w1"])
    index.delete(["a"])
    assert index.search("w1", routes=HEADS) == []


def test_a_query_without_words_still_finds_by_the_dense_vector(index: Index) -> None:
    hits = index.search("?".replace("?", "unheard-of"), 5, weights=(1, 0, 0))
    assert len(hits) == 5
    engine, encoder = index._store.engine, FakeEncoder()
    nothing = encoder.encode_query([""])
    assert engine.recall(nothing, "lexical", 5)[0].keys == []
    keys = [engine.key(name) for name in list(index.ids)[:4]]
    scores = engine.score(nothing, [keys], HEADS)[0]
    assert scores["lexical"].tolist() == scores["multi"].tolist() == [0, 0, 0, 0]
    assert scores["dense"].any()


TOLERANCE = {"float32": 2e-5, "float16": 2e-3, "int8": 2e-2}


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_token_vectors_of_fewer_bits_give_nearly_the_same_scores(
    engine: EngineName, corpus: Corpus, new_index: Callable[..., Index], precision: str
) -> None:
    encoder = FakeEncoder(dense=32, multi=64)
    index = new_index(engine, encoder, multi=precision)
    corpus.fill(index)
    by_id = {d.id: d.vectors for d in corpus.documents(encoder)}
    for query in QUERIES:
        vectors = encoder.encode_query(query)
        for hit in index.search(query, 60, routes=HEADS):
            expected = oracle.scores(vectors, by_id[hit.id])
            assert hit.scores["multi"] == pytest.approx(expected["multi"], abs=TOLERANCE[precision])
            assert hit.scores["dense"] == pytest.approx(expected["dense"], abs=2e-5)


def test_binary_token_vectors_score_by_their_signs(
    engine: EngineName, corpus: Corpus, new_index: Callable[..., Index]
) -> None:
    encoder = FakeEncoder(dense=8, multi=13)  # not a multiple of 8: the last byte has unused bits
    index = new_index(engine, encoder, multi="binary")
    corpus.fill(index)
    texts = dict(zip(corpus.ids, corpus.texts, strict=True))
    query = encoder.encode_query(QUERIES[0]).multi[0]
    hits = index.search(QUERIES[0], 60)
    assert len(hits) == 60
    for hit in hits:
        tokens = encoder.encode_document(texts[hit.id]).multi[0]
        signs = np.where(tokens >= 0, 1.0, -1.0) / np.sqrt(13)
        expected = float((query @ signs.T).max(axis=1).mean()) if len(tokens) else 0.0
        assert hit.scores["multi"] == pytest.approx(expected, abs=1e-5)
    assert set(hits[0].metadata) == {"lang", "year", "open", "part"}


@pytest.mark.parametrize(
    "options",
    [
        {"multi": "4bit"},
        {"multi": "2bit", "pool_tokens": 2},
        {"multi": "1bit"},
        {"multi": "1bit", "pool_tokens": 3, "multi_width": 7},
        {"multi": "float32", "multi_width": 7},
        {"multi": "float32", "pool_tokens": 2},
    ],
)
def test_scores_are_those_of_what_is_stored_of_pooled_and_packed_token_vectors(
    engine: EngineName, tmp_path: Path, corpus: Corpus, place: str, options: Any
) -> None:
    encoder = FakeEncoder(dense=8, multi=13)
    with Index.create(place, encoder, engine=engine, **options) as index:
        index.add(["empty"], [""])  # has no token vector from which a frame could be made
        corpus.fill(index)
        stored = index._store.manifest.layout
    assert not stored.lacks_frame
    with Index.open(place, encoder) as index:
        assert index._store.engine.layout == stored
        index.add(["later"], ["w1 w2 w3 w4"])
        vectors = encoder.encode_document([*corpus.texts, "w1 w2 w3 w4"]).multi
        assert vectors is not None
        kept = Tokens.pack(pool(vectors, stored.pool_tokens), stored.tokens).unpack()
        names = [*corpus.ids, "later"]
        for i, found in enumerate(index.vectors(names).multi):  # type: ignore[arg-type]
            np.testing.assert_allclose(found, kept[i], atol=1e-5)
        expected = dict(zip(names, kept, strict=True)) | {"empty": []}
        for query in QUERIES:
            asked = encoder.encode_query(query).multi[0]  # type: ignore[index]
            hits = index.search(query, 70)
            assert len(hits) == 62
            for hit in hits:
                score = reference.maxsim_score(asked, expected[hit.id])
                assert hit.scores["multi"] == pytest.approx(score, abs=1e-5)
        if "multi" in index._store.engine.routes:
            best = index.search(QUERIES[0], 5, routes=("multi",), weights=(0, 0, 1))
            asked = encoder.encode_query(QUERIES[0]).multi[0]  # type: ignore[index]
            scores = [reference.maxsim_score(asked, rows) for rows in expected.values() if len(rows)]
            np.testing.assert_allclose([hit.score for hit in best], sorted(scores)[:-6:-1], atol=1e-5)


def test_token_vectors_that_need_a_frame_are_refused_without_one(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    store = new_index(engine, encoder, multi="1bit")._store
    with pytest.raises(InputError, match="before their frame"):
        store.engine.add(encoder.encode_document(["w1"]), [{"id": "a", "text": "", "metadata": {}}])
    assert store.engine.count() == 0


def test_an_index_without_token_vectors_has_two_scores(
    engine: EngineName,
    encoder: FakeEncoder,
    documents: list[Document],
    corpus: Corpus,
    new_index: Callable[..., Index],
) -> None:
    index = new_index(engine, encoder, multi=None)
    corpus.fill(index)
    expected = oracle.search(encoder.encode_query(QUERIES[0]), documents, None, has_multi=False)
    hits = index.search(QUERIES[0], 60)
    assert_hits(hits, expected)
    assert set(hits[0].scores) == {"dense", "lexical"}


def test_a_model_with_a_dense_head_only_can_be_indexed(
    engine: EngineName, new_index: Callable[..., Index]
) -> None:
    encoder = FakeEncoder(heads=("dense",))
    index = new_index(engine, encoder)
    index.add(["a", "b"], ["w1 w2", "w3"])
    hits = index.search("w1 w2", 2)
    assert [hit.id for hit in hits] == ["a", "b"]
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert set(hits[0].scores) == {"dense"}


@pytest.mark.parametrize("heads", [("lexical",), ("multi",), ("lexical", "multi")])
def test_a_model_without_a_dense_head_can_be_indexed(
    engine: EngineName, new_index: Callable[..., Index], heads: Any
) -> None:
    encoder = FakeEncoder(heads=heads)
    index = new_index(engine, encoder, multi="float32")
    index.add(["a", "b", "c"], ["w1 w2", "w3", ""])
    assert len(index) == 3
    assert [document["id"] for document in index.get(["c", "a"]) if document] == ["c", "a"]
    hits = index.search("w1 w2", 2)
    assert hits[0].id == "a"
    assert set(hits[0].scores) == set(heads)
    with pytest.raises(InputError, match="'dense', but the index has no such vectors"):
        index.search("w1", routes=("dense",))
    index.delete(["a"])
    assert "a" not in {hit.id for hit in index.search("w1 w2", 2)}


def test_progress_tells_how_many_documents_are_stored(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    index = new_index(engine, encoder)
    seen: list[tuple[str, int, int | None, int]] = []
    texts = [f"w{i}" for i in range(25)]
    index.add(texts, texts, block=10, progress=lambda *step: seen.append((*step, len(index))))
    assert seen == [("index", done, 25, done) for done in (0, 10, 20, 25)]
    assert encoder.calls == [10, 10, 5]


def test_half_precision_dense_vectors_score_nearly_the_same(
    engine: EngineName,
    encoder: FakeEncoder,
    documents: list[Document],
    corpus: Corpus,
    new_index: Callable[..., Index],
) -> None:
    index = new_index(engine, encoder, multi=None, dense="float16")
    corpus.fill(index)
    expected = {
        row[0]: row[1]
        for row in oracle.search(encoder.encode_query(QUERIES[0]), documents, None, has_multi=False)
    }
    for hit in index.search(QUERIES[0], 60):
        assert hit.score == pytest.approx(expected[hit.id], abs=1e-3)


def test_large_documents_are_stored_in_several_requests(
    engine: EngineName, new_index: Callable[..., Index], tmp_path: Path
) -> None:
    encoder = FakeEncoder(multi=2048)
    index = new_index(engine, encoder, multi="float16")
    texts = [" ".join(f"w{i}x{j}" for j in range(300)) for i in range(4)]  # 614,400 numbers each
    index.add(["a", "b", "c", "d"], texts)
    assert len(index) == 4
    assert [hits[0].id for hits in index.search(["w0x3 w0x5", "w3x1 w3x9"], 1)] == ["a", "d"]
