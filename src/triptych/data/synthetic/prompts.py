"""Prompts by language, from files: ``prompts/LANGUAGE.txt``.

A file has the instructions, a line ``---``, and the request, in which ``{title}`` and ``{passage}`` are replaced.
Languages without a file get ``other.txt``, which is in English and asks for a question in ``{language}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Protocol

from triptych.errors import DataError

_PACKAGE = "triptych.data.synthetic"
OTHER = "other"
NOTHING = "NONE"
"""What the model is told to answer if nothing worth asking stands in a passage."""


class _Folder(Protocol):
    def joinpath(self, name: str, /) -> _File: ...


class _File(Protocol):
    def is_file(self) -> bool: ...

    def read_text(self, encoding: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt.

    Attributes:
        name: The name of its file without ending.
        system: The instructions.
        user: The request with ``{title}``, ``{passage}`` and, in "other", ``{language}``.
    """

    name: str
    system: str
    user: str

    def messages(self, title: str | None, passage: str, language: str) -> list[dict[str, str]]:
        """The messages of a request to a chat model."""
        values = {"{title}": title or "—", "{passage}": passage, "{language}": language}
        return [
            {"role": "system", "content": _filled(self.system, values)},
            {"role": "user", "content": _filled(self.user, values)},
        ]


def languages(folder: Path | None = None) -> list[str]:
    """Languages that have a prompt of their own."""
    names = [path.name for path in (folder or files(_PACKAGE).joinpath("prompts")).iterdir()]
    return sorted(
        name.removesuffix(".txt") for name in names if name.endswith(".txt") and name != f"{OTHER}.txt"
    )


def load_prompt(language: str, folder: Path | None = None) -> Prompt:
    """The prompt of a language (``pt-BR`` is ``pt``), or "other".

    Args:
        language: ISO 639-1 code.
        folder: Own prompts; what it lacks comes from the package.

    Raises:
        DataError: For a file without the line ``---`` or without ``{passage}``.
    """
    places: list[_Folder] = [] if folder is None else [folder]  # pyright: ignore[reportAssignmentType]
    places.append(files(_PACKAGE).joinpath("prompts"))  # pyright: ignore[reportArgumentType]
    for name in (language.lower().split("-")[0], OTHER):
        for place in places:
            file = place.joinpath(f"{name}.txt")
            if file.is_file():
                return _parsed(name, file.read_text("utf-8"), f"{name}.txt")
    raise DataError("no prompt at all", "prompts")


def _parsed(name: str, text: str, path: str) -> Prompt:
    system, line, user = text.partition("\n---\n")
    if not line or "{passage}" not in user:
        raise DataError("expected instructions, a line '---', and a request with {passage}", path)
    return Prompt(name, system.strip(), user.strip())


def _filled(text: str, values: dict[str, str]) -> str:
    """Replaces names once: what stands in a passage is left as it is."""
    found = sorted((text.find(name), name) for name in values if name in text)
    out, at = "", 0
    for start, name in found:
        out += text[at:start] + values[name]
        at = start + len(name)
    return out + text[at:]
