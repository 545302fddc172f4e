"""Documents with more token vectors than one point of an engine takes, compared with plain loops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracle
import pytest
from fakes import FakeEncoder
from oracle import Document
from scipy import sparse
from test_contract import assert_hits

from triptych.index import qdrant
from triptych.index.index import Index
from triptych.index.store import EngineName
from triptych.types import Encoded, Ragged

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

QUERIES = ["w1 w2 w30 w31", "w7", "w11 nowhere"]


@pytest.fixture(autouse=True)
def five_tokens_per_point(monkeypatch: pytest.MonkeyPatch, encoder: FakeEncoder) -> None:
    monkeypatch.setattr(qdrant, "POINT_NUMBERS", 5 * encoder.widths["multi"] + 1)


def _documents(seed: int) -> tuple[list[str], list[str], list[dict[str, object]]]:
    """Documents of 0 to 40 tokens: none, exactly one, exactly two points, and more."""
    rng = np.random.default_rng(seed)
    lengths = [0, 1, 5, 6, 10, 11, *rng.integers(0, 41, 20).tolist()]
    texts = [" ".join(f"w{w}" for w in rng.integers(0, 40, n)) for n in lengths]
    metadata: list[dict[str, object]] = [{"even": i % 2 == 0} for i in range(len(texts))]
    return [f"d{i:02d}" for i in range(len(texts))], texts, metadata


@pytest.mark.parametrize("weights", [(1.0, 0.3, 1.0), (0.0, 0.0, 1.0)])
def test_a_long_document_is_one_hit_with_the_exact_scores_of_all_its_tokens(
    engine: EngineName,
    encoder: FakeEncoder,
    new_index: Callable[..., Index],
    weights: tuple[float, float, float],
) -> None:
    ids, texts, metadata = _documents(0)
    index = new_index(engine, encoder, multi="float32")
    index.add(ids, texts, metadata, block=7)
    vectors = encoder.encode_document(texts)
    documents = [Document(name, vectors[i], metadata[i]) for i, name in enumerate(ids)]
    for query in QUERIES:
        expected = oracle.search(encoder.encode_query(query), documents, weights)
        assert_hits(index.search(query, k=30, weights=weights), expected)
        some = oracle.search(
            encoder.encode_query(query), documents, weights, matches=lambda metadata: metadata["even"]
        )
        assert_hits(index.search(query, k=30, weights=weights, filter={"even": True}), some)


def test_recall_by_token_vectors_finds_long_documents_once(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    ids, texts, metadata = _documents(1)
    index = new_index(engine, encoder, multi="float32")
    index.add(ids, texts, metadata)
    vectors = encoder.encode_document(texts)
    documents = [Document(name, vectors[i], metadata[i]) for i, name in enumerate(ids)]
    for query in QUERIES:
        expected = oracle.search(encoder.encode_query(query), documents, (0, 0, 1), routes=["multi"])
        assert_hits(index.search(query, k=30, weights=(0, 0, 1), routes=["multi"]), expected)


def test_parts_are_no_documents(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    ids, texts, metadata = _documents(2)
    index = new_index(engine, encoder)
    index.add(ids, texts, metadata)
    assert len(index) == len(ids)
    assert sorted(index.ids) == ids
    assert index.count({"even": True}) == len(ids) / 2
    assert [document["text"] for document in index.get(ids) if document] == texts


def test_a_replaced_and_a_deleted_document_leave_nothing_behind(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    ids, texts, metadata = _documents(3)
    index = new_index(engine, encoder, multi="float32")
    index.add(ids, texts, metadata)
    long = " ".join(f"w{i}" for i in range(40))
    index.add(["d01", "d02"], [long, long])
    index.add(["d01"], ["w3"])
    assert index.delete(["d02"]) == 1
    assert len(index) == len(ids) - 1
    (hit,) = [hit for hit in index.search("w3 w9", k=40, weights=(0, 0, 1)) if hit.id == "d01"]
    expected = oracle.scores(encoder.encode_query("w3 w9"), encoder.encode_document("w3"))
    assert hit.scores["multi"] == pytest.approx(expected["multi"], abs=1e-5)
    assert index.delete(ids) == len(ids) - 1
    assert len(index) == 0
    assert not index.search("w3 w9", k=40, routes=["multi"])


@pytest.mark.filterwarnings("ignore::triptych.index.search.FilterWarning")  # nothing has the field 'other'
def test_filters_mean_the_documents_of_parts(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    ids, texts, metadata = _documents(5)
    index = new_index(engine, encoder, multi="float16")
    index.add(ids, texts, metadata)
    having = {name for name, text in zip(ids, texts, strict=True) if text}
    some = set(ids[:13])
    cases: list[tuple[dict[str, object], set[str]]] = [
        ({"id": [*some]}, some),
        ({"id": {"not": [*some]}}, {*ids} - some),
        ({"id": {"prefix": "d1"}}, {*ids[10:20]}),
        ({"not": {"id": {"prefix": ["d1", "d2"]}}}, {*ids[:10]}),
        ({"or": [{"id": "d07"}, {"even": True}]}, {*ids[::2], "d07"}),
        ({"other": {"exists": False}}, {*ids}),
    ]
    for where, expected in cases:
        assert index.count(where) == len(expected), where
        assert {document["id"] for document in index.documents(where)} == expected, where
        hits = index.search(QUERIES[0], k=40, routes=["multi"], weights=(0, 0, 1), filter=where)
        assert {hit.id for hit in hits} == expected & having, where


def test_vectors_of_parts_are_joined_and_their_metadata_is_changed_with_the_documents(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    ids, texts, metadata = _documents(6)
    index = new_index(engine, encoder, multi="float32")
    index.add(ids, texts, metadata)
    for names in (ids, ids[::-1], ids[5:6], [ids[9], ids[1], ids[9]]):
        found = index.vectors(names)
        expected = encoder.encode_document([texts[ids.index(name)] for name in names])
        np.testing.assert_allclose(found.dense, expected.dense, atol=1e-6)
        np.testing.assert_allclose(found.lexical.toarray(), expected.lexical.toarray(), atol=1e-6)
        assert found.multi.lengths.tolist() == expected.multi.lengths.tolist()
        np.testing.assert_allclose(found.multi.values, expected.multi.values, atol=1e-6)
    assert index.update(ids[::2], [{"even": None, "new": 1}] * len(ids[::2])) == len(ids[::2])
    assert index.count({"new": 1}) == len(ids[::2])
    for where, expected_ids in (({"even": True}, set()), ({"new": 1}, set(ids[::2]))):
        hits = index.search(QUERIES[0], k=40, routes=["multi"], weights=(0, 0, 1), filter=where)
        assert {hit.id for hit in hits} == {name for name in expected_ids if texts[ids.index(name)]}


@pytest.mark.parametrize("engine", ["edge", "exact"])
def test_long_documents_are_found_again_after_opening(
    engine: EngineName, encoder: FakeEncoder, tmp_path: Path
) -> None:
    ids, texts, metadata = _documents(4)
    with Index.create(tmp_path / "an.index", encoder, engine=engine) as index:
        index.add(ids, texts, metadata)
        before = index.search(QUERIES[0], k=30)
    with Index.open(tmp_path / "an.index", encoder) as index:
        assert index.search(QUERIES[0], k=30) == before
        assert len(index) == len(ids)


@pytest.mark.slow
def test_documents_of_8192_tokens_at_1024_columns_have_exact_scores(
    engine: EngineName, new_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in MLDR with BGE-M3; 16 bits per number, and the oracle sees the same ones."""
    monkeypatch.undo()
    tokens, width = 8192, 1024
    encoder = FakeEncoder(dense=width, multi=width)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2 * tokens + 17, width), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    values = values.astype(np.float16).astype(np.float32)
    multi = Ragged(values, np.asarray([0, tokens, 2 * tokens, 2 * tokens + 17]))
    dense = values[:3]
    lexical = sparse.csr_array(np.full((3, encoder.widths["lexical"]), 0.5, dtype=np.float32))
    index = new_index(engine, encoder, multi="float16")
    payloads = [{"id": name, "text": "", "metadata": {}} for name in "abc"]
    index._store.engine.add(Encoded(dense, lexical, multi), payloads)  # pyright: ignore
    asked = values[[5, 9000, 16390]]
    query = Encoded(dense[:1], lexical[[0]], Ragged(asked, np.asarray([0, 3])))
    hits = {hit.id: hit for hit in index.search_encoded(query, k=3)[0]}
    for i, name in enumerate("abc"):
        own = values[multi.offsets[i] : multi.offsets[i + 1]].astype(np.float64)
        expected = (asked.astype(np.float64) @ own.T).max(axis=1).mean()
        assert hits[name].scores["multi"] == pytest.approx(expected, abs=2e-5)
