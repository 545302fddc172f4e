"""The published model once more, in the plain way: transformers, padding, and the loops of `reference`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from transformers import AutoModel, AutoTokenizer

import reference
from triptych import Encoded


class Text(NamedTuple):
    """The three representations of one text."""

    dense: list[float]
    lexical: dict[int, float]
    multi: list[list[float]]


class Twin:
    """Recomputes what a published folder gives.

    Args:
        folder: Encoder, tokenizer, `sparse_linear.pt` and `colbert_linear.pt`.
        pooling: "cls" or "mean".
    """

    def __init__(self, folder: Path, pooling: str = "cls") -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()
        self.heads = [
            torch.load(folder / name, weights_only=True) for name in ("sparse_linear.pt", "colbert_linear.pt")
        ]
        self.pooling = pooling

    def __call__(self, texts: Sequence[str], max_length: int = 64) -> list[Text]:
        """Encodes all texts in one padded batch."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        with torch.inference_mode():
            states = self.model(**batch).last_hidden_state.double().numpy()
        real = batch["attention_mask"].numpy().astype(bool)
        ids = batch["input_ids"].numpy()
        return [self._text(ids[i][real[i]].tolist(), states[i][real[i]]) for i in range(len(texts))]

    def _text(self, ids: list[int], states: np.ndarray) -> Text:
        (lexical, multi), inner = (
            [{k: v.double().numpy() for k, v in head.items()} for head in self.heads],
            self.tokenizer,
        )
        weights = [max(0.0, reference.linear(h, lexical["weight"], lexical["bias"])[0]) for h in states]
        ignored = {inner.cls_token_id, inner.sep_token_id, inner.pad_token_id, inner.unk_token_id}
        vectors = [
            reference.normalised(reference.linear(h, multi["weight"], multi["bias"])) for h in states[1:]
        ]
        pooled = states[0] if self.pooling == "cls" else states.mean(axis=0)
        return Text(reference.normalised(pooled), reference.lexical_weights(ids, weights, ignored), vectors)


def score(query: Text, document: Text, weights: Sequence[float]) -> float:
    """The weighted sum of the three scores."""
    return (
        weights[0] * reference.dense_score(query.dense, document.dense)
        + weights[1] * reference.lexical_score(query.lexical, document.lexical)
        + weights[2] * reference.maxsim_score(query.multi, document.multi)
    )


def row(matrix: sparse.csr_array, i: int) -> dict[int, float]:
    """Row i of a CSR matrix as id → weight."""
    part = slice(matrix.indptr[i], matrix.indptr[i + 1])
    return dict(zip(matrix.indices[part].tolist(), matrix.data[part].tolist(), strict=True))


def assert_equal(encoded: Encoded, expected: Sequence[Text], tolerance: float = 1e-5) -> None:
    """Compares all heads that `encoded` has."""
    assert len(encoded) == len(expected)
    for i, text in enumerate(expected):
        if encoded.dense is not None:
            np.testing.assert_allclose(encoded.dense[i], text.dense, atol=tolerance, rtol=0)
        if encoded.lexical is not None:
            assert row(encoded.lexical, i) == pytest_approx(text.lexical, tolerance)
        if encoded.multi is not None:
            np.testing.assert_allclose(
                encoded.multi[i], np.reshape(text.multi, (-1, encoded.multi.width)), atol=tolerance, rtol=0
            )


def assert_same(left: Encoded, right: Encoded, tolerance: float = 1e-6) -> None:
    """Compares two results of the package head by head."""
    assert left.heads == right.heads
    assert len(left) == len(right)
    if left.dense is not None and right.dense is not None:
        np.testing.assert_allclose(left.dense, right.dense, atol=tolerance, rtol=0)
    if left.lexical is not None and right.lexical is not None:
        np.testing.assert_allclose(left.lexical.toarray(), right.lexical.toarray(), atol=tolerance, rtol=0)
    if left.multi is not None and right.multi is not None:
        np.testing.assert_array_equal(left.multi.offsets, right.multi.offsets)
        np.testing.assert_allclose(left.multi.values, right.multi.values, atol=tolerance, rtol=0)


def pytest_approx(expected: dict[int, float], tolerance: float) -> object:
    """`pytest.approx` without the relative part."""
    import pytest

    return pytest.approx(expected, abs=tolerance, rel=0)
