"""Makes the small training set of the smoke tests from question-answering records.

The input is JSON Lines (plain, .gz, .zst), a passage with its questions a line: ``s`` source, ``u`` "train" or
"eval" (the latter is refused), ``l`` language of the passage, ``a`` article, ``t`` passage, ``q`` questions, each a
string or [language, question, the same in the passage's language]. The output, in the folder --out:

    train.jsonl.zst          a query, its passage and hard negatives found by BM25, a line
    dev/corpus.jsonl.zst     passages (a BEIR folder): those of the questions, and others hard to tell from them
    dev/queries.jsonl.zst    questions on articles that are not in train.jsonl.zst
    dev/qrels/dev.tsv

The same input gives the same files, byte for byte.

    python scripts/make_smoke_data.py --qa qa-train.jsonl.zst --out src/triptych/demo/qa-small
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import zstandard

from triptych.errors import DataError
from triptych.io import open_source, read_lines
from triptych.records import Place, parse_object

SOURCES = {  # with licences that allow passing on; see the notice beside the files
    "arcd": ("ar",),
    "medquad": ("en",),
    "afriqa": ("en", "fr"),
    "jaquad": ("ja",),
    "iapp": ("th",),
    "cmrc": ("zh",),
}
TRAIN, DEV, DISTRACTORS = 60, 30, 60  # questions of each source and language; passages without a question
NEGATIVES, FROM_RANK, TO_RANK = 7, 2, 40
LEAST, MOST = 80, 900  # characters of a passage; half of it for scripts that write a word in two characters
DENSE = {"ja", "zh", "th"}
PATTERN = re.compile(
    r".*(?:\(are\)|\b(?:of|for|by|to|is|are|diagnose|prevent|causes|help))\s|\binherited\b", re.I
)
EVERY = 4  # every so manieth article is held out


@dataclass(frozen=True)
class Passage:
    """A passage and a question on it."""

    source: str
    language: str
    article: str
    text: str
    question: str
    asked_in: str

    @property
    def group(self) -> str:
        """Source and language."""
        return f"{self.source}-{self.language}"

    @property
    def held_out(self) -> bool:
        """Whether the article is kept for judging; a source without articles is cut by passage."""
        return number(f"{self.source}\t{self.article or self.text}") % EVERY == 0


def main() -> None:
    """Reads, chooses, mines and writes; prints what the files hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--qa", type=Path, nargs="+", required=True, help="files of questions on passages")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    groups = load(arguments.qa)
    train: list[Passage] = []
    dev: list[Passage] = []
    others: list[Passage] = []
    for name in sorted(groups):
        kept, held = ([p for p in groups[name] if p.held_out is out] for out in (False, True))
        train += kept[:TRAIN]
        dev += held[:DEV]
        others += distractors(held[:DEV], held[DEV:])
    write(arguments.out / "train.jsonl.zst", with_negatives(train, groups))
    write_dev(arguments.out / "dev", dev, others)
    print("train", Counter(p.group for p in train), Counter(p.asked_in for p in train))
    print("dev", Counter(p.asked_in for p in dev), len(dev) + len(others), "passages")
    print({str(f): f.stat().st_size for f in sorted(arguments.out.rglob("*")) if f.is_file()})


def load(paths: Iterable[Path]) -> dict[str, list[Passage]]:
    """One question a passage by source and language, no question twice, in an order that depends on the texts alone."""
    found: dict[str, dict[str, Passage]] = defaultdict(dict)
    for path in paths:
        with open_source(path) as source:
            for line in read_lines(source):
                record = parse_object(line.text, Place(source.name, line.number))
                if record["u"] != "train":
                    raise DataError(
                        "an evaluation record; expected training text alone", source.name, line.number
                    )
                passage = to_passage(record)
                if passage:
                    found[passage.group].setdefault(passage.text, passage)
    asked = Counter(passage.question for texts in found.values() for passage in texts.values())
    return {  # a question that fits several passages ("what is it called?") has no one answer
        name: sorted((p for p in texts.values() if asked[p.question] == 1), key=order)
        for name, texts in found.items()
    }


def order(passage: Passage) -> int:
    """Where a passage stands in its group."""
    return number(passage.text)


