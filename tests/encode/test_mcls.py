"""Pooling `mcls` (arXiv 2402.03216v4, appendix B.2): a [CLS] every n tokens, the mean of their states."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import twin
from checkpoints import POSITIONS, TEXTS, WORDS
from triptych import Encoder
from triptych.model.packed import Packed, SpecialIds, positions


def by_loops(plain: twin.Twin, text: str, every: int) -> twin.Text:
    """The same in plain loops."""
    inner = plain.tokenizer
    ids: list[int] = []
    for place, token in enumerate(inner(text, add_special_tokens=False)["input_ids"]):
        if place % every == 0:
            ids.append(inner.cls_token_id)
        ids.append(token)
    ids = [*(ids or [inner.cls_token_id]), inner.sep_token_id]
    with torch.inference_mode():
        states = plain.model(input_ids=torch.tensor([ids])).last_hidden_state[0].double().numpy()
    mean = states[[i for i, token in enumerate(ids) if token == inner.cls_token_id]].mean(axis=0)
    lexical, multi = ([head[k].double().numpy() for k in ("weight", "bias")] for head in plain.heads)
    weights = [max(0.0, reference.linear(state, *lexical)[0]) for state in states]
    ignored = {inner.cls_token_id, inner.sep_token_id, inner.pad_token_id, inner.unk_token_id}
    vectors = [
        reference.normalised(reference.linear(state, *multi))
        for token, state in zip(ids, states, strict=True)
        if token != inner.cls_token_id
    ]
    return twin.Text(reference.normalised(mean), reference.lexical_weights(ids, weights, ignored), vectors)


@pytest.mark.parametrize("every", [1, 3, 100])
def test_the_representations_equal_the_loops(any_folder: Path, every: int) -> None:
    encoder = Encoder.from_pretrained(
        any_folder, device="cpu", dtype="float32", pooling="mcls", mcls_every=every
    )
    plain = twin.Twin(any_folder)
    twin.assert_equal(encoder.encode(TEXTS), [by_loops(plain, text, every) for text in TEXTS])


def test_with_one_cls_it_is_cls_pooling(folder: Path, encoder: Encoder) -> None:
    mcls = Encoder.from_pretrained(
        folder, device="cpu", dtype="float32", pooling="mcls", mcls_every=POSITIONS
    )
    twin.assert_same(mcls.encode(TEXTS), encoder.encode(TEXTS))


@settings(max_examples=60, deadline=None)
@given(st.integers(4, POSITIONS), st.integers(1, 70), st.integers(0, 80))
def test_texts_fill_the_length_and_never_exceed_it(
    encoder: Encoder, length: int, every: int, words: int
) -> None:
    """Every word is one token; 2 special ones and the further [CLS] count, too."""
    text = " ".join(WORDS[i % len(WORDS)] for i in range(words))
    (ids,), truncated = encoder.tokenizer.encode([text], max_length=length, mcls_every=every)
    kept = len(ids) - 1 - int((ids == encoder.tokenizer.special.cls).sum())
    assert len(ids) <= length
    assert truncated == (kept < words)
    if truncated:
        one_more = kept + 1
        assert one_more + -(-one_more // every) + 1 > length


def test_the_longest_text_is_encoded(folder: Path) -> None:
    for every in (3, 20, 61, 62):
        encoder = Encoder.from_pretrained(
            folder, device="cpu", dtype="float32", pooling="mcls", mcls_every=every
        )
        with pytest.warns(UserWarning, match="1 of 1 texts were cut"):
            assert np.isfinite(encoder.encode("the " * 100).dense).all()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_the_ends_have_token_vectors_as_configured_with_every_pooling(
    encoder: Encoder, first: bool, last: bool
) -> None:
    """Here 0 is [CLS] and 2 is [EOS]."""
    batch, special = Packed.of([[0, 7, 0, 8, 2], [0, 2]]), SpecialIds(cls=0, eos=2, pad=1, unk=3)
    for pooling, inner in (("cls", [True, True, True]), ("mcls", [True, False, True])):
        config = encoder.config.with_(pooling=pooling, multi_first=first, multi_last=last)
        counted = positions(batch, "multi", config, special).tolist()
        assert counted == [first, *inner, last, first, last]
