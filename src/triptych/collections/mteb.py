"""Retrieval tasks of mteb as test collections: ``mteb:TASK`` or ``mteb:TASK:SUBSET,…``.

mteb fetches a task's data from the Hub, or finds them in its cache. Documents are title and text as everywhere in this
package (joined by a line break; mteb's own runs join them by a blank).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from triptych.collections.base import METRICS, Collection, Document, FileCorpus, Wanted
from triptych.collections.evaluation import Facts, collection_of, distinct
from triptych.collections.joined import Judgement, Options, Tables, Text, relevance
from triptych.errors import DataError, InputError, require_extra
from triptych.records import Place

_METRICS = {"ndcg": "nDCG", "recall": "R", "mrr": "RR", "map": "AP", "precision": "P", "hit_rate": "Success"}


def read_task(name: Path, wanted: Wanted) -> list[Collection]:
    """Reads a task by its name in mteb, such as ``MIRACLRetrieval``.

    Raises:
        InputError: For a name that mteb does not know.
        DataError: If the data cannot be loaded, and as `collections_of_task`.
        MissingExtra: If mteb is not installed.
    """
    with require_extra(f"mteb:{name}", "eval"):
        import mteb
    try:
        task = mteb.get_task(str(name))
    except (KeyError, ValueError) as error:
        raise InputError(f"mteb:{name}: no such task: {' '.join(str(error).split()):.300}") from error
    return collections_of_task(task, wanted)


def collections_of_task(task: Any, wanted: Wanted) -> list[Collection]:
    """The collections of a task, one for each of its subsets that is wanted.

    Args:
        task: An ``mteb.abstasks.retrieval.AbsTaskRetrieval``; its data are loaded if they are not.
        wanted: What is wanted; the split is "test", or the task's first.

    Raises:
        DataError: For a task of another kind, a split or subset that it does not have, or data that cannot be loaded.
    """
    name, where = str(task.metadata.name), Path(f"mteb:{task.metadata.name}")
    if not hasattr(task, "ignore_identical_ids") or list(task.metadata.modalities) != ["text"]:
        raise DataError("is no retrieval task on texts; expected one", where)
    splits = list(task.eval_splits)
    split = wanted.split or ("test" if "test" in splits else splits[0])
    if split not in splits:
        raise DataError(f"no split {split!r}; the task has {', '.join(splits)}", where)
    options = Options(subsets=wanted.subsets)
    subsets = [each for each in task.hf_subsets or ["default"] if options.takes(name, _subset(each))]
    if not subsets:
        return []
    if not task.data_loaded:
        task.hf_subsets = subsets
        _load(task, where)
    main, _, depth = str(task.metadata.main_score).partition("_at_")
    first = [f"{_METRICS[main]}@{depth}"] if main in _METRICS and depth else []
    facts = Facts(
        name,
        split,
        tuple(dict.fromkeys([*first, *METRICS])),
        str(task.metadata.license or ""),
        str(task.metadata.reference or ""),
    )
    found: list[Collection] = []
    for subset in subsets:
        data = task.dataset[subset][split]
        if data.get("top_ranked"):
            raise DataError(
                "re-ranks given candidates; expected a task on a whole corpus "
                "(`triptych.mteb.SearchModel` runs this one)",
                where,
            )
        documents = partial(_texts, data["corpus"], f"{where}/{subset} corpus")
        corpus = FileCorpus(partial(distinct, documents), _digest(documents), len(data["corpus"]))
        tables = Tables(
            queries=_texts(data["queries"], f"{where}/{subset} queries"),
            judgements=_judgements(data["relevant_docs"], f"{where}/{subset}"),
            documents=documents,
            files=[where / subset],
            qrels=where / subset,
            subset=_subset(subset),
            ignore_identical_ids=bool(task.ignore_identical_ids),
        )
        found.append(collection_of(tables, facts, wanted, {(where / subset,): corpus}))
    return found


def _subset(name: str) -> str:
    return "" if name == "default" else name


def _load(task: Any, where: Path) -> None:
    try:
        task.load_data()
        task.convert_v1_dataset_format_to_v2(None)
    except Exception as error:  # of the Hub, datasets, requests, pyarrow, or the task's own code
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"its data cannot be loaded; expected a reachable Hub, or the data in its cache ({reason:.300})",
            where,
        ) from error


def _texts(rows: Any, name: str) -> Iterator[Text]:
    for number, row in enumerate(rows, start=1):
        place = Place(name, record=number)
        text = row["text"]
        if not isinstance(text, str):
            raise place.error(f"the text is {type(text).__name__}; expected a string")
        yield Text(str(row["id"]), text, place, row.get("title") or None)


def _judgements(qrels: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[Judgement]:
    for query, documents in qrels.items():
        for document, value in documents.items():
            place = Place(name)
            yield Judgement(str(query), str(document), relevance(value, place), place)


def _digest(documents: Any) -> str:
    """Of the content, as the files are mteb's own affair."""
    digest = hashlib.blake2b(b"mteb", digest_size=16)
    for text in documents():
        for part in Document(text.id, text.content):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
