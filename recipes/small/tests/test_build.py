"""The whole build on a small folder of ready data: files, determinism, packing."""

import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from corpus import pack
from corpus.records import read, write
from corpus.split import is_development

ROOT = Path(__file__).parents[3]
LANGUAGES = ("en", "de", "fr", "ja")


def prose(lang: str, key: int, line: int) -> str:
    if lang == "ja":
        return f"第{key}章の{line}番目の段落です。川と石と窓について説明します。" * 3
    return (
        f"{lang}wort{key} {lang}satz{line} und so weiter mit {lang}wasser, {lang}stein und {lang}fenster {key}-{line}. "
        * 3
    )


def ready(folder: Path) -> Path:
    docs: list[dict[str, Any]] = []
    for key in range(40):
        for lang in LANGUAGES:
            blocks: list[list[Any]] = []
            for part in range(2):
                blocks.append(
                    [
                        3 * part,
                        "h2",
                        f"{lang}kopf nummer {key} teil {part}"
                        if lang != "ja"
                        else f"第{key}節の見出し番号{part}",
                    ]
                )
                blocks += [[3 * part + line, "", prose(lang, key, 3 * part + line)] for line in (1, 2)]
            docs.append({"s": "lo", "k": f"page{key}", "l": lang, "t": f"{lang}titel{key} lang", "p": blocks})
    long = [[part, "", "\n".join(prose("de", 100 + part, line) for line in range(12))] for part in range(12)]
    docs.append({"s": "handbook", "k": "long0", "l": "de", "t": "Ein langes Kapitel", "p": long})
    asked = [
        {
            "s": "arcd",
            "u": "train",
            "l": "ar",
            "a": f"مقالة {i}",
            "t": f"نص المقالة رقم {i} " * 8,
            "q": [f"ما هو السؤال رقم {i}؟"],
        }
        for i in range(40)
    ]
    judged = [{"s": "arcd", "u": "eval", "l": "ar", "a": "x", "t": "نص المقالة رقم 7 " * 8, "q": ["سؤال"]}]
    parallel = [
        {"s": "ntrex", "k": "n", "tr": {lang: [prose(lang, 300, i) for i in range(4)] for lang in LANGUAGES}}
    ]
    terms = [
        {
            "s": "cldr",
            "k": "!",
            "tr": {"de": ["Ausrufezeichen", "Zeichen"], "en": ["exclamation mark", "mark"]},
        }
    ]
    files = {"docs": docs, "qa-train": asked, "qa-eval": judged, "parallel": parallel, "lexicon": terms}
    for name, records in files.items():
        write(folder / f"{name}.jsonl.zst", records)
    return folder


def run(*arguments: str | Path) -> str:
    command = [sys.executable, str(ROOT / "recipes/small/corpus/build.py"), *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    run("gather", "--ready", ready(folder / "ready"), "--out", folder / "out")
    run("make", "--out", folder / "out")
    return folder / "out"


def rows(path: Path) -> list[dict[str, Any]]:
    return list(read(path))


def test_no_held_out_article_is_in_any_training_file(built: Path) -> None:
    held = {key for key in range(40) if is_development("lo", f"page{key}")}
    asked = {i for i in range(40) if is_development("arcd", f"مقالة {i}")}
    assert held
    assert asked
    files = [
        path for stage in ("stage-1", "stage-2", "stage-3") for path in (built / stage).glob("*.jsonl.zst")
    ]
    assert len(files) > 6
    for path in files:
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows(path))
        assert not [key for key in held if f"wort{key} " in text or f"第{key}章" in text], path
        assert not [i for i in asked if f"رقم {i} " in text], path
        assert "رقم 7 " not in text, path  # an evaluation set has it


def test_positives_are_passages_of_the_collection_to_mine_from(built: Path) -> None:
    texts = {row["_id"]: row["text"] for row in rows(built / "stage-3/corpus.jsonl.zst")}
    found = 0
    for path in (built / "stage-3").glob("*.jsonl.zst"):
        if path.name.startswith(("human", "derived", "cross")):
            for row in rows(path):
                assert [texts[id_] for id_ in row["pos_id"]] == row["pos"]
                assert row["neg"] == []
                found += 1
    assert found > 50


