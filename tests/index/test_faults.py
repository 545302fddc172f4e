"""Killed processes, full disks, damaged files, locks, foreign models."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

import pytest
from fakes import FakeEncoder

from triptych.errors import (
    IndexCorrupt,
    IndexExists,
    IndexFault,
    IndexForeign,
    IndexLocked,
    IndexMissing,
    InputError,
    StorageError,
)
from triptych.index import server
from triptych.index.exact import ExactEngine
from triptych.index.index import Index
from triptych.index.storage import MANIFEST
from triptych.index.store import EngineName

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

FOLDER_ENGINES = ("exact", "edge")

ADDER = """
import resource, sys
sys.path.insert(0, {tests!r})
from fakes import FakeEncoder
from triptych.errors import StorageError
from triptych.index.index import Index

index = Index.open({place!r}, FakeEncoder(dense=64, multi={multi}))
limit, start = {limit}, len(index)
try:
    for base in range(start, 10**6, 1000):
        ids = [f"d{{i}}" for i in range(base, base + 1000)]
        texts = [f"word{{i}} " + "w1 w2 w3 w4 w5 w6 w7 " * {repeat} for i in range(base, base + 1000)]

        def stored(stage, done, total):
            if done:
                print(base + done, flush=True)
            if limit and base + done >= 64:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        index.add(ids, texts, block=16, progress=stored)
except StorageError as error:
    print("StorageError", error, flush=True)
