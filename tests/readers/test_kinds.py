"""Kinds of files: their text, their sections, what they say of themselves, and what is wrong with them."""

import builtins
import bz2
import lzma
import os
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from readers import kinds
from triptych import io
from triptych.documents import list_documents, read_documents
from triptych.errors import DataError, MissingExtra, TooLarge
from triptych.records import Document, Section

WHOLE = {
    "a.pdf": kinds.pdf([["Words"]]),
    "a.docx": kinds.docx(),
    "a.pptx": kinds.pptx(),
    "a.odt": kinds.odt(),
    "a.xlsx": kinds.xlsx({"S": [["word"]]}),
    "a.epub": kinds.epub(),
    "a.ipynb": kinds.notebook(),
    "a.rst": kinds.RST,
    "a.eml": kinds.MAIL,
    "a.py": b"x = 1\n",
    "a.md": b"words",
}


def read(path: Path, data: bytes | str) -> Document:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    [document] = read_documents(path)
    assert document.id == document.metadata["path"] == path.name
    return document


def parts(document: Document) -> list[tuple[tuple[str, ...], int | None, str]]:
    """Headings, page and text of each section."""
    ends = [section.start for section in document.sections[1:]] + [len(document.text)]
    return [
        (section.headings, section.page, document.text[section.start : end].strip())
        for section, end in zip(document.sections, ends, strict=True)
    ]


def test_a_pdf_has_its_pages_and_the_headings_of_its_bookmarks(tmp_path: Path) -> None:
    pages = [["Cover"], ["1 Pots", "Round.", "1.1 Lids", "Flat."], ["More lids."], ["Ovens", "Hot."]]
    marks = [(0, "Pots", 1), (1, "Lids", 1), (0, "Ovens", 3)]
    document = read(tmp_path / "a.pdf", kinds.pdf(pages, marks))
    assert document.title == "A PDF"
    assert {key: document.metadata[key] for key in ("author", "created", "pages")} == {
        "author": "Ann",
        "created": "2020-01-31T10:15:00",
        "pages": 4,
    }
    assert parts(document) == [
        ((), 1, "Cover"),
        (("Pots",), 2, "1 Pots\nRound."),
        (("Pots", "Lids"), 2, "1.1 Lids\nFlat."),
        (("Pots", "Lids"), 3, "More lids."),
        (("Ovens",), 4, "Ovens\nHot."),
    ]


def test_lines_that_head_and_foot_all_pages_are_kept_once(tmp_path: Path) -> None:
    pages = [["The manual", f"Page {n} says something", f"{n} of 9"] for n in range(1, 10)]
    pages[3] = ["The manual", "An odd page", "4 of 9"]
    text = read(tmp_path / "a.pdf", kinds.pdf(pages)).text
    assert text.count("The manual") == text.count("of 9") == 1
    assert "An odd page" in text
    assert "Page 9 says something" in text


def test_an_empty_page_gives_no_section(tmp_path: Path) -> None:
    document = read(tmp_path / "a.pdf", kinds.pdf([["one"], [], ["three"]], [(0, "Nothing", 1)]))
    assert parts(document) == [((), 1, "one"), (("Nothing",), 3, "three")]


def test_a_docx_has_headings_lists_and_tables(tmp_path: Path) -> None:
    document = read(tmp_path / "a.docx", kinds.docx())
    assert (document.title, document.metadata["author"]) == ("A docx", "Ann")
    assert parts(document) == [
        (("One",), None, "One\n\nFirst.\n\na\nb"),
        (("One", "Inner"), None, "Inner\n\nc00 c01\nc10 c11"),
        (("Two",), None, "Two\n\nLast."),
    ]


def test_a_docx_has_the_pages_that_its_program_noted(tmp_path: Path) -> None:
    document = read(tmp_path / "a.docx", kinds.paged_docx([["One.", "More."], ["Two."], ["Three."]]))
    assert parts(document) == [((), 1, "One.\n\nMore."), ((), 2, "Two."), ((), 3, "Three.")]
    without = read(tmp_path / "b.docx", kinds.docx())
    assert {section.page for section in without.sections} == {None}


