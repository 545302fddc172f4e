"""What is trained on, what is kept for development, and what is left out: by article, in all languages at once.

An article is development if `qa_split` says so. Left out of both is what repeats an evaluation set; out of training
also what repeats a development passage, and introductions of encyclopaedia articles that are asked about there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from corpus.overlap import Overlap
from corpus.records import Passage
from qa_split import DEVELOPMENT
from triptych.text import digest, fold
from triptych.tools.pairs.base import StructuredDocument


def is_development(source: str, article: str) -> bool:
    """Whether an article is set aside; the same rule as for the questions of the bundled model."""
    return digest(f"{source}\t{article}") % DEVELOPMENT == 0


@dataclass(frozen=True, slots=True)
class Parts:
    """A corpus cut in two.

    Attributes:
        train: Documents, and passages with questions, to train on.
        dev: Those to choose by.
        dropped: How many were left out, by reason, source and language.
    """

    train: list[StructuredDocument] = field(default_factory=list[StructuredDocument])
    dev: list[StructuredDocument] = field(default_factory=list[StructuredDocument])
    train_passages: list[Passage] = field(default_factory=list[Passage])
    dev_passages: list[Passage] = field(default_factory=list[Passage])
    dropped: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])


def cut(
    documents: Iterable[StructuredDocument], passages: Iterable[Passage], evaluation: Iterable[Passage]
) -> Parts:
    """Cuts documents and passages.

    Args:
        documents: All documents.
        passages: All passages with questions.
        evaluation: What is for judging alone: passages and their questions.
    """
    parts = Parts()
    judged = list(evaluation)
    texts = Overlap((passage.text, passage.lang) for passage in judged)
    asked = {fold(question.text) for passage in judged for question in passage.questions}
    rest: list[Passage] = []
    for passage in _joined(passages):
        where = (passage.source, passage.lang)
        if texts.repeats(passage.text, passage.lang):
            parts.dropped["passage of an evaluation set", *where] += 1
        elif any(fold(question.text) in asked for question in passage.questions):
            parts.dropped["question of an evaluation set", *where] += 1
        elif is_development(passage.source, passage.article or passage.text):
            parts.dev_passages.append(passage)
        else:
            rest.append(passage)
    kept = Overlap(((passage.text, passage.lang) for passage in parts.dev_passages), least=0.5, most=None)
    titles = {fold(passage.article) for passage in parts.dev_passages if passage.source == "afriqa"}
    questions = {fold(question.text) for passage in parts.dev_passages for question in passage.questions}
    for passage in rest:
        if kept.repeats(passage.text, passage.lang):
            parts.dropped["passage of the development set", passage.source, passage.lang] += 1
        elif any(fold(question.text) in questions for question in passage.questions):
            parts.dropped["question of the development set", passage.source, passage.lang] += 1
        else:
            parts.train_passages.append(passage)
    for document in documents:
        where = (document.source, document.lang)
        text = "\n".join(block.text for block in document.blocks)
        if texts.repeats(text, document.lang):
            parts.dropped["document repeats an evaluation set", *where] += 1
        elif is_development(document.source, document.key):
            parts.dev.append(document)
        elif document.source == "wiki" and fold(document.title) in titles:
            parts.dropped["article of the development questions", *where] += 1
        elif kept.repeats(text, document.lang):
            parts.dropped["document repeats the development set", *where] += 1
        else:
            parts.train.append(document)
    return parts


def _joined(passages: Iterable[Passage]) -> list[Passage]:
    """The same passage once, with all its questions; it stays with the article that it came with first."""
    found: dict[tuple[str, str], Passage] = {}
    for passage in passages:
        name = (passage.lang, fold(passage.text))
        first = found.setdefault(name, passage)
        if first is not passage:
            asked = tuple(dict.fromkeys((*first.questions, *passage.questions)))
            found[name] = replace(first, questions=asked)
    return list(found.values())
