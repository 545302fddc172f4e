"""Reading an index beside other processes and beside a writer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes import FakeEncoder

from triptych.errors import IndexFault, IndexLocked
from triptych.index.index import Index

READ = """
import sys
from triptych.index.index import Index
with Index.open(sys.argv[1], read_only=True) as index:
    print(len(index), flush=True)
    sys.stdin.readline()
    print(len(index), flush=True)
"""


@pytest.mark.parametrize("engine", ["exact", "edge"])
def test_readers_in_several_processes_and_a_writer_after_them(
    engine: str, encoder: FakeEncoder, tmp_path: Path
) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine=engine) as index:  # type: ignore[arg-type]
        index.add(["a", "b"], ["w1", "w2"])
    before = {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
    command = [sys.executable, "-c", READ, str(place)]
    readers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        assert [reader.stdout.readline() for reader in readers if reader.stdout] == ["2\n", "2\n"]
        assert {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()} == before
        with Index.open(place, encoder) as index:
            index.add(["c"], ["w3"])
        for reader in readers:
            assert reader.communicate("\n")[0] == "2\n", "a reader keeps what it found"
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def test_the_exact_engine_is_read_beside_its_writer(encoder: FakeEncoder, tmp_path: Path) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine="exact") as writer:
        for i in range(40):
            writer.add([f"{i}"], [f"w{i}"])
            with Index.open(place, encoder, read_only=True) as reader:
                assert len(reader) == i + 1
                assert reader.search(f"w{i}", k=1)[0].id == f"{i}"
                with pytest.raises(IndexFault, match="reading alone"):
                    reader.add(["x"], ["w1"])
        assert len(writer) == 40


def test_the_embedded_engine_beside_its_writer_says_what_to_do(encoder: FakeEncoder, tmp_path: Path) -> None:
    place = tmp_path / "an.index"
    with Index.create(place, encoder, engine="edge"), pytest.raises(IndexLocked, match="triptych serve"):
        Index.open(place, encoder, read_only=True)
