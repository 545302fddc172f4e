"""The files of a stage as one that travels: sorted by article, so that what several pairs share is stored once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from corpus.records import read, write
from triptych.io import open_source, read_lines, write_atomically

LEVEL, WINDOW = 19, 27
"""Of compression; the window is the greatest that every reader takes without being told: 128 MiB."""
_NAME = "file"


def pack(folder: Path, target: Path, level: int = LEVEL) -> int:
    """Packs all JSON Lines files of a folder; the name of its file goes before the fields of every record.

    Args:
        folder: With ``*.jsonl.zst``.
        target: The file to write.
        level: Of compression.

    Returns:
        Its size in bytes.
    """
    lines: list[tuple[str, str]] = []
    for path in sorted(folder.glob("*.jsonl.zst")):
        name = json.dumps(path.name.removesuffix(".jsonl.zst"))
        for record in read(path):
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
            lines.append((_order(record), f'{{"{_NAME}":{name},{line[1:]}\n'))
    lines.sort()
    parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=WINDOW, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    parts = [packer.compress(line.encode()) for _, line in lines]
    content = b"".join([*parts, packer.flush()])
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, content)
    return len(content)


def unpack(packed: Path, folder: Path) -> dict[str, int]:
    """Writes the files that were packed.

    Args:
        packed: What `pack` wrote.
        folder: Gets ``NAME.jsonl.zst`` of each file.

    Returns:
        The number of records of each.
    """
    names = sorted({record[_NAME] for record in _records(packed)})
    return {name: write(folder / f"{name}.jsonl.zst", _of(packed, name)) for name in names}


def _of(packed: Path, name: str) -> Iterator[dict[str, Any]]:
    for record in _records(packed):
        if record.pop(_NAME) == name:
            yield record


def _records(packed: Path) -> Iterator[dict[str, Any]]:
    with open_source(packed) as source:
        for line in read_lines(source):
            yield json.loads(line.text)


def _order(record: dict[str, Any]) -> str:
    """What is about the same thing stands together: by article, then by language and passage."""
    article = record.get("article") or f"{record.get('source', '')}/{record.get('key', '')}"
    passage = record["pos"][0] if "pos" in record else record["text"]
    return f"{article}\0{record.get('pos_lang', record.get('lang', ''))}\0{passage[:200]}"
