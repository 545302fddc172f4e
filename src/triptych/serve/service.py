"""What a server does, whatever form it is asked in: models and open indexes, and the work of a request on them."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
import uuid
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from triptych.encode.encoder import Encoder
from triptych.errors import IndexExists, InputError, TriptychError
from triptych.explain import Explanation, explain, explain_by_idf
from triptych.index.documents import Payload
from triptych.index.index import Index
from triptych.index.layout import LayoutOptions
from triptych.index.search import SearchOptions
from triptych.index.storage import storage_error
from triptych.index.store import EngineName
from triptych.scores import on_numpy as scores
from triptych.serve.batching import Batcher, Counted, Cut, SharedEncoder
from triptych.serve.metrics import Metrics
from triptych.serve.settings import Keys, ServeSettings
from triptych.types import DefaultWeights, Floats, Head, HeadWeights, Hit

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ATTEMPTS = 5  # at explaining hits while others delete documents
_THREADS = 8  # of searches and writes; the engines compute in threads of their own


class NotFound(TriptychError):
    """There is no index, model or document of a name."""


class Refused(TriptychError):
    """The server may not do this, whoever asks."""


class _Served:
    """An index under its name, which many threads use until it is closed.

    Args:
        index: The open index.

    Attributes:
        index: See above.
        fingerprint: Its model's.
        writing: Held by what changes it.
        requests: How many are at work with it; counted in the event loop.
    """

    def __init__(self, index: Index) -> None:
        self.index, self.fingerprint = index, str(index.info()["model"]["fingerprint"])
        self.writing, self.requests = threading.Lock(), 0
        self._users, self._closed = 0, False
        self._left = threading.Condition()

    def use(self, work: Callable[[Index], _T]) -> _T:
        """Calls a function with the index.

        Raises:
            NotFound: If it was deleted since the request came.
        """
        with self._left:
            if self._closed:
                raise NotFound("index: it was deleted meanwhile")
            self._users += 1
        try:
            return work(self.index)
        finally:
            with self._left:
                self._users -= 1
                self._left.notify_all()

    def close(self) -> None:
        """Lets those finish that use it, and closes it."""
        with self._left:
            self._closed = True
            self._left.wait_for(lambda: not self._users)
        self.index.close()


class SearchAnswer(NamedTuple):
    """What a search found for one query.

    Attributes:
        hits: The hits, the best first.
        explanations: One for each hit, or none.
    """

    hits: list[Hit]
    explanations: list[Explanation]


class RerankScores(NamedTuple):
    """Scores of N texts for one query.

    Attributes:
        total: float32 ``[N]``, the weighted sum.
        scores: The single scores, float32 ``[N]`` each.
        weights: Those of the sum.
        tokens: Tokens that were read.
    """

    total: Floats
    scores: Mapping[Head, Floats]
    weights: HeadWeights
    tokens: int

    @property
    def relevance(self) -> Floats:
        """The weighted mean, float32 ``[N]``: for clients that expect numbers up to about 1."""
        return self.total / np.float32(sum(self.weights))


class Service:
    """Models and indexes of one server.

    Args:
        models: Encoders by name, each once per device; the first one answers requests that name none.
        indexes: Open indexes by name. Each must be of one of the models.
        settings: How it runs.

    Attributes:
        settings: See above.
        keys: Who may do what.
        metrics: What it counts.
        ready: Whether it takes requests.
        reload: What SIGHUP calls; None: nothing.

    Raises:
        InputError: For a name that cannot stand in an address, or an index without its model.
    """

    def __init__(
        self,
        models: Mapping[str, Sequence[Encoder]],
        indexes: Mapping[str, Index],
        settings: ServeSettings | None = None,
    ) -> None:
        self.settings = settings or ServeSettings()
        self._creating = threading.Lock()
        self.keys, self.metrics, self.ready = Keys.load(self.settings.keys), Metrics(), False
        self._models = dict(models)
        self.reload: Callable[[], Awaitable[None]] | None = None
        for name in indexes:
            if not _NAME.fullmatch(name):
                raise InputError(
                    f"serve: got the index name {name!r}; expected letters, digits, '.', '_' and '-', a letter or "
                    "digit first"
                )
        self._indexes = {name: _Served(index) for name, index in indexes.items()}
        known = {encoders[0].fingerprint for encoders in models.values()}
        if foreign := [name for name, each in self._indexes.items() if each.fingerprint not in known]:
            raise InputError(
                f"serve: got the index {foreign[0]!r} without its model; expected that model, too"
            )
        self._batchers: dict[str, Batcher] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Starts the batchers, in the running event loop."""
        self._threads = ThreadPoolExecutor(_THREADS, "triptych-index")
        self._batchers = {
            name: Batcher(encoders, self.settings, self.metrics) for name, encoders in self._models.items()
        }
        for batcher in self._batchers.values():
            batcher.start()
        loop = asyncio.get_running_loop()
        self._shared = {name: SharedEncoder(model, loop) for name, model in self._batchers.items()}
        for name, served in self._indexes.items():
            served.index.encoder = self._shared_of(self.model_of(name))
        self.ready = True

    def switch(self, name: str, index: Index, source: str, encoders: Sequence[Encoder]) -> None:
        """Serves another index under a name, from the next request on.

        Requests that have begun finish with the former one, which is closed when the last of them is done. Its model
        stays loaded.

        Args:
            name: A name that is served.
            index: The open index.
            source: A name for its model, if it is not served yet.
            encoders: The model, once per device; none if it is served already.
        """
        if name not in self._indexes:  # deleted while this one was opened
            index.close()
            return
        served = _Served(index)
        if encoders:
            if source in self._batchers:  # another model lies there now
                source = f"{source}@{served.fingerprint[:12]}"
            self._models[source] = encoders
            self._batchers[source] = Batcher(encoders, self.settings, self.metrics)
            self._batchers[source].start()
            self._shared[source] = SharedEncoder(self._batchers[source], asyncio.get_running_loop())
        former, self._indexes[name] = self._indexes[name], served
        index.encoder = self._shared_of(self.model_of(name))
        task = asyncio.create_task(self._retire(former))
        self._retiring.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, former: _Served) -> None:
        while former.requests:
            await asyncio.sleep(0.02)
        await self.in_thread(former.close)

    async def close(self) -> None:
        """Finishes what was accepted, and closes models and indexes."""
        self.ready = False
        for batcher in self._batchers.values():
            await batcher.close()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        self._threads.shutdown()
        for served in self._indexes.values():
            served.close()

    # Names.

    @property
    def model_names(self) -> list[str]:
        """Names of the models, the default one first."""
        return list(self._models)

    @property
    def fingerprints(self) -> set[str]:
        """Those of the models."""
        return {each.encoder.fingerprint for each in self._batchers.values()}

    @property
    def index_names(self) -> list[str]:
        """Names of the indexes."""
        return list(self._indexes)

    def model(self, name: str | None = None) -> Batcher:
        """The model of a name, or of the last part of one; None: the default one.

        Raises:
            NotFound: If there is none.
        """
        if not name:
            return next(iter(self._batchers.values()))
        for known, batcher in self._batchers.items():
            if name in (known, known.rpartition("/")[2], batcher.encoder.source):
                return batcher
        raise NotFound(f"model: got {name!r}; expected one of {', '.join(self._batchers)}")

    def index(self, name: str) -> Index:
        """The index of a name.

        Raises:
            NotFound: If there is none.
        """
        return self._served(name).index

    def _served(self, name: str) -> _Served:
        if name not in self._indexes:
            shown = name if _NAME.fullmatch(name) else "a name that no index can have"
            raise NotFound(f"index: got {shown!r}; expected one of {', '.join(self._indexes) or 'none'}")
        return self._indexes[name]

    @contextmanager
    def _working(self, name: str) -> Generator[_Served]:
        """The index of a name for a request, which keeps it open beyond a switch."""
        served = self._served(name)
        served.requests += 1
        try:
            yield served
        finally:
            served.requests -= 1

    def model_of(self, name: str) -> Batcher:
        """The model of an index."""
        fingerprint = self._served(name).fingerprint
        return next(each for each in self._batchers.values() if each.encoder.fingerprint == fingerprint)

    # Search.

    async def search(
        self,
        name: str,
        queries: Sequence[str],
        k: int,
        options: SearchOptions,
        *,
        with_explanations: bool = False,
    ) -> list[SearchAnswer]:
        """Searches an index; queries of many requests are encoded together."""
        for i, query in enumerate(queries):
            if not query.strip():
                raise InputError(f"query[{i}]: got an empty query; expected a text")
        with self._working(name) as served:
            model = self.model_of(name)
            if options.get("lexical_queries") == "idf":
                search = partial(
                    _search_by_idf, queries=queries, k=k, options=options, explained=with_explanations
                )
                return await self.in_thread(partial(served.use, search))
            if not queries:
                return []
            prefix = model.encoder.config.query_prefix
            encoded = (await model.encode(queries, outputs=served.index.heads, prefix=prefix)).encoded
            find = partial(Index.search_encoded, queries=encoded, k=k, **options)
            found = await self.in_thread(partial(served.use, find))
        if not with_explanations:
            return [SearchAnswer(hits, []) for hits in found]
        explained = [
            await model.run(partial(explain, query=query, documents=[hit.text for hit in hits]))
            for query, hits in zip(queries, found, strict=True)
        ]
        return [SearchAnswer(*pair) for pair in zip(found, explained, strict=True)]

    async def explain(self, name: str, query: str, ids: Sequence[str]) -> list[Explanation | None]:
        """Why documents match a query; None for one that is not there."""
        found = await self.get(name, ids)
        texts = [one["text"] for one in found if one]
        explained = iter(await self.model_of(name).run(partial(explain, query=query, documents=texts)))
        return [next(explained) if one else None for one in found]

    async def rank(
        self,
        model: Batcher,
        query: str,
        texts: Sequence[str],
        weights: HeadWeights | None,
        *,
        cut: Cut = "end",
    ) -> RerankScores:
        """Scores texts for a query by all heads of the model."""
        encoder = model.encoder
        if weights is None:
            weights = HeadWeights.default(encoder.heads)
        if lacking := [head for head in weights.heads if head not in encoder.heads]:
            raise InputError(
                f"weights: got one for {', '.join(lacking)}, which the model lacks; expected 0 there"
            )
        config = encoder.config
        left = await model.encode([query], prefix=config.query_prefix, cut=cut)
        right = await model.encode(texts, prefix=config.document_prefix, cut=cut)
        single = await self.in_thread(partial(_scores, left, right, encoder.heads)) if texts else {}
        total = scores.combine(single, weights, left.encoded) if texts else np.zeros(0)
        return RerankScores(cast(Floats, total), single, weights, left.tokens + right.tokens)

    def _shared_of(self, model: Batcher) -> SharedEncoder:
        return next(self._shared[name] for name, each in self._batchers.items() if each is model)

    # Indexes.

    async def create(self, name: str, model: str | None, engine: EngineName, options: LayoutOptions) -> None:
        """Makes an empty index in the folder for them, and serves it.

        Raises:
            Refused: If the server makes no indexes.
            InputError: For a name that cannot stand in an address, or options that do not go together.
            IndexExists: If there is one of the name.
        """
        if not _NAME.fullmatch(name):  # it could lead out of the folder
            raise InputError(
                "index: expected a name of letters, digits, '.', '_' and '-', a letter or digit first"
            )
        folder = self._folder_for_indexes()
        encoder = self._shared_of(self.model(model))

        def work() -> None:
            with self._creating:
                if name in self._indexes or os.path.lexists(folder / name):
                    raise IndexExists(f"index: there is something of the name {name!r} already")
                # Here and not after the wait, which ends when the client goes.
                self._indexes[name] = _Served(Index.create(folder / name, encoder, engine=engine, **options))

        await self.in_thread(work)

    async def drop(self, name: str) -> None:
        """Deletes an index of the folder for them, with its documents.

        Raises:
            Refused: If the server makes no indexes, or the index lies elsewhere.
            NotFound: If there is none.
            StorageError: If it cannot be deleted.
        """
        served, folder = self._served(name), self._folder_for_indexes()
        place = folder / name
        if Path(served.index.info()["place"]).resolve() != place.resolve():
            raise Refused("index: this one was not made in the server's folder for indexes")

        def work() -> None:
            served.close()
            gone = place.with_name(f".{name}.{uuid.uuid4().hex}.deleted")
            try:
                place.rename(gone)
                shutil.rmtree(gone)
            except OSError as error:
                raise storage_error("index: cannot be deleted", error) from error

        del self._indexes[name]
        await self.in_thread(work)

    def _folder_for_indexes(self) -> Path:
        if self.settings.read_only:
            raise Refused("this server is for reading alone")
        if self.settings.new_indexes is None:
            raise Refused("this server makes and deletes no indexes; it would with --new-indexes FOLDER")
        return self.settings.new_indexes

    # Documents.

    async def add(
        self, name: str, ids: Sequence[str], texts: Sequence[str], metadata: Sequence[Any], *, replace: bool
    ) -> int:
        """Adds documents; when this returns, they survive the death of the process.

        Raises:
            IndexExists: Without `replace`, if a document is there already; nothing is added then.
        """
        served = self._writable(name)

        def work(index: Index) -> int:
            with served.writing:
                if not replace and (there := [i for i, one in zip(ids, index.get(ids), strict=True) if one]):
                    raise IndexExists(f"documents: got ids that are there already: {', '.join(there[:5])}")
                return index.add(ids, texts, metadata)

        return await self._use(name, work)

    async def delete(
        self, name: str, ids: Sequence[str] | None, where: Mapping[str, Any] | None = None
    ) -> int:
        """Deletes documents by id, or all that fulfil a filter; returns how many there were."""
        served = self._writable(name)

        def work(index: Index) -> int:
            with served.writing:
                return index.delete(ids, filter=where)

        return await self._use(name, work)

    async def get(self, name: str, ids: Sequence[str]) -> list[Payload | None]:
        """Documents as they were added."""
        return await self._use(name, lambda index: index.get(ids))

    async def describe(self, name: str) -> dict[str, Any]:
        """What is said of an index: its size, model, heads, and the fields of its metadata."""
        model = self.model_of(name)

        def look(index: Index) -> tuple[dict[str, Any], list[str], Sequence[Head], HeadWeights]:
            return index.info(), index.fields(), index.heads, index.weights

        info, fields, heads, weights = await self._use(name, look)
        return {
            "name": name,
            "documents": info["documents"],
            "model": model.encoder.source,
            "engine": info["engine"],
            "heads": list(heads),
            "weights": {head: getattr(weights, head) for head in heads},
            "sum": "coverage" if isinstance(weights, DefaultWeights) else "linear",
            "fields": fields,
            "writable": not self.settings.read_only,
        }

    def _writable(self, name: str) -> _Served:
        served = self._served(name)
        if self.settings.read_only:
            raise Refused("this server is for reading alone")
        return served

    async def _use(self, name: str, work: Callable[[Index], _T]) -> _T:
        with self._working(name) as served:
            return await self.in_thread(partial(served.use, work))

    async def in_thread(self, function: Callable[[], _T]) -> _T:
        """Calls a function beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


def _search_by_idf(
    index: Index, queries: Sequence[str], k: int, options: SearchOptions, explained: bool
) -> list[SearchAnswer]:
    found = index.search(queries, k, **options)
    if not explained:
        return [SearchAnswer(hits, []) for hits in found]
    return [_explain_by_idf(index, query, hits) for query, hits in zip(queries, found, strict=True)]


def _explain_by_idf(index: Index, query: str, hits: list[Hit]) -> SearchAnswer:
    for _ in range(_ATTEMPTS):
        with suppress(InputError):
            return SearchAnswer(hits, explain_by_idf(index, query, hits))
        # What was deleted since is no hit any more.
        there = index.get([hit.id for hit in hits])
        hits = [hit for hit, document in zip(hits, there, strict=True) if document]
    return SearchAnswer(hits, explain_by_idf(index, query, hits))


def _scores(left: Counted, right: Counted, heads: Sequence[Head]) -> dict[Head, Floats]:
    return {head: scores.head_scores(left.encoded, right.encoded, head)[0] for head in heads}
