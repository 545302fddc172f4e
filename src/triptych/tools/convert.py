"""Labelled data sets as training examples with their provenance: the work of ``triptych data convert``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triptych.collections.catalogue import AUTO, CatalogueEntry, dataset_of, examples
from triptych.collections.files import Files
from triptych.collections.joined import Item, JudgedPassage, Labelled, Options
from triptych.collections.training import source_paths
from triptych.config import check_value
from triptych.errors import DataError, InputError
from triptych.io import json_lines
from triptych.records import Document
from triptych.tools.tally import Tally, shorten
from triptych.types import Progress

_EXAMPLE_CHARS = 120


@dataclass(slots=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        dataset: Name of the data set.
        split: Part of it.
        license: As its publisher states it, or as the caller did; None: not stated.
        examples: How many were written.
        positives: How many passages of them answer.
        negatives: How many do not.
        without_negatives: Examples that have none.
        languages: Examples by what the data set says of their language.
        dropped: Queries, pairs or passages that were left out, by reason, with the place of the first.
    """

    dataset: str
    split: str | None
    license: str | None
    examples: int = 0
    positives: int = 0
    negatives: int = 0
    without_negatives: int = 0
    languages: Counter[str] = field(default_factory=Counter[str])
    dropped: Tally[str, str] = field(default_factory=Tally[str, str])

    def drop(self, why: str, place: str, example: str) -> None:
        """Counts something that is left out."""
        self.dropped.drop(why, shorten(example, _EXAMPLE_CHARS, place))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "license": self.license,
            "examples": self.examples,
            "positives": self.positives,
            "negatives": self.negatives,
            "without_negatives": self.without_negatives,
            "languages": dict(self.languages.most_common()),
            "dropped": self.dropped.most_common(),
            "first": self.dropped.first,
        }


def convert(
    name: str,
    paths: Sequence[Path | str],
    out: Path | str,
    options: Options | None = None,
    *,
    license: str | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Converts a data set from its published files to JSON Lines of training examples.

    A line has ``query``, ``pos``, ``neg``, as far as known ``id``, ``lang``, ``pos_ids``, ``neg_ids``, ``answers``, and
    ``source`` with ``dataset``, ``split`` and ``license``. Files are streamed; the memory does not grow with the
    corpus.

    Args:
        name: One of `triptych.collections.catalogue.DATASETS`, or "auto" where the files tell.
        paths: Files and folders, as unpacked from what the publisher gives.
        out: The file to write; ``.gz`` or ``.zst`` compress it.
        options: Which part is wanted.
        license: What `source` says, in place of what the catalogue does.
        progress: Called with the stage "converting" and the number of examples written so far.

    Raises:
        InputError: For an unknown name, or files that "auto" cannot tell.
        DataError: For a file that is missing or broken, or if there is no example at all; nothing is written then.
        StorageError: If `out` cannot be written.
    """
    check_value(name, str, "convert: name")
    check_value(out, Path | str, "convert: out")
    roots, out = source_paths(paths), Path(out)
    if not roots:
        raise InputError("convert: got no path; expected the files of a data set")
    files = Files(roots)
    known, dataset = dataset_of(name, files)
    report = ConversionReport(known, (options or Options()).split, license or dataset.license)
    with json_lines(out) as write:
        for record in records(dataset, files, options or Options(), report):
            write(record)
            report.examples += 1
            if progress:
                progress("converting", report.examples, None)
        if not report.examples:
            reasons = str(report.dropped)
            hint = "" if name == AUTO or reasons else f" (is this {known}?)"
            raise DataError(f"no example in it{hint}{': ' + reasons if reasons else ''}", files.roots[0])
    return report


def records(
    dataset: CatalogueEntry, files: Files, options: Options, report: ConversionReport
) -> Iterator[dict[str, Any]]:
    """The lines of the output; what is left out is counted in `report`."""
    item: Item
    for item in examples(dataset, files, options):
        if not isinstance(item, Labelled):
            report.drop(item.why, item.place.id, item.example)
            continue
        record = _record(item, dataset, options, report)
        if record is not None:
            yield record


def _record(
    item: Labelled, dataset: CatalogueEntry, options: Options, report: ConversionReport
) -> dict[str, Any] | None:
    query = " ".join(item.query.split())
    if not query:
        report.drop("blank query", item.place.id, str(item.id or ""))
        return None
    pos = _texts(item.pos, options, item, report)
    if not pos:
        report.drop("no positive", item.place.id, query)
        return None
    neg = _texts(item.neg, options, item, report)
    for text in pos.keys() & neg.keys():
        report.drop("negative that is also a positive", item.place.id, text)
        del neg[text]
    report.positives += len(pos)
    report.negatives += len(neg)
    report.without_negatives += not neg
    language = item.language or options.language or dataset.language
    report.languages[language or "not stated"] += 1
    source = {"dataset": report.dataset, "split": report.split, "license": report.license}
    return {
        "query": query,
        "pos": list(pos),
        "neg": list(neg),
        **({} if item.id is None else {"id": item.id}),
        **({} if language is None else {"lang": language}),
        **_ids("pos_ids", pos),
        **_ids("neg_ids", neg),
        **item.facts,
        "source": source,
    }


def _texts(
    passages: Sequence[JudgedPassage], options: Options, item: Labelled, report: ConversionReport
) -> dict[str, str | None]:
    """Texts of passages, each once, with their ids."""
    texts: dict[str, str | None] = {}
    for passage in passages:
        title = passage.title if options.titles else None
        text = Document("", passage.text.strip(), title).content.strip()
        if not passage.text.strip():
            report.drop("blank passage", item.place.id, item.query)
        elif text in texts:
            report.drop("passage that came before", item.place.id, text)
        else:
            texts[text] = passage.id
    return texts


def _ids(name: str, texts: dict[str, str | None]) -> dict[str, list[str | None]]:
    return {name: list(texts.values())} if any(texts.values()) else {}
