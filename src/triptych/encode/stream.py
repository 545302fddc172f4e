"""Encoding more texts than fit in memory, block by block, and going on after an interruption.

Worker processes that hold one model each: several devices, one queue of work.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.queues import Queue
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from triptych.encode.batching import Progress
from triptych.errors import InputError, WorkerError
from triptych.io import write_atomically
from triptych.scores.packing import pack, unpack
from triptych.types import Encoded


class Store:
    """A folder of encoded blocks, one safetensors file each.

    Args:
        folder: Made if needed.
        facts: What determines the vectors (model, options). A block of other facts is an error, not reused.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.facts = json.dumps(facts, sort_keys=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, number: int, texts: Sequence[str]) -> Encoded | None:
        """The block if it is there; None if it is not.

        Raises:
            InputError: If it holds other texts, or was made by another model or with other options.
        """
        path = self._path(number)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata != self._metadata(texts):
                    same = metadata.get("facts") == self.facts
                    differs = "other texts" if same else "another model or other options"
                    raise InputError(
                        f"{path}: was made with {differs}; give another folder, or remove this one"
                    )
                return unpack({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(
                f"{path}: cannot be read ({error}); remove it, and it will be made again"
            ) from error

    def put(self, number: int, texts: Sequence[str], encoded: Encoded) -> None:
        """Writes a block; when this returns it is on the disk.

        Raises:
            StorageError: If writing fails.
        """
        write_atomically(self._path(number), save(pack(encoded), self._metadata(texts)))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.safetensors"

    def _metadata(self, texts: Sequence[str]) -> dict[str, str]:
        digest = hashlib.blake2b(digest_size=16)
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return {"facts": self.facts, "texts": digest.hexdigest()}


def blocks_of(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cuts an iterable into lists of `size` strings; the last may be shorter."""
    if isinstance(texts, str) or size < 1:
        raise InputError(
            f"encode_stream: got block={size}, {type(texts).__name__}; expected ≥ 1, an iterable of strings"
        )
    source = iter(texts)
    return iter(lambda: list(islice(source, size)), [])


def encode_blocks(
    blocks: Iterable[list[str]], encode: Callable[[list[str]], Encoded], store: Store | None
) -> Iterator[Encoded]:
    """Encodes block after block here; what the store already holds is read."""
    for number, texts in enumerate(blocks):
        found = store.get(number, texts) if store else None
        yield found or _kept(number, texts, encode(texts), store)


def encode_blocks_prepared(
    blocks: Iterable[list[str]],
    prepare: Callable[[list[str]], Callable[[], Encoded]],
    store: Store | None,
) -> Iterator[Encoded]:
    """The same where the model does not keep the processor busy: a thread prepares the next block meanwhile.

    Args:
        blocks: Lists of texts; one more than was given out is read.
        prepare: Does of encoding a block what the processor does; what it gives does the rest.
        store: See `Store`.
    """
    numbered = enumerate(blocks)
    with ThreadPoolExecutor(1) as thread:

        def ahead() -> tuple[int, list[str], Encoded | Future[Callable[[], Encoded]]] | None:
            number, texts = next(numbered, (0, None))
            if texts is None:
                return None
            return (
                number,
                texts,
                (store.get(number, texts) if store else None) or thread.submit(prepare, texts),
            )

        current = ahead()
        while current is not None:
            number, texts, work = current
            current = ahead()
            yield work if isinstance(work, Encoded) else _kept(number, texts, work.result()(), store)


def encode_blocks_ahead(
    blocks: Iterable[list[str]], pool: WorkerPool, options: Mapping[str, Any], store: Store | None
) -> Iterator[Encoded]:
    """The same with workers: some blocks are on their way while earlier ones are given out, in order."""
    waiting: deque[tuple[int, list[str], Encoded | Future[Encoded]]] = deque()
    numbered = enumerate(blocks)
    while True:
        for number, texts in islice(numbered, 2 * pool.size - len(waiting)):
            waiting.append(
                (number, texts, (store.get(number, texts) if store else None) or pool.submit(texts, options))
            )
        if not waiting:
            return
        number, texts, work = waiting.popleft()
        yield work if isinstance(work, Encoded) else _kept(number, texts, pool.result(work), store)


def counted(parts: Iterable[Encoded], progress: Progress | None) -> Iterator[Encoded]:
    """Gives parts out as they come, and tells `progress` how many texts that makes."""
    done = 0
    for part in parts:
        done += len(part)
        if progress is not None:
            progress(done, None)
        yield part


def _kept(number: int, texts: list[str], encoded: Encoded, store: Store | None) -> Encoded:
    if store:
        store.put(number, texts, encoded)
    return encoded


class Encodes(Protocol):
    """What a worker holds."""

    @property
    def encode(self) -> Callable[..., Encoded]:
        """Encodes a list of texts with any options."""
        ...


class WorkerPool:
    """One process a device; whichever is free takes the next piece of work.

    Args:
        load: Makes the encoder for a device, in the worker; must be picklable.
        devices: Such as ("cuda:0", "cuda:1"), or ("cpu", "cpu").
    """

    def __init__(self, load: Callable[[str], Encodes], devices: Sequence[str]) -> None:
        # "spawn": a forked process could not use a GPU, nor torch's threads.
        context = multiprocessing.get_context("spawn")
        queue: Queue[str] = context.Queue()
        for device in devices:
            queue.put(device)
        self.size = len(devices)
        self._queue = queue
        self._pool = ProcessPoolExecutor(self.size, context, _start, (load, queue))

    def submit(self, texts: Sequence[str], options: Mapping[str, Any]) -> Future[Encoded]:
        """Queues texts for whichever worker is free; see `result` for what comes back."""
        try:
            return self._pool.submit(_encode, texts, dict(options))
        except BrokenProcessPool as error:
            raise _died() from error

    @staticmethod
    def result(future: Future[Encoded]) -> Encoded:
        """Waits for one piece of work.

        Raises:
            WorkerError: If a worker died (killed, out of memory, or it could not load the model).
        """
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise _died() from error

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._queue.close()


def _died() -> WorkerError:
    return WorkerError(
        "a worker process died (killed, out of memory, or the model could not be loaded there)"
    )


_held: list[Encodes] = []


def _start(load: Callable[[str], Encodes], devices: Queue[str]) -> None:
    _held.append(load(devices.get()))


def _encode(texts: Sequence[str], options: dict[str, Any]) -> Encoded:
    return _held[0].encode(texts, **options)