def test_an_odt_has_headings_lists_tables_and_pages(tmp_path: Path) -> None:
    document = read(tmp_path / "a.odt", kinds.odt())
    assert parts(document) == [
        (("One",), 1, "One\n\nFirst of\nall.\n\na\nb"),
        (("One", "Inner"), 2, "Inner\n\nx y\n\nend of two"),
        (("One", "Inner"), 3, "Last."),
    ]
    assert document.title == "An odt"
    said = {key: document.metadata[key] for key in ("author", "created", "lang")}
    assert said == {"author": "Ann", "created": "2020-01-31T10:15:00", "lang": "fr"}


def test_an_odt_nested_beyond_measure_is_an_error(tmp_path: Path) -> None:
    deep = "<text:p>" + "<text:span>" * 50_000 + "x" + "</text:span>" * 50_000 + "</text:p>"
    (tmp_path / "a.odt").write_bytes(kinds.odt(deep))
    with pytest.raises(DataError, match=r"a\.odt: a broken document"):
        list(read_documents(tmp_path / "a.odt"))


def test_the_sheets_of_a_workbook_say_of_each_cell_whose_it_is(tmp_path: Path) -> None:
    rows = [["name", "born"], ["Ann", 1970], [None, None], ["Bo", 1.5]]
    data = kinds.xlsx({"People": rows, "Loose": [["only", 3]], "Empty": []})
    document = read(tmp_path / "a.xlsx", data)
    assert parts(document) == [
        (("People",), None, "People\n\nname born\nname: Ann, born: 1970\nname: Bo, born: 1.5"),
        (("Loose",), None, "Loose\n\nonly 3"),
    ]


def test_a_page_that_is_a_picture_is_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "half.pdf").write_bytes(kinds.pdf([["Words"], None, [], None]))
    (tmp_path / "scan.pdf").write_bytes(kinds.pdf([None]))
    skipped: list[tuple[str, str]] = []
    [document] = read_documents(tmp_path, on_skip=lambda path, why: skipped.append((path.name, why)))
    assert document.text == "Words"
    assert document.metadata["scanned_pages"] == [2, 4], "an empty page is none"
    why = "page without text (scanned?)"
    assert skipped == [
        ("half.pdf page 2", why),
        ("half.pdf page 4", why),
        ("scan.pdf page 1", why),
        ("scan.pdf", "no text"),
    ]


def test_the_slides_of_a_pptx_are_its_pages(tmp_path: Path) -> None:
    document = read(tmp_path / "a.pptx", kinds.pptx())
    assert parts(document) == [
        (("Pots",), 1, "Pots\n\none\ntwo\n\nsay this"),
        (("Slide 2",), 2, "Slide 2\n\ngrouped\n\nx y"),
    ]


def test_the_chapters_of_an_epub_come_in_the_order_of_its_spine(tmp_path: Path) -> None:
    document = read(tmp_path / "a.epub", kinds.epub())
    assert (document.title, document.metadata["author"], document.metadata["lang"]) == ("A book", "Ann", "fr")
    assert parts(document) == [
        (("First",), None, "First\n\nA."),
        (("First", "Inner"), None, "Inner\n\nI."),
        (("Second",), None, "Second\n\nB."),
    ]


def test_a_notebook_has_its_cells_without_what_the_code_gave(tmp_path: Path) -> None:
    document = read(tmp_path / "a.ipynb", kinds.notebook())
    assert (document.title, document.metadata["programming_language"]) == ("Pots", "python")
    assert parts(document) == [
        (("Pots",), None, "Pots\n\nHow to make them.\n\nx = 1\n\nprint(x)"),
        (("Pots", "More"), None, "More"),
    ]


def test_rst_keeps_what_the_directives_and_roles_of_sphinx_hold(tmp_path: Path) -> None:
    document = read(tmp_path / "a.rst", kinds.RST)
    assert document.title == "Pots"
    first, inner = parts(document)
    assert first[0] == ("Pots",)
    assert "In Foo and bar and code." in first[2]
    assert inner[0] == ("Pots", "Inner")
    for words in ("make(pot)", "Makes a pot.", "Now with a lid.", "x = 1\n\ny = 2", "a\nb", "k v\n1 2"):
        assert words in inner[2], words
    assert "root:" not in document.text
    assert "other" not in document.text
    assert "<b>" not in document.text


