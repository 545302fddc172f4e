"""Bad input is refused with an error that says what came and what was expected, and nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder

from triptych.errors import InputError
from triptych.index.filters import Filter
from triptych.index.index import Index
from triptych.types import HeadWeights


@pytest.fixture
def index(new_index: Callable[..., Index], encoder: FakeEncoder) -> Iterator[Index]:
    made = new_index("exact", encoder)
    made.add(["there"], ["w1 w2"])
    yield made
    assert list(made.ids) == ["there"]


DEEP: list[Any] = []
DEEP.append(DEEP)


@pytest.mark.parametrize(
    ("ids", "texts", "metadata", "message"),
    [
        (["a", "b", "a"], ["1", "2", "3"], None, "'a' twice"),
        (["a"], ["1", "2"], None, "1 ids, 2 texts"),
        (["a"], ["1"], [{}, {}], "2 metadata"),
        (["a", 1], ["1", "2"], None, "got the id 1; expected a string"),
        ([""], ["1"], None, "got the id ''"),
        (["\ud800"], ["1"], None, "no valid Unicode"),
        ("ab", ["1", "2"], None, "the string 'ab' for ids"),
        (["a", "b"], "xy", None, "the string 'xy' for texts"),
        (["a"], [b"x"], None, "text of document 'a': got bytes"),
        (["a"], ["x\udcff"], None, "text of document 'a'.*no valid Unicode"),
        (["a"], ["x"], [["lang"]], "metadata of document 'a': got list"),
        (["a"], ["x"], [{"x": {1, 2}}], "JSON cannot hold"),
        (["a"], ["x"], [{"x": float("nan")}], "JSON cannot hold"),
        (["a"], ["x"], [{1: "x"}], "the key 1"),
        (["a"], ["x"], [{"x": [{2: 3}]}], "the key 2"),
        (["a"], ["x"], [{"x": "\ud800"}], "JSON cannot hold"),
        (["a"], ["x"], [{"x": 2**64}], "64 bits"),
        (["a"], ["x"], [{"x": DEEP}], "JSON cannot hold"),
    ],
)
def test_documents_that_cannot_be_stored_are_refused(
    index: Index, ids: Any, texts: Any, metadata: Any, message: str
) -> None:
    with pytest.raises(InputError, match=f"(?s)add.*{message}"):
        index.add(ids, texts, metadata)


def test_one_bad_document_keeps_those_before_it_out_too(index: Index) -> None:
    with pytest.raises(InputError):
        index.add(["a", "b", "c"], ["1", "2", "3"], [{}, {}, {"x": object()}], block=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0; expected an integer ≥ 1"),
        ({"k": -1}, "k=-1"),
        ({"k": 2.5}, "k=2.5"),
        ({"k": True}, "k=True"),
        ({"candidates": 0}, "candidates=0"),
        ({"routes": ("dense", "spares")}, "expected one or more of dense, lexical, multi"),
        ({"routes": ()}, "expected one or more of"),
        ({"weights": (1, 1)}, "expected three finite numbers"),
        ({"weights": (1, -1, 0)}, "expected three finite numbers"),
        ({"weights": {"colbart": 1}}, "expected one or more of"),
        ({"protocol": "fast"}, "expected one of 'exact', 'paper'"),
        ({"filter": "fr"}, "expected a mapping"),
        ({"filters": {}}, r"options \['filters'\]; expected some of weights"),
    ],
)
def test_searches_that_cannot_be_done_are_refused(index: Index, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        index.search("w1", **options)


@pytest.mark.parametrize("query", ["", "  \n", ["w1", ""], [1], ["\ud800"]])
def test_empty_and_wrong_queries_are_refused(index: Index, query: Any) -> None:
    with pytest.raises(InputError, match="query"):
        index.search(query)


def test_heads_that_the_index_lacks_are_refused_by_name(
    new_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    index = new_index("exact", encoder, multi=None)
    with pytest.raises(InputError, match="the index has no multi vectors"):
        index.search("w1", weights=HeadWeights(1, 0.3, 1))
    with pytest.raises(InputError, match="route 'multi', but the index has no such vectors"):
        index.search("w1", routes=("multi",))
    binary = new_index("edge", encoder, multi="binary")
    with pytest.raises(InputError, match="of so few bits only re-rank here"):
        binary.search("w1", routes=("multi",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"multi": "int4"},
            "'int4'; expected one of 'float32', 'float16', 'int8', '4bit', '2bit', '1bit', 'binary', 'none'",
        ),
        ({"dense": "int8"}, "expected one of 'float32', 'float16'"),
        ({"coarse": "1bit"}, "'1bit'"),
        ({"exact_below": -1}, "exact_below"),
        ({"ef": 0}, "ef"),
        ({"ef": True}, "ef"),
        ({"efs": 3}, r"\['efs'\]; expected some of multi"),
        ({"engine": "faiss"}, "'faiss'; expected one of 'auto'"),
        ({"engine": "server"}, "expected a URL"),
    ],
)
def test_options_that_do_not_exist_are_refused(
    tmp_path: Path, encoder: FakeEncoder, options: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Index.create(tmp_path / "an.index", encoder, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_embedded_engine_at_an_address_is_refused(encoder: FakeEncoder) -> None:
    with pytest.raises(InputError, match="expected a folder"):
        Index.create("http://localhost/name", encoder, engine="edge")


def test_what_cannot_be_recalled_at_all_is_refused_when_the_index_is_made(tmp_path: Path) -> None:
    only = FakeEncoder(heads=("multi",))
    for multi, message in ((None, "no head that would be stored"), ("binary", "only re-rank")):
        with pytest.raises(InputError, match=message):
            Index.create(tmp_path / "an.index", only, multi=multi)  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [0, -1, True])
def test_a_block_has_at_least_one_document(index: Index, block: int) -> None:
    with pytest.raises(InputError, match="block"):
        index.add(["a"], ["w1"], block=block)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({1: "x"}, "the key 1"),
        ({"": "x"}, "the key ''"),
        ({"a..b": "x"}, "the key"),
        ({'a"b': "x"}, "the key"),
        ({"a[0]": "x"}, "the key"),
        ({"a": None}, "None; expected a string, number"),
        ({"a": []}, "at least one"),
        ({"a": ["x", None]}, "None"),
        ({"a": float("nan")}, "nan"),
        ({"a": {}}, "expected one or more of gte"),
        ({"a": {"above": 3}}, "'above'"),
        ({"a": {"gte": "soon"}}, "'soon'"),
        ({"a": {"gte": True}}, "True"),
        ({"a": {"gte": 1, "lt": "2024-01-01"}}, "all numbers, or all ISO"),
        ({"a": object()}, "object"),
    ],
)
def test_filters_that_mean_nothing_are_refused(where: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Filter.of(where)


def test_a_filter_is_taken_as_it_is() -> None:
    found = Filter.of({"a": "x"})
    assert Filter.of(found) is found
    assert Filter.of(None) is Filter.of({}) is None


@pytest.mark.parametrize("method", ["delete", "get"])
def test_ids_are_lists_of_strings(index: Index, method: str) -> None:
    for ids in ("there", [1], [None]):
        with pytest.raises(InputError, match=method):
            getattr(index, method)(ids)
