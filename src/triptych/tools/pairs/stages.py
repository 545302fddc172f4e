"""The stages of mining, each a function of a job and one item that reads and writes files of the work folder.

A stage does nothing for an item whose last file is there: so an interrupted run goes on. What an item gives depends on
the job alone, never on the workers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from triptych.io import write_json
from triptych.records import Place, places_of
from triptych.text import LanguageCheck, digest
from triptych.tools.pairs import duplicates as twins
from triptych.tools.pairs.base import Pair, StructuredDocument, Translations, parse, to_line
from triptych.tools.pairs.base import to_record_of_pairs as to_record
from triptych.tools.pairs.duplicates import Contamination, frequent, key_range, write_keys
from triptych.tools.pairs.engine import is_shuffled, read_part, save, shuffling, write_lines
from triptych.tools.pairs.filters import Scorer, inconsistent, line_digest, pair_filters
from triptych.tools.pairs.kinds import mine_group, mine_translations
from triptych.tools.pairs.reading import MinedFile, read_minable
from triptych.tools.pairs.settings import Settings
from triptych.tools.pairs.tally import Tally, counted, filtered
from triptych.tools.pairs.translated import unaligned, without_untranslated

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
    settings: Settings
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

    def result(self, part: int) -> Path:
        """The pairs of a part."""
        return self.out / f"pairs-{part:05}.jsonl.zst"


def read(job: Job, batch: Batch) -> None:
    """Reads files, and brings the languages of a document and the links that lead to it into the same part."""
    path = job.file("read", batch.number, "frames")
    if is_shuffled(path):
        return
    tally = Tally()
    check = _language_check(job)
    with shuffling(path) as writer:
        for found in chain.from_iterable(read_minable(file, job.settings.origin) for file in batch.files):
            part = digest(found.source, found.key) % job.parts
            if isinstance(found, Translations):
                tally.texts["translations", "", found.source] += 1
                writer.add(part, to_line(found))
                continue
            document = found
            if not document.lang and check:
                document = replace(
                    document, lang=check.identify(" ".join(b.text for b in document.blocks[:20]))
                )
            tally.texts["documents", document.lang, document.source] += 1
            for link in document.links:
                line = {
                    "link": link.text,
                    "source": document.source,
                    "key": link.target,
                    "lang": document.lang,
                }
                writer.add(digest(document.source, link.target) % job.parts, _line(line))
                tally.texts["links", document.lang, document.source] += 1
            writer.add(part, to_line(replace(document, links=())))
        write_json(path.with_suffix(".json"), tally.to_dict())


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
        save(path, frequent(table, job.settings.recurring))


def mine(job: Job, part: int) -> None:
    """Makes the pairs of a part and passes them through the filters that look at one pair."""
    done = job.file("made", part, "json")
    if done.exists():
        return
    tally = Tally()
    groups = _groups(job, part)
    tally.texts += groups.counts
    common = _recurring_lines(job)
    contaminated = Contamination(job.work / "evaluation") if _wants(job, "contamination") else None
    filters = pair_filters(
        job.settings.filters,
        job.settings.thresholds,
        language=_language_check(job),
        recurring=common,
        contaminated=contaminated,
    )
    pairs = list(filtered(_mined(job, groups, common, tally.texts), filters, tally))
    write_lines(job.file("made", part, "jsonl.zst"), (_line(list(pair)) for pair in pairs), level=1)
    twins.write_signs(job.work, part, pairs, near=_wants(job, "near-duplicate"))
    write_json(done, tally.to_dict())


def duplicates(job: Job, number: int) -> None:
    """Finds the duplicates of a range of keys."""
    near, exact = job.file("near-twins", number, "npy"), job.file("exact-twins", number, "npy")
    if not exact.exists():
        if _wants(job, "near-duplicate"):
            found = twins.near_duplicates(job.work, job.parts, number, job.ranges, job.settings.near)
            save(near, found)
        paths = (twins.exact_file(job.work, part) for part in range(job.parts))
        save(exact, twins.exact_duplicates(paths, number, job.ranges))


def finish(job: Job, part: int) -> None:
    """Drops duplicates and what the scorer does not agree with, and writes the pairs of a part."""
    done = job.file("done", part, "json")
    if done.exists():
        return
    pairs = [Pair(*values) for values in _records(job.file("made", part, "jsonl.zst"))]
    tally = Tally()
    left = list(range(len(pairs)))
    for name in ("exact-duplicate", "near-duplicate"):
        if _wants(job, name):
            drops = _drops(job, name.replace("duplicate", "twins"), part)
            for row in (row for row in left if row in drops):
                tally.drop(name, pairs[row], "of an earlier pair" + (" of this part" * (drops[row] == part)))
            left = [row for row in left if row not in drops]
    if job.scorer is not None and _wants(job, "consistency"):
        seed = digest(str(job.settings.limits.seed), str(part))
        found = inconsistent([pairs[row] for row in left], job.scorer, job.settings.consistency, seed)
        ranks = {left[number]: rank for number, rank in found}
        for row in sorted(ranks):
            tally.drop("consistency", pairs[row], f"rank {ranks[row]}")
        left = [row for row in left if row not in ranks]
    kept = counted((pairs[row] for row in left), tally)
    write_lines(job.result(part), (_line(to_record(pair)) for pair in kept), level=9)
    write_json(done, tally.to_dict())


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


def _mined(job: Job, groups: _Groups, recurring: frozenset[int], counts: Counter[Any]) -> Iterator[Pair]:
    """All pairs of a part, before any filter."""
    how = job.settings
    for group in groups.documents:
        cleaned = [
            _without_recurring(document, recurring, counts) for document in _translated(job, group, counts)
        ]
        yield from mine_group(
            cleaned,
            how.limits,
            how.kinds,
            common=lambda heading, document: _digest_of(document, heading) in recurring,
            linked=groups.linked,
        )
    for found in groups.translations:
        counts["sentences without a partner", "", found.source] += unaligned(found)
        yield from mine_translations(found, how.limits, how.kinds)


def split_title(title: str) -> tuple[str, str]:
    """A page's title without what follows its last separator, and that: often the name of the site.

    Example:
        >>> split_title("Moka pots - All about coffee")
        ('Moka pots', 'All about coffee')
    """
    match = _SITE.fullmatch(title)
    return (match[1], match[2]) if match else (title, "")


def _translated(
    job: Job, group: list[StructuredDocument], counts: Counter[Any]
) -> Iterator[StructuredDocument]:
    """The documents without what was left in English, if the filter of languages is wanted."""
    if not _wants(job, "language"):
        yield from group
        return
    for document, blocks, keywords in without_untranslated(group):
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
    if not _wants(job, "boilerplate"):
        return frozenset()
    return frozenset(
        chain.from_iterable(np.load(path).tolist() for path in job.files("recurring", job.ranges, "npy"))
    )


def _drops(job: Job, stage: str, part: int) -> dict[int, int]:
    """Row of a pair of this part that is dropped, and the part of the earliest pair that it repeats."""
    first, last = twins.pair_ids(part, 1)[0], twins.pair_ids(part + 1, 1)[0]
    found: dict[int, int] = {}
    for path in job.files(stage, job.ranges, "npy"):
        edges = np.load(path, mmap_mode="r")
        start, stop = np.searchsorted(edges[:, 0], [first, last])
        for row, other in (edges[start:stop] - np.array([first, 0], np.uint64)).tolist():
            found[row] = min(found.get(row, job.parts), other >> 32)
    return found


def _records(path: Path) -> Iterator[list[str]]:
    return (json.loads(raw) for _, raw in places_of(path) if isinstance(raw, str))


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _wants(job: Job, name: str) -> bool:
    return name in job.settings.filters and (name != "contamination" or bool(job.settings.against))


def _language_check(job: Job) -> LanguageCheck | None:
    return _shared_check() if _wants(job, "language") else None


@cache
def _shared_check() -> LanguageCheck:
    """One for each process: its tables take a second to load."""
    return LanguageCheck()
