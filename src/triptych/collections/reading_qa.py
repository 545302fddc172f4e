"""Questions with the passages that answer them: DPR's JSON, SQuAD, Natural Questions, TriviaQA, HotpotQA.

DPR (Karpukhin et al. 2020), in whose form Natural Questions, TriviaQA and others are published: an array of
``{"question", "answers", "positive_ctxs", "negative_ctxs", "hard_negative_ctxs"}``; a passage has ``title``, ``text``
and ``passage_id`` (or ``psg_id``).

SQuAD 1.1 and 2.0, and what has its format (KorQuAD 1, XQuAD, GermanQuAD, DuReader-robust): ``{"data": [{"title",
"paragraphs": [{"context", "qas": [{"id", "question", "answers", "is_impossible"}]}]}]}``, or rows ``{"id", "title",
"context", "question", "answers"}`` as on the Hub.

Natural Questions as Google publishes them, simplified or whole: JSON Lines, a question and a Wikipedia page each. A
page is a list of tokens, some of which are HTML tags: words in ``document_text``, separated by single spaces, or
objects in ``document_tokens``. ``annotations`` name a long answer by its tokens (a passage, the positive) and short
answers inside; ``long_answer_candidates`` are the page's other passages.

TriviaQA: ``qa/DOMAIN-SPLIT.json`` is ``{"Data": [{"Question", "QuestionId", "Answer", "EntityPages",
"SearchResults"}]}``; a page has a ``Filename`` below ``evidence/wikipedia`` (EntityPages) or ``evidence/web``
(SearchResults). The rows on the Hub have the same in lower case, with the documents inside. The supervision is
distant: a document that has an alias of the answer counts as a positive, one without as a negative of the kind "all".

HotpotQA, distractor setting: an array of ``{"_id", "question", "answer", "supporting_facts": [[title, sentence]],
"context": [[title, [sentence, …]]]}`` with two paragraphs that answer together, and eight that do not; rows on the Hub
have ``id``, and objects of lists in place of the pairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

from triptych.collections.files import Files, first_keys, rows
from triptych.collections.joined import Dropped, Item, JudgedPassage, Labelled, Options, passages_of
from triptych.errors import DataError
from triptych.io import open_source, read_text
from triptych.records import Place

_IDS = ("passage_id", "psg_id")


def read_dpr(files: Files, options: Options) -> Iterator[Item]:
    """Reads such files; hard negatives are given, the others (of other questions) count among "all"."""
    for path in files.of_split("JSON of DPR", options.split, r".*\.jsonl?"):
        for place, record in rows(path):
            yield _dpr_item(record, place, options)


def _dpr_item(record: dict[str, Any], place: Place, options: Options) -> Item:
    question = record.get("question")
    if not isinstance(question, str) or "positive_ctxs" not in record:
        raise place.error(f"got fields {', '.join(map(repr, record))}; expected question, positive_ctxs, …")
    pos = passages_of(record, "positive_ctxs", _IDS, place)
    if not pos:
        return Dropped(place, "no positive", question)
    neg: list[JudgedPassage] = []
    if options.wants("given"):
        neg += passages_of(record, "hard_negative_ctxs", _IDS, place)
    if options.wants("all"):
        neg += passages_of(record, "negative_ctxs", _IDS, place)
    answers = record.get("answers")
    return Labelled(
        place,
        question,
        pos,
        options.sample(neg, question),
        language="en",
        facts={"answers": answers} if answers else {},
    )


def read_squad(files: Files, options: Options) -> Iterator[Item]:
    """Reads such files; the paragraph of a question is its positive.

    Negatives of the kind "all" are the other paragraphs of the article that do not have the answer; rows do not say
    which those are. A question that its paragraph does not answer (SQuAD 2.0) makes no example.
    """
    for path in files.of_split("questions", options.split, r".*\.json", r".*\.jsonl", r".*\.parquet"):
        for place, record in rows(path, "data"):
            if "paragraphs" in record:
                yield from _article(record, place, options)
            else:
                yield _row(record, place, options)


def _article(record: dict[str, Any], place: Place, options: Options) -> Iterator[Item]:
    title = _article_title(record)
    paragraphs = cast("list[dict[str, Any]]", record["paragraphs"])
    contexts = [str(paragraph.get("context", "")) for paragraph in paragraphs]
    for context, paragraph in zip(contexts, paragraphs, strict=True):
        for question in paragraph.get("qas") or []:
            answers = _answers(question.get("answers"))
            others = contexts if options.wants("all") else []
            neg = [
                JudgedPassage(text, title)
                for text in others
                if text != context and not any(each.casefold() in text.casefold() for each in answers)
            ]
            yield _squad_item(question, JudgedPassage(context, title), answers, neg, (place, options))


def _row(record: dict[str, Any], place: Place, options: Options) -> Item:
    if "question" not in record or "context" not in record:
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected paragraphs, or question and context"
        )
    answers = _answers(record.get("answers"))
    return _squad_item(
        record, JudgedPassage(str(record["context"]), _article_title(record)), answers, [], (place, options)
    )


def _squad_item(
    question: dict[str, Any],
    context: JudgedPassage,
    answers: list[str],
    neg: Sequence[JudgedPassage],
    where: tuple[Place, Options],
) -> Item:
    place, options = where
    text = str(question.get("question", ""))
    if question.get("is_impossible") or not answers:
        return Dropped(place, "the paragraph does not answer the question", text)
    kept = options.sample(dict.fromkeys(neg), text)
    id_ = question.get("id")
    return Labelled(
        place,
        text,
        [context],
        kept,
        None if id_ is None else str(id_),
        options.language,
        {"answers": answers},
    )


def _article_title(record: dict[str, Any]) -> str | None:
    return str(record.get("title") or "").replace("_", " ") or None


def _answers(value: Any) -> list[str]:
    """Texts of a list of objects, or of an object of lists."""
    if isinstance(value, dict):
        texts: list[Any] = cast("dict[str, Any]", value).get("text") or []
    else:
        texts = [each.get("text") for each in cast("list[dict[str, Any]]", value or [])]
    return list(dict.fromkeys(str(text) for text in texts if text))


_FILES = (r".*\.jsonl", r".*\.json")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_BEFORE = re.compile(r" +([.,;:!?%)\]}]|'s\b|n't\b|'')")
_AFTER = re.compile(r"([(\[{]|``) +")
_AGREED = 2  # of five annotators of a development question: the rule of the data set's own evaluation
_BLOCK = 5  # words that a passage needs


def read_natural_questions(files: Files, options: Options) -> Iterator[Item]:
    """Reads Google's release, or DPR's form of it."""
    for path in files.of_split("JSON Lines of questions", options.split, *_FILES):
        if "positive_ctxs" in first_keys(path):
            yield from read_dpr(Files([path]), options)
            continue
        for place, record in rows(path):
            yield _nq_item(record, place, options)


def _nq_item(record: dict[str, Any], place: Place, options: Options) -> Item:
    question = record.get("question_text")
    if not isinstance(question, str) or not isinstance(record.get("annotations"), list):
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected question_text, document_text, annotations"
        )
    tokens = _tokens(record, place)
    annotations = cast("list[dict[str, Any]]", record["annotations"])
    spans = [_span(each.get("long_answer") or {}) for each in annotations]
    answered = [span for span in spans if span is not None]
    if len(answered) < (_AGREED if len(annotations) > 1 else 1):
        return Dropped(place, "no long answer", question)
    title = _page_article_title(record)
    pos = {span: JudgedPassage(_span_text(tokens, span), title) for span in answered}
    neg = _other_passages(record, tokens, list(pos), title) if options.wants("all") else []
    return Labelled(
        place,
        question,
        list(pos.values()),
        options.sample(neg, question),
        str(record.get("example_id", "")) or None,
        "en",
        {"answers": answers} if (answers := _short_answers(annotations, tokens)) else {},
    )


def _tokens(record: dict[str, Any], place: Place) -> list[str]:
    """The page's tokens; those that are tags are empty, so that the numbers stay."""
    text = record.get("document_text")
    if isinstance(text, str):
        return ["" if _TAG.fullmatch(token) else token for token in text.split(" ")]
    objects = record.get("document_tokens")
    if not isinstance(objects, list):
        raise place.error("no document_text and no document_tokens; expected one of them")
    return ["" if each["html_token"] else str(each["token"]) for each in cast("list[Any]", objects)]


