"""What was made: checksums, sizes, counts and lengths of every file, and the licences of its sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from corpus import tokens
from corpus.ready import LICENCES
from corpus.records import read
from triptych.data.mined.words import digest

PARTS = ("stage-1", "stage-2", "stage-3", "dev")
_SAMPLED = 300
"""Texts of a file whose tokens are counted; those with the smallest digests."""


def manifest(out: Path) -> dict[str, Any]:
    """Describes all files of the stages and development sets."""
    paths = sorted(path for part in PARTS for path in (out / part).rglob("*") if path.is_file())
    files = {path.relative_to(out).as_posix(): describe(path) for path in paths}
    sizes = {part: sum(f["bytes"] for name, f in files.items() if name.startswith(part)) for part in PARTS}
    sources = {source for file in files.values() for source in file.get("source", {})}
    return {
        "bytes": sizes,
        "licences": {source: LICENCES[source] for source in sorted(sources)},
        "files": files,
    }


def describe(path: Path) -> dict[str, Any]:
    """Size, checksum and, of JSON Lines, what they hold."""
    content = path.read_bytes()
    found: dict[str, Any] = {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    if ".jsonl" not in path.suffixes and not path.name.endswith(".jsonl.zst"):
        return found
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("kind", "source", "lang")}
    pairs: Counter[str] = Counter()
    sample: list[tuple[int, str]] = []
    rows = 0
    for row in read(path):
        rows += 1
        for name, counter in counts.items():
            if name in row:
                counter[row[name]] += 1
        if "pos_lang" in row:
            pairs[f"{row['lang']}>{row['pos_lang']}"] += 1
        text = row["pos"][0] if "pos" in row else row["text"]
        sample.append((digest(text), text))
        if len(sample) > 20 * _SAMPLED:
            sample = sorted(sample)[:_SAMPLED]
    found["rows"] = rows
    found |= {name: dict(counter.most_common()) for name, counter in counts.items() if counter}
    if pairs:
        found["language_pairs"] = len(pairs)
    lengths = sorted(tokens.counts([text for _, text in sorted(sample)[:_SAMPLED]]))
    if lengths:
        found["tokens"] = {"median": lengths[len(lengths) // 2], "90 %": lengths[len(lengths) * 9 // 10]}
    return found


def languages(files: Mapping[str, Any], part: str) -> int:
    """How many languages a part has."""
    return len({lang for name, file in files.items() if name.startswith(part) for lang in file.get("lang", {})})
