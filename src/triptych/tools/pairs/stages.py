"""The stages of mining, each a function of a job and one item that reads and writes files of the work folder.

A stage does nothing for an item whose last file exists, so an interrupted run resumes. The result of an item depends on
the job alone, never on the workers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import zstandard

from triptych.io import replacing, write_json
from triptych.records import Place, places_of
from triptych.text import LanguageCheck, digest
from triptych.tools.pairs import duplicates as dedup
from triptych.tools.pairs.base import StructuredDocument, Translations, WeakPair, pair_record, parse, to_line
from triptych.tools.pairs.duplicates import Contamination, frequent, key_range, write_array, write_keys
from triptych.tools.pairs.filters import Scorer, inconsistent, line_digest, pair_filters
from triptych.tools.pairs.kinds import count_unaligned, drop_untranslated, mine_group, mine_translations
from triptych.tools.pairs.reading import MinedFile, read_minable
from triptych.tools.pairs.report import PairCounts
from triptych.tools.pairs.settings import PairSettings
from triptych.tools.resume import put_part

_SITE = re.compile(r"(.+\S)\s+[-–—|·:»]\s+(.+)", re.DOTALL)


class Batch(NamedTuple):
    """Files that are read together."""

    number: int
    files: tuple[MinedFile, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """What all stages know.

    Attributes:
        work: Folder of intermediate files.
        out: Folder of the result.
        settings: What decides which pairs come out.
        batches: How many batches of files there are.
        parts: Into how many parts the documents are divided.
        scorer: For the consistency filter.
    """

    work: Path
    out: Path
    settings: PairSettings
    batches: int
    parts: int
    scorer: Scorer | None = None

    @property
    def ranges(self) -> int:
        """Into how many ranges keys are divided: one has about those of eight parts."""
        return -(-self.parts // 8)

    def file(self, stage: str, number: int, ending: str) -> Path:
        """A file of the work folder."""
        return self.work / f"{stage}-{number:05}.{ending}"

    def files(self, stage: str, count: int, ending: str) -> Iterator[Path]:
        """The files of a stage, in order."""
        return (self.file(stage, number, ending) for number in range(count))

    def runs(self, name: str) -> bool:
        """Whether a filter runs."""
        return name in self.settings.filters and (name != "contamination" or bool(self.settings.against))

    @property
    def language_check(self) -> LanguageCheck | None:
        """The check of languages, if its filter runs."""
        return LanguageCheck() if self.runs("language") else None


def read(job: Job, batch: Batch) -> None:
    """Reads files, and brings the languages of a document and the links that lead to it into the same part."""
    path = job.file("read", batch.number, "frames")
    if is_shuffled(path):
        return
    counts = PairCounts()
    check = job.language_check
    with shuffling(path) as writer:
        for document in chain.from_iterable(read_minable(file, job.settings.origin) for file in batch.files):
            part = digest(document.source, document.key) % job.parts
            if isinstance(document, Translations):
                counts.texts["translations", "", document.source] += 1
                writer.add(part, to_line(document))
                continue
            if not document.lang and check:
                lang = check.identify(" ".join(block.text for block in document.blocks[:20]))
                document = replace(document, lang=lang)
            cell = document.lang, document.source
            counts.texts["documents", *cell] += 1
            for link in document.links:
                names = {"source": document.source, "key": link.target, "lang": document.lang}
                line = json.dumps({"link": link.text, **names}, ensure_ascii=False) + "\n"
                writer.add(digest(document.source, link.target) % job.parts, line)
                counts.texts["links", *cell] += 1
            writer.add(part, to_line(replace(document, links=())))
        write_json(path.with_suffix(".json"), counts.to_dict())


def lines(job: Job, part: int) -> None:
    """Collects which lines each document of a part has, to be counted."""
    path = job.file("lines", part, "npy")
    if path.exists():
        return
    keys: list[int] = []
    ids: list[int] = []
    groups = _groups(job, part)
    for number, document in enumerate(chain.from_iterable(groups.documents)):
        texts = {*(block.text for block in document.blocks), document.title, document.description}
        texts.add(split_title(document.title)[1])
        found = {
            _digest_of(document, text) for text in (*texts, *document.keywords, *groups.linked(document))
        }
        keys += sorted(found)
        ids += [number] * len(found)
    write_keys(path, np.array(keys, np.uint64), np.array(ids, np.uint64))


def recurring(job: Job, number: int) -> None:
    """Finds the lines of a range of keys that many documents have."""
    path = job.file("recurring", number, "npy")
    if not path.exists():
        table = key_range(job.files("lines", job.parts, "npy"), number, job.ranges)
        write_array(path, frequent(table, job.settings.recurring))


def mine(job: Job, part: int) -> None:
    """Makes the pairs of a part and passes them through the filters that look at one pair."""
    done = job.file("made", part, "json")
    if done.exists():
        return
    counts = PairCounts()
    groups = _groups(job, part)
    counts.texts += groups.counts
    common = _recurring_lines(job)
    filters = pair_filters(
        job.settings.filters,
        job.settings.thresholds,
        language=job.language_check,
        recurring=common,
        contaminated=Contamination(job.work / "evaluation") if job.runs("contamination") else None,
    )
    pairs = list(counts.filter(_mine(job, groups, common, counts.texts), filters))
    dedup.write_signs(job.work, part, pairs, near=job.runs("near-duplicate"))
    made = job.file("made", part, "jsonl.zst")
    put_part(made, map(list, pairs), done, counts.to_dict(), level=1, compact=True)


def duplicates(job: Job, number: int) -> None:
    """Finds the duplicates of a range of keys."""
    near, exact = job.file("near-duplicate", number, "npy"), job.file("exact-duplicate", number, "npy")
    if not exact.exists():
        if job.runs("near-duplicate"):
            edges = dedup.near_duplicates(job.work, job.parts, number, job.ranges, job.settings.near)
            write_array(near, edges)
        paths = (dedup.exact_file(job.work, part) for part in range(job.parts))
        write_array(exact, dedup.later_owners(key_range(paths, number, job.ranges)))


def finish(job: Job, part: int) -> None:
    """Drops duplicates and what the scorer does not agree with, and writes the pairs of a part."""
    done = job.file("done", part, "json")
    if done.exists():
        return
    made = job.file("made", part, "jsonl.zst")
    pairs = [WeakPair(*json.loads(raw)) for _, raw in places_of(made) if isinstance(raw, str)]
    counts = PairCounts()
    left = list(range(len(pairs)))
    for name in ("exact-duplicate", "near-duplicate"):
        if job.runs(name):
            drops = _drops(job, name, part)
            for row in (row for row in left if row in drops):
                counts.drop(name, pairs[row], "of an earlier pair" + (" of this part" * (drops[row] == part)))
            left = [row for row in left if row not in drops]
    if job.scorer is not None and job.runs("consistency"):
        seed = digest(str(job.settings.limits.seed), str(part))
        found = inconsistent([pairs[row] for row in left], job.scorer, job.settings.consistency, seed)
        ranks = {left[number]: rank for number, rank in found}
        for row in sorted(ranks):
            counts.drop("consistency", pairs[row], f"rank {ranks[row]}")
        left = [row for row in left if row not in ranks]
    kept = list(counts.keep(pairs[row] for row in left))
    out = job.out / f"pairs-{part:05}.jsonl.zst"
    put_part(out, map(pair_record, kept), done, counts.to_dict(), compact=True)


class _Groups(NamedTuple):
    """The records of a part: documents with their translations, and the words of the links to them."""

    documents: list[list[StructuredDocument]]
    links: dict[tuple[str, str, str], list[str]]
    translations: list[Translations]
    counts: Counter[tuple[str, str, str]]

    def linked(self, document: StructuredDocument) -> list[str]:
        """The words of the links that lead to a document from others in its language."""
        return self.links.get((document.source, document.key, document.lang), [])


def _groups(job: Job, part: int) -> _Groups:
    documents: dict[tuple[str, str], dict[str, StructuredDocument]] = {}
    links: dict[tuple[str, str, str], list[str]] = {}
    translations: list[Translations] = []
    counts: Counter[tuple[str, str, str]] = Counter()
    place = Place(f"part {part}")
    for line in read_part(job.files("read", job.batches, "frames"), part):
        record: dict[str, Any] = json.loads(line)
        if "link" in record:
            links.setdefault((record["source"], record["key"], record["lang"]), []).append(record["link"])
            continue
        found = parse(record, place)
        if isinstance(found, Translations):
            translations.append(found)
            continue
        held = documents.setdefault((found.source, found.key), {})
        if found.lang in held:
            counts["documents repeated", found.lang, found.source] += 1
        else:
            held[found.lang] = found
    for (source, key, lang), texts in links.items():
        if lang not in documents.get((source, key), {}):
            counts["links to nothing", lang, source] += len(texts)
    return _Groups([list(held.values()) for held in documents.values()], links, translations, counts)


def _mine(job: Job, groups: _Groups, recurring: frozenset[int], counts: Counter[Any]) -> Iterator[WeakPair]:
    """All pairs of a part, before any filter."""
    limits, kinds = job.settings.limits, job.settings.kinds
    for group in groups.documents:
        if job.runs("language"):
            group = list(_drop_untranslated(group, counts))
        yield from mine_group(
            [_without_recurring(document, recurring, counts) for document in group],
            limits,
            kinds,
            common=lambda heading, document: _digest_of(document, heading) in recurring,
            linked=groups.linked,
        )
    for record in groups.translations:
        counts["sentences without a partner", "", record.source] += count_unaligned(record)
        yield from mine_translations(record, limits, kinds)


def split_title(title: str) -> tuple[str, str]:
    """A page's title without what follows its last separator, and that: often the name of the site.

    Example:
        >>> split_title("Moka pots - All about coffee")
        ('Moka pots', 'All about coffee')
    """
    match = _SITE.fullmatch(title)
    return (match[1], match[2]) if match else (title, "")


def _drop_untranslated(group: list[StructuredDocument], counts: Counter[Any]) -> Iterator[StructuredDocument]:
    """The documents without what was left in English."""
    for document, blocks, keywords in drop_untranslated(group):
        counts["blocks", document.lang, document.source] += blocks
        counts["blocks untranslated", document.lang, document.source] += blocks
        counts["keywords untranslated", document.lang, document.source] += keywords
        yield document


def _digest_of(document: StructuredDocument, text: str) -> int:
    return line_digest(document.source, document.lang, text)


def _without_recurring(
    document: StructuredDocument, recurring: frozenset[int], counts: Counter[Any]
) -> StructuredDocument:
    """A document without its boilerplate.

    That is: paragraphs that many documents have; such headings before its own text, which are the site's (later
    ones head their sections); and the name of the site in its title.
    """
    known = [_digest_of(document, block.text) in recurring for block in document.blocks]
    begins = next((number for number, recurs in enumerate(known) if not recurs), 0)
    kept = tuple(
        block
        for number, block in enumerate(document.blocks)
        if not known[number] or (block.level is not None and number >= begins)
    )
    counts["blocks", document.lang, document.source] += len(document.blocks)
    counts["blocks recurring", document.lang, document.source] += len(document.blocks) - len(kept)
    if all(block.level is not None for block in kept):
        counts["documents without text", document.lang, document.source] += 1
    own, site = split_title(document.title)
    if site and _digest_of(document, site) in recurring:
        counts["titles shortened", document.lang, document.source] += 1
        document = replace(document, title=own)
    return replace(document, blocks=kept)


def _recurring_lines(job: Job) -> frozenset[int]:
    """The lines that recur, if the filter of that name is wanted."""
    if not job.runs("boilerplate"):
        return frozenset()
    return frozenset(
        chain.from_iterable(np.load(path).tolist() for path in job.files("recurring", job.ranges, "npy"))
    )


def _drops(job: Job, stage: str, part: int) -> dict[int, int]:
    """Row of a pair of this part that is dropped, and the part of the earliest pair that it repeats."""
    first, last = dedup.pair_ids(part, 1)[0], dedup.pair_ids(part + 1, 1)[0]
    found: dict[int, int] = {}
    for path in job.files(stage, job.ranges, "npy"):
        edges = np.load(path, mmap_mode="r")
        start, stop = np.searchsorted(edges[:, 0], [first, last])
        for row, other in (edges[start:stop] - np.array([first, 0], np.uint64)).tolist():
            found[row] = min(found.get(row, job.parts), other >> 32)
    return found


_BUFFER_BYTES = 32 << 20  # text that is held before frames are written


class ShuffleWriter:
    """Takes lines for parts; created by `shuffling`.

    Args:
        file: Where the frames go.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.frames: list[tuple[int, int, int]] = []
        self._file = file
        self._lines: dict[int, list[bytes]] = {}
        self._bytes = self._offset = 0
        self._compressor = zstandard.ZstdCompressor(level=1)

    def add(self, part: int, line: str) -> None:
        """Adds a line (with its line break) to a part."""
        data = line.encode()
        self._lines.setdefault(part, []).append(data)
        self._bytes += len(data)
        if self._bytes >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes the buffered lines, one frame per part."""
        for part, lines in sorted(self._lines.items()):
            frame = self._compressor.compress(b"".join(lines))
            self._file.write(frame)
            self.frames.append((part, self._offset, len(frame)))
            self._offset += len(frame)
        self._lines, self._bytes = {}, 0


@contextmanager
def shuffling(path: Path) -> Generator[ShuffleWriter]:
    """Yields a writer of lines to parts, which needs about 32 MB of memory, whatever is written.

    Args:
        path: Where the frames go; the table of the frames (part, offset, length) goes to the same name with
            ``.npy`` after it, last.

    Raises:
        StorageError: If they cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        writer = ShuffleWriter(file)
        yield writer
        writer.flush()
    write_array(_table(path), np.array(writer.frames, np.int64).reshape(-1, 3))


def read_part(paths: Iterable[Path], part: int) -> Iterator[str]:
    """The lines of a part in all files, in the order of the files and of their writing."""
    decompressor = zstandard.ZstdDecompressor()
    for path in paths:
        frames = np.load(_table(path))
        with path.open("rb") as file:
            for _, offset, length in frames[frames[:, 0] == part].tolist():
                file.seek(offset)
                yield from decompressor.decompress(file.read(length)).decode().split("\n")[:-1]


def is_shuffled(path: Path) -> bool:
    """Whether both files of `shuffling` exist."""
    return _table(path).exists()


def _table(path: Path) -> Path:
    return path.with_name(path.name + ".npy")
