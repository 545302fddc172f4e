"""Files and folders of every format are read as documents and translations."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from triptych.errors import DataError
from triptych.tools.pairs.base import Block, Link, StructuredDocument, Translations
from triptych.tools.pairs.reading import MinedFile, Origin, mined_files, read_minable


def read(path: Path, origin: Origin | None = None) -> list[Any]:
    return [found for file in mined_files(path) for found in read_minable(file, origin)]


def write(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n\n" for record in records), encoding="utf-8")
    return path


def test_a_folder_is_read_in_order_and_unknown_endings_are_told(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.html", "a/page.txt.gz", "picture.png", ".hidden.md"):
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(b"Text of it.") if name.endswith("gz") else b"Text of it.")
    skipped: list[tuple[str, str]] = []
    files = mined_files(tmp_path / "docs", lambda path, reason: skipped.append((path.name, reason)))
    assert [file.path.name for file in files] == ["b.md", "page.txt.gz", "z.html"]
    assert skipped == [(".hidden.md", "hidden"), ("picture.png", "unknown kind")]
    documents = [found for file in files for found in read_minable(file)]
    assert [(d.source, d.key) for d in documents] == [("docs", "b"), ("docs", "a/page"), ("docs", "a/z")]
    assert {d.blocks for d in documents} == {(Block(0, "", "Text of it."),)}
    assert not any(d.aligned for d in documents)


@pytest.mark.parametrize(
    ("name", "key", "lang"),
    [
        ("de/guide/pot.md", "guide/pot", "de"),
        ("guide/pt-BR/pot.html", "guide/pot", "pt-BR"),
        ("guide/pot.zh_CN.md", "guide/pot", "zh_CN"),
        ("doc/pot.v2.md", "doc/pot.v2", ""),
        ("guide/pot.md", "guide/pot", ""),
    ],
)
def test_paths_may_say_the_language(name: str, key: str, lang: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[b](../x/other.md) text")
    (found,) = read(tmp_path, Origin(source="s", languages_in_paths=True))
    assert (found.source, found.key, found.lang) == ("s", key, lang)
    (plain,) = read(tmp_path, Origin(lang="xx", license="MIT"))
    assert (plain.key, plain.lang, plain.license) == (name.rsplit(".", 1)[0], "xx", "MIT")


def test_links_lead_to_keys_and_those_to_elsewhere_are_left_out(tmp_path: Path) -> None:
    page = tmp_path / "r" / "de" / "a" / "pot.html"
    page.parent.mkdir(parents=True)
    targets = (
        "cup.html#x",
        "../b/my%20tea.html?q",
        "https://x.org/y",
        "#top",
        "pot.html",
        "/abs",
        "mailto:a@b",
        "//[",
    )
    page.write_text("".join(f'<p><a href="{target}">w</a></p>' for target in targets))
    (found,) = read(tmp_path / "r", Origin(languages_in_paths=True))
    assert found.links == (Link("w", "a/cup"), Link("w", "b/my tea"))


def test_json_lines_of_all_forms_are_read(tmp_path: Path) -> None:
    sections = [
        {"heading": "H", "paragraphs": ["one", "two"], "sections": [{"title": "Sub", "text": "three"}]},
        {"text": "four"},
    ]
    path = write(
        tmp_path / "set.jsonl",
        {"source": "s", "key": "k", "lang": "de", "title": "T", "blocks": [[4, "", "x"]]},
        {"id": 7, "title": "T", "language": "fr", "sections": sections, "keywords": "a,b", "summary": "sum"},
        {"_id": "x", "title": "Long", "text": "First paragraph.\n\nSecond one."},
        {"translation": {"de": "eins", "en": "one"}},
        {"key": "t", "kind": "term", "translations": {"de": "Haus", "en": ["house"]}},
    )
    structured, nested, plain, sentence, term = read(path)
    assert structured == StructuredDocument("s", "k", "de", "T", (Block(4, "", "x"),))
    assert [tuple(block) for block in nested.blocks] == [
        (0, "h1", "H"),
        (1, "", "one"),
        (2, "", "two"),
        (3, "h2", "Sub"),
        (4, "", "three"),
        (5, "", "four"),
    ]
    assert (nested.source, nested.key, nested.lang, nested.title) == ("set", "7", "fr", "T")
    assert (nested.keywords, nested.description) == (("a", "b"), "sum")
    assert (plain.key, plain.title, len(plain.blocks)) == ("x", "Long", 2)
    assert sentence == Translations("set", "7", "sentence", {"de": ("eins",), "en": ("one",)})
    assert term == Translations("set", "t", "term", {"de": ("Haus",), "en": ("house",)})


def test_a_table_named_by_languages_holds_sentences_and_any_other_documents(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("de\ten\tpt-BR\neins\tone\tum\nzwei\ttwo\t\n", encoding="utf-8")
    assert read(path) == [
        Translations("t", "2", "sentence", {"de": ("eins",), "en": ("one",), "pt-BR": ("um",)}),
        Translations("t", "3", "sentence", {"de": ("zwei",), "en": ("two",)}),
    ]
    path.write_text("id\ttext\n1\tsome text\n", encoding="utf-8")
    assert [(d.key, d.blocks[0].text) for d in read(path)] == [("1", "some text")]
    path = tmp_path / "t.csv"
    path.write_text('en,fr\n"one, more","un, plus"\n', encoding="utf-8")
    assert read(path)[0].texts == {"en": ("one, more",), "fr": ("un, plus",)}
    path.write_text("", encoding="utf-8")
    assert read(path) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"x": 1}', r"a\.jsonl:1: no field 'text'"),
        ("a.jsonl", "[]", r"a\.jsonl:1: got an array"),
        ("a.jsonl", '{"title": "t", "sections": {}}', r"a\.jsonl:1: field 'sections'"),
        ("a.jsonl", '{"sections": ["x"]}', "expected objects with heading and text"),
        ("a.jsonl", '{"sections": [{"heading": 1}]}', "a section's heading is 1"),
        ("a.jsonl", '{"sections": [{"text": [1]}]}', "a section's text"),
        ("a.jsonl", '{"translation": 3}', "'translations' is 3"),
        ("a.tsv", "de\ten\neins", r"a\.tsv:2: got 1 columns; expected 2"),
        ("a.pdf", "x", r"a\.pdf: unknown ending"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="standard input cannot be read twice"):
        mined_files("-")
    with pytest.raises(DataError, match="no such file"):
        mined_files(tmp_path / "none")
    with pytest.raises(DataError, match="no file to read"):
        mined_files([tmp_path])
    (tmp_path / "bad.txt").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"bad\.txt:1: byte 0xff"):
        read(tmp_path)
    assert mined_files(tmp_path / "bad.txt") == [MinedFile(tmp_path / "bad.txt", tmp_path / "bad.txt")]
