"""`Index`: texts in, hits out. Joins an encoder with an engine of `triptych.index`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Unpack, cast, overload

import numpy as np

from triptych.config import BLOCK_TOKENS
from triptych.errors import DataError, IndexFault, IndexForeign, IndexMissing, InputError, show
from triptych.files.listing import OnSkip
from triptych.index.documents import (
    Payload,
    check_ids,
    check_integer,
    check_list,
    check_place,
    check_text,
    read_metadata,
    read_payloads,
)
from triptych.index.filters import Filter
from triptych.index.layout import Layout, LayoutOptions
from triptych.index.query_weights import QueryWeights, current_weights, keep_weights, lexical_width
from triptych.index.search import Plan, SearchOptions, check_fields, hybrid_search, known_fields, make_plan
from triptych.index.store import EngineName, Store, create_store, open_store
from triptych.index.sync import Changes, Synchronizer
from triptych.passages import PassageOptions
from triptych.records import Document
from triptych.scores.on_numpy import cuts
from triptych.types import (
    Encoded,
    Head,
    HeadWeights,
    Hit,
    Hits,
    Progress,
    TextEncoder,
    check_callable,
    check_heads,
    check_iterable,
    check_path,
)

if TYPE_CHECKING:
    from triptych.encode.stream import FinishedStream
    from triptych.model.tokenizer import TextTokenizer

BLOCK = 128
"""Most documents that `Index.add` encodes and stores at once."""

BLOCK_CHARACTERS = 131_072
"""Most characters of them, unless one alone has more."""

_PAGE = 500
"""Documents that are read at once."""


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
        self._checked_fields: set[tuple[str, ...]] = set()
        self._query_weights: QueryWeights | None = None
        self._tokenizer: TextTokenizer | None = None

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
            place: A folder that does not exist, or an address: ``http(s)://host[:port]/collection`` of a Qdrant server,
                ``postgresql://user@host[:port]/database/collection``.
            encoder: The model whose vectors the index will hold.
            engine: "edge" (Qdrant within the process; the default for a folder), "exact" (NumPy; for small
                collections), "server" or "postgres" (the default for their addresses).
            api_key: For Qdrant's server; default: the environment variable TRIPTYCH_API_KEY. For PostgreSQL the
                password; default: what libpq finds (PGPASSWORD, ~/.pgpass).
            **options: What is stored and how, see `triptych.index.layout.LayoutOptions`: `multi`, `pool_tokens`,
                `multi_width`, `dense`, `coarse`, `exact_below`, `ef`.

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
        cls,
        place: str | os.PathLike[str],
        encoder: TextEncoder | None = None,
        *,
        api_key: str | None = None,
        read_only: bool = False,
    ) -> Index:
        """Opens an index.

        Args:
            place: Folder or address, as for `create`.
            encoder: The model; None: the recorded one is loaded when it is first needed.
            api_key: For a server.
            read_only: Whether it is not to be changed: of a folder what it holds now is read, by any number of
                processes. With the engine "exact" another one may write to it meanwhile; the engine "edge" reads a
                copy, which it makes while no other has the index open.

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
        store = open_store(where, api_key, read_only=bool(read_only))
        try:
            if encoder is not None:
                _check_model(store, encoder)
        except BaseException:
            store.close()
            raise
        return cls(store, encoder)

    @classmethod
    def open_or_create(
        cls,
        place: str | os.PathLike[str],
        encoder: TextEncoder,
        *,
        engine: EngineName = "auto",
        api_key: str | None = None,
        **options: Unpack[LayoutOptions],
    ) -> Index:
        """Opens the index at a place, or makes an empty one if there is none.

        Args:
            place: As for `create`.
            encoder: The model.
            engine: As for `create`.
            api_key: For a server.
            **options: As for `create`.

        Raises:
            InputError: If the index that is there has another engine, or other values of these options.
            IndexFault: As `open` and `create`.
        """
        _check_encoder(encoder)
        wanted = Layout.of(encoder.widths, options).options
        try:
            found = cls.open(place, encoder, api_key=api_key)
        except IndexMissing:
            return cls.create(place, encoder, engine=engine, api_key=api_key, **options)
        manifest = found._store.manifest
        there = {"engine": manifest.engine, **manifest.layout.options}
        given = {name: wanted[name] for name in options} | ({} if engine == "auto" else {"engine": engine})
        for name, value in given.items():
            if there[name] != value:
                found.close()
                raise InputError(
                    f"{found._store.place}: got {name}={value!r}; the index there has {there[name]!r}, which is chosen "
                    "once"
                )
        return found

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
        payloads = read_payloads(ids, texts, metadata)
        block = check_integer(block, "add: got block")
        if progress is not None:
            if not callable(progress):
                raise InputError(
                    f"add: got progress={show(progress)}; expected a function (stage, done, total)"
                )
            progress("index", 0, len(payloads))
        engine, done = self._store.engine, 0
        for part in blocks_by_length(payloads, block):
            vectors = self.encoder.encode_document([p["text"] for p in part], outputs=engine.layout.heads)
            self._store.add(vectors, part)
            done += len(part)
            if progress is not None:
                progress("index", done, len(payloads))
        return len(payloads)

    def add_encoded(
        self,
        ids: Iterable[str],
        texts: Iterable[str],
        vectors: Encoded,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> int:
        """Adds documents whose vectors are there already; one whose id is there is replaced.

        Args:
            ids: N distinct names.
            texts: N texts.
            vectors: Of the N texts, by the index's own model; further heads than the index's are not stored.
            metadata: As for `add`.

        Returns:
            N.

        Raises:
            InputError: For bad ids, texts or metadata, or vectors that do not fit the index; nothing is stored then.
            StorageError: If they could not be stored.
        """
        self._store.check_open()
        payloads = read_payloads(ids, texts, metadata)
        if not isinstance(vectors, Encoded):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"add_encoded: got {type(vectors).__name__} for vectors; expected an Encoded")
        self._store.add(vectors, payloads)
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
        run = self.synchronizer(options, progress=progress)
        run.add(documents)
        return run.finish()

    def add_files(
        self,
        paths: Path | str | Sequence[Path | str],
        options: PassageOptions | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        keep: bool = False,
        on_skip: OnSkip | None = None,
        on_error: Callable[[DataError], None] | None = None,
        progress: Progress | None = None,
    ) -> Changes:
        """Brings the index in step with files and folders: encodes what is new or changed, removes what is gone.

        The kinds of files and the ids: `triptych.documents.read_documents`. Passages: `add_documents`.

        Args:
            paths: Files and folders.
            options: How documents are cut; default: `PassageOptions`.
            metadata: Given to every document.
            keep: Whether documents stay that came from these paths before and are there no more.
            on_skip: Called with each file of a folder that gives no document, and why.
            on_error: Called with what is wrong with a file of a folder, whose documents stay; None: it is raised.
            progress: Called with ("index", documents done, None).

        Raises:
            DataError: For a file that cannot be read or is not what it should be.
            InputError: For a document that cannot be kept.
            StorageError: If a block could not be stored; those before it are.
        """
        given = [paths] if isinstance(paths, str | Path) else list(check_iterable(paths, "paths"))
        run = self.synchronizer(options, metadata=metadata, progress=progress)
        return run.add_files(
            [check_path(path, "paths") for path in given], keep=keep, on_skip=on_skip, on_error=on_error
        )

    def synchronizer(
        self,
        options: PassageOptions | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        block_tokens: int = BLOCK_TOKENS,
        progress: Progress | None = None,
        on_first: Callable[[int, int], None] | None = None,
        stream: FinishedStream | None = None,
    ) -> Synchronizer:
        """What `add_documents` and `add_files` work with; for a program that reads its sources by itself.

        Args:
            options: As for `add_documents`.
            metadata: Given to every document.
            block_tokens: Tokens that are encoded and stored at once.
            progress: As for `add_documents`.
            on_first: Called once, with a number of documents and the bytes that they will take on the disk.
            stream: Vectors of the documents that were encoded before; then these stay whole.

        Raises:
            InputError: If documents are to be cut whose vectors are there, or these lack a head of the index.
            IndexForeign: If the vectors are of another model.
        """
        self._store.check_open()
        check_callable(progress, "progress")
        block = check_integer(block_tokens, "index: got block_tokens")
        how = options or PassageOptions()
        return Synchronizer(
            self._store,
            self.encoder,
            how,
            metadata,
            block_tokens=block,
            progress=progress,
            on_first=on_first,
            encoded=None if stream is None else self._check_stream(stream, how).vectors,
        )

    def _check_stream(self, stream: FinishedStream, options: PassageOptions) -> FinishedStream:
        if options.passages != "none":
            raise InputError("index: got encoded documents, which stay whole; expected passages='none'")
        if lacking := [head for head in self.heads if head not in stream.facts["heads"]]:
            raise InputError(f"index: got vectors without {lacking}; the index has {', '.join(self.heads)}")
        if stream.facts["fingerprint"] != self._store.manifest.fingerprint:
            raise IndexForeign(
                f"{self._store.place}: holds vectors of {self._store.manifest.source!r}; got ones of "
                f"{stream.facts['model']!r}, which is another model"
            )
        return stream

    @property
    def has_passages(self) -> bool:
        """Whether documents of the index are passages of longer ones."""
        self._store.check_open()
        return self._store.engine.count(Filter.of({"parent": {"exists": True}})) > 0

    def passages(self, document: str) -> list[Payload]:
        """The passages of a document in their order; of one that is whole, itself; none if it is not there.

        Raises:
            InputError: If the id is not a string.
        """
        (whole,) = self.get([document])
        if whole is not None:
            return [whole]
        found = list(self.documents({"parent": document}))
        return sorted(found, key=lambda payload: payload["metadata"]["passage"])

    def delete(
        self, ids: Iterable[str] | None = None, *, filter: Mapping[str, Any] | Filter | None = None
    ) -> int:
        """Removes documents: those with these ids, or those that fulfil a filter; unknown ids are no error.

        Returns:
            How many there were.

        Raises:
            InputError: If an id is not a string, for both arguments or none, and for a filter without conditions.
        """
        self._store.check_open()
        where = Filter.of(filter)
        if (ids is None) == (where is None):
            raise InputError(
                f"delete: got ids={show(ids)} and filter={show(filter)}; expected one of them (a filter with at least "
                "one condition)"
            )
        if ids is None:
            names = list(self._store.engine.ids(where))
        else:
            names = check_ids(ids, "delete", ordered=False)
            names += self._passages_of(names)
        with self._store.changing() as engine:
            return engine.delete([engine.key(name) for name in dict.fromkeys(names)])

    def _passages_of(self, names: list[str]) -> list[str]:
        """The passages of documents that are none themselves."""
        engine = self._store.engine
        found = engine.fetch([engine.key(name) for name in names])
        others = [name for name, payload in zip(names, found, strict=True) if payload is None]
        return list(engine.ids(Filter.of({"parent": others}))) if others else []

    def update(
        self, ids: Iterable[str], metadata: Iterable[Mapping[str, Any]], *, replace: bool = False
    ) -> int:
        """Changes the metadata of documents, whose texts are not encoded again; unknown ids are no error.

        Args:
            ids: N distinct names.
            metadata: N JSON objects. Their fields are set, and other fields stay.
            replace: Whether other fields go instead.

        Returns:
            How many of the documents there are.

        Raises:
            InputError: For bad ids or metadata; nothing is changed then.
        """
        self._store.check_open()
        names = check_ids(ids, "update")
        objects = check_list(metadata, "update", "metadata")
        if not len(set(names)) == len(names) == len(objects):
            raise InputError(
                f"update: got {len(names)} ids, {len(set(names))} of them distinct, and {len(objects)} metadata; "
                "expected equally many, and each id once"
            )
        fields = [
            read_metadata(value, f"update: metadata of document {name!r}")
            for name, value in zip(names, objects, strict=True)
        ]
        with self._store.changing() as engine:
            keys = [engine.key(name) for name in names]
            there = {
                key: new if replace else {**old["metadata"], **new}
                for key, old, new in zip(keys, engine.fetch(keys), fields, strict=True)
                if old is not None
            }
            engine.set_metadata(list(there), list(there.values()))
        return len(there)

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
            **options: `weights`, `candidates`, `routes`, `filter`, `protocol`, `offset`, `min_score`, `group_by`,
                `group_size`, `lexical_queries`; see `SearchOptions`.

        Returns:
            For one question its hits, the best first, equal scores by id; for several a list of such lists.

        Raises:
            InputError: For an empty question, or an option that the index cannot follow.
        """
        plan = self._plan(k, options)
        texts = _queries(query)
        if not texts:
            return []
        if options.get("lexical_queries") == "idf":
            queries = Encoded(lexical=self.query_weights.encode(texts, self.tokenizer))
        else:
            queries = self.encoder.encode_query(texts, outputs=self.heads)
        found = self._search(queries, plan)
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

    @property
    def weights(self) -> HeadWeights:
        """Of the scores, for searches that name none: those that were set, or else the usual ones."""
        return self._store.manifest.weights or HeadWeights.default(self.heads)

    def set_weights(self, weights: HeadWeights | Sequence[float] | Mapping[str, float] | None) -> None:
        """Keeps weights in the index, such as those that `triptych eval --tune` chose on one's own questions.

        Args:
            weights: Of the scores, for searches that name none; None: the usual ones again.

        Raises:
            InputError: For what are no weights, or a weight of a head that the index does not hold.
            StorageError: If they cannot be written; the old ones stay.
        """
        self._store.check_open()
        chosen = None if weights is None else make_plan(self._store.engine, 1, {"weights": weights}).weights
        self._store.set_weights(chosen)

    @property
    def query_weights(self) -> QueryWeights:
        """How many documents have each token, by which ``lexical_queries="idf"`` weighs those of a query.

        The index's own documents are counted when that is first needed, and again when there are a tenth more or
        fewer of them; in a folder that can be written the counts are kept.

        Raises:
            InputError: If the index has no lexical vectors.
            IndexCorrupt: If counts that were kept are damaged.
        """
        self._store.check_open()
        self._query_weights = current_weights(self._store, self._query_weights)
        return self._query_weights

    def set_query_weights(self, texts: Iterable[str] | None) -> None:
        """Counts other texts instead, such as those of a larger collection.

        Args:
            texts: Each of them is a document; read as a stream. None: the index's own documents again.

        Raises:
            InputError: If the index has no lexical vectors, or for something that is no text.
            StorageError: If the counts cannot be written to the index's folder.
        """
        with self._store.changing() as engine:
            width = lexical_width(engine)
            if texts is None:
                found = QueryWeights.of_engine(engine)
            else:
                given = check_iterable(texts, "set_query_weights: texts")
                found = QueryWeights.of_texts(given, self.tokenizer, width)
            self._query_weights = keep_weights(self._store, found)

    @property
    def tokenizer(self) -> TextTokenizer:
        """The model's tokenizer; of a model that is not loaded, it alone is read.

        Raises:
            ModelError: If it cannot be read.
        """
        if self._tokenizer is None:
            from triptych.model.hub import resolve
            from triptych.model.tokenizer import TextTokenizer

            known: TextTokenizer | None = getattr(self._encoder, "tokenizer", None)
            self._tokenizer = known or TextTokenizer.load(resolve(self._store.manifest.source))
        return self._tokenizer

    def _plan(self, k: int, options: SearchOptions) -> Plan:
        self._store.check_open()
        if options.get("weights") is None and options.get("lexical_queries") != "idf":
            options = {**options, "weights": self._store.manifest.weights}
        return make_plan(self._store.engine, k, options)

    def _search(self, queries: Encoded, plan: Plan) -> list[list[Hit]]:
        found: list[list[Hit]] = [Hits(hits) for hits in hybrid_search(self._store.engine, queries, plan)]
        self._check_fields(plan.where, empty=not any(found))
        return found

    def _check_fields(self, where: Filter | None, *, empty: bool) -> None:
        """Says that a filter has a misspelt field: where nothing was found, and once for what may be missing."""
        if where is None:
            return
        paths = where.paths if empty else [p for p in where.optional_paths if p not in self._checked_fields]
        check_fields(self._store.engine, paths, refuse=empty)
        self._checked_fields.update(where.optional_paths)

    def get(self, ids: Iterable[str]) -> list[Payload | None]:
        """Documents as they were added (id, text, metadata), in the order of `ids`; None for one not there."""
        self._store.check_open()
        engine = self._store.engine
        found = engine.fetch([engine.key(name) for name in check_ids(ids, "get", ordered=False)])
        return [payload and _document(payload) for payload in found]

    def vectors(self, ids: Iterable[str], *, heads: Sequence[str] | None = None) -> Encoded:
        """The representations of documents as they are stored, in float32.

        Args:
            ids: N names.
            heads: Which; None: all that the index holds.

        Returns:
            N texts. Token vectors of fewer bits are what they stand for.

        Raises:
            InputError: For a document that is not there, or a head that the index does not hold.
        """
        self._store.check_open()
        engine, names = self._store.engine, check_ids(ids, "vectors")
        chosen = self.heads if heads is None else check_heads(heads, "vectors: heads")
        if lacking := [head for head in chosen if head not in self.heads]:
            raise InputError(f"vectors: got the heads {lacking}; the index has {', '.join(self.heads)}")
        keys = [engine.key(name) for name in names]
        for start in range(0, len(keys), _PAGE):
            for name, found in zip(names[start:], engine.fetch(keys[start : start + _PAGE]), strict=False):
                if found is None:
                    raise InputError(
                        f"vectors: got the id {name!r}; expected ids of documents that are there"
                    )
        return engine.vectors(keys, chosen)

    def documents(self, filter: Mapping[str, Any] | Filter | None = None) -> Iterator[Payload]:
        """All documents as they were added (id, text, metadata), or those that fulfil a filter, in no particular order.

        They are read in pages: those that are added or deleted meanwhile may be among them or not.
        """
        self._store.check_open()
        engine = self._store.engine
        names = engine.ids(Filter.of(filter))

        def read() -> Iterator[Payload]:
            while page := [engine.key(name) for name in islice(names, _PAGE)]:
                self._store.check_open()
                yield from (_document(found) for found in engine.fetch(page) if found is not None)

        return read()

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
        self._check_fields(where, empty=not found)
        return found

    def __len__(self) -> int:
        return self.count()

    def fields(self) -> list[str]:
        """Fields of the documents' metadata as filters name them, the most frequent first; from some documents."""
        self._store.check_open()
        return known_fields(self._store.engine)

    def info(self) -> dict[str, Any]:
        """What the index says about itself: place, number of documents, engine, model, layout."""
        manifest = self._store.manifest
        shown = manifest.to_json() | {"layout": manifest.layout.options}
        return {"place": self._store.place, "documents": self.count(), **shown}

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

    def __repr__(self) -> str:
        if not self._store.is_open:
            return f"Index({self._store.place!r}, closed)"
        manifest = self._store.manifest
        widths = ", ".join(f"{head} {width}" for head, width in manifest.layout.widths.items())
        try:
            documents = f"{self._store.engine.count():,} documents"
        except IndexFault:
            documents = "not readable"
        made = f"engine {manifest.engine}, model {manifest.source!r}"
        return f"Index({self._store.place!r}: {documents}; {widths}; {made})"

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


def blocks_by_length(payloads: Sequence[Payload], most: int = BLOCK) -> Iterator[Sequence[Payload]]:
    """Runs of documents that are handled at once: so many, or so many characters, that memory stays bounded."""
    lengths = np.asarray([len(payload["text"]) for payload in payloads], dtype=np.int64)
    for run in cuts(lengths, BLOCK_CHARACTERS):
        for start in range(run.start, run.stop, most):
            yield payloads[start : min(start + most, run.stop)]


def _document(payload: Payload) -> Payload:
    """A document as it was added."""
    return Payload(id=payload["id"], text=payload["text"], metadata=payload["metadata"])


def _queries(query: object) -> list[str]:
    texts = [query] if isinstance(query, str) else check_list(query, "search", "query")
    for i, text in enumerate(texts):
        if not check_text(text, "search: query").strip():
            where = "" if isinstance(query, str) else f" at position {i}"
            raise InputError(f"search: got an empty query{where}; expected a text")
    return [str.__str__(text) for text in texts]
