"""Encoding more texts than fit in memory, block by block, and resuming after an interruption.

With several devices, worker processes that hold one model each take blocks from one queue.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import count, groupby, islice
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from triptych.encode.shared import Sent, receive, send
from triptych.errors import InputError, StorageError, WorkerError
from triptych.io import write_atomically
from triptych.scores.packing import DIGEST, digest, pack, unpack
from triptych.text import fingerprint
from triptych.types import Encoded, Progress


class Store:
    """A folder of encoded blocks, one safetensors file each, with a digest of its content.

    Args:
        folder: Made if needed.
        facts: What determines the vectors (model, options). A block of other facts is an error, not reused.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.facts = _as_json(facts)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(error.errno, f"{self.folder}: cannot be made: {error.strerror}") from error

    def get(self, number: int, texts: Sequence[str]) -> Encoded | None:
        """The block if it is there; None if it is not.

        Raises:
            InputError: If it holds other texts, was made by another model or with other options, or is damaged.
        """
        path = self._path(number)
        if not path.is_file():
            return None
        arrays, metadata = _read_block(path)
        if "facts" in metadata:
            metadata["facts"] = _as_json(json.loads(metadata["facts"]))
        if metadata != self._metadata(texts):
            same = metadata.get("facts") == self.facts
            differs = "other texts" if same else "another model or other options"
            raise InputError(f"{path}: was made with {differs}; give another folder, or remove this one")
        return unpack(arrays)

    def put(self, number: int, texts: Sequence[str], encoded: Encoded) -> None:
        """Writes a block; when this returns it is on the disk.

        Raises:
            StorageError: If writing fails.
        """
        arrays = pack(encoded)
        write_atomically(self._path(number), save(arrays, self._metadata(texts) | {DIGEST: digest(arrays)}))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.safetensors"

    def _metadata(self, texts: Sequence[str]) -> dict[str, str]:
        return {"facts": self.facts, "texts": fingerprint(texts)}


class FinishedStream:
    """The vectors that `triptych encode` wrote for the same texts, by their ids.

    Args:
        folder: What it wrote, whichever processes and machines did.
        read: Gives the ids and texts again, in lists of the given size.

    Attributes:
        facts: Model, fingerprint, heads and more, as encoded.json has them.

    Raises:
        InputError: If the folder is not complete, damaged, or of other texts.
    """

    def __init__(
        self, folder: Path, read: Callable[[int], Iterable[tuple[Sequence[str], Sequence[str]]]]
    ) -> None:
        self._folder = folder
        self._place: dict[str, tuple[int, int]] = {}
        self._last: tuple[int, Encoded] | None = None
        self.facts: dict[str, Any] = self._json(folder / "encoded.json")
        number = -1
        for number, (ids, texts) in enumerate(read(self.facts["block"])):
            path = self._path(number)
            same = path.is_file() and self._json(path.with_suffix(".ids.json")) == list(ids)
            if not same or _read_notes(path).get("texts") != fingerprint(texts):
                raise InputError(
                    f"{path}: is missing or of other texts than the input; encode that again first"
                )
            self._place |= {name: (number, row) for row, name in enumerate(ids)}
        if number + 1 != self.facts["blocks"]:
            raise InputError(f"{folder}: has {self.facts['blocks']} blocks; the input has {number + 1}")

    def vectors(self, ids: Sequence[str]) -> Encoded:
        """The vectors of texts, in this order."""
        parts: list[Encoded] = []
        for number, rows in groupby((self._place[name] for name in ids), key=itemgetter(0)):
            if self._last is None or self._last[0] != number:
                self._last = number, unpack(_read_block(self._path(number))[0])
            parts.append(self._last[1][np.asarray([row for _, row in rows])])
        return Encoded.concat(parts)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.safetensors"

    def _json(self, path: Path) -> Any:
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: cannot be read ({error}); expected a folder of `triptych encode`"
            ) from error


