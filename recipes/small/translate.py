"""Human questions in other languages, by a language model: asked in one language of a passage in another.

    python recipes/small/translate.py inputs build/part/stage-3 --into questions.jsonl.zst
    python recipes/small/translate.py ask questions.jsonl.zst --into answers-0.sqlite --share 0/16
    python recipes/small/translate.py compare questions.jsonl.zst --answers answers.sqlite --into alike.npy
    python recipes/small/translate.py keep questions.jsonl.zst --answers … --alike … --into translations.jsonl.zst
    python recipes/small/translate.py rows build/part/stage-3 --translations translations.jsonl.zst --into build/part

`inputs` chooses languages for each question of ``human-*.jsonl.zst``; `ask` sends them to a server (OPENAI_BASE_URL),
the most important first, so that whatever is there when time is out is a balanced sample; recipes/small/ask.sh with
TRANSLATE=FILE runs the server and many of these. `compare` has the bundled model compare meanings, `keep` keeps what
passes the checks, and `rows` makes training data of it, in ``translated/rows.jsonl``.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from corpus.records import read
from triptych.io import json_lines, write_json
from triptych.text import Rank, digest, fold, name_of, ranker, size
from triptych.tools.synthesize.asking import AnswerStore, Budget, Patience, QuestionRequest, ask_all, key_of
from triptych.tools.synthesize.client import Endpoint, Messages
from triptych.tools.synthesize.questions import clean, speaks

MODEL = "Qwen2.5-Coder-1.5B-Instruct"
TARGETS = {
    **dict.fromkeys(("de", "en", "es", "fr", "it", "ja", "ko", "pt", "ru", "vi", "zh"), 3.0),
    **dict.fromkeys(("ar", "id", "th", "tr"), 2.5),
    **dict.fromkeys(("el", "hi", "ro"), 1.5),
    **dict.fromkeys(("cs", "fa", "he", "nl", "pl", "sv", "uk"), 1.0),
}
"""Languages, and how often each is chosen."""
STRONG = 2.0
"""Least weight of a language into which the languages with few questions are translated."""
FEW = ("ar", "fr", "id")
LARGEST, ROUNDS = "ja", 4
"""The language with more than half of the questions, of which half are left out in each round; rounds of asking."""


SCRIPTS = {
    "ar": ("ARABIC",),
    "el": ("GREEK",),
    "fa": ("ARABIC",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "th": ("THAI",),
    "uk": ("CYRILLIC",),
    "zh": ("CJK", "IDEOGRAPHIC"),
}
"""First words of the names of a language's letters, where Latin ones are not all."""
SHORTEST, LONGEST = 0.4, 2.5
"""Least and most length of a translation in lengths of the question."""
LEAST, LEAST_STRICT, MARGIN = 0.7, 0.8, 0.1
"""Least cosine of question and translation; of two in Latin letters, which have names in common, and from Thai, which
the model reads badly; and by how much it is above that of the nearest other questions."""
POOR = ("el", "fa", "he", "hi", "uk")
"""Languages in which next to nothing reads well, whatever its likeness says: names alone are alike."""
_END = re.compile(r"([?？؟;]|か。?)['\"”’»」』)]*$")
_MIXED = re.compile(r"[\u0370-\u06ff\u0900-\u097f\uac00-\ud7a3][A-Za-z]|[A-Za-z][\u0370-\u06ff\u0900-\u097f]")
"""Two scripts within a word; particles behind a name in Latin letters are none."""
_THOUSANDS = re.compile(r"(?<=\d)[.,\u066c ](?=\d{3}(?!\d))")
_MONTHS = re.compile(r"\d{1,2} ?[月월]|tháng \d{1,2}")


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


def keep(questions: Path, answers: Path, alike: Path, into: Path) -> None:
    """Writes the translations that pass the checks: ids of questions, languages and texts; and counts beside them."""
    rank, where = ranker(normalize=False), endpoint()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seen: set[tuple[str, str]] = set()
    likeness = np.load(alike).astype(np.float32)
    with AnswerStore(answers) as known, json_lines(into) as write:
        for item, (own, others) in zip(items(questions), likeness, strict=True):
            answer = known.get(request_of(item, where).key)
            if answer is None:
                continue
            text = clean(answer.text)
            problem = "cut off" if answer.finish != "stop" else problem_of(text, item, rank)
            if problem is None and item.to in POOR:
                problem = "poor language"
            if problem is None and not means(item, own, others):
                problem = "other meaning"
            if problem is None and (fold(text), item.to) in seen:
                problem = "repeated"
            counts[item.to][problem or "kept"] += 1
            if problem is None:
                seen.add((fold(text), item.to))
                write({"id": item.id, "query": text, "lang": item.to})
    total = sum(counts.values(), Counter[str]())
    facts = {
        "answers": total.total(),
        "kept": total["kept"],
        "generator": MODEL,
        "dropped": dict(total.most_common()),
    }
    facts["dropped"].pop("kept", None)
    languages = {lang: count for lang, each in counts.items() if (count := each["kept"])}
    facts |= {"languages": dict(sorted(languages.items(), key=lambda each: -each[1]))}
    write_json(into.with_name("translations.json"), facts)
    print(facts, flush=True)


