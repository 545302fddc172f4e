"""Random representations whose scores are exact in float32, so that ties are ties; small corpora as files."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

import checkpoints
from triptych.types import Encoded, Ragged

VOCABULARY = 40


def encoded(count: int, seed: int, *, empty: Sequence[int] = ()) -> Encoded:
    """N texts of few different values, eighths, so that many scores are equal; `empty` ones have no tokens."""
    draw = np.random.default_rng(seed)
    lexical = draw.integers(0, 9, (count, VOCABULARY)) / 8 * (draw.random((count, VOCABULARY)) < 0.15)
    heights = draw.choice([1, 2, 4], count)  # powers of two: a mean is exact, too
    for i in empty:
        lexical[i] = 0
        heights[i] = 0
    multi = [draw.integers(-2, 3, (height, 4)).astype(np.float32) / 4 for height in heights]
    return Encoded(
        draw.integers(-1, 2, (count, 4)).astype(np.float32) / 2,
        sparse.csr_array(lexical.astype(np.float32)),
        Ragged.of(multi, 4),
    )


def write_corpus(path: Path, count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Passages of a few words, of articles in two languages, some with a title; gives them."""
    draw = random.Random(seed)
    passages: list[dict[str, Any]] = []
    for number in range(count):
        text = " ".join(draw.choices(checkpoints.WORDS, k=draw.randint(3, 12)))
        passage = {"id": f"p{draw.randint(0, 10**6):07d}", "text": text}
        passage |= {"article": f"a{number // 4}", "lang": "en" if number % 4 < 2 else "de"}
        if number % 7 == 0:
            passage["title"] = f"hello {number}"
        passages.append(passage)
    write_lines(path, passages)
    return passages


def write_training(path: Path, passages: Sequence[dict[str, Any]], count: int = 30, seed: int = 1) -> None:
    """Queries on passages: words of theirs; one in three has a second positive, one in four a negative."""
    draw = random.Random(seed)
    records: list[dict[str, Any]] = []
    for number in range(count):
        answer = draw.choice(passages)
        words = answer["text"].split()
        record = {"id": f"q{number}", "query": " ".join(draw.sample(words, min(3, len(words))))}
        record |= {"pos": [answer["text"]], "neg": [], "lang": answer["lang"], "source": f"s{number}"}
        if number % 3 == 0:
            record["pos"].append(f"{record['query']} is the text")
        if number % 4 == 0:
            record["neg"].append("a passage of hello world")
        records.append(record)
    write_lines(path, records)


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """JSON Lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
