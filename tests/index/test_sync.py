"""Documents cut into passages, and an index kept in step with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from fakes import FakeEncoder

from triptych.errors import InputError, StorageError
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
    assert astuple(changes) == (2, 0, 0, 0, 3)
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
    assert astuple(index.add_documents(documents, SMALL)) == (0, 0, 7, 0, 0)
    assert len(encoder.calls) == calls
    changed = [*documents[:3], document("d4", 1, "other"), replace(documents[4], metadata={"kind": "new"})]
    assert astuple(index.add_documents(changed, SMALL)) == (0, 2, 3, 0, 4)
    assert len([name for name in index.ids if name.startswith("d4")]) == 1
    assert index.count({"kind": "new"}) == 3
    other = PassageOptions(passage_tokens=20, passage_overlap=0)
    assert index.add_documents(changed, other).replaced == 5


def test_what_was_left_incomplete_is_done_again(
    index: Index, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "BLOCK_TOKENS", 25)
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
        index.add_documents(documents, SMALL)
    assert 0 < len(index) < 8
    assert astuple(index.add_documents(documents, SMALL)) == (2, 0, 1, 0, 6)
    assert sorted(index.ids) == sorted(["a#1", "a#2", *(f"b#{i}" for i in range(1, 6)), "c"]), (
        "the passages of each document once"
    )


def test_documents_gone_from_their_source_are_removed(index: Index) -> None:
    run = index.synchronizer(SMALL)
    run.add(
        [document("notes/a", 4), document("notes/b.jsonl:1", 1), document("notes/b.jsonl:2", 1)], "/notes"
    )
    run.add([document("mail/a", 3)], "/mail")
    run.finish()
    again = index.synchronizer(SMALL)
    again.add([document("notes/c", 1)], "/notes")
    again.remove_others("/notes", spare=["notes/b.jsonl"])
    assert astuple(again.finish()) == (1, 0, 0, 1, 1)
    assert sorted(index.ids) == ["mail/a#1", "mail/a#2", "notes/b.jsonl:1", "notes/b.jsonl:2", "notes/c"]


def test_a_file_known_by_its_stamp_is_not_even_read(index: Index) -> None:
    run = index.synchronizer(SMALL)
    run.add([document("a", 4)], "/notes", lambda name: "100 12:00")
    run.finish()
    again = index.synchronizer(SMALL)
    assert not again.is_current("a", "/notes", "101 12:00")
    assert not again.is_current("a", "/mail", "100 12:00")
    assert not again.is_current("b", "/notes", "100 12:00")
    assert again.is_current("a", "/notes", "100 12:00")
    again.remove_others("/notes")
    assert astuple(again.finish()) == (0, 0, 1, 0, 0)
    assert not index.synchronizer(PassageOptions()).is_current("a", "/notes", "100 12:00"), "cut otherwise"


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
