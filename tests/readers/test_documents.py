"""Readers of documents: every format, where ids come from, and what they refuse."""

import csv
import gzip
import io
import json
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triptych.documents import FORMATS, format_of, read_documents, read_queries
from triptych.errors import DataError, InputError
from triptych.records import Document, Fields, Query, Section, parse_cell

BEIR = [
    {
        "_id": "4983",
        "title": "Microstructural development",
        "text": "Alterations of the architecture.",
        "metadata": {},
    },
    {
        "_id": "5836",
        "title": "",
        "text": "Myelodysplastic syndromes.",
        "metadata": {"url": "https://x.org", "n": 3},
    },
]
Put = Callable[[str, bytes | str], Path]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Writes a file below the working folder and gives its relative path."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: bytes | str) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def jsonl(*records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


ABOUT = ("path", "name", "ending", "size", "modified")


def read(*paths: Path | str, **options: Any) -> list[Document]:
    """The documents without what is known of their files from outside."""
    return [
        replace(d, metadata={key: value for key, value in d.metadata.items() if key not in ABOUT})
        for d in read_documents(list(paths), **options)
    ]


def feed_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))


def test_a_beir_corpus_just_works(put: Put) -> None:
    path = put("corpus.jsonl", jsonl(*BEIR))
    first, second = read_documents(path)
    assert first == Document("4983", "Alterations of the architecture.", "Microstructural development", {})
    assert first.content == "Microstructural development\nAlterations of the architecture."
    assert second == Document("5836", "Myelodysplastic syndromes.", None, {"url": "https://x.org", "n": 3})
    assert second.content == "Myelodysplastic syndromes."


def test_plain_gzip_and_zstandard_give_the_same_records(put: Put) -> None:
    data = jsonl(*BEIR, *({"id": str(i), "text": "ä" * i} for i in range(3000))).encode()
    half = len(data) // 2
    frames = b"".join(zstandard.compress(part) for part in (data[:half], data[half:]))
    paths = [
        put("a.jsonl", data),
        put("a.jsonl.gz", gzip.compress(data[:half]) + gzip.compress(data[half:])),
        put("a.jsonl.zst", zstandard.compress(data)),
        put("b.jsonl.zst", frames),
        put("gzip-with-a-wrong-ending.jsonl", gzip.compress(data)),
    ]
    plain, *others = [read(path) for path in paths]
    assert len(plain) == 3002
    assert all(other == plain for other in others)


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_cut_off_archive_is_an_error(put: Put, ending: str) -> None:
    data = os.urandom(3000).hex().encode()
    whole = gzip.compress(data) if ending == "gz" else zstandard.compress(data)
    path = put(f"a.txt.{ending}", whole[:-7])
    with pytest.raises(DataError, match=rf"a\.txt\.{ending}: broken compressed file"):
        read(path)
    assert read(put(f"b.txt.{ending}", whole))[0].text == data.decode()


def test_bytes_after_an_archive_are_an_error(put: Put) -> None:
    for path in (
        put("a.txt.gz", gzip.compress(b"x") + b"junk"),
        put("a.txt.zst", zstandard.compress(b"x") + b"junk"),
    ):
        with pytest.raises(DataError, match="broken compressed file"):
            read(path)


def test_a_zst_ending_with_other_content_is_an_error(put: Put) -> None:
    with pytest.raises(DataError, match=r"a\.txt\.zst: broken compressed file"):
        read(put("a.txt.zst", b"plain words"))


def test_missing_ids_are_made_of_path_and_line(put: Put) -> None:
    path = put("d/a.jsonl", '{"text": "x"}\n\n{"id": null, "text": "y"}\n{"id": 7, "text": "z"}\n')
    for spelling in (path, path.resolve(), "d", "./d", Path("d").resolve(), "d/../d/"):
        assert [d.id for d in read(spelling)] == ["a.jsonl:1", "a.jsonl:3", "7"]


def test_field_names_can_be_chosen(put: Put) -> None:
    path = put("a.jsonl", jsonl({"nr": "1", "text": "other", "passage": "this", "name": "N"}))
    fields = Fields.of("nr", "passage", "name")
    assert read(path, fields=fields) == [Document("1", "this", "N", {"text": "other"})]
    with pytest.raises(DataError, match="no field 'absent'; the record has 'nr', 'text', 'passage', 'name'"):
        read(path, fields=Fields.of(None, "absent"))


