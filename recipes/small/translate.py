"""Human questions in other languages, by a language model: asked in one language of a passage in another.

    python recipes/small/translate.py inputs build/part/stage-3 --into build/translate/questions.jsonl.zst
    python recipes/small/translate.py ask build/translate/questions.jsonl.zst --into answers-0.sqlite --share 0/16
    python recipes/small/translate.py rows build/part/stage-3 --questions … --answers answers.sqlite --into build/part

`inputs` chooses languages for each question of ``human-*.jsonl.zst``; `ask` sends them to a server (OPENAI_BASE_URL),
the most important first, so that whatever is there when time is out is a balanced sample; recipes/small/ask.sh with
TRANSLATE=FILE runs the server and many of these. `rows` keeps the translations that pass the checks, in
``translated/rows.jsonl``.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from corpus.records import read
from triptych.io import json_lines
from triptych.text import digest, name_of
from triptych.tools.synthesize.asking import AnswerStore, Budget, Patience, QuestionRequest, ask_all, key_of
from triptych.tools.synthesize.client import Endpoint, Messages

MODEL = "Qwen2.5-Coder-1.5B-Instruct"
TARGETS = dict.fromkeys("de en es fr it ja ko pt ru vi zh".split(), 3.0)
TARGETS |= dict.fromkeys("ar id th tr".split(), 2.5)
TARGETS |= dict.fromkeys("el hi ro".split(), 1.5) | dict.fromkeys("cs fa he nl pl sv uk".split(), 1.0)
"""Languages, and how often each is chosen."""
STRONG = 2.0
"""Least weight of a language into which the languages with few questions are translated."""
FEW = ("ar", "fr", "id")
LARGEST, ROUNDS = "ja", 4
"""The language with more than half of the questions, of which half are left out in each round; rounds of asking."""


class Item(NamedTuple):
    """A question and the language that it shall be in."""

    id: str
    query: str
    lang: str
    to: str
    round: int


def inputs(folder: Path, into: Path) -> None:
    """Writes the questions with the languages chosen for each: ``{language: round}``."""
    counts: Counter[str] = Counter()
    with json_lines(into) as write:
        for row in _human(folder):
            chosen = choose(row["id"], row["lang"])
            counts.update(list(chosen))
            write({name: row[name] for name in ("id", "query", "lang")} | {"to": chosen})
    print(counts.total(), dict(counts.most_common()), flush=True)


def choose(id_: str, lang: str) -> dict[str, int]:
    """Languages for a question, each with its round; drawn by weight, without repetition, from digests."""
    rounds = range(digest("round", id_) % 2, ROUNDS, 2) if lang == LARGEST else range(ROUNDS)
    least = STRONG if lang in FEW else 0.0
    weights = {to: weight for to, weight in TARGETS.items() if weight >= least and to != lang}
    order = sorted(weights, key=lambda to: -math.log((digest(to, id_) + 1) / 2**64) / weights[to])
    return dict(zip(order, rounds, strict=False))


def _human(folder: Path) -> Iterator[dict[str, Any]]:
    """Human questions in a language that the model speaks."""
    for path in sorted(folder.glob("human-*.jsonl.zst")):
        yield from (row for row in read(path) if row["lang"] in TARGETS)


def items(questions: Path) -> list[Item]:
    """All that is asked, in order: within a round those of the same two languages together."""
    found = [
        Item(row["id"], row["query"], row["lang"], to, number)
        for row in read(questions)
        for to, number in row["to"].items()
    ]
    return sorted(found, key=lambda item: (item.round, item.lang, item.to, digest("order", item.id)))


def shares(found: Iterable[Item], count: int) -> list[list[Item]]:
    """Parts of about the same size, of whole pairs of languages: a server reads the examples of a pair once."""
    pairs: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in found:
        pairs[item.lang, item.to].append(item)
    parts: list[list[Item]] = [[] for _ in range(count)]
    for pair in sorted(pairs, key=lambda pair: (-len(pairs[pair]), pair)):
        min(parts, key=len).extend(pairs[pair])
    return [sorted(part, key=lambda item: item.round) for part in parts]


def messages(query: str, lang: str, to: str) -> Messages:
    """A request, with examples from the one language into the other."""
    told = (
        f"You translate questions from {_name(lang)} into {_name(to)}. "
        f"Reply with the {_name(to)} translation only; do not answer the question."
    )
    turns = [{"role": "system", "content": told}]
    for question, translation in zip(examples()[lang], examples()[to], strict=True):
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": translation}]
    return [*turns, {"role": "user", "content": query}]


def _name(lang: str) -> str:
    return name_of(lang).capitalize()


@cache
def examples() -> Mapping[str, list[str]]:
    """Questions that mean the same, by language."""
    return yaml.safe_load(Path(__file__).with_name("translate_examples.yaml").read_text("utf-8"))


def endpoint() -> Endpoint:
    """The server."""
    url = os.environ.get("OPENAI_BASE_URL", "http://localhost")
    return Endpoint(url, MODEL, timeout=600.0, max_tokens=96, parameters={"temperature": 0.0})


def request_of(item: Item, where: Endpoint) -> QuestionRequest:
    """The request of an item; its key is that of the answer."""
    turns = messages(item.query, item.lang, item.to)
    return QuestionRequest(key_of(where.model, turns, where.settings), turns, f"{item.id} into {item.to}")


def ask(questions: Path, into: Path, share: int, count: int, concurrency: int) -> None:
    """Sends a share of the requests whose answers are not in the file yet."""
    where = endpoint()
    part = shares(items(questions), count)[share]
    with AnswerStore(into) as known:
        requests = (
            request for request in (request_of(item, where) for item in part) if not known.get(request.key)
        )
        outcomes = ask_all(requests, where, known, Budget(), Patience(concurrency=concurrency))
    print(f"answered {outcomes.answered} of {len(part)}", dict(outcomes.failed.counts), flush=True)


def main() -> None:
    """Runs one of the commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("command", choices=("inputs", "ask", "rows"))
    parser.add_argument("source", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--share", default="0/1", help="ask: which of how many parts")
    parser.add_argument("--concurrency", type=int, default=900, help="ask: most requests at once")
    parser.add_argument("--questions", type=Path, help="rows: what inputs wrote")
    parser.add_argument("--answers", type=Path, help="rows: the file of answers")
    arguments = parser.parse_args()
    if arguments.command == "inputs":
        inputs(arguments.source, arguments.into)
    elif arguments.command == "ask":
        share, count = map(int, arguments.share.split("/"))
        ask(arguments.source, arguments.into, share, count, arguments.concurrency)


if __name__ == "__main__":
    main()
