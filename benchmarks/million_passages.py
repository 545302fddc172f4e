"""A million passages of documentation, from Debian's packages and from files of documents.

    python benchmarks/million_passages.py FOLDER --out OUT [--packages dict-gcide linux-doc-6.1 ...] \\
        [--descriptions LISTS] [--documents docs.jsonl.zst ...]

FOLDER gets the packages, downloaded by apt and unpacked, installed nowhere. Their manuals, dictionaries and pages are
read as `triptych index` reads files, and cut by `triptych.passages` into passages of about 150 of the model's tokens.
Tokens are estimated by letters, so that no tokenizer is needed. Of equal
passages one stays. OUT gets files of JSON lines, compressed, of at most 48 MB each, and what is in them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from triptych.documents import read_documents
from triptych.errors import DataError
from triptych.io import write_json
from triptych.passages import PassageOptions, content_of, split
from triptych.records import Document, Section

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "small"))
from corpus.debian.fetch import run, unpack

OPTIONS = PassageOptions(passage_tokens=190, passage_overlap=0)
"""A passage ends before a heading or paragraph, so that it has three quarters of the tokens that it may have."""
LEAST = 160  # characters of a passage; half as many where there are no blanks between words
QUESTIONS = 100
PART_BYTES = 48_000_000
CHARACTERS = 200_000  # of one document of a dictionary

PACKAGES = Path(__file__).with_name("million_packages.txt")
"""Of Debian 12: in this order, after the documents of the bundled model and the descriptions, a million passages."""

# About the model's tokens: two letters of a script without blanks, up to five of others, single signs.
_TOKEN = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{1,2}|\w{1,5}|[^\w\s]+"
)
_DENSE = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_PAGES = (".html", ".htm", ".pod", ".txt", ".txt.gz", ".md.gz")
_LEFT_OUT = re.compile(
    r"(?:^|/)(?:_sources?|_static|_modules|rst|genindex|search|py-modindex|changelog|copyright|NEWS)\b|-index\.html?|/index-\d"
)


def spans_of(text: str) -> np.ndarray:
    """About where the tokens of a text stand: int64 ``[T, 2]``."""
    return np.asarray([match.span() for match in _TOKEN.finditer(text)], dtype=np.int64).reshape(-1, 2)


def passages_of(documents: Iterable[Document]) -> Iterator[str]:
    for document in documents:
        for passage in split(document, spans_of(document.text), OPTIONS):
            text = content_of(document, passage)
            if len(text) >= LEAST or (len(text) >= LEAST // 2 and len(_DENSE.findall(text)) > len(text) // 3):
                yield text


def package(folder: Path) -> Iterator[Document]:
    """What a package has to read: dictionaries, manuals, pages."""
    for path in sorted(folder.rglob("*.dict.dz")):
        yield from _dictionary(path)
    pages = [path for path in sorted(folder.rglob("*")) if path.name.endswith(_PAGES) and path.is_file()]
    kept = [path for path in pages if not path.is_symlink() and not _LEFT_OUT.search(path.as_posix())]
    if any(path.suffix == ".html" for path in kept):  # the same as source beside it
        kept = [path for path in kept if not path.name.endswith((".txt", ".txt.gz", ".md.gz"))]
    for path in kept:
        format_: Any = "text" if path.suffix == ".pod" else None
        with suppress(DataError):  # in another encoding, say
            yield from read_documents(path, format=format_)


def _dictionary(path: Path) -> Iterator[Document]:
    """Entries that follow each other, cut between them."""
    entries = re.split(r"\n(?=\S)", gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
    part, size = list[str](), 0
    for number, entry in enumerate(entries, 1):
        part.append(re.sub(r"\n\s+", "\n", entry))
        size += len(entry)
        if size > CHARACTERS or number == len(entries):
            yield Document(f"{path.name}:{number}", "\n\n".join(part), None, {}, ())
            part, size = [], 0


def descriptions(path: Path) -> Iterator[Document]:
    """The descriptions of packages in one of apt's indexes."""
    shown = run(["/usr/lib/apt/apt-helper", "cat-file", str(path.resolve())], path.parent)
    for entry in shown.decode("utf-8", "replace").split("\n\n"):
        name, *_, described = entry.split("\nDescription-") if "\nDescription-" in entry else [entry, ""]
        title, _, rest = described.partition(": ")[2].partition("\n")
        text = re.sub(r"\n (?=[^ .])", " ", "\n" + rest).replace("\n .", "\n").strip()
        if len(text) >= LEAST // 2:
            yield Document(name, text, title, {}, ())


