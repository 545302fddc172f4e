"""Indexes a file of passages with their questions by `triptych index`, searches it, and scores the answers.

    python benchmarks/qa_search.py PASSAGES.jsonl.zst --out benchmarks/results/qa_search.json

A line of the file is ``{"s": set, "l": language, "a": article, "t": passage, "q": [question, …]}``. All passages
of all languages stand in one index. A question's answer is its own passage; translations of that passage (sets
that repeat the same passages in several languages, in the same order) are left out of the ranking, since they
answer it too. Beside our modes stands BM25 over words (bm25s with its defaults) and over the model's own pieces.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bm25s
import ir_measures
import numpy as np
from ir_measures import nDCG

from triptych.documents import read_documents
from triptych.encode.encoder import Encoder
from triptych.index.index import Index
from triptych.records import Fields
from triptych.types import HeadWeights

MODES = {
    "dense": ((1, 0, 0), ("dense",)),
    "lexical": ((0, 1, 0), ("lexical",)),
    "multi": ((0, 0, 1), ("dense", "lexical")),
    "dense+lexical": ((1, 0.3, 0), ("dense", "lexical")),
    "all": ((1, 0.3, 1), ("dense", "lexical")),
}
DEPTH = 50


class Question(NamedTuple):
    text: str
    group: str
    answer: str
    left_out: frozenset[str]


def read(path: Path) -> tuple[dict[str, str], list[list[Question]]]:
    """Passages by id, and the questions of each passage."""
    passages: dict[str, str] = {}
    questions: list[list[Question]] = []
    place: dict[tuple[str, str], int] = defaultdict(int)
    twins: dict[tuple[str, int], set[str]] = defaultdict(set)
    rows: list[tuple[str, dict[str, Any], tuple[str, int]]] = []
    for document in read_documents([str(path)], fields=Fields.of(None, "t", None)):
        record = document.metadata
        key = (record["s"], place[record["s"], record["l"]])
        place[record["s"], record["l"]] += 1
        if record["s"] == "xquad":
            twins[key].add(document.id)
        passages[document.id] = document.text
        rows.append((document.id, dict(record), key))
    for name, record, key in rows:
        group = f"{record['s']} {record['l']}"
        others = frozenset(twins[key] - {name})
        # A cross-lingual set gives [language, question, translation]; the question is what was asked.
        texts = [entry if isinstance(entry, str) else entry[1] for entry in record["q"]]
        questions.append([Question(text, group, name, others) for text in texts])
    return passages, questions


def sample(questions: list[list[Question]], each: int, seed: int) -> list[Question]:
    """At most `each` questions of every set and language, one a passage."""
    rng = np.random.default_rng(seed)
    groups: dict[str, list[Question]] = defaultdict(list)
    for of_passage in questions:
        if of_passage:
            question = of_passage[int(rng.integers(len(of_passage)))]
            groups[question.group].append(question)
    return [g[int(i)] for g in groups.values() for i in sorted(rng.permutation(len(g))[:each])]


def ndcg(questions: Sequence[Question], ranked: Sequence[Sequence[str]]) -> dict[str, float]:
    """nDCG@10 by group, and their mean."""
    run: dict[str, dict[str, float]] = {}
    for i, (question, names) in enumerate(zip(questions, ranked, strict=True)):
        kept = [name for name in names if name not in question.left_out]
        run[str(i)] = {name: float(-rank) for rank, name in enumerate(kept)}
    qrels = {str(i): {question.answer: 1} for i, question in enumerate(questions)}
    found: dict[str, list[float]] = defaultdict(list)
    for metric in ir_measures.iter_calc([nDCG @ 10], qrels, run):
        found[questions[int(metric.query_id)].group].append(metric.value)
    groups = {group: float(np.mean(values)) for group, values in sorted(found.items())}
    return {"mean": float(np.mean(list(groups.values()))), **groups}


def bm25(passages: dict[str, str], questions: Sequence[Question], tokens: Any) -> list[list[str]]:
    """The best passages by BM25; `tokens` cuts texts into lists of strings."""
    names, engine = list(passages), bm25s.BM25()
    engine.index(tokens(list(passages.values())), show_progress=False)
    rows, _ = engine.retrieve(tokens([q.text for q in questions]), k=DEPTH, show_progress=False)
    return [[names[int(i)] for i in row] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("passages", type=Path)
    parser.add_argument("--index", type=Path, default=Path("qa.index"))
    parser.add_argument("--questions", type=int, default=30, help="of each set and language")
    parser.add_argument("--model", default="small")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    passages, by_passage = read(options.passages)
    questions = sample(by_passage, options.questions, seed=0)
    result: dict[str, Any] = {"passages": len(passages), "questions": len(questions), "model": options.model}
    if not options.index.exists():
        command = [
            sys.executable,
            "-m",
            "triptych.cli",
            "index",
            str(options.passages),
            "--into",
            str(options.index),
        ]
        start = time.perf_counter()
        subprocess.run([*command, "--text-field", "t", "--model", options.model], check=True)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        result["index"] = {
            "seconds": round(time.perf_counter() - start),
            "processor_seconds": round(usage.ru_utime + usage.ru_stime),
            "peak_memory_mb": round(usage.ru_maxrss / 1024),
            "disk_mb": round(sum(f.stat().st_size for f in options.index.rglob("*") if f.is_file()) / 2**20),
        }

    encoder = Encoder.from_pretrained(options.model)
    scores: dict[str, dict[str, float]] = {}
    with Index.open(options.index, encoder) as index:
        for mode, (weights, routes) in MODES.items():
            start = time.perf_counter()
            hits = index.search(
                [q.text for q in questions],
                DEPTH,
                weights=HeadWeights(*weights),
                routes=routes,
                candidates=200,
            )
            taken = (time.perf_counter() - start) / len(questions)
            scores[mode] = ndcg(questions, [[hit.id for hit in found] for found in hits])
            print(f"{mode:14} {scores[mode]['mean']:.4f}  {1000 * taken:.1f} ms a question")

    def pieces(texts: list[str]) -> list[list[str]]:
        return [[str(i) for i in ids] for ids in encoder.tokenizer.encode(texts, max_length=512).ids]

    def words(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords=None, show_progress=False, return_ids=False)

    for name, tokens in (("bm25 words", words), ("bm25 pieces", pieces)):
        scores[name] = ndcg(questions, bm25(passages, questions, tokens))
        print(f"{name:14} {scores[name]['mean']:.4f}")
    result["ndcg@10"] = {name: {k: round(v, 4) for k, v in values.items()} for name, values in scores.items()}
    options.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
