"""Whether a passage holds an answer, as open-domain question answering counts it.

MKQA is judged so (arXiv 2402.03216v4, section 4.2): a query counts at k if one of its first k passages holds one of
its answers. Both are split into tokens after canonical decomposition, and an answer is held where its tokens follow
each other in the passage; this is what DPR's evaluation does, and with it RocketQA's, Contriever's and Pyserini's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence


class _Splitting(dict[int, str]):
    """For `str.translate`: letters, digits and marks stay together, every other visible character is alone."""

    def __missing__(self, point: int) -> str:
        char = chr(point)
        kind = unicodedata.category(char)[0]
        self[point] = char if kind in "LNM" else " " if kind in "ZC" else f" {char} "
        return self[point]


_SPLITTING = _Splitting()


def tokens(text: str) -> list[str]:
    """The tokens of a text in lower case: runs of letters, digits and marks; any other visible character alone.

    Example:
        >>> tokens("Rock 'n' Roll, 1955")
        ['rock', "'", 'n', "'", 'roll', ',', '1955']
    """
    return [
        token.lower()
        for token in unicodedata.normalize("NFD", text).translate(_SPLITTING).split(" ")
        if token
    ]


def has_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether the tokens of one of the answers follow each other in the text.

    An answer without a token (blank, or only control characters) is in no text; in DPR's script it is in every one.

    Example:
        >>> has_answer("It was built in São Paulo.", ["sao paulo", "São Paulo"])
        True
        >>> has_answer("The artist", ["art"])
        False
    """
    held = _spaced(tokens(text))
    return any(_spaced(answer) in held for answer in map(tokens, answers) if answer)


def first_answer(passages: Iterable[str], answers: Sequence[str]) -> int | None:
    """Rank, from 1, of the first passage that holds an answer; None if none does."""
    return next((rank for rank, text in enumerate(passages, start=1) if has_answer(text, answers)), None)


def _spaced(parts: Sequence[str]) -> str:
    # No token holds a space, so that a run of tokens is found where the string is.
    return f" {' '.join(parts)} "
