"""Searches whose lexical weights come from a table of document frequencies, and from no encoder."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import VOCABULARY, FakeEncoder, number, random_texts

import reference
from triptych.errors import IndexCorrupt, IndexFault, InputError
from triptych.index.index import Index
from triptych.index.query_weights import FILE, QueryWeights
from triptych.index.store import EngineName

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

NO_WEIGHT = number("the") % VOCABULARY


class FakeTokenizer:
    """Words are tokens; "the" has no lexical weight, as special tokens have none."""

    special = SimpleNamespace(never_lexical=(NO_WEIGHT,))

    def spans(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        found = [[number(word) % VOCABULARY for word in text.split()] for text in texts]
        return [(np.asarray(ids, np.int64), np.zeros((len(ids), 2), np.int64)) for ids in found]


class Unused(FakeEncoder):
    """An encoder that must encode no query."""

    tokenizer = FakeTokenizer()

    def encode_query(self, *args: Any, **options: Any) -> Any:
        raise AssertionError("a query was encoded")


@pytest.fixture
def encoder() -> FakeEncoder:
    return Unused()


@pytest.fixture
def texts() -> list[str]:
    return random_texts(np.random.default_rng(3), 40)


@pytest.fixture
def index(
    engine: EngineName, encoder: FakeEncoder, texts: list[str], new_index: Callable[..., Index]
) -> Index:
    index = new_index(engine, encoder)
    index.add([f"d{i:02d}" for i in range(len(texts))], texts)
    return index


def expected(encoder: FakeEncoder, texts: list[str], query: str) -> list[tuple[str, float]]:
    """Names and scores of all documents with a token of the query, by plain loops."""
    rows = encoder.encode_document(texts).lexical.tolil()  # type: ignore[union-attr]
    weights = [dict(zip(ids, row, strict=True)) for ids, row in zip(rows.rows, rows.data, strict=True)]
    sets = [set(each) for each in weights]
    ids = {number(word) % VOCABULARY for word in query.split()} - {NO_WEIGHT}
    asked = {token: reference.idf(sets, token) for token in ids}
    scores = [(f"d{i:02d}", reference.lexical_score(asked, each)) for i, each in enumerate(weights)]
    return sorted((pair for pair in scores if pair[1] > 0), key=lambda pair: (-round(pair[1], 4), pair[0]))


@pytest.mark.parametrize("query", ["w1 w2 w3", "w4 w4 the w5", "the", "unknown w7"])
def test_scores_and_order_are_those_of_plain_loops(
    index: Index, encoder: FakeEncoder, texts: list[str], query: str
) -> None:
    hits = index.search(query, 40, lexical_queries="idf")
    known = expected(encoder, texts, query)
    assert [hit.id for hit in hits] == [name for name, _ in known]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in known], rtol=1e-4)
    assert all(hit.scores == {"lexical": hit.score} for hit in hits)


def test_pages_filters_and_least_scores_work(index: Index) -> None:
    whole = index.search("w1 w2 w3 w4", 30, lexical_queries="idf")
    assert index.search("w1 w2 w3 w4", 5, offset=5, lexical_queries="idf") == whole[5:10]
    least = whole[3].score
    found = index.search("w1 w2 w3 w4", 30, min_score=least, lexical_queries="idf")
    assert found == [hit for hit in whole if hit.score >= least]
    some = index.search("w1 w2 w3 w4", 30, filter={"id": [whole[1].id, whole[4].id]}, lexical_queries="idf")
    assert some == [whole[1], whole[4]]
    assert index.search(["w1", "w2"], 3, lexical_queries="idf") == [
        index.search(query, 3, lexical_queries="idf") for query in ("w1", "w2")
    ]


def test_documents_are_counted_again_when_there_are_a_tenth_more_or_fewer(index: Index) -> None:
    assert index.query_weights.documents == 40
    index.add(["e0", "e1"], ["w1", "w1"])
    assert index.query_weights.documents == 40
    index.add(["e2", "e3", "e4"], ["w1", "w1", "w1"])
    counted = index.query_weights
    assert counted.documents == 45
    index.delete(["e0", "e1", "e2", "e3", "e4"])
    assert index.query_weights.documents == 40
    assert (
        index.query_weights.counts[number("w1") % VOCABULARY] == counted.counts[number("w1") % VOCABULARY] - 5
    )


def test_other_texts_can_be_counted_and_stay(index: Index, encoder: FakeEncoder) -> None:
    index.set_query_weights(["w1 w2", "w1", "w1 w1 the"])
    table = index.query_weights
    assert (table.documents, table.source) == (3, "texts")
    assert [table.counts[number(word) % VOCABULARY] for word in ("w1", "w2", "w3", "the")] == [3, 1, 0, 0]
    place, on_server = index.info()["place"], index.info()["engine"] in ("server", "postgres")
    index.close()
    with Index.open(place, encoder) as again:
        assert again.query_weights.documents == (40 if on_server else 3)
        again.set_query_weights(None)
        assert again.query_weights.documents == 40


def test_a_table_is_kept_read_again_and_refused_when_damaged(tmp_path: Path, encoder: FakeEncoder) -> None:
    with Index.create(tmp_path / "an.index", encoder, engine="exact") as index:
        index.add(["a", "b"], ["w1 w2", "w1"])
        hits = index.search("w2 w1", lexical_queries="idf")
    path = tmp_path / "an.index" / FILE
    content = path.read_bytes()
    with Index.open(tmp_path / "an.index", encoder, read_only=True) as index:
        assert index.search("w2 w1", lexical_queries="idf") == hits
        with pytest.raises(IndexFault, match="for reading alone"):
            index.set_query_weights(None)
    path.write_bytes(content[:-1] + b"\1")
    with Index.open(tmp_path / "an.index", encoder) as index:
        with pytest.raises(IndexCorrupt, match=f"{FILE}: is damaged; remove it"):
            index.search("w1", lexical_queries="idf")
        path.unlink()
        assert index.search("w2 w1", lexical_queries="idf") == hits
    assert path.exists()
    path.unlink()
    with Index.open(tmp_path / "an.index", encoder, read_only=True) as index:
        assert index.search("w2 w1", lexical_queries="idf") == hits
    assert not path.exists()


def test_an_empty_index_finds_nothing(engine: EngineName, new_index: Callable[..., Index]) -> None:
    assert new_index(engine, Unused()).search("w1", lexical_queries="idf") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weights": (1, 1, 0)},
            "a search with lexical_queries='idf' has no dense vectors; expected weight 0",
        ),
        (
            {"routes": ["dense"]},
            "the route 'dense', but a search with lexical_queries='idf' has no such vectors",
        ),
        ({"lexical_queries": "tfidf"}, "lexical_queries='tfidf'; expected one of 'model', 'idf'"),
    ],
)
def test_other_heads_have_no_part_in_it(
    new_index: Callable[..., Index], options: dict[str, Any], message: str
) -> None:
    index = new_index("exact", Unused())
    with pytest.raises(InputError, match=re.escape(message)):
        index.search("w1", **({"lexical_queries": "idf"} | options))


def test_an_index_without_lexical_vectors_refuses(new_index: Callable[..., Index]) -> None:
    index = new_index("exact", FakeEncoder(heads=("dense",)))
    with pytest.raises(InputError, match="the index has no lexical vectors, only dense"):
        index.search("w1", lexical_queries="idf")
    with pytest.raises(InputError, match="the index has dense vectors alone"):
        _ = index.query_weights


def test_a_tokenizer_of_another_vocabulary_is_refused() -> None:
    table = QueryWeights(1, np.zeros(3, np.int32), "index")
    with pytest.raises(IndexFault, match="the index has the ids below 3"):
        table.encode(["w1 w2 w3 w4"], FakeTokenizer())  # type: ignore[arg-type]
