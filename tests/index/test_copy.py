"""An index from one engine to another: everything the same, resumable, refused where it would mix things up."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder, random_texts

from triptych.errors import IndexFault, IndexForeign, IndexMissing, InputError
from triptych.index.copy import copy
from triptych.index.index import Index
from triptych.index.store import EngineName
from triptych.records import Document

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

N = 150
TEXTS = ["", "w1 \u0627\u0644\u0646\u0635 w2", *random_texts(np.random.default_rng(0), N - 2)]
IDS = ["\u00e9 #1", "\U0001f600/2", *(f"d{i}" for i in range(2, N))]
METADATA: list[dict[str, Any]] = [{"n": i / 2, "deep": {"list": [1.0, None, "\u00fc"]}} for i in range(N)]


def fill(index: Index) -> None:
    index.add(IDS, TEXTS, METADATA)
    index.set_weights((1, 0.5, 0.25 if "multi" in index.heads else 0))


def contents(index: Index) -> list[Any]:
    names = sorted(index.ids)
    vectors = index.vectors(names)
    assert vectors.dense is not None
    assert vectors.lexical is not None
    parts = [vectors.dense.tobytes(), vectors.lexical.toarray().tobytes()]
    multi = vectors.multi
    tokens = [] if multi is None else [multi.values.astype(np.float16).tobytes(), multi.offsets.tolist()]
    return [index.get(names), *parts, *tokens, index.weights, index.info()["model"]]


@pytest.mark.parametrize("target", ["exact", "edge", "server", "postgres"])
@pytest.mark.parametrize("form", ["float16", "2bit", None])
def test_a_copy_has_all_that_the_index_has_on_every_engine(
    new_place: Callable[[EngineName], str],
    engine: EngineName,
    place: str,
    target: EngineName,
    form: Any,
    encoder: FakeEncoder,
) -> None:
    places = place, new_place(target)
    with Index.create(places[0], encoder, engine=engine, multi=form) as index:
        fill(index)
        expected = contents(index)
        hits = index.search("w1 w2 w3", 5)
    seen: list[tuple[str, int, int | None]] = []
    report = copy(*places, engine=target, progress=lambda *each: seen.append(each))
    assert (report.documents, report.copied, report.unchanged) == (N, N, 0)
    assert seen[0] == ("copy", 0, N)
    assert seen[-1] == ("verify", N, N)
    with Index.open(places[1], encoder) as index:
        assert contents(index) == expected
        found = index.search("w1 w2 w3", 5)
    assert [hit.id for hit in found] == [hit.id for hit in hits]
    again = copy(*places)
    assert (again.copied, again.unchanged, again.digest) == (0, N, report.digest)


@pytest.mark.parametrize(
    "options",
    [{"multi": "binary"}, {"multi": "1bit", "pool_tokens": 2}, {"multi": "float16", "multi_width": 3}],
)
def test_packed_and_pooled_token_vectors_are_copied_as_they_are(
    tmp_path: Path, encoder: FakeEncoder, options: Any
) -> None:
    with Index.create(tmp_path / "0", encoder, engine="exact", **options) as index:
        fill(index)
        expected = contents(index)
    for i, engine in enumerate(("edge", "exact")):  # there and back
        copy(tmp_path / f"{i}", tmp_path / f"{i + 1}", engine=engine)
        with Index.open(tmp_path / f"{i + 1}") as index:
            assert contents(index) == expected


def test_forms_that_are_rounded_again_keep_their_scores(tmp_path: Path, encoder: FakeEncoder) -> None:
    with Index.create(tmp_path / "a", encoder, engine="exact", multi="int8") as index:
        fill(index)
        before = index.vectors(IDS).multi
    copy(tmp_path / "a", tmp_path / "b")
    with Index.open(tmp_path / "b") as index:
        after = index.vectors(IDS).multi
    assert before is not None
    assert after is not None
    assert np.abs(before.values - after.values).max() < 0.02
    assert copy(tmp_path / "a", tmp_path / "b").unchanged == N


def test_a_copy_that_was_killed_goes_on_where_it_was(tmp_path: Path, encoder: FakeEncoder) -> None:
    with Index.create(tmp_path / "a", encoder, engine="exact") as index:
        for start in range(0, N, 10):
            index.add(IDS[start : start + 10], TEXTS[start : start + 10], METADATA[start : start + 10])
    code = f"""
import os, signal, triptych.index.copy as c
real = c._missing
def kill(payloads, *rest, **more):
    if c.blocks == 3: os.kill(os.getpid(), signal.SIGKILL)
    c.blocks += 1
    return real(payloads, *rest, **more)
