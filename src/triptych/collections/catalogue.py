"""The data sets that can be read, by name: how each is read and recognised, its license, and its two views.

Each has one reader. `CatalogueEntry.read` yields tables or labelled queries; `examples` makes training items of them,
`read_collections` test collections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from triptych.collections import (
    beir,
    chinese,
    long,
    mkqa,
    msmarco,
    mteb,
    multilingual,
    nli,
    reading_qa,
    training,
    trec,
)
from triptych.collections.base import METRICS, Collection, Corpus, FileCorpus, Wanted
from triptych.collections.evaluation import Facts, collection_of, collections_of_items
from triptych.collections.files import Files, first_keys
from triptych.collections.joined import Item, Options, Reader, Tables, join
from triptych.errors import DataError, InputError
from triptych.records import JSONL, PARQUET, ending

AUTO = "auto"
_KEYS = 3  # files whose first record is looked at
Recognize = Callable[[Files, frozenset[str]], bool]
Collections = Callable[[Path, Wanted], list[Collection]]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One data set, or a format that many have.

    Attributes:
        title: What it is.
        read: Its reader; None: it makes no training examples.
        license: As its publisher states it; None where the format says nothing of a data set's license.
        language: Of all its queries, where it is one and the reader does not know.
        recognize: Whether files are of this form, from them and from the names of the fields of the first
            records; None: too like others to be told.
        split: The split that is usually evaluated.
        metrics: Names as in ir-measures.
        citation: Of the data set.
        named_by_path: Whether a test collection has the name of its folder or file.
        collections: Makes the test collections in place of `read`.
    """

    title: str
    read: Reader | None = None
    license: str | None = None
    language: str | None = None
    recognize: Recognize | None = None
    split: str | None = "test"
    metrics: tuple[str, ...] = METRICS
    citation: str = ""
    named_by_path: bool = False
    collections: Collections | None = None


def _has_files(*patterns: str) -> Recognize:
    return lambda files, _: all(files.matching(pattern) for pattern in patterns)


def _with(*fields: str) -> Recognize:
    return lambda _, keys: keys.issuperset(fields)


def _in_path(*parts: str) -> Recognize:
    return lambda files, _: any(part in str(path).lower() for path in files.all for part in parts)


_multilingual = _in_path("mrtydi-v", "mr-tydi", "miracl-v", "mldr-v")
_MSMARCO = "MS MARCO's terms: non-commercial research only"
_MSMARCO_METRICS = ("RR@10", "R@1000", "R@100", "nDCG@10", "AP@100", "Success@5")

