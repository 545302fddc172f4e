"""The ways to score with three representations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from triptych.errors import InputError
from triptych.types import HEADS, Head, HeadWeights

MODES: Mapping[str, HeadWeights] = {
    "dense": HeadWeights(1, 0, 0),
    "lexical": HeadWeights(0, 1, 0),
    "multi": HeadWeights(0, 0, 1),
    "dense+lexical": HeadWeights(1, 0.3, 0),
    "all": HeadWeights(1, 0.3, 1),
}
"""Names and weights as in arXiv 2402.03216v4, tables 1 and 2 and appendix C (MIRACL, MKQA)."""

FUSED: Mapping[str, tuple[str, ...]] = {
    "dense+lexical rrf": ("dense", "lexical"),
    "all rrf": ("dense", "lexical", "multi"),
}
"""Baselines by reciprocal-rank fusion, and the modes whose rankings they fuse."""

TUNED = " tuned"
"""What the name of a mode with weights from a development split ends with."""


def modes_of(
    heads: Sequence[Head],
    names: Sequence[str] | None = None,
    weights: Mapping[str, HeadWeights] | None = None,
) -> dict[str, HeadWeights]:
    """The modes that a model with these heads has.

    Args:
        heads: Of the model.
        names: Which modes; None: all that the heads allow.
        weights: Other weights than the usual ones, by mode.

    Raises:
        InputError: For an unknown mode, or one whose heads the model lacks.
    """
    known = dict(MODES) | dict(weights or {})
    possible = [name for name in MODES if set(known[name].heads) <= set(heads)]
    chosen = list(possible if names is None else names)
    for name in [*chosen, *(weights or {})]:
        if name not in MODES:
            raise InputError(f"modes: got {name!r}; expected some of {', '.join(MODES)}")
    for name in chosen:
        if name not in possible:
            lacking = [head for head in HEADS if head in known[name].heads and head not in heads]
            raise InputError(
                f"modes: got {name!r}, but the model has no {' and no '.join(lacking)} head (only {', '.join(heads)})"
            )
    if not chosen:
        raise InputError(f"modes: got none; expected some of {', '.join(MODES)}")
    return {name: known[name] for name in chosen}
