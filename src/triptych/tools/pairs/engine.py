"""Brings records that belong together into the same part: files with a compressed frame for each part.

Where the work is done: in this process, in several on this machine, or by Ray on this machine or a cluster.

An engine calls a function once for each item, in any order; results go to files, so that it needs no more than a file
system that all workers see.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray

from triptych.errors import InputError, MissingExtra, TriptychError, WorkerError
from triptych.io import replacing

_HELD = 32 << 20  # bytes of text that are held before frames are written
_LEVEL = 1


class ShuffleWriter:
    """Takes lines for parts; made by `shuffling`.

    Args:
        file: Where the frames go.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.frames: list[tuple[int, int, int]] = []
        self._file = file
        self._held: dict[int, list[bytes]] = {}
        self._bytes = 0
        self._offset = 0
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)

    def add(self, part: int, line: str) -> None:
        """Adds a line (with its line break) to a part."""
        data = line.encode()
        self._held.setdefault(part, []).append(data)
        self._bytes += len(data)
        if self._bytes >= _HELD:
            self.flush()

    def flush(self) -> None:
        """Writes what is held, one frame for each part."""
        for part, lines in sorted(self._held.items()):
            frame = self._compressor.compress(b"".join(lines))
            self._file.write(frame)
            self.frames.append((part, self._offset, len(frame)))
            self._offset += len(frame)
        self._held, self._bytes = {}, 0


@contextmanager
def shuffling(path: Path) -> Generator[ShuffleWriter]:
    """Gives a writer of lines to parts; memory: about 32 MB of text, whatever is written.

    Args:
        path: Where the frames go; the table of the frames (part, offset, length) goes to the same name with
            ``.npy`` after it, last.

    Raises:
        StorageError: If they cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        writer = ShuffleWriter(file)
        yield writer
        writer.flush()
    save(_table(path), np.array(writer.frames, np.int64).reshape(-1, 3))


def read_part(paths: Iterable[Path], part: int) -> Iterator[str]:
    """The lines of a part in all files, in the order of the files and of their writing."""
    decompressor = zstandard.ZstdDecompressor()
    for path in paths:
        frames = np.load(_table(path))
        with path.open("rb") as file:
            for _, offset, length in frames[frames[:, 0] == part].tolist():
                file.seek(offset)
                yield from decompressor.decompress(file.read(length)).decode().split("\n")[:-1]


def is_shuffled(path: Path) -> bool:
    """Whether both files are there."""
    return _table(path).exists()


def save(path: Path, array: NDArray[Any]) -> None:
    """Writes an array as .npy, atomically.

    Raises:
        StorageError: If it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_lines(path: Path, lines: Iterable[str], level: int = 3) -> int:
    """Writes lines as a Zstandard file, atomically; gives their number. The bytes depend on the lines alone.

    Raises:
        StorageError: If it cannot be written.
    """
    count = 0
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        zstandard.ZstdCompressor(level=level).stream_writer(file, closefd=False) as stream,
    ):
        for line in lines:
            stream.write(line.encode())
            count += 1
    return count


def _table(path: Path) -> Path:
    return path.with_name(path.name + ".npy")


_T = TypeVar("_T")
_AHEAD = 2  # items for each worker that are handed out in advance


class Runner(Protocol):
    """Runs a function over items."""

    def __call__(self, function: Callable[[_T], None], items: Sequence[_T], done: Callable[[], None]) -> None:
        """Calls the function for each item, and `done` after each.

        Args:
            function: A function of a module, or a `functools.partial` of one with values that can be pickled.
            items: Values that can be pickled.
            done: Called in this process.

        Raises:
            WorkerError: If a worker dies.
            Exception: The first that the function raises; what is under way is waited for, the rest not begun.
        """
        ...


class Engine(Protocol):
    """Workers that are started once and used for several stages."""

    def start(self) -> AbstractContextManager[Runner]:
        """Starts the workers; they end with the context."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """This process or, with more than one worker, so many others.

    Attributes:
        workers: Processes.

    Raises:
        InputError: For fewer than one worker.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"workers: got {self.workers}; expected at least 1")

    @contextmanager
    def start(self) -> Generator[Runner]:
        """See `Engine.start`."""
        if self.workers == 1:
            yield _one_by_one
            return
        # Not forked: a parent that has used torch or Arrow has threads, whose locks a fork copies locked.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.workers, mp_context=context)
        try:
            yield partial(_spread, pool, self.workers)
        except BrokenProcessPool as error:
            raise WorkerError("a worker process died; what was finished is kept: run again") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Ray:
    """Ray Data: on the cluster that ``RAY_ADDRESS`` names, on one that is connected already, or here.

    Attributes:
        workers: Processors of a Ray that is started here; by default all.
    """

    workers: int | None = None

    @contextmanager
    def start(self) -> Generator[Runner]:
        """See `Engine.start`."""
        try:
            import ray
            import ray.data
            import ray.exceptions
        except ImportError as error:
            raise MissingExtra("the engine Ray", "data") from error
        started = not ray.is_initialized()
        if started:
            own: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": self.workers}
            try:
                ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **own)
            except Exception as error:  # Ray has no class of its own for this
                raise WorkerError(f"Ray could not start: {error}") from error
        try:
            with _quiet(ray.data):
                yield _ray_data
        except ray.exceptions.RayError as error:
            raise WorkerError(f"Ray: {error}; what was finished is kept: run again") from error
        finally:
            if started:
                ray.shutdown()


@contextmanager
def _quiet(data: Any) -> Generator[None]:
    """No progress bars, log lines and warnings of Ray Data's own code: `done` tells, and errors are raised."""
    log = logging.getLogger("ray.data")
    level = log.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"ray\b")
        context = data.DataContext.get_current()  # its constructor warns of its own fields
        bars, context.enable_progress_bars = context.enable_progress_bars, False
        log.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            context.enable_progress_bars = bars
            log.setLevel(level)


def _portable(error: TriptychError) -> TriptychError:
    """The error as another process can have it: itself, if a copy can be made of it, or else its message."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(str(error))


def _one_by_one(function: Callable[[_T], None], items: Sequence[_T], done: Callable[[], None]) -> None:
    for item in items:
        function(item)
        done()


def _spread(
    pool: ProcessPoolExecutor,
    workers: int,
    function: Callable[[_T], None],
    items: Sequence[_T],
    done: Callable[[], None],
) -> None:
    left = iter(items)
    waiting: set[Future[None]] = set()
    while True:
        for item in left:
            waiting.add(pool.submit(_by_item, function, item))
            if len(waiting) >= _AHEAD * workers:
                break
        if not waiting:
            return
        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            future.result()
            done()


def _ray_data(function: Callable[[_T], None], items: Sequence[_T], done: Callable[[], None]) -> None:
    import ray.data

    if not items:
        return
    numbers = [{"number": number} for number in range(len(items))]
    rows: Any = ray.data.from_items(numbers, override_num_blocks=len(items))
    for row in rows.map(partial(_by_row, function, items)).iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        done()


def _by_row(function: Callable[[_T], None], items: Sequence[_T], row: dict[str, Any]) -> dict[str, Any]:
    """Our own errors are values: raised, they would arrive as text among Ray's."""
    try:
        function(items[row["number"]])
    except TriptychError as error:
        return {"error": pickle.dumps(_portable(error))}
    return {"error": b""}


def _by_item(function: Callable[[_T], None], item: _T) -> None:
    try:
        function(item)
    except TriptychError as error:
        raise _portable(error) from None
