"""Files made to hurt, and strange files in a folder: refused at once by a limit that names itself, or skipped."""

import gzip
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from triptych import io as files
from triptych.documents import read_documents, read_queries
from triptych.errors import DataError
from triptych.files.listing import walk
from triptych.io import open_source, printable, read_lines
from triptych.markup import plain_html, plain_markdown


class Endless(io.RawIOBase):
    """A device: the same bytes for ever; counts what was read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[: len(buffer)] = (self._data * (len(buffer) // len(self._data) + 1))[: len(buffer)]
        self.count += len(buffer)
        return len(buffer)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/full"])
def test_a_device_is_refused_by_the_limit_on_a_line(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 1 << 20)
    with pytest.raises(DataError, match=rf"{path}:1: a line of more than 1 MiB, the limit"):
        list(read_documents(path, format="jsonl"))


@pytest.mark.parametrize("format", ["jsonl", "lines", "tsv", "csv", "text", "markdown", "html"])
def test_an_endless_line_on_standard_input_is_refused(format: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 1 << 20)
    endless = Endless(b'{"text": "')
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": io.BufferedReader(endless)})())
    with pytest.raises(DataError, match=r"-:1: a line of more than 1 MiB"):
        list(read_documents("-", format=format))
    assert endless.count < 1 << 23


def test_an_endless_text_that_is_one_document_and_a_quote_never_closed_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "MAX_TEXT", 1 << 20)
    monkeypatch.setattr("triptych.records.MAX_LINE", 1 << 20)
    for format, data, message in (
        ("text", b"y\n", "a text of more than 1 MiB"),
        ("html", b"<p>y\n", "a text of more than 1 MiB"),
        ("csv", b'id,text\n1,"a\nb\nc\n', "a row of more than 1 MiB; is a quote never closed"),
    ):
        endless: Any = Endless(data)
        if format == "csv":
            endless = io.BytesIO(b'id,text\n1,"a\n' + b"b\n" * (1 << 20))
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": io.BufferedReader(endless)})())
        with pytest.raises(DataError, match=message):
            list(read_documents("-", format=format))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.txt.gz"])
def test_an_archive_out_of_all_proportion_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FREE_SIZE", 1 << 20)
    monkeypatch.setattr(files, "MAX_RATIO", 100)
    pack: Callable[[bytes], bytes] = gzip.compress if name.endswith(".gz") else zstandard.compress
    (tmp_path / name).write_bytes(pack(b'{"text": "x"}\n' * 1_000_000))
    with pytest.raises(
        DataError, match=rf"{name}: expands to more than 100 times its size, .* decompress it first"
    ):
        list(read_lines_of(tmp_path / name))
    (tmp_path / name).write_bytes(pack(b"x\n" * 200_000))  # small: whatever its proportion
    assert sum(1 for _ in read_lines_of(tmp_path / name)) == 200_000
    words = b"\n".join(str(i).encode() for i in range(300_000))  # large, of an ordinary proportion
    (tmp_path / name).write_bytes(pack(words))
    assert sum(1 for _ in read_lines_of(tmp_path / name)) == 300_000


def read_lines_of(path: Path) -> Any:
    with open_source(path) as source:
        yield from read_lines(source)


def test_pipes_devices_and_dead_links_in_a_folder_are_skipped_and_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    os.mkfifo(tmp_path / "b.txt")
    (tmp_path / "c.txt").symlink_to("/dev/zero")
    (tmp_path / "d.txt").symlink_to(tmp_path / "nothing")
    (tmp_path / "e.bin").write_text("x")
    skipped: list[tuple[str, str]] = []
    documents = read_documents(tmp_path, on_skip=lambda path, reason: skipped.append((path.name, reason)))
    assert [document.text for document in documents] == ["good"]
    assert skipped == [
        *((name, "no regular file") for name in ("b.txt", "c.txt", "d.txt")),
        ("e.bin", "unknown kind"),
    ]


def test_a_name_that_is_not_utf8_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    bad.write_text("named")
    skipped: list[tuple[Path, str]] = []
    documents = read_documents(tmp_path, on_skip=lambda *what: skipped.append(what))
    assert [document.text for document in documents] == ["good"]
    assert skipped == [(bad, "no UTF-8 name")]
    assert printable(bad.name) == "caf\\xe9.txt"
    assert list(walk(tmp_path)) == [tmp_path / "a.txt"]
    [document] = read_documents(bad)  # named by itself, it is read
    assert document.id == "caf\\xe9.txt"
    bad.write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"caf\\xe9\.txt:1: byte 0xff"):
        list(read_documents(bad))


def test_a_text_that_is_not_utf8_ends_the_reading_or_is_left_out(tmp_path: Path) -> None:
    for name, data in (
        ("a.txt", b"one"),
        ("b.txt", "\xe9t\xe9".encode("latin-1")),
        ("c.jsonl", b'{"text": "two"}\n{'),
    ):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=r"b\.txt:1: byte 0xe9"):
        list(read_documents(tmp_path))
    errors: list[DataError] = []
    assert [document.text for document in read_documents(tmp_path, on_error=errors.append)] == ["one", "two"]
    assert [Path(str(error.path)).name for error in errors] == ["b.txt", "c.jsonl"]
    with pytest.raises(DataError):  # a file that was named is not left out
        list(read_documents(tmp_path / "b.txt", on_error=errors.append))


DEEP = 200_000


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<div>" * DEEP + "x" + "</div>" * DEEP, "x"),
        ("<div/>" * DEEP + "x", "x"),
        ("<b>" * DEEP + "x", "x"),
        ("<table><tr><td>" * DEEP + "x", "x"),
        ("<svg>" + "<g>" * DEEP + "</svg>after", "after"),
        ("<select>" + "<option>x" * DEEP + "</select>after", "after"),
        ("<i id=1>" + "".join(f"<p><b id={i}>x" for i in range(20_000)), "\n\n".join(["x"] * 20_000)),
        ("<div " + " ".join(f"a{i}=1" for i in range(100_000)) + ">x", "x"),
    ],
    ids=["div", "slash", "b", "table", "svg", "option", "formats", "attributes"],
)
def test_html_nested_without_end_is_read_at_once(html: str, text: str) -> None:
    start = time.monotonic()
    assert plain_html(html).text == text
    assert time.monotonic() - start < 20
    if len(html) < 1 << 22:
        assert plain_markdown(f"<div>{html}</div>").text.strip().endswith(text)


def test_a_page_with_many_elements_is_read_as_before() -> None:
    rows = "".join(f"<tr><td>{i}<td><b>b{i}</b> <i>i</i></tr>" for i in range(2000))
    svg = "<svg>" + "<path d='x'/>" * 2000 + "</svg>"
    html = f"<ul>{'<li>item' * 1500}</ul>{svg}<table>{rows}</table><div><p>one<p>two</div><pre>a  b</pre>"
    lines = plain_html(html).text.split("\n")
    assert lines[:2] == ["item", "item"]
    assert lines[1500:1503] == ["", "0 b0 i", "1 b1 i"]
    assert lines[-5:] == ["one", "", "two", "", "a  b"]


def test_a_whole_number_of_5000_digits_names_its_field(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "year": 1, "price": ' + "9" * 5000 + "}")
    with pytest.raises(
        DataError, match=r"a\.jsonl:1: .*a whole number of field 'price' has more digits than"
    ):
        list(read_documents(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("value", ["[" * 100_000, '{"a":' * 100_000])
def test_json_nested_too_deeply_is_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "m": ' + value)
    with pytest.raises(DataError, match="nested too deeply"):
        list(read_documents(tmp_path / "a.jsonl"))


def test_json_over_several_lines_says_so(tmp_path: Path) -> None:
    for name in ("a.jsonl", "q.jsonl"):
        (tmp_path / name).write_text(json.dumps([{"text": "x"}], indent=1))
        with pytest.raises(DataError, match=r"jsonl:1: broken JSON: .*one JSON value over several lines"):
            list(read_documents(tmp_path / name) if name == "a.jsonl" else read_queries(tmp_path / name))
