"""What extraction left in a text that is none: numbering, boilerplate, and paragraphs that were never translated."""

from __future__ import annotations

import re
import unicodedata

_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "the and you that this with are from which can by it not be your have has if when will "
        "was were may should would there their these those its been into more than other such "
        "also any all use used using for of to or an as at on in is click press select choose "
        "open start typing specifies enter type",
    )
)
_FOREIGN = frozenset(
    re.findall(
        r"\w+",
        "de la le et un une der die das und en el los las il che per een het van och att det som di da al i",
    )
)
_WORD = re.compile(r"[^\W\d_]+")
_NUMBERING = re.compile(
    r"(?:(?:Kapitel|Chapter|Anhang|Appendix|Capítulo|Capitolo|Chapitre|Annexe|Apéndice|Appendice|Apèndix|Capítol|"
    r"Hoofdstuk|Bijlage|Bilaga|Kapitola|Příloha|Глава|Приложение|Κεφάλαιο|Παράρτημα|Bab|Lampiran|Capitolul|Anexa|"
    r"Apêndice|Kapittel|Tillegg|Chương|Phụ lục|附录|附錄|付録|부록|فصل|پیوست|ملحق|الملحق|الفصل)\s+)?"
    r"[‏‎]?(?:\d+|[A-Z])(?:\.\d+)*\.\s+[‏‎]?|第\s*\d+\s*[章節节][.\s]*|제?\s*\d+\s*장[.\s]*"
)


def unnumbered(heading: str) -> str:
    """A heading without its number: "Kapitel 11.3. FTP" is "FTP"."""
    return _NUMBERING.sub("", heading, count=1) if _NUMBERING.match(heading) else heading


def tidy(text: str) -> str:
    """Without soft hyphens, zero-width spaces and runs of blanks; line breaks stay."""
    text = text.replace("\u00ad", "").replace("\u200b", "").replace("\ufeff", "")
    return "\n".join(line for line in (" ".join(part.split()) for part in text.split("\n")) if line)


def is_english(text: str, language: str, latin: bool, heading: bool = False) -> bool:
    """Whether a paragraph that should be in another language was left in English.

    Args:
        text: A paragraph.
        language: What it should be in.
        latin: Whether that is written in Latin letters.
        heading: Whether it is a heading: these are no commands, so that in another script any Latin one counts.
    """
    if language.startswith("en"):
        return False
    letters = [c for c in text if c.isalpha()]
    words = [word.lower() for word in _WORD.findall(text)]
    if not letters or len(words) < 2:
        return False
    ascii_share = sum(c.isascii() for c in letters) / len(letters)
    if ascii_share < (0.99 if latin else 0.9):
        return False
    if heading and not latin:
        return True
    english = sum(word in _ENGLISH for word in words)
    if not latin:
        return english >= 0.15 * len(words)
    return (
        len(words) > 5
        and english >= 0.25 * len(words)
        and english > 2 * sum(word in _FOREIGN for word in words)
    )


def is_latin(text: str) -> bool:
    """Whether the letters of a text are mostly Latin."""
    letters = [c for c in text[:4000] if c.isalpha()]
    return sum(ord(c) < 0x250 or unicodedata.name(c, "").startswith("LATIN") for c in letters) > 0.5 * len(
        letters
    )
