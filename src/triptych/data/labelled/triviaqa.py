"""TriviaQA: questions with evidence documents, which stand in files of their own.

``qa/DOMAIN-SPLIT.json`` is ``{"Data": [{"Question", "QuestionId", "Answer", "EntityPages", "SearchResults"}]}``; a
page has a ``Filename`` below ``evidence/wikipedia`` (EntityPages) or ``evidence/web`` (SearchResults). The rows on the
Hub have the same in lower case, with the documents inside. DPR's form is read too.

The supervision is distant: a document that has an alias of the answer counts as a positive, one without as a negative
of the kind "all".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from triptych.data.labelled.dpr import read_dpr
from triptych.data.labelled.files import Files
from triptych.data.labelled.items import Dropped, Item, Labelled, Options, Passage, draw
from triptych.data.labelled.jsonstream import first_keys, rows
from triptych.data.records import Place
from triptych.data.streams import open_source, read_text
from triptych.errors import DataError

_WORDS = re.compile(r"\w+")
_KINDS = (("EntityPages", "wikipedia"), ("SearchResults", "web"))


class _Page(NamedTuple):
    title: str | None
    file: str | None
    text: str | None


def read_triviaqa(files: Files, options: Options) -> Iterator[Item]:
    """Reads TriviaQA's own JSON with its evidence, rows of the Hub, or DPR's form."""
    patterns = (r"(?:.*-)?(?:wikipedia|web|unfiltered|verified).*\.json", r".*\.jsonl?", r".*\.parquet")
    for path in files.of_split("questions", options.split, *patterns):
        if path.suffix != ".parquet" and "positive_ctxs" in first_keys(path):
            yield from read_dpr(Files([path]), options)
            continue
        for place, record in rows(path, "Data"):
            yield from _items(record, place, files, options)


def _items(record: dict[str, Any], place: Place, files: Files, options: Options) -> Iterator[Item]:
    question = record.get("Question") or record.get("question")
    answer = record.get("Answer") or record.get("answer")
    if not isinstance(question, str):
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected TriviaQA's Question, Answer, …"
        )
    if not isinstance(answer, dict):
        yield Dropped(place, "no answer", question)
        return
    aliases = _aliases(cast("dict[str, Any]", answer))
    pos: list[Passage] = []
    neg: list[Passage] = []
    for page, folder in _pages(record):
        text = page.text or _evidence(files, folder, page.file)
        if text is None:
            yield Dropped(place, "evidence is not there", str(page.file))
            continue
        (pos if _has_answer(text, aliases) else neg).append(Passage(text, page.title, page.file))
    if not pos:
        yield Dropped(place, "no document has the answer", question)
        return
    kept = draw(neg, options.max_negatives, options.seed, question) if options.wants("all") else []
    id_ = record.get("QuestionId") or record.get("question_id")
    yield Labelled(place, question, pos, kept, str(id_) if id_ else None, "en", {"answers": aliases})


def _aliases(answer: dict[str, Any]) -> list[str]:
    values = [
        answer.get("Value", answer.get("value")),
        *(answer.get("Aliases") or answer.get("aliases") or []),
    ]
    return list(dict.fromkeys(str(value) for value in values if value))


def _pages(record: dict[str, Any]) -> Iterator[tuple[_Page, str]]:
    for name, folder in _KINDS:
        for page in record.get(name) or []:
            yield _Page(page.get("Title"), page.get("Filename"), None), folder
    for name, text in (("entity_pages", "wiki_context"), ("search_results", "search_context")):
        columns = record.get(name) or {}
        texts: list[str] = columns.get(text) or []
        titles: list[str] = columns.get("title") or [""] * len(texts)
        for title, context in zip(titles, texts, strict=True):
            yield _Page(title or None, None, context), ""


def _evidence(files: Files, folder: str, name: str | None) -> str | None:
    """The text of ``evidence/FOLDER/NAME`` below one of the paths, which may be that folder itself."""
    if not name:
        return None
    for root in files.roots:
        base = root if root.is_dir() else root.parent.parent
        for start in (base / "evidence" / folder, base / folder, base):
            path = _inside(start, name)
            if path is not None:
                with open_source(path) as source:
                    return read_text(source).strip()
    return None


def _inside(folder: Path, name: str) -> Path | None:
    path = folder / name
    if not path.is_file():
        return None
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"the file name {name!r} leads out of {folder}")
    return path


def _has_answer(text: str, aliases: Sequence[str]) -> bool:
    """Whether the words of an alias stand in the text one after the other, whatever their case."""
    words = _normal(text)
    return any(alias in words for alias in map(_normal, aliases) if alias.strip())


def _normal(text: str) -> str:
    return f" {' '.join(_WORDS.findall(text.casefold()))} "
