"""The exact engine's files and arrays stay few and current while documents come one by one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, random_texts
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.errors import IndexCorrupt, StorageError
from triptych.index import exact
from triptych.index.exact import ExactEngine, Rows, Segment, merge
from triptych.index.index import Index


def files(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "data").iterdir())


def test_many_small_adds_leave_few_files_that_are_quick_to_open(tmp_path: Path, encoder: FakeEncoder) -> None:
    place = tmp_path / "x.index"
    expected: dict[str, str] = {}
    with Index.create(place, encoder, engine="exact") as index:
        for i in range(600):
            name = f"{i % 500}"
            index.add([name], [f"w1 x{i}"])
            expected[name] = f"w1 x{i}"
            if i % 50 == 7:
                index.delete([name])
                del expected[name]
        assert len(files(place)) < 48
    with Index.open(place, encoder) as index:
        assert {document["id"]: document["text"] for document in index.get(index.ids) if document} == expected
        index.optimize()
        assert len(files(place)) == 1
        assert {document["id"]: document["text"] for document in index.get(index.ids) if document} == expected


STEPS = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 8), min_size=1, max_size=3, unique=True)))


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, base=st.booleans(), before=st.sets(st.integers(0, 8)))
def test_merged_segments_do_what_they_do_one_after_the_other(
    steps: list[tuple[bool, list[int]]], base: bool, before: set[int]
) -> None:
    encoder = FakeEncoder(heads=("dense",))
    segments: list[Segment] = []
    for number, (adds, names) in enumerate(steps):
        ids = [f"{name}" for name in names]
        vectors = encoder.encode_document([f"w{number}"] * len(ids), outputs=("dense",))
        payloads: list[exact.Payload] = [{"id": name, "text": f"{number}", "metadata": {}} for name in ids]
        rows = Rows(payloads, vectors.dense, None, None) if adds else None
        segments.append(Segment(rows, () if adds else ids))

    def play(parts: list[Segment]) -> dict[str, str]:
        state = {} if base else {f"{name}": "before" for name in before}
        for part in parts:
            for name in part.deleted:
                state.pop(name, None)
            if part.rows is not None:
                state |= {payload["id"]: payload["text"] for payload in part.rows.payloads}
        return state

    assert play([merge(segments, base=base)]) == play(segments)


@pytest.mark.parametrize("broken", [1, 2, 3])
def test_a_kill_within_a_merge_loses_nothing(
    tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    place = tmp_path / "x.index"
    index = Index.create(place, encoder, engine="exact")
    for i in range(15):
        index.add([f"{i}"], [f"w1 x{i}"])
    written = 0
    real_write, real_unlink = exact.write_atomically, Path.unlink

    def write(path: Path, data: bytes) -> None:
        nonlocal written
        written += 1
        if written == 2 and broken == 1:
            raise KeyboardInterrupt
        real_write(path, data)
        if written == 2 and broken == 2:
            raise KeyboardInterrupt

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if broken == 3 and path.name == "00000004.safetensors":
            raise KeyboardInterrupt
        real_unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(exact, "write_atomically", write)
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            index.add(["15"], ["w1 x15"])
    # The object goes on with what is on the disk, and so does another one.
    assert sorted(index.ids, key=int) == [f"{i}" for i in range(16)]
    index.add(["16"], ["w1"])
    index.close()
    with Index.open(place, encoder) as index:
        assert sorted(index.ids, key=int) == [f"{i}" for i in range(17)]


def test_a_merge_that_finds_no_room_does_not_undo_the_add(
    tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "x.index"
    real = exact.write_atomically

    def write(path: Path, data: bytes) -> None:
        if path.name == "00000016.safetensors" and path.exists():
            raise StorageError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(exact, "write_atomically", write)
    with Index.create(place, encoder, engine="exact") as index:
        for i in range(20):
            index.add([f"{i}"], ["w1"])
    with Index.open(place, encoder) as index:
        assert len(index) == 20


def test_a_changed_note_of_what_a_segment_stands_for_removes_nothing(
    tmp_path: Path, encoder: FakeEncoder
) -> None:
    place = tmp_path / "x.index"
    with Index.create(place, encoder, engine="exact") as index:
        index.add(["a"], ["w1"])
        index.add(["b"], ["w2"])
    (place / "closed.json").unlink()  # as after a kill
    path = place / "data" / "00000002.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"first":"2"', b'"first":"1"'))
    with pytest.raises(IndexCorrupt, match="checksum"):
        Index.open(place, encoder)
    assert (place / "data" / "00000001.safetensors").exists()


def test_a_search_after_an_add_costs_no_more_when_there_is_much_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FakeEncoder(dense=64, multi=32)
    texts = random_texts(np.random.default_rng(0), 500, words=900)
    engine = ExactEngine.create(tmp_path / "data", exact.Layout.of(encoder.widths, {"multi": "float16"}))
    monkeypatch.setattr(exact, "write_atomically", lambda path, data: path.write_bytes(data))
    vectors = encoder.encode_document(texts)
    for block in range(40):  # 20,000 documents
        payloads: list[exact.Payload] = [
            {"id": f"{block}-{i}", "text": "", "metadata": {}} for i in range(len(texts))
        ]
        engine.add(vectors, payloads)
    query = encoder.encode_query("w1 w2 w3")
    engine.recall(query, "lexical", 10)
    one = encoder.encode_document(["w1 w2"])
    buffers: dict[str, set[int]] = {name: set() for name in engine._state.growing}
    started = time.perf_counter()
    for i in range(20):
        engine.add(one, [{"id": f"new{i}", "text": "", "metadata": {}}])
        for name, array in engine._state.growing.items():
            buffers[name].add(id(array._buffer))
        for route in ("dense", "lexical"):
            assert engine.recall(query, route, 5)[0].keys  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    assert all(len(found) <= 2 for found in buffers.values())  # made larger once at most
    assert seconds < 4, seconds  # a rebuild of all for each would take ten times as long
    assert engine.recall(one, "lexical", 30)[0].keys[:20] == sorted(f"new{i}" for i in range(20))


def test_equal_scores_rank_by_id_whatever_the_order_of_the_adds(tmp_path: Path, encoder: FakeEncoder) -> None:
    names = [f"{i}" for i in np.random.default_rng(1).permutation(50)]
    with Index.create(tmp_path / "x", encoder, engine="exact") as index:
        for name in names:
            index.add([name], ["w1"])
        for k in (1, 7, 50):
            found = index.search("w1", k, candidates=k)
            assert [hit.id for hit in found] == sorted(names)[:k]
