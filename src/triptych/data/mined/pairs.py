"""A weak pair: two texts of which the first stands for a query and the second for a passage that answers it."""

from __future__ import annotations

from typing import Any, NamedTuple

from triptych.data.mined.words import digest


class Pair(NamedTuple):
    """A query with its passage, and where both come from.

    Attributes:
        query: The shorter side, as a rule.
        passage: What it asks for.
        kind: What the two are to each other; one of `triptych.data.mined.kinds.KINDS`.
        source: Collection of the document.
        key: Name of the document there.
        lang: Language of the query; ``""`` if not known.
        passage_lang: Language of the passage.
        licence: Of the text, where it is known.
    """

    query: str
    passage: str
    kind: str
    source: str
    key: str
    lang: str
    passage_lang: str
    licence: str = ""

    @property
    def languages(self) -> str:
        """``"de"``, or ``"de>en"`` for a German query with an English passage."""
        return self.lang if self.lang == self.passage_lang else f"{self.lang}>{self.passage_lang}"

    @property
    def id(self) -> str:
        """Another one for every other pair: 16 hexadecimal digits of a digest."""
        return f"{digest(*self[:7]):016x}"


def to_record(pair: Pair) -> dict[str, Any]:
    """A pair in the form of training data, with its provenance.

    ``{"query", "pos": [passage], "neg": [], "lang", "kind", "source", "key", "id"}``; where they are known and say
    more, also ``pos_lang`` and ``licence``.
    """
    record: dict[str, Any] = {"query": pair.query, "pos": [pair.passage], "neg": [], "lang": pair.lang}
    if pair.passage_lang != pair.lang:
        record["pos_lang"] = pair.passage_lang
    record |= {"kind": pair.kind, "source": pair.source, "key": pair.key}
    if pair.licence:
        record["licence"] = pair.licence
    return record | {"id": pair.id}