DATASETS: dict[str, CatalogueEntry] = {
    "msmarco": CatalogueEntry(
        "MS MARCO: passage ranking files, triples, or question answering JSON (v1.1, v2.1)",
        msmarco.read_msmarco,
        _MSMARCO,
        recognize=lambda files, keys: (
            bool(files.matching(r"collection\.tsv") and not files.matching(r"qrels\.retrieval\..*"))
            or {"passages", "query", "query_id"} <= keys
        ),
        split="dev.small",
        metrics=_MSMARCO_METRICS,
        citation="Bajaj and others, 2016, arXiv 1611.09268",
    ),
    "mmarco": CatalogueEntry(
        "mMARCO: MS MARCO translated to 13 languages",
        msmarco.read_mmarco,
        f"Apache-2.0 (translations); {_MSMARCO}",
        recognize=_has_files(r"[a-z]+_collection\.tsv", r"[a-z]+_queries\..*\.tsv"),
        split="dev.small",
        metrics=_MSMARCO_METRICS,
        citation="Bonifacio and others, 2021, arXiv 2108.13897",
    ),
    "natural-questions": CatalogueEntry(
        "Natural Questions: Google's JSON Lines (simplified or whole), or DPR's JSON",
        reading_qa.read_natural_questions,
        "CC BY-SA 3.0",
        recognize=_with("question_text", "annotations"),
        split="dev",
    ),
    "triviaqa": CatalogueEntry(
        "TriviaQA: JSON with its evidence files, or DPR's JSON",
        reading_qa.read_triviaqa,
        "none stated for questions and documents; code Apache-2.0",
        recognize=lambda files, keys: (
            "Data" in keys and bool({"Domain", "Split", "Version", "VerifiedEval"} & keys)
        ),
        split="dev",
    ),
    "dpr": CatalogueEntry(
        "the JSON of DPR, of any data set",
        reading_qa.read_dpr,
        recognize=_with("positive_ctxs"),
        split="dev",
        named_by_path=True,
    ),
    "squad": CatalogueEntry("SQuAD 1.1 or 2.0", reading_qa.read_squad, "CC BY-SA 4.0", "en", split="dev"),
    "korquad": CatalogueEntry("KorQuAD 1", reading_qa.read_squad, "CC BY-ND 2.0 KR", "ko", split="dev"),
    "squad-like": CatalogueEntry(
        "anything in SQuAD's format",
        reading_qa.read_squad,
        recognize=lambda files, keys: "data" in keys or {"context", "question", "answers"} <= keys,
        split=None,
        named_by_path=True,
    ),
    "hotpotqa": CatalogueEntry(
        "HotpotQA, distractor setting",
        reading_qa.read_hotpotqa,
        "CC BY-SA 4.0",
        recognize=_with("supporting_facts", "context"),
        split="dev",
    ),
    "snli": CatalogueEntry("SNLI, as triplets", nli.read_nli, "CC BY-SA 4.0", "en"),
    "multinli": CatalogueEntry(
        "MultiNLI, as triplets", nli.read_nli, "OANC's, CC BY 3.0, CC BY-SA 3.0, by genre", "en"
    ),
    "xnli": CatalogueEntry("XNLI, as triplets", nli.read_nli, "CC BY-NC 4.0"),
    "nli": CatalogueEntry(
        "premises, hypotheses and labels in the format of these",
        nli.read_nli,
        recognize=lambda files, keys: (
            {"gold_label", "sentence1", "sentence2"} <= keys or {"premise", "hypothesis", "label"} <= keys
        ),
    ),
    "dureader-retrieval": CatalogueEntry(
        "DuReader-retrieval",
        chinese.read_dureader_retrieval,
        "Apache-2.0",
        "zh",
        lambda files, keys: (
            "answer_paragraphs" in keys or bool(files.matching(r"(?:dual|cross)\.train.*\.tsv"))
        ),
        split="dev",
    ),
    "dureader-robust": CatalogueEntry(
        "DuReader-robust (SQuAD's format)", reading_qa.read_squad, "Apache-2.0", "zh", split="dev"
    ),
    "t2ranking": CatalogueEntry(
        "T2Ranking",
        chinese.read_t2ranking,
        "Apache-2.0",
        "zh",
        _has_files(r"collection\.tsv", r"qrels\.retrieval\..*\.tsv"),
        split="dev",
    ),
    "mrtydi": CatalogueEntry(
        "Mr.TyDi",
        multilingual.read_mrtydi,
        "Apache-2.0",
        recognize=_in_path("mrtydi-v", "mr-tydi"),
        metrics=("RR@100", "R@100", "nDCG@10", "R@10", "AP@100", "Success@5"),
        citation="Zhang and others, 2021, arXiv 2108.08787",
    ),
    "miracl": CatalogueEntry(
        "MIRACL",
        multilingual.read_miracl,
        "Apache-2.0",
        recognize=_in_path("miracl-v"),
        split="dev",
        citation="Zhang and others, 2023, arXiv 2210.09984",
    ),
    "mldr": CatalogueEntry(
        "MLDR",
        multilingual.read_mldr,
        "MIT",
        recognize=_in_path("mldr-v"),
        citation="Chen and others, 2024, arXiv 2402.03216",
    ),
    "mkqa": CatalogueEntry(
        "MKQA: questions in 25 languages on English passages",
        license="CC BY-SA 3.0",
        recognize=lambda files, _: bool(files.matching(r"zh_cn\.jsonl") or files.matching(r"psgs_w100\.tsv")),
        metrics=mkqa.METRICS,
        citation="Longpre and others, 2021, arXiv 2007.15207",
        collections=mkqa.read_mkqa,
    ),
    "narrativeqa": CatalogueEntry(
        "NarrativeQA: questions on whole books and scripts",
        long.read_narrativeqa,
        "Apache-2.0",
        "en",
        long.is_narrativeqa,
        citation="Kočiský and others, 2018, doi 10.1162/tacl_a_00023",
    ),
    "longembed": CatalogueEntry(
        "LongEmbed's six sets",
        long.read_longembed,
        None,
        "en",
        long.is_longembed,
        citation="arXiv 2404.12096",
    ),
    "cmteb": CatalogueEntry(
        "retrieval tasks of C-MTEB as Parquet files",
        chinese.read_cmteb,
        None,
        "zh",
        lambda files, _: any(chinese.tasks_of(root) for root in files.roots),
        split="dev",
    ),
    "beir": CatalogueEntry(
        "a BEIR folder",
        beir.read_beir,
        recognize=lambda files, _: all(beir.folders_of(root) for root in files.roots),
        split=None,
        named_by_path=True,
    ),
    "trec": CatalogueEntry(
        "TREC topics, qrels and documents",
        trec.read_trec,
        recognize=lambda files, _: (
            bool(files.matching(trec.TOPICS[0]) and files.matching(trec.QRELS[0]))
            and not re.search(r"miracl-v|mrtydi-v", " ".join(map(str, files.all)))
        ),
        split=None,
        named_by_path=True,
    ),
    "training": CatalogueEntry(
        "training data in any of its forms",
        training.read_training,
        recognize=lambda files, keys: (
            any(form <= keys for form in training.FORMS) and not _multilingual(files, keys)
        ),
        named_by_path=True,
    ),
    "mteb": CatalogueEntry("a retrieval task of mteb, by its name", collections=mteb.read_task),
}
"""All data sets by their names in ``triptych eval``, and in ``triptych data convert`` those with a `read`."""