@pytest.mark.parametrize("name", ["text", "contents", "body"])
def test_usual_names_of_the_text_are_known(put: Put, name: str) -> None:
    assert read(put("a.jsonl", jsonl({"id": "1", name: "x"}))) == [Document("1", "x")]


def test_metadata_entries_join_the_other_fields_unless_they_contradict(put: Put) -> None:
    record = {"id": "1", "text": "x", "lang": "fr", "metadata": {"lang": "fr", "year": 2020}}
    assert read(put("a.jsonl", jsonl(record)))[0].metadata == {"lang": "fr", "year": 2020}
    record["metadata"] = {"lang": "de"}
    with pytest.raises(DataError, match="contradict"):
        read(put("b.jsonl", jsonl(record)))
    record["metadata"] = "a string"
    assert read(put("c.jsonl", jsonl(record)))[0].metadata == {"lang": "fr", "metadata": "a string"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "1", "text": }', "broken JSON: Expecting value at column 21"),
        ('["a"]', "got an array; expected one JSON object a line"),
        ('"a"', "got a string; expected"),
        ("12", "got the number 12; expected"),
        ("null", "got null; expected"),
        ("{}", "; the record has no fields"),
        ('{"id": "1", "text": null}', "field 'text' is null; expected a string"),
        ('{"id": "1", "text": ["x"]}', "field 'text' is an array; expected a string"),
        ('{"id": "1", "text": "x", "title": 3}', "field 'title' is the number 3; expected a string or null"),
        ('{"id": 1.5, "text": "x"}', "field 'id' is the number 1.5; expected a string or a whole number"),
        ('{"id": true, "text": "x"}', "field 'id' is true or false; expected"),
        ('{"id": "", "text": "x"}', "field 'id' is empty"),
        ('{"id": "1", "text": "x", "n": NaN}', "broken JSON: NaN is not JSON"),
        ('{"id": "1", "text": "\\ud800"}', "without its partner"),
        ('{"id": "1", "text": "x", "m": ["\\udc00"]}', "without its partner"),
        ('{"id": "1", "text": "x", "n": ' + "9" * 5000 + "}", "broken JSON"),
        ('{"id": "1", "text": "x", "n": ' + "[" * 100000, "nested too deeply"),
        ('{"id": "0", "text": "again"}', "duplicate id '0'"),
    ],
)
def test_a_bad_json_line_is_an_error_with_file_and_line(put: Put, line: str, message: str) -> None:
    path = put("a.jsonl", '{"id": "0", "text": "good"}\n\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith("a.jsonl:3: ")
    assert message in str(caught.value)
    assert (caught.value.path, caught.value.line) == ("a.jsonl", 3)


def test_records_before_a_bad_line_come_out_first(put: Put) -> None:
    documents = read_documents(put("a.jsonl", '{"id": "0", "text": "good"}\nbad\n'))
    assert next(documents).id == "0"
    with pytest.raises(DataError):
        next(documents)


def test_ids_must_differ_over_all_files_read_together(put: Put) -> None:
    paths = [put("a.jsonl", jsonl({"id": 1, "text": "x"})), put("b.tsv", "1\ty\n")]
    with pytest.raises(DataError, match=r"b\.tsv:1: duplicate id '1'"):
        read(*paths)


def test_a_whole_surrogate_pair_in_escapes_is_a_character(put: Put) -> None:
    assert read(put("a.jsonl", '{"id": "1", "text": "\\ud83d\\ude00"}'))[0].text == "😀"


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.tsv", "a.csv", "a.txt", "a.md", "a.html", "a.jsonl.gz", "a.jsonl.zst"]
)
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\r\n", b"  \n"])
def test_a_file_without_text_gives_no_documents(put: Put, name: str, content: bytes) -> None:
    pack = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.split(".")[-1], bytes)
    assert read(put(name, pack(content))) == []


def test_an_empty_file_with_a_compressed_ending_gives_no_documents(put: Put) -> None:
    assert read(put("a.jsonl.zst", b""), put("a.jsonl.gz", b"")) == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.csv", "a.txt", "a.md", "a.html"])