def test_mail_has_its_subject_as_title_and_its_plain_text(tmp_path: Path) -> None:
    document = read(tmp_path / "a.eml", kinds.MAIL)
    assert (document.title, document.text) == ("Töpfe and lids", "Schöne Töpfe.")
    wanted = {
        "from": "Ann <ann@example.org>",
        "to": "Bo <bo@example.org>",
        "created": "2020-01-31T10:15:00+01:00",
        "attachments": ["pot.pdf"],
    }
    assert {key: document.metadata[key] for key in wanted} == wanted


def test_the_messages_of_a_mailbox_are_documents(tmp_path: Path) -> None:
    one = b"From ann Fri Jan 31 10:15:00 2020\nSubject: one\n\nFirst.\n\n>From here on.\n\n"
    two = b"From bo Fri Jan 31 10:15:00 2020\nSubject: two\nContent-Type: text/html\n\n<p>Second.<script>no</script>\n"
    (tmp_path / "a.mbox").write_bytes(one + two)
    documents = list(read_documents(tmp_path / "a.mbox"))
    assert [(d.id, d.title, d.text) for d in documents] == [
        ("a.mbox#1", "one", "First.\n\nFrom here on."),
        ("a.mbox#2", "two", "Second."),
    ]


def test_python_has_sections_for_functions_classes_and_methods(tmp_path: Path) -> None:
    code = (
        '"""Doc."""\n\nx = 1\n\n\n@cache\ndef f():\n    r"""\ndef no(): \\d\n    """\n\n\n'
        "class A:\n    b = 1\n\n    async def g(self): ...\n"
    )
    document = read(tmp_path / "a.py", code)
    assert document.metadata["programming_language"] == "python"
    assert [
        (section.headings, document.text[section.start :].split("\n")[0]) for section in document.sections
    ] == [
        ((), '"""Doc."""'),
        (("f",), "@cache"),
        (("A",), "class A:"),
        (("A", "g"), "    async def g(self): ..."),
    ]
    broken = read(tmp_path / "b.py", "print 'x'\n\ndef f():\n  pass")
    assert [section.headings for section in broken.sections] == [(), ("f",)]


@pytest.mark.parametrize(
    ("name", "code", "names"),
    [
        ("a.js", "// Adds.\nexport function add(a) {\n}\nconst twice = (x) => 2 * x\nclass P {\n}\n", "add twice P"),
        ("a.ts", "export interface I { }\nexport default async function* g<T>() {}\nexport type T = 1\n", "I g T"),
        ("a.go", "package p\nfunc (s *S) Run() error {\n\treturn nil\n}\ntype S struct {}\n", "p Run S"),
        ("a.rs", "pub(crate) async fn run() {}\nimpl<T> Foo<T> {\n  fn in() {}\n}\nstruct S;\n", "run Foo S"),
        ("a.java", "public final class A {\n  void b() {}\n}\nrecord R(int x) {}\n", "A R"),
        ("a.c", "#include <x.h>\nint y;\nint f(void);\nstatic int *g(int a,\n   int b)\n{\n  if (a) f();\n}\n", "g"),
        ("a.cpp", "void A::run(int x) {\n}\nnamespace n {\n}\ntemplate <class T>\nint h() {\n}\n", "A::run n h"),
        ("a.rb", "module M\n  def no\n  end\nend\nclass C < D\nend\ndef f?(x)\nend\n", "M C f?"),
        ("a.sh", "set -e\nrun() {\n  x\n}\nfunction go {\n}\n", "run go"),
        ("a.sql", "CREATE TABLE IF NOT EXISTS pots (id int);\ncreate or replace view lids as select 1;\n", "pots lids"),
    ],
)  # fmt: skip
def test_other_languages_have_sections_for_what_is_defined_at_the_margin(
    name: str, code: str, names: str, tmp_path: Path
) -> None:
    document = read(tmp_path / name, code)
    assert document.text == code.rstrip()
    assert [section.headings[0] for section in document.sections if section.headings] == names.split()


def test_a_comment_above_a_function_belongs_to_it(tmp_path: Path) -> None:
    document = read(tmp_path / "a.go", "package p\n\n// Run runs.\n// Twice.\nfunc Run() {\n}\n")
    assert document.text[document.sections[-1].start :].startswith("// Run runs.")


