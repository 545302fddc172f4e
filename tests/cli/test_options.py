"""How the values of options are read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.cli.options import parse_filter, parse_pairs, scalar
from triptych.errors import InputError
from triptych.index.filters import Filter
from triptych.types import HeadWeights

KEYS = st.text("abcdefgh._-", min_size=1)
SCALARS = st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))


def test_weights_are_three_numbers() -> None:
    assert HeadWeights.parse("1,0.3,2") == HeadWeights(1, 0.3, 2)
    assert HeadWeights.parse(" 0 , 1 , 0 ") == HeadWeights(0, 1, 0)


@given(KEYS, SCALARS)
def test_json_scalars_keep_their_type(key: str, value: float | bool) -> None:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    found = parse_pairs([f"{key}={text}"], "--metadata")[key]
    assert (type(found), found) == (type(value), value)


@given(KEYS, st.text("xyz äß=,<>", min_size=1).map(lambda text: "x" + text))
def test_other_values_are_strings_whatever_they_hold(key: str, value: str) -> None:
    assert parse_pairs([f"{key}={value}"], "--metadata") == {key: value}


def test_a_number_in_quotes_is_a_string() -> None:
    assert scalar('"2020"') == "2020"
    assert scalar("2020") == 2020
    assert scalar("[1]") == "[1]"
    assert scalar("null") == "null"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], None),
        (["lang=fr"], {"lang": ["fr"]}),
        (["lang=fr", "lang=de", "n=1"], {"lang": ["fr", "de"], "n": [1]}),
        (["y>=1", "y<3"], {"y": {"gte": 1, "lt": 3}}),
        (["y>1", "y<=3"], {"y": {"gt": 1, "lte": 3}}),
        (["url=a>=b"], {"url": ["a>=b"]}),
        (["day>=2024-01-01"], {"day": {"gte": "2024-01-01"}}),
        (["lang!=fr"], {"lang": {"not": ["fr"]}}),
        (["lang!=fr", "lang!=de|2"], {"lang": {"not": ["fr", "de", 2]}}),
        (["path^=docs/", "path^=1"], {"path": {"prefix": ["docs/", "1"]}}),
        (["author?", "page!?"], {"author": {"exists": True}, "page": {"exists": False}}),
        (["lang=en|de", "lang=fr"], {"lang": ["en", "de", "fr"]}),
        (['lang="a|b"'], {"lang": ["a|b"]}),
        (["y>=1", "y=5", "y!=3"], {"y": {"gte": 1, "in": [5], "not": [3]}}),
        (["id=007|8", 'id!="x"'], {"id": {"in": ["007", "8"], "not": ["x"]}}),
        (["url=what?"], {"url": ["what?"]}),
    ],
)
def test_conditions_are_split_at_their_first_sign(conditions: list[str], expected: Any) -> None:
    assert parse_filter(conditions) == expected
    assert (Filter.of(expected) is None) == (not conditions)


def test_a_filter_as_json_joins_the_conditions() -> None:
    either = {"or": [{"lang": "fr"}, {"year": 2020}]}
    assert parse_filter([], json.dumps(either)) == either
    assert parse_filter(["a=1"], json.dumps(either)) == {"and": [{"a": [1]}, either]}
    assert parse_filter(["a=1"], "{}") == {"a": [1]}
    assert parse_filter([], "{}") is None
    for text in ("[1]", "lang=fr", "[" * 100_000):
        with pytest.raises(InputError, match=r"--filter-json: got .*expected a"):
            parse_filter([], text)


@pytest.mark.parametrize("condition", ["", "x", "=fr", "?", "!?", "^=x", "!=fr"])
def test_what_is_no_condition_is_refused(condition: str) -> None:
    with pytest.raises(InputError, match=r"--filter: got .*expected key=value"):
        parse_filter([condition])


def test_a_key_twice_is_refused_for_metadata() -> None:
    with pytest.raises(InputError, match="twice"):
        parse_pairs(["a=1", "a=2"], "--metadata")
