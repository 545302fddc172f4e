"""A name that stands for one index and then, at once, for another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import qdrant_client
from fakes import FakeEncoder

from triptych.errors import IndexExists, IndexMissing, InputError
from triptych.index import server
from triptych.index.alias import resolve, switch
from triptych.index.index import Index
from triptych.index.store import EngineName

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")
HOST = "http://host:6333"


@pytest.fixture
def qdrant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The client's local mode, which knows aliases, in place of a server."""
    client = qdrant_client.QdrantClient(path=str(tmp_path / "qdrant"), force_disable_check_same_thread=True)
    close = client.close
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr(server, "connect", lambda place, key=None: (client, place.rpartition("/")[2]))
    yield client
    close()


def make(place: str | Path, encoder: FakeEncoder, text: str, engine: EngineName = "auto") -> str:
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["x"], [text])
    return str(place)


def text_at(place: str | Path) -> str:
    with Index.open(place) as index:
        (found,) = index.get(["x"])
    assert found is not None
    return found["text"]


def test_a_link_is_switched_and_an_open_index_stays_what_it_was(tmp_path: Path) -> None:
    old, new = FakeEncoder(name="old"), FakeEncoder(dense=4, name="new")
    name, places = tmp_path / "docs", (tmp_path / "1.index", tmp_path / "sub" / "2.index")
    make(places[0], old, "one")
    make(places[1], new, "two")
    assert switch(name, places[0]) is None
    with Index.open(name) as index:
        assert index.info()["place"] == resolve(name) == str(places[0])
        assert switch(name, places[1]) == str(places[0])
        index.encoder = old
        index.add(["y"], ["three"])
        index.set_weights((1, 0, 0))
        assert index.search("three", 1)[0].id == "y"
    assert text_at(name) == "two"
    with Index.open(name, new) as index:
        assert len(index) == 1
        assert index.info().get("weights") is None
    assert not list(tmp_path.glob(".*part"))
    (tmp_path / "moved").mkdir()
    for each in ("docs", "sub"):  # the link is relative
        (tmp_path / each).rename(tmp_path / "moved" / each)
    assert text_at(tmp_path / "moved" / "docs") == "two"


def test_a_name_is_never_without_an_index_while_it_is_switched(tmp_path: Path, encoder: FakeEncoder) -> None:
    name = tmp_path / "docs"
    for i in range(2):
        make(tmp_path / f"{i}", encoder, str(i), engine="exact")  # which any number can read at once
    switch(name, tmp_path / "0")
    stop, seen, wrong = threading.Event(), set[str](), list[Exception]()

    def read() -> None:
        while not stop.is_set():
            try:
                with Index.open(name, read_only=True) as index:
                    seen.update(each["text"] for each in index.documents())
            except Exception as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(200):
        switch(name, tmp_path / f"{i % 2}")
    stop.set()
    reader.join()
    assert not wrong
    assert seen
    assert seen <= {"0", "1"}


def test_only_an_index_gets_a_name_and_no_index_loses_its_own(tmp_path: Path, encoder: FakeEncoder) -> None:
    place = make(tmp_path / "a", encoder, "one")
    with pytest.raises(IndexMissing):
        switch(tmp_path / "name", tmp_path / "nothing")
    with pytest.raises(IndexExists, match="no link"):
        switch(make(tmp_path / "b", encoder, "two"), place)
    with pytest.raises(IndexExists, match="no link"):
        switch(place, place)
    with pytest.raises(InputError, match="on the same server"):
        switch(tmp_path / "name", f"{HOST}/a")
    assert not (tmp_path / "name").is_symlink()


def test_an_alias_of_qdrant_is_switched_and_an_open_index_stays_what_it_was(qdrant: Any) -> None:
    old, new = FakeEncoder(name="old"), FakeEncoder(dense=4, name="new")
    make(f"{HOST}/one", old, "one")
    make(f"{HOST}/two", new, "two")
    assert switch(f"{HOST}/docs", f"{HOST}/one") is None
    with Index.open(f"{HOST}/docs", old) as index:
        assert index.info()["place"] == resolve(f"{HOST}/docs") == f"{HOST}/one"
        assert switch(f"{HOST}/docs", f"{HOST}/two") == f"{HOST}/one"
        assert index.search("one", 1)[0].text == "one"  # of another model, and not of the alias
    assert text_at(f"{HOST}/docs") == "two"
    assert switch(f"{HOST}/docs", f"{HOST}/two") == f"{HOST}/two"
    with pytest.raises(IndexExists, match="a collection of this name"):
        switch(f"{HOST}/one", f"{HOST}/two")
    with pytest.raises(IndexMissing):
        switch(f"{HOST}/docs", f"{HOST}/three")
    with pytest.raises(InputError, match="two addresses of one server"):
        switch(f"{HOST}/docs", "http://other/two")
    assert text_at(f"{HOST}/docs") == "two"
