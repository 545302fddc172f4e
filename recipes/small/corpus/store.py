"""What was gathered, on the disk: so that every stage can be made alone, with little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corpus.records import Passage, Question, read, write
from corpus.split import Parts
from triptych.errors import DataError
from triptych.io import write_json
from triptych.records import Place
from triptych.tools.pairs.base import StructuredDocument, Translations, parse, to_record

_LEVEL = 3  # these files do not travel


def save(folder: Path, parts: Parts, translations: Iterable[Translations]) -> None:
    """Writes documents, translations and passages, and what was left out."""
    write(folder / "train.jsonl.zst", map(to_record, parts.train), _LEVEL)
    write(folder / "dev.jsonl.zst", map(to_record, parts.dev), _LEVEL)
    write(folder / "translations.jsonl.zst", map(to_record, translations), _LEVEL)
    write(folder / "train-passages.jsonl.zst", map(asdict, parts.train_passages), _LEVEL)
    write(folder / "dev-passages.jsonl.zst", map(asdict, parts.dev_passages), _LEVEL)
    dropped = [[*names, count] for names, count in sorted(parts.dropped.items())]
    write_json(folder / "left-out.json", dropped)


def documents(folder: Path, part: str) -> list[StructuredDocument]:
    """The documents of "train" or "dev"."""
    return [each for each in _minable(folder / f"{part}.jsonl.zst") if isinstance(each, StructuredDocument)]


def translations(folder: Path) -> list[Translations]:
    """All translations; none of them is development."""
    return [each for each in _minable(folder / "translations.jsonl.zst") if isinstance(each, Translations)]


def passages(folder: Path, part: str) -> list[Passage]:
    """The passages with questions of "train" or "dev"."""
    return [_passage(record) for record in read(folder / f"{part}-passages.jsonl.zst")]


def _passage(record: dict[str, Any]) -> Passage:
    questions = tuple(Question(*question) for question in record.pop("questions"))
    return Passage(**record, questions=questions)


def _minable(path: Path) -> Iterator[StructuredDocument | Translations]:
    if not path.exists():
        raise DataError("is missing; run the step `gather` first", path)
    for number, record in enumerate(read(path), start=1):
        yield parse(record, Place(str(path), number))
