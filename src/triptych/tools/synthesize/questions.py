"""Prompts, and what is wrong with the question that a model answered.

A prompt is a file ``prompts/LANGUAGE.txt`` with the instructions, a line ``---``, and the request, in which ``{title}``
and ``{passage}`` are replaced. Between the two may stand examples, a request and its answer each, set off in the same
way. Languages without a file get ``other.txt``, which is in English and asks for a question in ``{language}``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from triptych.config import check_types
from triptych.errors import DataError, InputError
from triptych.text import Rank, gram_size, primary, size, units

_PACKAGE = "triptych.tools.synthesize"
OTHER = "other"
Style = Literal["full", "small"]
"""Of the package's prompts: "full" has all rules; "small", for models of few parameters, has fewer, and examples."""
NOTHING = "NONE"
"""What the model is told to answer if nothing worth asking stands in a passage."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt.

    Attributes:
        name: The name of its file without ending.
        system: The instructions.
        user: The request with ``{title}``, ``{passage}`` and, in "other", ``{language}``.
        examples: Requests and their answers, in turns.
    """

    name: str
    system: str
    user: str
    examples: tuple[str, ...] = ()

    def messages(self, title: str | None, passage: str, language: str) -> list[dict[str, str]]:
        """The messages of a request to a chat model."""
        values = {"{title}": title or "—", "{passage}": passage, "{language}": language}
        turns = (_fill(self.system, values), *self.examples, _fill(self.user, values))
        roles = ("system", *("user", "assistant") * (len(self.examples) // 2), "user")
        return [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)]


def languages(folder: Traversable | None = None) -> list[str]:
    """Languages that have a prompt of their own."""
    names = [path.name for path in (folder or _prompts()).iterdir()]
    return sorted(
        name.removesuffix(".txt") for name in names if name.endswith(".txt") and name != f"{OTHER}.txt"
    )


def load_prompt(language: str, folder: Path | None = None, style: Style = "full") -> Prompt:
    """The prompt of a language (``pt-BR`` is ``pt``), or "other".

    Args:
        language: ISO 639-1 code.
        folder: Own prompts; what it lacks comes from the package.
        style: Which prompts of the package.

    Raises:
        DataError: For a file without the line ``---`` or without ``{passage}``, or with half an example.
    """
    own = _prompts() if style == "full" else _prompts().joinpath(style)
    for name in (primary(language), OTHER):
        for place in (folder, own):
            file = None if place is None else place.joinpath(f"{name}.txt")
            if file is not None and file.is_file():
                parts = [part.strip() for part in _read_prompt(file).split("\n---\n")]
                if len(parts) < 2 or len(parts) % 2 or "{passage}" not in parts[-1]:
                    message = "expected instructions, a line '---', and a request with {passage}"
                    raise DataError(message, f"{name}.txt")
                return Prompt(name, parts[0], parts[-1], tuple(parts[1:-1]))
    raise DataError("no prompt at all", "prompts")


def _read_prompt(file: Traversable) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as UTF-8 text: {error}", str(file)) from error


def _prompts() -> Traversable:
    return files(_PACKAGE).joinpath("prompts")


def _fill(text: str, values: dict[str, str]) -> str:
    """Replaces names once: what stands in a passage is left as it is."""
    found = sorted((text.find(name), name) for name in values if name in text)
    out, at = "", 0
    for start, name in found:
        out += text[at:start] + values[name]
        at = start + len(name)
    return out + text[at:]


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
    "an example": "it repeats an example of the prompt",
    "yes or no": "it asks for yes or no",
    "invented": "a number or name in it is not in the document",
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
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_]+")
_NOUNS = frozenset(("de", "lb", "nds"))  # languages whose nouns begin with a capital
_RUN = 6  # words in a row that are a copy, if most of the question is made of such
_RUN_CHARACTERS = 12  # the same where words are not separated
_COPIED = 0.6
_MARGIN = (
    10.0  # nats: 478 of 480 human questions in six languages pass with it, 0.2 % pass for another language
)


@dataclass(frozen=True, slots=True)
class QuestionLimits:
    """What a question may be.

    Attributes:
        min_size: Least size in letters (see `triptych.text.size`).
        max_size: Most.
        check_language: Check that a question is in the language of its document (needs py3langid).
    """

    min_size: int = 12
    max_size: int = 300
    check_language: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 < self.min_size <= self.max_size:
            raise InputError(
                f"questions: got sizes from {self.min_size} to {self.max_size}; expected 0 < least ≤ most"
            )


def clean(answer: str) -> str:
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