def test_byte_order_mark_and_crlf_change_nothing(put: Put, name: str) -> None:
    rows = {
        "a.jsonl": jsonl({"id": "1", "text": "x"}, {"id": "2", "text": "y"}),
        "a.tsv": "id\ttext\n1\tx\n2\ty\n",
        "a.csv": 'id,text\n1,"x\ny"\n2,y\n',
    }
    plain = rows.get(name, "first\n\nsecond\n")
    expected = read(put(name, plain))
    assert expected
    assert read(put(name, b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode())) == expected
    assert read(put(name, plain.removesuffix("\n"))) == expected


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.csv", "a.txt", "a.md", "a.html"])
def test_bytes_that_are_not_utf8_are_an_error_with_line_and_offset(put: Put, name: str) -> None:
    first = b'{"id": "1", "text": "x"}\n' if name == "a.jsonl" else b"x\n"
    path = put(name, first + "ä caf".encode() + b"\xe9\n")
    with pytest.raises(DataError, match=f"{name}:2: byte 0xe9 at offset {len(first) + 6} is not UTF-8"):
        read(path)


def test_utf16_is_named_as_such(put: Put) -> None:
    with pytest.raises(DataError, match=r"a\.txt:1: UTF-16 text; expected UTF-8"):
        read(put("a.txt", "hello".encode("utf-16")))


def test_other_line_separators_of_unicode_end_no_line(put: Put) -> None:
    text = "a\u2028b\x85c\x0cd\x1ce\rf"
    assert read(put("a.jsonl", json.dumps({"id": "1", "text": text}, ensure_ascii=False)))[0].text == text
    assert read(put("a.tsv", f"1\t{text}\n"))[0].text == text
    assert read(put("a.txt", text), format="lines")[0].text == text


def test_a_text_file_is_one_document_or_one_a_line(put: Put) -> None:
    path = put("a.txt", "\nfirst\n\n  second \n")
    assert read(path) == [Document("a.txt", "first\n\n  second")]
    assert read(path, format="lines") == [Document("a.txt:2", "first"), Document("a.txt:4", "second")]


def test_a_folder_is_read_by_endings_in_order_and_the_rest_is_reported(put: Put) -> None:
    put("f/b.txt", "b")
    put("f/a.MD", "# Head\n\nwords")
    put("f/sub/c.html.gz", gzip.compress(b"<title>T</title><p>page"))
    put("f/sub/d.jsonl", jsonl({"id": "d1", "text": "d"}))
    put("f/picture.png", b"\x89PNG")
    put("f/empty.txt", "")
    put("f/.hidden.txt", "no")
    put("f/.git/e.txt", "no")
    Path("f/loop").symlink_to("..", target_is_directory=True)
    skipped: list[tuple[Path, str]] = []
    assert read("f", on_skip=lambda path, reason: skipped.append((path, reason))) == [
        Document("a.MD", "Head\n\nwords", "Head", sections=(Section(0, ("Head",)),)),
        Document("b.txt", "b"),
        Document("sub/c.html.gz", "page", "T"),
        Document("d1", "d"),
    ]
    assert skipped == [
        (Path("f/.git"), "hidden"),
        (Path("f/.hidden.txt"), "hidden"),
        (Path("f/picture.png"), "unknown kind"),
        (Path("f/empty.txt"), "no text"),
    ]
    assert len(read("f")) == 4


def test_a_given_format_holds_for_all_files_of_a_folder(put: Put) -> None:
    put("f/part-0000", jsonl({"id": "1", "text": "x"}))
    put("f/part-0001.txt", jsonl({"id": "2", "text": "y"}))
    assert [d.id for d in read("f", format="jsonl")] == ["1", "2"]


def test_a_named_file_of_unknown_ending_is_an_error_without_a_format(put: Put) -> None:
    path = put("a.xyz", "{}")
    with pytest.raises(DataError, match=r"a\.xyz: unknown ending; expected one of \.jsonl"):
        read(path)


