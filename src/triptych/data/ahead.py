"""Preparing the next steps while one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from triptych.errors import InputError

_T = TypeVar("_T")


def ahead(make: Callable[[int], _T], start: int, stop: int, depth: int = 2) -> Iterator[_T]:
    """``make(start)`` to ``make(stop - 1)``, in order, made in another thread before they are asked for.

    One thread is enough: the tokenizer uses all processors and holds no lock of Python's meanwhile. Since every
    step is a function of its number, what was prepared and not used is simply made again after an interruption.

    Args:
        make: Makes one item; called in order, by one thread.
        start: First number.
        stop: After the last.
        depth: Items that are made in advance, at least 1.

    Raises:
        InputError: For a `depth` below 1.
        Exception: What `make` raises, where its item would have come.
    """
    if depth < 1:
        raise InputError(f"ahead: got depth {depth}; expected at least 1")
    return _ahead(make, start, stop, depth)


def _ahead(make: Callable[[int], _T], start: int, stop: int, depth: int) -> Iterator[_T]:
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="triptych-ahead")
    try:
        waiting: deque[Future[_T]] = deque()
        for number in range(start, stop):
            waiting.append(pool.submit(make, number))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
