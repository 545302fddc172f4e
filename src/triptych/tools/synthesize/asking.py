"""Prompts by language, from files: ``prompts/LANGUAGE.txt``.

A file has the instructions, a line ``---``, and the request, in which ``{title}`` and ``{passage}`` are replaced.
Languages without a file get ``other.txt``, which is in English and asks for a question in ``{language}``.

Many requests at once: patient with servers that are busy, within a budget, every answer kept at once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, Protocol

from triptych.errors import DataError, EndpointError, InputError
from triptych.tools.synthesize.client import (
    NO_TOKENS,
    Again,
    Answers,
    Budget,
    Client,
    Denied,
    Endpoint,
    Tokens,
    connected,
)

_PACKAGE = "triptych.tools.synthesize"
OTHER = "other"
NOTHING = "NONE"
"""What the model is told to answer if nothing worth asking stands in a passage."""


class _Folder(Protocol):
    def joinpath(self, name: str, /) -> _File: ...


class _File(Protocol):
    def is_file(self) -> bool: ...

    def read_text(self, encoding: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt.

    Attributes:
        name: The name of its file without ending.
        system: The instructions.
        user: The request with ``{title}``, ``{passage}`` and, in "other", ``{language}``.
    """

    name: str
    system: str
    user: str

    def messages(self, title: str | None, passage: str, language: str) -> list[dict[str, str]]:
        """The messages of a request to a chat model."""
        values = {"{title}": title or "—", "{passage}": passage, "{language}": language}
        return [
            {"role": "system", "content": _filled(self.system, values)},
            {"role": "user", "content": _filled(self.user, values)},
        ]


def languages(folder: Path | None = None) -> list[str]:
    """Languages that have a prompt of their own."""
    names = [path.name for path in (folder or files(_PACKAGE).joinpath("prompts")).iterdir()]
    return sorted(
        name.removesuffix(".txt") for name in names if name.endswith(".txt") and name != f"{OTHER}.txt"
    )


def load_prompt(language: str, folder: Path | None = None) -> Prompt:
    """The prompt of a language (``pt-BR`` is ``pt``), or "other".

    Args:
        language: ISO 639-1 code.
        folder: Own prompts; what it lacks comes from the package.

    Raises:
        DataError: For a file without the line ``---`` or without ``{passage}``.
    """
    places: list[_Folder] = [] if folder is None else [folder]  # pyright: ignore[reportAssignmentType]
    places.append(files(_PACKAGE).joinpath("prompts"))  # pyright: ignore[reportArgumentType]
    for name in (language.lower().split("-")[0], OTHER):
        for place in places:
            file = place.joinpath(f"{name}.txt")
            if file.is_file():
                return _parsed(name, file.read_text("utf-8"), f"{name}.txt")
    raise DataError("no prompt at all", "prompts")


def _parsed(name: str, text: str, path: str) -> Prompt:
    system, line, user = text.partition("\n---\n")
    if not line or "{passage}" not in user:
        raise DataError("expected instructions, a line '---', and a request with {passage}", path)
    return Prompt(name, system.strip(), user.strip())


def _filled(text: str, values: dict[str, str]) -> str:
    """Replaces names once: what stands in a passage is left as it is."""
    found = sorted((text.find(name), name) for name in values if name in text)
    out, at = "", 0
    for start, name in found:
        out += text[at:start] + values[name]
        at = start + len(name)
    return out + text[at:]


_GIVE_UP = 8  # passages one after the other without any answer


