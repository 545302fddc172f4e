"""A client for servers with OpenAI's ``/chat/completions``: one request, and what its answer means."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

from annotated_types import Gt

from triptych.config import check_types
from triptych.errors import EndpointError, InputError, require_extra

if TYPE_CHECKING:
    import httpx

Messages = list[dict[str, str]]
MAX_ANSWER_BYTES = 8 << 20
"""Maximum size of the body of a response, after decompression; no answer of a question comes near it."""
_PATH = "/chat/completions"
_OVERHEAD = 256  # tokens that a server may put around the messages
_RETRIED = frozenset((408, 409, 425, 429))
_FILTERS = frozenset(("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"))
_THOUGHT = re.compile(r"^\s*<think>.*?(?:</think>|\Z)\s*", re.DOTALL)
_MESSAGE_CHARS = 200
_KEY_CHARS = 6


class Answer(NamedTuple):
    """The answer of a model.

    Attributes:
        text: Its words; empty if there are none.
        finish: Why it ended, as the server says: "stop", "length", "content_filter", …
        refused: Whether the server marked it as a refusal.
        input_tokens: Tokens of the request.
        output_tokens: Tokens of the answer, including those of its reasoning.
        counted: Whether the server counted the tokens; otherwise they are upper bounds.
    """

    text: str
    finish: str
    refused: bool
    input_tokens: int
    output_tokens: int
    counted: bool = True


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of requests and of answers."""

    input: int = 0
    output: int = 0

    def __add__(self, other: TokenCount) -> TokenCount:
        return TokenCount(self.input + other.input, self.output + other.output)

    def __sub__(self, other: TokenCount) -> TokenCount:
        return TokenCount(self.input - other.input, self.output - other.output)

    @property
    def total(self) -> int:
        """Both."""
        return self.input + self.output


NO_TOKENS = TokenCount()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model and its server.

    Attributes:
        base_url: Address of a server with OpenAI's /chat/completions, up to and with the version.
        model: The language model, as its server calls it.
        api_key: Its key, sent as a bearer token, and shown nowhere; None: none is sent.
        timeout: Maximum seconds from sending a request to the end of its answer.
        max_tokens: Maximum tokens of an answer.
        parameters: Further fields of a request, such as temperature=0.7.

    Raises:
        InputError: For an address without ``http``, or a number that is not above 0.
    """

    base_url: str = field(repr=False)  # may hold a password
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout: Annotated[float, Gt(0)] = 60.0
    max_tokens: Annotated[int, Gt(0)] = 200
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        check_types(self)
        if not self.base_url.startswith(("http://", "https://")):
            raise InputError(f"base_url: got {self.base_url!r}; expected an address such as https://host/v1")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise InputError("api_key: has characters that no header can hold; expected printable ASCII")

    @property
    def shown_url(self) -> str:
        """The address without user name, password and query, for messages."""
        return re.sub(r"(?<=://)[^/@]*@|[?#].*", "", self.base_url)

    @property
    def settings(self) -> dict[str, Any]:
        """What an answer depends on besides model and messages."""
        return {**self.parameters, "max_tokens": self.max_tokens}

    def upper_bound(self, messages: Messages) -> TokenCount:
        """Upper bounds of what a request can cost: no tokenizer makes more tokens than there are bytes."""
        size = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in messages)
        return TokenCount(size + _OVERHEAD, self.max_tokens)

    def hide_key(self, text: str) -> str:
        """A text of the server without the key, should the server repeat it; what is shorter than a key stays."""
        key = self.api_key or ""
        return text.replace(key, "[api key]") if len(key) >= _KEY_CHARS else text


class RetryableError(Exception):
    """An attempt that failed and may be repeated.

    Args:
        reason: A short phrase that is counted.
        after: Seconds that the server asks to wait, or None.
        spent: Tokens that the server says it counted.
        lost: Whether an answer may have been paid for that never arrived.
    """

    def __init__(
        self, reason: str, after: float | None = None, spent: TokenCount = NO_TOKENS, lost: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.after, self.spent, self.lost = reason, after, spent, lost


class RefusedError(Exception):
    """The server refuses this one request; repeating it makes no sense."""


class ChatClient:
    """Sends single requests.

    Args:
        endpoint: The model and its server.
        http: An open client; see `connect`.
    """

    def __init__(self, endpoint: Endpoint, http: httpx.AsyncClient) -> None:
        self._endpoint, self._http = endpoint, http
        self._limit = "max_tokens"

    async def ask(self, messages: Messages) -> Answer:
        """Sends one request.

        Raises:
            RetryableError: For what may pass: no connection, time-outs, 429, server errors, unreadable or huge answers.
            RefusedError: If the server refuses this request.
            EndpointError: If it refuses all of them: no such model or address, a wrong key, no credit left.
        """
        import httpx

        endpoint = self._endpoint
        body = {"model": endpoint.model, "messages": messages, **endpoint.parameters}
        body[self._limit] = endpoint.max_tokens
        url = endpoint.base_url.rstrip("/") + _PATH
        try:
            async with (
                asyncio.timeout(endpoint.timeout),
                self._http.stream("POST", url, json=body) as response,
            ):
                text = await _read_body(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise RetryableError(f"no connection ({type(error).__name__})") from None
        except (TimeoutError, httpx.TimeoutException):
            raise RetryableError("no answer in time", lost=True) from None
        except httpx.TransportError as error:
            raise RetryableError(f"connection cut ({type(error).__name__})", lost=True) from None
        if response.status_code == 200:
            answer = parse_answer(text, endpoint.upper_bound(messages))
            return answer._replace(
                text=endpoint.hide_key(answer.text), finish=endpoint.hide_key(answer.finish)
            )
        return await self._fail(response, text, messages)

    async def _fail(self, response: httpx.Response, text: str, messages: Messages) -> Answer:
        status, error = response.status_code, _error_of(text)
        codes = {str(error.get(name)) for name in ("code", "type")}
        codes.add(str(_object(error.get("innererror")).get("code")))
        message = self._endpoint.hide_key(" ".join(str(error.get("message") or text).split()))[
            :_MESSAGE_CHARS
        ]
        url = self._endpoint.shown_url
        if status == 429 and "insufficient_quota" in codes:
            raise EndpointError(f"{url}: no credit left: {message}")
        if status in _RETRIED or status >= 500:
            raise RetryableError(f"status {status}", retry_after(response.headers))
        if status in (400, 422) and codes & _FILTERS:
            return Answer("", "content_filter", True, 0, 0)
        if status == 400 and self._limit == "max_tokens" and "max_completion_tokens" in message:
            self._limit = "max_completion_tokens"  # what newer models call it
            return await self.ask(messages)
        if status in (400, 413, 422):
            raise RefusedError(f"status {status}: {message}")
        hint = " (does the address end in /v1?)" if status == 404 else ""
        raise EndpointError(f"{url}: status {status}{hint}: {message}")


async def _read_body(response: httpx.Response) -> str:
    """The body of a response, decompressed by ourselves: httpx would decompress a bomb as a whole."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate", ""):
        raise RetryableError(f"answer in the encoding {encoding[:20]!r}, which was not asked for", lost=True)
    inflate = None if encoding in ("identity", "") else zlib.decompressobj(zlib.MAX_WBITS | 32)
    body = bytearray()
    async for chunk in response.aiter_raw():
        try:
            body += inflate.decompress(chunk, MAX_ANSWER_BYTES + 1 - len(body)) if inflate else chunk
        except zlib.error:
            raise RetryableError("answer that cannot be decompressed", lost=True) from None
        if len(body) > MAX_ANSWER_BYTES:
            raise RetryableError(f"answer of more than {MAX_ANSWER_BYTES >> 20} MB", lost=True)
    return body.decode("utf-8", "replace")


