"""All readers by name, and which of them a path is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from triptych.collections.base import Collection, Corpus, Reader, Wanted
from triptych.collections.beir import beir
from triptych.collections.chinese import cmteb
from triptych.collections.long import longembed, mldr, narrativeqa
from triptych.collections.mkqa import mkqa
from triptych.collections.msmarco import msmarco
from triptych.collections.multilingual import miracl, mrtydi
from triptych.collections.qrels import is_beir
from triptych.collections.training import training
from triptych.collections.trec import trec
from triptych.errors import DataError, InputError
from triptych.records import JSONL, PARQUET, ending

READERS: dict[str, Reader] = {
    "beir": beir,
    "cmteb": cmteb,
    "longembed": longembed,
    "miracl": miracl,
    "mkqa": mkqa,
    "mldr": mldr,
    "mrtydi": mrtydi,
    "msmarco": msmarco,
    "narrativeqa": narrativeqa,
    "training": training,
    "trec": trec,
}

# What tells a layout, in the order in which it is looked for.
_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("miracl", ("miracl-v1.0-*", "*/miracl-v1.0-*")),
    ("mrtydi", ("mrtydi-v1.*", "*/mrtydi-v1.*")),
    ("mldr", ("mldr-v1.0-*", "*/mldr-v1.0-*")),
    ("msmarco", ("collection.tsv*",)),
    ("mkqa", ("zh_cn.jsonl*", "*/zh_cn.jsonl*", "psgs_w100.tsv*", "*/psgs_w100.tsv*")),
    ("narrativeqa", ("qaps.csv", "data/test-*.parquet")),
    (
        "cmteb",
        (
            "corpus-*.parquet",
            "data/corpus-*.parquet",
            "*/data/corpus-*.parquet",
            "corpus/*.parquet",
            "*/corpus/*.parquet",
        ),
    ),
    ("longembed", ("narrativeqa/qrels.jsonl*", "passkey/qrels.jsonl*", "qmsum/qrels.jsonl*")),
    ("narrativeqa", ("qrels.jsonl*",)),
    ("trec", ("topics*",)),
)


def read_collections(source: str | Path, wanted: Wanted | None = None) -> list[Collection]:
    """Reads the collections of ``[NAME:]PATH[:SUBSET,…]``.

    Args:
        source: NAME is one of `READERS`; without it the files tell the layout. The subsets, shell patterns as in
            `Wanted`, take the place of those of `wanted`.
        wanted: Split and warnings.

    Raises:
        InputError: For a name that is none of `READERS`.
        DataError: For a path whose layout cannot be told, or what a reader refuses.
    """
    name, path, subsets = parse_source(source)
    asked = wanted or Wanted()
    return READERS[name or guess(path)](path, replace(asked, subsets=subsets or asked.subsets))


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
    if first in READERS:
        if Path(rest).exists():
            return first, Path(rest), ()
        path, colon, subsets = rest.rpartition(":")
        return (first, Path(path), tuple(subsets.split(","))) if colon else (first, Path(rest), ())
    path, _, subsets = whole.rpartition(":")
    if not Path(path).exists():
        raise InputError(
            f"data set: got {whole!r}; expected PATH or NAME:PATH, NAME of {', '.join(sorted(READERS))}"
        )
    return None, Path(path), tuple(subsets.split(","))


def guess(path: Path) -> str:
    """The name of the layout of a path, told by its files.

    Raises:
        DataError: If there is nothing, or nothing known.
    """
    if not path.exists():
        raise DataError("no such file or folder", path)
    if path.is_file():
        if ending(path) in JSONL + PARQUET:
            return "training"
        raise DataError(f"expected a folder, or a file of {' '.join(JSONL + PARQUET)}", path)
    for name in ("miracl", "mrtydi", "mldr"):
        if path.name.startswith(f"{name}-v1."):
            return name
    if is_beir(path) and (path / "qrels").is_dir():
        return "beir"
    found = next((name for name, marks in _MARKS if any(any(path.glob(mark)) for mark in marks)), None)
    if found is None and any(is_beir(folder) for folder in (*path.glob("*/"), *path.glob("*/*/"))):
        found = "beir"
    if found is None:
        raise DataError(
            f"cannot tell the layout; say NAME:PATH with one of {', '.join(sorted(READERS))}", path
        )
    return found


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
