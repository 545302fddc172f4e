"""Attention on packed batches for inference: the fastest way that a device has, per length of text.

The backbone's forward pass on packed batches: no padding anywhere, gradients included.

For encoders built like BERT (post-norm, learned absolute positions): BERT, RoBERTa, XLM-RoBERTa and their kin.
The pass calls the sub-modules of the loaded Hugging Face model, so that adapters, autocast and frozen weights
work as in its own forward. What it saves is the padding: with texts of mixed lengths that is often half of
the work. Only attention looks across positions; everything else runs on the flat buffer as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby, pairwise
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from triptych.model import native
from triptych.model.backbone import padded_states
from triptych.model.packed import Packed

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


_FAMILY = ("bert", "roberta", "xlm-roberta", "camembert")
# The flash kernels' limit for the width of one attention head.
_WIDEST_HEAD = 256


@dataclass(frozen=True, slots=True)
class Shape:
    """What attention needs to know of a packed batch.

    Attributes:
        lengths: Tokens of each text.
        bounds: int32 ``[N + 1]`` on the device, for kernels that take texts of unequal length.
        longest: Tokens of the longest text. A field, not ``max(lengths)``, since compiled code that reads
            `lengths` would be compiled again for every batch.
    """

    lengths: tuple[int, ...]
    bounds: Tensor
    longest: int

    @classmethod
    def of(cls, lengths: tuple[int, ...], bounds: Tensor) -> Shape:
        """The shape of one or more texts."""
        return cls(lengths, bounds, max(lengths))


RunLayer: TypeAlias = Callable[[nn.Module, Tensor, Shape], Tensor]


def supported(backbone: nn.Module) -> str | None:
    """Says why `packed_states` cannot run a backbone; None: it can."""
    config = getattr(backbone, "config", None)
    kind = getattr(config, "model_type", type(backbone).__name__)
    if kind not in _FAMILY:
        return f"{kind} is not one of {', '.join(_FAMILY)}"
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return f"positions are {config.position_embedding_type}, not absolute"  # type: ignore[union-attr]
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "it is set up as a decoder"
    if not hasattr(backbone, "embeddings") or not hasattr(getattr(backbone, "encoder", None), "layer"):
        return f"{type(backbone).__name__} has no embeddings and encoder.layer"
    return None


def last_states(backbone: nn.Module, batch: Packed, pad_id: int, run: RunLayer | None = None) -> Tensor:
    """The backbone's last states ``[T, H]``: unpadded where that can be, otherwise padded.

    Args:
        backbone: A Hugging Face encoder.
        batch: N texts, T tokens.
        pad_id: Fills the padding.
        run: Runs a layer of an unpadded pass; None: `run_layer`.
    """
    if supported(backbone) is None:
        return packed_states(backbone, batch, run)
    return padded_states(backbone, batch, pad_id)


def packed_states(backbone: nn.Module, batch: Packed, run: RunLayer | None = None) -> Tensor:
    """The backbone's last states of a packed batch; equal to `padded_states` up to rounding.

    In training mode dropout has the published distribution, and a backbone with gradient checkpointing
    enabled recomputes each layer in the backward pass.

    Args:
        backbone: An encoder for which `supported` gives None.
        batch: N texts, T tokens.
        run: Runs a layer; None: `run_layer`.

    Returns:
        ``[T, H]`` in the backbone's type.
    """
    model, run = cast(Any, backbone), run or run_layer
    states = embed(model.embeddings, batch)
    if not len(batch):
        return states
    order = None if flash_usable(states, head_width(model)) else _by_length(batch)
    if order is not None:
        tokens, lengths = _permutation(batch, order)
        states = states[tokens]
    else:
        tokens, lengths = None, batch.lengths
    shape = Shape.of(lengths, _bounds(lengths, batch, order))
    for layer in model.encoder.layer:
        if layer.training and getattr(layer, "gradient_checkpointing", False):
            states = cast(Tensor, checkpoint(run, layer, states, shape, use_reentrant=False))
        else:
            states = run(layer, states, shape)
    if tokens is None:
        return states
    return torch.empty_like(states).index_copy(0, tokens, states)


def head_width(backbone: nn.Module) -> int:
    """Columns of one attention head."""
    config = cast(Any, backbone).config
    return int(config.hidden_size) // int(config.num_attention_heads)


def embed(embeddings: nn.Module, batch: Packed) -> Tensor:
    """The first states ``[T, H]``: words, positions and token type 0, normalised."""
    parts = cast(Any, embeddings)
    states = parts.word_embeddings(batch.ids)
    if getattr(parts, "token_type_embeddings", None) is not None:
        states = states + parts.token_type_embeddings.weight[0]
    states = states + parts.position_embeddings(position_ids(batch, parts.position_embeddings.padding_idx))
    return parts.dropout(parts.LayerNorm(states))


def position_ids(batch: Packed, padding_idx: int | None) -> Tensor:
    """Rows of the position table, int64 ``[T]``.

    BERT counts from 0. RoBERTa-like models (`padding_idx` given) count from ``padding_idx + 1`` and count only
    what is not the padding id, which a text may hold too (``<pad>`` written out).
    """
    real = torch.ones_like(batch.ids) if padding_idx is None else batch.ids.ne(padding_idx).long()
    count = real.cumsum(0)
    start = count.index_select(0, batch.offsets[:-1]) - real.index_select(0, batch.offsets[:-1])
    within = count - start.repeat_interleave(batch.offsets.diff(), output_size=len(batch.ids))
    return within - 1 if padding_idx is None else within * real + padding_idx


def run_layer(layer: nn.Module, states: Tensor, shape: Shape) -> Tensor:
    """One transformer layer on packed states ``[T, H]``."""
    parts = cast(Any, layer)
    inner = parts.attention.self
    heads = (-1, inner.num_attention_heads, inner.attention_head_size)
    query, key, value = (part(states).view(heads) for part in (inner.query, inner.key, inner.value))
    drop = float(inner.dropout.p) if layer.training else 0.0
    context = attention(query, key, value, shape, drop).flatten(1)
    output = parts.attention.output
    states = output.LayerNorm(output.dropout(output.dense(context)) + states)
    wide = parts.intermediate.intermediate_act_fn(parts.intermediate.dense(states))
    return parts.output.LayerNorm(parts.output.dropout(parts.output.dense(wide)) + states)


def attention(query: Tensor, key: Tensor, value: Tensor, shape: Shape, drop: float = 0.0) -> Tensor:
    """Every position attends to all positions of its own text.

    **Math** ``softmax(q kᵀ / √d) v`` per text and head; with `drop` each weight is zeroed with that probability
    and the others scaled up, as in BERT.

    Args:
        query: ``[T, heads, d]``.
        key: The same shape.
        value: The same shape.
        shape: The texts' bounds.
        drop: Probability in [0, 1).

    Returns:
        ``[T, heads, d]``.
    """
    if flash_usable(query, query.shape[-1]):
        return flash_attention(query, key, value, shape, drop)
    parts: list[Tensor] = []
    for first, count, length in runs(shape.lengths):
        rows = slice(first, first + count * length)
        size = (count, length, *query.shape[1:])
        chosen = (part[rows].view(size).transpose(1, 2) for part in (query, key, value))
        mixed = scaled_dot_product_attention(*chosen, dropout_p=drop)
        parts.append(mixed.transpose(1, 2).reshape(count * length, *query.shape[1:]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Groups neighbours of equal length: (first token, number of texts, length of each)."""
    groups = [(length, sum(1 for _ in same)) for length, same in groupby(lengths)]
    starts = accumulate((length * count for length, count in groups), initial=0)
    return [(start, count, length) for start, (length, count) in zip(starts, groups, strict=False)]


