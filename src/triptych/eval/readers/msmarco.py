"""MS MARCO passages, with the development queries and those of the TREC Deep Learning tracks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from triptych.data.records import Place
from triptych.eval.collection import Collection, Document, FileCorpus
from triptych.eval.readers.base import Facts, Judgements, Wanted, found, make, the_file
from triptych.eval.readers.texts import distinct, qrels_of, tsv_queries, tsv_rows

LAYOUT = "collection.tsv, queries.SPLIT.tsv and qrels.SPLIT.tsv, or msmarco-test20YY-queries.tsv and 20YYqrels-pass.txt"
_CITATION = "Bajaj and others, 2016, arXiv 1611.09268"
_LICENCE = "for non-commercial research"
FACTS = Facts("msmarco", ("RR@10", "R@1000", "R@100", "nDCG@10", "AP@100", "Success@5"), _LICENCE, _CITATION)
# A passage of grade 1 is related, but does not answer: the tracks count it in nDCG alone.
TRACK_FACTS = Facts(
    "msmarco",
    ("nDCG@10", "R(rel=2)@100", "R(rel=2)@1000", "RR(rel=2)@10", "AP(rel=2)@100"),
    _LICENCE,
    _CITATION,
)


def msmarco(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads MS MARCO's passages. The split is "dev.small"; "dl19" and "dl20" are the tracks of 2019 and 2020."""
    split = wanted.split or "dev.small"
    if not wanted.takes("en", "msmarco/en"):
        return found([], path, wanted, LAYOUT)
    docs = the_file(path, LAYOUT, "collection.tsv")
    if split in ("dl19", "dl20"):
        year = f"20{split[2:]}"
        asked = the_file(path, LAYOUT, f"msmarco-test{year}-queries.tsv")
        judged = the_file(path, LAYOUT, f"{year}qrels-pass.txt")
    else:
        asked = the_file(path, LAYOUT, f"queries.{split}.tsv")
        judged = the_file(path, LAYOUT, f"qrels.{split}.tsv")

    def read() -> Iterator[tuple[Place, Document]]:
        for place, (id_, text) in tsv_rows(docs, 2, "id, passage"):
            yield place, Document(id_, text)

    corpus = FileCorpus.of(lambda: distinct(read), [docs], "msmarco")
    facts = TRACK_FACTS if split.startswith("dl") else FACTS
    judgements = Judgements(tsv_queries(asked), qrels_of(judged), judged)
    return [make(facts, "en", split, corpus, judgements, wanted)]
