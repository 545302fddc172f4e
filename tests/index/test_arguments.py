"""Arguments of every type: what is taken means the same everywhere, and what is not is named in the error."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from fakes import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triptych.errors import InputError, TriptychError
from triptych.index.filters import Filter
from triptych.index.index import Index
from triptych.index.store import EngineName
from triptych.types import Encoded, HeadWeights

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")


class Language(StrEnum):
    FR = "fr"


class Year(IntEnum):
    LATE = 2024


class Kind(Enum):
    BOOK = "book"


WRONG = [
    None,
    5,
    0,
    -1,
    2.5,
    float("nan"),
    float("inf"),
    10**30,
    -(10**30),
    True,
    "5",
    "",
    "\ud800",
    b"x",
    object(),
    [],
    [None],
    [5],
    [""],
    [[]],
    ["\ud800"],
    {},
    {"a": None},
    {5: 5},
    {"a": object()},
    {"a": "\udcff"},
    {"a": {"gte": "\ud800"}},
    {"a": {"gte": [1]}},
    set(),
    (1e308, 1e308, 1e308),
    (1e39, 1, 1),
    (10**400, 1, 1),
    (10**5000, 1, 1),
    10**5000,
    ("1", "1", "1"),
    np.zeros((2, 2)),
    np.array(5),
    np.array([1.5]),
    Decimal("NaN"),
    dt.date(9999, 12, 31),
    Encoded(dense=np.ones((1, 3), np.float32)),
    Path("x"),
    lambda: None,
    Index,
    range(3),
]


@pytest.fixture(params=["exact", "edge"])
def index(
    request: pytest.FixtureRequest, new_index: Callable[..., Index], encoder: FakeEncoder
) -> Iterator[Index]:
    made = new_index(request.param, encoder)
    made.add(["there"], ["w1 w2"], [{"a": "fr", "n": 5}])
    yield made
    assert list(made.ids) == ["there"]


def attempt(step: Callable[[], Any]) -> Any:
    """The result, or None if it was refused in our words."""
    try:
        return step()
    except TriptychError as error:
        return None if str(error) else error


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=st.sampled_from(WRONG), two=st.sampled_from(WRONG), name=st.integers(0, 12))
def test_no_public_method_raises_anything_but_our_errors(index: Index, one: Any, two: Any, name: int) -> None:
    queries = index.encoder.encode_query("w1")
    steps: list[Callable[[], Any]] = [
        lambda: index.add(one, two),
        lambda: index.add(["x"], ["y"], one, block=two),
        lambda: index.add(["x"], ["y"], [one]),
        lambda: index.add(["x"], ["y"], [{"f": one, "g": two}]),
        lambda: index.search(one, two),
        lambda: index.search("w1", one, candidates=two),
        lambda: index.search("w1", weights=one, routes=two),
        lambda: index.search("w1", filter=one, protocol=two),
        lambda: index.search("w1", filter={"a": one, "n": {"gte": two}}),
        lambda: index.search_encoded(one, two),
        lambda: index.search_encoded(queries, one, filter=two),
        lambda: (index.get(one), index.count(two)),
        lambda: index.delete(one),
    ]
    attempt(steps[name])
    index.delete([name for name in index.ids if name != "there"])
    assert [hit.id for hit in index.search("w1")] == ["there"]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_create_and_open_raise_nothing_but_our_errors(
    tmp_path: Path, encoder: FakeEncoder, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good: Any = tmp_path / "x.index"
    steps: list[Callable[[], Any]] = [
        lambda: Index.open(wrong, encoder),
        lambda: Index.create(good, wrong),
        lambda: Index.create(wrong, encoder),
        lambda: Index.create(good, encoder, engine=wrong),
        lambda: Index.create(good, encoder, api_key=wrong, engine="exact"),
        *(
            lambda name=name: Index.create(good, encoder, engine="exact", **{name: wrong})  # type: ignore[misc]
            for name in ("multi", "dense", "coarse", "exact_below", "ef", "none")
        ),
    ]
    for step in steps:
        made = attempt(step)
        if made is not None:
            made.close()
            good = tmp_path / f"x{random.random()}.index"
    Index.create(tmp_path / "y.index", encoder, engine="exact").close()
    made = attempt(lambda: Index.open(tmp_path / "y.index", wrong))
    if made is not None:
        made.close()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda index: index.search(None), "search: got None for query"),
        (lambda index: index.search(5), "search: got 5 for query"),
        (lambda index: index.search({"a": "b"}), "search: got {'a': 'b'} for query"),
        (lambda index: index.search(["w1", " "]), "empty query at position 1"),
        (lambda index: index.search("w1", 10**30), "k=.*expected an integer"),
        (lambda index: index.search("w1", "5"), "k='5'"),
        (lambda index: index.search("w1", weights=(1e308,) * 3), "weights: got.*finite"),
        (lambda index: index.search("w1", weights=(1e-60, 0, 0)), "weights"),
        (lambda index: index.search("w1", routes=5), "routes"),
        (lambda index: index.search("w1", filter={"a": "\ud800"}), "filter: 'a'"),
        (lambda index: index.search("w1", filters={}), "did you mean filter"),
        (lambda index: index.add(["x"], ["y"], block=2.5), "block=2.5"),
        (lambda index: index.add(["x"], ["y"], block="3"), "block='3'"),
        (lambda index: index.add(["x"], ["y"], progress=3), "progress=3"),
        (lambda index: index.add({"x": "y"}, ["y"]), "got {'x': 'y'} for ids"),
        (lambda index: index.add(["x"], None), "None for texts"),
        (lambda index: index.add(["x"], ["y"], {"a": 1}), "got {'a': 1} for metadata"),
        (lambda index: index.get(None), "get: got None for ids"),
        (lambda index: index.delete(5), "delete: got 5 for ids"),
        (lambda index: index.search_encoded("w1"), "str for queries; expected an Encoded"),
    ],
)
def test_the_error_names_the_argument(index: Index, step: Callable[[Index], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        step(index)


def test_a_name_where_an_encoder_is_expected_says_how_to_load_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="from_pretrained"):
        Index.create(tmp_path / "x", "small")  # type: ignore[arg-type]


def test_a_table_is_no_list(index: Index) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"there": ["w1"]})
    for step in (index.get, index.delete, index.search, lambda frame: index.add(frame, frame)):
        with pytest.raises(InputError, match=r"for (ids|query); expected a list"):
            step(frame)


def test_generators_and_arrays_are_lists(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    index = new_index(engine, encoder)
    assert index.add((n for n in "abcd"), (f"w1 {n}" for n in "abcd"), ({"n": n} for n in "abcd")) == 4
    assert index.add(np.array(["e", "f"]), np.array(["w1", "w2"])) == 2
    assert index.add(pa.array(["g"]), pa.chunked_array([["w1"]])) == 1
    assert [document["id"] for document in index.get(n for n in "ba") if document] == ["b", "a"]
    assert index.delete(hit.id for hit in index.search("w1 a", 1)) == 1
    assert index.delete({"b", "nobody"}) == 1
    assert index.delete(iter(["c"])) == 1
    assert sorted(index.ids) == ["d", "e", "f", "g"]
    assert [len(hits) for hits in index.search((q for q in ("w1", "w2")), 2)] == [2, 2]
    assert index.search(np.array(["w1"]), 2) == [index.search("w1", 2)]


def test_more_hits_than_candidates_raise_the_candidates(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    index = new_index(engine, encoder)
    names = [f"{i}" for i in range(300)]
    index.add(names, [f"w1 x{name}" for name in names], block=300)
    assert len(index.search("w1", 250)) == 250
    assert len(index.search("w1", 250, candidates=10)) == 250
    assert len(index.search("w1", 2**31 - 1)) == 300


METADATA: list[tuple[Any, Any]] = [
    (np.int64(5), 5),
    (np.float32(0.5), 0.5),
    (np.bool_(True), True),
    (np.str_("x"), "x"),
    (Language.FR, "fr"),
    (Year.LATE, 2024),
    (Kind.BOOK, "book"),
    (dt.date(2024, 1, 2), "2024-01-02"),
    (dt.datetime(2024, 1, 2, 3, 4, tzinfo=dt.UTC), "2024-01-02T03:04:00+00:00"),
    (np.datetime64("2024-01-02"), "2024-01-02T00:00:00"),
    (Decimal("19.5"), 19.5),
    (Decimal("3"), 3),
    (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (PurePosixPath("a/b"), "a/b"),
    (np.array([1, 2]), [1, 2]),
    ((1, (2,)), [1, [2]]),
    ({"x": np.int8(1)}, {"x": 1}),
    (None, None),
    (-0.0, 0.0),
    (2**63 - 1, 2**63 - 1),
]


def test_metadata_of_other_types_becomes_what_it_stands_for(
    engine: EngineName, encoder: FakeEncoder, place: str
) -> None:
    names = [f"{i}" for i in range(len(METADATA))]
    with Index.create(place, encoder, engine=engine) as index:
        index.add(names, ["w1"] * len(names), [{"f": value} for value, _ in METADATA])
    with Index.open(place, encoder) as index:
        for (_, expected), document in zip(METADATA, index.get(names), strict=True):
            assert document is not None
            assert document["metadata"] == {"f": expected}
            assert type(document["metadata"]["f"]) is type(expected)


def nested(levels: int) -> Any:
    value: Any = 1
    for i in range(levels):
        value = {"a": value} if i % 2 else [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "field 'f.g': got nan"),
        (np.float32("inf"), "field 'f.g': got inf"),
        (np.datetime64("NaT"), "field 'f.g'"),
        (Decimal("Infinity"), "field 'f.g'"),
        (2**63, "field 'f.g'.*64 bits"),
        pytest.param(10**5000, "field 'f.g': got an integer of 16610 bits", id="5000 digits"),
        (b"x", "field 'f.g'"),
        ({1}, "field 'f.g': got {1}"),
        ([1, object()], r"field 'f.g\[1\]'"),
        ({"h": {"i": 3j}}, "field 'f.g.h.i'"),
        (nested(63), "nested more than 64 deep in 'f'"),
        pytest.param(nested(900), "nested more than 64 deep in 'f'"),
        pytest.param(nested(100_000), "nested more than 64 deep in 'f'", id="100,000 levels"),
    ],
)
def test_metadata_that_could_not_be_read_back_is_refused_with_the_field(
    index: Index, value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=f"add: metadata of document 'a'.*{message}"):
        index.add(["a"], ["w1"], [{"f": {"g": value}}])


def test_the_deepest_metadata_can_be_read_after_a_kill(
    engine: EngineName, encoder: FakeEncoder, place: str
) -> None:
    deep = {"f": nested(63)}
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["a"], ["w1"], [deep])
    with Index.open(place, encoder) as index:
        document = index.get(["a"])[0]
        assert document is not None
        assert document["metadata"] == deep


def test_changing_what_a_search_returned_changes_nothing_in_the_index(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    index = new_index(engine, encoder)
    index.add(["a"], ["w1"], [{"x": {"y": 1}}])
    index.search("w1")[0].metadata["x"]["y"] = 2
    assert index.count({"x.y": 1}) == 1


DOCUMENTS: list[dict[str, Any]] = [
    {"lang": "fr", "year": 2024, "price": 2.5, "open": True, "when": "2024-01-02", "id": str(UUID(int=1))},
    {"lang": "de", "year": 2020, "price": 3, "open": False, "when": "2024-01-02T10:00:00+02:00"},
    {"lang": "book", "year": "2024", "price": 10, "open": 1, "when": "2024-01-02 00:00:00"},
    {"when": "0000-05-05", "lang": ["fr", "en"]},
    {"when": "9999-12-31T23:59:59-05:00"},
    {"when": "9999-12-31"},
    {"when": "0001-01-01T00:00:00+05:00"},
    {"when": "2024-01-02T00:00:00.000001Z"},
    {"when": "20240102"},
    {"when": None, "price": []},
]


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"lang": np.str_("fr")}, [0, 3]),
        ({"lang": Language.FR}, [0, 3]),
        ({"lang": Kind.BOOK}, [2]),
        ({"lang": np.array(["de", "en"])}, [1, 3]),
        ({"lang": {"de", "en"}}, [1, 3]),
        ({"lang": {"de": 1}.keys()}, [1]),
        ({"year": np.int64(2024)}, [0]),
        ({"year": Year.LATE}, [0]),
        ({"year": Decimal(2024)}, [0]),
        ({"year": np.str_("2024")}, [2]),
        ({"price": Decimal("2.5")}, [0]),
        ({"price": {"gt": np.float32(2.5), "lte": Decimal(10)}}, [1, 2]),
        ({"open": np.bool_(True)}, [0]),
        ({"open": np.int8(1)}, [2]),
        ({"metadata.id": UUID(int=1)}, [0]),
        ({"when": dt.date(2024, 1, 2)}, [0, 2]),
        ({"when": dt.datetime(2024, 1, 2, 8, tzinfo=dt.UTC)}, [1]),
        ({"when": np.datetime64("2024-01-02T08:00")}, [1]),
        ({"when": [dt.date(2024, 1, 2), dt.date(9999, 12, 31)]}, [0, 2, 5]),
        ({"when": {"gt": dt.date(2024, 1, 2), "lt": "2024-01-03"}}, [1, 7]),
        ({"when": {"gte": dt.date(1, 1, 1)}}, [0, 1, 2, 4, 5, 7]),
        ({"when": {"gte": dt.date(9999, 12, 31)}}, [4, 5]),
        ({"when": {"lt": dt.date(1, 1, 1)}}, [3, 6]),
    ],
)
@pytest.mark.parametrize("folder_engine", ["exact", "edge"])
def test_filters_of_all_types_mean_the_same_on_all_engines(
    folder_engine: EngineName,
    encoder: FakeEncoder,
    new_index: Callable[..., Index],
    where: Any,
    rows: list[int],
) -> None:
    index = new_index(folder_engine, encoder)
    index.add([f"{i}" for i in range(len(DOCUMENTS))], ["w1"] * len(DOCUMENTS), DOCUMENTS)
    found = Filter.of(where)
    assert sorted(hit.id for hit in index.search("w1", filter=found)) == [f"{row}" for row in rows]
    assert index.count(found) == len(rows)


@pytest.mark.parametrize(
    "where",
    [
        {"a": "\ud800"},
        {"\ud800": "a"},
        {"a": {"gte": "0000-01-01"}},
        {"a": {"gte": "10000-01-01"}},
        {"a": {"gte": "9999-12-31T23:59:59-05:00"}},
        {"a": {"lt": "0001-01-01T00:00:00+05:00"}},
        {"a": {"gte": "\ud800"}},
        pytest.param({"a": 10**400}, id="400 digits"),
        pytest.param({"a": 10**5000}, id="5000 digits"),
        {"a": Decimal("NaN")},
        {"a": np.datetime64("NaT")},
        {"a": {"gte": float("inf")}},
        {"a": b"x"},
        {"a": [[1]]},
    ],
)
def test_filters_that_no_engine_understands_are_refused_with_the_field(where: Any) -> None:
    with pytest.raises(InputError, match=r"filter.*('a'|key)"):
        Filter.of(where)


def test_a_misspelt_field_is_refused_with_the_nearest_one(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    index = new_index(engine, encoder)
    assert index.search("w1", filter={"yaer": 2020}) == []  # there is nothing yet
    index.add(["a", "b"], ["w1", "w1"], [{"year": 2020, "author": {"name": "x"}}, {"language": None}])
    for name, near in (("yaer", "year"), ("author.nmae", "author.name"), ("langauge", "language")):
        for step in (lambda where: index.search("w1", filter=where), index.count):
            with pytest.raises(
                InputError, match=f"no document has the field '{name}'; did you mean '{near}'"
            ):
                step({name: "x"})
    for where in ({"year": 2021}, {"language": "fr"}, {"author": 1}, {"author.name": "y"}):
        assert index.search("w1", filter=where) == []
        assert index.count(where) == 0


def test_the_model_of_a_relative_folder_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path)
    with Index.create("x.index", FakeEncoder(name="my-model")) as index:
        assert index.info()["model"]["source"] == str(tmp_path / "my-model")
    with Index.create("y.index", FakeEncoder(name="BAAI/bge-m3")) as index:
        assert index.info()["model"]["source"] == "BAAI/bge-m3"


def test_numbers_that_16_bits_cannot_hold_are_refused(index: Index, encoder: FakeEncoder) -> None:
    vectors = encoder.encode_document(["w1"])
    assert vectors.multi is not None
    vectors.multi.values[0, 0] = 1e6
    with pytest.raises(InputError, match="beyond ±65504"):
        index._store.engine.add(vectors, [{"id": "a", "text": "", "metadata": {}}])


def test_weights_of_any_size_that_is_taken_give_finite_scores(index: Index) -> None:
    for weights in (HeadWeights(1e30, 1e30, 1e30), (1e-30, 0, 0), {"dense": 1}):
        hits = index.search("w1", weights=weights)
        assert np.isfinite([hit.score for hit in hits]).all()
