"""A client for `triptych serve`: `Client` waits, `AsyncClient` is awaited; both ask the same and try again alike.

A request is tried again after a connection that failed, and after 429, 502, 503 and 504, if a second time does no harm.
That is so for all but `add`, `create_index` and `delete_index`, which would find their own work there: they are tried
again only where the server has certainly not taken them.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, Unpack
from urllib.parse import quote, urlsplit

from triptych.errors import EndpointError, InputError, MissingExtra
from triptych.types import Encoded, Head, HeadWeights, Hit

if TYPE_CHECKING:
    import httpx

    from triptych.index.documents import Payload
    from triptych.index.search import SearchOptions

_T = TypeVar("_T")
API_KEY = "TRIPTYCH_API_KEY"
"""Environment variable with the key, for those who do not give it as an argument."""

_AGAIN = (429, 502, 503, 504)
_LONGEST_PAUSE = 30.0


class FoundHit(NamedTuple):
    """A hit, and why it was found.

    Attributes:
        hit: The hit.
        explanation: Words and tokens that matched, as `Explanation.to_json` has them; None if it was not asked for.
    """

    hit: Hit
    explanation: dict[str, Any] | None


class Scored(NamedTuple):
    """A document's place in a ranking.

    Attributes:
        position: Its number in the list that was sent.
        score: The weighted sum.
        scores: The single scores.
    """

    position: int
    score: float
    scores: Mapping[Head, float]


@dataclass(frozen=True, slots=True)
class _Call(Generic[_T]):
    """A request, and what becomes of its answer."""

    method: str
    path: str
    read: Callable[[httpx.Response], _T]
    body: Any = None
    accept: str = "application/json"
    safe: bool = True


class _Calls:
    """What can be asked of a server; each method makes the request of the method of that name of the clients."""

    @staticmethod
    def encode(
        texts: str | Sequence[str],
        outputs: Sequence[Head] | None,
        prompt: Literal["query", "document"] | None,
        max_length: int | None,
        half: bool,
        model: str | None,
    ) -> _Call[Encoded]:
        body = {
            "texts": texts if isinstance(texts, str) else list(texts),
            "outputs": None if outputs is None else list(outputs),
            "prompt": prompt,
            "max_length": max_length,
            "precision": "float16" if half else "float32",
            "model": model,
        }
        return _Call("POST", "/v1/encode", _read_encoded, body, "application/x-safetensors")

    @staticmethod
    def search(
        index: str, query: str | Sequence[str], k: int, explain: bool, options: Mapping[str, Any]
    ) -> _Call[Any]:
        single = isinstance(query, str)
        given = {key: _plain(value) for key, value in options.items() if value is not None}
        body = {"query": query if single else list(query), "k": k, "explain": explain, **given}

        def read(response: httpx.Response) -> Any:
            hits = response.json()["hits"]
            return (
                [_hit(each) for each in hits] if single else [[_hit(each) for each in some] for some in hits]
            )

        return _Call("POST", f"{_index(index)}/search", read, body)

    @staticmethod
    def rerank(
        query: str, documents: Sequence[str], weights: Any, top_n: int | None, model: str | None
    ) -> _Call[list[Scored]]:
        body = {"query": query, "documents": list(documents), "model": model}
        body |= {} if weights is None else {"weights": _plain(HeadWeights.of(weights))}
        body |= {} if top_n is None else {"top_n": top_n}
        return _Call("POST", "/v1/rerank", _read_ranking, body)

    @staticmethod
    def store(index: str, documents: Iterable[Mapping[str, Any]], replace: bool) -> _Call[int]:
        body = {"documents": [dict(each) for each in documents]}
        return _Call(
            "PUT" if replace else "POST", f"{_index(index)}/documents", _field("stored"), body, safe=replace
        )

    @staticmethod
    def delete(index: str, ids: Sequence[str] | None, where: Mapping[str, Any] | None) -> _Call[int]:
        body = {"ids": list(ids)} if ids is not None else {}
        body |= {"filter": dict(where)} if where is not None else {}
        return _Call("POST", f"{_index(index)}/documents/delete", _field("deleted"), body)

    @staticmethod
    def get(index: str, ids: Sequence[str]) -> _Call[list[Payload | None]]:
        return _Call("POST", f"{_index(index)}/documents/get", _field("documents"), {"ids": list(ids)})

    @staticmethod
    def create_index(index: str, options: Mapping[str, Any]) -> _Call[dict[str, Any]]:
        return _Call("PUT", _index(index), lambda response: response.json(), dict(options), safe=False)

    @staticmethod
    def delete_index(index: str) -> _Call[str]:
        return _Call("DELETE", _index(index), _field("deleted"), safe=False)

    @staticmethod
    def indexes() -> _Call[list[dict[str, Any]]]:
        return _Call("GET", "/v1/indexes", _field("indexes"))

    @staticmethod
    def info(index: str) -> _Call[dict[str, Any]]:
        return _Call("GET", _index(index), lambda response: response.json())

    @staticmethod
    def health() -> _Call[dict[str, Any]]:
        return _Call("GET", "/health", lambda response: response.json())


class _Policy:
    """How often and after which pauses a request is tried again."""

    def __init__(self, url: str, api_key: str | None, timeout: float, retries: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"client: got the address {url!r}; expected http(s)://host[:port]")
        key = api_key or os.environ.get(API_KEY)
        self.url, self.retries = url.rstrip("/"), retries
        self.options: dict[str, Any] = {
            "base_url": self.url,
            "timeout": timeout,
            "headers": {"authorization": f"Bearer {key}"} if key else {},
        }

    def failed(self, call: _Call[Any], attempt: int, error: httpx.HTTPError) -> float:
        """Seconds until the next attempt, after no answer came.

        Raises:
            EndpointError: If there is none.
        """
        httpx = _httpx()
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        if attempt >= self.retries or not (call.safe or unsent):
            raise EndpointError(
                f"{self.url}: no answer to {call.method} {call.path}: {error or type(error).__name__}"
            )
        return _pause(attempt, None)

    def answered(self, call: _Call[_T], attempt: int, response: httpx.Response) -> float | None:
        """Seconds until the next attempt, None if the answer is one.

        Raises:
            InputError: If the server says that the request is wrong.
            EndpointError: If it refuses the request for another reason.
        """
        if response.is_success:
            return None
        # 429 and 503 come before anything is done.
        if (
            response.status_code in _AGAIN
            and attempt < self.retries
            and (call.safe or response.status_code in (429, 503))
        ):
            return _pause(attempt, response.headers.get("retry-after"))
        try:
            message = response.json()["message"]
        except (ValueError, KeyError, TypeError):
            message = response.text[:200]
        wrong = response.status_code in (400, 404, 409, 413, 422)
        raise (InputError if wrong else EndpointError)(f"{self.url}: {response.status_code}: {message}")


class Client:
    """A connection to a server; use it as a context manager, or call `close`. Threads may share it.

    Example:
        >>> with Client("http://127.0.0.1:8080") as client:                 # doctest: +SKIP
        ...     client.upsert("my.index", [{"id": "a", "text": "A text."}])
        ...     [hit.hit.id for hit in client.search("my.index", "which text?", k=3)]

    Args:
        url: ``http(s)://host[:port]``.
        api_key: Default: the environment variable TRIPTYCH_API_KEY.
        timeout: Seconds without a sign of the server after which a request has failed.
        retries: How often a request is tried again.

    Raises:
        MissingExtra: Without httpx (the extra `client`).
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout: float = 120.0, retries: int = 3
    ) -> None:
        self._policy = _Policy(url, api_key, timeout, retries)
        self._http: httpx.Client = _httpx().Client(**self._policy.options)

    def _ask(self, call: _Call[_T]) -> _T:
        attempt = 0
        while True:
            try:
                response = self._http.request(
                    call.method, call.path, json=call.body, headers={"accept": call.accept}
                )
            except _httpx().HTTPError as error:
                pause: float | None = self._policy.failed(call, attempt, error)
            else:
                pause = self._policy.answered(call, attempt, response)
                if pause is None:
                    return call.read(response)
            time.sleep(pause)
            attempt += 1

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        outputs: Sequence[Head] | None = None,
        prompt: Literal["query", "document"] | None = None,
        max_length: int | None = None,
        half: bool = False,
        model: str | None = None,
    ) -> Encoded:
        """Encodes texts.

        Args:
            texts: N strings; one string counts as a list of one.
            outputs: Heads; None: all that the model has.
            prompt: Whose prefix is put before the texts.
            max_length: Tokens after which texts are cut.
            half: Whether numbers come as float16, in half the bytes.
            model: Name of a model; None: the server's first.
        """
        return self._ask(_Calls.encode(texts, outputs, prompt, max_length, half, model))

    def search(
        self,
        index: str,
        query: str | Sequence[str],
        k: int = 10,
        *,
        explain: bool = False,
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Searches an index.

        Args:
            index: Its name.
            query: One query, or several.
            k: Hits of each query.
            explain: Whether hits come with the words and tokens that matched.
            **options: As for `Index.search`.

        Returns:
            For one query a list of `FoundHit`, the best first; for several a list of such lists.
        """
        return self._ask(_Calls.search(index, query, k, explain, options))

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        weights: HeadWeights | Sequence[float] | Mapping[str, float] | None = None,
        top_n: int | None = None,
        model: str | None = None,
    ) -> list[Scored]:
        """Ranks documents for a query by all three scores, the best first."""
        return self._ask(_Calls.rerank(query, documents, weights, top_n, model))

    def add(self, index: str, documents: Iterable[Mapping[str, Any]]) -> int:
        """Adds documents (id, text and perhaps metadata each); an InputError, if one is there already."""
        return self._ask(_Calls.store(index, documents, replace=False))

    def upsert(self, index: str, documents: Iterable[Mapping[str, Any]]) -> int:
        """Adds documents; one whose id is there already is replaced."""
        return self._ask(_Calls.store(index, documents, replace=True))

    def delete(
        self, index: str, ids: Sequence[str] | None = None, *, filter: Mapping[str, Any] | None = None
    ) -> int:
        """Deletes documents by id, or all that fulfil a filter; returns how many there were."""
        return self._ask(_Calls.delete(index, ids, filter))

    def get(self, index: str, ids: Sequence[str]) -> list[Payload | None]:
        """Documents as they were added, None for one that is not there."""
        return self._ask(_Calls.get(index, ids))

    def create_index(self, index: str, **options: Any) -> dict[str, Any]:
        """Makes an empty index on a server that was started with a folder for them.

        Args:
            index: Its name: letters, digits, '.', '_' and '-'.
            **options: `model`, `engine` ("edge", "exact"), `multi` (precision of token vectors; None: without).

        Returns:
            What the server says of it, as `info`.
        """
        return self._ask(_Calls.create_index(index, options))

    def delete_index(self, index: str) -> str:
        """Deletes an index that lies in that folder, with its documents; returns its name."""
        return self._ask(_Calls.delete_index(index))

    def indexes(self) -> list[dict[str, Any]]:
        """What the server says of each of its indexes."""
        return self._ask(_Calls.indexes())

    def info(self, index: str) -> dict[str, Any]:
        """What it says of one."""
        return self._ask(_Calls.info(index))

    def is_triptych(self) -> bool:
        """Whether the address is that of such a server."""
        try:
            return self._ask(_Calls.health()).get("server") == "triptych"
        except (EndpointError, InputError, ValueError, AttributeError):
            return False

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio: the same methods, to be awaited; use it as an asynchronous context manager.

    Args:
        url: See `Client`.
        api_key: See `Client`.
        timeout: See `Client`.
        retries: See `Client`.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout: float = 120.0, retries: int = 3
    ) -> None:
        self._policy = _Policy(url, api_key, timeout, retries)
        self._http: httpx.AsyncClient = _httpx().AsyncClient(**self._policy.options)

    async def _ask(self, call: _Call[_T]) -> _T:
        attempt = 0
        while True:
            try:
                response = await self._http.request(
                    call.method, call.path, json=call.body, headers={"accept": call.accept}
                )
            except _httpx().HTTPError as error:
                pause: float | None = self._policy.failed(call, attempt, error)
            else:
                pause = self._policy.answered(call, attempt, response)
                if pause is None:
                    return call.read(response)
            await asyncio.sleep(pause)
            attempt += 1

    async def encode(
        self,
        texts: str | Sequence[str],
        *,
        outputs: Sequence[Head] | None = None,
        prompt: Literal["query", "document"] | None = None,
        max_length: int | None = None,
        half: bool = False,
        model: str | None = None,
    ) -> Encoded:
        """See `Client.encode`."""
        return await self._ask(_Calls.encode(texts, outputs, prompt, max_length, half, model))

    async def search(
        self,
        index: str,
        query: str | Sequence[str],
        k: int = 10,
        *,
        explain: bool = False,
        **options: Unpack[SearchOptions],
    ) -> Any:
        """See `Client.search`."""
        return await self._ask(_Calls.search(index, query, k, explain, options))

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        weights: HeadWeights | Sequence[float] | Mapping[str, float] | None = None,
        top_n: int | None = None,
        model: str | None = None,
    ) -> list[Scored]:
        """See `Client.rerank`."""
        return await self._ask(_Calls.rerank(query, documents, weights, top_n, model))

    async def add(self, index: str, documents: Iterable[Mapping[str, Any]]) -> int:
        """See `Client.add`."""
        return await self._ask(_Calls.store(index, documents, replace=False))

    async def upsert(self, index: str, documents: Iterable[Mapping[str, Any]]) -> int:
        """See `Client.upsert`."""
        return await self._ask(_Calls.store(index, documents, replace=True))

    async def delete(
        self, index: str, ids: Sequence[str] | None = None, *, filter: Mapping[str, Any] | None = None
    ) -> int:
        """See `Client.delete`."""
        return await self._ask(_Calls.delete(index, ids, filter))

    async def get(self, index: str, ids: Sequence[str]) -> list[Payload | None]:
        """See `Client.get`."""
        return await self._ask(_Calls.get(index, ids))

    async def create_index(self, index: str, **options: Any) -> dict[str, Any]:
        """See `Client.create_index`."""
        return await self._ask(_Calls.create_index(index, options))

    async def delete_index(self, index: str) -> str:
        """See `Client.delete_index`."""
        return await self._ask(_Calls.delete_index(index))

    async def indexes(self) -> list[dict[str, Any]]:
        """See `Client.indexes`."""
        return await self._ask(_Calls.indexes())

    async def info(self, index: str) -> dict[str, Any]:
        """See `Client.info`."""
        return await self._ask(_Calls.info(index))

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def split_address(address: str) -> tuple[str, str] | None:
    """The server and the index of ``http(s)://host[:port]/index``; None for another address."""
    parts = urlsplit(address)
    name = parts.path.strip("/")
    if parts.scheme not in ("http", "https") or not parts.hostname or not name or "/" in name or parts.query:
        return None
    return f"{parts.scheme}://{parts.netloc}", name


def _httpx() -> Any:
    try:
        return importlib.import_module("httpx")
    except ImportError as error:
        raise MissingExtra("the client of a server", "client") from error


def _pause(attempt: int, wanted: str | None) -> float:
    """What the server wishes, or twice as long each time; a part of it is chance, so that clients spread."""
    if wanted is not None and wanted.isdigit():
        return min(_LONGEST_PAUSE, float(wanted)) + random.random() / 4
    return min(_LONGEST_PAUSE, 0.2 * 2**attempt) * (0.5 + random.random())


def _index(name: str) -> str:
    return f"/v1/indexes/{quote(name, safe='')}"


def _field(name: str) -> Callable[[httpx.Response], Any]:
    return lambda response: response.json()[name]


def _plain(value: Any) -> Any:
    """An option as JSON has it."""
    if isinstance(value, HeadWeights):
        return value._asdict()
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value


def _hit(found: dict[str, Any]) -> FoundHit:
    explanation = found.pop("explanation", None)
    more = tuple(_hit(each).hit for each in found.pop("more", ()))
    return FoundHit(Hit(**found, more=more), explanation)


def _read_encoded(response: httpx.Response) -> Encoded:
    from safetensors.numpy import load

    from triptych.scores.packing import unpack

    # SciPy has no sparse float16.
    arrays = load(response.content).items()
    return unpack({name: each.astype("f4") if each.dtype == "f2" else each for name, each in arrays})


def _read_ranking(response: httpx.Response) -> list[Scored]:
    return [Scored(row["index"], row["score"], row["scores"]) for row in response.json()["results"]]