"""


def start_adder(place: Path, *, multi: int = 16, repeat: int = 1, limit: int = 0) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parent)
    code = textwrap.dedent(ADDER).format(
        tests=tests, place=str(place), multi=multi, repeat=repeat, limit=limit
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def assert_holds(place: Path, acknowledged: int, encoder: FakeEncoder) -> int:
    """Checks that all acknowledged documents are there, whole, and found; returns how many there are."""
    with Index.open(place, encoder) as index:
        documents = index.get([f"d{i}" for i in range(acknowledged)])
        assert [d["text"].split()[0] for d in documents if d] == [f"word{i}" for i in range(acknowledged)]
        for i in {0, acknowledged // 2, acknowledged - 1}:
            hit = index.search(f"word{i}", 1, weights=(0, 0, 1), routes=("dense", "lexical", "multi"))[0]
            assert hit.id == f"d{i}"
            assert hit.scores["multi"] == pytest.approx(1, abs=1e-2)
        return len(index)


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_a_process_killed_within_add_loses_nothing_acknowledged(engine: EngineName, tmp_path: Path) -> None:
    encoder, place = FakeEncoder(dense=64, multi=16), tmp_path / "an.index"
    Index.create(place, encoder, engine=engine, multi="float16").close()
    total = 0
    for kill_after in (1, 5, 12):
        process = start_adder(place)
        assert process.stdout is not None
        acknowledged = 0
        for count, line in enumerate(process.stdout, 1):
            acknowledged = int(line)
            if count == kill_after:
                process.send_signal(signal.SIGKILL)
        # What was printed between the signal and the end was acknowledged, too; the loop has read it.
        assert process.wait() == -signal.SIGKILL
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        there = assert_holds(place, acknowledged, encoder)
        assert total < acknowledged <= there <= acknowledged + 16
        total = there


def test_an_add_that_ctrl_c_cuts_short_after_its_segment_was_written_harms_nothing(
    tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    place = tmp_path / "x.index"
    with Index.create(place, encoder, engine="exact") as index:
        index.add(["a"], ["w1"])
        with monkeypatch.context() as patch:
            patch.setattr(ExactEngine, "_apply", interrupted)
            with pytest.raises(KeyboardInterrupt):
                index.add(["b"], ["w2"])
    with Index.open(place, encoder) as index:
        assert len(index) == 2


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_when_writing_fails_what_was_acknowledged_is_kept(engine: EngineName, tmp_path: Path) -> None:
    encoder, place = FakeEncoder(dense=64, multi=256), tmp_path / "an.index"
    Index.create(place, encoder, engine=engine, multi="float16").close()
    process = start_adder(place, multi=256, repeat=20, limit=100_000)
    output, errors = process.communicate(timeout=300)
    *numbers, last = output.splitlines()
    assert process.returncode == 0, errors
    assert last.startswith("StorageError")
    assert "Nothing that was acknowledged before is lost" in last
    acknowledged = int(numbers[-1])
    assert acknowledged >= 64
    assert acknowledged <= assert_holds(place, acknowledged, encoder) <= acknowledged + 16
    with Index.open(place, encoder) as index:  # and it can be written again
        index.add(["new"], ["w1"])
        assert index.get(["new"]) != [None]


def test_the_embedded_engine_stops_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, place = FakeEncoder(), tmp_path / "an.index"
    usage = namedtuple("usage", "total used free")
    with Index.create(place, encoder, engine="edge") as index:
        index.add(["a"], ["w1"])
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
        for step in (lambda: index.add(["b"], ["w2"]), lambda: index.delete(["a"]), index.optimize):
            with pytest.raises(StorageError, match="1 MB left"):
                step()
        assert [hit.id for hit in index.search("w1")] == ["a"]
    with pytest.raises(StorageError, match="1 MB left"):
        Index.open(place, encoder)
    with pytest.raises(StorageError, match="1 MB left"):
        Index.create(tmp_path / "new.index", encoder)
    assert not (tmp_path / "new.index").exists()
    monkeypatch.undo()
    with Index.open(place, encoder) as index:
        assert list(index.ids) == ["a"]


@pytest.mark.parametrize("engine", [*FOLDER_ENGINES, "server"])
def test_an_index_is_open_once_at_a_time_in_one_process(
    engine: EngineName, place: str, encoder: FakeEncoder
) -> None:
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["a"], ["w1"])
        with pytest.warns(ResourceWarning) if engine == "server" else _nothing(), pytest.raises(IndexLocked):
            Index.open(place, encoder)
        assert len(index) == 1
    Index.open(place, encoder).close()


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_an_index_is_open_once_at_a_time_across_processes(
    engine: EngineName, tmp_path: Path, encoder: FakeEncoder
) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine=engine), pytest.raises(IndexLocked, match="open elsewhere"):
        _in_process(place)
    assert _in_process(place) == 0


def _in_process(place: Path) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_open_and_count, (str(place),))


def _open_and_count(place: str) -> int:
    with Index.open(place, FakeEncoder()) as index:
        return len(index)


def test_another_model_is_refused_and_the_index_stays_usable(
    engine: EngineName, place: str, encoder: FakeEncoder
) -> None:
    Index.create(place, encoder, engine=engine).close()
    with pytest.raises(IndexForeign, match=r"'fake'.*'other'"):
        Index.open(place, FakeEncoder(name="other"))
    Index.open(place, encoder).close()


def test_a_place_that_is_taken_is_refused(engine: EngineName, place: str, encoder: FakeEncoder) -> None:
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["a"], ["w1"])
    with pytest.raises(IndexExists):
        Index.create(place, encoder, engine=engine)
    with Index.open(place, encoder) as index:
        assert list(index.ids) == ["a"]


def test_an_empty_folder_can_become_an_index_and_others_are_refused(
    tmp_path: Path, encoder: FakeEncoder
) -> None:
    (tmp_path / "empty").mkdir()
    Index.create(tmp_path / "empty", encoder).close()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(IndexExists):
            Index.create(tmp_path / name, encoder)
    with pytest.raises(StorageError):
        Index.create(tmp_path / "file" / "below", encoder)
    Index.create(tmp_path / "deep" / "er", encoder).close()
    assert (tmp_path / "full" / "precious.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "empty", "file", "full"]


def test_what_is_not_an_index_is_missing(tmp_path: Path, encoder: FakeEncoder) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MANIFEST).write_text('{"name": "web app"}')
    for name, found in (
        ("folder", "a folder without"),
        ("file", "a file"),
        ("none", "nothing"),
        ("other", "not an"),
    ):
        with pytest.raises(IndexMissing, match=found):
            Index.open(tmp_path / name, encoder)
    with pytest.raises(IndexMissing):
        Index.open(f"local:{tmp_path / 'nobody'}", encoder)


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_damaged_files_are_refused_and_left_alone(
    engine: EngineName, tmp_path: Path, encoder: FakeEncoder
) -> None:
    place = tmp_path / "good.index"
    with Index.create(place, encoder, engine=engine) as index:
        for i in range(3):
            index.add([f"{i}"], [f"w{i}"])
    for name in _files_that_matter(engine, place):
        for damage in (_truncate, Path.unlink):
            copy = tmp_path / "copy.index"
            shutil.copytree(place, copy)
            damage(copy / name)
            before = (copy / name).read_bytes() if (copy / name).exists() else None
            with pytest.raises(IndexMissing if (name, before) == (MANIFEST, None) else IndexCorrupt):
                Index.open(copy, encoder)
            assert ((copy / name).read_bytes() if (copy / name).exists() else None) == before
            shutil.copy(place / name, copy / name)
            with Index.open(copy, encoder) as index:
                assert sorted(index.ids) == ["0", "1", "2"]
            shutil.rmtree(copy)


@pytest.mark.parametrize("engine", FOLDER_ENGINES)
def test_damage_is_noticed_by_the_engine_too_where_the_last_process_was_killed(
    engine: EngineName, tmp_path: Path, encoder: FakeEncoder
) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine=engine) as index:
        index.add(["a"], ["w1"])
        index.add(["b"], ["w1"])
    (place / "closed.json").unlink()  # as after a kill
    _truncate(place / next(name for name in _files_that_matter(engine, place) if name != MANIFEST))
    with pytest.raises(IndexCorrupt):
        Index.open(place, encoder)


def test_a_lost_document_is_noticed_by_the_count(tmp_path: Path, encoder: FakeEncoder) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine="exact") as index:
        index.add(["a"], ["w1"])
    record = json.loads((place / "closed.json").read_text())
    (place / "closed.json").write_text(json.dumps(record | {"documents": 2}))
    with pytest.raises(IndexCorrupt, match="found 1 documents; expected 2"):
        Index.open(place, encoder)
    (place / "closed.json").write_text("{}")
    with pytest.raises(IndexCorrupt, match=r"closed\.json"):
        Index.open(place, encoder)


def _files_that_matter(engine: EngineName, place: Path) -> list[str]:
    if engine == "exact":
        return [MANIFEST, *(f"data/{i:08d}.safetensors" for i in (1, 2))]
    segment = next((place / "data" / "segments").iterdir())
    inner = ["segment.json", "mutable_id_tracker.mappings", "payload_storage/config.json"]
    return [MANIFEST, "data/edge_config.json", *(str((segment / name).relative_to(place)) for name in inner)]


def _truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def test_a_changed_bit_in_a_segment_of_the_exact_engine_is_noticed(
    tmp_path: Path, encoder: FakeEncoder
) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine="exact") as index:
        index.add(["a"], ["w1 w2"])
    path = place / "data" / "00000001.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(IndexCorrupt, match="checksum"):
        Index.open(place, encoder)


def test_the_last_segment_missing_is_noticed_after_a_proper_close(
    tmp_path: Path, encoder: FakeEncoder
) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine="exact") as index:
        index.add(["a"], ["w1"])
        index.add(["b"], ["w2"])
    (place / "data" / "00000002.safetensors").unlink()
    with pytest.raises(IndexCorrupt, match=r"00000002.*found no file"):
        Index.open(place, encoder)


def test_another_layout_version_or_engine_is_refused(tmp_path: Path, encoder: FakeEncoder) -> None:
    place = tmp_path / "an.index"
    Index.create(place, encoder).close()
    good = json.loads((place / MANIFEST).read_text())
    bad = [
        ({"version": 99}, "version 99"),
        ({"engine": "warp"}, "'warp'"),
        ({"layout": good["layout"] | {"multi": "3bit"}}, "3bit"),
        ({"layout": {"widths": {}}}, "fields"),
    ]
    for change, text in bad:
        (place / MANIFEST).write_text(json.dumps(good | change))
        with pytest.raises(IndexForeign, match=text):
            Index.open(place, encoder)
    for change in ({"model": 3}, {"model": {}}, {"engine": 5}):
        (place / MANIFEST).write_text(json.dumps(good | change))
        with pytest.raises(IndexCorrupt):
            Index.open(place, encoder)


def test_a_closed_index_says_so(engine: EngineName, place: str, encoder: FakeEncoder) -> None:
    index = Index.create(place, encoder, engine=engine)
    index.close()
    index.close()
    steps = [
        lambda: index.add(["a"], ["b"]),
        lambda: index.delete(["a"]),
        lambda: index.search("a"),
        lambda: index.get(["a"]),
        lambda: list(index.ids),
        lambda: len(index),
        index.info,
        index.flush,
        index.optimize,
    ]
    for step in steps:
        with pytest.raises(IndexFault, match="closed"):
            step()


def test_the_recorded_model_is_loaded_when_it_is_first_needed(
    tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Index.create(tmp_path / "an.index", encoder).close()
    from triptych.encode.encoder import Encoder

    loaded: list[str] = []

    def load(source: str) -> FakeEncoder:
        loaded.append(source)
        return FakeEncoder(name="fake" if len(loaded) == 1 else "changed")

    monkeypatch.setattr(Encoder, "from_pretrained", load)
    with Index.open(tmp_path / "an.index") as index:
        assert len(index) == 0
        assert loaded == []
        index.add(["a"], ["w1"])
        assert [hit.id for hit in index.search("w1")] == ["a"]
        assert loaded == ["fake"]
    with Index.open(tmp_path / "an.index") as index, pytest.raises(IndexForeign):
        index.search("w1")


def test_without_the_client_a_server_needs_the_extra(
    encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ImportError, match=r"triptych\[qdrant\]"):
        Index.open("http://localhost:1/name", encoder)


@pytest.mark.parametrize(
    "address", ["http://localhost:6333", "https://", "http://host/a?x=1", "http:///name"]
)
def test_an_address_without_a_collection_is_refused(address: str, encoder: FakeEncoder) -> None:
    with pytest.raises(InputError, match="collection"):
        server.connect(address)


def test_a_server_that_is_not_there_is_a_fault(encoder: FakeEncoder) -> None:
    with pytest.raises(IndexFault, match="did not answer"):
        Index.open("http://127.0.0.1:9/name", encoder)
