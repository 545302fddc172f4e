"""Attention on packed batches for inference: the fastest way that a device has, per length of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from triptych.model import native
from triptych.model.packed_forward import Shape, flash_attention, flash_usable, runs

# Scores of one tile in bfloat16. Measured on Zen 5 (1 MB of second-level cache a core, 32 MB shared): 4 MB
# was best or within 5 % of it from 512 to 8192 tokens; the memory is the same for any length.
_TILE = 2 * 1024 * 1024
_ROWS = 1024
# Shorter texts: one call of torch's attention is faster than two products and a softmax.
_SHORT = 48


class Tile(NamedTuple):
    """Heads and rows of one step."""

    heads: slice
    rows: slice


def attend(qkv: Tensor, heads: int, shape: Shape) -> Tensor:
    """Every position attends to all positions of its own text.

    Args:
        qkv: ``[T, 3 H]``, query, key and value side by side.
        heads: Number of heads.
        shape: The texts' bounds; texts of equal length should stand together.

    Returns:
        ``[T, H]``.
    """
    parts = qkv.view(len(qkv), 3, heads, -1)
    if flash_usable(qkv, parts.shape[-1]):
        query, key, value = parts.unbind(1)
        return flash_attention(query, key, value, shape).flatten(1)
    out = qkv.new_empty(len(qkv), heads, parts.shape[-1])
    for first, count, length in runs(shape.lengths):
        rows = slice(first, first + count * length)
        size = (count, length, *out.shape[1:])
        query, key, value = (part.view(size).transpose(1, 2) for part in parts[rows].unbind(1))
        target = out[rows].view(size)
        if qkv.dtype == torch.bfloat16 and qkv.device.type == "cpu" and length >= _SHORT:
            for i in range(count):
                _tiled(query[i], key[i], value[i], target[i])
        else:
            target.copy_(scaled_dot_product_attention(query, key, value).transpose(1, 2))
    return out.flatten(1)


def attend_first(qkv: Tensor, heads: int, shape: Shape) -> Tensor:
    """The first position of each text attends to all positions of its text.

    Args:
        qkv: ``[T, 3 H]``.
        heads: Number of heads.
        shape: The texts' bounds.

    Returns:
        ``[N, H]``.
    """
    parts = qkv.view(len(qkv), 3, heads, -1)
    query = parts[:, 0].index_select(0, shape.bounds[:-1].long())
    if flash_usable(qkv, parts.shape[-1]):
        each = torch.arange(len(shape.bounds), dtype=torch.int32, device=qkv.device)
        asking = Shape((1,) * len(query), each)
        return flash_attention(query, parts[:, 1], parts[:, 2], shape, asking=asking).flatten(1)
    out: list[Tensor] = []
    text = 0
    for first, count, length in runs(shape.lengths):
        size = (count, length, *query.shape[1:])
        key, value = (parts[first : first + count * length, i].view(size).transpose(1, 2) for i in (1, 2))
        chosen = query[text : text + count].unsqueeze(2)
        out.append(scaled_dot_product_attention(chosen, key, value).flatten(1))
        text += count
    return out[0] if len(out) == 1 else torch.cat(out)


def _tiled(query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    """One text, ``[heads, L, d]`` each, into ``[L, heads, d]``: two bfloat16 products and a softmax a tile.

    torch's attention on a processor multiplies in float32 tiles that are too small for its speed in
    bfloat16. The softmax itself runs in float32 inside.
    """
    turned, scale, rows = key.transpose(1, 2), query.shape[-1] ** -0.5, native.load().rows
    for tile in _tiles(query.shape[0], query.shape[1]):
        scores = torch.bmm(query[tile.heads, tile.rows], turned[tile.heads])
        if rows is not None:
            factors = rows.softmax(scores, scale)
            rows.merge_heads(torch.bmm(scores, value[tile.heads]), factors, out[tile.rows, tile.heads])
        else:
            torch.softmax(scores.mul_(scale), -1, out=scores)
            out[tile.rows, tile.heads] = torch.bmm(scores, value[tile.heads]).transpose(0, 1)


def _tiles(heads: int, length: int) -> Iterator[Tile]:
    rows = min(length, _ROWS, max(64, _TILE // length))
    together = max(1, min(heads, _TILE // (length * rows)))
    for head in range(0, heads, together):
        for row in range(0, length, rows):
            yield Tile(slice(head, head + together), slice(row, min(length, row + rows)))
