"""Passages that no question asks for: pieces of manuals, about as long as the passages that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import nsmallest
from typing import Any

from eval_folder import Text
from triptych.text import digest

WITHOUT = ("wiki",)
"""Sources that may hold answers: the questions were asked of Wikipedia."""
_LEAST, _WANTED = 150, 600  # UTF-8 bytes; a passage ends with the paragraph that fills it


def distractors(records: Iterable[Mapping[str, Any]], most: int) -> list[Text]:
    """At most `most` passages of records ``s k l p``, chosen by digest, each text once.

    Raises:
        ValueError: If there are fewer.
    """
    found = nsmallest(most, {each.text: each for each in _passages(records)}.values(), key=_order)
    if len(found) < most:
        raise ValueError(f"{len(found)} distractors; expected {most}")
    return found


def _order(passage: Text) -> tuple[int, str]:
    return digest(passage.text), passage.id


def _passages(records: Iterable[Mapping[str, Any]]) -> Iterator[Text]:
    for record in records:
        if record["s"] in WITHOUT:
            continue
        lines: list[str] = []
        number = 0
        for _, _, text in [*record["p"], [0, "", ""]]:
            lines += [text.strip()] if text.strip() else []
            size = sum(len(line.encode()) for line in lines)
            if size >= _WANTED or (not text and size >= _LEAST):
                id_ = f"distractor/{record['s']}/{record['k']}/{record['l']}/{number}"
                yield Text(id_, "\n".join(lines), {"set": record["s"], "lang": record["l"]})
                lines, number = [], number + 1