def test_a_missing_file_is_an_error_that_names_it(put: Put) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: cannot be read: No such file"):
        read("absent.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_an_error(put: Put) -> None:
    put("f/g/a.txt", "x")
    Path("f/g").chmod(0)
    try:
        with pytest.raises(DataError, match="f/g: cannot be read: Permission denied"):
            read("f")
    finally:
        Path("f/g").chmod(0o700)


def test_an_unknown_format_is_an_error_at_once() -> None:
    with pytest.raises(InputError, match=r"format 'xml'; expected one of jsonl, tsv"):
        read_documents("a.xml", format="xml")  # pyright: ignore[reportArgumentType]
    names = "a.ndjson.zstd a.TSV a.csv.xz a.text a.htm.bz2 a.md a.json a.rst a.ipynb a.pdf a.docx a.pptx a.epub a.pq"
    assert {format_of(name) for name in (*names.split(), "a.eml", "a.py", "a.odt", "a.xlsx")} == (
        set(FORMATS) - {"lines"}
    )


def test_standard_input_is_json_lines_if_it_begins_with_a_brace(monkeypatch: pytest.MonkeyPatch) -> None:
    feed_stdin(monkeypatch, b'\xef\xbb\xbf \n{"text": "x"}\n{"id": "b", "text": "y"}\n')
    assert read("-") == [Document("-:2", "x"), Document("b", "y")]


def test_standard_input_is_plain_lines_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    feed_stdin(monkeypatch, "één\n\n[twee]\n".encode())
    assert read("-") == [Document("-:1", "één"), Document("-:3", "[twee]")]


def test_standard_input_may_be_compressed_and_have_a_given_format(monkeypatch: pytest.MonkeyPatch) -> None:
    feed_stdin(monkeypatch, gzip.compress(b"<h1>T</h1>x"))
    assert read("-", format="html") == [Document("-", "T\n\nx", "T", sections=(Section(0, ("T",)),))]
    feed_stdin(monkeypatch, zstandard.compress(b'{"id": "1", "text": "x"}'))
    assert read("-") == [Document("1", "x")]
    feed_stdin(monkeypatch, b"")
    assert read("-") == []


def test_a_pipe_that_gives_single_bytes_is_read_whole(put: Put) -> None:
    put("x", "")
    os.mkfifo("pipe")

    def write() -> None:
        with Path("pipe").open("wb", buffering=0) as pipe:
            for byte in b'{"id": "1", "text": "x"}\n':
                pipe.write(bytes([byte]))

    thread = threading.Thread(target=write)
    thread.start()
    assert read("pipe") == [Document("1", "x")]
    thread.join()


def test_a_reader_left_early_closes_its_file(put: Put) -> None:
    documents = read_documents(put("a.jsonl", jsonl(*({"id": i, "text": "x"} for i in range(9)))))
    next(documents)
    documents.close()  # pyright: ignore[reportAttributeAccessIssue]  # a ResourceWarning would fail the test


def test_a_large_file_is_never_held_whole(put: Put) -> None:
    lines = jsonl(*({"text": os.urandom(5000).hex()} for _ in range(3000))).encode()
    path = put("a.jsonl.zst", zstandard.compress(lines))  # 30 MB, in 15
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_documents(path)) == 3000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


# Tables


def test_an_ms_marco_tsv_has_id_and_text_and_quotes_are_characters(put: Put) -> None:
    assert read(put("collection.tsv", '0\tThe "Manhattan Project\n1\tIt\'s "atomic"\n')) == [
        Document("0", 'The "Manhattan Project'),
        Document("1", 'It\'s "atomic"'),
    ]


def test_a_header_names_the_columns_in_any_order(put: Put) -> None:
    expected = [Document("1", "Aaron was a prophet", "Aaron", {"lang": "en"})]
    assert read(put("psgs.tsv", "lang\ttext\tid\ttitle\nen\tAaron was a prophet\t1\tAaron\n")) == expected
    assert read(put("psgs.csv", "lang,text,id,title\nen,Aaron was a prophet,1,Aaron\n")) == expected
    assert read(put("excel.csv", "lang;text;id;title\nen;Aaron was a prophet;1;Aaron\n")) == expected


def test_one_column_is_the_text(put: Put) -> None:
    assert read(put("a.tsv", "x\ny\n")) == [Document("a.tsv:1", "x"), Document("a.tsv:2", "y")]
    assert read(put("a.csv", 'text\n"x, y"\n')) == [Document("a.csv:2", "x, y")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "1\tx\n2\ty\tz\n", "a.tsv:2: got 3 columns; expected 2 (id, text)"),
        ("a.tsv", "1\tx\n2\n", "a.tsv:2: got 1 columns; expected 2"),
        (
            "a.tsv",
            "1\tx\ty\n",
            "a.tsv:1: got 3 columns without a header; expected a header with a column text",
        ),
        ("a.tsv", "id\turl\n1\tx\n", "a.tsv:1: header ['id', 'url'] has no text column"),
        ("a.csv", "id,text,id\n1,x,2\n", "a.csv:1: header ['id', 'text', 'id'] has a name twice"),
        ("a.csv", 'id,text\n1,"x\n2,y\n', "a.csv:2: a quote in this row is never closed"),
        ("a.csv", 'id,text\n1,"x"y\n', "a.csv:2: misplaced quote in column 2"),
        ("a.csv", 'id,text\n1,5" disk\n2,6" disk\n', "a.csv:2: misplaced quote in column 2"),
        ("a.csv", "id,text\n,x\n", "a.csv:2: field 'id' is empty"),
        ("a.csv", 'id,text\n1,x\n1,"y\nz"\n', "a.csv:3: duplicate id '1'"),
    ],
)
def test_a_bad_table_is_an_error_with_file_and_line(put: Put, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(put(name, content))
    assert message in str(caught.value)


def test_a_csv_cell_may_be_longer_than_the_limit_of_pythons_reader(put: Put) -> None:
    long = 'x"\n,' * 100_000
    path = put("a.csv", 'id,text\n1,"' + long.replace('"', '""') + '"\n')
    assert read(path)[0].text == long


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(st.tuples(cells, cells.filter(str.strip)), max_size=5), separator=st.sampled_from(",;\t")
)
def test_what_pythons_csv_writer_writes_comes_back(
    tmp_path: Path, rows: list[tuple[str, str]], separator: str
) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([("note", "text"), *rows])
    assert [(d.metadata["note"], d.text) for d in read(path)] == [
        (parse_cell(note), text) for note, text in rows
    ]