def _span(value: dict[str, Any]) -> tuple[int, int] | None:
    start, end = value.get("start_token", -1), value.get("end_token", -1)
    return (start, end) if 0 <= start < end else None


def _span_text(tokens: Sequence[str], span: tuple[int, int]) -> str:
    joined = " ".join(token for token in tokens[slice(*span)] if token)
    return _AFTER.sub(r"\1", _BEFORE.sub(r"\1", joined)).replace("``", '"').replace("''", '"')


def _short_answers(annotations: Sequence[dict[str, Any]], tokens: Sequence[str]) -> list[str]:
    shorts = [_span(short) for each in annotations for short in each.get("short_answers") or []]
    return list(dict.fromkeys(_span_text(tokens, span) for span in shorts if span))


def _other_passages(
    record: dict[str, Any], tokens: Sequence[str], positive: Sequence[tuple[int, int]], title: str | None
) -> list[JudgedPassage]:
    """Passages of the page that share no token with a positive."""
    found: list[JudgedPassage] = []
    for candidate in record.get("long_answer_candidates") or []:
        span = _span(candidate)
        if not span or not candidate.get("top_level", True):
            continue
        if all(span[1] <= start or end <= span[0] for start, end in positive):
            text = _span_text(tokens, span)
            if len(text.split()) >= _BLOCK:
                found.append(JudgedPassage(text, title))
    return found


