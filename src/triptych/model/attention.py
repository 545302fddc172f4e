"""Attention on packed batches for inference: the fastest way that a device has, per length of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from triptych.model import native
from triptych.model.packed_forward import Shape, flash_attention, flash_usable, runs

# Rows of a tile of scores, and how many scores the heads that share a tile may have together. Measured on two
# cores of Zen 5 (1 MB of second-level cache each, 32 MB shared): of 2, 4, 8 and 16 million scores 2 was best at
# 1024 and 2048 tokens, but from 4096 on what makes as many as 1024 rows (8192 tokens: 285 GFLOP/s with 256
# rows, 389 with 1024). A tile's memory grows with the length, to 16 MB at 8192 tokens.
_ROWS = 1024
_TILE = 2 * 1024 * 1024
# Shorter texts: one call of torch's attention is faster than two products and a softmax.
_SHORT = 48


# From here on a GPU takes texts of equal length together rather than all lengths at once.
LONG = 1024


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
    if not flash_usable(qkv, parts.shape[-1]):
        out = qkv.new_empty(len(qkv), heads, parts.shape[-1])
        _by_runs(parts, shape.lengths, out)
        return out.flatten(1)
    if shape.longest < LONG:
        query, key, value = parts.unbind(1)
        return flash_attention(query, key, value, shape).flatten(1)
    return _long_first(parts, shape).flatten(1)


def _by_runs(parts: Tensor, lengths: Sequence[int], out: Tensor) -> None:
    """Texts of equal length at a time, from ``[T, 3, heads, d]`` into ``[T, heads, d]``."""
    tiled = out.dtype == torch.bfloat16 and out.device.type == "cpu"
    for first, count, length in runs(lengths):
        rows = slice(first, first + count * length)
        size = (count, length, *out.shape[1:])
        query, key, value = (part.view(size).transpose(1, 2) for part in parts[rows].unbind(1))
        target = out[rows].view(size)
        if tiled and length >= _SHORT:
            for i in range(count):
                _tiled(query[i], key[i], value[i], target[i])
        else:
            target.copy_(scaled_dot_product_attention(query, key, value).transpose(1, 2))


def _long_first(parts: Tensor, shape: Shape) -> Tensor:
    """The long texts at the beginning by runs of equal length, the rest by the kernel for unequal ones.

    torch's attention for one length chooses among more kernels than its attention for unequal lengths has, and
    for long texts the time is attention's.
    """
    count = next((i for i, length in enumerate(shape.lengths) if length < LONG), len(shape.lengths))
    tokens, rest = sum(shape.lengths[:count]), shape.lengths[count:]
    out = parts.new_empty(len(parts), *parts.shape[2:])
    _by_runs(parts[:tokens], shape.lengths[:count], out)
    if rest:
        query, key, value = parts[tokens:].unbind(1)
        others = Shape.of(rest, shape.bounds[count:] - tokens)
        out[tokens:] = flash_attention(query, key, value, others)
    return out


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
        asking = Shape((), each, 1)
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
    rows = min(length, _ROWS)
    together = max(1, min(heads, _TILE // (length * rows)))
    for head in range(0, heads, together):
        for row in range(0, length, rows):
            yield Tile(slice(head, head + together), slice(row, min(length, row + rows)))
