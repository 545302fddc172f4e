"""Which sum of the three scores a default should be, by development questions alone.

    python recipes/small/fusion.py ntrex CORPUS --into build/fusion/ntrex        # stories of the news across languages
    python recipes/small/fusion.py score MODEL FOLDER… --into build/fusion/scores.npz
    python recipes/small/fusion.py compare build/fusion/scores.npz

`score` keeps, for every question, all passages that are among the best of any head, with their three scores, and Σw² of
the question's lexical weights. `compare` prints nDCG@10 of every rule in every group, and how far it is behind the best
single head.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from triptych.collections.beir import load_beir
from triptych.io import json_lines, write_atomically

BEST = 200
"""Passages that are kept of each head's ranking."""
LANGUAGES = ("de", "es", "fr", "ru", "ar", "hi", "ja", "zh", "tr", "vi", "en", "ko")
"""Of the news across languages."""


def main() -> None:
    """Runs one of the commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("command", choices=("ntrex", "score", "compare"))
    parser.add_argument("source")
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--into", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "ntrex":
        news(Path(arguments.source) / "work", arguments.into)
    elif arguments.command == "score":
        score(arguments.source, arguments.folders, arguments.into)
    else:
        compare(Path(arguments.source))


def news(work: Path, into: Path) -> None:
    """A folder of headlines and the beginnings of their stories, both in all languages, of stories that are held out.

    A headline is asked in one language and its story wanted in the next, the translations between them being left out.
    """
    from corpus import store
    from corpus.languages import canonical
    from synthetic import is_held_out
    from triptych.text import digest

    held_out = [story for story in store.translations(work) if is_held_out(story.source, story.key)]
    passages, queries, qrels, excluded = [], [], ["query-id\tcorpus-id\tscore"], ["query-id\tcorpus-id"]
    for story in held_out:
        texts = {canonical(language)[:2]: found for language, found in story.texts.items()}
        for number, language in enumerate(LANGUAGES):
            found = texts[language]
            passages.append({"_id": f"{story.key}/{language}", "text": " ".join(found[1:5])})
            queries.append({"_id": f"{story.key}/{language}?", "text": found[0]})
            wanted = LANGUAGES[(number + 1 + digest(story.key) % 11) % len(LANGUAGES)]
            qrels.append(f"{story.key}/{language}?\t{story.key}/{wanted}\t1")
            others = [other for other in LANGUAGES if other != wanted]
            excluded += [f"{story.key}/{language}?\t{story.key}/{other}" for other in others]
    (into / "qrels").mkdir(parents=True, exist_ok=True)
    (into / "excluded").mkdir(exist_ok=True)
    for file, rows in (("corpus", passages), ("queries", queries)):
        with json_lines(into / f"{file}.jsonl") as write:
            for row in rows:
                write(row)
    write_atomically(into / "qrels" / "dev.tsv", "\n".join(qrels).encode() + b"\n")
    write_atomically(into / "excluded" / "dev.tsv", "\n".join(excluded).encode() + b"\n")
    print(f"{into}: {len(queries)} queries, {len(passages)} passages")


def score(model: str, folders: list[Path], into: Path) -> None:
    """The scores of each folder's questions; passages of all folders but the long ones are one pool."""
    from triptych.encode.encoder import Encoder
    from triptych.types import HEADS

    encoder = Encoder.from_pretrained(model)
    out: dict[str, Any] = {}
    sets = {folder.name: load_beir(folder, "dev") for folder in folders}
    pools = {"short": [n for n in sets if n != "dev-long"], "long": [n for n in sets if n == "dev-long"]}
    for pool in filter(None, pools.values()):
        texts = {f"{name}/{id_}": text for name in pool for id_, text in sets[name].corpus.items()}
        number = {text: place for place, text in enumerate(dict.fromkeys(texts.values()))}
        passages = encoder.encode_document(list(number))
        for name in pool:
            asked = sets[name]
            ids = list(asked.qrels)
            queries = encoder.encode_query([asked.queries[id_] for id_ in ids])
            own = np.asarray(queries.lexical.multiply(queries.lexical).sum(axis=1)).ravel()
            excluded = _excluded(folders, name)
            rows: dict[str, list[Any]] = defaultdict(list)
            whole = _all_scores(encoder.device, queries, passages)
            for start in range(0, len(ids), 32):
                scores = np.stack([whole[head][start : start + 32] for head in HEADS], -1)
                for row, id_ in enumerate(ids[start : start + 32]):
                    found = scores[row]
                    for other in excluded.get(id_, ()):
                        found[number[asked.corpus[other]]] = -1
                    gains = {
                        number[asked.corpus[d]]: g for d, g in asked.qrels[id_].items() if d in asked.corpus
                    }
                    best = np.unique(
                        np.concatenate(
                            [
                                np.argpartition(-found[:, h], min(BEST, len(found) - 1))[:BEST]
                                for h in range(3)
                            ]
                            + [list(gains)]
                        )
                    ).astype(int)
                    rows["scores"].append(found[best].astype(np.float16))
                    rows["gains"].append(np.array([gains.get(int(b), 0) for b in best], np.float16))
                    rows["counts"].append(len(best))
            out |= {
                f"{name}.scores": np.concatenate(rows["scores"]),
                f"{name}.gains": np.concatenate(rows["gains"]),
                f"{name}.counts": np.array(rows["counts"]),
                f"{name}.own": own.astype(np.float32),
                f"{name}.ids": np.array(ids),
            }
            print(name, len(ids), "questions,", len(number), "passages", flush=True)
    into.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(into, **out)


