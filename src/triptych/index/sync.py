"""Documents into an index, and an index in step with the files that it was made of.

A document is cut into passages, each of which the index keeps as a document of its own, with an *origin*: the document
that it belongs to, how many passages that has, and a digest of its content. So the index itself says what it holds: a
document whose passages are all there with the same digest is not encoded again, and one that a killed process left
incomplete is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from triptych.config import BLOCK_TOKENS
from triptych.documents import WHOLE, Format, format_of, list_documents, read_documents
from triptych.errors import DataError, InputError, show
from triptych.files.listing import OnSkip, SkipReason, SourceFile
from triptych.index.documents import DocumentOrigin, Payload, check_text, read_payloads
from triptych.index.store import Store
from triptych.io import printable
from triptych.passages import Passage, PassageOptions, content_of, metadata_of, split
from triptych.records import Document, Fields, Section
from triptych.types import Encoded, Progress, TextEncoder


@dataclass(slots=True)
class Changes:
    """What was done to an index.

    Attributes:
        added: Documents that are new.
        replaced: Documents that had changed.
        updated: Documents of which the metadata had changed alone, so that nothing was encoded.
        unchanged: Documents that were there already.
        removed: Documents that are gone from their source.
        passages: Passages that were encoded.
    """

    added: int = 0
    replaced: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0


class Part(NamedTuple):
    """A passage on its way into the index.

    Attributes:
        payload: What will be kept.
        origin: The same as in the payload.
        document: The document.
        span: Its characters in the document's text.
        tokens: About how many it has.
        last: Whether the document is complete with it.
    """

    payload: Payload
    origin: DocumentOrigin
    document: Document
    span: tuple[int, int]
    tokens: int
    last: bool


@dataclass(slots=True)
class Holding:
    """What an index has of one document: ids of its passages, and their origins, if these agree."""

    ids: list[str] = field(default_factory=list[str])
    origin: DocumentOrigin | None = None
    whole: bool = True

    @property
    def complete(self) -> bool:
        """Whether all passages are there."""
        return self.whole and self.origin is not None and len(self.ids) == self.origin["passages"]


class Synchronizer:
    """Brings documents into an index; one object for one run.

    Args:
        store: The open index.
        encoder: Its model.
        options: How documents are cut.
        metadata: Given to every document.
        block_tokens: Tokens that are encoded and stored at once: what an interruption costs at most.
        progress: Called with ("index", documents done, None), when they are stored.
        on_first: Called before the first block is stored, with the documents of which it has passages, and the bytes
            that it will take on the disk.
        encoded: Gives the vectors of whole documents by their ids; None: the encoder does.
    """

    def __init__(
        self,
        store: Store,
        encoder: TextEncoder,
        options: PassageOptions,
        metadata: Mapping[str, Any] | None = None,
        *,
        block_tokens: int = BLOCK_TOKENS,
        progress: Progress | None = None,
        on_first: Callable[[int, int], None] | None = None,
        encoded: Callable[[Sequence[str]], Encoded] | None = None,
    ) -> None:
        self.changes = Changes()
        self._encoded = encoded
        self._on_first = on_first
        self._store, self._encoder, self._options, self._progress = store, encoder, options, progress
        self._metadata = dict(metadata or {})
        self._held = _holdings(store.engine.origins())
        self._seen: set[str] = set()
        self._waiting: list[Part] = []
        self._tokens, self._block = 0, block_tokens

    def add_files(
        self,
        paths: Sequence[Path | str],
        *,
        keep: bool = False,
        format: Format | None = None,
        fields: Fields | None = None,
        on_skip: OnSkip | None = None,
        on_error: Callable[[DataError], None] | None = None,
    ) -> Changes:
        """Brings the index in step with files and folders.

        Args:
            paths: Files and folders; ``-`` is standard input.
            keep: Whether documents stay that came from these paths before and are there no more.
            format: See `triptych.documents.read_documents`.
            fields: See there.
            on_skip: See there.
            on_error: See there; the documents of a file that cannot be read stay.

        Raises:
            DataError: As there.
        """
        files = list_documents(paths, format=format, on_skip=on_skip)
        spared: list[str] = []
        for file in files:
            stamp = _stamp(file, format)
            if stamp and self._metadata:
                stamp += f" {_digest(self._metadata)}"
            if stamp and self._is_current(file, stamp):
                continue

            def skip(path: Path, reason: SkipReason, key: str = file.key) -> None:
                if reason in ("unreadable", "too large", "extra missing"):
                    spared.append(key)
                if on_skip is not None:
                    on_skip(path, reason)

            found = read_documents([file], format=format, fields=fields, on_skip=skip, on_error=on_error)
            try:
                self._add(found, printable(file.root), file.key, stamp)
            except DataError:  # what came before the bad line is good
                self._store_waiting()
                raise
        if not keep:
            roots = {
                printable(os.path.realpath(path))
                for path in paths
                if Path(path).is_dir() or Path(path).is_file()
            }
            self._remove_others(roots, set(spared))
        return self.finish()

    def add(self, documents: Iterable[Document]) -> None:
        """Adds documents; those that the index has already are not encoded again.

        Args:
            documents: With different ids.

        Raises:
            InputError: For a document that cannot be kept, an id that came before in this run, or one that stands for
                a document of another source.
            StorageError: If a block could not be stored; those before it are.
        """
        self._add(documents)

    def _add(self, documents: Iterable[Document], source: str = "", file: str = "", stamp: str = "") -> None:
        """Adds documents of a file; the stamp is that of the one that has the file's key as id."""
        for given in documents:
            if not isinstance(given, Document):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputError(f"add: got {show(given)}; expected a triptych.records.Document")
            document = replace(given, metadata={**given.metadata, **self._metadata})
            self._check_id(document.id, source, file)
            origin = DocumentOrigin(
                document=document.id,
                passages=1,
                digest=f"{_digest(document.text, document.title, document.sections)} {self._cut}",
                facts=_digest(document.metadata),
                source=source,
                file=file,
                stamp=stamp if document.id == file else "",
            )
            held = self._held.get(document.id, Holding())
            if held.complete and held.origin and held.origin["digest"] == origin["digest"]:
                if {**held.origin, "passages": 1} == origin:
                    self._count(document.id, "unchanged")
                else:
                    self._update(document, origin)
                continue
            self._seen.add(document.id)
            for part in self._parts_of(document, origin):
                self._waiting.append(part)
                self._tokens += part.tokens
                if self._tokens >= self._block:
                    self._store_waiting()

    def finish(self) -> Changes:
        """Stores what is waiting; what was done so far."""
        self._store_waiting()
        return self.changes

    def _is_current(self, file: SourceFile, stamp: str) -> bool:
        """Whether the index has all of a file that is one document, unchanged by its size and time; it is seen then."""
        held = self._held.get(file.key, Holding())
        if not held.complete or held.origin is None or file.key in self._seen:
            return False
        origin = held.origin
        known = origin["source"], origin["stamp"], origin["digest"].split()[-1]
        if known != (printable(file.root), stamp, self._cut):
            return False
        self._count(file.key, "unchanged")
        return True

    def _check_id(self, document: str, source: str, file: str) -> None:
        """Refuses an id that came before, or that is made of a path and stands for a file of another folder."""
        if document in self._seen:
            raise InputError(f"add: got the id {document!r} twice; expected each id once")
        held = self._held.get(document)
        before = held.origin["source"] if held and held.origin else ""
        made_of_path = bool(file) and document.startswith(file)
        if made_of_path and before not in ("", source) and Path(before).exists():
            raise InputError(
                f"add: the index has the document {document!r} of {before}, and got another one of "
                f"{source}; expected different ids. Give both together, or the folder over them"
            )

    def _remove_others(self, sources: Set[str], spared: Set[str]) -> None:
        """Removes the documents of sources that did not come in this run, but for those of spared files."""
        self._store_waiting()
        gone = [
            name
            for name, held in self._held.items()
            if held.origin is not None
            and held.origin["source"] in sources
            and name not in self._seen
            and held.origin["file"] not in spared
        ]
        self._delete([part for name in gone for part in self._held.pop(name).ids])
        self.changes.removed += len(gone)

    @property
    def _cut(self) -> str:
        """What decides, beside a document's content, which passages it has."""
        options = self._options
        if options.passages == "none":
            return "none"
        return f"{options.passages}/{options.passage_tokens}/{options.overlap}"

    def _count(self, document: str, what: str) -> None:
        self._seen.add(document)
        setattr(self.changes, what, getattr(self.changes, what) + 1)
        if self._progress is not None:
            done = self.changes
            self._progress("index", done.added + done.replaced + done.updated + done.unchanged, None)

    def _parts_of(self, document: Document, origin: DocumentOrigin) -> Iterator[Part]:
        """The passages of a document, or the document itself where it is one passage or stays whole."""
        check_text(document.text, f"add: text of document {document.id!r}")
        spans = self._encoder.token_spans([document.text])[0]
        late = self._options.passages == "late"
        passages = [Passage(0, len(document.text))]
        if self._options.passages != "none":
            passages = split(document, spans, self._options)
        origin["passages"] = len(passages)
        each = len(spans) // len(passages) + 1
        title = {"title": document.title} if document.title else {}
        for number, passage in enumerate(passages, 1):
            name, metadata = document.id, {**title, **document.metadata}
            text = document.content
            if len(passages) > 1:
                name = f"{document.id}#{number}"
                metadata |= metadata_of(document, passage, number, len(passages))
                text = content_of(document, passage)
            if late:
                text = document.text[passage.start : passage.end]
            (payload,) = read_payloads([name], [text], [metadata])
            payload["origin"] = origin
            yield Part(payload, origin, document, (passage.start, passage.end), each, number == len(passages))

    def _update(self, document: Document, origin: DocumentOrigin) -> None:
        """Changes what the index says of a document whose text it has."""
        parts = list(self._parts_of(document, origin))
        with self._store.changing() as engine:
            keys = [engine.key(part.payload["id"]) for part in parts]
            engine.set_metadata(keys, [part.payload["metadata"] for part in parts], [origin] * len(parts))
        self._count(document.id, "updated")

    def _store_waiting(self) -> None:
        """Encodes and stores a block; what documents had before and have no more goes when they are complete."""
        parts, self._waiting, self._tokens = self._waiting, [], 0
        if not parts:
            return
        vectors, payloads = self._encode(parts), [part.payload for part in parts]
        if self._on_first is not None:
            size = self._store.manifest.layout.size_of(vectors, payloads)
            self._on_first(len({part.document.id for part in parts}), size)
            self._on_first = None
        self._store.add(vectors, payloads, bulk=True)
        self.changes.passages += len(parts)
        for part in parts:
            if part.last:
                self._settle(part)

    def _settle(self, last: Part) -> None:
        name, origin = last.document.id, last.origin
        held = self._held.get(name)
        count = origin["passages"]
        now = [name] if count == 1 else [f"{name}#{number}" for number in range(1, count + 1)]
        if held is not None:
            self._delete([part for part in held.ids if part not in set(now)])
        self._held[name] = Holding(now, origin)
        # One that was left incomplete counts as new.
        self._count(name, "replaced" if held and (held.complete or held.origin is None) else "added")

    def _encode(self, parts: list[Part]) -> Encoded:
        heads = self._store.engine.layout.heads
        if self._encoded is not None:
            return self._encoded([part.document.id for part in parts])
        if self._options.passages != "late":
            return self._encoder.encode_document([part.payload["text"] for part in parts], outputs=heads)
        whole = [list(group) for _, group in groupby(parts, key=attrgetter("document.id"))]
        texts = [group[0].document.text for group in whole]
        return self._encoder.encode_spans(
            texts, [[part.span for part in group] for group in whole], outputs=heads
        )

    def _delete(self, ids: list[str]) -> None:
        if ids:
            with self._store.changing() as engine:
                engine.delete([engine.key(name) for name in ids])


def _holdings(origins: Iterator[tuple[str, DocumentOrigin | None]]) -> dict[str, Holding]:
    """What an index has, by document."""
    found: dict[str, Holding] = {}
    for name, origin in origins:
        held = found.setdefault(name if origin is None else origin["document"], Holding())
        if held.ids and held.origin != origin:
            held.whole = False
        held.ids.append(name)
        held.origin = origin
    return found


def _digest(*values: object) -> str:
    content = json.dumps(values, sort_keys=True, default=_as_json).encode("utf-8", "surrogatepass")
    return blake2b(content, digest_size=16).hexdigest()


def _as_json(value: object) -> object:
    return asdict(value) if isinstance(value, Section) else str(value)


def _stamp(file: SourceFile, format: Format | None) -> str:
    """Size and time of change of a file that is one document."""
    kind = format or format_of(file.path)
    if kind not in WHOLE or not file.path.is_file():
        return ""
    try:
        status = file.path.stat()
    except OSError:  # it went away just now; reading it says so
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
