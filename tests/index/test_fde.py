"""Recall by token vectors through one vector a document, compared with plain loops and with the exact engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder, random_texts

import reference
from triptych.errors import InputError
from triptych.index import qdrant
from triptych.index.filters import Filter
from triptych.index.index import Index
from triptych.index.layout import Layout
from triptych.index.store import EngineName

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

QUERIES = ["w1 w2 w30 w31", "w7", "nowhere w3"]
APPROXIMATE: tuple[EngineName, ...] = ("edge", "server")


@pytest.fixture(params=APPROXIMATE)
def engine(request: pytest.FixtureRequest) -> EngineName:
    return request.param


@pytest.fixture
def texts() -> list[str]:
    return random_texts(np.random.default_rng(5), 40)


def fill(index: Index, texts: list[str]) -> Index:
    index.add(
        [f"d{i:02d}" for i in range(len(texts))], texts, [{"even": i % 2 == 0} for i in range(len(texts))]
    )
    return index


@pytest.mark.parametrize("fde", [(0, 6, 1), (2, 3, 4)])
def test_the_route_finds_what_the_vectors_say(
    engine: EngineName,
    encoder: FakeEncoder,
    texts: list[str],
    new_index: Callable[..., Index],
    fde: tuple[int, int, int],
) -> None:
    index = fill(new_index(engine, encoder, fde=fde), texts)
    made = index._store.engine.layout.muvera
    assert made is not None
    signs, projection = made.directions
    rows = np.eye(6)[None] if projection is None else projection.T.reshape(4, 3, 6)
    signs = signs.T.reshape(fde[2], fde[0], 6)

    def slow(tokens: np.ndarray, document: bool) -> np.ndarray:
        return np.asarray(reference.muvera(tokens.tolist(), signs, rows, document=document))

    documents: Any = encoder.encode_document(texts).multi
    vectors = {f"d{i:02d}": slow(each, True) for i, each in enumerate(documents) if len(each)}
    queries = encoder.encode_query(QUERIES)
    found = index._store.engine.recall(queries, "multi", 12, Filter.of({"even": True}))
    for candidates, tokens in zip(found, queries.multi, strict=True):  # type: ignore[arg-type]
        asked = slow(tokens, False) / len(tokens)
        scores = {name: float(asked @ vector) for name, vector in vectors.items() if int(name[1:]) % 2 == 0}
        best = sorted(scores.values(), reverse=True)[:12]
        np.testing.assert_allclose(candidates.scores, best, atol=5e-3)
        names = [payload["id"] for payload in index._store.engine.fetch(candidates.keys)]  # type: ignore[index]
        np.testing.assert_allclose([scores[name] for name in names], best, atol=5e-3)


@pytest.mark.parametrize("multi", ["float32", "binary", "1bit"])
def test_with_candidates_enough_the_hits_are_those_of_the_exact_engine(
    engine: EngineName, texts: list[str], new_index: Callable[..., Index], multi: str
) -> None:
    encoder = FakeEncoder(heads=("multi",))
    options = {"multi": multi, "fde": (1, 6, 2)}
    some, exact = (fill(new_index(name, encoder, **options), texts) for name in (engine, "exact"))
    for query in QUERIES:
        found, wanted = (index.search(query, 10, candidates=100) for index in (some, exact))
        np.testing.assert_allclose([hit.score for hit in found], [hit.score for hit in wanted], atol=1e-4)
        assert found == some.search(query, 15, candidates=100)[:10]
        assert some.search(query, 5, offset=5, candidates=100) == found[5:]
    some.delete(["d01"])
    assert "d01" not in [hit.id for hit in some.search(texts[1] or "w1", 40)]


def test_a_document_in_several_points_is_found_once(
    engine: EngineName, texts: list[str], new_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant, "POINT_NUMBERS", 13)
    encoder = FakeEncoder(heads=("multi",))
    index = fill(new_index(engine, encoder, multi="float32", fde=(0, 6, 1)), texts)
    exact = fill(new_index("exact", encoder, multi="float32"), texts)
    for query in QUERIES:
        hits, wanted = index.search(query, 40), exact.search(query, 40)
        assert len({hit.id for hit in hits}) == len(hits)
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in wanted], atol=1e-5)


def test_it_joins_the_other_routes_and_is_read_back(
    engine: EngineName, encoder: FakeEncoder, texts: list[str], tmp_path: Path
) -> None:
    place = f"local:{tmp_path / 's'}" if engine == "server" else str(tmp_path / "an.index")
    with Index.create(place, encoder, engine=engine, fde=(0, 6, 1)) as index:
        hits = fill(index, texts).search(QUERIES, 10, routes=["dense", "lexical", "multi"], candidates=40)
    with Index.open_or_create(place, encoder, fde=(0, 6, 1)) as index:
        assert index.info()["layout"]["fde"] == (0, 6, 1)
        assert index.search(QUERIES, 10, routes=["dense", "lexical", "multi"], candidates=40) == hits
    with pytest.raises(InputError, match=r"got fde=\(1, 6, 1\); the index there has \(0, 6, 1\)"):
        Index.open_or_create(place, encoder, fde=(1, 6, 1))


def test_manifests_without_it_are_as_they_were() -> None:
    plain, with_fde = Layout({"multi": 6}), Layout({"multi": 6}, fde=(0, 6, 1))
    assert "fde" not in plain.to_json()
    assert Layout.from_json(plain.to_json()) == plain
    assert with_fde.version == 3
    assert Layout.from_json({**with_fde.to_json(), "fde": [0, 6, 1]}) == with_fde


@pytest.mark.parametrize(
    ("fde", "message"),
    [
        ((0, 6), "expected bits, columns and repetitions"),
        ("mean", "expected bits, columns and repetitions"),
        ((0, 7, 1), "fde: columns: got 7; expected an integer from 1 to 6"),
        ((11, 6, 1), "fde: bits: got 11; expected an integer from 0 to 10"),
        ((0, "6", 1), "got in the option fde"),
    ],
)
def test_other_numbers_are_refused(fde: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Layout({"multi": 6}, fde=fde)


def test_it_needs_token_vectors() -> None:
    with pytest.raises(InputError, match="and token vectors"):
        Layout.of({"dense": 8, "multi": 6}, {"multi": "none", "fde": (0, 6, 1)})


def test_a_document_without_token_vectors_is_not_found(
    engine: EngineName, new_index: Callable[..., Index]
) -> None:
    index = new_index(engine, FakeEncoder(heads=("multi",)), fde=(0, 6, 1))
    index.add(["empty", "full"], ["", "w1"])
    assert [hit.id for hit in index.search("w1", 5)] == ["full"]
