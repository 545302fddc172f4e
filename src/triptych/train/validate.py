"""Evaluation during training (nDCG of every head on a held-out collection, by exact search) and the run's log."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.collections.beir import BeirSet
from triptych.io import write_atomically, write_json
from triptych.model.packed import Packed, Reps
from triptych.model.tokenizer import TextTokenizer
from triptych.scores.on_numpy import ndcg
from triptych.scores.on_torch import combine
from triptych.scores.paired import cluster_means, paired_t
from triptych.train.gradcache import original_order, split
from triptych.train.loop import Record
from triptych.train.objective import INTEGRATED, Triple, concat_reps, score, take
from triptych.train.trackers import TrackedRun, figures_of, open_trackers
from triptych.types import Head


class Validation:
    """A collection, tokenised once.

    Args:
        collection: Queries, documents and judgements.
        tokenizer: Of the model.
        query: Most tokens and prefix of a query.
        document: The same of a document.
        k: Depth of nDCG@k.

    Attributes:
        ids: Of the queries.
        clusters: Of the queries: those with the same relevant documents are one in a test.
    """

    def __init__(
        self,
        collection: BeirSet,
        tokenizer: TextTokenizer,
        query: tuple[int, str],
        document: tuple[int, str],
        k: int = 10,
    ) -> None:
        def encoded(texts: Sequence[str], limit: tuple[int, str]) -> Packed:
            return Packed.of(tokenizer.encode(texts, max_length=limit[0], prefix=limit[1]).ids)

        column = {id_: number for number, id_ in enumerate(collection.corpus)}
        self._queries = encoded(list(collection.queries.values()), query)
        self._documents = encoded(list(collection.corpus.values()), document)
        self._gains = [
            {column[id_]: float(gain) for id_, gain in collection.qrels[name].items()}
            for name in collection.queries
        ]
        self._k = k
        self.ids = list(collection.queries)
        self.clusters = [
            frozenset(column for column, gain in gains.items() if gain > 0) for gains in self._gains
        ]

    def __call__(
        self,
        encode: Callable[[Packed], Reps],
        heads: Sequence[Head],
        weights: Triple,
        *,
        device: torch.device,
        budget: int = 16384,
    ) -> dict[str, NDArray[np.float64]]:
        """nDCG@k of each query, ``[Q]``, by each head, and by the integrated score if there are several heads.

        Args:
            encode: From a packed batch to representations.
            heads: Which ones.
            weights: Of the integrated score.
            device: Where `encode` wants its batches.
            budget: Tokens encoded at a time.
        """
        queries = _encode(encode, self._queries, device, budget)
        documents = _encode(encode, self._documents, device, budget)
        scores: dict[Head, Tensor] = {head: score(head, queries, documents) for head in heads}
        found: dict[str, NDArray[np.float64]] = {head: self._each(matrix) for head, matrix in scores.items()}
        if len(scores) > 1:
            together = combine(scores.get("dense"), scores.get("lexical"), scores.get("multi"), weights)
            found[INTEGRATED] = self._each(together)
        return found

    def _each(self, scores: Tensor) -> NDArray[np.float64]:
        return np.asarray(ndcg(scores.cpu().numpy(), self._gains, self._k), dtype=np.float64)


def _encode(encode: Callable[[Packed], Reps], texts: Packed, device: torch.device, budget: int) -> Reps:
    parts = split(texts, budget)
    found: list[Reps] = []
    with torch.no_grad():
        for part in parts:
            batch = Packed(part.batch.ids.to(device), part.batch.offsets.to(device), part.batch.lengths)
            found.append(encode(batch))
    return take(concat_reps(found), original_order(parts).to(device))


_MIN_QUERIES = 10
_LEVEL = 0.05


def clearly_worse(
    before: NDArray[np.float64], after: NDArray[np.float64], clusters: Sequence[Hashable] | None = None
) -> bool:
    """Whether the same queries got lower values on average, by more than chance (one-sided paired t-test, p < 0.05).

    Args:
        before: ``[Q]``.
        after: ``[Q]``.
        clusters: Of the queries, None: each is one; with fewer than ten nothing is clear.
    """
    change = cluster_means(after - before, clusters)
    return (
        len(change) >= _MIN_QUERIES
        and bool(change.mean() < 0)
        and paired_t(after, before, clusters) / 2 < _LEVEL
    )


class RunLog:
    """The file ``log.jsonl`` of a run's folder, and what stands beside it.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "log.jsonl"

    def truncate(self, step: int) -> dict[int, dict[str, float]]:
        """Removes the lines of steps after `step`, which will be done again; returns the evaluations left."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() and step else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_atomically(self.path, "".join(line + "\n" for line in kept).encode())
        records = [json.loads(line) for line in kept]
        return {record["step"]: record["evaluation"] for record in records if "evaluation" in record}

    @contextmanager
    def writing(
        self,
        report: Callable[[Record], None],
        trackers: Sequence[str],
        settings: Mapping[str, Any],
        step: int,
    ) -> Generator[Callable[[Record], None]]:
        """Opens the log; yields what takes a line.

        Args:
            report: Gets every line too.
            trackers: Names among `TRACKERS`, which get the figures.
            settings: The recipe, for the trackers.
            step: Steps done so far.
        """
        job = TrackedRun(self.folder, settings, step)
        with self.path.open("a", encoding="utf-8") as file, ExitStack() as stack:
            send = open_trackers(trackers, job, stack)

            def log(record: Record) -> None:
                file.write(json.dumps(record) + "\n")
                file.flush()
                report(record)
                send(figures_of(record), record["step"])

            yield log

    def read_each(self, step: int) -> dict[str, NDArray[np.float64]]:
        """What `write_each` wrote of a step; empty if there is no such file."""
        path = self.folder / "evaluations" / f"{step}.json"
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return {}
        return {name: np.array(each) for name, each in values.items() if name != "queries"}

    def write_each(self, step: int, queries: Sequence[str], each: Mapping[str, NDArray[np.float64]]) -> None:
        """Writes what every query got, so that runs can be compared query by query."""
        folder = self.folder / "evaluations"
        folder.mkdir(exist_ok=True)
        values = {name: [round(float(value), 6) for value in got] for name, got in each.items()}
        write_json(folder / f"{step}.json", {"queries": queries, **values})


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line that was cut off
        return 1 << 62
