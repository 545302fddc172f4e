"""BM25 by Lucene, with its analyser of each language, as a contender: what most published figures were made with.

Lucene comes as one file, Anserini's ``anserini-VERSION-fatjar.jar``, which a wheel of Pyserini holds; nothing of it
has to be installed, and Java has to be there. Versions up to 0.25 run on Java 11 and later, newer ones need 21.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.collections.base import Corpus, Ranked
from triptych.errors import InputError, WorkerError
from triptych.eval.analyzers import words
from triptych.eval.contenders import Progress

_KNOWN = "ar bn da de en es fa fi fr hi hu id it ja ko nl no pl pt ru sv te th tr uk zh"
LANGUAGES = frozenset(_KNOWN.split())
"""Languages with an analyser; texts of others are split into words here (`triptych.eval.analyzers`)."""

_ALIKE = {"nb": "no", "nn": "no"}


@dataclass(frozen=True, slots=True)
class Lucene:
    """BM25 over the terms of Lucene's analysers.

    Attributes:
        jar: Anserini's file with everything in it.
        k1: See `triptych.eval.baselines.BM25`; the default and `b`'s are Anserini's.
        b: The same.
        java: The program.
        threads: Of indexing and searching.
    """

    jar: Path
    k1: float = 0.9
    b: float = 0.4
    java: str = "java"
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.jar.is_file():
            raise InputError(
                f"Lucene: {self.jar}: no such file; expected Anserini's fatjar; the wheel of pyserini 0.25.0 holds one"
            )
        if shutil.which(self.java) is None:
            raise InputError(f"Lucene: no program {self.java!r}; expected Java 11 or newer")

    @property
    def name(self) -> str:
        """Short name for tables."""
        return "bm25 (lucene)"

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a reader wants to know of it."""
        return {"k1": self.k1, "b": self.b, "anserini": self.jar.name}

    @property
    def fingerprint(self) -> str:
        """Hex digest of `facts`."""
        return hashlib.blake2b(json.dumps(self.facts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def rank(
        self,
        corpus: Corpus,
        queries: Sequence[str],
        languages: Sequence[str],
        k: int,
        progress: Progress | None = None,
    ) -> list[Ranked]:
        """Ranks the corpus for each query, indexed once for each of the queries' languages.

        Lucene keeps a document's length in a byte and its scores here have six digits.

        Raises:
            WorkerError: If Java fails, with its last words.
        """
        groups: dict[str, list[int]] = defaultdict(list)
        for row, language in enumerate(languages):
            groups[analyser(language)].append(row)
        ranked = [Ranked.of({})] * len(queries)
        done = 0
        for language, rows in groups.items():
            with tempfile.TemporaryDirectory(prefix="triptych-lucene-") as folder:
                self._index(Path(folder), corpus, language)
                asked = {str(row): queries[row] for row in rows}
                for row, scores in self._search(Path(folder), asked, language, k).items():
                    ranked[int(row)] = Ranked.of(scores)
            done += len(rows)
            if progress is not None:
                progress(done, len(queries))
        return ranked

    def _index(self, folder: Path, corpus: Corpus, language: str) -> None:
        (folder / "docs").mkdir()
        with (folder / "docs" / "docs.jsonl").open("w", encoding="utf-8") as file:
            for document in corpus:
                text = _prepared(document.text, language)
                file.write(json.dumps({"id": document.id, "contents": text}, ensure_ascii=False) + "\n")
        self._run(
            ["io.anserini.index.IndexCollection", "-collection", "JsonCollection"],
            ["-generator", "DefaultLuceneDocumentGenerator", "-input", f"{folder}/docs"],
            ["-index", f"{folder}/index", "-threads", str(self.threads)],
            _language(language),
        )

    def _search(
        self, folder: Path, queries: Mapping[str, str], language: str, k: int
    ) -> dict[str, dict[str, float]]:
        lines = (f"{id_}\t{' '.join(_prepared(text, language).split())}\n" for id_, text in queries.items())
        (folder / "topics.tsv").write_text("".join(lines), encoding="utf-8")
        self._run(
            ["io.anserini.search.SearchCollection", "-index", f"{folder}/index", "-hits", str(k)],
            ["-topics", f"{folder}/topics.tsv", "-topicReader", "TsvString"],
            ["-output", f"{folder}/run", "-threads", str(self.threads)],
            ["-bm25", "-bm25.k1", str(self.k1), "-bm25.b", str(self.b)],
            _language(language),
        )
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for line in (folder / "run").read_text(encoding="utf-8").splitlines():
            query, _, document, _, score, _ = line.split(" ")
            found[query][document] = float(score)
        return found

    def _run(self, *arguments: list[str]) -> None:
        command = [self.java, "-cp", str(self.jar), *(part for group in arguments for part in group)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            raise WorkerError(f"Lucene: {' '.join(command[:4])} … failed with {done.returncode}: {last}")


def analyser(language: str) -> str:
    """Lucene's name of a language's analyser; "" if it has none."""
    short = re.split(r"[-_]", language.lower())[0]
    short = _ALIKE.get(short, short)
    return short if short in LANGUAGES else ""


def _language(analyser: str) -> list[str]:
    return ["-language", analyser] if analyser else ["-pretokenized"]


def _prepared(text: str, analyser: str) -> str:
    return text if analyser else " ".join(words(text))
