"""What a language model is asked about, and what its answers are for.

    python recipes/small/synthetic.py inputs CORPUS --into build/ask
    python recipes/small/synthetic.py keep FOLDER --into build/answers
    python recipes/small/synthetic.py rows QUESTIONS --corpus CORPUS --inputs build/ask --into build/part

CORPUS is what recipes/small/corpus/build.py made. `inputs` writes a file of documents for each language, which
``triptych data synthesize`` reads: passages of manuals, the encyclopaedia and the news, and whole long documents in
``long-LANGUAGE``. None of them is of a development or evaluation set. recipes/small/ask.sh asks; `keep` puts the files
of answers that it leaves together in one, compressed, in parts of at most 14 MB. `rows` makes training data of the
questions that are kept: on the passage, on the same passage in another language, and on whole long documents.
"""

from __future__ import annotations

import argparse
import itertools
import sqlite3
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import zstandard

sys.path.insert(0, str(Path(__file__).parent))

from corpus import store
from corpus.chunks import chunks
from corpus.languages import canonical, weight
from corpus.long import long_documents
from corpus.ready import LICENCES
from corpus.records import read
from triptych.documents import read_documents
from triptych.io import json_lines, write_atomically, write_json
from triptych.text import digest, fold, ranker
from triptych.tools.pairs.base import StructuredDocument
from triptych.tools.synthesize.asking import AnswerStore
from triptych.tools.synthesize.client import Endpoint
from triptych.tools.synthesize.passages import Sampling
from triptych.tools.synthesize.questions import clean
from triptych.tools.synthesize.synthesize import (
    QuestionRecipe,
    Synthesis,
    draw,
    problem_of_answer,
    to_example,
)

MODEL = "Qwen2.5-Coder-1.5B-Instruct"
MOST = {"man": 250, "ddtp": 200, "tldr": 0}
"""Most passages of a source in a language, where not all are taken."""
LARGEST = 6500
"""Most passages of a language."""
ASKED = {"ja": 800, "zh": 1500, "en": 3000, "th": 1500, "id": 1500}
"""The same of those in which people have asked."""
HELD_OUT = 4
"""Every so manieth story of the news is left for development."""
KEPT, PART = "answers.sqlite.zst", 14_000_000
"""Name of the file of answers, and most bytes of a part of it."""
SENTENCES = 5
"""Of a story that make a passage."""


def main() -> None:
    """Runs one of the commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("command", choices=("inputs", "keep", "check", "rows"))
    parser.add_argument("source", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, help="rows: as for inputs")
    parser.add_argument("--inputs", type=Path, help="rows: what inputs wrote")
    parser.add_argument("--answers", type=Path, help="check: the file of answers")
    parser.add_argument("--only", nargs="*", default=(), help="check: names of files of documents")
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    if arguments.command == "check":
        check(arguments.source, arguments.answers, arguments.into, arguments.only)
    elif arguments.command == "rows":
        rows(arguments.source, arguments.corpus / "work", arguments.inputs, arguments.into)
    else:
        {"inputs": inputs, "keep": keep}[arguments.command](arguments.source, arguments.into)


def inputs(corpus: Path, into: Path) -> None:
    """Writes the documents."""
    work = corpus / "work"
    files: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in passages(work):
        files[record["lang"].split("-")[0]].append(record)
    for name, records in list(files.items()):
        files[name] = sorted(records, key=lambda record: digest("ask", record["id"]))
    for each in long_documents(store.documents(work, "train")):
        record = {"id": each.id, "text": each.text, "lang": each.document.lang}
        files[f"long-{each.document.lang.split('-')[0]}"].append(record | _facts(each.document.source))
    for name, records in sorted(files.items()):
        with json_lines(into / f"{name}.jsonl.zst") as write:
            for record in records:
                write(record)
        print(f"{name}: {len(records)}", flush=True)


def keep(folder: Path, into: Path) -> None:
    """One file of all answers, and one of the questions that are kept, without their documents."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        together = Path(place) / "all.sqlite"
        AnswerStore(together).close()
        with closing(sqlite3.connect(together, isolation_level=None)) as base:
            for path in sorted(folder.glob("answers-*.sqlite")):
                base.execute("ATTACH ? AS other", (str(path),))
                base.execute("INSERT OR REPLACE INTO answers SELECT * FROM other.answers")
                base.execute("DETACH other")
            base.execute("PRAGMA journal_mode = DELETE")
            print("answers:", base.execute("SELECT COUNT(*) FROM answers").fetchone()[0], flush=True)
        packed = zstandard.ZstdCompressor(level=9, threads=4).compress(together.read_bytes())
    for number, start in enumerate(range(0, len(packed), PART)):
        write_atomically(into / f"{KEPT}.{number:02}", packed[start : start + PART])
    if questions := sorted(folder.glob("*.jsonl")):
        with json_lines(into / "questions.jsonl.zst") as write:
            for row in itertools.chain.from_iterable(map(read, questions)):
                write({name: row[name] for name in ("id", "query", "lang", "source")})