def _read_notes(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it, and encode again") from error


def _as_json(facts: Mapping[str, Any]) -> str:
    """Facts as text; earlier versions wrote options that were not given as null."""
    return json.dumps({key: value for key, value in facts.items() if value is not None}, sort_keys=True)


def _read_block(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays and metadata without the digest, which blocks of earlier versions do not have."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it, and it will be made again") from error
    written = metadata.pop(DIGEST, None)
    if written is not None and written != digest(arrays):
        raise InputError(f"{path}: is damaged (its digest differs); remove it, and it will be made again")
    return arrays, metadata


def encode_blocks(
    blocks: Iterable[list[str]],
    start: Callable[[list[str]], Callable[[], Encoded]],
    store: Store | None = None,
    ahead: int = 0,
    numbers: Iterable[int] | None = None,
) -> Iterator[Encoded]:
    """Encodes block after block; what the store already holds is read.

    Args:
        blocks: Lists of texts.
        start: Begins the work on a block, here, in a thread or in another process; its result waits for the end.
        store: Where each block is written before it is given out.
        ahead: Blocks that are started before an earlier one is given out.
        numbers: The blocks' numbers in the store; None: they count from 0.
    """
    waiting: deque[tuple[int, list[str], Encoded | Callable[[], Encoded]]] = deque()
    numbered = zip(count() if numbers is None else numbers, blocks, strict=False)
    while True:
        for number, texts in islice(numbered, 1 + ahead - len(waiting)):
            stored = store.get(number, texts) if store else None
            waiting.append((number, texts, start(texts) if stored is None else stored))
        if not waiting:
            return
        number, texts, work = waiting.popleft()
        if isinstance(work, Encoded):
            yield work
            continue
        encoded = work()
        if store:
            store.put(number, texts, encoded)
        yield encoded


def prepare_ahead(
    prepare: Callable[[list[str]], Callable[[], Callable[[], Encoded]]], thread: Executor
) -> Callable[[list[str]], Callable[[], Encoded]]:
    """A `start` for `encode_blocks` where the processor is idle while the model computes.

    Args:
        prepare: Does of encoding a block what the processor does first; its result hands the block to the device, and
            what that gives waits for the vectors.
        thread: One, which prepares a block and hands it over while an earlier one is computed.
    """

    def start(texts: list[str]) -> Callable[[], Encoded]:
        computed = thread.submit(lambda: prepare(texts)())
        return lambda: computed.result()()

    return start


def count_texts(parts: Iterable[Encoded], progress: Progress | None) -> Iterator[Encoded]:
    """Passes parts on and reports how many texts they have been."""
    done = 0
    for part in parts:
        done += len(part)
        if progress is not None:
            progress("encoding", done, None)
        yield part


Begin = Callable[..., Callable[[], Encoded]]
"""Begins to encode a list of texts with any options; what it gives waits for the vectors."""


@dataclass(slots=True)
class SubmittedBlock:
    """A block that a worker has been given."""

    number: int
    worker: int
    begun: Future[None]
    sent: Future[Sent] | None = None


class WorkerPool:
    """One process per device, each with two blocks: one on the device, one on its way there or back.

    They end with their parent.

    Args:
        load: Makes what encodes on a device, in the worker; must be picklable.
        devices: Such as ("cuda:0", "cuda:1"), or ("cpu", "cpu").

    Raises:
        WorkerError: If worker processes cannot be started from here.
    """

    def __init__(self, load: Callable[[str], Begin], devices: Sequence[str]) -> None:
        _check_main()
        # "spawn": a forked process could not use a GPU, nor torch's threads.
        context = multiprocessing.get_context("spawn")
        self.size = len(devices)
        self._pools = [ProcessPoolExecutor(1, context, _start_worker, (load, device)) for device in devices]
        self._given: list[dict[int, SubmittedBlock]] = [{} for _ in devices]
        self._numbers = count()
        self._processes: dict[int, BaseProcess] = {}

    def submit(self, texts: Sequence[str], options: Mapping[str, Any]) -> SubmittedBlock:
        """Gives texts to the worker with the least to do; see `result` for what comes back."""
        worker = min(range(self.size), key=lambda i: len(self._given[i]))
        number, given = next(self._numbers), self._given[worker]
        work = SubmittedBlock(number, worker, self._call(worker, _begin, number, texts, dict(options)))
        # The vectors of the block before are taken when this one is on the device, so that it never waits.
        for earlier in given.values():
            self._fetch(earlier)
        given[number] = work
        return work

    def result(self, work: SubmittedBlock) -> Encoded:
        """Waits for one piece of work; to be called once.

        Raises:
            WorkerError: If a worker died, or could not load the model; the message says which, and why.
        """
        sent = self._fetch(work)
        try:
            work.begun.result()
            return receive(sent.result())
        except BrokenProcessPool as error:
            raise self._died() from error
        finally:
            self._given[work.worker].pop(work.number, None)

    def _fetch(self, work: SubmittedBlock) -> Future[Sent]:
        work.sent = work.sent or self._call(work.worker, _finish, work.number)
        return work.sent

    def _call(self, worker: int, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        pool = self._pools[worker]
        try:
            future = pool.submit(function, *arguments)
        except BrokenProcessPool as error:
            raise self._died() from error
        # The executor forgets its processes when one dies, and with them the exit code that says why.
        self._processes |= getattr(pool, "_processes", None) or {}
        return future

    def _died(self) -> WorkerError:
        processes = list(self._processes.values())
        # The executor waits for them in its own thread, and only one of the two threads learns the exit code at once.
        end = time.monotonic() + 5
        while any(process.exitcode is None for process in processes) and time.monotonic() < end:
            time.sleep(0.01)
        # Those that were left are ended by the executor with SIGTERM.
        codes = {process.exitcode for process in processes if process.exitcode}
        causes = sorted(codes - {-signal.SIGTERM}) or sorted(codes)
        described = "; ".join(map(_explain_exit, causes)) or "no exit code is known"
        return WorkerError(f"a worker process died: {described}")

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            pool.shutdown(wait=True)
        for work in (work for given in self._given for work in given.values()):
            sent = work.sent
            if sent is not None and sent.done() and not sent.cancelled() and sent.exception() is None:
                receive(sent.result())  # gives its memory back


def _check_main() -> None:
    """Worker processes import the main script again; says so where that cannot work."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise WorkerError(
            "workers: this script was started again by one of its own workers, which import it; put what it runs "
            'under `if __name__ == "__main__":`'
        )
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is None and path is not None and not Path(path).is_file():
        raise WorkerError(
            f"workers: the main script is {path}, which worker processes cannot import; save it as a file"
        )


def _explain_exit(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, which is what the system does when memory runs out"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return (
        f"exit code {code}, its own message is above; if that speaks of bootstrapping, the script starts its workers "
        'outside of `if __name__ == "__main__":`'
    )


_loaded: list[Begin | WorkerError] = []
_begun: dict[int, Callable[[], Encoded]] = {}


def _start_worker(load: Callable[[str], Begin], device: str) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    try:
        _loaded.append(load(device))
    except Exception as error:
        # Raised at the first piece of work: an initializer's error would reach the parent without its message.
        _loaded.append(
            WorkerError(f"the model could not be loaded on {device}: {type(error).__name__}: {error}")
        )


def _end_with(sentinel: int) -> None:
    """Ends this process when its parent does; one that was killed cannot shut its workers down."""
    connection.wait([sentinel])
    os._exit(1)


def _begin(number: int, texts: Sequence[str], options: dict[str, Any]) -> None:
    worker = _loaded[0]
    if isinstance(worker, WorkerError):
        raise worker
    _begun[number] = worker(texts, **options)


def _finish(number: int) -> Sent:
    # What could not be begun has said so already.
    return send(_begun.pop(number)()) if number in _begun else {}
