"""The retrieval tasks of C-MTEB (Chinese), as Parquet files of the Hub."""

from __future__ import annotations

from pathlib import Path

from triptych.data.records import Fields
from triptych.data.rows import parsed, places_of
from triptych.errors import DataError
from triptych.eval.collection import Collection
from triptych.eval.readers.base import Facts, Judgements, Qrels, Wanted, found, locate, make
from triptych.eval.readers.texts import record_corpus, record_queries

LAYOUT = (
    "TASK/data/corpus-*.parquet and queries-*.parquet with TASK-qrels/data/SPLIT-*.parquet beside it, or TASK with the "
    "folders corpus, queries and qrels (or data) of Parquet files"
)
FIELDS = Fields(id=("_id", "id"), text=("text",))
_QUERY, _DOCUMENT = ("qid", "query-id"), ("pid", "corpus-id")


def cmteb(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads one task, or all in a folder. The split is "dev"; the subset is "zh", the name the task's."""
    split = wanted.split or "dev"
    collections: list[Collection] = []
    for task in (path, *sorted(path.glob("*/"))):
        docs, asked = _texts(task, "corpus"), _texts(task, "queries")
        if not docs or not asked or not wanted.takes("zh", f"{task.name}/zh"):
            continue
        judged = _judged(task, split)
        if not judged:
            raise DataError(f"no judgements of split {split!r}; expected {LAYOUT}", task)
        judgements = Judgements(record_queries(asked, FIELDS.without_title()), _qrels(judged), judged[0])
        corpus = record_corpus(docs, "cmteb", FIELDS)
        collections.append(make(Facts(task.name), "zh", split, corpus, judgements, wanted))
    return found(collections, path, wanted, LAYOUT)


def _texts(task: Path, part: str) -> list[Path]:
    patterns = (f"data/{part}-*.parquet", f"{part}-*.parquet", f"{part}/*.parquet")
    return next((sorted(files) for pattern in patterns if (files := list(task.glob(pattern)))), [])


def _judged(task: Path, split: str) -> list[Path]:
    beside = task.parent / f"{task.name}-qrels"
    places = (beside / "data", beside, task / "qrels", task / "default", task / "data", task)
    return next((files for place in places if (files := locate(place, f"{split}-*.parquet"))), [])


def _qrels(files: list[Path]) -> Qrels:
    qrels: Qrels = {}
    for file in files:
        for place, raw in places_of(file):
            row = parsed(raw, place)
            query = next((row[name] for name in _QUERY if name in row), None)
            document = next((row[name] for name in _DOCUMENT if name in row), None)
            if query is None or document is None or "score" not in row:
                raise place.error(
                    f"expected qid, pid, score, or query-id, corpus-id, score; got {', '.join(row)}"
                )
            qrels.setdefault(str(query), {})[str(document)] = int(row["score"])
    return qrels
