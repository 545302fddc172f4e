"""The data sets that can be converted, by name: how each is read, how it is recognised, and its licence."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from triptych.collections.beir import read_beir_folders
from triptych.collections.chinese import read_dureader_retrieval, read_t2ranking
from triptych.collections.files import Files, first_keys
from triptych.collections.joined import Reader
from triptych.collections.msmarco import read_mmarco, read_msmarco
from triptych.collections.multilingual import read_miracl, read_mldr, read_mrtydi
from triptych.collections.nli import read_nli
from triptych.collections.qrels import is_beir
from triptych.collections.reading_qa import (
    read_dpr,
    read_hotpotqa,
    read_natural_questions,
    read_squad,
    read_triviaqa,
)
from triptych.collections.trec import read_trec
from triptych.errors import InputError
from triptych.records import JSONL, ending

AUTO = "auto"
_KEYS = 3  # files whose first record is looked at
Recognise = Callable[[Files, frozenset[str]], bool]


@dataclass(frozen=True, slots=True)
class Dataset:
    """One data set, or a format that many have.

    Attributes:
        title: What it is.
        read: Its reader: ``(files, options)`` → items.
        licence: As its publisher states it; None where the format says nothing of a data set's licence.
        language: Of all its queries, where it is one and the reader does not know.
        recognise: Whether files are of this form, from them and from the names of the fields of the first
            records; None: too like others to be told.
    """

    title: str
    read: Reader
    licence: str | None = None
    language: str | None = None
    recognise: Recognise | None = None


def _named(*patterns: str) -> Recognise:
    return lambda files, _: all(files.matching(pattern) for pattern in patterns)


def _with(*fields: str) -> Recognise:
    return lambda _, keys: keys.issuperset(fields)


_MSMARCO = "MS MARCO's terms: non-commercial research only"

DATASETS: dict[str, Dataset] = {
    "msmarco": Dataset(
        "MS MARCO: passage ranking files, triples, or question answering JSON (v1.1, v2.1)",
        read_msmarco,
        _MSMARCO,
        recognise=lambda files, keys: (
            (
                bool(
                    files.matching(r"collection\.tsv")
                    and files.matching(r"qrels\.(?:train|dev)(?:\.small)?\.tsv")
                )
                and not files.matching(r"qrels\.retrieval\..*")
            )
            or {"passages", "query", "query_id"} <= keys
        ),
    ),
    "mmarco": Dataset(
        "mMARCO: MS MARCO translated to 13 languages",
        read_mmarco,
        f"Apache-2.0 (translations); {_MSMARCO}",
        recognise=_named(r"[a-z]+_collection\.tsv", r"[a-z]+_queries\..*\.tsv"),
    ),
    "natural-questions": Dataset(
        "Natural Questions: Google's JSON Lines (simplified or whole), or DPR's JSON",
        read_natural_questions,
        "CC BY-SA 3.0",
        recognise=_with("question_text", "annotations"),
    ),
    "triviaqa": Dataset(
        "TriviaQA: JSON with its evidence files, or DPR's JSON",
        read_triviaqa,
        "none stated for questions and documents; code Apache-2.0",
        recognise=lambda files, keys: (
            "Data" in keys and bool({"Domain", "Split", "Version", "VerifiedEval"} & keys)
        ),
    ),
    "dpr": Dataset("the JSON of DPR, of any data set", read_dpr, recognise=_with("positive_ctxs")),
    "squad": Dataset("SQuAD 1.1 or 2.0", read_squad, "CC BY-SA 4.0", "en"),
    "korquad": Dataset("KorQuAD 1", read_squad, "CC BY-ND 2.0 KR", "ko"),
    "squad-like": Dataset(
        "anything in SQuAD's format",
        read_squad,
        recognise=lambda files, keys: "data" in keys or {"context", "question", "answers"} <= keys,
    ),
    "hotpotqa": Dataset(
        "HotpotQA, distractor setting",
        read_hotpotqa,
        "CC BY-SA 4.0",
        recognise=_with("supporting_facts", "context"),
    ),
    "snli": Dataset("SNLI, as triplets", read_nli, "CC BY-SA 4.0", "en"),
    "multinli": Dataset("MultiNLI, as triplets", read_nli, "OANC's, CC BY 3.0, CC BY-SA 3.0, by genre", "en"),
    "xnli": Dataset("XNLI, as triplets", read_nli, "CC BY-NC 4.0"),
    "nli": Dataset(
        "premises, hypotheses and labels in the format of these",
        read_nli,
        recognise=lambda files, keys: (
            {"gold_label", "sentence1", "sentence2"} <= keys or {"premise", "hypothesis", "label"} <= keys
        ),
    ),
    "dureader-retrieval": Dataset(
        "DuReader-retrieval",
        read_dureader_retrieval,
        "Apache-2.0",
        "zh",
        lambda files, keys: (
            "answer_paragraphs" in keys or bool(files.matching(r"(?:dual|cross)\.train.*\.tsv"))
        ),
    ),
    "dureader-robust": Dataset("DuReader-robust (SQuAD's format)", read_squad, "Apache-2.0", "zh"),
    "t2ranking": Dataset(
        "T2Ranking",
        read_t2ranking,
        "Apache-2.0",
        "zh",
        _named(r"collection\.tsv", r"qrels\.retrieval\..*\.tsv"),
    ),
    "mrtydi": Dataset(
        "Mr.TyDi",
        read_mrtydi,
        "Apache-2.0",
        recognise=lambda files, _: any(
            "mrtydi-v" in str(path) or "mr-tydi" in str(path) for path in files.all
        ),
    ),
    "miracl": Dataset(
        "MIRACL",
        read_miracl,
        "Apache-2.0",
        recognise=lambda files, _: any("miracl-v" in str(path) for path in files.all),
    ),
    "mldr": Dataset(
        "MLDR",
        read_mldr,
        "MIT",
        recognise=lambda files, _: any("mldr-v" in str(path).lower() for path in files.all),
    ),
    "beir": Dataset(
        "a BEIR folder",
        read_beir_folders,
        recognise=lambda files, _: all(is_beir(root) for root in files.roots),
    ),
    "trec": Dataset(
        "TREC topics, qrels and documents",
        read_trec,
        recognise=lambda files, _: (
            bool(
                files.matching(r"(?:.*[._-])?topics?(?:[._-].*)?")
                and files.matching(r"(?:.*[._-])?qrels?(?:[._-].*)?")
            )
            and not re.search(r"miracl-v|mrtydi-v", " ".join(map(str, files.all)))
        ),
    ),
}
"""All data sets by the names of ``triptych data convert``."""


def dataset_of(name: str, files: Files) -> tuple[str, Dataset]:
    """A data set by its name, or by what the files are like.

    Raises:
        InputError: For a name that is not known, or files that are like none or several; the message has all names.
    """
    if name != AUTO:
        if name not in DATASETS:
            near = get_close_matches(name, DATASETS, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(
                f"unknown data set {name!r}; {hint}expected {AUTO} or one of {', '.join(DATASETS)}"
            )
        return name, DATASETS[name]
    keys = frozenset[str]().union(
        *(first_keys(file) for file in [each for each in files.all if ending(each) in JSONL][:_KEYS])
    )
    found = [
        each for each, dataset in DATASETS.items() if dataset.recognise and dataset.recognise(files, keys)
    ]
    if len(found) == 1:
        return found[0], DATASETS[found[0]]
    why = f"can be {' or '.join(found)}" if found else "are like no data set that is known"
    raise InputError(f"the files {why}; name the data set: one of {', '.join(DATASETS)}")
