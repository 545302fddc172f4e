"""`Index`: texts in, hits out. Joins an encoder with an engine of `triptych.index`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Unpack, cast, overload

import numpy as np

from triptych.errors import IndexFault, IndexForeign, InputError, show
from triptych.index.documents import (
    Payload,
    check_ids,
    check_integer,
    check_list,
    check_options,
    check_place,
    check_text,
    read_documents,
)
from triptych.index.filters import Filter
from triptych.index.layout import Layout, LayoutOptions
from triptych.index.search import (
    CANDIDATES,
    Plan,
    SearchOptions,
    check_fields,
    hybrid_search,
    known_fields,
    make_plan,
)
from triptych.index.store import EngineName, Store, create_store, open_store
from triptych.index.sync import Changes, Synchronizer
from triptych.passages import PassageOptions
from triptych.records import Document
from triptych.scores.on_numpy import cuts
from triptych.types import Encoded, Head, Hit, Progress, TextEncoder, check_callable

BLOCK = 128
"""Most documents that `Index.add` encodes and stores at once."""

BLOCK_CHARACTERS = 131_072
"""Most characters of them, unless one alone has more."""


class Index:
    """A searchable collection of texts; `Index.create` or `Index.open` makes one.

    An index remembers the model whose vectors it holds and refuses any other. Use it as a context manager, or
    call `close`; one that is no longer referred to closes itself. Threads may share an index. Processes may not: a
    forked or spawned worker opens it itself, which an index in a folder allows to one process at a time.

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
        where = check_place(place)
        _check_encoder(encoder)
        _check_key(api_key)
        layout = Layout.of(encoder.widths, options)
        # A folder is recorded so that it is found from any other.
        folder = Path(encoder.source)
        source = str(folder.absolute()) if folder.is_dir() else encoder.source
        return cls(create_store(where, engine, layout, (source, encoder.fingerprint), api_key), encoder)

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
            IndexLocked: If it is open elsewhere (a folder can be open once, one that cannot be written any number
                of times).
            IndexForeign: If the index holds another model's vectors, or has another layout version.
            IndexCorrupt: If its files are damaged; `triptych.index.repair` may help.
        """
        where = check_place(place)
        if encoder is not None:
            _check_encoder(encoder)
        _check_key(api_key)
        store = open_store(where, api_key)
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

    @encoder.setter
    def encoder(self, encoder: TextEncoder) -> None:
        _check_model(self._store, encoder)
        self._encoder = encoder

    def add(
        self,
        ids: Iterable[str],
        texts: Iterable[str],
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
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
            metadata: N JSON objects (None: an empty one) of at most 64 levels; dates, NumPy's numbers and the like
                become what they stand for in JSON, see `triptych.index.documents`.
            block: Most documents per block; blocks of long texts are smaller.
            progress: Called with ("index", stored, N) at the start and after each block, when it is stored.

        Returns:
            N.

        Raises:
            InputError: For bad ids, texts or metadata; nothing is stored then.
            StorageError: If a block could not be stored; those before it are.
        """
        self._store.check_open()
        payloads = read_documents(ids, texts, metadata)
        block = check_integer(block, "add: got block")
        if progress is not None:
            if not callable(progress):
                raise InputError(
                    f"add: got progress={show(progress)}; expected a function (stage, done, total)"
                )
            progress("index", 0, len(payloads))
        engine, done = self._store.engine, 0
        for part in _blocks(payloads, block):
            vectors = self.encoder.encode_document([p["text"] for p in part], outputs=engine.layout.heads)
            with self._store.changing():
                engine.add(vectors, part)
            done += len(part)
            if progress is not None:
                progress("index", done, len(payloads))
        return len(payloads)

    def add_documents(
        self,
        documents: Iterable[Document],
        options: PassageOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> Changes:
        """Adds documents of any length, cut into passages; those that are there already, unchanged, cost nothing.

        A passage is a document of the index with an id such as ``report.pdf#3``, and with metadata that say of which
        document it is (`parent`), which it is (`passage`, `passages`), under which `heading` and on which `page`, and
        where it stands in the text (`start`, `end`). A document of one passage keeps its own id.

        Args:
            documents: With different ids; read as a stream.
            options: How they are cut; default: `PassageOptions`.
            progress: Called with ("index", documents done, None).

        Returns:
            How many were added, replaced and unchanged.

        Raises:
            InputError: For a document that cannot be kept; those before it may be stored.
            StorageError: If a block could not be stored; those before it are.
        """
        self._store.check_open()
        run = self.synchronizer(options, progress)
        run.add(documents)
        return run.finish()

    def synchronizer(
        self, options: PassageOptions | None = None, progress: Progress | None = None
    ) -> Synchronizer:
        """What `add_documents` and `add_files` work with; for a program that reads its sources by itself."""
        self._store.check_open()
        check_callable(progress, "progress")
        return Synchronizer(self._store, self.encoder, options or PassageOptions(), progress)

    def delete(self, ids: Iterable[str]) -> int:
        """Removes documents; unknown ids are no error.

        Returns:
            How many there were.

        Raises:
            InputError: If an id is not a string.
        """
        self._store.check_open()
        names = check_ids(ids, "delete", ordered=False)
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
            k: Hits per question.
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
        found = self._search(self.encoder.encode_query(texts, outputs=self.heads), plan)
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
        plan = self._plan(k, options)
        if not isinstance(queries, Encoded):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"search_encoded: got {type(queries).__name__} for queries; expected an Encoded")
        return self._search(queries, plan)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The representations that the index holds."""
        self._store.check_open()
        return self._store.engine.layout.heads

    def _plan(self, k: int, options: SearchOptions) -> Plan:
        self._store.check_open()
        check_options(options, SearchOptions, "search")
        where = Filter.of(options.get("filter"))
        return make_plan(
            self._store.engine,
            k,
            options.get("weights"),
            options.get("routes"),
            where,
            candidates=options.get("candidates", CANDIDATES),
            protocol=options.get("protocol", "exact"),
        )

    def _search(self, queries: Encoded, plan: Plan) -> list[list[Hit]]:
        found = hybrid_search(self._store.engine, queries, plan)
        if plan.where is not None and not any(found):
            check_fields(self._store.engine, plan.where)
        return found

    def get(self, ids: Iterable[str]) -> list[Payload | None]:
        """Documents as they were added (id, text, metadata), in the order of `ids`; None for one not there."""
        self._store.check_open()
        engine = self._store.engine
        found = engine.fetch([engine.key(name) for name in check_ids(ids, "get", ordered=False)])
        return [
            payload and Payload(id=payload["id"], text=payload["text"], metadata=payload["metadata"])
            for payload in found
        ]

    @property
    def ids(self) -> Iterator[str]:
        """The ids of all documents, in no particular order."""
        self._store.check_open()
        return self._store.engine.ids()

    def count(self, filter: Mapping[str, Any] | Filter | None = None) -> int:
        """How many documents there are, or fulfil a filter."""
        self._store.check_open()
        where = Filter.of(filter)
        found = self._store.engine.count(where)
        if where is not None and not found:
            check_fields(self._store.engine, where)
        return found

    def __len__(self) -> int:
        return self.count()

    def fields(self) -> list[str]:
        """Fields of the documents' metadata as filters name them, the most frequent first; from some documents."""
        self._store.check_open()
        return known_fields(self._store.engine)

    def info(self) -> dict[str, Any]:
        """What the index says about itself: place, number of documents, engine, model, layout."""
        return {"place": self._store.place, "documents": self.count(), **self._store.manifest.to_json()}

    def flush(self) -> None:
        """Makes everything survive the loss of power."""
        self._store.check_open()
        self._store.engine.flush()

    def optimize(self) -> None:
        """Rearranges the store for faster search. Blocks, and may take minutes: not while serving."""
        with self._store.changing() as engine:
            engine.optimize()

    def close(self) -> None:
        """Flushes, frees everything and gives the lock back. Twice is no error."""
        self._store.close()

    def __enter__(self) -> Index:
        return self

    def __reduce__(self) -> NoReturn:
        raise IndexFault(
            f"{self._store.place}: an open index cannot be pickled or copied. Give its place to the worker and open it "
            "there with Index.open, after it is closed here"
        )

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


