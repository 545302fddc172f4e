"""Large additions: bounded log and memory, and vectors that other processes made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder, random_texts
from safetensors.numpy import save_file

from triptych.encode.stream import FinishedStream
from triptych.encode.stream import Store as StreamStore
from triptych.errors import IndexForeign, InputError
from triptych.index import edge
from triptych.index.index import Index
from triptych.passages import PassageOptions
from triptych.records import Document

WHOLE = PassageOptions(passages="none")


def write_stream(folder: Path, encoder: FakeEncoder, documents: list[Document], block: int = 4) -> None:
    """As `triptych encode` writes them."""
    store, number = StreamStore(folder, {}), 0
    for number, start in enumerate(range(0, len(documents), block)):
        some = documents[start : start + block]
        texts = [document.content for document in some]
        store.put(number, texts, encoder.encode_document(texts))
        (folder / f"{number:08d}.ids.json").write_text(json.dumps([document.id for document in some]))
    facts = {"model": encoder.source, "fingerprint": encoder.fingerprint, "heads": list(encoder.widths)}
    (folder / "encoded.json").write_text(json.dumps({**facts, "block": block, "blocks": number + 1}))


def read(documents: list[Document]) -> Callable[[int], Any]:
    def blocks(size: int) -> Any:
        for start in range(0, len(documents), size):
            some = documents[start : start + size]
            yield [document.id for document in some], [document.content for document in some]

    return blocks


@pytest.fixture
def documents() -> list[Document]:
    texts = [f"w{i} {text}" for i, text in enumerate(random_texts(np.random.default_rng(0), 11))]
    return [Document(f"d{i}", text, None, {"no": i}, ()) for i, text in enumerate(texts)]


def test_vectors_of_a_stream_give_the_same_index_without_encoding(
    tmp_path: Path, encoder: FakeEncoder, new_index: Callable[..., Index], documents: list[Document]
) -> None:
    write_stream(tmp_path / "stream", encoder, documents)
    stream = FinishedStream(tmp_path / "stream", read(documents))
    index = new_index("exact", encoder, multi="float32")
    encoder.calls.clear()
    run = index.synchronizer(WHOLE, block_tokens=7, stream=stream)
    run.add(documents)
    assert run.finish().added == 11
    assert encoder.calls == []
    names = [document.id for document in documents]
    expected = encoder.encode_document([document.content for document in documents])
    found = index.vectors(names)
    np.testing.assert_allclose(found.dense, expected.dense)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.multi.values, expected.multi.values)  # type: ignore[union-attr]
    again = index.synchronizer(WHOLE)
    again.add(documents)
    assert again.finish().unchanged == 11
    assert encoder.calls[1:] == [], "what came from the stream is not encoded later either"


def test_a_stream_of_other_texts_or_models_or_without_a_block_is_refused(
    tmp_path: Path, encoder: FakeEncoder, new_index: Callable[..., Index], documents: list[Document]
) -> None:
    folder = tmp_path / "stream"
    with pytest.raises(InputError, match=r"encoded\.json: cannot be read"):
        FinishedStream(folder, read(documents))
    write_stream(folder, encoder, documents)
    changed = [*documents[:5], Document("d5", "other words", None, {}, ()), *documents[6:]]
    with pytest.raises(InputError, match=r"00000001\.safetensors: is missing or of other texts"):
        FinishedStream(folder, read(changed))
    with pytest.raises(InputError, match="has 3 blocks; the input has 1"):
        FinishedStream(folder, read(documents[:4]))
    stream = FinishedStream(folder, read(documents))
    other = new_index("exact", FakeEncoder(name="other"))
    with pytest.raises(IndexForeign, match="another model"):
        other.synchronizer(WHOLE, stream=stream)
    index = new_index("exact", encoder)
    with pytest.raises(InputError, match="stay whole"):
        index.synchronizer(stream=stream)
    stream.facts["heads"] = ["dense"]
    with pytest.raises(InputError, match=r"without \['lexical', 'multi'\]"):
        index.synchronizer(WHOLE, stream=stream)
    (folder / "00000002.safetensors").unlink()
    with pytest.raises(InputError, match="is missing"):
        FinishedStream(folder, read(documents))
    save_file({"dense": np.zeros((3, 8), np.float32)}, folder / "00000002.safetensors")
    with pytest.raises(InputError, match="other texts"):
        FinishedStream(folder, read(documents))


def test_many_additions_keep_the_log_short(
    encoder: FakeEncoder, new_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "_FLUSH_BYTES", 1)
    index = new_index("edge", encoder)
    flushed: list[int] = []
    backend = index._store.engine.backend  # type: ignore[attr-defined]
    monkeypatch.setattr(backend, "flush", lambda: flushed.append(len(index)))
    index.add(["a", "b"], ["w1", "w2"], block=1)
    assert flushed == [1, 2]


def test_a_bulk_addition_moves_what_is_in_memory_to_files_and_nothing_else_does(
    new_index: Callable[..., Index],
) -> None:
    texts = random_texts(np.random.default_rng(1), 60)
    documents = [Document(f"d{i}", text or "w", None, {}, ()) for i, text in enumerate(texts)]
    index = new_index("edge", FakeEncoder(heads=("dense",)), exact_below=20)
    index.add([document.id for document in documents], texts)
    shard = index._store.engine.backend.shard  # type: ignore[attr-defined]
    assert shard.info().indexed_vectors_count == 0
    run = index.synchronizer(WHOLE, block_tokens=50)
    run.add(documents)
    run.finish()
    assert shard.info().indexed_vectors_count > 0
    assert len(index) == 60
    assert index.search("w1 w2", 5)


@pytest.mark.parametrize("engine_name", ["exact", "edge"])
def test_churn_leaves_what_is_there_and_no_more_files(
    engine_name: Any, encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    texts = [f"w{i} w{i % 7}" for i in range(80)]
    names = [f"d{i}" for i in range(80)]
    index = new_index(engine_name, encoder, multi="1bit", exact_below=10)
    index.add(names, texts)
    index.optimize()
    for turn in range(4):
        some = list(range(turn, 80, 3))
        index.delete([names[i] for i in some[::2]])
        index.add([names[i] for i in some], [f"{texts[i]} turn{turn}" for i in some])
        index.optimize()
    assert sorted(index.ids) == sorted(names)
    for i in (8, 41, 50):
        hit = index.search(f"w{i}", 1, weights=(0, 1, 0))[0]
        assert hit.id == names[i]
        assert hit.scores["multi"] > 0.2


def test_an_exact_index_that_is_read_again_after_an_interruption_keeps_its_frame(
    encoder: FakeEncoder, new_index: Callable[..., Index]
) -> None:
    index = new_index("exact", encoder, multi="1bit")
    index.add([f"d{i}" for i in range(30)], [f"w{i} w{i + 1}" for i in range(30)])
    before = index.search("w3 w4", 5)
    index._store.engine._torn = True  # type: ignore[attr-defined]
    after = index.search("w3 w4", 5)
    assert [(hit.id, hit.scores) for hit in after] == [(hit.id, hit.scores) for hit in before]


def test_after_churn_the_graph_holds_no_vector_that_is_gone_and_all_new_ones_once_they_are_many(
    new_index: Callable[..., Index],
) -> None:
    texts, names = random_texts(np.random.default_rng(4), 1500), [f"d{i}" for i in range(1500)]
    index = new_index("edge", FakeEncoder(dense=8, heads=("dense",)), exact_below=400)
    index.add(names, [text or "w" for text in texts], block=500)
    index.optimize()
    shard = index._store.engine.backend.shard  # type: ignore[attr-defined]
    assert shard.info().indexed_vectors_count == 1500
    index.delete(names[:225])
    index.add(names[225:450], ["w1 w2 new"] * 225)
    assert shard.info().indexed_vectors_count == 1500, "the engine keeps what is gone"
    index.optimize()
    assert shard.info().indexed_vectors_count == 1050
    assert shard.info().points_count == len(index) == 1275, (
        "fewer new ones than exact_below are compared as they are"
    )
    index.add(names[450:900], ["w3 w4 new"] * 450)
    index.optimize()
    assert shard.info().indexed_vectors_count == len(index) == 1275
