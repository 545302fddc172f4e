"""Encoding block by block, going on after an interruption, and worker processes."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

import twin
from checkpoints import TEXTS
from triptych import Encoded, Encoder
from triptych.encode.encoder import TruncationWarning, _load_on, _threads_each
from triptych.encode.stream import (
    Store,
    WorkerPool,
    encode_blocks,
    pack,
    prepare_ahead,
    unpack,
)
from triptych.errors import InputError, StorageError, WorkerError
from triptych.scores.packing import damage
from triptych.types import Ragged

MANY = [f"{text} {i}" for i in range(5) for text in TEXTS]
ROUNDING = 2e-6


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Makes a hang an error."""

    def late(*_: object) -> None:
        raise TimeoutError(f"nothing happened for {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts of each call of `encode`."""
    counted: list[int] = []
    encode = Encoder.encode

    def counting(self: Encoder, texts: Any, **options: Any) -> Encoded:
        counted.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(Encoder, "encode", counting)
    return counted


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_the_blocks_together_equal_one_call(encoder: Encoder, block: int) -> None:
    parts = list(encoder.encode_stream(MANY, block=block))
    assert [len(part) for part in parts[:-1]] == [block] * (len(parts) - 1)
    twin.assert_same(Encoded.concat(parts), encoder.encode(MANY), ROUNDING)


def test_it_takes_any_iterable_and_reads_no_further_than_the_block_it_gives(encoder: Encoder) -> None:
    read: list[int] = []

    def endless() -> Iterator[str]:
        for i in itertools.count():
            read.append(i)
            yield f"text {i}"

    stream = encoder.encode_stream(endless(), block=4)
    assert len(next(stream)) == 4
    assert len(read) == 4


def test_no_texts_give_no_blocks(encoder: Encoder, tmp_path: Path) -> None:
    assert list(encoder.encode_stream([], folder=tmp_path)) == []


def test_it_uses_the_prefix_of_documents_unless_told_otherwise(folder: Path) -> None:
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32", document_prefix="passage ")
    (documents,) = encoder.encode_stream(TEXTS)
    twin.assert_same(documents, encoder.encode_document(TEXTS))
    (queries,) = encoder.encode_stream(TEXTS, prefix="query ", outputs="dense")
    twin.assert_same(queries, encoder.encode(TEXTS, prefix="query ", outputs="dense"))


@pytest.mark.parametrize("texts", ["a bare string"])
def test_a_bare_string_and_an_empty_block_are_errors(encoder: Encoder, texts: str) -> None:
    with pytest.raises(InputError, match="iterable of strings"):
        next(encoder.encode_stream(texts))
    with pytest.raises(InputError, match="block: got 0"):
        next(encoder.encode_stream(TEXTS, block=0))


def test_what_is_on_the_disk_is_not_encoded_again(encoder: Encoder, tmp_path: Path, calls: list[int]) -> None:
    stream = encoder.encode_stream(MANY, block=8, folder=tmp_path)
    first = [next(stream) for _ in range(3)]
    stream.close()
    assert calls == [8] * 3
    again = list(encoder.encode_stream(MANY, block=8, folder=tmp_path))
    assert calls == [8] * 5
    for left, right in zip(first, again, strict=False):
        twin.assert_same(left, right, 0)
    assert len(list(encoder.encode_stream(MANY, block=8, folder=tmp_path, token_budget=64))) == 5
    assert calls == [8] * 5


def test_a_block_that_was_lost_is_made_again(encoder: Encoder, tmp_path: Path, calls: list[int]) -> None:
    whole = Encoded.concat(list(encoder.encode_stream(MANY, block=8, folder=tmp_path)))
    sorted(tmp_path.iterdir())[1].unlink()
    twin.assert_same(Encoded.concat(list(encoder.encode_stream(MANY, block=8, folder=tmp_path))), whole, 0)
    assert calls == [8] * 6


def test_blocks_of_other_texts_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    list(encoder.encode_stream(MANY, block=8, folder=tmp_path))
    changed = [*MANY[:9], "another", *MANY[10:]]
    with pytest.raises(InputError, match=r"00000001\.safetensors: was made with other texts"):
        list(encoder.encode_stream(changed, block=8, folder=tmp_path))


@pytest.mark.parametrize("options", [{"prefix": "q"}, {"outputs": "dense"}, {"max_length": 20}, {"block": 9}])
def test_blocks_made_with_other_options_are_refused(
    encoder: Encoder, tmp_path: Path, options: dict[str, Any]
) -> None:
    list(encoder.encode_stream(TEXTS, block=8, folder=tmp_path))
    with pytest.raises(InputError, match="was made with another model or other options"):
        list(encoder.encode_stream(TEXTS, folder=tmp_path, **({"block": 8} | options)))


@pytest.mark.parametrize("changes", [{"pooling": "mean"}, {"dtype": "bfloat16"}])
def test_blocks_of_another_model_or_precision_are_refused(
    encoder: Encoder, folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    list(encoder.encode_stream(TEXTS, folder=tmp_path))
    other = Encoder.from_pretrained(folder, device="cpu", **({"dtype": "float32"} | changes))
    with pytest.raises(InputError, match=r"00000000\.safetensors: was made with another model"):
        list(other.encode_stream(TEXTS, folder=tmp_path))


def test_a_broken_block_is_an_error_that_names_it(encoder: Encoder, tmp_path: Path) -> None:
    list(encoder.encode_stream(TEXTS, folder=tmp_path))
    (tmp_path / "00000000.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"00000000\.safetensors: cannot be read.*remove it"):
        list(encoder.encode_stream(TEXTS, folder=tmp_path))


def test_a_full_disk_is_an_error_and_the_blocks_before_it_stay(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    stream = encoder.encode_stream(MANY, block=8, folder=tmp_path)
    next(stream)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"00000001\.safetensors: cannot be written: No space left"):
            next(stream)
    assert [path.name for path in tmp_path.iterdir()] == ["00000000.safetensors"]
    assert len(list(encoder.encode_stream(MANY, block=8, folder=tmp_path))) == 5
    assert calls == [8] * (2 + 4)


@pytest.mark.parametrize("heads", [("dense",), ("lexical", "multi"), None])
def test_a_stored_block_comes_back_as_it_was(encoder: Encoder, tmp_path: Path, heads: Any) -> None:
    encoded = encoder.encode(TEXTS, outputs=heads)
    twin.assert_same(unpack(pack(encoded)), encoded, 0)
    store = Store(tmp_path / "new" / "folder", {"a": 1})
    assert store.get(0, TEXTS) is None
    store.put(0, TEXTS, encoded)
    found = store.get(0, TEXTS)
    assert found is not None
    twin.assert_same(found, encoded, 0)


KILLED = """
import os, signal, sys
from pathlib import Path
from triptych import Encoder
encoder = Encoder.from_pretrained(sys.argv[1], device="cpu", dtype="float32")
replace, written = Path.replace, []
def killing(self, target):
    written.append(target)
    if len(written) == 3:  # the third block is on the disk under its temporary name
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = killing
texts = Path(sys.argv[3]).read_text().split("\\n")
list(encoder.encode_stream(texts, block=8, folder=sys.argv[2]))
"""


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_preparing_the_next_block_in_a_thread_changes_nothing(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """What runs where there is a GPU."""
    plain = list(encoder.encode_stream(MANY, block=block, folder=tmp_path / "plain"))
    monkeypatch.setattr(Encoder, "_overlaps", True)
    prepared = list(encoder.encode_stream(MANY, block=block, folder=tmp_path / "prepared"))
    for left, right in zip(plain, prepared, strict=True):
        twin.assert_same(left, right, 0)
    assert list(encoder.encode_stream([], block=block)) == []
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("plain", "prepared")]
    assert names[0] == names[1]
    again = list(encoder.encode_stream(MANY, block=block, folder=tmp_path / "plain"))
    twin.assert_same(Encoded.concat(again), Encoded.concat(plain), 0)


def test_the_next_block_is_prepared_while_one_is_computed() -> None:
    """The first block's vectors are there only when the second has been prepared."""
    second, done = threading.Event(), list[str]()

    def prepare(texts: list[str]) -> Callable[[], Callable[[], Encoded]]:
        done.append(f"prepare {texts[0]}")
        if texts == ["b"]:
            second.set()

        def wait() -> Encoded:
            assert second.wait(20)
            return Encoded(np.zeros((1, 2), np.float32), None, None)

        def compute() -> Callable[[], Encoded]:
            done.append(f"compute {texts[0]}")
            return wait

        return compute

    with ThreadPoolExecutor(1) as thread:
        start = prepare_ahead(prepare, thread)
        assert len(list(encode_blocks([["a"], ["b"], ["c"]], start, ahead=2))) == 3
    assert [event for event in done if event[0] == "c"] == ["compute a", "compute b", "compute c"]


def test_an_error_in_preparing_comes_out_after_the_blocks_before_it(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "_overlaps", True)
    stream = encoder.encode_stream(["fine", "half \ud800 of a pair"], block=1)
    assert len(next(stream)) == 1
    with pytest.raises(InputError, match="expected Unicode text"):
        next(stream)


@pytest.mark.slow
def test_after_a_kill_in_the_middle_of_writing_it_goes_on(
    encoder: Encoder, folder: Path, tmp_path: Path, calls: list[int]
) -> None:
    (tmp_path / "texts").write_text("\n".join(MANY))
    arguments = [str(folder), str(tmp_path / "blocks"), str(tmp_path / "texts")]
    process = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, timeout=120, check=False
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert len(list((tmp_path / "blocks").glob("0*.safetensors"))) == 2
    parts = list(encoder.encode_stream(MANY, block=8, folder=tmp_path / "blocks"))
    assert calls == [8] * 3, "two of the five blocks were there"
    twin.assert_same(Encoded.concat(parts), encoder.encode(MANY), ROUNDING)


@pytest.mark.slow
def test_two_workers_give_what_one_process_gives_and_a_dead_one_is_an_error(
    encoder: Encoder, tmp_path: Path
) -> None:
    """One pool for both halves, since starting it takes seconds."""
    with deadline(120), encoder.workers(["cpu", "cpu"]) as pool:
        options = {"outputs": ("dense", "multi")}
        futures = [pool.submit(MANY[i : i + 8], options) for i in range(0, len(MANY), 8)]
        parts = [pool.result(future) for future in futures]
        twin.assert_same(Encoded.concat(parts), encoder.encode(MANY, **options), ROUNDING)
        with pytest.raises(InputError, match="expected one or more of"):
            pool.result(pool.submit(["a"], {"outputs": ("spares",)}))
        victim = next(iter(pool._processes))
        waiting = [pool.submit(MANY * 20, {}) for _ in range(4)]
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(WorkerError, match="a worker process died"):
            Encoded.concat([pool.result(future) for future in waiting])
        with pytest.raises(WorkerError, match="a worker process died"):
            pool.submit(["a"], {})


@pytest.mark.slow
def test_a_stream_through_workers_equals_one_without_and_fills_the_same_folder(
    folder: Path, tmp_path: Path, calls: list[int]
) -> None:
    """With settings of its own, which the worker must have, too."""
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32", pooling="mean", query_prefix="q")
    next(encoder.encode_stream(MANY, block=8, folder=tmp_path))
    with deadline(120):
        parts = list(encoder.encode_stream(MANY, block=8, folder=tmp_path, devices=["cpu"]))
    assert calls == [8], "the rest was done by the worker"
    assert len(list(encoder.encode_stream(MANY, block=8, folder=tmp_path))) == 5
    assert calls == [8]
    twin.assert_same(Encoded.concat(parts), encoder.encode(MANY), ROUNDING)


def test_a_worker_that_cannot_load_its_model_is_an_error() -> None:
    load: Any = int  # int("cpu") fails in the worker
    with (
        deadline(120),
        WorkerPool(load, ["cpu"]) as pool,
        pytest.raises(WorkerError, match="could not be loaded"),
    ):
        pool.result(pool.submit(["a"], {}))


def test_workers_need_a_folder_and_a_list_of_devices(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    import checkpoints

    made = Encoder.from_backbone(checkpoints.without_heads(folder, tmp_path / "plain"), device="cpu")
    with pytest.raises(InputError, match="made in memory"):
        made.workers(["cpu"])
    for devices in ("cpu", []):
        with pytest.raises(InputError, match="devices: got"):
            encoder.workers(devices)
    with pytest.raises(InputError, match="device: got 'gpu'"):
        encoder.workers(["cpu", "gpu"])


def test_progress_counts_the_texts_of_the_blocks_given_out(encoder: Encoder) -> None:
    seen: list[tuple[str, int, int | None]] = []
    list(encoder.encode_stream(TEXTS[:5], block=2, progress=lambda *state: seen.append(state)))
    assert seen == [("encoding", done, None) for done in (2, 4, 5)]


def load_slow(folder: Path, device: str) -> Any:
    """What the workers of the next tests load."""
    return Slow(Encoder.from_pretrained(folder, device=device, dtype="float32")).begin


class Slow:
    """An encoder that takes the longer, the earlier its texts are, and dies of one text."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def begin(self, texts: list[str], **options: Any) -> Callable[[], Encoded]:
        if "die" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3 / (1 + MANY.index(texts[0])))
        return partial(self.encoder.encode, texts, **options)


@pytest.mark.slow
def test_three_workers_give_blocks_in_order_and_one_that_dies_ends_the_stream_with_an_error(
    encoder: Encoder, folder: Path, tmp_path: Path, calls: list[int]
) -> None:
    blocks = [MANY[i : i + 4] for i in range(0, len(MANY), 4)]
    with deadline(120), WorkerPool(partial(load_slow, folder), ["cpu"] * 3) as pool:

        def start(texts: list[str]) -> Callable[[], Encoded]:
            return partial(pool.result, pool.submit(texts, {}))

        parts = list(encode_blocks(iter(blocks), start, ahead=5))
        assert calls == [], "all of it was done by the workers"
        twin.assert_same(Encoded.concat(parts), encoder.encode(MANY), ROUNDING)
        store = Store(tmp_path, {})
        stream = encode_blocks(iter([*blocks[:3], ["die"], *blocks[3:]]), start, store, ahead=5)
        with pytest.raises(WorkerError, match="a worker process died"):
            list(stream)
    # What was given out before is on the disk; nothing after the block that failed is.
    assert {path.name for path in tmp_path.iterdir()} <= {f"{i:08d}.safetensors" for i in range(3)}


def test_workers_on_the_processor_share_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert _threads_each(["cpu", "cpu", "cpu"]) == 2
    assert _threads_each(["cpu", "cuda:0", "cuda:1"]) == 8
    assert _threads_each(["cpu"] * 20) == 1
    assert _threads_each(["cuda:0"]) == 8


def test_a_worker_for_a_gpu_makes_it_its_own_before_it_loads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for a second GPU: what the worker of "cuda:1" says to torch, and in which order."""
    said: list[tuple[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: said.append(("set_device", device)))

    def load(device: str, **_: Any) -> SimpleNamespace:
        said.append(("load", device))
        return SimpleNamespace()

    monkeypatch.setattr(Encoder, "from_pretrained", load)
    _load_on({"name": folder, "source": "", "settings": {}}, 4, "cuda:1")
    assert said == [("set_device", torch.device("cuda:1")), ("load", "cuda:1")]


def test_a_flipped_bit_in_any_part_of_a_block_is_an_error_that_names_the_file(
    encoder: Encoder, tmp_path: Path
) -> None:
    list(encoder.encode_stream(TEXTS, folder=tmp_path))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    assert damage(path) is None
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"00000000\.safetensors"):
            list(encoder.encode_stream(TEXTS, folder=tmp_path))
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 16]) + whole[-8:])
    assert "damaged" in str(damage(path))
    with pytest.raises(InputError, match="is damaged"):
        list(encoder.encode_stream(TEXTS, folder=tmp_path))


def test_texts_that_are_tokenised_while_earlier_ones_are_computed_have_the_same_vectors(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `encode` does on a GPU: pieces of texts, and a thread that puts the batches into their places."""
    from triptych.encode import pieces

    expected = encoder.encode(MANY)
    monkeypatch.setattr(Encoder, "_overlaps", True)
    monkeypatch.setattr(pieces, "_SIZES", (200, 220, 230))
    assert len(pieces._cut([len(text) for text in MANY])) > 1
    twin.assert_same(encoder.encode(MANY, token_budget=16), expected, ROUNDING)
    with pytest.warns(TruncationWarning, match=rf"\d+ of {len(MANY)} texts were cut to 4 tokens"):
        encoder.encode([text * 3 for text in MANY], max_length=4)
    with pytest.raises(InputError, match="expected Unicode text"):
        encoder.encode([*MANY, "half \ud800 of a pair"])


def test_a_caller_in_inference_mode_gets_the_same_vectors(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that fills the caller's arrays has a mode of its own."""
    expected = encoder.encode(MANY)
    monkeypatch.setattr(Encoder, "_overlaps", True)
    with torch.inference_mode():
        twin.assert_same(encoder.encode(MANY, token_budget=16), expected, ROUNDING)


@pytest.mark.parametrize("first", [20, 40, 10_000])
def test_pieces_hold_every_text_once_the_longest_first(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from triptych.encode import pieces

    monkeypatch.setattr(pieces, "_SIZES", (first, 2 * first))
    sizes = [7 * i % 13 for i in range(200)]
    found = pieces._cut(sizes)
    assert sorted(i for piece in found for i in piece.tolist()) == list(range(len(sizes)))
    assert [sizes[i] for piece in found for i in piece.tolist()] == sorted(sizes, reverse=True)
    assert len(found) == 1 if first == 10_000 else len(found) > 1
    assert [len(piece) for piece in pieces._cut([])] == [0]


def test_large_arrays_of_a_worker_come_through_shared_memory_and_leave_nothing_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from triptych.encode import shared

    dense = np.arange(12, dtype=np.float32).reshape(3, 4)
    lexical = sparse.csr_array(np.eye(3, 7, dtype=np.float32))
    encoded = Encoded(dense, lexical, Ragged(dense, np.array([0, 1, 1, 3])))
    for large, free in ((1, 1 << 30), (1 << 20, 1 << 30), (1, 0)):
        monkeypatch.setattr(shared, "_LARGE", large)
        monkeypatch.setattr(shared, "_free", lambda free=free: free)
        sent = shared.send(encoded)
        places = [part for part in sent.values() if isinstance(part, shared.SharedPlace)]
        assert bool(places) == (large == 1 and free > 0)
        twin.assert_same(shared.receive(sent), encoded, 0)
        assert not [place for place in places if (shared._FOLDER / place.name).exists()]
