"""A folder of ready data from Debian packages, in the form that `corpus.ready` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from corpus.debian import books, descriptions, manuals, pages, words
from corpus.debian.fetch import unpack
from corpus.records import write
from triptych.errors import DataError

Reader = Callable[[Iterable[Path]], Iterator[dict[str, Any]]]
READERS: Mapping[str, tuple[str, Reader]] = {
    "lo": ("docs", pages.libreoffice),
    "gnome": ("docs", pages.gnome),
    "iguide": ("docs", books.books),
    "handbook": ("docs", books.books),
    "dref": ("docs", books.books),
    "sky": ("docs", books.books),
    "man": ("docs", manuals.manuals),
    "strings": ("parallel", words.catalogues),
    "cldr": ("lexicon", words.characters),
    "fd": ("lexicon", words.dictionaries),
}
"""Of each part of the recipe, the file that it goes to and what reads its packages."""
DESCRIPTIONS = "ddtp"


def load(path: Path) -> dict[str, list[str]]:
    """Reads a recipe: parts with the names of packages.

    Raises:
        DataError: For something else, or a part that nothing here reads.
    """
    try:
        given: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read: {error}", path) from error
    if not isinstance(given, dict):
        raise DataError("expected parts with lists of packages", path)
    known = (*READERS, DESCRIPTIONS)
    for name, packages in cast("dict[Any, Any]", given).items():
        if name not in known:
            raise DataError(f"unknown part {name!r}; expected some of {', '.join(known)}", path)
        if not isinstance(packages, list) or not all(isinstance(each, str) for each in packages):
            raise DataError(f"part {name!r} is no list of names", path)
    return cast("dict[str, list[str]]", given)


def rebuild(
    recipe: Mapping[str, Sequence[str]], out: Path, tell: Callable[[str], None] = lambda _text: None
) -> Path:
    """Downloads, unpacks and reads.

    Args:
        recipe: Parts with their packages.
        out: Gets ``packages`` (what was unpacked; used again) and ``rebuilt`` (the ready data).
        tell: Is told what goes on.

    Returns:
        The folder of ready data.
    """
    files: dict[str, list[dict[str, Any]]] = {"docs": [], "parallel": [], "lexicon": []}
    for name, packages in recipe.items():
        if name == DESCRIPTIONS:
            folder = out / "packages" / "descriptions"
            if not (folder / "lists").is_dir():
                descriptions.fetch(folder, packages)
            file, records = "docs", list(descriptions.descriptions(folder))
        else:
            file, reader = READERS[name]
            records = list(reader(unpack(packages, out / "packages")))
        tell(f"{name}: {len(records):,} records")
        files[file] += records
    for name, records in files.items():
        write(out / "rebuilt" / f"{name}.jsonl.zst", records)
    return out / "rebuilt"
