"""Our own training format as a test collection."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from triptych.data.rows import JSONL, PARQUET, files_of
from triptych.data.training import Reading, read_examples
from triptych.eval.collection import Collection, Document, FileCorpus
from triptych.eval.readers.base import Facts, Judgements, Qrels, Queries, Wanted, found, make

LAYOUT = "JSON Lines or Parquet with query, pos and neg (or one of the other forms of training data)"


def training(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads queries with their positives and negatives; the passages of all queries together are the corpus.

    A document's id is made of its text, so that a passage that several queries name is one document. Lines with
    the same query are one query. The collection is as hard as its negatives, and passages that nobody judged count
    as not relevant.
    """
    files = files_of(path, JSONL + PARQUET)
    name = path.resolve().name.split(".")[0]
    if not wanted.takes("", f"{name}/"):
        return found([], path, wanted, LAYOUT)
    ids: dict[str, str] = {}
    qrels: Qrels = {}
    skipped: list[str] = []
    reading = Reading(on_skip=lambda place: skipped.append(place.id))
    for place, example in read_examples(files, reading):
        query = ids.setdefault(example.query, example.id or str(len(ids)))
        judged = qrels.setdefault(query, {})
        for text in example.neg:
            judged.setdefault(_id(text), 0)
        judged |= {_id(text): 1 for text in example.pos}
        if len(qrels) != len(ids):
            raise place.error(f"duplicate query id {query!r}; expected one for each query")
    if skipped and wanted.warn is not None:
        wanted.warn(f"{path}: {len(skipped)} queries have no positive and are left out")
    queries: Queries = {id_: text for text, id_ in ids.items()}
    corpus = FileCorpus.of(lambda: _passages(files), files, "training")
    return [make(Facts(name), "", wanted.split or "test", corpus, Judgements(queries, qrels, path), wanted)]


def _passages(files: list[Path]) -> Iterator[Document]:
    seen: set[str] = set()
    for _, example in read_examples(files):
        for text in example.passages:
            id_ = _id(text)
            if id_ not in seen:
                seen.add(id_)
                yield Document(id_, text)


def _id(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
