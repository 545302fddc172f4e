"""Late chunking: parts of a document as a pass over the whole sees them, against the definition in plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints import POSITIONS, WORDS
from triptych import Encoder
from triptych.errors import InputError
from triptych.model.packed import Packed

TEXT = " ".join(WORDS[i % len(WORDS)] for i in range(20))


def _spans(text: str, words: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Characters of runs of words."""
    starts = [0]
    for word in text.split(" "):
        starts.append(starts[-1] + len(word) + 1)
    return [(starts[a], starts[b] - 1) for a, b in words]


def _slow(
    encoder: Encoder, text: str, span: tuple[int, int]
) -> tuple[np.ndarray, dict[int, float], np.ndarray]:
    """The mean state, the largest weight per token and all token vectors of a part, from one pass over the text."""
    ids = encoder.tokenizer.encode([text], max_length=encoder.config.max_length).ids[0]
    places = encoder.token_spans([text])[0]
    own = [i + 1 for i, (a, b) in enumerate(places.tolist()) if a < span[1] and b > span[0]]
    model = encoder._model
    with torch.no_grad():
        states = model._states(Packed.of([ids]), first_only=False).double()
    mean = states[own].mean(0)
    weights: dict[int, float] = {}
    vectors = []
    for i in own:
        with torch.no_grad():
            raw = states[i] @ model.lexical_head.weight[0].double() + model.lexical_head.bias.double()
            vector = model.multi_head.weight.double() @ states[i] + model.multi_head.bias.double()
        weight = max(0.0, raw.item())
        if weight > 0 and int(ids[i]) not in model.special.never_lexical:
            weights[int(ids[i])] = max(weights.get(int(ids[i]), 0.0), weight)
        vectors.append((vector / vector.norm()).numpy())
    return (mean / mean.norm()).numpy(), weights, np.array(vectors)


def test_parts_have_the_states_of_the_whole(any_encoder: Encoder) -> None:
    texts = [TEXT, "", TEXT[:40], " ".join(WORDS[:3])]
    spans = [_spans(TEXT, [(0, 5), (3, 9), (9, 20)]), [(0, 0)], [(0, 10), (10, 40)], [(0, 3)]]
    found = any_encoder.encode_spans(texts, spans)
    assert len(found) == 7
    at = 0
    for text, parts in zip(texts, spans, strict=True):
        for part in parts:
            if text:
                dense, weights, multi = _slow(any_encoder, text, part)
                np.testing.assert_allclose(found.dense[at], dense, atol=2e-5)
                row = found.lexical[[at]]
                assert dict(zip(row.indices.tolist(), row.data.tolist(), strict=True)) == pytest.approx(
                    weights, abs=2e-5
                )
                np.testing.assert_allclose(found.multi[at], multi, atol=2e-5)
            at += 1
    assert np.isfinite(found.dense).all()


def test_a_document_beyond_the_models_length_is_seen_through_windows(encoder: Encoder) -> None:
    words = 4 * POSITIONS
    text = " ".join(WORDS[i % len(WORDS)] for i in range(words))
    parts = [(a, a + 4) for a in range(0, words, 4)]
    found = encoder.encode_spans([text, text], [_spans(text, parts)] * 2)
    assert len(found) == 2 * len(parts)
    assert (found.multi.lengths >= 4).all()
    np.testing.assert_allclose(found.dense[: len(parts)], found.dense[len(parts) :], atol=2e-6)
    for head in ("dense", "lexical"):
        some = encoder.encode_spans([text], [_spans(text, parts)], outputs=[head])
        assert some.heads == (head,)


def test_impossible_parts_are_refused(encoder: Encoder) -> None:
    long = " ".join(WORDS[i % len(WORDS)] for i in range(2 * POSITIONS))
    for texts, spans, message in (
        ([long], [[(0, len(long))]], "text 0: a part has .* tokens"),
        ([TEXT], [[(5, 9), (0, 4)]], "ascend"),
        ([TEXT], [], "1 texts and 0 lists"),
    ):
        with pytest.raises(InputError, match=message):
            encoder.encode_spans(texts, spans)


def test_parts_keep_their_lengths_if_the_model_is_not_to_normalize(folder: Path, encoder: Encoder) -> None:
    spans = [_spans(TEXT, [(0, 5), (3, 9)])]
    unit = encoder.encode_spans([TEXT], spans)
    plain = Encoder.from_pretrained(folder, normalize=False, dtype="float32").encode_spans([TEXT], spans)
    for raw, normalized in ((plain.dense, unit.dense), (plain.multi.values, unit.multi.values)):
        lengths = np.linalg.norm(raw, axis=1, keepdims=True)
        assert np.abs(lengths - 1).min() > 1e-3
        np.testing.assert_allclose(raw / lengths, normalized, atol=2e-5)
    model = encoder._model
    ids = encoder.tokenizer.encode([TEXT], max_length=64).ids[0]
    with torch.no_grad():
        states = model._states(Packed.of([ids]), first_only=False)
    np.testing.assert_allclose(plain.dense[0], states[1:6].mean(0), atol=2e-5)
