"""What a model answered as a question, and what is wrong with it.

Whether an encoder finds the document that a question was written for: the round trip of synthetic questions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError, MissingExtra
from triptych.records import Document
from triptych.scores.on_numpy import combine, head_scores
from triptych.text import WORD
from triptych.tools.synthesize.asking import NOTHING
from triptych.tools.synthesize.passages import Asked, size
from triptych.train.data import chunked
from triptych.types import Encoded, Floats, HeadWeights, TextEncoder

Ranks = Callable[[str], Mapping[str, float]]
"""Log-probabilities of a text by language."""

PROBLEMS = {
    "refused": "the model (or its provider) refused",
    "nothing to ask": "the model found nothing worth asking",
    "cut off": "the answer was cut off by its limit of tokens",
    "empty": "the answer is empty",
    "not one question": "several questions, or text beside the question",
    "not a question": "it does not end as a question does",
    "too short": "too short to mean anything alone",
    "too long": "too long for a search",
    "refers to the text": "it speaks of the text, which a searcher does not have",
    "copied": "it copies the passage",
    "other language": "it is not in the document's language",
    "repeated": "the same question was asked about another document",
    "not found": "a search with the question does not find the document",
}
"""Everything for which an answer is dropped, in the order of the checks."""

_MARKS = "?？؟;;՞፧⸮"
_END = re.compile(rf"[{_MARKS}]['\"”’»」』)\]]*$")
_INNER = re.compile(r"[?？؟]")
_WITHOUT_MARK = frozenset(("th", "lo", "km", "my", "bo", "dz"))  # where a question is told by its words
_LEAD = re.compile(
    r"^(?:\W{0,3}(?:question|q|frage|pregunta|domanda|pergunta|vraag|pytanie|вопрос|soru|السؤال|سؤال|प्रश्न|คำถาม|问题|質問"
    r"|질문|pertanyaan)\W{0,3}[:：]\W{0,3}\s*|\d+[.)]\s+|[-*•]\s+)",
    re.IGNORECASE,
)
_QUOTES = {
    '"': '"',
    "'": "'",
    "“": "”",
    "„": "“",
    "«": "»",
    "‘": "’",
    "「": "」",
    "『": "』",
    "`": "`",
    "*": "*",
}
_RUN = 6  # words in a row that are a copy, if most of the question is made of such
_RUN_CHARACTERS = 12  # the same where words are not separated
_COPIED = 0.6
_MARGIN = (
    10.0  # nats: 478 of 480 human questions in six languages pass with it, 0.2 % pass for another language
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a question may be.

    Attributes:
        min_size: Least size in letters (see `triptych.tools.synthesize.passages.size`).
        max_size: Most.
        check_language: Whether its language is identified (needs py3langid).
    """

    min_size: int = 12
    max_size: int = 300
    check_language: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.min_size <= self.max_size:
            raise InputError(
                f"questions: got sizes from {self.min_size} to {self.max_size}; expected 0 < least ≤ most"
            )


def cleaned(answer: str) -> str:
    """An answer without what models put around a question: a label, a number, quotation marks, emphasis."""
    text = answer.strip()
    while True:
        before = text
        text = _LEAD.sub("", text).strip()
        if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
            text = text[1:-1].strip()
        if text.startswith("**") and text.endswith("**"):
            text = text[2:-2].strip()
        if text == before:
            return text


def problem_of(question: str, passage: str, language: str, limits: Limits, ranks: Ranks | None) -> str | None:
    """The first thing that is wrong with a question (a key of `PROBLEMS`), or None.

    Args:
        question: As `cleaned` gives it.
        passage: What it is about.
        language: That it should be in, ISO 639-1.
        limits: What it may be.
        ranks: Identifies languages; None: they are not looked at.
    """
    checks: tuple[tuple[str, bool], ...] = (
        ("empty", not question),
        ("nothing to ask", question.strip(" .\"'").upper() == NOTHING),
        ("refused", is_refusal(question)),
        ("not one question", "\n" in question or len(_INNER.findall(question)) > 1),
        ("not a question", not _ends(question, language)),
        ("too short", size(question) < limits.min_size),
        ("too long", size(question) > limits.max_size),
        ("refers to the text", refers(question, language)),
        ("copied", is_copy(question, passage)),
    )
    for name, wrong in checks:
        if wrong:
            return name
    if ranks is not None and limits.check_language and not speaks(question, language, ranks):
        return "other language"
    return None


def is_refusal(answer: str) -> bool:
    """Whether an answer is an apology instead of a question; a question may hold such words, and ends as one."""
    return not _END.search(answer) and any(pattern.search(answer) for pattern in _refusals())


def refers(question: str, language: str) -> bool:
    """Whether a question speaks of "the text" or "this passage", in its language or in English."""
    patterns = _references()
    names = {language.split("-")[0], "en"}
    return any(pattern.search(question) for name in names for pattern in patterns.get(name, ()))


