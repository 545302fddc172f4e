"""Worker processes that hold one model each: several devices, one queue of work."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from types import TracebackType
from typing import Any, Protocol

from triptych.errors import WorkerError
from triptych.types import Encoded


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