def test_a_json_file_is_records_or_one_document(tmp_path: Path) -> None:
    def ids(text: str) -> list[tuple[str, str]]:
        (tmp_path / "a.json").write_text(text)
        return [(document.id, document.text) for document in read_documents(tmp_path / "a.json")]

    assert ids('[{"id": 7, "text": "x"},\n {"text": "y", "n": 1}]') == [("7", "x"), ("a.json#2", "y")]
    assert ids('{"text": "x"}\n{"text": "y"}\n') == [("a.json:1", "x"), ("a.json:2", "y")]
    assert ids('{"text": "x",\n "n": 1}') == [("a.json", "x")]
    for whole in ('{"name": "pot",\n "size": [1, 2]}', "[1, 2]", '[{"name": "x"}]', '"word"'):
        assert ids(whole) == [("a.json", whole)]
    assert ids("") == ids("\n") == []
    for wrong, message in (
        ('[{"text": "x"}, 3]', "record 2: got the number 3"),
        ('{"a":\n 1', "a.json:2: broken JSON"),
        ("[" * 100_000, "nested too deeply"),
    ):
        with pytest.raises(DataError, match=message):
            ids(wrong)


def test_every_whole_file_says_where_it_is_and_how_old(tmp_path: Path) -> None:
    (tmp_path / "notes" / "sub").mkdir(parents=True)
    for name, data in WHOLE.items():
        path = tmp_path / "notes" / "sub" / name
        path.write_bytes(data)
        os.utime(path, (1_580_465_700, 1_580_465_700))
    documents = list(read_documents(tmp_path / "notes"))
    assert len(documents) == len(WHOLE)
    for document in documents:
        name = document.id.removeprefix("sub/")
        wanted = {"path": f"sub/{name}", "name": name, "ending": f".{name.split('.')[-1]}"}
        wanted |= {"size": len(WHOLE[name]), "modified": "2020-01-31T10:15:00Z"}
        assert {key: document.metadata[key] for key in wanted} == wanted


def test_reading_files_of_all_kinds_loads_no_torch(tmp_path: Path) -> None:
    for name, data in WHOLE.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import sys\nfrom triptych.documents import read_documents\n"
        f"assert len(list(read_documents({str(tmp_path)!r}))) == {len(WHOLE)}\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress], ids=["bz2", "xz"])
def test_bzip2_and_xz_are_unpacked(pack: Any, tmp_path: Path) -> None:
    ending = {bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    data = b"".join(b"%d words\n" % n for n in range(100_000))
    for name, content in (("one", pack(data)), ("two", pack(data[:70_000]) + pack(data[70_000:]))):
        (tmp_path / f"{name}.txt.{ending}").write_bytes(content)
    texts = [document.text for document in read_documents(tmp_path)]
    assert texts == [data.decode().strip()] * 2
    broken = tmp_path / f"c.txt.{ending}"
    broken.write_bytes(pack(data)[:-7])
    with pytest.raises(DataError, match=rf"c\.txt\.{ending}: broken compressed file"):
        list(read_documents(broken))


def test_text_that_begins_like_bzip2_is_text(tmp_path: Path) -> None:
    assert read(tmp_path / "a.txt", "BZh91 is a magic number").text == "BZh91 is a magic number"


def test_a_zip_archive_is_a_folder(tmp_path: Path) -> None:
    members = {"x/a.md": "# A", "b.csv": "id,text\n1,one\n", "c.bin": b"\0", ".h/d.txt": "no", "e.txt": ""}
    data = kinds.zipped({**members, "../../f.pdf": kinds.pdf([["Words"]]), "bad.txt": b"\xff"})
    (tmp_path / "z.zip").write_bytes(data)
    skipped: list[tuple[str, str]] = []
    errors: list[DataError] = []
    documents = list(
        read_documents(
            tmp_path, on_skip=lambda path, why: skipped.append((path.name, why)), on_error=errors.append
        )
    )
    assert [(d.id, d.text) for d in documents] == [
        ("z.zip/f.pdf", "Words"),
        ("1", "one"),
        ("z.zip/x/a.md", "A"),
    ]
    assert documents[0].metadata["name"] == "f.pdf"
    assert skipped == [
        ("d.txt", "hidden"),
        ("bad.txt", "unreadable"),
        ("c.bin", "unknown kind"),
        ("e.txt", "no text"),
    ]
    assert "z.zip/bad.txt:1: byte 0xff" in str(errors[0])


def test_a_zip_archive_out_of_all_proportion_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io, "FREE_SIZE", 1 << 20)
    path = tmp_path / "bomb"
    for ending in ("zip", "docx", "pptx", "epub"):
        bomb = kinds.zipped({"a.txt": b"\0" * (1 << 23), "word/document.xml": b" " * (1 << 23)})
        path.with_suffix(f".{ending}").write_bytes(bomb)
        tracemalloc.start()
        with pytest.raises(TooLarge, match=f"bomb.{ending}: expands to more than 500 times"):
            list(read_documents(path.with_suffix(f".{ending}")))
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
        tracemalloc.stop()