plain_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | cells,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(cells, inner, max_size=3),
    max_leaves=5,
)
names = cells.filter(lambda name: name not in Fields().names | {"metadata"})
documents = st.lists(
    st.builds(
        Document,
        cells.filter(bool),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.none() | cells.filter(bool),
        st.dictionaries(names, plain_json, max_size=3),
    ),
    max_size=4,
    unique_by=lambda document: document.id,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    items=documents,
    ascii_only=st.booleans(),
    pack=st.sampled_from([bytes, gzip.compress, zstandard.compress]),
)
def test_documents_written_as_json_lines_come_back(
    tmp_path: Path, items: list[Document], ascii_only: bool, pack: Callable[[bytes], bytes]
) -> None:
    lines = [{"id": d.id, "text": d.text, "title": d.title, **d.metadata} for d in items]
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        pack("".join(json.dumps(line, ensure_ascii=ascii_only) + "\n" for line in lines).encode())
    )
    assert read(path) == items


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    junk=st.binary(max_size=60),
    name=st.sampled_from(["a.jsonl", "a.tsv", "a.csv", "a.txt", "a.md", "a.html"]),
)
def test_junk_gives_documents_or_a_data_error_and_nothing_else(
    tmp_path: Path, junk: bytes, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(junk)
    try:
        found = read(path)
    except DataError as error:
        problem = str(error)
    else:
        problem = None
        assert len({document.id for document in found}) == len(found)
    assert problem is None or str(path) in problem


# Queries


def test_queries_come_from_lines_tables_and_json_lines(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = put("q.txt", "\nwhat is it\nwhy\n")
    assert list(read_queries(lines)) == [Query("q.txt:2", "what is it"), Query("q.txt:3", "why")]
    assert list(read_queries(put("q.tsv", "1048585\twhat is paula deen's brother\n"))) == [
        Query("1048585", "what is paula deen's brother")
    ]
    record = {"_id": "1", "text": "why", "title": "T", "metadata": {"lang": "en"}}
    assert list(read_queries(put("q.jsonl", jsonl(record)))) == [
        Query("1", "why", {"title": "T", "lang": "en"})
    ]
    assert list(read_queries(put("r.jsonl", jsonl({"id": "1", "question": "why"})))) == [Query("1", "why")]
    feed_stdin(monkeypatch, b"one\ntwo\n")
    assert [query.text for query in read_queries("-")] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", '{"id": "1", "text": " "}', "query '1' is empty"),
        ("q.html", "<p>x", "html holds no queries"),
        ("d/q.txt", "x", "is a folder; expected a file of queries"),
        ("q.tsv", "1\tx\n1\ty\n", "q.tsv:2: duplicate id '1'"),
    ],
)
def test_bad_queries_are_an_error(put: Put, name: str, content: str, message: str) -> None:
    path = put(name, content)
    with pytest.raises(DataError, match=message):
        list(read_queries(path.parent if name.startswith("d/") else path))
    with pytest.raises(InputError, match="expected one of jsonl, tsv, csv, parquet, lines"):
        read_queries(path, format="text")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "ID,Text,Year\n7,hello,2020\n"),
        ("a.csv", "Id;CONTENT;Year\n7;hello;2020\n"),
        ("a.tsv", "docid\tpassage\tYear\n7\thello\t2020\n"),
        ("a.csv", '"Doc_ID" , "Passage",Year\n7,hello,2020\n'.replace(" , ", ",")),
        ("a.jsonl", '{"docid": "7", "text": "hello", "Year": 2020}\n'),
        ("a.jsonl", '{"DocNo": "7", "Text": "hello", "Year": 2020}\n'),
    ],
)
def test_names_of_ids_and_texts_count_in_any_letter_case(put: Put, name: str, content: str) -> None:
    assert read(put(name, content)) == [Document("7", "hello", None, {"Year": 2020})]


