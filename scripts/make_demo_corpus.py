"""Chooses the demo corpus and its queries from parallel documents.

The input is JSON Lines (plain, .gz or .zst) with one document in one language a line: ``s`` source, ``k`` key
(the same in all languages), ``l`` language, ``t`` title, ``p`` = [[index, kind, text], …] where the index aligns
paragraphs across languages and an empty kind is running text. The same input gives the same files, byte for byte.

    python scripts/make_demo_corpus.py --docs docs.jsonl.zst --out src/triptych/demo
"""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from demo_topics import EXCLUDED, LANGUAGES, QUERIES, SCARCE, SCRIPTS, SOURCES, TOPICS, WIKI_LANGUAGES, Topic

from triptych.io import open_source, read_lines

LEAST, MOST = (
    200,
    900,
)  # characters of a passage; a third of it in scripts that write a word in two characters
DENSE = {"zh", "ja", "ko"}
BROKEN = re.compile(r"TODO|https?:|Command|CTRL|[{}\\<>]|\[\w*\s?(requer|cita|citation|réf|note)|\ufffd")
ENGLISH = {"the", "and", "with", "that", "which", "this", "are"}
LIST_AHEAD = re.compile(r"[^.!?。！？।]*[:：]$")  # a last sentence that announces what was left out
SENTENCE = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])")


@dataclass(frozen=True)
class Passage:
    """A passage of the corpus, in the order of its fields in the file."""

    id: str
    title: str
    text: str
    lang: str
    source: str
    topic: str


def main() -> None:
    """Reads the documents, writes ``corpus.jsonl.zst`` and ``queries.jsonl``, prints what they hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--docs", type=Path, nargs="+", required=True, help="the documents' files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    arguments = parser.parse_args()
    passages = choose(load(arguments.docs))
    queries = make_queries(passages)
    lines = "".join(json.dumps(vars(p), ensure_ascii=False) + "\n" for p in passages).encode()
    (arguments.out / "corpus.jsonl.zst").write_bytes(zstandard.ZstdCompressor(level=19).compress(lines))
    text = "".join(json.dumps(query, ensure_ascii=False) + "\n" for query in queries)
    (arguments.out / "queries.jsonl").write_text(text, encoding="utf-8")
    print(len(passages), "passages;", dict(Counter(p.lang for p in passages).most_common()))
    print(dict(Counter(p.source for p in passages)), len(lines), "bytes")


def load(paths: Iterable[Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """The documents that a topic needs: {(source, key): {language: record}}."""
    wanted = {(topic.source, topic.key) for topic in TOPICS}
    names = {code: name for name, code in LANGUAGES.items()}
    found: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for path in paths:
        with open_source(path) as source:
            for line in read_lines(source):
                record = json.loads(line.text)
                place = (record["s"], record["k"])
                if place in wanted and record["l"] in names:
                    found[place][names[record["l"]]] = record
    return found


def choose(documents: dict[tuple[str, str], dict[str, Any]]) -> list[Passage]:
    """Takes each topic in some of its languages, in turn, so that none has all topics and no topic all languages.

    Languages with few topics keep all of theirs.
    """
    passages: list[Passage] = []
    turn = Counter[str]()
    for topic in TOPICS:
        number = turn[topic.source]
        turn[topic.source] += 1
        source = SOURCES[topic.source]
        for rank, language in enumerate(WIKI_LANGUAGES if topic.source == "wiki" else LANGUAGES):
            if language in source.without:
                continue
            if language not in SCARCE and (number * source.step + rank) % source.cycle >= source.kept:
                continue
            passage = make_passage(documents[topic.source, topic.key], topic, language)
            if passage and passage.id not in EXCLUDED:
                passages.append(passage)
    return passages


def make_passage(versions: dict[str, Any], topic: Topic, language: str) -> Passage | None:
    """The topic's passage in a language, or None if it is missing, untranslated, broken or too short."""
    record = versions.get(language)
    if record is None:
        return None
    text = shorten(" ".join(paragraphs(record, topic)))
    least = LEAST // 3 if language in DENSE else LEAST
    if len(text) < least or BROKEN.search(text) or not is_in(text, language):
        return None
    heading = next((clean(body) for _, kind, body in record["p"] if kind == "h1"), "")
    title = clean(record["t"]) or (heading if is_in(heading, language) else "")
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_of(topic.name).lower()).strip("-")
    source = SOURCES[topic.source]
    return Passage(
        f"{source.prefix}:{language}:{slug}", title, text, language, source.name, f"{source.prefix}:{slug}"
    )


def paragraphs(record: dict[str, Any], topic: Topic) -> Iterator[str]:
    """The running text of the topic's paragraphs; none at all if one of them is missing."""
    text = {}
    for index, kind, body in record["p"]:
        if not kind and not (topic.source == "handbook" and body.startswith("Download the ebook")):
            text.setdefault(index, body)
    if all(index in text for index in topic.indices):
        for index in topic.indices:
            yield clean(" ".join(text[index].split("\n")[slice(*topic.lines)]))


def clean(text: str) -> str:
    """Without chapter numbers, foot-note marks, soft hyphens and repeated blanks."""
    text = re.sub(r"\[\d+\]|\u00ad", "", text)
    return " ".join(re.sub(r"^[\d۰-۹A-Z]+\.[\d۰-۹]+\.\s*\u200f?", "", text).split())


def shorten(text: str) -> str:
    """The first whole sentences, up to MOST characters."""
    kept = ""
    for end in [match.start() for match in SENTENCE.finditer(text)] + [len(text)]:
        if end > MOST:
            break
        kept = text[:end]
    return LIST_AHEAD.sub("", kept.strip()).strip()


def is_in(text: str, language: str) -> bool:
    """Whether a text is in the script of a language, and not left in English."""
    letters = [c for c in text if c.isalpha()]
    script = SCRIPTS.get(language)
    if script:
        named = sum(unicodedata.name(c, "").startswith(script) for c in letters)
        return named > 0.7 * len(letters)
    words = re.findall(r"\w+", text.lower())
    return language == "en" or sum(word in ENGLISH for word in words) < 0.03 * len(words)


def ascii_of(text: str) -> str:
    """The letters without their accents."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def make_queries(passages: list[Passage]) -> list[dict[str, Any]]:
    """The demo's queries with the ids that answer them.

    Raises:
        SystemExit: If a query's topics have no passage.
    """
    queries: list[dict[str, Any]] = []
    for number, query in enumerate(QUERIES, start=1):
        answers = [p for p in passages if p.topic in query.topics]
        crossing = all(p.lang != query.language for p in answers)
        if len({p.topic for p in answers}) != len(query.topics):
            raise SystemExit(f"query {query.text!r}: no passage for one of {query.topics}")
        queries.append(
            {
                "id": f"demo-{number:02}",
                "text": query.text,
                "lang": query.language,
                "cross_lingual": crossing,
                "relevant": [p.id for p in answers],
            }
        )
    return queries


if __name__ == "__main__":
    main()
