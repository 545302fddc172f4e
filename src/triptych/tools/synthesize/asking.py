"""Many requests at once: retries, a budget that is never exceeded, and every answer kept.

Answers are kept in an SQLite file with a write-ahead log: an answer is on the disk before the next request is made, so
that nothing is paid for twice. A process that is killed loses only what it had not received.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from annotated_types import Ge, Gt, Lt

from triptych.config import check_types
from triptych.errors import DataError, EndpointError, InputError, StorageError
from triptych.tools.synthesize.client import (
    NO_TOKENS,
    Answer,
    ChatClient,
    Endpoint,
    Messages,
    RefusedError,
    RetryableError,
    TokenCount,
    connect,
)
from triptych.tools.tally import Tally
from triptych.types import Progress

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL, refused INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, counted INTEGER NOT NULL
) WITHOUT ROWID;
"""
_GIVE_UP = 8  # requests in a row without any answer


class QuestionRequest(NamedTuple):
    """A request: the key of its answer, the messages, and what it is about (for reports)."""

    key: bytes
    messages: Messages
    about: str


def key_of(model: str, messages: Messages, parameters: Mapping[str, Any]) -> bytes:
    """A digest of all that an answer depends on."""
    content = json.dumps([_VERSION, model, messages, parameters], sort_keys=True, ensure_ascii=False)
    return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=20).digest()


class AnswerStore:
    """A file of answers. Several processes may use one.

    Args:
        path: The file; it is created if it does not exist.

    Raises:
        DataError: If it exists and is no such file.
        StorageError: If it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.executescript(_SCHEMA)
        except (sqlite3.OperationalError, OSError) as error:
            raise StorageError(
                getattr(error, "errno", None), f"{path}: cannot be written: {error}"
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataError(f"no file of answers ({error}); give another name", path) from error

    def get(self, key: bytes) -> Answer | None:
        """The answer with this key, or None.

        Raises:
            DataError: If the file is damaged.
        """
        row = self._query(
            "SELECT text, finish, refused, input_tokens, output_tokens, counted FROM answers WHERE key = ?",
            key,
        )
        return None if row is None else Answer(row[0], row[1], bool(row[2]), row[3], row[4], bool(row[5]))

    def put(self, key: bytes, model: str, answer: Answer) -> None:
        """Stores an answer; when this returns it is on the disk.

        Raises:
            StorageError: If it cannot be written.
        """
        self._query("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", key, model, *answer)

    def __len__(self) -> int:
        return int(self._query("SELECT COUNT(*) FROM answers")[0])

    def _query(self, query: str, *values: object) -> Any:
        """The first row of a query's result."""
        try:
            return self._base.execute(query, values).fetchone()
        except sqlite3.OperationalError as error:
            raise StorageError(None, f"{self.path}: cannot be written: {error}") from error
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"damaged file of answers ({error}); restore it, or give another name", self.path
            ) from error

    def close(self) -> None:
        """Closes the file."""
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices per million tokens, in any one currency.

    Attributes:
        input: Price of a million tokens of requests.
        output: Price of a million tokens of answers.
    """

    input: Annotated[float, Ge(0), Lt(math.inf)] = 0.0
    output: Annotated[float, Ge(0), Lt(math.inf)] = 0.0

    def __post_init__(self) -> None:
        check_types(self)

    def of(self, tokens: TokenCount) -> float:
        """The price of tokens."""
        return (self.input * tokens.input + self.output * tokens.output) / 1_000_000


@dataclass(slots=True)
class Budget:
    """What was spent, with requests in flight at their highest price.

    A request is made only if it fits even at its highest price, together with those in flight; one that does not
    waits until one of those has returned, and is given up when none is left.

    Attributes:
        prices: Of the tokens.
        money: Maximum cost, in the currency of the prices; None: no limit.
        tokens: Maximum number of tokens; None: no limit.
        spent: Tokens that the server counted (or, where it did not, their upper bounds).
        lost: Upper bounds of what answers may have cost that never arrived, or arrived broken.
        in_flight: Upper bounds of the requests in flight.
    """

    prices: Prices = field(default_factory=Prices)
    money: Annotated[float, Gt(0)] | None = None
    tokens: Annotated[int, Gt(0)] | None = None
    spent: TokenCount = NO_TOKENS
    lost: TokenCount = NO_TOKENS
    in_flight: TokenCount = NO_TOKENS
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        check_types(self)
        if self.money is not None and not (self.prices.input or self.prices.output):
            raise InputError(
                "budget: got a limit in money without prices; expected the prices of a million tokens"
            )

    @property
    def cost(self) -> float:
        """The price of what was spent and of what may have been."""
        return self.prices.of(self.spent + self.lost)

    async def reserve(self, most: TokenCount) -> bool:
        """Waits until a request fits, and counts it as in flight.

        Returns:
            False if it does not fit and nothing is in flight that could leave room.
        """
        async with self._changed:
            while not self._fits(most):
                if not self.in_flight.total:
                    return False
                await self._changed.wait()
            self.in_flight += most
        return True

    async def settle(
        self, most: TokenCount, spent: TokenCount = NO_TOKENS, lost: TokenCount = NO_TOKENS
    ) -> None:
        """Ends what `reserve` began: with what the answer cost, what may have been lost, or nothing."""
        async with self._changed:
            self.in_flight -= most
            self.spent += spent
            self.lost += lost
            self._changed.notify_all()

    def _fits(self, most: TokenCount) -> bool:
        total = self.spent + self.lost + self.in_flight + most
        return (self.tokens is None or total.total <= self.tokens) and (
            self.money is None or self.prices.of(total) <= self.money
        )


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is repeated, and after how long.

    Exponential back-off with full jitter: the wait before attempt n + 1 is drawn evenly from 0 to ``base · 2^(n-1)``
    seconds, at most `cap`; never less than the server asks for, which makes all requests wait.

    Attributes:
        attempts: Maximum attempts per request.
        base: Maximum seconds of the first wait after a failure; then doubled.
        cap: Maximum seconds of a wait that the server did not ask for.
        max_asked: Maximum seconds that the server may ask to wait.
        concurrency: Maximum number of requests in flight.
    """

    attempts: Annotated[int, Ge(1)] = 6
    base: Annotated[float, Ge(0)] = 1.0
    cap: Annotated[float, Ge(0)] = 60.0
    max_asked: Annotated[float, Ge(0)] = 300.0
    concurrency: Annotated[int, Ge(1)] = 8

    def __post_init__(self) -> None:
        check_types(self)

    def wait(self, failures: int, after: float | None, rng: random.Random) -> float:
        """Seconds before the next attempt, after so many failures (from 1)."""
        jitter = rng.uniform(0, min(self.cap, self.base * 2.0 ** (failures - 1)))
        return jitter if after is None else after + min(jitter, self.base)