c.blocks, c._missing, whole = 0, kill, c.blocks_by_length
c.blocks_by_length = lambda payloads: whole(payloads, 20)
c.copy({str(tmp_path / "a")!r}, {str(tmp_path / "b")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    report = copy(tmp_path / "a", tmp_path / "b")
    assert (report.documents, report.copied, report.unchanged) == (N, N - 60, 60)
    with Index.open(tmp_path / "a") as a, Index.open(tmp_path / "b") as b:
        assert contents(a) == contents(b)


def test_origins_go_along_so_that_a_copy_is_in_step_with_its_files(
    tmp_path: Path, encoder: FakeEncoder
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "one.txt").write_text("w1 w2")
    with Index.create(tmp_path / "a", encoder) as index:
        index.add_files(files)
    copy(tmp_path / "a", tmp_path / "b", engine="exact")
    with Index.open(tmp_path / "b", encoder) as index:
        changes = index.add_files(files)
    assert (changes.unchanged, changes.added) == (1, 0)


def test_an_empty_index_can_be_copied(tmp_path: Path, encoder: FakeEncoder) -> None:
    Index.create(tmp_path / "a", encoder).close()
    assert copy(tmp_path / "a", tmp_path / "b").documents == 0
    with Index.open(tmp_path / "b", encoder) as index:
        assert len(index) == 0


def test_a_copy_mixes_nothing_and_says_what_is_in_its_way(tmp_path: Path, encoder: FakeEncoder) -> None:
    def make(name: str, ids: list[str], text: str = "w1", **options: Any) -> Path:
        options = {"multi": "float16", "by": encoder} | options
        with Index.create(tmp_path / name, options.pop("by"), engine="exact", **options) as index:
            index.add(ids, [text] * len(ids))
        return tmp_path / name

    source = make("source", ["x", "y"])
    with pytest.raises(InputError, match="1 documents that the source does not have, such as 'z'"):
        copy(source, make("more", ["x", "z"]))
    with pytest.raises(InputError, match="another document 'x' than the source"):
        copy(source, make("other", ["x"], "w2"))
    with pytest.raises(InputError, match="layout multi='binary'; expected 'float16'"):
        copy(source, make("layout", [], multi="binary"))
    with pytest.raises(IndexForeign, match="model 'another'; expected none yet, or those of 'fake'"):
        copy(source, make("model", [], by=FakeEncoder(name="another")))
    with pytest.raises(InputError, match="twice"):
        copy(source, tmp_path / "x" / ".." / "source")
    with pytest.raises(IndexMissing):
        copy(tmp_path / "nothing", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    report = copy(source, tmp_path / "more", replace=True)
    assert (report.removed, report.copied, report.unchanged) == (1, 1, 1)
    report = copy(source, tmp_path / "other", replace=True)
    assert (report.removed, report.copied, report.unchanged) == (0, 2, 0)


def test_a_source_that_another_holds_is_read_alone(tmp_path: Path, encoder: FakeEncoder) -> None:
    with Index.create(tmp_path / "a", encoder, engine="exact") as index:
        index.add(["x"], ["w1"])
        assert copy(tmp_path / "a", tmp_path / "b").documents == 1


def test_what_is_read_back_otherwise_than_it_was_is_an_error(
    tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triptych.index.exact import ExactEngine

    with Index.create(tmp_path / "a", encoder, engine="edge") as index:
        fill(index)
    real: Callable[..., None] = ExactEngine.add

    def lose(self: ExactEngine, vectors: Any, payloads: Any) -> None:
        vectors.dense[0, 0] += 1
        real(self, vectors, payloads)

    monkeypatch.setattr(ExactEngine, "add", lose)
    with pytest.raises(IndexFault, match=f"got {N} documents with the digest .*; expected {N} with"):
        copy(tmp_path / "a", tmp_path / "b", engine="exact")


def test_documents_of_many_points_are_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triptych.index import qdrant

    monkeypatch.setattr(qdrant, "POINT_NUMBERS", 20)
    encoder = FakeEncoder()
    with Index.create(tmp_path / "a", encoder) as index:
        index.add(["long"], [" ".join(f"w{i}" for i in range(40))])
        expected = contents(index)
    copy(tmp_path / "a", tmp_path / "b")
    with Index.open(tmp_path / "b") as index:
        assert contents(index) == expected


def test_add_encoded_stores_vectors_and_refuses_others(tmp_path: Path, encoder: FakeEncoder) -> None:
    vectors = encoder.encode_document(["w1 w2", "w3"])
    calls = len(encoder.calls)
    with Index.create(tmp_path / "a", encoder, multi="float32") as index:
        assert index.add_encoded(["x", "y"], ["w1 w2", "w3"], vectors, [{"n": 1}, None]) == 2
        assert index.search("w3", 1)[0].id == "y"
        with pytest.raises(InputError, match="expected an Encoded"):
            index.add_encoded(["x"], ["w"], [[1.0]])  # type: ignore[arg-type]
        with pytest.raises(InputError, match="vectors of 2 texts for 1 payloads"):
            index.add_encoded(["z"], ["w"], vectors)
        with pytest.raises(InputError, match="dense vectors of 9 columns; expected 8"):
            index.add_encoded(["z"], ["w"], FakeEncoder(dense=9).encode_document(["w"]))
        assert len(index) == 2
    assert len(encoder.calls) == calls


def test_documents_with_passages_are_copied(tmp_path: Path, encoder: FakeEncoder) -> None:
    with Index.create(tmp_path / "a", encoder) as index:
        index.add_documents([Document("long", " ".join(["w1"] * 900))])
        count = len(index)
    assert count > 1
    copy(tmp_path / "a", tmp_path / "b", engine="exact")
    with Index.open(tmp_path / "b") as index:
        assert [each["id"] for each in index.passages("long")] == [f"long#{i + 1}" for i in range(count)]