class Request(NamedTuple):
    """What is asked: the key of its answer, the messages, and what it is about (for reports)."""

    key: bytes
    messages: list[dict[str, str]]
    about: str


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is repeated, and after how long.

    Exponential back-off with full jitter: before attempt n + 1 a wait drawn evenly from 0 to ``base · 2^n`` seconds, at
    most `cap`; never less than the server asks for, which makes all requests wait.

    Attributes:
        attempts: Most attempts of a request.
        base: Seconds.
        cap: Most seconds of a wait that the server did not ask for.
        most_asked: Most seconds that the server may ask to wait.
        concurrency: Requests on their way at once.
    """

    attempts: int = 6
    base: float = 1.0
    cap: float = 60.0
    most_asked: float = 300.0
    concurrency: int = 8

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.concurrency < 1:
            raise InputError(
                f"patience: got {self.attempts} attempts, {self.concurrency} at once; expected 1 or more"
            )

    def wait(self, failures: int, after: float | None, dice: random.Random) -> float:
        """Seconds before the next attempt, after so many failures (from 1)."""
        drawn = dice.uniform(0, min(self.cap, self.base * 2.0 ** (failures - 1)))
        return drawn if after is None else after + min(drawn, self.base)


@dataclass(slots=True)
class Tally:
    """What became of requests.

    Attributes:
        answered: How many were.
        repeated: Attempts that failed, by reason.
        failed: Requests without an answer, by the reason of the last attempt.
        first: By reason, the first of those.
        stopped: Whether the budget ended the asking.
    """

    answered: int = 0
    repeated: Counter[str] = field(default_factory=Counter[str])
    failed: Counter[str] = field(default_factory=Counter[str])
    first: dict[str, str] = field(default_factory=dict[str, str])
    stopped: bool = False


def ask_all(
    requests: Iterator[Request],
    endpoint: Endpoint,
    answers: Answers,
    budget: Budget,
    patience: Patience,
    progress: Callable[[int, int | None], None] | None = None,
) -> Tally:
    """Asks until there is nothing left to ask or the budget is used up; answers go to the file as they come.

    Args:
        requests: Drawn from only as fast as they are sent.
        endpoint: Where.
        answers: Where answers are kept.
        budget: What may be spent.
        patience: With failures.
        progress: Called with the number of requests that are done.

    Raises:
        EndpointError: If the server refuses everything or does not answer at all; what was answered is kept.
        StorageError: If an answer cannot be kept.
        MissingExtra: If httpx is not installed.
    """
    asking = _Asking(endpoint, answers, budget, patience, progress)
    try:
        asyncio.run(asking.run(requests))
    except BaseExceptionGroup as group:
        raise _first(group) from None
    return asking.tally


class _Asking:
    """The state of `ask_all`, in one event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        answers: Answers,
        budget: Budget,
        patience: Patience,
        progress: Callable[[int, int | None], None] | None,
    ) -> None:
        self.tally = Tally()
        self._endpoint = endpoint
        self._answers = answers
        self._budget = budget
        self._patience = patience
        self._progress = progress
        self._dice = random.Random()
        self._open_at = 0.0
        self._done = self._failures = 0

    async def run(self, requests: Iterator[Request]) -> None:
        count = self._patience.concurrency
        async with connected(self._endpoint, count) as client, asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._work(requests, client))

    async def _work(self, requests: Iterator[Request], client: Client) -> None:
        for request in requests:  # shared by all workers, which take turns in one thread
            await self._ask(request, client)
            if self.tally.stopped:
                return
            self._done += 1
            if self._progress:
                self._progress(self._done, None)

    async def _ask(self, request: Request, client: Client) -> None:
        most = self._endpoint.most(request.messages)
        for attempt in range(1, self._patience.attempts + 1):
            await self._gate()
            if not await self._budget.reserve(most):
                self.tally.stopped = True
                return
            spent, lost = NO_TOKENS, most
            try:
                answer = await client.ask(request.messages)
            except Denied as error:
                lost = NO_TOKENS
                self._fail("the server refuses the request", f"{request.about}: {error}")
                return
            except Again as error:
                spent, lost = error.spent, most if error.lost else NO_TOKENS
                self.tally.repeated[error.reason] += 1
                if attempt == self._patience.attempts:
                    self._fail(error.reason, request.about)
                    return
                wait = self._wait(attempt, error)
            except EndpointError:
                lost = NO_TOKENS
                raise
            else:
                spent, lost = Tokens(answer.input_tokens, answer.output_tokens), NO_TOKENS
                self._answers.put(request.key, self._endpoint.model, answer)
                self.tally.answered += 1
                self._failures = 0
                return
            finally:
                await self._budget.settle(most, spent, lost)
            await asyncio.sleep(wait)

    def _wait(self, failures: int, error: Again) -> float:
        if error.after is not None:
            if error.after > self._patience.most_asked:
                raise EndpointError(f"{self._endpoint.base_url}: asks to wait {error.after:.0f} seconds")
            self._open_at = max(self._open_at, asyncio.get_running_loop().time() + error.after)
        return self._patience.wait(failures, error.after, self._dice)

    async def _gate(self) -> None:
        """Waits as long as the server asked anybody to."""
        loop = asyncio.get_running_loop()
        while (left := self._open_at - loop.time()) > 0:
            await asyncio.sleep(left)

    def _fail(self, reason: str, about: str) -> None:
        self.tally.failed[reason] += 1
        self.tally.first.setdefault(reason, about)
        self._failures += 1
        if self._failures >= _GIVE_UP:
            raise EndpointError(
                f"{self._endpoint.base_url}: no answer for {self._failures} passages one after the other; "
                f"the last: {reason} ({about})"
            )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group: the others are of workers that were ended by it, or failed with it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
