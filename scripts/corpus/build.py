"""Makes the training text of the bundled model: gathers, cuts, and writes the files of all stages.

    python scripts/corpus/build.py gather --ready FOLDER --out BUILD     what is trained on and what is not
    python scripts/corpus/build.py make --out BUILD                      all stages and the development sets
    python scripts/corpus/build.py make --out BUILD --only stage-3 dev   some of them

The same input gives the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus import dev, long, pairs, questions, ready, split, store, texts
from corpus.chunks import Chunk, chunks
from corpus.draw import Draw
from corpus.records import write
from triptych.data.mined.words import digest
from triptych.files import write_json

KINDS = {  # made together, so that only some pairs are in memory at once
    "paragraphs": ("paragraph-translation",),
    "documents": ("title-body", "description-body", "keyword-body", "question-answer", "document-translation"),
    "sections": ("heading-section", "neighbour"),
    "crossed": (
        "title-body-cross",
        "description-body-cross",
        "keyword-body-cross",
        "heading-section-cross",
    ),
    "translations": ("sentence-translation", "term-translation"),
}
OTHERS = 1800
"""Passages of a language that answer no question of stage 3, beside those that do, to mine negatives from."""


def main() -> None:
    """Reads the command line and does what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("gather", "make"))
    parser.add_argument("--ready", type=Path, help="folder of ready data")
    parser.add_argument("--out", type=Path, required=True, help="folder to build in")
    parser.add_argument("--only", nargs="+", choices=tuple(STAGES), default=tuple(STAGES), help="some stages")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other pairs")
    arguments = parser.parse_args()
    work = arguments.out / "work"
    if arguments.step == "gather":
        parts = split.cut(
            ready.documents(arguments.ready), ready.passages(arguments.ready), ready.evaluation(arguments.ready)
        )
        store.save(work, parts, ready.translations(arguments.ready))
        return
    for name in arguments.only:
        STAGES[name](work, arguments.out, arguments.seed)


def stage_1(work: Path, out: Path, seed: int) -> None:
    """Raw text."""
    made = texts.texts(store.documents(work, "train"), store.translations(work), store.passages(work, "train"))
    _save(out, "stage-1/texts", list(made))


def stage_2(work: Path, out: Path, seed: int) -> None:
    """Weak pairs, a file for each kind."""
    for name, kinds in KINDS.items():
        documents = [] if name == "translations" else store.documents(work, "train")
        translations = store.translations(work) if name == "translations" else []
        mined = pairs.mine(documents, translations, kinds, seed)
        write_json(
            out / "report" / f"pairs-{name}.json", {"offered": mined.offered, **mined.tally.to_dict()}
        )
        for kind, found in mined.pairs.items():
            _save(out, f"stage-2/{kind}", list(map(pairs.to_row, found)))


def stage_3(work: Path, out: Path, seed: int) -> None:
    """Questions by language, queries that stand for questions, and the passages to mine negatives from."""
    own = questions.as_chunks(store.passages(work, "train"))
    asked = list(questions.human(own))
    documents = store.documents(work, "train")
    asked += questions.derived(documents, seed)
    files: dict[str, list[dict[str, Any]]] = {}
    for number, each in enumerate(sorted(asked, key=lambda e: (e.kind, e.passage.id, e.lang, e.query))):
        files.setdefault(_file(each), []).append(each.row(number))
    for name, rows in files.items():
        _save(out, f"stage-3/{name}", rows)
    draw: Draw[str, Chunk] = Draw(lambda _language: OTHERS)
    for document in documents:
        for chunk in chunks(document):
            draw.offer(chunk.lang, digest(str(seed), chunk.id), chunk)
    passages = {each.passage.id: each.passage for each in asked}
    passages |= {chunk.id: chunk for chunk in (*(c for c, _ in own), *(c for _, c in draw.items()))}
    ordered = sorted(passages.values(), key=lambda chunk: chunk.id)
    _save(
        out,
        "stage-3/corpus",
        [{"_id": c.id, "text": c.text, "lang": c.lang, "article": c.article} for c in ordered],
    )


def stage_long(work: Path, out: Path, seed: int) -> None:
    """Long documents with queries."""
    found = long.long_documents(store.documents(work, "train"), seed)
    _save(out, "stage-3/long", [row for each in found for row in each.rows()])
    lengths = Counter(next(b for b in (2048, 4096, 8192) if each.length < b) for each in found)
    print("long documents by tokens below:", dict(sorted(lengths.items())))


def development(work: Path, out: Path, seed: int) -> None:
    """The development sets."""
    sizes = dev.write_all(out / "dev", store.documents(work, "dev"), store.passages(work, "dev"), seed)
    print("development (queries, passages):", sizes)


def _file(asked: questions.Asked) -> str:
    if asked.kind == "human":
        return f"human-{asked.lang}"
    return "human-cross" if asked.kind == "human-cross" else "cross" if asked.kind.endswith("-cross") else "derived"


def _save(out: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    path = out / f"{name}.jsonl.zst"
    count = write(path, rows)
    print(f"{path.relative_to(out)}: {count:,} rows, {path.stat().st_size / 1e6:.2f} MB", flush=True)


STAGES: Mapping[str, Callable[[Path, Path, int], None]] = {
    "dev": development,
    "stage-3": stage_3,
    "long": stage_long,
    "stage-1": stage_1,
    "stage-2": stage_2,
}

if __name__ == "__main__":
    main()