def test_a_part_of_an_office_file_over_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triptych.files.office.MAX_PART", 1 << 10)
    for name in ("a.docx", "a.pptx"):
        with pytest.raises(TooLarge, match=rf"{name}: its part .*\.xml has more than"):
            read(tmp_path / name, WHOLE[name])


def test_a_pdf_of_too_many_pages_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.files.pdf.MAX_PAGES", 2)
    with pytest.raises(TooLarge, match=r"a\.pdf: 3 pages; expected at most 2"):
        read(tmp_path / "a.pdf", kinds.pdf([["x"]] * 3))
    monkeypatch.setattr("triptych.files.pdf.MAX_TEXT", 10)
    with pytest.raises(TooLarge, match="a text of more than"):
        read(tmp_path / "a.pdf", kinds.pdf([["words of a page"]] * 2))


BINARY = ["a.pdf", "a.docx", "a.pptx", "a.epub"]


@pytest.mark.parametrize("name", BINARY)
def test_a_broken_file_is_an_error_that_names_it_and_a_folder_is_read_on(name: str, tmp_path: Path) -> None:
    skipped: list[tuple[Path, str]] = []

    def note(path: Path, reason: str) -> None:
        skipped.append((path, reason))

    whole = WHOLE[name]
    other = kinds.zipped({"a.txt": "x"})
    texts = kinds.zipped(
        {"word/document.xml": "<a", "META-INF/container.xml": "<a", "[Content_Types].xml": "<"}
    )
    for broken in (b"", b"junk" * 100, whole[: len(whole) // 2], other, texts):
        path = tmp_path / name
        path.write_bytes(broken)
        with pytest.raises(DataError, match=rf"{name}: "):
            list(read_documents(path))
        (tmp_path / "z.txt").write_text("good")
        errors: list[DataError] = []
        skipped.clear()
        documents = read_documents(tmp_path, on_error=errors.append, on_skip=note)
        assert [document.text for document in documents] == ["good"]
        assert skipped == [(path, "unreadable")]
        assert len(errors) == 1


@pytest.mark.parametrize("name", BINARY)
def test_damaged_bytes_give_a_document_or_a_data_error(name: str, tmp_path: Path) -> None:
    whole = WHOLE[name]
    for place in range(7, len(whole), max(1, len(whole) // 60)):
        path = tmp_path / name
        path.write_bytes(
            whole[:place] + bytes((b ^ 0x5A) for b in whole[place : place + 9]) + whole[place + 9 :]
        )
        try:
            list(read_documents(path))
        except DataError as error:
            assert name in str(error)  # noqa: PT017


def test_an_encrypted_archive_is_an_error(tmp_path: Path) -> None:
    data = bytearray(kinds.zipped({"a.txt": "words"}))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(bytes(data))
    assert zipfile.is_zipfile(tmp_path / "a.zip")
    with pytest.raises(DataError, match=r"a\.zip/a\.txt: cannot be unpacked: .*(password|encrypted)"):
        list(read_documents(tmp_path / "a.zip"))


def test_a_bomb_of_entities_in_a_book_is_refused(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(12))
    bomb = f'<!DOCTYPE c [<!ENTITY a0 "x">{entities}]><c>&a12;</c>'
    (tmp_path / "a.epub").write_bytes(kinds.zipped({"META-INF/container.xml": bomb}))
    with pytest.raises(DataError, match=r"a\.epub: its part META-INF/container\.xml is no XML"):
        list(read_documents(tmp_path / "a.epub"))


@pytest.mark.parametrize(
    ("name", "module"),
    [("a.pdf", "pypdfium2"), ("a.docx", "docx"), ("a.pptx", "pptx"), ("a.rst", "docutils.core")],
)
def test_without_the_extra_a_named_file_is_an_error_and_a_folder_counts_it(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = builtins.__import__

    def fail(wanted: str, *rest: Any, **more: Any) -> Any:
        if wanted == module:
            raise ImportError(wanted)
        return usual(wanted, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", fail)
    path = tmp_path / name
    path.write_bytes(WHOLE[name])
    (tmp_path / "z.txt").write_text("good")
    with pytest.raises(MissingExtra, match=rf"{name}.*pip install 'triptych\[files\]'"):
        list(read_documents(path))
    skipped: list[tuple[Path, str]] = []
    documents = read_documents(tmp_path, on_skip=lambda *what: skipped.append(what))
    assert [document.text for document in documents] == ["good"]
    assert skipped == [(path, "extra missing")]


def test_a_file_over_the_limit_is_counted_as_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io, "MAX_TEXT", 1000)
    (tmp_path / "a.txt").write_text("word\n" * 1000)
    (tmp_path / "b.pdf").write_bytes(kinds.pdf([["x" * 50] * 20]))
    (tmp_path / "c.txt").write_text("good")
    skipped: list[tuple[str, str]] = []
    documents = read_documents(
        tmp_path, on_error=lambda _: None, on_skip=lambda path, why: skipped.append((path.name, why))
    )
    assert [document.text for document in documents] == ["good"]
    assert skipped == [("a.txt", "too large"), ("b.pdf", "too large")]


# Ids


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("x/notes", "y/notes", "x/other"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "a.md").write_text(folder)
        (tmp_path / folder / "rows.jsonl").write_text(f'{{"text": "{folder}"}}\n')
    (tmp_path / "x/notes/own.md").write_text("own")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(*sources: str | Path) -> list[str]:
    return [document.id for document in read_documents(sources)]


def test_three_spellings_of_a_folder_give_the_same_ids(two: Path) -> None:
    wanted = ["own.md", "rows.jsonl:1", "sub/a.md"]
    for spelling in ("x/notes", "./x/notes/", two / "x" / "notes", "y/../x/notes"):
        assert ids(spelling) == wanted
    assert ids("x/notes/own.md") == ids(two / "x/notes/own.md") == ["own.md"]


def test_a_file_under_two_of_the_paths_is_read_once(two: Path) -> None:
    wanted = ["own.md", "rows.jsonl:1", "sub/a.md"]
    assert ids("x/notes", two / "x/notes", "x/notes/sub", "x/notes/own.md") == wanted


def test_the_same_path_under_two_folders_has_the_name_of_its_folder_before_it(two: Path) -> None:
    assert ids("x/notes", "x/other") == [
        "own.md",
        "notes/rows.jsonl:1",
        "notes/sub/a.md",
        "other/rows.jsonl:1",
        "other/sub/a.md",
    ]
    assert [name for name in ids("x/notes", "y/notes") if "rows" in name] == [
        "x/notes/rows.jsonl:1",
        "y/notes/rows.jsonl:1",
    ]
    assert ids("x/notes/sub/a.md", "x/other/sub/a.md") == ["notes/sub/a.md", "other/sub/a.md"]


def test_listed_files_can_be_read_by_themselves_with_the_same_ids(two: Path) -> None:
    files = list_documents(["x/notes", "x/other"])
    assert [file.key for file in files] == [
        "own.md",
        "notes/rows.jsonl",
        "notes/sub/a.md",
        "other/rows.jsonl",
        "other/sub/a.md",
    ]
    assert [document.id for document in read_documents(files[2:4])] == [
        "notes/sub/a.md",
        "other/rows.jsonl:1",
    ]
    assert next(read_documents(files[0])).id == "own.md"


def test_sections_are_offsets_into_the_text(tmp_path: Path) -> None:
    assert read(tmp_path / "a.md", "x\n\n# A\n\nb").sections == (Section(0), Section(3, ("A",)))
