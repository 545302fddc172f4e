"""Documents into an index, and an index in step with the files that it was made of.

A document is cut into passages, each of which the index keeps as a document of its own, with an *origin*: the document
that it belongs to, how many passages that has, and a digest of its content. So the index itself says what it holds: a
document whose passages are all there with the same digest is not encoded again, and one that a killed process left
incomplete is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from triptych.errors import InputError, show
from triptych.index.documents import Origin, Payload, check_text, read_documents
from triptych.index.store import Store
from triptych.passages import Passage, PassageOptions, content_of, metadata_of, split
from triptych.records import Document
from triptych.types import Encoded, Progress, TextEncoder

BLOCK_TOKENS = 16_384
"""Tokens that are encoded and stored at once: what an interruption costs at most."""


@dataclass(slots=True)
class Changes:
    """What was done to an index.

    Attributes:
        added: Documents that are new.
        replaced: Documents that had changed.
        unchanged: Documents that were there already.
        removed: Documents that are gone from their source.
        passages: Passages that were encoded.
    """

    added: int = 0
    replaced: int = 0
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
    origin: Origin
    document: Document
    span: tuple[int, int]
    tokens: int
    last: bool


@dataclass(slots=True)
class Holding:
    """What an index has of one document: ids of its passages, and their origins, if these agree."""

    ids: list[str] = field(default_factory=list[str])
    origin: Origin | None = None
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
        progress: Called with ("index", documents done, None), when they are stored.
    """

    def __init__(
        self,
        store: Store,
        encoder: TextEncoder,
        options: PassageOptions,
        progress: Progress | None = None,
    ) -> None:
        self.changes = Changes()
        self._store, self._encoder, self._options, self._progress = store, encoder, options, progress
        self._held = _holdings(store.engine.origins())
        self._seen: set[str] = set()
        self._waiting: list[Part] = []
        self._tokens = 0

    def is_current(self, document: str, source: str, stamp: str) -> bool:
        """Whether the index has all of a file that is one document, unchanged by its size and time.

        One for which this holds counts as seen, and need not be read.
        """
        held = self._held.get(document)
        if held is None or held.origin is None or not held.complete or document in self._seen:
            return False
        origin = held.origin
        same = (origin["source"], origin["stamp"]) == (source, stamp)
        if not stamp or not same or not origin["digest"].endswith(self._cut):
            return False
        self._count(document, "unchanged")
        return True

    def add(
        self,
        documents: Iterable[Document],
        source: str = "",
        stamp_of: Callable[[str], str] = lambda document: "",
    ) -> None:
        """Adds documents; those that the index has already are not encoded again.

        Args:
            documents: With different ids.
            source: Where they came from; see `Origin`.
            stamp_of: The stamp of a document's file.

        Raises:
            InputError: For a document that cannot be kept, or an id that came before in this run.
            StorageError: If a block could not be stored; those before it are.
        """
        for document in documents:
            if not isinstance(document, Document):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputError(f"add: got {show(document)}; expected a triptych.records.Document")
            if document.id in self._seen:
                raise InputError(f"add: got the id {document.id!r} twice; expected each id once")
            origin = Origin(
                document=document.id,
                passages=1,
                digest=_digest(document, self._cut),
                source=source,
                stamp=stamp_of(document.id),
            )
            held = self._held.get(document.id)
            if held and held.complete and held.origin and held.origin["digest"] == origin["digest"]:
                self._count(document.id, "unchanged")
                continue
            self._seen.add(document.id)
            for part in self._parts_of(document, origin):
                self._waiting.append(part)
                self._tokens += part.tokens
                if self._tokens >= BLOCK_TOKENS:
                    self._store_waiting()

    def finish(self) -> Changes:
        """Stores what is waiting; what was done so far."""
        self._store_waiting()
        return self.changes

    def remove_others(self, source: str, spare: Iterable[str] = ()) -> None:
        """Removes the documents of a source that did not come in this run.

        Args:
            source: See `Origin`.
            spare: Ids of files that could not be read this time, whose documents stay.
        """
        self._store_waiting()
        spared = tuple(spare)
        gone = [
            name
            for name, held in self._held.items()
            if held.origin is not None
            and held.origin["source"] == source
            and name not in self._seen
            and not any(name == other or name.startswith(f"{other}:") for other in spared)
        ]
        self._delete([part for name in gone for part in self._held.pop(name).ids])
        self.changes.removed += len(gone)

    @property
    def _cut(self) -> str:
        """What the digest says of how documents are cut."""
        options = self._options
        return (
            f"{options.passages}/{options.passage_tokens}/{options.overlap}"
            if options.passages != "none"
            else "none"
        )

    def _count(self, document: str, what: str) -> None:
        self._seen.add(document)
        setattr(self.changes, what, getattr(self.changes, what) + 1)
        if self._progress is not None:
            done = self.changes
            self._progress("index", done.added + done.replaced + done.unchanged, None)

    def _parts_of(self, document: Document, origin: Origin) -> Iterator[Part]:
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
            (payload,) = read_documents([name], [text], [metadata])
            payload["origin"] = origin
            yield Part(payload, origin, document, (passage.start, passage.end), each, number == len(passages))

    def _store_waiting(self) -> None:
        """Encodes and stores a block; what documents had before and have no more goes when they are complete."""
        parts, self._waiting, self._tokens = self._waiting, [], 0
        if not parts:
            return
        vectors = self._encode(parts)
        with self._store.changing() as engine:
            engine.add(vectors, [part.payload for part in parts])
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


def _holdings(origins: Iterator[tuple[str, Origin | None]]) -> dict[str, Holding]:
    """What an index has, by document."""
    found: dict[str, Holding] = {}
    for name, origin in origins:
        held = found.setdefault(name if origin is None else origin["document"], Holding())
        if held.ids and held.origin != origin:
            held.whole = False
        held.ids.append(name)
        held.origin = origin
    return found


def _digest(document: Document, cut: str) -> str:
    """A digest of all that a document's passages depend on, with how it was cut at the end."""
    facts: Mapping[str, object] = {
        "text": document.text,
        "title": document.title,
        "metadata": document.metadata,
        "sections": [asdict(section) for section in document.sections],
    }
    content = json.dumps(facts, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
    return f"{blake2b(content, digest_size=16).hexdigest()} {cut}"
