"""MIRACL and Mr.TyDi: questions on the Wikipedia of their own language."""

from __future__ import annotations

from pathlib import Path

from triptych.errors import DataError
from triptych.eval.collection import Collection
from triptych.eval.readers.base import Facts, Judgements, Wanted, folders, found, locate, make
from triptych.eval.readers.texts import qrels_of, record_corpus, tevatron, tsv_queries

LANGUAGES = (
    "ar",
    "bn",
    "de",
    "en",
    "es",
    "fa",
    "fi",
    "fr",
    "hi",
    "id",
    "ja",
    "ko",
    "ru",
    "sw",
    "te",
    "th",
    "yo",
    "zh",
)
TYDI_LANGUAGES = {
    "arabic": "ar",
    "bengali": "bn",
    "english": "en",
    "finnish": "fi",
    "indonesian": "id",
    "japanese": "ja",
    "korean": "ko",
    "russian": "ru",
    "swahili": "sw",
    "telugu": "te",
    "thai": "th",
}
LAYOUT = (
    "miracl-corpus-v1.0-LANGUAGE/docs-*.jsonl.gz, and miracl-v1.0-LANGUAGE with "
    "topics/topics.miracl-v1.0-LANGUAGE-SPLIT.tsv and qrels/qrels.miracl-v1.0-LANGUAGE-SPLIT.tsv"
)
TYDI_LAYOUT = (
    "mrtydi-v1.1-LANGUAGE (such as arabic) with collection/docs.jsonl.gz, topic.SPLIT.tsv and qrels.SPLIT.txt; or "
    "with corpus.jsonl.gz and SPLIT.jsonl.gz"
)
FACTS = Facts("miracl", licence="Apache-2.0", citation="Zhang and others, 2023, arXiv 2210.09984")
TYDI_FACTS = Facts(
    "mrtydi",
    ("RR@100", "R@100", "nDCG@10", "R@10", "AP@100", "Success@5"),
    licence="Apache-2.0",
    citation="Zhang and others, 2021, arXiv 2108.08787",
)


def miracl(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads MIRACL: 18 languages, each with a corpus of its own. The split is "dev"; the tests are not judged.

    The folders of the corpora and of the topics may stand in `path` or a folder deeper, or `path` is the folder of
    one language's topics and the corpus is beside it.
    """
    split = wanted.split or "dev"
    collections: list[Collection] = []
    for language in LANGUAGES:
        topics = folders(path, f"miracl-v1.0-{language}")
        if topics and wanted.takes(language, f"miracl/{language}"):
            collections.append(_miracl(path, topics[0], language, split, wanted))
    return found(collections, path, wanted, LAYOUT)


def _miracl(path: Path, folder: Path, language: str, split: str, wanted: Wanted) -> Collection:
    name = f"miracl-v1.0-{language}-{split}.tsv"
    asked = locate(folder, f"topics/topics.{name}")
    judged = locate(folder, f"qrels/qrels.{name}")
    pattern = f"miracl-corpus-v1.0-{language}/docs-*.jsonl"
    docs = locate(path, pattern) or locate(folder.parent, pattern) or locate(folder.parent.parent, pattern)
    for what, files in (("topics", asked), ("qrels", judged), ("documents", docs)):
        if not files:
            raise DataError(f"no {what} of split {split!r} for {language}; expected {LAYOUT}", folder)
    judgements = Judgements(tsv_queries(asked[0]), qrels_of(judged[0]), judged[0])
    return make(FACTS, language, split, record_corpus(docs, "miracl"), judgements, wanted)


def mrtydi(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads Mr.TyDi: 11 languages, each with a corpus of its own. The split is "test"."""
    split = wanted.split or "test"
    collections: list[Collection] = []
    for name, language in TYDI_LANGUAGES.items():
        homes = folders(path, f"mrtydi-v1.[01]-{name}")
        if not homes or not wanted.takes(language, f"mrtydi/{language}"):
            continue
        corpus = [file for home in homes for file in locate(home, "collection/docs.jsonl", "corpus.jsonl")][
            :1
        ]
        judgements = next(filter(None, (_tydi_judged(home, split) for home in homes)), None)
        if not corpus or judgements is None:
            what = "documents" if not corpus else f"topics and qrels of split {split!r}"
            raise DataError(f"no {what}; expected {TYDI_LAYOUT}", homes[0])
        collections.append(
            make(TYDI_FACTS, language, split, record_corpus(corpus, "mrtydi"), judgements, wanted)
        )
    return found(collections, path, wanted, TYDI_LAYOUT)


def _tydi_judged(folder: Path, split: str) -> Judgements | None:
    asked, judged = locate(folder, f"topic.{split}.tsv"), locate(folder, f"qrels.{split}.txt")
    if asked and judged:
        return Judgements(tsv_queries(asked[0]), qrels_of(judged[0]), judged[0])
    together = locate(folder, f"{split}.jsonl")
    return Judgements(*tevatron(together[0]), together[0]) if together else None
