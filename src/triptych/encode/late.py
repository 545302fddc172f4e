"""Late chunking: the vectors of a document's parts from passes over the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from triptych.errors import InputError
from triptych.model.m3 import M3Model
from triptych.model.packed import Ids, Packed, batches
from triptych.model.tokenizer import TextTokenizer
from triptych.types import Encoded, Head, Spans

_CONTEXT = 8
"""A window that does not begin with the document repeats this part of its length, so that its first part has what
stands before it."""


class Window(NamedTuple):
    """What the model reads at once, and which parts take their vectors from it.

    Attributes:
        ids: Token ids, special ones and the prefix included.
        spans: int64 ``[S, 2]``, positions of the parts in it.
        parts: int64 ``[S]``, the parts' numbers.
    """

    ids: Ids
    spans: Spans
    parts: Ids


def windows_of(
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
    prefix: str,
    max_length: int,
) -> list[Window]:
    """Cuts documents into windows of at most `max_length` tokens that hold whole parts.

    Raises:
        InputError: For other numbers of texts and lists of parts, a part that is too long, or parts that do not ascend.
    """
    if len(spans) != len(texts):
        raise InputError(f"encode_spans: got {len(texts)} texts and {len(spans)} lists of spans")
    before = np.asarray(tokenizer.prefix_ids(prefix) or tokenizer.before, dtype=np.int64)
    after = tokenizer.after
    room = max_length - len(before) - len(after)
    windows: list[Window] = []
    number = 0
    for i, (ids, places) in enumerate(tokenizer.spans(texts, prefix)):
        parts = _token_runs(places, spans[i], f"encode_spans: text {i}")
        at = 0
        while at < len(parts):
            first = int(parts[at, 0])
            begin = 0 if parts[-1, 1] <= room else max(0, first - room // _CONTEXT)
            if parts[at, 1] - begin > room:
                begin = first
            last = max(at + 1, int(np.searchsorted(parts[:, 1], begin + room, side="right")))
            if parts[at, 1] - begin > room:
                raise InputError(
                    f"encode_spans: text {i}: a part has {parts[at, 1] - first} tokens; the model reads {room} at once"
                )
            window = np.concatenate([before, ids[begin : begin + room], after])
            windows.append(
                Window(window, parts[at:last] - begin + len(before), np.arange(number + at, number + last))
            )
            at = last
        number += len(parts)
    return windows


def _token_runs(places: Spans, spans: Sequence[tuple[int, int]], where: str) -> Spans:
    """The tokens of each part; one without any, such as blanks, gets the token beside it."""
    chars = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    if (np.diff(chars, axis=0) < 0).any() or (chars[:, 1] < chars[:, 0]).any() or (chars < 0).any():
        raise InputError(f"{where}: got spans that do not ascend; expected parts in the order of the text")
    if not len(places):
        return np.tile(
            np.array([-1, 0], dtype=np.int64), (len(chars), 1)
        )  # what stands before the text: [CLS]
    first = np.minimum(np.searchsorted(places[:, 1], chars[:, 0], side="right"), len(places) - 1)
    last = np.searchsorted(places[:, 0], chars[:, 1], side="left")
    return np.stack([first, np.maximum(last, first + 1)], axis=1)


def encode_windows(
    model: M3Model, windows: Sequence[Window], heads: Sequence[Head], budget: int, device: torch.device
) -> Encoded:
    """Runs windows through the model, longest first, and puts their parts in order.

    Args:
        model: The model.
        windows: What to read.
        heads: Heads to compute.
        budget: Tokens of one pass.
        device: The model's.
    """
    lengths = np.array([len(window.ids) for window in windows], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    found: list[Encoded] = []
    numbers: list[Ids] = []
    for rows in batches(lengths[order], budget, padded=not model.packs):
        chosen = [windows[i] for i in order[rows]]
        batch = Packed.of([window.ids for window in chosen], device)
        starts = np.concatenate([[0], np.cumsum(batch.lengths)[:-1]]).astype(np.int64)
        spans = np.concatenate([window.spans + start for window, start in zip(chosen, starts, strict=True)])
        with torch.inference_mode():
            reps = model.forward_spans(batch, torch.from_numpy(spans), heads)
        found.append(reps.to_encoded(model.widths.get("lexical", 0)))
        numbers += [window.parts for window in chosen]
    if not found:
        raise InputError("encode_spans: got no parts; expected at least one")
    return Encoded.concat(found)[np.argsort(np.concatenate(numbers))]
