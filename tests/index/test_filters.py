"""Filters mean the same on every engine: what is written beside them, and what plain Python finds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder

from triptych.errors import InputError
from triptych.index.filters import Filter
from triptych.index.index import Index
from triptych.index.search import FilterWarning
from triptych.index.store import EngineName

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

METADATA: dict[str, dict[str, Any]] = {
    "a": {"lang": "fr", "year": 2020, "path": "docs/one.md", "author": "Ada"},
    "b": {"lang": "de", "year": 2022, "path": "docs/two.md", "author": None},
    "c": {"lang": "en", "year": 2022.5, "path": "src/docs/x.py", "tags": ["new", "docs/x"]},
    "d": {"path": "Docs/three.md", "author": [], "id": "b", "not": 1, "or": "x"},
    "é/1": {
        "lang": ["fr", "de"],
        "author": ["Bob"],
        "path": ["docs", "docs/four"],
        "deep": {"id": "n", "n": 1},
    },
    "f": {"lang": "fr", "author": [None], "path": 7, "year": "2020", "open": True},
    "docs/9": {},
}


@pytest.fixture
def index(engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]) -> Index:
    made = new_index(engine, encoder, multi="float16")
    made.add(list(METADATA), ["w1 w2"] * len(METADATA), list(METADATA.values()))
    return made


CASES: list[tuple[dict[str, Any], str]] = [
    ({"path": {"prefix": "docs/"}}, "a b é/1"),
    ({"path": {"prefix": ["docs/", "src"]}}, "a b c é/1"),
    ({"path": {"prefix": "docs"}}, "a b é/1"),
    ({"path": {"prefix": ""}}, "a b c d é/1"),
    ({"tags": {"prefix": "docs/"}}, "c"),
    ({"path": {"not": {"prefix": "docs/"}}}, "c d f docs/9"),
    ({"author": {"exists": True}}, "a é/1 f"),
    ({"author": {"exists": False}}, "b c d docs/9"),
    ({"deep": {"exists": True}}, "é/1"),
    ({"deep.n": {"exists": np.True_}}, "é/1"),
    ({"lang": {"not": "fr"}}, "b c d docs/9"),
    ({"lang": {"ne": "fr"}}, "b c d docs/9"),
    ({"lang": {"not": ["fr", "de"]}}, "c d docs/9"),
    ({"lang": {"exists": True, "not": "fr"}}, "b c"),
    ({"lang": {"in": ["de", "en"]}}, "b c é/1"),
    ({"lang": {"eq": "de"}}, "b é/1"),
    ({"year": {"not": {"gte": 2022}}}, "a d é/1 f docs/9"),
    ({"year": {"gte": 2020, "ne": 2022}}, "a c"),
    ({"year": {"not": {"not": {"gte": 2022}}}}, "b c"),
    ({"not": {"lang": "fr", "year": 2020}}, "b c d é/1 f docs/9"),
    ({"not": {"or": [{"lang": "fr"}, {"lang": "de"}]}}, "c d docs/9"),
    ({"or": [{"lang": "en"}, {"year": {"lt": 2021}}]}, "a c"),
    ({"or": [{"lang": "fr", "year": 2020}, {"open": True}], "author": {"exists": True}}, "a f"),
    ({"or": [{"lang": "fr", "year": 2020}, {"open": True}]}, "a f"),
    ({"and": [{"lang": "fr"}, {"lang": "de"}]}, "é/1"),
    ({"and": [{"or": [{"lang": "fr"}]}, {"not": {"open": True}}]}, "a é/1"),
    ({"id": "b"}, "b"),
    ({"id": ["a", "é/1", "unknown"]}, "a é/1"),
    ({"id": {"not": ["a", "b", "c"]}}, "d é/1 f docs/9"),
    ({"id": {"prefix": "docs/"}}, "docs/9"),
    ({"id": ["a", "f"], "year": 2020}, "a"),
    ({"or": [{"id": "b"}, {"metadata.id": "b"}]}, "b d"),
    ({"metadata.id": "b"}, "d"),
    ({"deep.id": "n"}, "é/1"),
    ({"metadata.not": 1}, "d"),
    ({"metadata.or": {"prefix": "x"}}, "d"),
]


@pytest.mark.parametrize(("where", "expected"), CASES, ids=str)
def test_a_filter_lets_through_what_is_written_here(
    index: Index, where: dict[str, Any], expected: str
) -> None:
    assert sorted(hit.id for hit in index.search("w1", filter=where)) == sorted(expected.split())
    assert index.count(where) == len(expected.split())
    multi = index.search("w1", filter=where, routes=("multi",), weights=(0, 0, 1))
    assert sorted(hit.id for hit in multi) == sorted(expected.split())


def random_filter(rng: np.random.Generator, depth: int) -> dict[str, Any]:
    if depth and rng.random() < 0.5:
        name = str(rng.choice(["and", "or", "not"]))
        inner = [random_filter(rng, depth - 1) for _ in range(rng.integers(1, 4))]
        return {name: inner[0] if name == "not" else inner}
    leaves: list[dict[str, Any]] = [
        {"lang": str(rng.choice(["fr", "de", "xx"]))},
        {"lang": {"not": ["fr", "en"]}, "year": {"gte": int(rng.integers(2019, 2024))}},
        {"path": {"prefix": str(rng.choice(["docs/", "src", "D", "docs"]))}},
        {"author": {"exists": bool(rng.integers(2))}},
        {"id": [str(name) for name in rng.choice(list(METADATA), 3)]},
        {"year": {"ne": 2022}},
    ]
    return leaves[rng.integers(len(leaves))]


def test_filters_in_filters_let_through_what_plain_python_does(index: Index) -> None:
    rng = np.random.default_rng(5)
    for _ in range(150):
        where = random_filter(rng, 3)
        found = Filter.of(where)
        assert found is not None
        expected = {
            name
            for name, metadata in METADATA.items()
            if found.matches({"id": name, "text": "", "metadata": metadata})
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FilterWarning)
            assert {hit.id for hit in index.search("w1", filter=where)} == expected, where


def test_filters_nested_as_deep_as_allowed_reach_the_engine(index: Index) -> None:
    where: dict[str, Any] = {"lang": "fr"}
    for _ in range(15):
        where = {"not": {"or": [where]}}
    assert index.count(where) == 7 - 3
    for _ in range(2):
        where = {"not": {"or": [where]}}
    with pytest.raises(InputError, match="nested more than 32 deep"):
        index.count(where)
    operators: Any = "fr"
    for _ in range(2000):
        operators = {"not": operators}
    with pytest.raises(InputError, match="nested more than 32 deep"):
        index.count({"lang": operators})


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"not": "fr"}, "'not': got 'fr'; expected a mapping"),
        ({"not": {}}, "'not': got an empty filter"),
        ({"or": {"lang": "fr"}}, "got 'or': {'lang': 'fr'}; expected a list of at least one filter"),
        ({"or": []}, "got 'or': \\[\\]; expected a list"),
        ({"and": [{"lang": "fr"}, "x"]}, "'and'\\[1\\]: got 'x'; expected a mapping"),
        ({"or": [{}]}, "'or'\\[0\\]: got an empty filter"),
        (
            {"lang": {"like": "f"}},
            "'lang' has the operators \\['like'\\]; expected one or more of gte, .*prefix",
        ),
        ({"lang": {}}, "'lang' has the operators \\[\\]"),
        ({"path": {"prefix": 5}}, "'path': prefix 5; expected a string"),
        ({"path": {"prefix": []}}, "'path': prefix \\[\\]"),
        ({"author": {"exists": "yes"}}, "'author': exists 'yes'; expected True or False"),
        ({"id": 5}, "got 'id': 5; expected ids, which are strings"),
        ({"id": {"gte": "a"}}, "'id' has the operators \\['gte'\\]; expected ids, or their prefix"),
        ({"id": {"exists": True}}, "'id' has the operators \\['exists'\\]"),
        ({"lang": {"not": []}}, "got 'lang': \\[\\]"),
        ({"lang": {"in": {"a": 1}}}, "got 'lang': {'a': 1}; expected a string"),
    ],
    ids=str,
)
def test_what_is_no_filter_is_refused_with_what_came_and_what_is_expected(where: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Filter.of(where)


def test_a_field_that_no_document_has_is_said(index: Index) -> None:
    with pytest.warns(
        FilterWarning, match="no document has the field 'colour'; fields are 'path', 'author', 'lang'"
    ):
        assert index.search("w1", filter={"colour": "red"}) == []
    with pytest.warns(FilterWarning, match="'colour'"):
        assert index.count({"or": [{"colour": "red"}, {"lang": "xx"}]}) == 0
    with pytest.raises(InputError, match="no document has the field 'langs'; did you mean 'lang'"):
        index.search("w1", filter={"not": {"not": {"langs": "fr"}}})
    assert index.search("w1", filter={"id": "unknown"}) == []
    assert index.search("w1", filter={"lang": "xx"}) == []


def test_fields_as_frequent_as_others_are_named_in_the_order_of_the_alphabet(index: Index) -> None:
    """Engines hand documents out in no particular order, which must not show."""
    assert index.fields()[:4] == ["path", "author", "lang", "year"]


@pytest.mark.parametrize(
    "where",
    [
        {"langs": {"not": "fr"}},
        {"not": {"langs": "fr"}},
        {"langs": {"exists": False}},
        {"or": [{"langs": "fr"}, {"lang": "fr"}]},
        {"lang": "fr", "and": [{"or": [{"not": {"langs": "x"}}]}]},
    ],
)
def test_a_misspelt_field_that_documents_may_lack_is_said_once_beside_the_hits(
    index: Index, where: dict[str, Any]
) -> None:
    with pytest.warns(FilterWarning, match="no document has the field 'langs'; did you mean 'lang'"):
        assert index.search("w1", filter=where)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert index.search("w1", filter=where)
        assert index.search("w1", filter={"lang": {"not": "fr"}})
