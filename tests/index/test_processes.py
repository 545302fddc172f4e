"""Threads, forked and killed processes, locks, and folders that cannot be written."""

from __future__ import annotations

import copy
import errno
import gc
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder

from triptych.errors import IndexCorrupt, IndexFault, IndexLocked, TriptychError
from triptych.index import storage
from triptych.index.index import Index
from triptych.index.store import EngineName

pytestmark = [
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

FOLDER_ENGINES = ("exact", "edge")


@pytest.fixture
def quick_switches() -> Iterator[None]:
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(old)


@pytest.mark.usefixtures("quick_switches")
def test_threads_that_write_and_search_lose_nothing(
    engine: EngineName, place: str, encoder: FakeEncoder
) -> None:
    errors: list[BaseException] = []
    expected: set[str] = set()
    done = threading.Event()

    def write(index: Index, number: int) -> None:
        try:
            for turn in range(25):
                names = [f"w{number}-{turn}-{i}" for i in range(6)]
                index.add(names, [f"w{number} {name}" for name in names], [{"turn": turn}] * 6)
                assert index.delete(names[:2]) == 2
                expected.update(names[2:])
        except BaseException as error:
            errors.append(error)

    def search(index: Index) -> None:
        try:
            while not done.is_set():
                hits = index.search("w0 w1", 10, filter={"turn": {"gte": 0}})
                assert len({hit.id for hit in hits}) == len(hits)
                index.get([hit.id for hit in hits])
                index.count({"turn": 3})
        except BaseException as error:
            errors.append(error)

    with Index.create(place, encoder, engine=engine) as index:
        index.add(["first"], ["w0 w1"], [{"turn": 0}])
        writers = [threading.Thread(target=write, args=(index, number)) for number in range(2)]
        readers = [threading.Thread(target=search, args=(index,)) for _ in range(3)]
        for thread in (*writers, *readers):
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in readers:
            thread.join()
        assert errors == []
        assert set(index.ids) == expected | {"first"}
        found = {hit.id for hit in index.search("w0 w1", 500, candidates=500)}
        assert found == expected | {"first"}
    with Index.open(place, encoder) as index:
        assert set(index.ids) == expected | {"first"}
        assert all(index.get(sorted(expected)))


def test_threads_may_optimize_and_add_at_the_same_time(tmp_path: Path, encoder: FakeEncoder) -> None:
    with Index.create(tmp_path / "x", encoder, engine="exact") as index:
        adder = threading.Thread(
            target=lambda: [index.add([f"{i}"], [f"w1 x{i}"]) for i in range(60)], daemon=True
        )
        adder.start()
        while adder.is_alive():
            index.optimize()
            index.search("w1", 100)
        adder.join()
    with Index.open(tmp_path / "x", encoder) as index:
        assert sorted(index.ids, key=int) == [f"{i}" for i in range(60)]


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_a_forked_child_cannot_use_the_parents_index(
    engine: EngineName, tmp_path: Path, encoder: FakeEncoder
) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["a"], ["w1"])
        with multiprocessing.get_context("fork").Pool(1, _take, (index,)) as pool:
            assert pool.apply(_try_all, ()) == ["forked"] * 4
        index.add(["b"], ["w2"])
    with Index.open(place, encoder) as index:
        assert sorted(index.ids) == ["a", "b"]


_taken: list[Index] = []


def _take(index: Index) -> None:
    _taken.append(index)


def _try_all() -> list[str]:
    index = _taken.pop()
    found: list[str] = []
    for step in (lambda: index.add(["x"], ["y"]), lambda: index.search("w1"), index.count, index.optimize):
        try:
            step()
            found.append("done")
        except IndexFault as error:
            found.append("forked" if "Open it in the worker" in str(error) else str(error))
    index.close()
    return found


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_a_child_that_ends_normally_harms_nothing_and_does_not_keep_the_lock(
    engine: EngineName, tmp_path: Path
) -> None:
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fakes import FakeEncoder
from triptych.index.index import Index
place = {str(tmp_path / "an.index")!r}
index = Index.create(place, FakeEncoder(), engine={engine!r})
index.add(["a"], ["w1"])
quick = os.fork()
if quick == 0:
    sys.exit(0)
assert os.waitpid(quick, 0)[1] == 0
slow = os.fork()
if slow == 0:
    time.sleep(20)
    os._exit(0)
index.add(["b"], ["w2"])
index.close()
with Index.open(place, FakeEncoder()) as index:
    print(sorted(index.ids))