@pytest.mark.parametrize("header", ["content", "Text", "passage", "CONTENTS"])
def test_a_header_of_one_column_is_no_document(put: Put, header: str) -> None:
    assert [document.text for document in read(put("a.csv", f"{header}\nfirst one\nsecond\n"))] == [
        "first one",
        "second",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "nr,beschreibung\n1,ein Text\n",  # the second row has numbers as ids
        "Kennung,Inhalt\nd1,ein Text\n",
        "key,value\na,some text\n",
        "abstract\nWe show that\n",
        "doc_title,doc_summary\nx,y\n",
        "name\n",
    ],
)
def test_a_first_row_that_looks_like_a_header_of_other_names_is_asked_about(put: Put, content: str) -> None:
    with pytest.raises(
        DataError, match=r"a\.csv:1: the first row .* looks like a header, but has none of the names"
    ):
        read(put("a.csv", content))
    assert len(read(put("a.csv", "id,text\n" + content if "," in content else "text\n" + content))) >= 1


@pytest.mark.parametrize(
    "content",
    [
        "1,one\n2,two\n",
        "espresso\nhow to brew\n",
        "a,moka\nb,kettle\n",
        "q1,what is it\n",
        "one two\nthree\n",
    ],
)
def test_rows_without_a_header_are_data(put: Put, content: str) -> None:
    assert len(read(put("a.csv", content))) == content.count("\n")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_cells_of_a_table_are_numbers_and_booleans_where_they_say_so(put: Put, name: str) -> None:
    separator = "," if name == "a.csv" else "\t"
    rows = ["id,text,year,price,ok,code,day", "007,12,2020,2.50,true,007,2020-01-31"]
    [document] = read(put(name, "".join(row.replace(",", separator) + "\n" for row in rows)))
    assert document == Document(
        "007", "12", None, {"year": 2020, "price": 2.5, "ok": True, "code": "007", "day": "2020-01-31"}
    )
    assert type(document.metadata["year"]) is int


@given(st.integers(-(10**17), 10**17) | st.floats(-1e14, 1e14) | st.booleans())
def test_what_is_printed_plainly_is_read_back(value: float) -> None:
    text = repr(value)
    back = parse_cell(text)
    if (
        "e" in text or len(text.partition(".")[2]) > 15
    ):  # not how people write in tables; if it is read, then right
        assert back in (text, value)
    else:
        assert back == value
        assert type(back) is type(value)


@given(
    st.text()
    | st.from_regex(r"[+0]\d+(\.\d+)?|\d+[eE]\d+|\d{1,3}(,\d{3})+|\.\d+|\d+\.|[A-Za-z]*\d+", fullmatch=True)
)
def test_a_cell_that_is_changed_says_the_same_number(cell: str) -> None:
    value = parse_cell(cell)
    if isinstance(value, bool):
        assert cell.lower() == str(value).lower()
    elif isinstance(value, int):
        assert str(value) == cell
    elif isinstance(value, float):
        assert float(cell) == value
        assert not cell.lstrip("-").startswith("0") or cell.lstrip("-").startswith("0.")
    else:
        assert value == cell


@pytest.mark.parametrize("name", ["id", "_id", "qid", "query_id", "query-id", "QID"])
@pytest.mark.parametrize("ending", ["jsonl", "tsv", "csv"])
def test_every_name_of_query_ids_is_known_to_every_reader(put: Put, name: str, ending: str) -> None:
    separator = "," if ending == "csv" else "\t"
    table = f"{name}{separator}query\nq7{separator}what is it\n"
    content = jsonl({name: "q7", "query": "what is it"}) if ending == "jsonl" else table
    assert list(read_queries(put(f"q.{ending}", content))) == [Query("q7", "what is it")]
    own = put(f"r.{ending}", content.replace("query\n", "frage\n").replace('"query":', '"frage":'))
    assert list(read_queries(own, fields=Fields.of(None, "frage"))) == [Query("q7", "what is it")]