def means(item: Item, own: float, others: float) -> bool:
    """Whether a translation means what its question does, by cosines (see `compare`)."""
    strict = item.lang == "th" or (item.lang not in SCRIPTS and item.to not in SCRIPTS)
    return own >= (LEAST_STRICT if strict else LEAST) and own - others >= MARGIN


def rows(folder: Path, translations: Path, into: Path) -> None:
    """Writes training data: the translations on the passages of their questions."""
    human = {row["id"]: row for row in _human(folder)}
    with json_lines(into / "translated" / "rows.jsonl") as write:
        for each in read(translations):
            row = human[each["id"]]
            out = {"query": each["query"], "pos": row["pos"], "neg": [], "lang": each["lang"]}
            write(out | {"pos_id": row["pos_id"], "article": row["article"], "pos_lang": row["lang"]})


def problem_of(text: str, item: Item, rank: Rank) -> str | None:
    """What is wrong with a translation, without its meaning; None: nothing."""
    if not text:
        return "empty"
    if "\n" in text:
        return "more than a question"
    if fold(text) == fold(item.query):
        return "not translated"
    if any(fold(text) == fold(example) for example in examples()[item.to]):
        return "an example"
    if not SHORTEST <= size(text) / size(item.query) <= LONGEST:
        return "length"
    if numbers(text) != numbers(item.query):
        return "numbers"
    scripts = Counter(unicodedata.name(char, "?").split()[0] for char in text if char.isalpha())
    if set(scripts) - {"LATIN", *SCRIPTS.get(item.to, ())} or _MIXED.search(text):
        return "other script"
    if item.to != "th" and not _END.search(text):
        return "not a question"
    return None if speaks(text, item.to, rank) else "other language"


def numbers(text: str) -> Counter[str]:
    """Numbers in digits of any script; not those of months, which have names in other languages."""
    plain = _MONTHS.sub("", _THOUSANDS.sub("", unicodedata.normalize("NFKC", text)))
    return Counter(str(int(each)) for each in re.findall(r"\d+", plain))


def compare(questions: Path, answers: Path, into: Path) -> None:
    """How alike each answer and its question are to the bundled model: ``[all items, 2]``, NaN where there is none.

    The second column is the mean cosine of the answer and the four nearest other questions of the same language: a
    translation is nearer to its own question than these are.
    """
    import torch  # not for every client that asks

    from triptych import Encoder

    found, where = items(questions), endpoint()
    with AnswerStore(answers) as known:
        got = {n: a.text for n, item in enumerate(found) if (a := known.get(request_of(item, where).key))}
    encoder = Encoder.from_pretrained("small")
    own = {item.id: (item.query, item.lang) for item in found}
    places = {id_: n for n, id_ in enumerate(own)}
    asked = torch.from_numpy(encoder.encode_query([text for text, _ in own.values()], outputs="dense").dense)
    said = torch.from_numpy(
        encoder.encode_query([clean(text) for text in got.values()], outputs="dense").dense
    )
    asked, said = asked.to(encoder.device).float(), said.to(encoder.device).float()
    out = np.full((len(found), 2), np.nan, np.float16)
    for lang in sorted({lang for _, lang in own.values()}):
        numbers = torch.tensor(
            [n for n, (_, each) in enumerate(own.values()) if each == lang], device=encoder.device
        )
        which = [(row, n) for row, n in enumerate(got) if found[n].lang == lang]
        for part in (which[start : start + 2048] for start in range(0, len(which), 2048)):
            sums = said[[row for row, _ in part]] @ asked[numbers].T
            right = torch.tensor([places[found[n].id] for _, n in part], device=encoder.device)
            is_own = numbers[None] == right[:, None]
            others = sums.masked_fill(is_own, -1.0).topk(min(4, len(numbers))).values.mean(1)
            out[[n for _, n in part]] = torch.stack([sums[is_own], others], 1).cpu().numpy()
    np.save(into, out)


def main() -> None:
    """Runs one of the commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("command", choices=("inputs", "ask", "compare", "keep", "rows"))
    parser.add_argument("source", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--share", default="0/1", help="ask: which of how many parts")
    parser.add_argument("--concurrency", type=int, default=900, help="ask: most requests at once")
    parser.add_argument("--answers", type=Path, help="compare, keep: the file of answers")
    parser.add_argument("--alike", type=Path, help="keep: what compare wrote")
    parser.add_argument("--translations", type=Path, help="rows: what keep wrote")
    given = parser.parse_args()
    match given.command:
        case "inputs":
            inputs(given.source, given.into)
        case "ask":
            share, count = map(int, given.share.split("/"))
            ask(given.source, given.into, share, count, given.concurrency)
        case "compare":
            compare(given.source, given.answers, given.into)
        case "keep":
            keep(given.source, given.answers, given.alike, given.into)
        case _:
            rows(given.source, given.translations, given.into)


if __name__ == "__main__":
    main()
