"""The translated descriptions of Debian's packages, from apt's own indexes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from corpus.clean import tidy
from corpus.debian.fetch import run

Record = dict[str, Any]
_ENTRY = re.compile(
    r"Package: (?P<name>\S+)\nDescription-md5: (?P<digest>\S+)\nDescription-\S+: (?P<short>.*)\n(?P<long>(?: .*\n?)*)"
)
_LANGUAGE = re.compile(r"Translation-([^.]+)")
_CONTINUED = re.compile(r"\n (?!\.| )")
_LEAST, _FEWEST = 40, 4  # characters of a description; languages of a package


class _Described(NamedTuple):
    title: str
    paragraphs: list[str]


def fetch(folder: Path, languages: Iterable[str]) -> None:
    """Lets apt fetch its indexes of translations into a folder, past the system's own.

    Raises:
        DataError: If apt fails.
    """
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    names = "; ".join(f'"{language}"' for language in languages)
    configuration = folder / "apt.conf"
    configuration.write_text(
        f"#clear Acquire::Languages;\nAcquire::Languages {{ {names}; }};\n"
        f'Dir::State::Lists "{lists}";\nDir::Cache "{folder}/cache";\n'
    )
    (folder / "cache").mkdir(exist_ok=True)
    run(["apt-get", "-qq", "-c", str(configuration), "update"], folder)


def descriptions(folder: Path) -> Iterator[Record]:
    """A record for each description and language that apt fetched, of those that several languages have."""
    texts: dict[str, str] = {}
    for path in sorted((folder / "lists").glob("*_i18n_Translation-*")):
        match = _LANGUAGE.search(path.name)
        if match is not None:
            language = match[1].replace("%5f", "_").replace("_", "-")
            shown = run(["/usr/lib/apt/apt-helper", "cat-file", str(path)], folder)
            texts[language] = texts.get(language, "") + shown.decode("utf-8", "replace")
    return records(texts)


def records(indexes: Mapping[str, str]) -> Iterator[Record]:
    """The records of apt's indexes of descriptions, by language."""
    found: dict[str, dict[str, _Described]] = {}
    for language, text in indexes.items():
        for entry in _ENTRY.finditer(text):
            described = _Described(tidy(entry["short"]), _paragraphs(entry["long"]))
            found.setdefault(entry["digest"], {}).setdefault(language, described)
    for digest, languages in sorted(found.items()):
        english = languages.get("en")
        kept = {name: each for name, each in languages.items() if name == "en" or _differs(each, english)}
        if len(kept) >= _FEWEST:
            for name, each in sorted(kept.items()):
                blocks = [[number, "", text] for number, text in enumerate(each.paragraphs)]
                if sum(len(text) for text in each.paragraphs) >= _LEAST:
                    yield {"s": "ddtp", "k": digest[:8], "l": name, "t": each.title, "p": blocks}


def _paragraphs(text: str) -> list[str]:
    joined = _CONTINUED.sub(" ", "\n" + text).replace("\n .", "\n")
    return [tidied for part in joined.split("\n") if (tidied := tidy(part))]


def _differs(described: _Described, english: _Described | None) -> bool:
    """Whether most of a description was translated: what was not still stands there in English."""
    if english is None:
        return True
    same = sum(len(text) for text in described.paragraphs if text in english.paragraphs and len(text) > 30)
    return same <= 0.4 * sum(map(len, described.paragraphs))
