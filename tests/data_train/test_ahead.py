"""Making the next items in another thread."""

import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from triptych.errors import InputError
from triptych.train.collate import ahead


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_items_come_in_order_and_each_is_made_once(depth: int) -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number * number

    assert list(ahead(make, 3, 20, depth)) == [n * n for n in range(3, 20)]
    assert made == list(range(3, 20))
    assert list(ahead(make, 5, 5)) == []


def test_the_next_items_are_made_before_they_are_asked_for() -> None:
    third = threading.Event()

    def make(number: int) -> int:
        if number == 2:
            third.set()
        return number

    items = ahead(make, 0, 10, depth=2)
    assert next(items) == 0
    assert third.wait(timeout=30)


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def make(number: int) -> int:
        if number == 3:
            raise KeyError(number)
        return number

    items = ahead(make, 0, 10)
    assert list(islice(items, 3)) == [0, 1, 2]
    with pytest.raises(KeyError, match="3"):
        next(items)


def test_no_more_items_than_asked_for_and_no_thread_are_left_after_the_reader_goes_away() -> None:
    made: list[int] = []
    items: Iterator[int] = ahead(lambda n: made.append(n) or n, 0, 1000, depth=2)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert len(made) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("triptych-ahead")]


def test_a_depth_below_one_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="depth 0"):
        ahead(lambda n: n, 0, 1, 0)
