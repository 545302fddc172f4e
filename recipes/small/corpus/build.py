"""Makes the training text of the bundled model: gathers, cuts, and writes the files of all stages.

    python recipes/small/corpus/build.py rebuild --out BUILD                   ready data, from Debian packages
    python recipes/small/corpus/build.py gather --ready FOLDER… --out BUILD    what is trained on and what is not
    python recipes/small/corpus/build.py make --out BUILD                      all stages and the development sets
    python recipes/small/corpus/build.py make --out BUILD --only stage-3 dev   some of them

The same input gives the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus import dev, long, manifest, pack, pairs, questions, ready, split, store, texts
from corpus.chunks import Chunk, chunks
from corpus.debian import rebuild
from corpus.draw import Draw
from corpus.records import write
from triptych.errors import InputError, TriptychError
from triptych.io import write_json
from triptych.text import digest

Value = TypeVar("Value")

FILES = {  # those of a file share their passages, so that it packs well
    "paragraphs": ("paragraph-translation",),
    "documents": ("document-translation",),
    "pages": (
        "title-body",
        "description-body",
        "keyword-body",
        "title-body-cross",
        "description-body-cross",
        "keyword-body-cross",
    ),
    "sections": ("heading-section", "question-answer", "heading-section-cross"),
    "neighbours": ("neighbour",),
    "sentences": ("sentence-translation",),
    "terms": ("term-translation",),
}
"""Files of stage 2 with the kinds of pairs in each."""
PACKED = ("stage-1", "stage-2", "stage-3")
OTHERS = 1800
"""Passages of a language that answer no question of stage 3, beside those that do, to mine negatives from."""


def main() -> None:
    """Reads the command line and does what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("rebuild", "gather", "make", "unpack"))
    parser.add_argument(
        "--recipe", type=Path, default=Path("recipes/small/packages.yaml"), help="for rebuild: the packages"
    )
    parser.add_argument("--ready", type=Path, nargs="+", default=[], help="for gather: folders of ready data")
    parser.add_argument("--out", type=Path, required=True, help="folder to build in")
    parser.add_argument("--only", nargs="+", default=[], help="some parts of the recipe, or some stages")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other pairs")
    arguments = parser.parse_args()
    try:
        STEPS[arguments.step](arguments)
    except TriptychError as error:
        sys.exit(f"{parser.prog}: {error}")


def rebuild_(arguments: argparse.Namespace) -> None:
    """Ready data from packages."""
    recipe = rebuild.load(arguments.recipe)
    rebuild.rebuild(_chosen(recipe, arguments.only, "part"), arguments.out, partial(print, flush=True))


def gather(arguments: argparse.Namespace) -> None:
    """What is trained on and what is not, from one or more folders of ready data."""
    if not arguments.ready:
        raise InputError("gather: no folder of ready data; expected --ready FOLDER")
    folders = [Path(folder) for folder in arguments.ready]
    parts = split.cut(
        _all(ready.documents, folders), _all(ready.passages, folders), _all(ready.evaluation, folders)
    )
    store.save(arguments.out / "work", parts, _all(ready.translations, folders))


def make(arguments: argparse.Namespace) -> None:
    """The files of the stages and the development sets."""
    for stage in _chosen(STAGES, arguments.only, "stage").values():
        stage(arguments.out / "work", arguments.out, arguments.seed)


def _chosen(all_: Mapping[str, Value], names: Sequence[str], what: str) -> dict[str, Value]:
    for name in names:
        if name not in all_:
            raise InputError(f"--only: no {what} {name!r}; expected some of {', '.join(all_)}")
    return {name: value for name, value in all_.items() if not names or name in names}


def _all(reader: Callable[[Path], Iterator[Value]], folders: Iterable[Path]) -> Iterator[Value]:
    return itertools.chain.from_iterable(map(reader, folders))


def stage_1(work: Path, out: Path, seed: int) -> None:
    """Raw text."""
    made = texts.texts(
        store.documents(work, "train"), store.translations(work), store.passages(work, "train")
    )
    _save(out, "stage-1/texts", list(made))


def stage_2(work: Path, out: Path, seed: int) -> None:
    """Weak pairs, in a file for each shape of them."""
    for name, kinds in FILES.items():
        from_records = name in ("sentences", "terms")
        documents = [] if from_records else store.documents(work, "train")
        mined = pairs.mine(documents, store.translations(work) if from_records else [], kinds, seed)
        (out / "report").mkdir(exist_ok=True)
        write_json(out / "report" / f"{name}.json", {"offered": mined.offered, **mined.tally.to_dict()})
        _save(out, f"stage-2/{name}", list(map(pairs.to_row, mined.pairs)))


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


def pack_(work: Path, out: Path, seed: int) -> None:
    """One file of each stage, to travel; `unpack` brings back what it was made of."""
    for stage in PACKED:
        size = pack.pack(out / stage, out / "packed" / f"{stage}.jsonl.zst")
        print(f"packed/{stage}.jsonl.zst: {size / 1e6:.2f} MB", flush=True)


def unpack(arguments: argparse.Namespace) -> None:
    """The files of the stages, from those that travelled."""
    for path in sorted((arguments.out / "packed").glob("*.jsonl.zst")):
        name = path.name.removesuffix(".jsonl.zst")
        if not arguments.only or name in arguments.only:
            print(name, pack.unpack(path, arguments.out / name))


def describe(work: Path, out: Path, seed: int) -> None:
    """The manifest of all of it."""
    write_json(out / "manifest.json", manifest.manifest(out))


def _file(asked: questions.Asked) -> str:
    if asked.kind == "human":
        return f"human-{asked.lang}"
    return (
        "human-cross"
        if asked.kind == "human-cross"
        else "cross"
        if asked.kind.endswith("-cross")
        else "derived"
    )


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
    "pack": pack_,
    "manifest": describe,
}

STEPS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "rebuild": rebuild_,
    "gather": gather,
    "make": make,
    "unpack": unpack,
}

if __name__ == "__main__":
    main()