def _check_encoder(encoder: object) -> None:
    if not all(hasattr(encoder, name) for name in ("fingerprint", "source", "widths", "encode_query")):
        hint = "; Encoder.from_pretrained loads one" if isinstance(encoder, str | os.PathLike) else ""
        raise InputError(f"index: got {type(encoder).__name__} for encoder; expected an Encoder{hint}")


def _check_key(api_key: object) -> None:
    if api_key is not None and not isinstance(api_key, str):
        raise InputError(f"index: got {type(api_key).__name__} for api_key; expected a string or None")


def _blocks(payloads: Sequence[Payload], most: int) -> Iterator[Sequence[Payload]]:
    """Runs of documents that are encoded at once: so many, or so many characters, that memory stays bounded."""
    lengths = np.asarray([len(payload["text"]) for payload in payloads], dtype=np.int64)
    for run in cuts(lengths, BLOCK_CHARACTERS):
        for start in range(run.start, run.stop, most):
            yield payloads[start : min(start + most, run.stop)]


def _queries(query: object) -> list[str]:
    texts = [query] if isinstance(query, str) else check_list(query, "search", "query")
    for i, text in enumerate(texts):
        if not check_text(text, "search: query").strip():
            where = "" if isinstance(query, str) else f" at position {i}"
            raise InputError(f"search: got an empty query{where}; expected a text")
    return [str.__str__(text) for text in texts]
