"""What RetroMAE hides: tokens from the encoder, and from each token its own view in the decoder.

All of it is NumPy on whole arrays; the ``[L, L]`` visibility of a text never exists here, only its K patterns and
the pattern that each position uses (arXiv 2205.12035, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.errors import InputError
from triptych.model.packed import Packed, moved, sent

Bools = NDArray[np.bool_]
# Of the tokens that the encoder has to predict, so many are replaced by [MASK], and so many by another token.
_MASKED, _REPLACED = 0.8, 0.1


@dataclass(frozen=True, slots=True)
class Masking:
    """How much is hidden.

    Attributes:
        encoder: Share of the tokens that the encoder has to predict; 0.15 to 0.3 in the paper.
        decoder: Share of the tokens that a position of the decoder does not see; 0.5 to 0.7 in the paper.
        patterns: K, different views that are drawn for a text.
        whole_words: Whether the pieces of a word are hidden together.
    """

    encoder: float = 0.3
    decoder: float = 0.5
    patterns: int = 256
    whole_words: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.encoder < 1 and 0 < self.decoder < 1 and self.patterns >= 1):
            raise InputError(
                f"masking: got encoder {self.encoder}, decoder {self.decoder}, patterns {self.patterns}; "
                "expected shares between 0 and 1, and 1 pattern or more"
            )


@dataclass(frozen=True, slots=True)
class Alphabet:
    """What masking knows of the vocabulary.

    Attributes:
        mask: Id of [MASK].
        special: bool ``[V]``: ids that are never hidden nor put in the place of others.
        starts: bool ``[V]``: pieces that begin a word; None: unknown.
    """

    mask: int
    special: Bools
    starts: Bools | None = None


@dataclass(frozen=True, slots=True)
class MaskedBatch:
    """N texts with T tokens, as the two halves of RetroMAE see them.

    Attributes:
        texts: The original texts.
        masked: int64 ``[T]``, what the encoder reads.
        encoder_places: int64 ``[M]``, positions whose token the encoder predicts.
        decoder_places: int64 ``[P]``, positions whose token the decoder predicts: all but the special ones.
        visible: bool ``[K, T]``, pattern k of the text that a column belongs to.
        pattern: int64 ``[T]``, the pattern that each position uses.
    """

    texts: Packed
    masked: Tensor
    encoder_places: Tensor
    decoder_places: Tensor
    visible: Tensor
    pattern: Tensor

    def to(self, device: torch.device) -> MaskedBatch:
        """The same on another device."""
        rest = (self.masked, self.encoder_places, self.decoder_places, self.visible, self.pattern)
        return MaskedBatch(moved(self.texts, device), *(sent(each, device) for each in rest))


def hide(
    texts: Sequence[NDArray[np.integer]], alphabet: Alphabet, masking: Masking, rng: np.random.Generator
) -> MaskedBatch:
    """Draws what is hidden of each text.

    Args:
        texts: Token ids, special ones included.
        alphabet: Of the tokenizer.
        masking: How much.
        rng: Its state alone decides the draw.
    """
    ids = np.concatenate(texts).astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    ordinary = ~alphabet.special[ids]
    predicted = np.zeros(len(ids), dtype=np.bool_)
    visible = np.ones((masking.patterns, len(ids)), dtype=np.bool_)
    for first, last in pairwise(bounds):
        here = np.flatnonzero(ordinary[first:last]) + first
        words = _words(ids[here], alphabet) if masking.whole_words else None
        predicted[here] = draw(len(here), 1, masking.encoder, rng, words)[0]
        visible[:, here] = ~draw(len(here), masking.patterns, masking.decoder, rng, words)
    return MaskedBatch(
        texts=Packed.of(texts),
        masked=torch.from_numpy(_corrupted(ids, predicted, alphabet, rng)),
        encoder_places=torch.from_numpy(np.flatnonzero(predicted)),
        decoder_places=torch.from_numpy(np.flatnonzero(ordinary)),
        visible=torch.from_numpy(visible),
        pattern=torch.from_numpy(rng.integers(0, masking.patterns, len(ids))),
    )


def draw(
    count: int, times: int, share: float, rng: np.random.Generator, words: NDArray[np.int64] | None = None
) -> Bools:
    """Chooses a share of `count` places, `times` times.

    Args:
        count: Places.
        times: Rows of the result.
        share: Of the places; rounded to a whole number of them, 1 at least.
        rng: Generator.
        words: Number of the word to which each place belongs, ascending from 0: then as many whole words as do not
            go beyond the share, and one at least. None: single places.

    Returns:
        bool ``[times, count]``.
    """
    if not count:
        return np.zeros((times, 0), dtype=np.bool_)
    wanted = max(1, round(share * count))
    if words is None:
        draws = rng.random((times, count), dtype=np.float32)
        limit = np.partition(draws, wanted - 1, axis=1)[:, wanted - 1 : wanted]
        return draws <= limit
    sizes = np.bincount(words)
    order = np.argsort(rng.random((times, len(sizes)), dtype=np.float32), axis=1)
    taken = np.cumsum(sizes[order], axis=1) <= wanted
    taken[:, 0] = True
    chosen = np.zeros_like(taken)
    np.put_along_axis(chosen, order, taken, axis=1)
    return chosen[:, words]


def _words(ids: NDArray[np.int64], alphabet: Alphabet) -> NDArray[np.int64]:
    if alphabet.starts is None:
        raise InputError("masking.whole_words: this tokenizer does not tell where words begin")
    starts = alphabet.starts[ids]
    starts[:1] = True
    return np.cumsum(starts) - 1


def _corrupted(
    ids: NDArray[np.int64], predicted: Bools, alphabet: Alphabet, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Of the tokens to predict most become [MASK], some another token, and the rest stays (as in BERT)."""
    places = np.flatnonzero(predicted)
    luck = rng.random(len(places))
    ordinary = np.flatnonzero(~alphabet.special)
    others = ordinary[rng.integers(0, len(ordinary), len(places))]
    result = ids.copy()
    result[places] = np.where(
        luck < _MASKED, alphabet.mask, np.where(luck < _MASKED + _REPLACED, others, ids[places])
    )
    return result
