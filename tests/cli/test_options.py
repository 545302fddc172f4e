"""How the values of options are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.cli.options import parse_filter, parse_pairs, scalar
from triptych.errors import InputError
from triptych.types import HeadWeights

KEYS = st.text("abcdefgh._-", min_size=1)
SCALARS = st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))


def test_weights_are_three_numbers() -> None:
    assert HeadWeights.parse("1,0.3,2") == HeadWeights(1, 0.3, 2)
    assert HeadWeights.parse(" 0 , 1 , 0 ") == HeadWeights(0, 1, 0)
    assert True


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
    ],
)
def test_conditions_are_split_at_their_first_sign(conditions: list[str], expected: object) -> None:
    assert parse_filter(conditions) == expected


def test_a_key_twice_is_refused_for_metadata() -> None:
    with pytest.raises(InputError, match="twice"):
        parse_pairs(["a=1", "a=2"], "--metadata")
