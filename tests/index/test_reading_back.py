"""What is stored can be read back, changed and removed, on every engine alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder, random_texts

from triptych.errors import IndexExists, IndexForeign, InputError
from triptych.index.index import Index
from triptych.index.store import EngineName
from triptych.types import HEADS, HeadWeights

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

N = 30
IDS = [f"d{i:02d}" for i in range(N)]
TEXTS = random_texts(np.random.default_rng(2), N)
METADATA: list[dict[str, Any]] = [
    {"no": i, "lang": ["en", "fr"][i % 2], "deep": {"x": [i]}} for i in range(N)
]
LARGEST_ERROR = {"float32": 1e-7, "float16": 1e-3, "int8": 1e-2}


def fill(index: Index) -> Index:
    index.add(IDS, TEXTS, METADATA, block=7)
    return index


@pytest.fixture
def index(engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]) -> Index:
    return fill(new_index(engine, encoder, multi="float32"))


def assert_vectors(index: Index, encoder: FakeEncoder, names: list[str], error: float) -> None:
    found = index.vectors(names)
    expected = encoder.encode_document([TEXTS[IDS.index(name)] for name in names])
    assert found.heads == expected.heads
    assert len(found) == len(names)
    assert found.dense.dtype == found.lexical.dtype == found.multi.values.dtype == np.float32
    np.testing.assert_allclose(found.dense, expected.dense, atol=error)
    np.testing.assert_allclose(found.lexical.toarray(), expected.lexical.toarray(), atol=1e-7)
    assert found.multi.lengths.tolist() == expected.multi.lengths.tolist()
    np.testing.assert_allclose(found.multi.values, expected.multi.values, atol=error)


@pytest.mark.parametrize("multi", ["float32", "float16", "int8"])
def test_vectors_come_back_as_they_were_stored_in_the_order_asked_for(
    engine: EngineName, new_index: Callable[..., Index], multi: str
) -> None:
    encoder = FakeEncoder(dense=32, multi=64)
    index = fill(new_index(engine, encoder, multi=multi, dense="float32"))
    assert_vectors(index, encoder, IDS[::-1], LARGEST_ERROR[multi])
    assert_vectors(index, encoder, ["d07", "d00", "d07"], LARGEST_ERROR[multi])
    assert len(index.vectors([])) == 0
    # They are what the index scores by, and can be put into another one.
    (hits,) = index.search_encoded(index.vectors(["d03"]), 1, weights=(1, 0, 0))
    assert hits[0].score == pytest.approx(1, abs=1e-4)


def test_binary_token_vectors_come_back_as_signs(engine: EngineName, new_index: Callable[..., Index]) -> None:
    encoder = FakeEncoder(multi=13)
    index = fill(new_index(engine, encoder, multi="binary"))
    found, expected = index.vectors(IDS).multi, encoder.encode_document(TEXTS).multi
    assert found.lengths.tolist() == expected.lengths.tolist()
    np.testing.assert_allclose(found.values, np.where(expected.values >= 0, 1, -1) / np.sqrt(13), atol=1e-6)


def test_some_heads_can_be_asked_for_and_unknown_ones_are_refused(index: Index) -> None:
    assert index.vectors(IDS[:2], heads=["lexical", "multi"]).heads == ("lexical", "multi")
    with pytest.raises(InputError, match="the id 'unknown'; expected ids of documents that are there"):
        index.vectors(["d01", "unknown"])
    with pytest.raises(InputError, match="vectors: heads: got"):
        index.vectors(["d01"], heads=["late"])


def test_an_index_without_a_head_has_no_vectors_of_it(
    engine: EngineName, new_index: Callable[..., Index]
) -> None:
    index = fill(new_index(engine, FakeEncoder(), multi=None))
    assert index.vectors(IDS).heads == ("dense", "lexical")
    with pytest.raises(InputError, match=r"got the heads \['multi'\]; the index has dense, lexical"):
        index.vectors(IDS, heads=["multi"])


def test_all_documents_can_be_walked_in_pages(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.index.index._PAGE", 8)
    found = sorted(index.documents(), key=lambda document: document["id"])
    assert found == [
        {"id": name, "text": text, "metadata": metadata}
        for name, text, metadata in zip(IDS, TEXTS, METADATA, strict=True)
    ]
    french = {document["id"] for document in index.documents({"lang": "fr", "no": {"gte": 10}})}
    assert french == {name for i, name in enumerate(IDS) if i % 2 and i >= 10}
    walk = index.documents()
    first = next(walk)["id"]
    assert index.delete(IDS) == N
    assert {document["id"] for document in walk} | {first} <= set(IDS)
    assert list(index.documents()) == []


def test_documents_are_deleted_by_a_filter(index: Index, encoder: FakeEncoder) -> None:
    assert index.delete(filter={"lang": "fr", "no": {"lt": 10}}) == 5
    assert index.delete(filter={"lang": "fr", "no": {"lt": 10}}) == 0
    assert set(index.ids) == {name for i, name in enumerate(IDS) if i % 2 == 0 or i >= 10}
    assert index.delete(filter={"id": {"prefix": "d2"}}) == 10
    assert len(index) == 15
    for arguments in ({}, {"filter": {}}, {"ids": ["d00"], "filter": {"no": 1}}):
        with pytest.raises(InputError, match=r"delete: got ids=.*expected one of them"):
            index.delete(**arguments)
    assert len(index) == 15


def test_metadata_is_changed_without_encoding(engine: EngineName, place: str, encoder: FakeEncoder) -> None:
    with Index.create(place, encoder, engine=engine, multi="float32") as index:
        fill(index)
        calls, before = list(encoder.calls), index.search("w1 w2", 30)
        assert (
            index.update(
                ["d01", "unknown", "d03"], [{"lang": "de"}, {"lang": "de"}, {"deep": None, "new": [1]}]
            )
            == 2
        )
        assert index.update(["d05"], [{"only": True}], replace=True) == 1
        assert index.update([], []) == 0
        assert encoder.calls == calls
    with Index.open(place, encoder) as index:
        one, three, five = (
            document and document["metadata"] for document in index.get(["d01", "d03", "d05"])
        )
        assert one == {"no": 1, "lang": "de", "deep": {"x": [1]}}
        assert three == {"no": 3, "lang": "fr", "deep": None, "new": [1]}
        assert five == {"only": True}
        assert index.count({"lang": "de"}) == 1
        assert len(index) == N
        after = index.search("w1 w2", 30)
        assert [(hit.id, hit.text) for hit in after] == [(hit.id, hit.text) for hit in before]
        np.testing.assert_allclose([hit.score for hit in after], [hit.score for hit in before], atol=1e-6)
        assert_vectors(index, encoder, IDS, 1e-7)
    for ids, metadata in ((["d01"], []), (["d01", "d01"], [{}, {}])):
        with Index.open(place, encoder) as index, pytest.raises(InputError, match="update: got"):
            index.update(ids, metadata)
    with (
        Index.open(place, encoder) as index,
        pytest.raises(InputError, match="update: metadata of document 'd02'"),
    ):
        index.update(["d01", "d02"], [{"lang": "xx"}, {"a": float("nan")}])
    with Index.open(place, encoder) as index:
        assert index.count({"lang": "xx"}) == 0


def test_an_index_is_opened_or_made(engine: EngineName, place: str, encoder: FakeEncoder) -> None:
    for round in range(2):
        with Index.open_or_create(place, encoder, engine=engine, multi="int8") as index:
            assert len(index) == round
            index.add([f"{round}"], ["w1"])
    with Index.open_or_create(place, encoder) as index:  # nothing else is asked for
        assert index.info()["layout"]["multi"] == "int8"
    with pytest.raises(
        InputError, match="got multi='float16'; the index there has 'int8', which is chosen once"
    ):
        Index.open_or_create(place, encoder, multi="float16")
    with pytest.raises(InputError, match="nothing"):
        Index.open_or_create(place, encoder, nothing=1)  # type: ignore[call-arg]
    with pytest.raises(IndexForeign):
        Index.open_or_create(place, FakeEncoder(name="other"))
    with Index.open_or_create(place, encoder) as index:  # no lock was left behind
        assert len(index) == 2


def test_what_is_no_index_is_neither_opened_nor_made(tmp_path: Any, encoder: FakeEncoder) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(IndexExists):
        Index.open_or_create(tmp_path, encoder)
    Index.create(tmp_path / "x", encoder, engine="exact").close()
    with pytest.raises(InputError, match="got engine='edge'; the index there has 'exact'"):
        Index.open_or_create(tmp_path / "x", encoder, engine="edge")


def test_what_is_shown_of_an_index_is_one_line_whether_it_is_open_or_not(
    engine: EngineName, place: str, encoder: FakeEncoder
) -> None:
    with Index.create(place, encoder, engine=engine) as index:
        fill(index)
        shown = repr(index)
        assert shown.endswith(
            f": 30 documents; dense 8, lexical 1000, multi 6; engine {engine}, model 'fake')"
        )
        assert place.removeprefix("local:") in shown
    assert repr(index) == f"Index({index._store.place!r}, closed)"


def test_weights_that_are_set_are_those_of_searches_that_name_none(
    engine: EngineName, place: str, encoder: FakeEncoder
) -> None:
    with Index.create(place, encoder, engine=engine, multi="float32") as index:
        fill(index)
        assert index.weights == HeadWeights.default(HEADS)
        assert "weights" not in index.info()
        usual, other = index.search("w1 w2"), index.search("w1 w2", weights=(0.5, 2, 0))
        index.set_weights({"dense": 0.5, "sparse": 2})
        assert index.search("w1 w2") == other
    with Index.open(place, encoder) as index:
        assert index.weights == (0.5, 2, 0)
        assert index.info()["weights"] == [0.5, 2, 0]
        assert index.search("w1 w2") == other
        assert index.search("w1 w2", weights=HeadWeights.default(HEADS)) == usual
        with pytest.raises(InputError, match="weights: got"):
            index.set_weights((0, 0, 0))
        assert index.weights == (0.5, 2, 0)
        index.set_weights(None)
    with Index.open(place, encoder) as index:
        assert index.weights == HeadWeights.default(HEADS)
        assert index.search("w1 w2") == usual


def test_weights_of_heads_that_the_index_lacks_are_refused(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    index = new_index(engine, encoder, multi=None)
    assert index.weights == (1, 0.3, 0)
    with pytest.raises(InputError, match="the index has no multi vectors"):
        index.set_weights((1, 1, 1))
