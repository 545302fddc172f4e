"""The JSON form of documents and translations is read back as it was written, and mistakes are named."""

import json
from typing import Any

import pytest

from triptych.errors import DataError
from triptych.records import Place
from triptych.tools.pairs.base import Block, Link, StructuredDocument, Translations, parse, to_line

PLACE = Place("f.jsonl", 3)
DOCUMENT = {
    "source": "s",
    "key": "k",
    "lang": "de",
    "title": "T",
    "blocks": [[0, "h1", "H"], [0, "", "text"]],
}


@pytest.mark.parametrize(
    "value",
    [
        StructuredDocument("s", "k", "de", "T", (Block(0, "h1", "H"), Block(0, "", "ü"))),
        StructuredDocument(
            "s", "k", "", "", (), ("a", "b"), "about", (Link("here", "other"),), "MIT", aligned=False
        ),
        Translations("s", "k", "sentence", {"de": ("eins",), "en": ("one",)}),
        Translations("s", "k", "term", {"de": ("Haus", "Heim"), "en": ("house",)}, "CC0-1.0"),
    ],
)
def test_what_is_written_is_read_back(value: StructuredDocument | Translations) -> None:
    line = to_line(value)
    assert line.count("\n") == 1
    assert parse(json.loads(line), PLACE) == value


def test_only_source_key_and_blocks_are_needed() -> None:
    read = parse({"source": "s", "key": "k", "blocks": [], "other": 1}, PLACE)
    assert read == StructuredDocument("s", "k", "", "", ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": None}, "'source' is missing"),
        ({"key": ""}, "'key' is ''"),
        ({"title": 3}, "'title' is 3"),
        ({"blocks": None}, "'blocks' is missing"),
        ({"blocks": [["h1", "text"]]}, r"expected \[number, kind, text\]"),
        ({"blocks": [[True, "h1", "text"]]}, r"expected \[number, kind, text\]"),
        ({"keywords": ["a", 1]}, "'keywords' has 1"),
        ({"keywords": "a"}, "'keywords' is 'a'; expected a list"),
        ({"links": [["a"]]}, r"expected \[text, target\]"),
        ({"aligned": 1}, "expected true or false"),
        ({"translations": {"de": "x"}}, "'kind' is None; expected one of sentence, term"),
        ({"translations": [], "kind": "term"}, "expected an object"),
        ({"translations": {"de": ["x", 2]}, "kind": "term"}, "'translations.de' has 2"),
    ],
)
def test_a_mistake_is_named_with_its_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=r"f\.jsonl:3: .*" + message):
        parse(DOCUMENT | change, PLACE)


def test_the_older_spelling_of_license_is_read() -> None:
    document = {"source": "s", "key": "k", "blocks": []}
    translations = {"source": "s", "key": "k", "kind": "term", "translations": {}}
    for record in (document, translations):
        for name in ("license", "licence"):
            assert parse({**record, name: "MIT"}, Place("f", 1)).license == "MIT"