def _all_scores(device: Any, queries: Any, passages: Any) -> dict[Any, np.ndarray]:
    """By head ``[Q, N]``; on a GPU the token vectors are multiplied in 16 bits."""
    import torch

    from triptych.scores.on_numpy import head_scores
    from triptych.scores.on_torch import device_scoring
    from triptych.types import HEADS

    if device.type == "cpu":
        return {head: head_scores(queries, passages, head) for head in HEADS}
    scoring = device_scoring(device, torch.float16)(queries)
    parts = [scoring(passages[start : start + 512], HEADS) for start in range(0, len(passages), 512)]
    return {head: np.concatenate([part[head] for part in parts], 1) for head in HEADS}


def _excluded(folders: list[Path], name: str) -> dict[str, list[str]]:
    path = next(folder for folder in folders if folder.name == name) / "excluded" / "dev.tsv"
    found: dict[str, list[str]] = defaultdict(list)
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            query, document = line.split("\t")[:2]
            found[query].append(document)
    return found


Rule = Callable[[np.ndarray, float], np.ndarray]


def _linear(dense: float, lexical: float, multi: float) -> Rule:
    return lambda s, own: dense * s[:, 0] + lexical * s[:, 1] + multi * s[:, 2]


def _coverage(dense: float, lexical: float, multi: float, power: float) -> Rule:
    return lambda s, own: (
        dense * s[:, 0] + lexical * (np.maximum(s[:, 1], 0) / max(own, 1e-6)) ** power + multi * s[:, 2]
    )


RULES: dict[str, Rule] = {
    "dense": _linear(1, 0, 0),
    "lexical": _linear(0, 1, 0),
    "multi": _linear(0, 0, 1),
    **{
        f"({d:g}, {x:g}, {m:g})": _linear(d, x, m)
        for d, x, m in (
            (1, 0.3, 0),
            (1, 0.1, 0),
            (1, 0.3, 1),
            (1, 0.1, 1),
            (1, 0.05, 1),
            (1, 0.3, 3),
            (1, 0.1, 3),
            (1, 0.04, 3),
            (1, 0.5, 3),
            (0, 0.05, 1),
            (0, 0.02, 1),
        )
    },
    **{
        f"{d:g} dense + {c:g} coverage^{p:g} + {m:g} multi": _coverage(d, c, m, p)
        for d, m in ((1, 3), (1, 1), (0, 1), (1, 0))
        for c in (0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
        for p in (1, 2, 3)
    },
}


def ndcg(scores: np.ndarray, gains: np.ndarray, total: np.ndarray) -> float:
    """nDCG@10 of one ranking."""
    discounts = 1 / np.log2(np.arange(2, 12))
    best = np.argsort(-scores, kind="stable")[:10]
    ideal = np.sort(total)[::-1][:10]
    return float((gains[best] * discounts[: len(best)]).sum() / (ideal * discounts[: len(ideal)]).sum())


def compare(path: Path) -> None:
    """Prints the table."""
    data = np.load(path)
    names = [key.removesuffix(".own") for key in data.files if key.endswith(".own")]
    table: dict[str, list[float]] = {rule: [] for rule in RULES}
    for name in names:
        ends = np.cumsum(data[f"{name}.counts"])
        scores, gains = data[f"{name}.scores"].astype(np.float32), data[f"{name}.gains"].astype(np.float32)
        own = data[f"{name}.own"]
        for rule, total in RULES.items():
            found = [
                ndcg(total(scores[a:b], own[i]), gains[a:b], gains[a:b])
                for i, (a, b) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True))
            ]
            table[rule].append(100 * float(np.mean(found)))
    best = [max(table[head][i] for head in ("dense", "lexical", "multi")) for i in range(len(names))]
    print(f"{'':44}", *(f"{name:>10}" for name in names), f"{'mean':>8}{'worst':>8}")
    for rule, found in table.items():
        behind = min(f - b for f, b in zip(found, best, strict=True))
        print(f"{rule:44}", *(f"{value:10.2f}" for value in found), f"{np.mean(found):8.2f}{behind:8.2f}")


if __name__ == "__main__":
    main()
