"""A start for the lexical head: ridge regression from the backbone's states to weights as BM25 has them.

BM25's score is a sum over shared terms of idf · saturated term frequency. The lexical score is a sum of
products of one weight from either side, so that each side should give about √idf, the document's with the
saturation. idf is counted within a language: a Thai particle is rare in a corpus of fifty languages, and says
nothing. The head sees only the state of a token in its text, from which it has to guess the target.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from qa_split import Passage
from triptych.model.backbone import hidden_size, padded_states
from triptych.model.checkpoint import Checkpoint
from triptych.model.packed import Packed

Floats = NDArray[np.float64]
Batch = tuple[list[int], list[NDArray[np.int64]], list[NDArray[np.float32]]]

RIDGE = 1e-3
"""Penalty per position, against states of variance about 0.1 to 1."""
BATCH_TOKENS = 8192
SATURATION, LENGTH_NORM = 1.2, 0.75  # BM25's k1 and b, the usual values
TARGETS = ("idf", "root", "bm25", "root-global")


@dataclass(frozen=True, slots=True)
class Text:
    """A text to fit on: its side decides prefix and target."""

    text: str
    language: str
    is_query: bool


@dataclass(frozen=True, slots=True)
class Frequencies:
    """Document frequencies of token ids, by language; "" is all languages together."""

    counts: dict[str, Counter[int]]
    documents: Counter[str]
    mean_length: dict[str, float]

    def idf(self, ids: NDArray[np.int64], language: str) -> Floats:
        """**Math** ``ln(1 + (N − df + ½) / (df + ½))``, divided by its value for df = 0: 0..1 in any N."""
        total = self.documents[language]
        df = np.array([self.counts[language][int(i)] for i in ids], dtype=np.float64)
        return np.log1p((total - df + 0.5) / (df + 0.5)) / np.log1p((total + 0.5) / 0.5)


def count(model: Checkpoint, passages: Sequence[Passage]) -> Frequencies:
    """Counts in how many passages of each language every token is."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    documents: Counter[str] = Counter()
    lengths: Counter[str] = Counter()
    ids = model.tokenizer.encode([p.text for p in passages], max_length=model.model.config.max_length).ids
    for passage, tokens in zip(passages, ids, strict=True):
        for language in (passage.language, ""):
            counts[language].update(set(tokens.tolist()))
            documents[language] += 1
            lengths[language] += len(tokens)
    return Frequencies(dict(counts), documents, {name: lengths[name] / documents[name] for name in lengths})


def targets(tokens: NDArray[np.int64], text: Text, frequencies: Frequencies) -> Floats:
    """The weights that the positions of a text should get, float64 ``[n, len(TARGETS)]``."""
    idf = frequencies.idf(tokens, text.language)
    root = np.sqrt(idf)
    return np.stack(
        [idf, root, root * _saturation(tokens, text, frequencies), np.sqrt(frequencies.idf(tokens, ""))], 1
    )


def _saturation(tokens: NDArray[np.int64], text: Text, frequencies: Frequencies) -> Floats:
    """1 for a query; for a document BM25's ``tf (k1 + 1) / (tf + k1 (1 − b + b · length / mean))``."""
    if text.is_query:
        return np.ones(len(tokens))
    _, inverse, numbers = np.unique(tokens, return_inverse=True, return_counts=True)
    tf = numbers[inverse].astype(np.float64)
    norm = 1 - LENGTH_NORM + LENGTH_NORM * len(tokens) / frequencies.mean_length[text.language]
    return tf * (SATURATION + 1) / (tf + SATURATION * norm)


@dataclass(slots=True)
class _Sums:
    """Normal equations of the regressions, in float64; the last row of the states is 1, for the bias."""

    states: Floats
    products: Floats

    def add(self, states: Floats, wanted: Floats) -> None:
        extended = np.concatenate([states, np.ones((len(states), 1))], axis=1)
        self.states += extended.T @ extended
        self.products += extended.T @ wanted

    def solve(self) -> Floats:
        """``(XᵀX + λ n I)⁻¹ Xᵀ Y`` with the bias left free."""
        penalty = np.full(len(self.states), RIDGE * self.states[-1, -1])
        penalty[-1] = 0
        return np.linalg.solve(self.states + np.diag(penalty), self.products).astype(np.float64)


def fit(
    model: Checkpoint,
    texts: Sequence[Text],
    frequencies: Frequencies,
    progress: Callable[[int, int], None],
) -> dict[str, Floats]:
    """Fits one head for every kind of target.

    Positions of special tokens do not count; those of the prefix, which every text has, should get 0.

    Returns:
        Target → ``[H + 1]``, weights and bias.
    """
    width = hidden_size(model.model.backbone) + 1
    sums = _Sums(np.zeros((width, width)), np.zeros((width, len(TARGETS))))
    done = 0
    for rows, ids, states in states_of(model, texts):
        for row, tokens, state in zip(rows, ids, states, strict=True):
            text = texts[row]
            own = _prefix_length(model, text.is_query)
            wanted = np.zeros((len(tokens), len(TARGETS)))
            wanted[own:-1] = targets(tokens[own:-1], text, frequencies)
            keep = ~np.isin(tokens, model.model.special.never_lexical)
            sums.add(state[keep].astype(np.float64), wanted[keep])
        done += len(rows)
        progress(done, len(texts))
    return dict(zip(TARGETS, sums.solve().T, strict=True))


def _prefix_length(model: Checkpoint, is_query: bool) -> int:
    config = model.model.config
    prefix = config.query_prefix if is_query else config.document_prefix
    # Encoding the prefix alone gives its tokens and [EOS], which stands for the text here.
    return len(model.tokenizer.encode([""], prefix=prefix, max_length=config.max_length).ids[0]) - 1


def states_of(model: Checkpoint, texts: Sequence[Text]) -> Iterator[Batch]:
    """Rows of `texts`, their token ids and states (one array a text), the longest texts first."""
    config = model.model.config
    ids: list[NDArray[np.int64]] = []
    for text in texts:
        prefix = config.query_prefix if text.is_query else config.document_prefix
        ids += model.tokenizer.encode([text.text], prefix=prefix, max_length=config.max_length).ids
    order = sorted(range(len(texts)), key=lambda row: (-len(ids[row]), row))
    start = 0
    while start < len(order):
        rows = order[start : start + max(1, BATCH_TOKENS // len(ids[order[start]]))]
        start += len(rows)
        batch = Packed.of([ids[row] for row in rows])
        with torch.inference_mode():
            states = (
                padded_states(model.model.backbone, batch, pad_id=model.model.special.pad).float().numpy()
            )
        yield rows, [ids[row] for row in rows], np.split(states, np.cumsum(batch.lengths)[:-1])
