"""Where the work is done: in this process, in several on this machine, or by Ray on this machine or a cluster.

An engine calls a function once for each item, in any order; results go to files, so that it needs no more than a file
system that all workers see.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from triptych.errors import InputError, MissingExtra, TriptychError, WorkerError

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
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **own)
        try:
            with _quiet(ray.data):
                yield _ray_data
        except ray.exceptions.RayError as error:
            cause = _own_error(error)
            if cause is not None:
                raise cause from error
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


def _own_error(error: BaseException | None) -> TriptychError | None:
    """The error of ours that Ray wrapped, if that is what happened."""
    while error is not None and not isinstance(error, TriptychError):
        error = getattr(error, "cause", None) or error.__cause__
    return error


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
            waiting.add(pool.submit(function, item))
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
    for _ in rows.map(partial(_apply, function, items)).iter_rows():
        done()


def _apply(function: Callable[[_T], None], items: Sequence[_T], row: dict[str, Any]) -> dict[str, Any]:
    function(items[row["number"]])
    return row