CONVERTIBLE = {name: dataset for name, dataset in DATASETS.items() if dataset.read is not None}


def dataset_of(name: str, files: Files) -> tuple[str, CatalogueEntry]:
    """A data set with training examples by its name, or by what the files are like.

    Raises:
        InputError: For a name that is not known, or files that are like none or several; the message has all names.
    """
    if name != AUTO:
        if name not in CONVERTIBLE:
            near = get_close_matches(name, CONVERTIBLE, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(
                f"unknown data set {name!r}; {hint}expected {AUTO} or one of {', '.join(CONVERTIBLE)}"
            )
        return name, CONVERTIBLE[name]
    found = [each for each in _recognize(files) if each in CONVERTIBLE]
    if len(found) == 1:
        return found[0], DATASETS[found[0]]
    why = f"can be {' or '.join(found)}" if found else "are like no data set that is known"
    raise InputError(f"the files {why}; name the data set: one of {', '.join(CONVERTIBLE)}")


def _recognize(files: Files) -> list[str]:
    json = [each for each in files.all if ending(each) in JSONL][:_KEYS]
    keys = frozenset[str]().union(*map(first_keys, json))
    return [name for name, each in DATASETS.items() if each.recognize and each.recognize(files, keys)]


def examples(dataset: CatalogueEntry, files: Files, options: Options) -> Iterator[Item]:
    """The first view: the labelled queries of a data set, for training."""
    for part in dataset.read(files, options) if dataset.read else ():
        if isinstance(part, Tables):
            yield from join(part, options)
        else:
            yield part


def read_collections(source: str | Path, wanted: Wanted | None = None) -> list[Collection]:
    """The second view: the test collections of ``[NAME:]PATH[:SUBSET,…]`` or ``mteb:TASK[:SUBSET,…]``.

    Args:
        source: NAME is one of `DATASETS`; without it the files tell the layout. The subsets, shell patterns as in
            `Wanted`, take the place of those of `wanted`.
        wanted: Split and warnings.

    Raises:
        InputError: For a name that is none of `DATASETS`.
        DataError: For a path whose layout cannot be told; what a reader refuses (a broken line, a query id that is
            there twice, judgements of a query that is not there, no query with a relevant document).
    """
    name, path, subsets = parse_source(source)
    asked = wanted or Wanted()
    asked = replace(asked, subsets=subsets or asked.subsets)
    name = name or guess(path)
    dataset = DATASETS[name]
    if dataset.collections is not None:
        found = dataset.collections(path, asked)
    else:
        found = list(_collections(name, dataset, path, asked))
    if not found:
        which = f" for {', '.join(asked.subsets)}" if asked.subsets else ""
        raise DataError(f"nothing found{which}; expected {dataset.title}", path)
    return found


def _collections(name: str, dataset: CatalogueEntry, path: Path, wanted: Wanted) -> Iterator[Collection]:
    options = Options(split=wanted.split or dataset.split, negatives="all", subsets=wanted.subsets)
    own = path.resolve().name.split(".")[0] if dataset.named_by_path else name
    facts = Facts(own, options.split or "test", dataset.metrics, dataset.license or "", dataset.citation)
    files = Files([path])

    def parts() -> Iterator[Tables | Item]:
        yield from dataset.read(files, options) if dataset.read else ()

    def items() -> Iterator[Item]:
        return (part for part in parts() if not isinstance(part, Tables))

    corpora: dict[tuple[Path, ...], FileCorpus] = {}
    for part in parts():
        if not isinstance(part, Tables):
            found = collections_of_items(items, facts, wanted, files.all, not dataset.named_by_path)
            yield from (each for each in found if options.takes(own, each.subset))
            return
        if options.takes(part.name or own, part.subset):
            yield collection_of(part, facts, wanted, corpora)


def parse_source(source: str | Path) -> tuple[str | None, Path, tuple[str, ...]]:
    """Name of a layout or None, path, and subsets of ``[NAME:]PATH[:SUBSET,…]``.

    Raises:
        InputError: For something in front of a colon that is neither a name nor a path.
    """
    whole = str(source)
    if Path(whole).exists():
        return None, Path(whole), ()
    first, colon, rest = whole.partition(":")
    if not colon:
        return None, Path(whole), ()
    if first in DATASETS:
        if Path(rest).exists() and first != "mteb":
            return first, Path(rest), ()
        path, colon, subsets = rest.rpartition(":")
        return (first, Path(path), tuple(subsets.split(","))) if colon else (first, Path(rest), ())
    path, _, subsets = whole.rpartition(":")
    if not Path(path).exists():
        raise InputError(
            f"data set: got {whole!r}; expected PATH or NAME:PATH, NAME of {', '.join(sorted(DATASETS))}"
        )
    return None, Path(path), tuple(subsets.split(","))


def guess(path: Path) -> str:
    """The name of the layout of a path, told by its files.

    Raises:
        DataError: If there is nothing, or nothing known.
    """
    if path.is_file() and ending(path) not in JSONL + PARQUET:
        raise DataError(f"expected a folder, or a file of {' '.join(JSONL + PARQUET)}", path)
    found = _recognize(Files([path]))
    if not found and path.is_file():
        return "training"
    if len(found) != 1:
        why = f"can be {' or '.join(found)}" if found else "cannot tell the layout"
        raise DataError(f"{why}; say NAME:PATH with one of {', '.join(sorted(DATASETS))}", path)
    return found[0]


def check(collections: Sequence[Collection], warn: Callable[[str], None]) -> None:
    """Reads every corpus once and tells, with numbers, what is blank and which judged documents are not there.

    Raises:
        DataError: For what is wrong in a corpus, such as an id that is there twice.
    """
    corpora: dict[str, Corpus] = {each.corpus.digest: each.corpus for each in collections}
    for digest, corpus in corpora.items():
        own = [each for each in collections if each.corpus.digest == digest]
        missing = [{doc for judged in each.qrels.values() for doc in judged} for each in own]
        everything, blank = set[str]().union(*missing), 0
        for document in corpus:
            blank += not document.text.strip()
            everything.discard(document.id)
        labels = ", ".join(each.label for each in own[:3]) + (
            f" and {len(own) - 3} more" if len(own) > 3 else ""
        )
        if blank:
            warn(f"{labels}: {blank} documents are blank")
        for each, judged in zip(own, missing, strict=True):
            if left := judged & everything:
                warn(f"{each.label}: {len(left)} of {len(judged)} judged documents are not in the corpus")
