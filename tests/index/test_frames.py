"""Several writers and readers of one index on a server, of which one finds from what token vectors are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder

from triptych.index import server
from triptych.index.index import Index
from triptych.index.qdrant import FRAME
from triptych.index.server import ServerBackend
from triptych.index.store import Store, _Opened
from triptych.scores.on_numpy import maxsim_scores
from triptych.scores.tokens import Tokens

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

TEXTS = {"a": "w1 w2 w3 w4", "b": "w9 w8 w7 w6 w5"}


@pytest.fixture(params=["2bit", "int8"])
def pair(
    request: pytest.FixtureRequest, new_index: Callable[..., Index], encoder: FakeEncoder
) -> tuple[Index, Index]:
    """Two indexes of one empty collection, both opened before there is a frame."""
    width = {"multi_width": 3} if request.param == "int8" else {}
    first = new_index("server", encoder, multi=request.param, **width)
    return first, again(first, encoder)


def again(index: Index, encoder: FakeEncoder) -> Index:
    """The same collection as another process has it."""
    client = index._store.engine.backend.client  # type: ignore[attr-defined]
    manifest = server.read_manifest(client, "triptych")
    return Index(
        Store(index._store.place, manifest, _Opened(server.load(client, "triptych", manifest.layout))),
        encoder,
    )


def add(index: Index, name: str) -> None:
    index.add([name], [TEXTS[name]])


def check(indexes: tuple[Index, ...], encoder: FakeEncoder) -> None:
    """Whether all have one frame, by which what they hold is what was added."""
    layouts = [index._store.engine.layout for index in indexes]
    assert layouts[0].frame is not None
    assert all(layout == layouts[0] for layout in layouts)
    names = sorted(TEXTS)
    documents = encoder.encode_document([TEXTS[name] for name in names]).multi
    query = encoder.encode_query("w1 w9 w6")
    expected = maxsim_scores(query.multi, Tokens.pack(documents, layouts[0].tokens))[0]  # type: ignore[arg-type]
    for index in indexes:
        assert index.count() == 2
        hits = {hit.id: hit.scores["multi"] for hit in index.search("w1 w9 w6", 5)}
        # int8 is turbo8 on Qdrant, whose steps are its own.
        np.testing.assert_allclose([hits[name] for name in names], expected, atol=0.02)
    engine: Any = indexes[0]._store.engine
    assert not engine.backend.payloads([FRAME], ["frame"]), "nothing of the search for a frame stays"


def test_the_second_of_two_writers_takes_the_frame_of_the_first(
    pair: tuple[Index, Index], encoder: FakeEncoder
) -> None:
    first, second = pair
    add(first, "a")
    add(second, "b")
    check((first, second, again(first, encoder)), encoder)


@pytest.mark.parametrize("step", ["before", "after"])
def test_a_writer_in_the_middle_of_anothers_first_block_has_the_same_frame(
    pair: tuple[Index, Index], encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first, second = pair
    insert, ran = ServerBackend._insert_frame, list[str]()

    def interrupt(backend: ServerBackend, frame: Any) -> Any:
        if ran:
            return insert(backend, frame)
        ran.append(step)
        if step == "before":  # the other one has found its frame, and taken its point away
            add(second, "b")
        found = insert(backend, frame)
        if step == "after":  # the other one finds our point, and writes the manifest before us
            add(second, "b")
        return found

    monkeypatch.setattr(ServerBackend, "_insert_frame", interrupt)
    add(first, "a")
    check((first, second, again(first, encoder)), encoder)


def test_one_who_opened_an_empty_index_reads_what_is_added_later(
    pair: tuple[Index, Index], encoder: FakeEncoder
) -> None:
    writer, reader = pair
    for name in TEXTS:
        add(writer, name)
    hits = [index.search("w1 w9 w6", 5) for index in (writer, reader)]
    assert hits[0] == hits[1]
    check((writer, reader), encoder)


def test_weights_that_another_sets_meanwhile_leave_the_frame(
    pair: tuple[Index, Index], encoder: FakeEncoder
) -> None:
    first, second = pair
    add(first, "a")
    second.set_weights((1, 0, 2))
    add(first, "b")
    third = again(first, encoder)
    check((first, second, third), encoder)
    assert tuple(third.weights) == (1, 0, 2)


def test_what_a_writer_that_was_killed_left_of_its_frame_goes(
    pair: tuple[Index, Index], encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    with monkeypatch.context() as patch:
        patch.setattr(ServerBackend, "delete", lambda *_: None)
        add(first, "a")
    backend: Any = first._store.engine.backend  # type: ignore[attr-defined]
    assert backend.payloads([FRAME], ["frame"])
    third = again(first, encoder)
    add(second, "b")
    check((first, second, third), encoder)