def is_copy(question: str, passage: str) -> bool:
    """Whether most of a question is made of runs of words that stand so in the passage."""
    words, source = _words(question), _words(passage)
    run = _RUN if _spaced(question) else _RUN_CHARACTERS
    if len(words) < run:
        return False
    known = {tuple(source[i : i + run]) for i in range(len(source) - run + 1)}
    covered: set[int] = set()
    for i in range(len(words) - run + 1):
        if tuple(words[i : i + run]) in known:
            covered |= set(range(i, i + run))
    return len(covered) >= _COPIED * len(words)


def speaks(text: str, language: str, ranks: Ranks) -> bool:
    """Whether a text may be in a language: it is the likeliest, or nearly so; unknown languages pass."""
    found = ranks(text)
    wanted = language.lower().split("-")[0]
    return wanted not in found or found[wanted] >= max(found.values()) - _MARGIN


def language_ranks() -> Ranks:
    """Log-probabilities by language, by py3langid.

    Raises:
        MissingExtra: If that package is not installed.
    """
    try:
        from py3langid import rank
    except ImportError as error:
        raise MissingExtra("identifying languages", "data") from error
    return lambda text: {
        str(name): float(value) for name, value in cast("list[tuple[Any, Any]]", rank(text[:1000]))
    }


def normal(question: str) -> str:
    """What makes two questions the same: their words, whatever the case and the marks."""
    return " ".join(WORD.findall(question.casefold()))


def _ends(question: str, language: str) -> bool:
    name = language.lower().split("-")[0]
    if name in _WITHOUT_MARK or _END.search(question):
        return True
    endings = {"ja": ("か", "か。"), "zh": ("吗", "呢", "吗。", "呢。")}
    return question.endswith(endings.get(name, ())) if name in endings else False


def _spaced(text: str) -> bool:
    """Whether words are separated: at least every twelfth character is a blank."""
    return text.count(" ") * 12 >= len(text)


def _words(text: str) -> Sequence[str]:
    found = WORD.findall(text.casefold())
    return found if _spaced(text) else list("".join(found))


@cache
def _phrases() -> Mapping[str, Any]:
    return json.loads(files("triptych.tools.synthesize").joinpath("phrases.json").read_text("utf-8"))


@cache
def _refusals() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in _phrases()["refusal"])


@cache
def _references() -> Mapping[str, tuple[re.Pattern[str], ...]]:
    return {
        name: tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)
        for name, patterns in _phrases()["reference"].items()
    }


@dataclass(frozen=True, slots=True)
class EncoderFinder:
    """A `triptych.tools.synthesize.passages.Finder` with an encoder's scores.

    Documents go through in blocks and only each question's best scores are kept: memory grows with the questions times
    the depth, not with the corpus.

    Attributes:
        encoder: Makes the representations.
        weights: Of the three scores. The default is the paper's for dense and lexical together; token vectors of
            whole long documents are slow to compare.
        block: Documents that are encoded at once.
    """

    encoder: TextEncoder
    weights: HeadWeights = field(default_factory=lambda: HeadWeights(1.0, 0.3, 0.0))
    block: int = 64

    def ranks(
        self, documents: Iterable[Document], questions: Sequence[Asked], depth: int
    ) -> Sequence[int | None]:
        """The rank of each question's document, or None beyond `depth`; equal scores do not count against it."""
        if not questions:
            return []
        heads = self.weights.heads
        asked = self.encoder.encode_query([each.question for each in questions], outputs=heads)
        rows: dict[str, list[int]] = {}
        for row, each in enumerate(questions):
            rows.setdefault(each.document, []).append(row)
        best = np.full((len(questions), depth), -np.inf, dtype=np.float32)
        own = np.full(len(questions), -np.inf, dtype=np.float32)
        for block in chunked(documents, self.block):
            scores = self._scores(asked, [document.content for document in block])
            for column, document in enumerate(block):
                mine = rows.get(document.id, [])
                own[mine] = scores[mine, column]
            best = _largest(np.concatenate([best, scores], axis=1), depth)
        better = (best > own[:, None]).sum(axis=1)
        return [
            int(count) + 1 if np.isfinite(score) and count < depth else None
            for count, score in zip(better, own, strict=True)
        ]

    def _scores(self, asked: Encoded, texts: list[str]) -> Floats:
        encoded = self.encoder.encode_document(texts, outputs=self.weights.heads)
        heads = self.weights.heads
        return combine({head: head_scores(asked, encoded, head) for head in heads}, self.weights)


def _largest(scores: Floats, count: int) -> NDArray[np.float32]:
    """The `count` largest of each row, in any order."""
    return np.partition(scores, scores.shape[1] - count, axis=1)[:, -count:]
