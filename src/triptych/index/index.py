"""`Index`: texts in, hits out. Joins an encoder with an engine of `triptych.index`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypedDict, Unpack, cast, overload

from triptych.errors import IndexForeign, InputError
from triptych.index.filters import Filter
from triptych.index.layout import Layout, LayoutOptions, Payload, check_ids, check_text, read_documents
from triptych.index.search import Plan, Protocol, hybrid_search, make_plan
from triptych.index.store import EngineName, Store, create_store, open_store
from triptych.types import Encoded, Head, HeadWeights, Hit, TextEncoder

Progress = Callable[[int, int | None], None]

BLOCK = 128
"""Documents that `Index.add` encodes and stores at once."""


class SearchOptions(TypedDict, total=False):
    """How to search.

    Attributes:
        weights: Weights of the scores dense, lexical, multi in their sum; default (1, 0.3, 1) for the heads that the
            index has.
        candidates: How many documents each route recalls, at least k; default 200. More finds more.
        routes: Heads that recall documents, of dense,lexical,multi; default dense and lexical.
        filter: Conditions on the metadata, see `triptych.index.filters`; default none.
        protocol: exact (default): all scores of every recalled document; paper: as in the published evaluation, a score
            that a route did not give is 0.
    """

    weights: HeadWeights | Sequence[float] | Mapping[str, float] | None
    candidates: int
    routes: Sequence[Head] | None
    filter: Mapping[str, Any] | Filter | None
    protocol: Protocol


class Index:
    """A searchable collection of texts; `Index.create` or `Index.open` makes one.

    An index remembers the model whose vectors it holds and refuses any other. Use it as a context manager, or
    call `close`.

    Example:
        >>> with Index.create("my.index", encoder) as index:            # doctest: +SKIP
        ...     index.add(["a", "b"], ["A text.", "Another."], [{"lang": "en"}, {"lang": "en"}])
        ...     hits = index.search("which text?", k=1, filter={"lang": "en"})
    """

    def __init__(self, store: Store, encoder: TextEncoder | None) -> None:
        self._store = store
        self._encoder = encoder

    @classmethod
    def create(
        cls,
        place: str | os.PathLike[str],
        encoder: TextEncoder,
        *,
        engine: EngineName = "auto",
        api_key: str | None = None,
        **options: Unpack[LayoutOptions],
    ) -> Index:
        """Makes an empty index and opens it.

        Args:
            place: A folder that does not exist, or a server's address ``http(s)://host[:port]/collection``.
            encoder: The model whose vectors the index will hold.
            engine: "edge" (Qdrant within the process; the default for a folder), "exact" (NumPy; for small
                collections), "server" (the default for an address).
            api_key: For a server; default: the environment variable TRIPTYCH_API_KEY.
            **options: What is stored and how: `multi` ("float16", "float32", "int8", "binary", None), `dense`
                ("float32", "float16"), `coarse`, `exact_below`, `ef`; see `triptych.index.layout.Layout`.

        Raises:
            IndexExists: If there is something at the place.
            InputError: For options that are unknown or do not go together.
            StorageError: If it cannot be written.
        """
        layout = Layout.of(encoder.widths, options)
        model = (encoder.source, encoder.fingerprint)
        return cls(create_store(os.fspath(place), engine, layout, model, api_key), encoder)

    @classmethod
    def open(
        cls, place: str | os.PathLike[str], encoder: TextEncoder | None = None, *, api_key: str | None = None
    ) -> Index:
        """Opens an index.

        Args:
            place: Folder or address, as for `create`.
            encoder: The model; None: the recorded one is loaded when it is first needed.
            api_key: For a server.

        Raises:
            IndexMissing: If there is no index.
            IndexLocked: If it is open elsewhere (a folder can be open once).
            IndexForeign: If the index holds another model's vectors, or has another layout version.
            IndexCorrupt: If its files cannot be read.
        """
        store = open_store(os.fspath(place), api_key)
        try:
            if encoder is not None:
                _check_model(store, encoder)
        except BaseException:
            store.close()
            raise
        return cls(store, encoder)

    @property
    def encoder(self) -> TextEncoder:
        """The model; loaded from its recorded source if none was given.

        Raises:
            ModelError: If it cannot be loaded.
            IndexForeign: If the source now has another model.
        """
        if self._encoder is None:
            from triptych.encode.encoder import Encoder

            encoder = cast(TextEncoder, Encoder.from_pretrained(self._store.manifest.source))
            _check_model(self._store, encoder)
            self._encoder = encoder
        return self._encoder

    def add(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        block: int = BLOCK,
        progress: Progress | None = None,
    ) -> int:
        """Adds documents; one whose id is there already is replaced.

        The documents are encoded and stored block by block. A block that is stored survives the death of the
        process, so that one killed in between loses the current block at most; `flush` and `close` make all
        survive the loss of power.

        Args:
            ids: N distinct names.
            texts: N texts.
            metadata: N JSON objects (None: an empty one).
            block: Documents a block.
            progress: Called with (stored, N) after each block, when it is stored.

        Returns:
            N.

        Raises:
            InputError: For bad ids, texts or metadata; nothing is stored then.
            StorageError: If a block could not be stored; those before it are.
        """
        payloads = read_documents(ids, texts, metadata)
        if isinstance(block, bool) or block < 1:
            raise InputError(f"add: got block={block!r}; expected an integer ≥ 1")
        self._store.check_open()
        engine = self._store.engine
        for start in range(0, len(payloads), block):
            part = payloads[start : start + block]
            vectors = self.encoder.encode_document([p["text"] for p in part], outputs=engine.layout.heads)
            with self._store.changing():
                engine.add(vectors, part)
            if progress is not None:
                progress(start + len(part), len(payloads))
        return len(payloads)

    def delete(self, ids: Sequence[str]) -> int:
        """Removes documents; unknown ids are no error.

        Returns:
            How many there were.

        Raises:
            InputError: If an id is not a string.
        """
        names = check_ids(ids, "delete")
        self._store.check_open()
        with self._store.changing() as engine:
            return engine.delete([engine.key(name) for name in dict.fromkeys(names)])

    @overload  # a string is a sequence of strings, too: the first overload that fits counts
    def search(  # pyright: ignore[reportOverlappingOverload]
        self, query: str, k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Hit]: ...

    @overload
    def search(
        self, query: Sequence[str], k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]: ...

    def search(
        self, query: str | Sequence[str], k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Hit] | list[list[Hit]]:
        """Searches with all heads of the index.

        Args:
            query: One question, or several.
            k: Hits a question, at most `candidates`.
            **options: `weights`, `candidates`, `routes`, `filter`, `protocol`; see `SearchOptions`.

        Returns:
            For one question its hits, the best first, equal scores by id; for several a list of such lists.

        Raises:
            InputError: For an empty question, or an option that the index cannot follow.
        """
        plan = self._plan(k, options)
        texts = _queries(query)
        if not texts:
            return []
        engine = self._store.engine
        found = hybrid_search(engine, self.encoder.encode_query(texts, outputs=engine.layout.heads), plan)
        return found[0] if isinstance(query, str) else found

    def search_encoded(
        self, queries: Encoded, k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """Searches for queries that are encoded already, such as with prompts of their own.

        Args:
            queries: Q queries with all heads of the index, by its own model.
            k: As for `search`.
            **options: As for `search`.

        Returns:
            For each query its hits.

        Raises:
            InputError: As `search`, and for vectors that do not fit the index.
        """
        return hybrid_search(self._store.engine, queries, self._plan(k, options))

    @property
    def heads(self) -> tuple[Head, ...]:
        """The representations that the index holds."""
        self._store.check_open()
        return self._store.engine.layout.heads

    def _plan(self, k: int, options: SearchOptions) -> Plan:
        self._store.check_open()
        unknown = [name for name in options if name not in SearchOptions.__annotations__]
        if unknown:
            known = ", ".join(SearchOptions.__annotations__)
            raise InputError(f"search: got the options {unknown}; expected some of {known}")
        return make_plan(
            self._store.engine,
            k,
            options.get("weights"),
            options.get("routes"),
            Filter.of(options.get("filter")),
            candidates=options.get("candidates", 200),
            protocol=options.get("protocol", "exact"),
        )

    def get(self, ids: Sequence[str]) -> list[Payload | None]:
        """Documents as they were added (id, text, metadata), in the order of `ids`; None for one not there."""
        self._store.check_open()
        engine = self._store.engine
        return engine.fetch([engine.key(name) for name in check_ids(ids, "get")])

    @property
    def ids(self) -> Iterator[str]:
        """The ids of all documents, in no particular order."""
        self._store.check_open()
        return self._store.engine.ids()

    def count(self, filter: Mapping[str, Any] | Filter | None = None) -> int:
        """How many documents there are, or fulfil a filter."""
        self._store.check_open()
        return self._store.engine.count(Filter.of(filter))

    def __len__(self) -> int:
        return self.count()

    def info(self) -> dict[str, Any]:
        """What the index says about itself: place, number of documents, engine, model, layout."""
        return {"place": self._store.place, "documents": self.count(), **self._store.manifest.to_json()}

    def flush(self) -> None:
        """Makes everything survive the loss of power."""
        self._store.check_open()
        self._store.engine.flush()

    def optimize(self) -> None:
        """Rearranges the store for faster search. Blocks, and may take minutes: not while serving."""
        self._store.check_open()
        self._store.engine.optimize()

    def close(self) -> None:
        """Flushes, frees everything and gives the lock back. Twice is no error."""
        self._store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_model(store: Store, encoder: TextEncoder) -> None:
    manifest = store.manifest
    if encoder.fingerprint != manifest.fingerprint:
        raise IndexForeign(
            f"{store.place}: holds vectors of the model {manifest.source!r} (fingerprint "
            f"{manifest.fingerprint[:12]}…), but got {encoder.source!r} ({encoder.fingerprint[:12]}…); expected the "
            "same model. Open it with that one, or build a new index"
        )


def _queries(query: str | Sequence[str]) -> list[str]:
    texts = [query] if isinstance(query, str) else list(query)
    for text in texts:
        if not check_text(text, "search: query").strip():
            raise InputError("search: got an empty query; expected a text")
    return texts
