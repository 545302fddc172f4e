"""The script that makes sets with pooled candidates, on small records of the same form."""

import importlib
import json
import sys
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import count, permutations
from pathlib import Path
from typing import Any

import pytest
import zstandard

from triptych.collections.base import Collection, Wanted
from triptych.collections.catalogue import check, read_collections

pytest.importorskip("py3langid", reason="the extra 'data' is not installed")

SCRIPTS = Path(__file__).parents[2] / "scripts"
LANGUAGES = ("en", "de", "zh")
FILLER = {  # paragraphs of the body: nobody asks for them, and two documents never share them
    "en": "The value of option number {n} of {key} says how long the daemon waits for the others. " * 2,
    "de": "Der Wert der Option {n} von {key} sagt, wie lange der Dienst auf die anderen wartet. " * 2,
}


def number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def names(source: str, rest: Iterable[int], by: int) -> Iterator[str]:
    """Keys of a source whose number leaves one of the remainders."""
    allowed = set(rest)
    return (key for key in (f"key{n}" for n in count()) if number(f"{source}\t{key}") % by in allowed)


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(zstandard.compress(text.encode()))


def xquad() -> Iterator[dict[str, Any]]:
    for language in LANGUAGES:
        for passage in range(3):
            questions = [f"{language} question {passage} {n}" for n in range(4)]
            text = f"{language} passage {passage}"
            yield {"s": "xquad", "u": "eval", "l": language, "a": "x", "t": text, "q": questions}


def others(use: str, article: str) -> Iterator[dict[str, Any]]:
    both = ["yor", "Kí ni?", "What is it?"]
    yield {"s": "afriqa", "u": use, "l": "en", "a": article, "t": "it is", "q": [both]}
    yield {"s": "cmrc", "u": use, "l": "zh", "a": article, "t": "一", "q": ["甲", "乙"]}
    yield {"s": "cmrc", "u": use, "l": "zh", "a": article, "t": "一 ", "q": ["甲", "丙"]}  # the same text
    yield {"s": "viquad", "u": use, "l": "vi", "a": article, "t": "không ai hỏi", "q": []}


def page(source: str, key: str, language: str, headings: list[str], size: int = 60) -> dict[str, Any]:
    title = f"1. {headings[0]}"
    paragraphs = [[0, "h1", title], [0, "", f"Contents\n1. {headings[0]}\n1.1. {headings[1]}"]]
    for place, heading in enumerate(headings[1:], start=1):
        paragraphs.append([place, "h2", f"1.{place}. {heading}"])
    body = FILLER[language]
    paragraphs += [[9 + n, "", body.format(n=n, key=f"{key} {language}")] for n in range(size)]
    return {"s": source, "k": key, "l": language, "t": title, "p": paragraphs}


def manual(key: str, language: str, what: str) -> dict[str, Any]:
    made = page("man", key, language, ["NAME", "SYNOPSIS"])
    made["p"][:0] = [[0, "h1", "NAME"], [0, "", f"{key} - {what}"]]
    return made


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    handbook = {rest: next(names("handbook", [rest], 20)) for rest in (0, 10, 5)}
    return {
        "dev": handbook[0],
        "test": handbook[10],
        "training": handbook[5],
        "man": next(names("man", [10], 20)),
        "short": list(zip(range(4), names("handbook", [10], 20), strict=False))[3][1],
    }