def check(folder: Path, answers: Path, into: Path, only: Collection[str]) -> None:
    """What is left of the answers after the checks of `triptych data synthesize`, in one pass over the documents.

    The same functions as there, without the round trip and without sending anything: a hundred thousand passages in
    minutes. Writes a file for each of documents, and counts by language of what was dropped and why.
    """
    rank = ranker(normalize=False)
    long = Sampling(per_document=5, max_passage=1200)
    short = Sampling(min_document=200, min_passage=200, max_passage=1200)
    endpoint = Endpoint("http://localhost", MODEL, max_tokens=96, parameters={"temperature": 0.0})
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seen: set[str] = set()
    with AnswerStore(answers) as known:
        for path in sorted(folder.glob("*.jsonl.zst")):
            name = path.name.removesuffix(".jsonl.zst")
            if only and name not in only:
                continue
            recipe = QuestionRecipe(long if name.startswith("long-") else short, prompt_style="small")
            work = Synthesis(lambda path=path: read_documents([path]), endpoint, recipe)
            with json_lines(into / f"{name}.jsonl") as write:
                for document in work.read():
                    for each in draw(work, document, rank):
                        answer = known.get(each.request.key)
                        if answer is None:
                            continue
                        question, tally = clean(answer.text), counts[name]
                        problem = problem_of_answer(work, answer, question, each, rank)
                        if problem is None and fold(question) in seen:
                            problem = "repeated"
                        tally[problem or "kept"] += 1
                        if problem is None:
                            seen.add(fold(question))
                            write(
                                to_example(each, question, MODEL)
                                | {"kind": "synthetic", "article": each.document.id.rsplit("/", 2)[0]}
                            )
            print(name, dict(counts[name].most_common()), flush=True)
    write_json(into / "counts.json", counts)