def test_development_sets_are_whole_beir_folders(built: Path) -> None:
    for name in ("dev-qa", "dev-cross", "dev-help", "dev-long"):
        folder = built / "dev" / name
        passages = {row["_id"]: row for row in rows(folder / "corpus.jsonl.zst")}
        queries = {row["_id"]: row for row in rows(folder / "queries.jsonl.zst")}
        lines = (folder / "qrels/dev.tsv").read_text().splitlines()[1:]
        judged = [line.split("\t") for line in lines]
        assert {query for query, _, _ in judged} == set(queries)
        assert all(passage in passages for _, passage, _ in judged)
    assert rows(built / "dev/dev-qa/queries.jsonl.zst")
    cross = {row["_id"]: row for row in rows(built / "dev/dev-cross/corpus.jsonl.zst")}
    languages: dict[str, set[str]] = defaultdict(set)
    for row in cross.values():
        languages[row["article"]].add(row["lang"])
    assert all(len(each) == 1 for each in languages.values())


def test_every_file_of_pairs_has_its_own_kinds(built: Path) -> None:
    kinds = {path.name: {row["kind"] for row in rows(path)} for path in (built / "stage-2").glob("*.zst")}
    assert kinds["terms.jsonl.zst"] == {"term-translation"}
    assert kinds["sentences.jsonl.zst"] == {"sentence-translation"}
    assert kinds["paragraphs.jsonl.zst"] == {"paragraph-translation"}
    assert sum(map(len, kinds.values())) == len(set().union(*kinds.values()))


def test_long_documents_come_with_marked_queries(built: Path) -> None:
    long = rows(built / "stage-3/long.jsonl.zst") + rows(built / "dev/dev-long/queries.jsonl.zst")
    assert long
    assert all(row["kind"].startswith("long-") for row in long)


def test_the_same_input_gives_the_same_files(built: Path, tmp_path: Path) -> None:
    run("gather", "--ready", built.parent / "ready", "--out", tmp_path)
    run("make", "--out", tmp_path, "--only", "stage-2", "stage-3", "dev")
    again = [
        path
        for part in ("stage-2", "stage-3", "dev")
        for path in (tmp_path / part).rglob("*.*")
        if path.is_file()
    ]
    assert again
    for path in again:
        assert path.read_bytes() == (built / path.relative_to(tmp_path)).read_bytes(), path


def test_what_was_packed_comes_back(built: Path, tmp_path: Path) -> None:
    assert {path.name for path in (built / "packed").iterdir()} == {f"stage-{n}.jsonl.zst" for n in (1, 2, 3)}
    for stage in ("stage-1", "stage-2", "stage-3"):
        counts = pack.unpack(built / f"packed/{stage}.jsonl.zst", tmp_path / stage)
        originals = {
            path.name.removesuffix(".jsonl.zst"): rows(path) for path in (built / stage).glob("*.zst")
        }
        assert counts == {name: len(original) for name, original in originals.items() if original}
        for name in counts:
            brought = rows(tmp_path / stage / f"{name}.jsonl.zst")
            assert sorted(map(json.dumps, brought)) == sorted(map(json.dumps, originals[name]))


def test_the_manifest_names_every_file_with_its_checksum_and_licences(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        content = (built / name).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["bytes"] == len(content)
    assert manifest["licences"]["lo"] == "MPL-2.0"
    sections = manifest["files"]["stage-2/sections.jsonl.zst"]
    assert sections["rows"] == sum(sections["kind"].values()) == sum(sections["lang"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gather"], "no folder of ready data"),
        (["make", "--only", "stage-9"], "no stage 'stage-9'"),
        (["make", "--only", "stage-1"], "run the step `gather` first"),
    ],
)
def test_wrong_usage_is_told_in_a_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    command = [
        sys.executable,
        str(ROOT / "recipes/small/corpus/build.py"),
        *arguments,
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
