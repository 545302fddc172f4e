"""What was made: checksums, sizes, counts and lengths of every file, and the licences of its sources."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

from corpus import tokens
from corpus.ready import LICENCES
from corpus.records import read
from triptych.text import digest

PARTS = ("packed", "stage-1", "stage-2", "stage-3", "dev")
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
        "left_out": json.loads((out / "work" / "left-out.json").read_text(encoding="utf-8")),
        "filters": {path.stem: filters(path) for path in sorted((out / "report").glob("*.json"))},
        "files": files,
    }


def filters(path: Path) -> dict[str, Any]:
    """Of a file of pairs: how many there were, were drawn, and which filter dropped how many of what."""
    report = json.loads(path.read_text(encoding="utf-8"))
    dropped: dict[str, dict[str, Counter[str]]] = {}
    for cell in report["cells"]:
        for name, count in cell["dropped"].items():
            kinds = dropped.setdefault(name, {"source": Counter(), "lang": Counter()})
            kinds["source"][cell["source"]] += count
            kinds["lang"][cell["languages"].partition(">")[0]] += count
    return {
        "offered": report["offered"],
        "drawn": sum(cell["made"] for cell in report["cells"]),
        "kept": sum(cell["kept"] for cell in report["cells"]),
        "dropped": {
            name: {"all": kinds["source"].total(), **{by: dict(c.most_common()) for by, c in kinds.items()}}
            for name, kinds in dropped.items()
        },
    }


def describe(path: Path) -> dict[str, Any]:
    """Size, checksum and, of JSON Lines, what they hold."""
    content = path.read_bytes()
    found: dict[str, Any] = {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    if not path.name.endswith(".jsonl.zst") or path.parent.name == "packed":
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
