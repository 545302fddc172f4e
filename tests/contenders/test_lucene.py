"""BM25 by Lucene. Runs with Anserini's fatjar, named by TRIPTYCH_ANSERINI, and Java; refusals without."""

import os
import stat
from pathlib import Path

import pytest

from triptych.collections.base import MemoryCorpus
from triptych.errors import InputError, WorkerError
from triptych.eval.analyzers import Words
from triptych.eval.baselines import BM25
from triptych.eval.lucene import Lucene, analyser

JAR = os.environ.get("TRIPTYCH_ANSERINI", "")
CORPUS = MemoryCorpus.of(
    {
        "1": "Die Häuser am See",
        "2": "the horses are running",
        "3": "東京都へ行く",
        "4": "kitabu kipya",
        "5": "",
    }
)


def script(folder: Path, body: str) -> str:
    path = folder / "java"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_missing_file_and_a_missing_program_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.jar: no such file; expected Anserini's fatjar"):
        Lucene(tmp_path / "none.jar")
    (tmp_path / "some.jar").touch()
    with pytest.raises(InputError, match="no program"):
        Lucene(tmp_path / "some.jar", java=str(tmp_path / "nojava"))


def test_what_java_says_when_it_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "some.jar").touch()
    java = script(tmp_path, "echo 'class file version 65.0' >&2; exit 3")
    with pytest.raises(WorkerError, match=r"IndexCollection … failed with 3: class file version 65.0"):
        Lucene(tmp_path / "some.jar", java=java).rank(CORPUS, ["x"], ["en"], 3)


def test_the_run_that_the_program_writes_is_read_in_the_order_of_scores_and_ids(tmp_path: Path) -> None:
    (tmp_path / "some.jar").touch()
    write = "printf '0 Q0 b 1 2.0 A\\n0 Q0 a 2 2.0 A\\n0 Q0 c 3 3.5 A\\n' > $2"
    body = f'while [ $# -gt 1 ]; do if [ "$1" = -output ]; then {write}; fi; shift; done'
    java = script(tmp_path, body)
    [ranked, empty] = Lucene(tmp_path / "some.jar", java=java).rank(CORPUS, ["x", "y"], ["en", "en"], 3)
    assert ranked.documents == ("c", "a", "b")
    assert len(empty) == 0


def test_analysers_are_told_by_the_first_part_of_a_language() -> None:
    assert [analyser(name) for name in ("de", "zh_cn", "pt-BR", "nb", "sw", "")] == [
        "de",
        "zh",
        "pt",
        "no",
        "",
        "",
    ]


@pytest.mark.skipif(not JAR, reason="TRIPTYCH_ANSERINI does not name Anserini's fatjar")
def test_lucene_finds_by_the_analyser_of_each_language() -> None:
    queries = ["Haus", "a horse's run", "東京", "kitabu", "?!", 'C++ "AND" (x']
    languages = ["de", "en", "ja", "sw", "en", "en"]
    found = Lucene(Path(JAR)).rank(CORPUS, queries, languages, 3)
    assert [ranked.documents for ranked in found] == [("1",), ("2",), ("3",), ("4",), (), ()]
    ours = BM25(Words()).rank(CORPUS, queries[:2], languages[:2], 3)
    assert [ranked.documents for ranked in ours] == [("1",), ("2",)]
