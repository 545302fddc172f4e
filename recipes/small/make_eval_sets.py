"""Makes test sets with pooled candidates from the folder of ready-made text.

    python recipes/small/make_eval_sets.py READY_FOLDER OUT [--questions 100] [--distractors 100000]

READY_FOLDER holds qa-eval.jsonl.zst, qa-train.jsonl.zst and docs.jsonl.zst. OUT gets three folders, each with one
corpus that all its sets search (`eval_folder` says how they look, docs/evaluation-data.md what is in them):

    pooled/   the test sets: monolingual, cross-lingual
    dev/      the same from the articles of the training questions that are set aside, to tune and choose with
    long/     whole long documents, test and development
    hard/     with --distractors: the sets of pooled/ among so many more passages of manuals
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import eval_distractors
import eval_long
import eval_short
from eval_folder import TestSet, Text, write_folder
from qa_split import Passage
from triptych.io import write_json
from triptych.records import parse_raw, places_of


def main(given: Sequence[str] | None = None) -> None:
    """Makes the folders and prints what is in them; `given` takes the place of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("ready", type=Path, help="folder of the text")
    parser.add_argument("out", type=Path, help="folder of the sets")
    parser.add_argument("--questions", type=int, help="most questions of a set; all by default")
    parser.add_argument("--distractors", type=int, help="passages that no question asks for")
    arguments = parser.parse_args(given)
    ready, out, most = arguments.ready, arguments.out, arguments.questions
    evaluation = eval_short.pool(records(ready / "qa-eval.jsonl.zst"))
    training = eval_short.pool(r for r in records(ready / "qa-train.jsonl.zst") if set_aside(r))
    counts = {
        "pooled": _write_short(out / "pooled", evaluation, "test", most),
        "dev": _write_short(out / "dev", training, "dev", most),
    }
    if arguments.distractors:
        more = eval_distractors.distractors(records(ready / "docs.jsonl.zst"), arguments.distractors)
        evaluation.passages.update((each.id, each) for each in more)
        counts["hard"] = _write_short(out / "hard", evaluation, "test", most)
    long = eval_long.build(eval_long.pages(records(ready / "docs.jsonl.zst")), most)
    entries = write_folder(out / "long", *long)
    counts["long"] = _count(long[0], long[1], entries)
    write_json(out / "counts.json", counts)
    for name, count in counts.items():
        print(name, *(f"{value} {key}" for key, value in count.items() if key != "groups"), sep="  ")
        for group, (sets, queries) in count["groups"].items():
            print(f"    {group}: {sets} sets, {queries} queries in them")


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON Lines."""
    return (parse_raw(raw, place) for place, raw in places_of(path))


def set_aside(record: dict[str, Any]) -> bool:
    """Whether a training record belongs to the development split."""
    return Passage(record["s"], record["l"], record["a"], record["t"]).is_development


def _write_short(folder: Path, made: eval_short.Pool, split: str, most: int | None) -> dict[str, Any]:
    sets: Sequence[TestSet] = list(eval_short.sets(made, split, most))
    excluded = {eval_short.PARALLEL: made.twins} if made.twins else {}
    passages, questions = list(made.passages.values()), list(made.questions.values())
    return _count(passages, questions, write_folder(folder, passages, questions, sets, excluded))


def _count(
    documents: Iterable[Text], queries: Iterable[Text], entries: list[dict[str, Any]]
) -> dict[str, Any]:
    documents = list(documents)
    groups: dict[str, tuple[int, int]] = {}
    for entry in entries:
        group = f"{entry['group']} {entry['split']}"
        sets, asked = groups.get(group, (0, 0))
        groups[group] = (sets + 1, asked + entry["queries"])
    return {
        "documents": len(documents),
        "characters": sum(len(each.text) for each in documents),
        "languages": len({each.facts["lang"] for each in documents}),
        "groups": groups,
    }


if __name__ == "__main__":
    main()