os.kill(slow, 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("['a', 'b']", 0), done.stderr


def test_an_open_index_is_neither_pickled_nor_copied(
    engine: EngineName, place: str, encoder: FakeEncoder
) -> None:
    with Index.create(place, encoder, engine=engine) as index:
        for step in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(IndexFault, match=r"cannot be pickled or copied.*Index\.open"):
                step(index)


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_an_index_that_is_dropped_is_closed(engine: EngineName, tmp_path: Path, encoder: FakeEncoder) -> None:
    place = tmp_path / "an.index"
    index: Any = Index.create(place, encoder, engine=engine)
    index.add(["a"], ["w1"])
    del index
    gc.collect()
    assert (place / "closed.json").exists()
    index = Index.open(place, encoder)
    del index
    with Index.open(place, encoder) as index:
        assert list(index.ids) == ["a"]


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_an_index_left_open_is_closed_when_the_process_ends(engine: EngineName, tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fakes import FakeEncoder
from triptych.index.index import Index
index = Index.create({str(tmp_path / "an.index")!r}, FakeEncoder(), engine={engine!r})
index.add(["a"], ["w1"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "an.index" / "closed.json").exists()


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_a_folder_that_cannot_be_written_is_searched_by_any_number_of_readers(
    engine: EngineName, tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["a", "b"], ["w1 w2", "w3"])
    before = _contents(place)
    _forbid_writing(monkeypatch, place)
    with Index.open(place, encoder) as one, Index.open(place, encoder) as other:
        for index in (one, other):
            assert [hit.id for hit in index.search("w1", 1)] == ["a"]
            assert index.info()["documents"] == 2
        for step in (lambda: one.add(["c"], ["w"]), lambda: one.delete(["a"]), one.optimize):
            with pytest.raises(IndexFault, match="cannot be written"):
                step()
    monkeypatch.undo()
    assert _contents(place) == before
    with Index.open(place, encoder) as index:
        index.add(["c"], ["w4"])
        _forbid_writing(monkeypatch, place)
        with pytest.raises(IndexLocked):  # someone who can write has it open
            Index.open(place, encoder)
        monkeypatch.undo()


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _forbid_writing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As a read-only file system does; rights would not stop the superuser."""
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(path).startswith(str(folder)) and flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(storage.os, "open", refuse)


OPENER = """
import sys
sys.path.insert(0, {tests!r})
from fakes import FakeEncoder
from triptych.index.index import Index
while True:
    index = Index.open({place!r}, FakeEncoder())
    print("open", flush=True)
    {optimize}
    index.close()
"""


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
@pytest.mark.parametrize("optimize", ["", "index.optimize()"])
def test_a_process_killed_at_any_moment_of_opening_and_closing_locks_nobody_out(
    engine: EngineName, tmp_path: Path, encoder: FakeEncoder, optimize: str
) -> None:
    place, rng = tmp_path / "an.index", random.Random(0)
    names = [f"{i}" for i in range(400)]
    with Index.create(place, encoder, engine=engine) as index:
        index.add(names, [f"w1 x{name}" for name in names])
    code = OPENER.format(tests=str(Path(__file__).parent), place=str(place), optimize=optimize)
    for turn in range(8):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # from then on it opens and closes without end
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)[turn % 3])
        process.communicate()
        with Index.open(place, encoder) as index:
            assert len(index) == len(names)
            assert index.search("w1", 1)


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
@pytest.mark.parametrize("at", ["withdraw", "load_engine", "count", "remove", "write"])
def test_ctrl_c_at_each_step_of_opening_and_closing_locks_nobody_out(
    engine: EngineName, at: str, tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triptych.index import store

    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["a", "b"], ["w1", "w2"])

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "load_engine":
            patch.setattr(store, "load_engine", interrupted)
        elif at == "count":
            patch.setattr(store, "_check_count", interrupted)
        else:
            patch.setattr(storage.Seal, at, interrupted)
        with pytest.raises(KeyboardInterrupt):
            Index.open(place, encoder).close()
    for _ in range(2):
        with Index.open(place, encoder) as index:
            assert sorted(index.ids) == ["a", "b"]


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_a_lost_document_is_noticed_also_after_a_kill_while_opening(
    engine: EngineName, tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["a"], ["w1"])
        index.add(["b"], ["w2"])
    seal = storage.Seal(place, digests=True)
    seal.withdraw(3)  # as if there had been three
    for _ in range(2):
        with pytest.raises(IndexCorrupt, match="found 2 documents; expected 3"):
            Index.open(place, encoder)


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), OSError(errno.EMFILE, "Too many")],
)
def test_a_lack_of_memory_or_handles_is_not_called_damage(
    engine: EngineName,
    tmp_path: Path,
    encoder: FakeEncoder,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    import qdrant_edge

    from triptych.index import edge, exact

    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["a"], ["w1"])

    def fail(*_: object, **__: object) -> None:
        raise error

    class Shard:
        load = staticmethod(fail)

    with monkeypatch.context() as patch:
        patch.setattr(exact, "safe_open", fail)
        patch.setattr(edge.qe, "EdgeShard", Shard)
        with pytest.raises(IndexFault) as caught:
            Index.open(place, encoder)
    assert not isinstance(caught.value, IndexCorrupt)
    assert isinstance(caught.value, TriptychError)
    assert qdrant_edge.EdgeShard is not Shard
    with Index.open(place, encoder) as index:
        assert list(index.ids) == ["a"]


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_files_of_strangers_are_no_damage(engine: EngineName, tmp_path: Path, encoder: FakeEncoder) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["a"], ["w1"])
    for folder in (place, *(path for path in place.rglob("*") if path.is_dir())):
        for name in (".DS_Store", "._x", "Thumbs.db", "notes.txt"):
            (folder / name).write_bytes(b"\0mine")
    for _ in range(2):
        with Index.open(place, encoder) as index:
            assert list(index.ids) == ["a"]
            index.add(["b"], ["w2"])
            index.delete(["b"])
            index.optimize()
    assert (place / "data" / ".DS_Store").read_bytes() == b"\0mine"
    shutil.rmtree(place)