@pytest.fixture(scope="module")
def ready(keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ready")
    write(folder / "qa-eval.jsonl.zst", [*xquad(), *others("eval", "x")])
    aside = [next(names(source, [0], 10)) for source in ("afriqa", "cmrc", "viquad")]
    kept = [record | {"a": name} for record in others("train", "") for name in aside]
    write(folder / "qa-train.jsonl.zst", kept)
    pages = [
        page(
            "handbook",
            keys["test"],
            "en",
            ["Storage of volumes", "Growing a volume", "Snapshots of a volume"],
        ),
        page(
            "handbook",
            keys["test"],
            "de",
            ["Speichern von Volumen", "Ein Volumen vergrößern", "Snapshots of a volume"],
        ),
        page(
            "handbook", keys["dev"], "en", ["Network of hosts", "Naming a host well", "Common heading here"]
        ),
        page("handbook", keys["training"], "en", ["Mail and news", "Sending a mail", "Common heading here"]),
        page("handbook", keys["short"], "en", ["Too short to be long", "A second heading"], size=2),
        manual(keys["man"], "en", "look up the names of users"),
        manual(keys["man"], "de", "sucht die Namen der Benutzer heraus"),
    ]
    write(folder / "docs.jsonl.zst", pages)
    return folder


def run(ready: Path, out: Path, *options: str) -> None:
    sys.path.insert(0, str(SCRIPTS))
    try:
        importlib.import_module("make_eval_sets").main([str(ready), str(out), *options])
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def out(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    run(ready, folder)
    return folder


@pytest.fixture(scope="module")
def pooled(out: Path) -> dict[str, Collection]:
    return {each.label: each for each in read_collections(out / "pooled")}


def texts(collection: Collection) -> dict[str, str]:
    return {document.id: document.text for document in collection.corpus}


def test_all_sets_search_one_corpus_in_which_each_text_is_once(
    pooled: dict[str, Collection], out: Path
) -> None:
    assert len({each.corpus.digest for each in pooled.values()}) == 1
    documents = list(texts(pooled["cmrc/zh"]).values())
    assert sorted(documents) == sorted(
        [f"{language} passage {n}" for language in LANGUAGES for n in range(3)]
        + ["it is", "一", "không ai hỏi"]
    )
    warnings: list[str] = []
    check(list(pooled.values()), warnings.append)
    assert not warnings


def test_there_is_a_set_for_each_language_and_each_ordered_pair(pooled: dict[str, Collection]) -> None:
    cross = {f"xquad-cross/{one}-{other}" for one, other in permutations(LANGUAGES, 2)}
    mono = {f"xquad/{language}" for language in LANGUAGES}
    assert set(pooled) == cross | mono | {"afriqa/yor-en", "afriqa-translated/en", "cmrc/zh"}


@pytest.mark.parametrize("label", ["xquad/de", "xquad-cross/de-zh"])
def test_only_the_passage_in_the_wanted_language_counts_and_its_translations_are_excluded(
    pooled: dict[str, Collection], label: str
) -> None:
    collection, wanted = pooled[label], label[-2:]
    documents = texts(collection)
    assert len(collection.queries) == 12
    for query, text in collection.queries.items():
        passage = text.split()[2]
        assert text.startswith("de question")
        assert [documents[doc] for doc in collection.qrels[query]] == [f"{wanted} passage {passage}"]
        left = {documents[doc] for doc in collection.excluded[query]}
        assert left == {f"{language} passage {passage}" for language in LANGUAGES if language != wanted}


def test_african_questions_and_their_translations_are_two_sets(pooled: dict[str, Collection]) -> None:
    assert list(pooled["afriqa/yor-en"].queries.values()) == ["Kí ni?"]
    assert list(pooled["afriqa-translated/en"].queries.values()) == ["What is it?"]
    assert not pooled["afriqa/yor-en"].excluded


def test_a_question_that_is_asked_twice_is_one_query(pooled: dict[str, Collection]) -> None:
    collection = pooled["cmrc/zh"]
    assert sorted(collection.queries.values()) == sorted(["甲", "乙", "丙"])
    assert all(len(judged) == 1 for judged in collection.qrels.values())


def test_the_development_sets_are_of_the_articles_that_are_set_aside(out: Path) -> None:
    collections = read_collections(out / "dev", Wanted(split="dev"))
    assert {each.label for each in collections} == {"afriqa/yor-en", "afriqa-translated/en", "cmrc/zh"}
    assert all(each.split == "dev" for each in collections)


def test_samples_are_the_same_questions_in_all_languages_and_the_same_passages(
    ready: Path, pooled: dict[str, Collection], tmp_path: Path
) -> None:
    run(ready, tmp_path, "--questions", "5")
    sample = {each.label: each for each in read_collections(tmp_path / "pooled")}
    assert set(sample) == set(pooled)
    assert {each.corpus.digest for each in sample.values()} == {pooled["cmrc/zh"].corpus.digest}
    chosen = {
        tuple(sorted(query.split("-", 2)[2].rsplit("-", 1)[0] for query in each.queries))
        for label, each in sample.items()
        if label.startswith("xquad")
    }
    assert len(chosen) == 1
    assert len(chosen.pop()) == 5
    again = tmp_path / "again"
    run(ready, again, "--questions", "5")
    for file in again.rglob("*.*"):
        assert file.read_bytes() == (tmp_path / file.relative_to(again)).read_bytes()


@pytest.fixture(scope="module")
def long(out: Path) -> dict[str, Collection]:
    return {each.label: each for each in read_collections(out / "long")}


def test_long_documents_are_asked_for_by_keys_that_are_held_out(
    out: Path, long: dict[str, Collection], keys: dict[str, str]
) -> None:
    asked = {query.rsplit("/", 2)[0] for each in long.values() for query in each.queries}
    assert asked == {f"handbook/{keys['test']}", f"man/{keys['man']}"}
    dev = read_collections(out / "long", Wanted(split="dev"))
    assert {query.rsplit("/", 2)[0] for each in dev for query in each.queries} == {f"handbook/{keys['dev']}"}
    documents = texts(long["long/en"])
    assert f"handbook/{keys['training']}/en" in documents
    assert f"handbook/{keys['short']}/en" not in documents


def test_queries_are_titles_headings_and_descriptions_that_are_the_keys_own_and_translated(
    out: Path, long: dict[str, Collection]
) -> None:
    assert sorted(long["long/en"].queries.values()) == [
        "Growing a volume",
        "Snapshots of a volume",
        "Storage of volumes",
        "look up the names of users",
    ]
    assert sorted(long["long/de"].queries.values()) == [  # "Snapshots of a volume" is not translated
        "Ein Volumen vergrößern",
        "Speichern von Volumen",
        "sucht die Namen der Benutzer heraus",
    ]
    [dev] = read_collections(out / "long", Wanted(split="dev"))
    assert sorted(dev.queries.values()) == [
        "Naming a host well",
        "Network of hosts",
    ]  # the third is another's, too


def test_no_line_of_a_document_is_a_query_on_it_and_translations_are_excluded(
    long: dict[str, Collection],
) -> None:
    for collection in long.values():
        documents = texts(collection)
        for query, text in collection.queries.items():
            [document] = collection.qrels[query]
            assert all(text not in line for line in documents[document].splitlines())
            key, own = document.rsplit("/", 1)
            other = {"en": "de", "de": "en"}[own]
            assert collection.excluded[query] == {f"{key}/{other}"}


def test_documents_that_share_most_of_their_text_are_excluded(tmp_path: Path, keys: dict[str, str]) -> None:
    one = page("handbook", keys["test"], "en", ["Storage of volumes", "Growing a volume"])
    twin = {**one, "k": keys["training"], "t": "Other", "p": [[0, "h1", "Other"], *one["p"][3:]]}
    for name in ("qa-eval", "qa-train"):
        write(tmp_path / f"{name}.jsonl.zst", others("eval" if name == "qa-eval" else "train", "x"))
    write(tmp_path / "docs.jsonl.zst", [one, twin])
    run(tmp_path, tmp_path / "out")
    [collection] = read_collections(tmp_path / "out" / "long")
    assert set(collection.excluded.values()) == {frozenset({f"handbook/{keys['training']}/en"})}


def test_the_hard_pool_has_the_same_questions_among_passages_of_manuals(ready: Path, tmp_path: Path) -> None:
    run(ready, tmp_path, "--distractors", "20")
    pooled, hard = (
        {each.label: each for each in read_collections(tmp_path / name)} for name in ("pooled", "hard")
    )
    assert set(pooled) == set(hard)
    label = next(iter(pooled))
    assert hard[label].qrels == pooled[label].qrels
    added = texts(hard[label]).keys() - texts(pooled[label]).keys()
    assert len(added) == 20
    assert all(id_.startswith("distractor/") for id_ in added)
    passages = [text for id_, text in texts(hard[label]).items() if id_ in added]
    assert len(set(passages)) == 20
    assert all(len(text.encode()) >= 150 for text in passages)


def test_too_few_distractors_are_an_error(ready: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 100000"):
        run(ready, tmp_path, "--distractors", "100000")
