"""What a GPU does between the matrix products, each as one Triton kernel in place of several of torch's.

Between its products the pass only moves bytes, so that every kernel here reads its inputs once and writes its output
once; sums run in float32. Triton, which torch's builds for NVIDIA GPUs bring, compiles them at the first call.
"""

# Triton has no types, and is not installed on machines without a GPU.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownArgumentType=false
# pyright: reportUntypedFunctionDecorator=false, reportIndexIssue=false

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

_WARPS = 4
# Queries of a tile. Of 32, 64 and 128 with 32 to 128 keys, 64 with 64 was fastest for texts of some hundred tokens and
# more, and 64 with 32 below, since short texts fill smaller tiles better.
TILE = 64
_LONG = 128
_LOG2_E = 1.4426950408889634


@triton.jit
def _add_norm(
    x, x_rows, y, y_rows, weight, bias, out, eps, width, BLOCK: tl.constexpr, LOOK_UP: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    x_row, y_row = row, row
    if LOOK_UP:
        x_row, y_row = tl.load(x_rows + row), tl.load(y_rows + row)
    left = tl.load(x + x_row * width + at, inside, 0.0).to(tl.float32)
    values = left + tl.load(y + y_row * width + at, inside, 0.0).to(tl.float32)
    centered = tl.where(inside, values - tl.sum(values, 0) / width, 0.0)
    scale = tl.rsqrt(tl.sum(centered * centered, 0) / width + eps)
    factors = tl.load(weight + at, inside, 0.0).to(tl.float32)
    shifts = tl.load(bias + at, inside, 0.0).to(tl.float32)
    tl.store(out + row * width + at, centered * scale * factors + shifts, inside)


@triton.jit
def _unit_rows(x, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    values = tl.load(x + row * width + at, inside, 0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(values * values, 0))
    tl.store(out + row * width + at, values / tl.maximum(length, 1e-12), inside)


@triton.jit
def _lexical(x, weight, bias, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    values = tl.load(x + row * width + at, inside, 0.0).to(tl.float32)
    total = tl.sum(values * tl.load(weight + at, inside, 0.0).to(tl.float32), 0)
    tl.store(out + row, tl.maximum(total + tl.load(bias).to(tl.float32), 0.0))


@triton.jit
def _attend_keys(
    q, query, first, end, column, hidden, scale, most, total, mixed, KEYS: tl.constexpr, MASKED: tl.constexpr
):  # fmt: skip
    keys = first + tl.arange(0, KEYS)
    at = query + keys[:, None] * 3 * hidden + column[None, :]
    if MASKED:
        there = keys < end
        k = tl.load(at + hidden, there[:, None], 0.0)
        v = tl.load(at + 2 * hidden, there[:, None], 0.0)
        scores = tl.where(there[None, :], tl.dot(q, k.T), -1.0e30)
    else:
        k = tl.load(at + hidden)
        v = tl.load(at + 2 * hidden)
        scores = tl.dot(q, k.T)
    highest = tl.maximum(most, tl.max(scores, 1) * scale)
    probs = tl.exp2(scores * scale - highest[:, None])
    fade = tl.exp2(most - highest)
    mixed = tl.dot(probs.to(v.dtype), v, mixed * fade[:, None])
    return highest, total * fade + tl.sum(probs, 1), mixed


@triton.jit(do_not_specialize=["count"])
def _attend(
    qkv, out, tiles, count, scale, heads, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr
):  # fmt: skip
    head, tile = tl.program_id(0), tl.program_id(1)
    start, end = tl.load(tiles + tile).to(tl.int64), tl.load(tiles + count + tile).to(tl.int64)
    rows = tl.load(tiles + 2 * count + tile).to(tl.int64) + tl.arange(0, ROWS)
    column, hidden = tl.arange(0, WIDTH), heads * WIDTH
    query = qkv + head * WIDTH
    inside = rows[:, None] < end
    q = tl.load(query + rows[:, None] * 3 * hidden + column[None, :], inside, 0.0)
    most = tl.full([ROWS], -1.0e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, WIDTH], tl.float32)
    # The text's last keys alone need a mask.
    whole = (end - start) // KEYS * KEYS
    for first in range(0, whole, KEYS):
        most, total, mixed = _attend_keys(
            q, query, start + first, end, column, hidden, scale, most, total, mixed, KEYS, False
        )
    if start + whole < end:
        most, total, mixed = _attend_keys(
            q, query, start + whole, end, column, hidden, scale, most, total, mixed, KEYS, True
        )
    place = out + rows[:, None] * hidden + head * WIDTH + column[None, :]
    tl.store(place, (mixed / total[:, None]).to(out.dtype.element_ty), inside)


def add_norm(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    rows: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The layer norm of a sum.

    Args:
        x: ``[T, H]``, contiguous.
        y: The same; `rows` given: ``[any, H]`` both.
        weight: ``[H]``.
        bias: ``[H]``.
        eps: Added to the variance.
        rows: int64 ``[T]`` each: the rows of `x` and of `y` that are added.

    Returns:
        ``[T, H]`` in the type of `x`.
    """
    height, width = len(x) if rows is None else len(rows[0]), x.shape[1]
    out = x.new_empty(height, width)
    x_rows, y_rows = rows or (x, x)
    if height:
        block = triton.next_power_of_2(width)
        with torch.cuda.device_of(x):  # Triton launches on the current device
            _add_norm[(height,)](
                x, x_rows, y, y_rows, weight, bias, out, eps, width, block, rows is not None, num_warps=_WARPS
            )
    return out


def unit_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of ``[M, D]`` scaled to length 1, in this type."""
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    if len(x):
        block = triton.next_power_of_2(x.shape[1])
        with torch.cuda.device_of(x):
            _unit_rows[(len(x),)](x, out, x.shape[1], block, num_warps=_WARPS)
    return out


def lexical_weights(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``ReLU(w · h + b)`` of states ``[T, H]`` with a weight ``[1, H]`` and a bias ``[1]``: float32 ``[T]``."""
    height, width = states.shape
    out = states.new_empty(height, dtype=torch.float32)
    if height:
        block = triton.next_power_of_2(width)
        with torch.cuda.device_of(states):
            _lexical[(height,)](states, weight, bias, out, width, block, num_warps=_WARPS)
    return out


def tiles_of(lengths: Sequence[int]) -> NDArray[np.int32]:
    """What `attend` walks through: of each tile its text's first token, the one after its last, its own first.

    Args:
        lengths: Tokens of each text.

    Returns:
        ``[3, tiles]``.
    """
    size = np.asarray(lengths, dtype=np.int64)
    ends = np.cumsum(size)
    count = -(-size // TILE)
    text = np.repeat(np.arange(len(size)), count)
    within = np.arange(len(text)) - np.repeat(np.cumsum(count) - count, count)
    starts = (ends - size)[text]
    return np.stack([starts, ends[text], starts + within * TILE]).astype(np.int32)


def attend(qkv: Tensor, heads: int, tiles: Tensor, longest: int) -> Tensor:
    """Every position attends to all positions of its own text; ``softmax(q kᵀ / √d) v``, a tile of queries at a time.

    Args:
        qkv: ``[T, 3 H]``, contiguous: query, key and value side by side.
        heads: Number of heads; each has 16, 32, 64 or 128 columns.
        tiles: Of `tiles_of`, on the device.
        longest: Tokens of the longest text.

    Returns:
        ``[T, H]``.
    """
    width = qkv.shape[1] // 3 // heads
    out = qkv.new_empty(len(qkv), heads * width)
    count = tiles.shape[1]
    keys = TILE if longest > _LONG else TILE // 2
    # The second number of a grid is at most 65535, so that the tiles come in parts.
    for first in range(0, count, 65535):
        part, scale = tiles[:, first : first + 65535], _LOG2_E * width**-0.5
        with torch.cuda.device_of(qkv):
            _attend[(heads, part.shape[1])](
                qkv, out, part, count, scale, heads, width, TILE, keys, num_warps=4, num_stages=3
            )
    return out