def flash_usable(states: Tensor, width: int) -> bool:
    """Whether a kernel for texts of unequal length takes this device, type and head width."""
    return (
        states.is_cuda
        and (torch.is_autocast_enabled("cuda") or states.dtype in (torch.bfloat16, torch.float16))
        and width % 8 == 0
        and width <= _WIDEST_HEAD
        and _has_flash(states.device.index)
    )


@cache
def _has_flash(device: int | None) -> bool:
    """The kernel needs compute capability 8.0, and a torch that was built with it."""
    built = torch.backends.cuda.is_flash_attention_available()
    return built and torch.cuda.get_device_capability(device) >= (8, 0)


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    shape: Shape,
    drop: float = 0.0,
    asking: Shape | None = None,
) -> Tensor:
    """`attention` by the device's kernel for texts of unequal length; see `flash_usable`.

    Args:
        query: ``[T', heads, d]``.
        key: ``[T, heads, d]``.
        value: The same shape as `key`.
        shape: Bounds of the keys.
        drop: Probability in [0, 1).
        asking: Bounds of the queries; None: those of the keys.
    """
    asking = asking or shape
    bounds = (asking.bounds, shape.bounds, asking.longest, shape.longest)
    if not drop and _varlen() is not None:
        return _varlen()(query, key, value, *bounds)
    # The public function has no dropout, and torch before 2.10 has no public one; this is the operator under it.
    operator = cast(Any, torch.ops.aten)._flash_attention_forward
    return operator(query, key, value, *bounds, drop, False, False)[0]


@cache
def _varlen() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def _by_length(batch: Packed) -> list[int] | None:
    """The texts by falling length, so that equal ones stand together; None if they do already."""
    lengths = batch.lengths
    if all(a >= b for a, b in pairwise(lengths)):
        return None
    return sorted(range(len(lengths)), key=lambda i: -lengths[i])


def _permutation(batch: Packed, order: list[int]) -> tuple[Tensor, tuple[int, ...]]:
    """Numbers of the tokens when the texts stand in `order`, and the lengths in that order."""
    starts = [0, *accumulate(batch.lengths)]
    tokens = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in order])
    return tokens.to(batch.ids.device), tuple(batch.lengths[i] for i in order)


def _bounds(lengths: tuple[int, ...], batch: Packed, order: list[int] | None) -> Tensor:
    if order is None:
        return batch.offsets.int()
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=batch.ids.device)