def to_passage(record: dict[str, Any]) -> Passage | None:
    """A passage of a source and length that is wanted, with one of its questions."""
    language, text = record["l"], " ".join(record["t"].split())
    factor = 0.5 if language in DENSE else 1
    if language not in SOURCES.get(record["s"], ()) or not LEAST * factor <= len(text) <= MOST * factor:
        return None
    questions = sorted(record["q"], key=lambda question: number(json.dumps(question)))
    asked_in, question = language, questions[0]
    if not isinstance(question, str):  # three of four as they were asked, one in the passage's language
        asked_in, question = question[:2] if number(text) % 4 else (language, question[2])
    question = " ".join(question.split())
    return (
        Passage(record["s"], language, record["a"], text, question, asked_in) if len(question) > 8 else None
    )


def with_negatives(train: Sequence[Passage], groups: dict[str, list[Passage]]) -> list[dict[str, Any]]:
    """Each question with its passage and negatives from ranks 2 to 40 of BM25 in its source.

    Only passages of other articles that are not held out are taken.
    """
    rows: list[dict[str, Any]] = []
    for name in sorted({passage.group for passage in train}):
        pool = [passage for passage in groups[name] if not passage.held_out]
        asked = [passage for passage in train if passage.group == name]
        for passage, best in zip(asked, ranked(asked, pool), strict=True):
            others = [other for other in best[FROM_RANK - 1 : TO_RANK] if not same_article(other, passage)]
            rows.append(
                {
                    "id": f"{name}-{len(rows)}",
                    "query": passage.question,
                    "pos": [passage.text],
                    "neg": [other.text for other in pick(passage.question, others)],
                    "lang": passage.language,
                }
            )
    return rows


def distractors(asked: Sequence[Passage], pool: Sequence[Passage]) -> list[Passage]:
    """The passages of a pool that are hardest to tell from the right ones: in turn the best for each question."""
    lists = ranked(asked, pool)
    found: dict[str, Passage] = {}
    for rank in range(len(pool)):
        for best in lists:
            if len(found) == DISTRACTORS:
                return list(found.values())
            found.setdefault(best[rank].text, best[rank])
    return list(found.values())


def ranked(asked: Sequence[Passage], pool: Sequence[Passage]) -> list[list[Passage]]:
    """The pool in BM25's order for each question.

    A question in another language than the passages is searched for by its passage.
    """
    index = bm25s.BM25()
    index.index([terms(passage.text) for passage in pool], show_progress=False)
    found: list[list[Passage]] = []
    for passage in asked:
        words = terms(passage.question if passage.asked_in == passage.language else passage.text)
        scores = index.get_scores(words)
        found.append([pool[i] for i in np.argsort(-scores, kind="stable")])
    return found


def pick(question: str, passages: Sequence[Passage]) -> list[Passage]:
    """Some of the passages, drawn in an order that depends on the texts alone."""
    numbers = [number(question + passage.text) for passage in passages]
    return [passages[i] for i in np.argsort(np.array(numbers, dtype=np.uint64))[:NEGATIVES]]


def write_dev(folder: Path, dev: Sequence[Passage], others: Sequence[Passage]) -> None:
    """A BEIR folder."""
    passages = sorted([*dev, *others], key=order)
    ids = {passage.text: f"{passage.group}-{i}" for i, passage in enumerate(passages)}
    write(
        folder / "corpus.jsonl.zst",
        [{"_id": ids[p.text], "text": p.text, "lang": p.language} for p in passages],
    )
    queries = [{"_id": f"q{i}", "text": p.question, "lang": p.asked_in} for i, p in enumerate(dev)]
    write(folder / "queries.jsonl.zst", queries)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\t{ids[p.text]}\t1" for i, p in enumerate(dev))]
    (folder / "qrels" / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON Lines in Zstandard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(text.encode()))


def terms(text: str) -> list[str]:
    """Words of scripts with spaces, pairs of characters of those without."""
    found: list[str] = []
    for word in "".join(c.lower() if c.isalnum() or ord(c) > 0x0E00 else " " for c in text).split():
        spaced = all(ord(c) < 0x0E00 for c in word)
        found += [word] if spaced or len(word) < 3 else [word[i : i + 2] for i in range(len(word) - 1)]
    return found


def same_article(one: Passage, other: Passage) -> bool:
    """Whether a passage may well answer the other's question too."""
    return one.text == other.text or (bool(one.article) and one.article == other.article)


def number(text: str) -> int:
    """A number from a text, the same in every run."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


if __name__ == "__main__":
    main()
