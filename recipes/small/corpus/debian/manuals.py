"""Manual pages (manpages, manpages-*): formatted by mandoc, read as any page."""

from __future__ import annotations

import gzip
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from corpus.debian.books import sections
from corpus.debian.fetch import run
from triptych.errors import DataError

Record = dict[str, Any]
_PATH = re.compile(r"/usr/share/man/(?:([a-z]{2,3}(?:_[A-Z]{2})?)/)?man\d\w*/([^/]+)\.gz$")
_FRAME = re.compile(r'<table class="(?:head|foot)">.*?</table>', re.DOTALL)
_NAME = re.compile(r"\s+[-–—]+\s+")
_LEAST = 100  # characters after the name


def manuals(roots: Iterable[Path]) -> Iterator[Record]:
    """A record for each page and language; one of `roots` has mandoc.

    Raises:
        DataError: If there are pages and none of the packages has mandoc.
    """
    folders = list(roots)
    mandoc = next((path for root in folders for path in root.glob("usr/bin/mandoc")), None)
    seen: set[tuple[str, str]] = set()
    paths = sorted(path for root in folders for path in root.glob("usr/share/man/**/*.gz"))
    for path in paths:
        match = _PATH.search(path.as_posix())
        if match is None or path.is_symlink() or "mandoc" in path.parts:
            continue
        lang, key = (match[1] or "en").replace("_", "-"), match[2]
        if key.endswith(".UTF-8") or (lang, key) in seen:
            continue
        if mandoc is None:
            raise DataError("the package mandoc is missing; expected it beside the manual pages", path)
        seen.add((lang, key))
        record = _page(mandoc, path, lang, key)
        if record:
            yield record


def _page(mandoc: Path, path: Path, lang: str, key: str) -> Record | None:
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "page"
        source.write_bytes(gzip.decompress(path.read_bytes()))
        shown = run([str(mandoc), "-K", "utf-8", "-T", "html", "-O", "fragment", str(source)], Path(name))
    found = [
        section for section in sections(_FRAME.sub("", shown.decode("utf-8", "replace")))[1] if section[2]
    ]
    if not found or sum(len(line) for _, _, lines in found[1:] for line in lines) < _LEAST:
        return None
    first = found[0][2][0]
    title = _NAME.split(first, maxsplit=1)[-1][:200]
    blocks: list[list[Any]] = []
    for number, (_, heading, lines) in enumerate(found):
        blocks += [[number, "h1", heading], [number, "", "\n".join(lines)]]
    return {"s": "man", "k": key, "l": lang, "t": title, "p": blocks}
