"""Answers that were paid for, on disk: what is here is never asked again.

An SQLite file with a write-ahead log: an answer is on the disk before the next request is made, and a process that is
killed loses nothing but what it had not received.

What answers cost, and the limit that is never passed.

One request to a server that speaks OpenAI's ``/chat/completions``, and what its answer means.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from triptych.errors import DataError, EndpointError, InputError, MissingExtra, StorageError

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL, refused INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, counted INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Answer(NamedTuple):
    """What a model answered.

    Attributes:
        text: Its words; empty if there are none.
        finish: Why it ended, as the server says: "stop", "length", "content_filter", …
        refused: Whether the server marked it as a refusal.
        input_tokens: Tokens of the request.
        output_tokens: Tokens of the answer, those of its reasoning with them.
        counted: Whether the server counted the tokens; otherwise they are upper bounds.
    """

    text: str
    finish: str
    refused: bool
    input_tokens: int
    output_tokens: int
    counted: bool = True


def key_of(model: str, messages: list[dict[str, str]], parameters: Mapping[str, Any]) -> bytes:
    """A digest of all that an answer depends on."""
    content = json.dumps([_VERSION, model, messages, parameters], sort_keys=True, ensure_ascii=False)
    return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=20).digest()


class Answers:
    """A file of answers. Several processes may use one.

    Args:
        path: The file; it is made if it is not there.

    Raises:
        DataError: If it is there and no such file.
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
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StorageError(None, f"{path}: cannot be written: {error}") from error
            raise DataError(f"no file of answers ({error}); give another name", path) from error
        except OSError as error:
            raise StorageError(error.errno, f"{path}: cannot be written: {error.strerror}") from error

    def get(self, key: bytes) -> Answer | None:
        """The answer with this key, or None."""
        row = self._base.execute(
            "SELECT text, finish, refused, input_tokens, output_tokens, counted FROM answers WHERE key = ?",
            (key,),
        ).fetchone()
        return None if row is None else Answer(row[0], row[1], bool(row[2]), row[3], row[4], bool(row[5]))

    def put(self, key: bytes, model: str, answer: Answer) -> None:
        """Keeps an answer; when this returns it is on the disk.

        Raises:
            StorageError: If it cannot be written.
        """
        try:
            self._base.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (key, model, *answer)
            )
        except sqlite3.Error as error:
            raise StorageError(None, f"{self.path}: cannot be written: {error}") from error

    def __len__(self) -> int:
        return int(self._base.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Closes the file."""
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_MILLION = 1_000_000


class Tokens(NamedTuple):
    """Tokens of requests and of answers."""

    input: int = 0
    output: int = 0

    def plus(self, other: Tokens) -> Tokens:
        """The sum."""
        return Tokens(self.input + other.input, self.output + other.output)

    def minus(self, other: Tokens) -> Tokens:
        """The difference."""
        return Tokens(self.input - other.input, self.output - other.output)

    @property
    def total(self) -> int:
        """Both."""
        return self.input + self.output


NO_TOKENS = Tokens()


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a million tokens, in any one currency."""

    input: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        if self.input < 0 or self.output < 0:
            raise InputError(f"prices: got {self.input} and {self.output}; expected 0 or more")

    def of(self, tokens: Tokens) -> float:
        """What tokens cost."""
        return (self.input * tokens.input + self.output * tokens.output) / _MILLION


@dataclass(slots=True)
class Budget:
    """Counts what was spent, with what is on its way at its highest price.

    A request is made only if it fits even at its highest price, together with those on their way; one that does not
    waits until one of those has come, and is given up when none is left.

    Attributes:
        prices: Of the tokens.
        money: Most that may be spent; None: any.
        tokens: Most tokens; None: any.
        spent: Tokens that the server counted (or, where it did not, their upper bounds).
        lost: Upper bounds of what answers may have cost that never arrived, or arrived broken.
        on_way: Upper bounds of the requests on their way.
    """

    prices: Prices = field(default_factory=Prices)
    money: float | None = None
    tokens: int | None = None
    spent: Tokens = NO_TOKENS
    lost: Tokens = NO_TOKENS
    on_way: Tokens = NO_TOKENS
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        if self.money is not None and not (self.prices.input or self.prices.output):
            raise InputError(
                "budget: got a limit in money without prices; expected the prices of a million tokens"
            )
        for name, value in (("money", self.money), ("tokens", self.tokens)):
            if value is not None and value <= 0:
                raise InputError(f"budget: got {name} {value}; expected more than 0")

    @property
    def cost(self) -> float:
        """What was spent, with what may have been."""
        return self.prices.of(self.spent.plus(self.lost))

    async def reserve(self, most: Tokens) -> bool:
        """Waits until a request fits, and counts it as on its way.

        Returns:
            False if it does not fit and nothing is on its way that could leave room.
        """
        async with self._changed:
            while not self._fits(most):
                if not self.on_way.total:
                    return False
                await self._changed.wait()
            self.on_way = self.on_way.plus(most)
        return True

    async def settle(self, most: Tokens, spent: Tokens = NO_TOKENS, lost: Tokens = NO_TOKENS) -> None:
        """Ends what `reserve` began: with what the answer cost, what may have been lost, or nothing."""
        async with self._changed:
            self.on_way = self.on_way.minus(most)
            self.spent = self.spent.plus(spent)
            self.lost = self.lost.plus(lost)
            self._changed.notify_all()

    def _fits(self, most: Tokens) -> bool:
        total = self.spent.plus(self.lost).plus(self.on_way).plus(most)
        return (self.tokens is None or total.total <= self.tokens) and (
            self.money is None or self.prices.of(total) <= self.money
        )


if TYPE_CHECKING:
    import httpx

_PATH = "/chat/completions"
_OVERHEAD = 256  # tokens that a server may put around the messages
_AGAIN = frozenset((408, 409, 425, 429))
_FILTERS = frozenset(("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"))
_THOUGHT = re.compile(r"^\s*<think>.*?(?:</think>|\Z)\s*", re.DOTALL)
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked, and how.

    Attributes:
        base_url: Address up to and with the version, such as ``https://api.openai.com/v1``.
        model: Name of the model.
        api_key: Sent as a bearer token; None: nothing is sent.
        timeout: Most seconds without a sign of life from the server.
        max_tokens: Most tokens of an answer.
        parameters: Further fields of a request, such as ``temperature``.

    Raises:
        InputError: For an address without ``http``, or a number that is not above 0.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    max_tokens: int = 200
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise InputError(f"base_url: got {self.base_url!r}; expected an address such as https://host/v1")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise InputError("api_key: has characters that no header can hold; expected printable ASCII")
        if self.timeout <= 0 or self.max_tokens <= 0:
            raise InputError(
                f"endpoint: got timeout {self.timeout}, max_tokens {self.max_tokens}; expected more than 0"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What an answer depends on beside model and messages."""
        return {**self.parameters, "max_tokens": self.max_tokens}

    def most(self, messages: list[dict[str, str]]) -> Tokens:
        """Upper bounds of what a request can cost: no tokenizer makes more tokens than there are bytes."""
        size = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in messages)
        return Tokens(size + _OVERHEAD, self.max_tokens)


class Again(Exception):
    """An attempt that failed and may be repeated.

    Args:
        reason: A short phrase that is counted.
        after: Seconds that the server asks to wait, or None.
        spent: Tokens that the server says it counted.
        lost: Whether an answer may have been paid for that never arrived.
    """

    def __init__(
        self, reason: str, after: float | None = None, spent: Tokens | None = None, lost: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after
        self.spent = spent or Tokens()
        self.lost = lost


class Denied(Exception):
    """The server refuses this one request; repeating it makes no sense."""


class Client:
    """Sends single requests.

    Args:
        endpoint: Where and how.
        http: An open client; see `connected`.
    """

    def __init__(self, endpoint: Endpoint, http: httpx.AsyncClient) -> None:
        self._endpoint = endpoint
        self._http = http
        self._limit = "max_tokens"

    async def ask(self, messages: list[dict[str, str]]) -> Answer:
        """Asks once.

        Raises:
            Again: For what may pass: no connection, time-outs, 429, server errors, answers that cannot be read.
            Denied: If the server refuses this request.
            EndpointError: If it refuses all of them: no such model or address, a wrong key, no credit left.
        """
        import httpx

        endpoint = self._endpoint
        body = {"model": endpoint.model, "messages": messages, **endpoint.parameters}
        body[self._limit] = endpoint.max_tokens
        try:
            response = await self._http.post(endpoint.base_url.rstrip("/") + _PATH, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Again(f"no connection ({type(error).__name__})") from None
        except httpx.TimeoutException:
            raise Again("no answer in time", lost=True) from None
        except httpx.TransportError as error:
            raise Again(f"connection cut ({type(error).__name__})", lost=True) from None
        except httpx.DecodingError:
            raise Again("answer that cannot be decoded", lost=True) from None
        if response.status_code == 200:
            return answer_of(response.text, endpoint.most(messages))
        return await self._failed(response, messages)

    async def _failed(self, response: httpx.Response, messages: list[dict[str, str]]) -> Answer:
        status, error = response.status_code, _error_of(response.text)
        codes = {str(error.get(name)) for name in ("code", "type")} | {str(_inner(error).get("code"))}
        message = " ".join(str(error.get("message") or response.text).split())[:_SHOWN]
        if status == 429 and "insufficient_quota" in codes:
            raise EndpointError(f"{self._endpoint.base_url}: no credit left: {message}")
        if status in _AGAIN or status >= 500:
            raise Again(f"status {status}", retry_after(response.headers))
        if status in (400, 422) and codes & _FILTERS:
            return Answer("", "content_filter", True, 0, 0)
        if status == 400 and self._limit == "max_tokens" and "max_completion_tokens" in message:
            self._limit = "max_completion_tokens"  # what newer models call it
            return await self.ask(messages)
        if status in (400, 413, 422):
            raise Denied(f"status {status}: {message}")
        hint = " (does the address end in /v1?)" if status == 404 else ""
        raise EndpointError(f"{self._endpoint.base_url}: status {status}{hint}: {message}")


@asynccontextmanager
async def connected(endpoint: Endpoint, connections: int) -> AsyncGenerator[Client]:
    """An open client with at most so many connections.

    Raises:
        InputError: For an address that is none.
        MissingExtra: If httpx is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise MissingExtra("asking a model's server", "data") from error
    try:
        httpx.URL(endpoint.base_url)
    except httpx.InvalidURL as error:
        raise InputError(f"base_url: got {endpoint.base_url!r}: {error}") from None
    headers = {} if endpoint.api_key is None else {"Authorization": f"Bearer {endpoint.api_key}"}
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(headers=headers, timeout=endpoint.timeout, limits=limits) as http:
        yield Client(endpoint, http)


def answer_of(text: str, most: Tokens) -> Answer:
    """Reads the body of a response.

    Args:
        text: The body.
        most: Upper bounds of its cost, for servers that do not count.

    Raises:
        Again: If it is no JSON or has no choice.
    """
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise Again("answer is not JSON", lost=True) from None
    record = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    spent, counted = _usage(record, most)
    choices = record.get("choices")
    choice: Any = choices[0] if isinstance(choices, list) and choices else None
    message: Any = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Again("answer without a choice", spent=spent if counted else None, lost=not counted)
    found = cast("dict[str, Any]", message)
    words = _THOUGHT.sub("", _content(found.get("content")))
    finish = str(cast("dict[str, Any]", choice).get("finish_reason") or "stop")
    refusal = found.get("refusal")
    refused = bool(refusal) or finish == "content_filter"
    return Answer(str(refusal) if refusal and not words else words, finish, refused, *spent, counted)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait: ``retry-after-ms``, or ``Retry-After`` in seconds or as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        moment = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _usage(record: Mapping[str, Any], most: Tokens) -> tuple[Tokens, bool]:
    usage = record.get("usage")
    if isinstance(usage, dict):
        counts = cast("dict[str, Any]", usage)
        found = counts.get("prompt_tokens"), counts.get("completion_tokens", 0)
        if all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in found):
            return Tokens(*cast("tuple[int, int]", found)), True
    return most, False


def _content(value: Any) -> str:
    """The words of a message: a string, or parts."""
    if isinstance(value, str):
        return value
    parts = cast("list[Any]", value) if isinstance(value, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _error_of(text: str) -> dict[str, Any]:
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    record = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    error = record.get("error", record)
    return cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": error}


def _inner(error: Mapping[str, Any]) -> dict[str, Any]:
    inner = error.get("innererror")
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}