@asynccontextmanager
async def connect(endpoint: Endpoint, connections: int) -> AsyncGenerator[ChatClient]:
    """An open client with at most so many connections.

    Raises:
        InputError: For an invalid address.
        MissingExtra: If httpx is not installed.
    """
    with require_extra("asking a model's server", "tools"):
        import httpx
    try:
        httpx.URL(endpoint.base_url)
    except httpx.InvalidURL as error:
        raise InputError(f"base_url: got {endpoint.shown_url!r}: {error}") from None
    headers = {"Accept-Encoding": "identity"}
    if endpoint.api_key is not None:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(headers=headers, timeout=endpoint.timeout, limits=limits) as http:
        yield ChatClient(endpoint, http)


def parse_answer(text: str, most: TokenCount) -> Answer:
    """Reads the body of a response.

    Args:
        text: The body.
        most: Upper bounds of its cost, for servers that do not count.

    Raises:
        RetryableError: If it is no JSON or has no choice.
    """
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise RetryableError("answer is not JSON", lost=True) from None
    record = _object(body)
    usage = _object(record.get("usage"))
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    counted = all(type(count) is int and count >= 0 for count in counts)
    spent = TokenCount(*cast("tuple[int, int]", counts)) if counted else most
    choices = record.get("choices")
    choice = _object(choices[0] if isinstance(choices, list) and choices else None)
    if not isinstance(choice.get("message"), dict):
        raise RetryableError("answer without a choice", None, spent if counted else NO_TOKENS, not counted)
    message = _object(choice["message"])
    content: Any = message.get("content")
    if isinstance(content, list):  # of parts
        content = "".join(str(_object(part).get("text", "")) for part in cast("list[Any]", content))
    words = _THOUGHT.sub("", content if isinstance(content, str) else "")
    finish = str(choice.get("finish_reason") or "stop")
    refusal = message.get("refusal")
    refused = bool(refusal) or finish == "content_filter"
    words = str(refusal) if refusal and not words else words
    return Answer(words, finish, refused, spent.input, spent.output, counted)


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


def _error_of(text: str) -> dict[str, Any]:
    try:
        record = _object(json.loads(text))
    except (ValueError, RecursionError):
        return {}
    error = record.get("error", record)
    return _object(error) if isinstance(error, dict) else {"message": error}


def _object(value: Any) -> dict[str, Any]:
    """A JSON object; {} for anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