@dataclass(slots=True)
class Outcomes:
    """Outcomes of requests.

    Attributes:
        answered: How many were.
        repeated: Attempts that failed, by reason.
        failed: Requests without an answer, by the reason of the last attempt.
        stopped: Whether the budget ended the asking.
    """

    answered: int = 0
    repeated: Tally[str, str] = field(default_factory=Tally[str, str])
    failed: Tally[str, str] = field(default_factory=Tally[str, str])
    stopped: bool = False


def ask_all(
    requests: Iterator[QuestionRequest],
    endpoint: Endpoint,
    answers: AnswerStore,
    budget: Budget,
    patience: Patience,
    progress: Progress | None = None,
) -> Outcomes:
    """Sends requests until none is left or the budget is used up; answers go to the file as they come.

    Args:
        requests: Drawn from only as fast as they are sent.
        endpoint: The model and its server.
        answers: Where answers are kept.
        budget: What may be spent.
        patience: With failures.
        progress: Called with the stage "asking" and the number of finished requests.

    Raises:
        EndpointError: If the server refuses everything or does not answer at all; received answers are kept.
        StorageError: If an answer cannot be kept.
        MissingExtra: If httpx is not installed.
    """
    asking = _Asking(endpoint, answers, budget, patience, progress)
    try:
        asyncio.run(asking.run(requests))
    except BaseExceptionGroup as group:
        # The others are of workers that were cancelled by the first error, or failed with it.
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
    return asking.outcomes


@dataclass(slots=True)
class _Asking:
    """The state of `ask_all`, in one event loop."""

    endpoint: Endpoint
    answers: AnswerStore
    budget: Budget
    patience: Patience
    progress: Progress | None
    outcomes: Outcomes = field(default_factory=Outcomes)
    rng: random.Random = field(default_factory=random.Random)
    open_at: float = 0.0  # of the event loop's clock: no request before that
    done: int = 0
    failures: int = 0

    async def run(self, requests: Iterator[QuestionRequest]) -> None:
        count = self.patience.concurrency
        async with connect(self.endpoint, count) as client, asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._work(requests, client))

    async def _work(self, requests: Iterator[QuestionRequest], client: ChatClient) -> None:
        for request in requests:  # shared by all workers, which take turns in one thread
            await self._ask(request, client)
            if self.outcomes.stopped:
                return
            self.done += 1
            if self.progress:
                self.progress("asking", self.done, None)

    async def _ask(self, request: QuestionRequest, client: ChatClient) -> None:
        most = self.endpoint.upper_bound(request.messages)
        loop = asyncio.get_running_loop()
        for attempt in range(1, self.patience.attempts + 1):
            while (left := self.open_at - loop.time()) > 0:
                await asyncio.sleep(left)
            if not await self.budget.reserve(most):
                self.outcomes.stopped = True
                return
            spent, lost = NO_TOKENS, most
            try:
                answer = await client.ask(request.messages)
            except RefusedError as error:
                lost = NO_TOKENS
                self._fail("the server refuses the request", f"{request.about}: {error}")
                return
            except RetryableError as error:
                spent, lost = error.spent, most if error.lost else NO_TOKENS
                self.outcomes.repeated.drop(error.reason)
                if attempt == self.patience.attempts:
                    self._fail(error.reason, request.about)
                    return
                if (error.after or 0) > self.patience.max_asked:
                    raise EndpointError(
                        f"{self.endpoint.shown_url}: asks to wait {error.after:.0f} seconds"
                    ) from None
                self.open_at = max(self.open_at, loop.time() + (error.after or 0))
                wait = self.patience.wait(attempt, error.after, self.rng)
            except EndpointError:
                lost = NO_TOKENS
                raise
            else:
                spent, lost = TokenCount(answer.input_tokens, answer.output_tokens), NO_TOKENS
                self.answers.put(request.key, self.endpoint.model, answer)
                self.outcomes.answered += 1
                self.failures = 0
                return
            finally:
                await self.budget.settle(most, spent, lost)
            await asyncio.sleep(wait)

    def _fail(self, reason: str, about: str) -> None:
        self.outcomes.failed.drop(reason, about)
        self.failures += 1
        if self.failures >= _GIVE_UP:
            raise EndpointError(
                f"{self.endpoint.shown_url}: no answer for {self.failures} passages one after the other; "
                f"the last: {reason} ({about})"
            )
