"""Damage is found and named, by opening where that is quick and by `check`; `repair` keeps what can be read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeEncoder

from triptych.errors import IndexCorrupt, IndexFault, IndexLocked, IndexMissing, InputError
from triptych.index import storage
from triptych.index.check import check, repair
from triptych.index.index import Index
from triptych.index.store import EngineName

ENGINES = ("exact", "edge")
TEXTS = {f"{i}": f"w1 word{i}" for i in range(6)}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    return request.param


@pytest.fixture
def made(tmp_path: Path, encoder: FakeEncoder, engine: EngineName) -> Path:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine=engine) as index:
        for name, text in TEXTS.items():
            index.add([name], [text])
    return place


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << (at % 8)
    path.write_bytes(data)


def files_of(place: Path) -> list[Path]:
    return [path for path in sorted(place.rglob("*")) if path.is_file() and path.name != "lock"]


def test_a_whole_index_has_no_problems_and_a_check_changes_nothing(made: Path, engine: str) -> None:
    before = {path: path.read_bytes() for path in files_of(made)}
    health = check(made)
    assert (health.engine, health.closed, health.documents, health.problems) == (engine, True, 6, ())
    assert {path: path.read_bytes() for path in files_of(made)} == before
    assert json.loads(json.dumps(health.to_json()))["documents"] == 6
    assert repair(made) == health


def test_a_flipped_bit_in_any_file_is_found_by_opening_and_by_a_check(
    made: Path, encoder: FakeEncoder, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    for number, path in enumerate(files_of(made)):
        size = path.stat().st_size
        for at in (7 * number + 3, size - 1) if size else ():
            storage.copy_sparse(made, copy)
            flip(copy / path.relative_to(made), at)
            said, names = "", list[str]()
            try:
                with Index.open(copy, encoder) as index:
                    names = sorted(index.ids)
            except IndexFault as error:
                said = str(error)
            ours = path.parent == made  # where a digest or a time may change, on which nothing else rests
            assert path.name in said or ours, (path, at, said)
            assert said or names == list(TEXTS)
            shutil.rmtree(copy)


def test_large_files_are_compared_by_a_check_alone(
    made: Path, encoder: FakeEncoder, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_QUICK", 0)
    path = max(files_of(made), key=lambda path: path.stat().st_blocks)
    flip(path, path.stat().st_size - 1 if engine == "exact" else 100)
    health = check(made)
    assert path.name in " ".join(health.problems)
    assert health.documents is None
    if engine == "exact":
        with pytest.raises(IndexCorrupt):
            Index.open(made, encoder)


def test_an_index_of_a_killed_process_is_checked_and_sealed_by_a_repair(
    made: Path, encoder: FakeEncoder
) -> None:
    (made / "closed.json").unlink()
    health = check(made)
    assert (health.closed, health.documents, health.problems) == (False, 6, ())
    assert not (made / "closed.json").exists()
    assert repair(made).closed
    assert (made / "closed.json").exists()


@pytest.mark.parametrize("seal", ["{", "[]", '{"documents": 6, "files": {"none.dat": 5}}'])
def test_a_seal_that_describes_other_files_is_made_anew(made: Path, encoder: FakeEncoder, seal: str) -> None:
    (made / "closed.json").write_text(seal)
    with pytest.raises(IndexCorrupt):
        Index.open(made, encoder)
    assert repair(made).problems == ()
    with Index.open(made, encoder) as index:
        assert sorted(index.ids) == list(TEXTS)


def _truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [_truncate, Path.unlink, lambda path: flip(path, 200)])
def test_the_exact_engine_keeps_the_documents_of_all_other_files(
    tmp_path: Path, encoder: FakeEncoder, damage: Callable[[Path], None]
) -> None:
    place = tmp_path / "x.index"
    with Index.create(place, encoder, engine="exact") as index:
        for name, text in TEXTS.items():
            index.add([name], [text])
    damage(place / "data" / "00000003.safetensors")
    with pytest.raises(IndexCorrupt, match="00000003"):
        Index.open(place, encoder)
    assert "00000003" in " ".join(check(place).problems)
    health = repair(place)
    assert (health.documents, health.problems) == (5, ())
    assert all((place / name).exists() for name in health.moved)
    with Index.open(place, encoder) as index:
        assert sorted(index.ids) == ["0", "1", "3", "4", "5"]
        index.add(["2"], [TEXTS["2"]])
    assert check(place).documents == 6


def test_the_embedded_engine_does_without_a_damaged_log(tmp_path: Path, encoder: FakeEncoder) -> None:
    place = tmp_path / "x.index"
    with Index.create(place, encoder, engine="edge") as index:
        index.add(list(TEXTS), list(TEXTS.values()))
    log = next(path for path in files_of(place) if path.parent.name == "wal" and path.name.startswith("open"))
    log.write_bytes(b"\xff" * 4000)
    with pytest.raises(IndexCorrupt, match="wal"):
        Index.open(place, encoder)
    health = repair(place)
    assert (health.documents, health.problems) == (6, ())
    with Index.open(place, encoder) as index:
        assert [hit.id for hit in index.search("word3", 1, weights=(0, 1, 0))] == ["3"]
        index.add(["new"], ["w9"])
    with Index.open(place, encoder) as index:
        assert len(index) == 7


def test_what_nothing_helps_is_left_as_it_is(tmp_path: Path, encoder: FakeEncoder) -> None:
    place = tmp_path / "x.index"
    with Index.create(place, encoder, engine="edge") as index:
        index.add(["a"], ["w1"])
    (place / "data" / "edge_config.json").write_text("{")
    before = {path: path.read_bytes() for path in files_of(place)}
    with pytest.raises(IndexCorrupt):
        repair(place)
    assert {path: path.read_bytes() for path in files_of(place)} == before


def test_what_cannot_be_checked_is_refused(tmp_path: Path, made: Path, encoder: FakeEncoder) -> None:
    for step in (check, repair):
        with pytest.raises(InputError, match="a server checks its own files"):
            step("http://host/name")
        with pytest.raises(IndexMissing):
            step(tmp_path / "none")
        with pytest.raises(InputError, match="place"):
            step(None)  # type: ignore[arg-type]
        with Index.open(made, encoder), pytest.raises(IndexLocked):
            step(made)