def _page_article_title(record: dict[str, Any]) -> str | None:
    """The page's title: the simplified form has it in the address alone."""
    if title := record.get("document_title"):
        return str(title)
    query = urlsplit(unescape(str(record.get("document_url", "")))).query
    titles = parse_qs(query).get("title")
    return titles[0].replace("_", " ") if titles else None


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
            yield from _triviaqa_items(record, place, files, options)


def _triviaqa_items(record: dict[str, Any], place: Place, files: Files, options: Options) -> Iterator[Item]:
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
    pos: list[JudgedPassage] = []
    neg: list[JudgedPassage] = []
    for page, folder in _pages(record):
        text = page.text or _evidence(files, folder, page.file)
        if text is None:
            yield Dropped(place, "evidence is not there", str(page.file))
            continue
        (pos if _has_answer(text, aliases) else neg).append(JudgedPassage(text, page.title, page.file))
    if not pos:
        yield Dropped(place, "no document has the answer", question)
        return
    kept = options.sample(neg, question) if options.wants("all") else []
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


def read_hotpotqa(files: Files, options: Options) -> Iterator[Item]:
    """Reads such files: paragraphs with a supporting fact are positives, the distractors are given negatives."""
    for path in files.of_split("questions", options.split, r".*\.jsonl?", r".*\.parquet"):
        for place, record in rows(path):
            yield _hotpotqa_item(record, place, options)


def _hotpotqa_item(record: dict[str, Any], place: Place, options: Options) -> Item:
    question = record.get("question")
    if not isinstance(question, str) or "context" not in record:
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected question, context, supporting_facts"
        )
    supporting = {
        str(title) for title, _ in _pairs(record.get("supporting_facts"), ("title", "sent_id"), place)
    }
    paragraphs = [
        JudgedPassage("".join(sentences).strip(), str(title))
        for title, sentences in _pairs(record["context"], ("title", "sentences"), place)
    ]
    pos = [passage for passage in paragraphs if passage.title in supporting]
    if not pos:
        return Dropped(place, "no supporting paragraph", question)
    neg = [passage for passage in paragraphs if passage.title not in supporting]
    kept = options.sample(neg, question) if options.wants("given") else []
    answer = record.get("answer")
    id_ = record.get("_id", record.get("id"))
    return Labelled(
        place, question, pos, kept, str(id_) if id_ else None, "en", {"answers": [answer]} if answer else {}
    )


def _pairs(value: Any, names: tuple[str, str], place: Place) -> list[tuple[Any, Any]]:
    """Pairs of a list of lists, or of an object of two lists."""
    if isinstance(value, dict):
        columns = cast("dict[str, list[Any]]", value)
        return list(zip(columns.get(names[0], []), columns.get(names[1], []), strict=True))
    pairs = cast("list[Any]", value or [])
    if not isinstance(value, list | None) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in pairs
    ):
        raise place.error(f"got {value!r:.60}; expected a list of pairs ({', '.join(names)})")
    return [(pair[0], pair[1]) for pair in pairs]