def rows(questions: Path, work: Path, asked_on: Path, into: Path) -> None:
    """Training data: files of the folders ``synthetic``, ``synthetic-cross`` and ``synthetic-long``."""
    texts = {record["id"]: record for path in sorted(asked_on.glob("*.jsonl.zst")) for record in read(path)}
    found = [(row, texts[row["source"]["document"]]) for row in read(questions)]
    whole = {f"{each.source}/{each.key}/{each.lang}": each for each in store.documents(work, "train")}
    languages: dict[str, list[str]] = defaultdict(list)
    for id_, document in whole.items():
        if document.aligned:
            languages[id_.rsplit("/", 1)[0]].append(document.lang)
    stories = {
        (story.key, canonical(language)): texts
        for story in store.translations(work)
        if story.source == "ntrex"
        for language, texts in story.texts.items()
    }
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(json_lines(into / name / "rows.jsonl"))
            for name in ("synthetic", "synthetic-cross", "synthetic-long")
        }

        def write(name: str, row: dict[str, Any], text: str, id_: str, language: str) -> None:
            article = id_.split("#")[0].rsplit("/", 2 - (name == "synthetic-long"))[0]
            out = {"query": row["query"], "pos": [text], "neg": [], "lang": row["lang"], "pos_id": [id_]}
            writers[name](
                out | {"article": article} | ({} if language == row["lang"] else {"pos_lang": language})
            )
            counts[name] += 1

        for row, record in found:
            own = "\n".join(filter(None, (record.get("title"), record["text"])))
            if "blocks" not in record:
                write("synthetic-long", row, own, record["id"], row["lang"])
                continue
            write("synthetic", row, own, record["id"], row["lang"])
            source, *key, language, number = record["id"].split("/")
            if source == "ntrex":
                others = sorted(other for story, other in stories if story == key[0] and other != language)
            else:
                others = sorted(set(languages["/".join((source, *key))]) - {language})
            if source == "wiki" or not others:  # introductions are no translations of each other
                continue
            other = others[digest("other", row["query"]) % len(others)]
            if source == "ntrex":
                text = " ".join(stories[key[0], other][n] for n in record["blocks"])
            else:
                text = _same(whole["/".join((source, *key, other))], record["blocks"])
            if text:
                write(
                    "synthetic-cross",
                    row,
                    text,
                    "/".join((source, *key, other, f"{number}-{language}")),
                    other,
                )
    print(dict(counts), flush=True)


def _same(document: StructuredDocument, numbers: Collection[int]) -> str:
    """The blocks of these numbers under the document's title; "" if a fifth of them is missing."""
    lines = [block.text for block in document.blocks if block.level is None and block.number in set(numbers)]
    if len(lines) < 0.8 * len(numbers):
        return ""
    return "\n".join([document.title, *lines] if document.title else lines)


def passages(work: Path) -> Iterator[dict[str, Any]]:
    """Passages of all languages, of each source and language those with the smallest digests."""
    found: dict[str, list[tuple[int, str, dict[str, Any]]]] = defaultdict(list)
    for record in (*_of_documents(work), *_of_news(store.translations(work))):
        found[record["lang"]].append((digest("draw", record["id"]), record["id"].split("/")[0], record))
    for language, candidates in found.items():
        taken: Counter[str] = Counter()
        for _, source, record in sorted(candidates, key=lambda each: each[0]):
            if taken[source] < MOST.get(source, LARGEST) and taken.total() < ASKED.get(language, LARGEST):
                taken[source] += 1
                yield record


def _of_documents(work: Path) -> Iterator[dict[str, Any]]:
    for document in store.documents(work, "train"):
        for chunk in chunks(document):
            title, _, text = chunk.text.partition("\n") if document.source != "ddtp" else ("", "", chunk.text)
            if weight(text, document.lang) >= 200:
                record = {"id": chunk.id, "title": title, "text": text, "lang": document.lang}
                yield record | {"blocks": chunk.blocks} | _facts(document.source)


def is_held_out(source: str, key: str) -> bool:
    """Whether a record is of a story of the news that development asks about."""
    return source == "ntrex" and digest("story", key) % HELD_OUT == 0


def news(translations: Iterable[Any]) -> Iterator[tuple[str, str, int, list[str]]]:
    """Story, language, number and sentences of the passages of the news that may be trained on."""
    for story in translations:
        if story.source != "ntrex" or is_held_out(story.source, story.key):
            continue
        for language, texts in story.texts.items():
            for start in range(0, len(texts), SENTENCES):
                if len(texts) - start >= 3:
                    yield story.key, canonical(language), start, list(texts[start : start + SENTENCES])


def _of_news(translations: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for key, language, start, sentences in news(translations):
        record = {"id": f"ntrex/{key}/{language}/{start}", "text": " ".join(sentences), "lang": language}
        yield record | {"blocks": list(range(start, start + len(sentences)))} | _facts("ntrex")


def _facts(source: str) -> dict[str, str]:
    return {"license": LICENCES[source]}


if __name__ == "__main__":
    main()
