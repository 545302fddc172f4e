"""Scales a model's lexical head so that the default weights of the three scores fit it.

    python recipes/small/lexical_scale.py MODEL --development DEV --into FOLDER --report FILE
    python recipes/small/lexical_scale.py MODEL --factor 0.25 --into FOLDER

The loss does not fix the scale: a head times c gives the same ranking, with scores times c². What is chosen is the c²
for which dense + 0.3 lexical + multi ranks the development queries best (mean nDCG@10 of the development sets, whose
name is what stands before the first "/" of a query's id). Only the best candidates of each score are compared. With
--factor c² is given.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from triptych import Encoder
from triptych.collections.beir import load_beir
from triptych.eval.tuning import Development
from triptych.io import write_json
from triptych.model import checkpoint as layouts
from triptych.model import hub
from triptych.scores.on_numpy import head_scores
from triptych.types import Encoded, HeadWeights

FACTORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
CANDIDATES = 50


class Set(NamedTuple):
    """The candidates of one development set's queries."""

    name: str
    development: Development


def main() -> None:
    """Chooses the factor and writes the model with it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("--development", type=Path)
    parser.add_argument("--factor", type=float, help="instead of choosing one")
    parser.add_argument("--split", default="dev")
    parser.add_argument(
        "--leave-out", nargs="*", default=[], metavar="SET", help="development sets that do not count"
    )
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    if arguments.factor is None:
        if not (arguments.development and arguments.report):
            parser.error("expected --development and --report, or --factor")
        factor = choose(arguments)
    else:
        factor = arguments.factor
    folder = hub.resolve(arguments.model)
    checkpoint = layouts.load(folder)
    with torch.no_grad():
        for parameter in cast(Any, checkpoint.model).lexical_head.parameters():
            parameter.mul_(factor**0.5)
    layouts.save(checkpoint, arguments.into, start=folder)


def choose(arguments: argparse.Namespace) -> float:
    """The factor that development likes best; writes the report."""
    found = candidates(Encoder.from_pretrained(arguments.model), arguments.development, arguments.split)
    sets = [one for one in found if one.name not in arguments.leave_out]
    tried = {factor: figures(sets, HeadWeights(1.0, 0.3 * factor, 1.0)) for factor in FACTORS}
    best = max(tried, key=lambda factor: tried[factor]["mean"])
    alone = {
        head: figures(sets, HeadWeights(**{"dense": 0.0, "lexical": 0.0, "multi": 0.0, head: 1.0}))
        for head in ("dense", "lexical", "multi")
    }
    write_json(
        arguments.report, {"chosen": best, "heads": alone, "all": {str(k): v for k, v in tried.items()}}
    )
    print({factor: round(found["mean"], 4) for factor, found in tried.items()}, "->", best)
    return best


def candidates(encoder: Encoder, folder: Path, split: str) -> list[Set]:
    """The scores of each query's best documents by any of the heads."""
    data = load_beir(folder, split)
    ids = list(data.corpus)
    row_of = {document: row for row, document in enumerate(ids)}
    documents = encoder.encode_document([data.corpus[name] for name in ids])
    names: dict[str, list[str]] = {}
    for query in data.qrels:
        names.setdefault(query.split("/", 1)[0], []).append(query)
    found: list[Set] = []
    for name, queries in names.items():
        encoded = encoder.encode_query([data.queries[query] for query in queries])
        judged = [
            {row_of[d]: grade for d, grade in data.qrels[query].items() if d in row_of} for query in queries
        ]
        found.append(Set(name, _development(encoded, documents, judged)))
    return found


def _development(queries: Encoded, documents: Encoded, judged: list[dict[int, int]]) -> Development:
    dense, lexical = head_scores(queries, documents, "dense"), head_scores(queries, documents, "lexical")
    scores = np.full((3, len(judged), 3 * CANDIDATES), np.nan, np.float32)
    gains: list[dict[int, float]] = []
    for i, relevant in enumerate(judged):
        both = (dense[i], lexical[i], dense[i] + 0.3 * lexical[i])
        rows = np.unique(np.concatenate([np.argsort(-each)[:CANDIDATES] for each in both]))
        multi = head_scores(queries[i], documents[rows], "multi")[0]
        scores[:, i, : len(rows)] = dense[i, rows], lexical[i, rows], multi
        column = {int(row): number for number, row in enumerate(rows)}
        gains.append({column.get(row, -1 - row): grade for row, grade in relevant.items()})
    return Development(scores, gains)


def figures(sets: list[Set], weights: HeadWeights) -> Mapping[str, float]:
    """nDCG@10 of each set by a weighted sum, and their mean."""
    each = {name: round(development.ndcg(weights), 4) for name, development in sets}
    return {"mean": round(float(np.mean(list(each.values()))), 4), **each}


if __name__ == "__main__":
    main()