def records(path: Path) -> Iterator[Document]:
    """The documents of a file of the bundled model's recipe; descriptions come from apt."""
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        for line in io.TextIOWrapper(stream, "utf-8"):
            row = json.loads(line)
            if row["s"] == "ddtp":
                continue
            if isinstance(row.get("t"), str) and "q" in row:  # a passage with questions
                yield Document(row["t"][:40], row["t"], row.get("a"), {}, ())
                continue
            parts, sections, size = list[str](), list[Section](), 0
            for _, kind, text in row["p"]:
                if kind.startswith("h"):
                    sections.append(Section(size, (text,)))
                parts.append(text)
                size += len(text) + 2
            yield Document(row["k"], "\n\n".join(parts), row["t"], {}, tuple(sections))


def questions(path: Path, number: int) -> list[dict[str, str]]:
    """Questions that people asked about passages of a file, as many of each language as can be."""
    asked: dict[str, list[str]] = {}
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        for row in map(json.loads, io.TextIOWrapper(stream, "utf-8")):
            for question in row["q"]:  # a text, or its language, itself and its English or French
                lang, text = (row["l"], question) if isinstance(question, str) else question[:2]
                asked.setdefault(lang, []).append(text)
    rng = np.random.default_rng(0)
    orders = [(lang, rng.permutation(len(texts))) for lang, texts in sorted(asked.items())]
    turns = ((lang, order[turn]) for turn in range(number) for lang, order in orders if turn < len(order))
    return [{"lang": lang, "text": asked[lang][int(i)]} for lang, i in islice(turns, number)]


KINDS = {"package": package, "descriptions": descriptions, "documents": records}


def read(job: tuple[str, str, str]) -> tuple[str, list[str]]:
    kind, name, place = job
    warnings.simplefilter("ignore")
    return name, list(passages_of(KINDS[kind](Path(place))))


class Parts:
    """Writes lines into files of at most so many bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self.file = (self.folder / f"passages-{self.number}.jsonl.zst").open("wb")
        parameters = zstandard.ZstdCompressionParameters.from_level(12, window_log=25, enable_ldm=True)
        self.stream = zstandard.ZstdCompressor(compression_params=parameters).stream_writer(self.file)

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            self.stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
        self.stream.flush(zstandard.FLUSH_BLOCK)
        if self.file.tell() > PART_BYTES * 0.85:
            self.close()
            self.number += 1
            self._open()

    def close(self) -> None:
        self.stream.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packages", nargs="*", default=PACKAGES.read_text().split())
    parser.add_argument("--descriptions", type=Path, help="apt's folder of lists with translations")
    parser.add_argument("--documents", type=Path, nargs="*", default=[])
    parser.add_argument("--questions", type=Path, help="one of these, whose passages have questions")
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.questions:
        rows = [
            json.dumps(row, ensure_ascii=False) + "\n" for row in questions(arguments.questions, QUESTIONS)
        ]
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "questions.jsonl").write_text("".join(rows), "utf-8")
    jobs = [("documents", path.name.split(".")[0], str(path)) for path in arguments.documents]
    if arguments.descriptions:
        lists = sorted(arguments.descriptions.glob("*_main_i18n_Translation-*"))
        jobs += [("descriptions", path.name.rpartition("-")[2].split(".")[0], str(path)) for path in lists]
    folders = unpack(arguments.packages, arguments.folder)
    jobs += [("package", folder.name, str(folder)) for folder in folders]
    seen, counts, again = set[bytes](), Counter[str](), Counter[str]()
    parts = Parts(arguments.out)
    with Pool(arguments.processes) as pool:
        for name, texts in pool.imap(read, jobs):
            rows: list[dict[str, Any]] = []
            for text in texts:
                key = hashlib.blake2b(
                    " ".join(text.split()).encode("utf-8", "replace"), digest_size=8
                ).digest()
                if key in seen:
                    again[name] += 1
                elif len(seen) < arguments.passages:
                    seen.add(key)
                    rows.append({"id": f"{name}-{counts[name]}", "text": text})
                    counts[name] += 1
            parts.write(rows)
            print(f"{name}: {len(rows):,} passages, {again[name]:,} again; {len(seen):,} in all", flush=True)
            write_json(arguments.out / "sources.json", {"passages": dict(counts), "equal": dict(again)})
            if len(seen) >= arguments.passages:
                pool.terminate()
                break
    parts.close()


if __name__ == "__main__":
    main()
