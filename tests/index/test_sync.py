"""Documents cut into passages, and an index kept in step with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from fakes import FakeEncoder

from triptych.errors import DataError, InputError, StorageError
from triptych.files.listing import SourceFile
from triptych.index import sync
from triptych.index.index import Index
from triptych.index.store import EngineName
from triptych.passages import PassageOptions
from triptych.records import Document, Section

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

SMALL = PassageOptions(passage_tokens=10, passage_overlap=0)


def document(name: str, sentences: int, word: str = "w") -> Document:
    """Sentences of five words each."""
    text = " ".join(f"{word}{i} is one of five." for i in range(sentences))
    return Document(name, text, None, {"kind": word})


def texts_of(index: Index) -> dict[str, str]:
    return {name: payload["text"] for name in index.ids for payload in index.get([name]) if payload}


@pytest.fixture
def index(engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]) -> Index:
    return new_index(engine, encoder)


@pytest.mark.parametrize("kind", ["split", "late"])
def test_a_document_becomes_passages_that_say_where_they_stand(index: Index, kind: str) -> None:
    text = "w0 is one of five. w1 is one of five. w2 is one of five."
    sections = (Section(0, ("First",), 1), Section(text.index("w2"), ("First", "Second"), 2))
    long = Document("long", text, "Title", {"year": 2020}, sections)
    changes = index.add_documents(
        [long, Document("short", "w9 alone.")],
        PassageOptions(passages=kind, passage_tokens=10, passage_overlap=0),  # type: ignore[arg-type]
    )
    assert astuple(changes) == (2, 0, 0, 0, 0, 3)
    assert sorted(index.ids) == ["long#1", "long#2", "short"]
    first, second, short = index.get(["long#1", "long#2", "short"])
    assert first
    assert second
    assert short
    head = {"split": "Title › First\n", "late": ""}[kind]
    assert first["text"] == f"{head}w0 is one of five. w1 is one of five."
    assert second["metadata"] == {
        "title": "Title",
        "year": 2020,
        "parent": "long",
        "passage": 2,
        "passages": 2,
        "start": text.index("w2"),
        "end": len(text),
        "heading": "First › Second",
        "page": 2,
    }
    assert short == {"id": "short", "text": "w9 alone.", "metadata": {}}
    (hit,) = index.search("w2", k=1)
    assert hit.id == "long#2"


def test_whole_documents_stay_whole(index: Index) -> None:
    whole = document("d", 40)
    index.add_documents([whole], PassageOptions(passages="none"))
    assert texts_of(index) == {"d": whole.text}


def test_what_is_unchanged_is_not_encoded_again(index: Index, encoder: FakeEncoder) -> None:
    documents = [document(f"d{i}", i) for i in range(1, 8)]
    index.add_documents(documents, SMALL)
    calls = len(encoder.calls)
    assert astuple(index.add_documents(documents, SMALL)) == (0, 0, 0, 7, 0, 0)
    assert len(encoder.calls) == calls
    changed = [*documents[:3], document("d4", 1, "other"), replace(documents[4], metadata={"kind": "new"})]
    assert astuple(index.add_documents(changed, SMALL)) == (0, 1, 1, 3, 0, 1)
    assert len([name for name in index.ids if name.startswith("d4")]) == 1
    assert index.count({"kind": "new"}) == 3
    assert index.search("w0", filter={"kind": "new"})[0].id == "d5#1", "the vectors are what they were"
    other = PassageOptions(passage_tokens=20, passage_overlap=0)
    assert index.add_documents(changed, other).replaced == 5


def test_what_was_left_incomplete_is_done_again(
    index: Index, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [document("a", 3), document("b", 9), document("c", 2)]
    engine = index._store.engine
    add, done = engine.add, 0

    def fail_the_third_time(*arguments: object) -> None:
        nonlocal done
        done += 1
        if done == 3:
            raise StorageError(None, "no room")
        add(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "add", fail_the_third_time)
    with pytest.raises(StorageError, match="no room"):
        run = index.synchronizer(SMALL, block_tokens=25)
        run.add(documents)
        run.finish()
    assert 0 < len(index) < 8
    assert astuple(index.add_documents(documents, SMALL)) == (2, 0, 0, 1, 0, 6)
    assert sorted(index.ids) == sorted(["a#1", "a#2", *(f"b#{i}" for i in range(1, 6)), "c"]), (
        "the passages of each document once"
    )


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        folder.joinpath(name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return write(
        tmp_path / "notes",
        a_md="# One\n\nw1 is here.\n\n# Two\n\nw2 is there.",
        b_txt="w3",
        c_jsonl='{"id": "x", "text": "w4"}\n{"id": "y", "text": "w5"}',
    )


def test_an_index_follows_a_folder(index: Index, notes: Path, encoder: FakeEncoder) -> None:
    assert astuple(index.add_files(notes)) == (4, 0, 0, 0, 0, 4)
    assert sorted(index.ids) == ["a.md", "b.txt", "x", "y"]
    calls = len(encoder.calls)
    assert index.add_files(notes).unchanged == 4
    assert len(encoder.calls) == calls
    write(notes, b_txt="w6", d_txt="w7", c_jsonl='{"id": "y", "text": "w5"}\n{"id": "z", "text": "w8"}')
    (notes / "a.md").unlink()
    assert astuple(index.add_files(notes)) == (2, 1, 0, 1, 2, 3)
    assert sorted(index.ids) == ["b.txt", "d.txt", "y", "z"]
    (notes / "d.txt").unlink()
    assert index.add_files(notes, keep=True).removed == 0
    assert index.add_files(notes).removed == 1


def test_the_spelling_of_a_folder_does_not_count(
    index: Index, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add_files(notes)
    monkeypatch.chdir(notes.parent)
    for spelling in ("notes", "./notes/", Path("notes"), str(notes), notes / "../notes"):
        assert index.add_files(spelling).unchanged == 4
    monkeypatch.chdir(notes)
    assert index.add_files(".").unchanged == 4


def test_an_unchanged_file_is_not_read(index: Index, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add_files(notes)
    read = list[str]()

    def note(files: list[SourceFile], **options: object) -> Iterator[Document]:
        read.extend(file.key for file in files)
        return iter(())

    monkeypatch.setattr(sync, "read_documents", note)
    index.add_files(notes, keep=True)
    assert read == ["c.jsonl"], "its rows may be those of a run that was killed"
    (notes / "b.txt").touch()
    index.add_files(notes, keep=True)
    assert read == ["c.jsonl", "b.txt", "c.jsonl"]


def test_a_file_that_was_only_touched_is_not_encoded_again(
    index: Index, notes: Path, encoder: FakeEncoder
) -> None:
    index.add_files(notes)
    calls = len(encoder.calls)
    os.utime(notes / "b.txt", (10**9, 10**9))
    assert index.add_files(notes).updated == 1
    assert index.get(["b.txt"])[0]["metadata"]["modified"] == "2001-09-09T01:46:40Z"  # type: ignore[index]
    assert index.add_files(notes, metadata={"team": "x"}).updated == 4
    assert index.count({"team": "x"}) == 4
    assert index.add_files(notes, metadata={"team": "x"}).unchanged == 4
    assert len(encoder.calls) == calls


def test_another_folder_does_not_remove_or_replace_documents(index: Index, notes: Path) -> None:
    index.add_files(notes)
    mail = write(notes.parent / "mail", m_txt="w9")
    assert astuple(index.add_files(mail))[:5] == (1, 0, 0, 0, 0)
    assert len(index) == 5
    write(mail, b_txt="w1")
    with pytest.raises(InputError, match=r"'b\.txt' of .*notes.*got another one of .*mail"):
        index.add_files(mail)
    notes.rename(notes.parent / "moved")
    assert index.add_files(notes.parent / "moved").unchanged == 0, "what is known of them has changed"
    assert len(index) == 5


def test_documents_of_a_file_that_cannot_be_read_stay(index: Index, notes: Path) -> None:
    index.add_files(notes)
    (notes / "b.txt").write_bytes(b"\xff\xff\xff")
    (notes / "c.jsonl").write_text("{broken", encoding="utf-8")
    errors = list[DataError]()
    assert index.add_files(notes, on_error=errors.append).removed == 0
    assert len(errors) == 2
    assert sorted(index.ids) == ["a.md", "b.txt", "x", "y"]
    with pytest.raises(DataError, match=r"b\.txt"):
        index.add_files(notes)


def test_a_document_is_deleted_and_read_with_all_its_passages(index: Index) -> None:
    index.add_documents([document("a", 9), document("b", 1)], SMALL)
    assert [payload["id"] for payload in index.passages("a")] == [f"a#{i}" for i in range(1, 6)]
    assert [payload["id"] for payload in index.passages("b")] == ["b"]
    assert index.passages("c") == []
    assert index.delete(["a", "c"]) == 5
    assert list(index.ids) == ["b"]


def test_an_index_filled_by_add_is_taken_over(index: Index) -> None:
    index.add(["a", "b"], ["w1", "w2"])
    assert index.add_documents([document("a", 4)], SMALL).replaced == 1
    assert sorted(index.ids) == ["a#1", "a#2", "b"]


def test_bad_documents_are_refused_by_name(index: Index) -> None:
    with pytest.raises(InputError, match="'a' twice"):
        index.add_documents([document("a", 1), document("a", 2)])
    with pytest.raises(InputError, match="Document"):
        index.add_documents(["text"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="'bad'"):
        index.add_documents([Document("bad", "\ud800")])


def test_progress_counts_documents(index: Index) -> None:
    seen: list[tuple[str, int, int | None]] = []
    index.add_documents([document("a", 4), document("b", 1)], SMALL, progress=lambda *step: seen.append(step))
    assert seen == [("index", 1, None), ("index", 2, None)]


@pytest.mark.parametrize("engine", ["exact", "edge"])
def test_origins_survive_closing(engine: EngineName, encoder: FakeEncoder, tmp_path: Path) -> None:
    with Index.create(tmp_path / "an.index", encoder, engine=engine) as index:
        index.add_documents([document("a", 4)], SMALL)
    with Index.open(tmp_path / "an.index", encoder) as index:
        index.optimize()
        assert index.add_documents([document("a", 4)], SMALL).unchanged == 1
