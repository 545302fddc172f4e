"""Test sets of questions on passages, with the passages of all sets and languages in one corpus."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from eval_folder import Judged, TestSet, Text
from triptych.text import digest

PARALLEL = "xquad"
"""The set whose passages and questions are the same in all its languages, in the same order."""

LICENCES = {
    "afriqa": "CC BY-SA 4.0",
    "arcd": "MIT",
    "cmrc": "CC BY-SA 4.0",
    "iapp": "MIT",
    "jaquad": "CC BY-SA 3.0",
    "xquad": "CC BY-SA 4.0",
}


@dataclass(frozen=True, slots=True)
class Pool:
    """All passages and questions.

    Attributes:
        passages: Each text once.
        questions: Each text once for every set, pair of languages and wording.
        relevant: (name, subset) of a set to query ids to relevant passages.
        twins: Query id to all translations of its passage, itself included.
        number: Query id to what its translations share, by which they are sampled.
    """

    passages: dict[str, Text] = field(default_factory=dict[str, Text])
    questions: dict[str, Text] = field(default_factory=dict[str, Text])
    relevant: dict[tuple[str, str], dict[str, list[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    twins: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    number: dict[str, str] = field(default_factory=dict[str, str])


def pool(records: Iterable[Mapping[str, Any]]) -> Pool:
    """Puts passages with questions together.

    Args:
        records: ``s`` set, ``l`` language, ``a`` article, ``t`` passage, ``q`` questions, each a string or
            [language, question, the same in the passage's language].
    """
    made = Pool()
    first: dict[str, str] = {}
    known: dict[tuple[str, str, str, str], str] = {}
    count: dict[tuple[str, str], int] = defaultdict(int)
    groups: dict[int, dict[str, str]] = defaultdict(dict)
    for record in records:
        source, language, text = record["s"], record["l"], record["t"].strip()
        number = count[source, language]
        count[source, language] += 1
        own = f"{source}-{language}-{number:04d}"
        passage = first.setdefault(text, own)
        if passage == own:
            made.passages[own] = Text(own, text, {"set": source, "lang": language})
        if source == PARALLEL:
            groups[number][language] = passage
        for place, (name, asked_in, question) in _questions(record):
            subset = language if asked_in == language else f"{asked_in}-{language}"
            id_ = known.setdefault((name, asked_in, language, question), f"{own}-{place}-{asked_in}")
            if id_ not in made.questions:
                made.questions[id_] = Text(id_, question, {"set": name, "lang": asked_in})
                made.number[id_] = f"{source}-{number:04d}-{place}"
            judged = made.relevant[name, subset][id_]
            judged += [] if passage in judged else [passage]
            if source == PARALLEL:
                made.twins.setdefault(id_, [f"{number}"])
    for id_, [group] in made.twins.items():
        made.twins[id_] = sorted(set(groups[int(group)].values()))
    return made


def _questions(record: Mapping[str, Any]) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Number of each question, and (name of the set, language, text) in each of its wordings."""
    source, language = record["s"], record["l"]
    for place, question in enumerate(record["q"]):
        wordings = (
            [(source, language, question)]
            if isinstance(question, str)
            else [(source, question[0], question[1]), (f"{source}-translated", language, question[2])]
        )
        yield from ((place, (name, asked, text.strip())) for name, asked, text in wordings if text.strip())


def sets(made: Pool, split: str, most: int | None) -> Iterator[TestSet]:
    """Monolingual sets, and cross-lingual ones: those that are, and all ordered pairs of the parallel set.

    Translations of a passage answer the question too, so all but the one in the wanted language are excluded.

    Args:
        made: Passages and questions.
        split: "dev" or "test".
        most: Questions of a set, chosen by digest (translations together); None: all.
    """
    languages: list[str] = sorted(subset for name, subset in made.relevant if name == PARALLEL)
    for (name, subset), relevant in sorted(made.relevant.items()):
        group = "cross-lingual" if "-" in subset else "monolingual"
        excluded = PARALLEL if name == PARALLEL else None
        licence = LICENCES.get(name.removesuffix("-translated"), "")
        yield TestSet(name, subset, split, group, _sampled(made, relevant, most), excluded, licence)
    of = {id_: text.facts["lang"] for id_, text in made.passages.items()}
    for asked, wanted in itertools.permutations(languages, 2):
        relevant = {
            query: [passage for passage in made.twins[query] if of[passage] == wanted]
            for query in made.relevant[PARALLEL, asked]
        }
        yield TestSet(
            f"{PARALLEL}-cross",
            f"{asked}-{wanted}",
            split,
            "cross-lingual",
            _sampled(made, relevant, most),
            PARALLEL,
            LICENCES[PARALLEL],
        )


def _sampled(made: Pool, relevant: Judged, most: int | None) -> Judged:
    kept = sorted(relevant, key=lambda query: (digest(made.number[query]), query))[:most]
    return {query: relevant[query] for query in sorted(kept)}
