"""What an older build wrote is read by this one: indexes, encoded blocks, a run that was stopped.

The fixtures in ``files`` are never renewed because a test here fails: see `make_files`.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from safetensors.numpy import load_file

from triptych import Encoder, Index

from .conftest import EXACT, FILES, INPUTS, Command, read_lines

HITS: dict[str, list[list[dict[str, Any]]]] = json.loads((FILES / "hits.json").read_text("utf-8"))
DOCUMENTS = read_lines(INPUTS / "corpus.jsonl")
QUERIES = [query["text"] for query in read_lines(INPUTS / "set" / "queries.jsonl")]
CURVE: dict[str, dict[str, Any]] = json.loads((FILES / "run-curve.json").read_text("utf-8"))


def unpack(path: Path, folder: Path) -> None:
    """Unpacks a .tar.zst; blocks of zeros take no room: the edge engine's files are large and nearly empty."""
    with (
        zstandard.open(path, "rb") as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            target = folder / member.name
            data = archive.extractfile(member)
            if data is None:
                target.mkdir(parents=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while block := data.read(1 << 16):
                    if any(block):
                        file.write(block)
                    else:
                        file.seek(len(block), 1)
                file.truncate(member.size)


@pytest.fixture(params=HITS)
def engine(request: pytest.FixtureRequest, here: Path) -> str:
    """Name of an engine, and of the index that it made, unpacked in `here`."""
    unpack(FILES / f"{request.param}.tar.zst", here)
    return request.param


def test_an_older_index_finds_the_same_hits_with_the_same_scores(engine: str, here: Path) -> None:
    encoder = Encoder.from_pretrained("model", device="cpu", dtype="float32")
    with Index.open(here / engine, encoder) as index:
        assert sorted(index.ids) == [document["id"] for document in DOCUMENTS]
        found = index.search(QUERIES, 5, weights=(1, 0.3, 1))  # the default sum was another one later
        stored = index.get(["c", "gone"])
        assert index.count({"lang": "fr"}) == 2
    assert stored[0] is not None
    assert (stored[0]["text"], stored[0]["metadata"]) == ("hello world", {"lang": "fr", "year": 2022})
    assert stored[1] is None
    for hits, expected in zip(found, HITS[engine], strict=True):
        assert [hit.id for hit in hits] == [hit["id"] for hit in expected]
        for hit, old in zip(hits, expected, strict=True):
            assert hit.score == pytest.approx(old["score"], abs=1e-5)
            assert dict(hit.scores) == pytest.approx(old["scores"], abs=1e-5)


def test_an_older_index_loads_its_recorded_model_and_takes_changes(engine: str, triptych: Command) -> None:
    found = triptych("search", engine, "hello world", "--top", 1, "--json", *EXACT).lines
    assert [line["id"] for line in found] == [HITS[engine][1][0]["id"]]
    new = json.dumps({"id": "f", "text": "a text of the world"}) + "\n"
    done = triptych("index", "-", "--into", engine, "--delete", "a", "--json", *EXACT, stdin=new)
    assert done.lines[0]["documents"] == 5
    (first, *_) = triptych("search", engine, "a text of the world", "--json", *EXACT).lines
    assert first["id"] == "f"


def arrays(folder: Path) -> list[dict[str, np.ndarray[Any, Any]]]:
    return [load_file(path) for path in sorted(folder.glob("*.safetensors"))]


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for left, right in zip(found, expected, strict=True):
        assert left.keys() == right.keys()
        for name, values in right.items():
            assert left[name].dtype == values.dtype
            np.testing.assert_allclose(left[name], values, atol=1e-5)


def test_older_encoded_blocks_are_taken_as_they_are_and_missing_ones_made_alike(
    triptych: Command, here: Path
) -> None:
    shutil.copytree(FILES / "stream", here / "stream")
    (here / "stream" / "00000001.safetensors").unlink()
    order = ("encode", "corpus.jsonl", "--into", "stream", "--block", 2, *EXACT, "--model", "model")
    triptych(*order)
    for number in (0, 2):
        name = f"{number:08d}.safetensors"
        assert (here / "stream" / name).read_bytes() == (FILES / "stream" / name).read_bytes()
    for path in (FILES / "stream").glob("*.ids.json"):
        assert json.loads((here / "stream" / path.name).read_bytes()) == json.loads(path.read_bytes())
    same(arrays(here / "stream"), arrays(FILES / "stream"))
    new, old = (json.loads((at / "stream" / "encoded.json").read_bytes()) for at in (here, FILES))
    assert {**new, "model": "model"} == old


def test_new_blocks_hold_what_older_ones_hold(triptych: Command, here: Path) -> None:
    triptych("encode", "corpus.jsonl", "--into", "new", "--block", 2, *EXACT, "--model", "model")
    same(arrays(here / "new"), arrays(FILES / "stream"))
    assert sorted(p.name for p in (here / "new").iterdir()) == sorted(
        ["digests.json", *(p.name for p in (FILES / "stream").iterdir())]
    )


def test_older_encoded_blocks_are_streamed_by_the_encoder(here: Path) -> None:
    shutil.copytree(FILES / "stream", here / "stream")
    encoder = Encoder.from_pretrained("model", device="cpu", dtype="float32")
    texts = ["\n".join(filter(None, (d.get("title"), d["text"]))) for d in DOCUMENTS]
    contents = {path: path.read_bytes() for path in (here / "stream").iterdir()}
    options: dict[str, Any] = {"outputs": ("dense", "lexical", "multi"), "prefix": "", "max_length": None}
    blocks = list(encoder.encode_stream(texts, block=2, folder=here / "stream", **options))
    assert contents == {path: path.read_bytes() for path in (here / "stream").iterdir()}
    for block, old in zip(blocks, arrays(FILES / "stream"), strict=True):
        np.testing.assert_array_equal(block.dense, old["dense"])


def test_an_older_run_goes_on_as_if_it_had_not_been_stopped(triptych: Command, here: Path) -> None:
    shutil.copytree(FILES / "run", here / "run")
    *log, result = triptych("train", "-o", "run", "--resume", "--json").lines
    assert [record["step"] for record in log if "loss" in record] == [5, 6]
    assert (result["steps"], result["best_step"]) == (6, 6)
    whole = read_lines(here / "run" / "log.jsonl")
    losses = {str(record["step"]): record["loss"] for record in whole if "loss" in record}
    assert losses == pytest.approx(CURVE["losses"], rel=1e-4)
    evaluations = {str(record["step"]): record["evaluation"] for record in whole if "evaluation" in record}
    assert evaluations.keys() == CURVE["evaluations"].keys()
    for step, values in evaluations.items():
        assert values == pytest.approx(CURVE["evaluations"][step], abs=1e-4)
    assert Encoder.from_pretrained(here / "run" / "best").heads == ("dense", "lexical", "multi")
    assert Encoder.from_pretrained(here / "run" / "final").heads == ("dense", "lexical", "multi")


def test_an_older_model_gives_the_same_vectors(triptych: Command) -> None:
    for line, old in zip(
        triptych("encode", "corpus.jsonl", "--jsonl", *EXACT, "--model", "model").lines,
        np.concatenate([block["dense"] for block in arrays(FILES / "stream")]),
        strict=True,
    ):
        assert line["dense"] == pytest.approx(old.tolist(), abs=1e-5)