def problem_of(
    question: str, passage: str, language: str, limits: QuestionLimits, rank: Rank | None, source: str = ""
) -> str | None:
    """The first thing that is wrong with a question (a key of `PROBLEMS`), or None.

    Args:
        question: As `clean` gives it.
        passage: What it is about.
        language: That it should be in, ISO 639-1.
        limits: What it may be.
        rank: Log-probabilities of languages (`triptych.text.ranker`); None: languages are not checked.
        source: The document, whose numbers and names a question may have.
    """
    checks: tuple[tuple[str, bool], ...] = (
        ("empty", not question),
        ("nothing to ask", question.strip(" .\"'").upper() == NOTHING),
        ("refused", is_refusal(question)),
        ("not one question", "\n" in question or len(_INNER.findall(question)) > 1),
        ("not a question", not _ends_as_question(question, language)),
        ("too short", size(question) < limits.min_size),
        ("too long", size(question) > limits.max_size),
        ("refers to the text", refers(question, language)),
        ("copied", is_copy(question, passage)),
    )
    for name, wrong in checks:
        if wrong:
            return name
    if rank is not None and limits.check_language and not speaks(question, language, rank):
        return "other language"
    if limits.check_language and asks_yes_or_no(question, language):
        return "yes or no"
    return "invented" if invents(question, source or passage, language) else None


def is_refusal(answer: str) -> bool:
    """Whether an answer is an apology instead of a question; a question may hold such words, and ends as one."""
    return not _END.search(answer) and any(pattern.search(answer) for pattern in _refusals())


def refers(question: str, language: str) -> bool:
    """Whether a question speaks of "the text" or "this passage", in its language or in English."""
    patterns = _references()
    names = {primary(language), "en"}
    return any(pattern.search(question) for name in names for pattern in patterns.get(name, ()))


def is_copy(question: str, passage: str) -> bool:
    """Whether most of a question is made of runs of words that stand so in the passage."""
    words, copied = _runs(question, passage)
    return copied >= _COPIED * words > 0


def repeats(question: str, examples: Sequence[str]) -> bool:
    """Whether a question has a run of words of one of the prompt's examples: small models fall back on these."""
    return any(_runs(question, example)[1] for example in examples)


def _runs(question: str, source: str) -> tuple[int, int]:
    """How many words a question has, and how many are in runs that the source has too; 0 words if it is too short."""
    words, known = units(question), units(source)
    run = _RUN if gram_size(words, 1) == 1 else _RUN_CHARACTERS
    if len(words) < run:
        return 0, 0
    grams = {tuple(known[i : i + run]) for i in range(len(known) - run + 1)}
    covered: set[int] = set()
    for i in range(len(words) - run + 1):
        if tuple(words[i : i + run]) in grams:
            covered |= set(range(i, i + run))
    return len(words), len(covered)


def asks_yes_or_no(question: str, language: str) -> bool:
    """Whether a question has none of its language's words that ask for more; languages without a list have."""
    pattern = _question_words().get(primary(language))
    return pattern is not None and not pattern.search(question)


def invents(question: str, source: str, language: str) -> bool:
    """Whether a number or a name of a question is not in its source.

    Names are words that begin with a capital, behind the first; their first four letters have to be there, since
    endings change. German writes all nouns so, and is looked at for numbers alone, as are questions of which no word
    begins as one of the source does: the source is in another language or script.
    """
    known = unicodedata.normalize("NFKC", source).casefold()
    asked = unicodedata.normalize("NFKC", question)
    if not set(_NUMBER.findall(asked)) <= set(_NUMBER.findall(known)):
        return True
    words = [word for word in _WORD.findall(asked) if len(word) > 2]
    there = [word[:4].casefold() in known for word in words]
    if primary(language) in _NOUNS or not any(there):
        return False
    first = asked.find(words[0]) if words else 0
    return any(
        word[0].isupper() and not found and asked.find(word) > first
        for word, found in zip(words, there, strict=True)
    )


def speaks(text: str, language: str, rank: Rank) -> bool:
    """Whether a text may be in a language: it is the likeliest, or nearly so; unknown languages pass."""
    found = dict(rank(text[:1000]))
    wanted = primary(language)
    return wanted not in found or found[wanted] >= max(found.values()) - _MARGIN


def _ends_as_question(question: str, language: str) -> bool:
    name = primary(language)
    if name in _WITHOUT_MARK or _END.search(question):
        return True
    endings = {"ja": ("か", "か。"), "zh": ("吗", "呢", "吗。", "呢。")}
    return question.endswith(endings.get(name, ())) if name in endings else False


@cache
def _phrases() -> Mapping[str, Any]:
    return json.loads(files("triptych.tools.synthesize").joinpath("phrases.json").read_text("utf-8"))


@cache
def _refusals() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in _phrases()["refusal"])


@cache
def _question_words() -> Mapping[str, re.Pattern[str]]:
    words = _phrases()["question words"].items()
    return {name: re.compile(pattern, re.IGNORECASE) for name, pattern in words}


@cache
def _references() -> Mapping[str, tuple[re.Pattern[str], ...]]:
    return {
        name: tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)
        for name, patterns in _phrases()["reference"].items()
    }
