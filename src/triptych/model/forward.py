"""The backbone's forward pass for training: without padding, gradients included.

For encoders built like BERT (post-norm, learned absolute positions): BERT, RoBERTa, XLM-RoBERTa and their kin.
The pass calls the sub-modules of the loaded Hugging Face model, so that adapters, autocast and frozen weights
work as in its own forward. What it saves is the padding: with texts of mixed lengths that is often half of
the work. Only attention looks across positions; everything else runs on the flat buffer as it is. The same layers
run on padded batches, which is what the export to ONNX traces. `triptych.model.inference` has the other forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from triptych.model.backbone import padded_states
from triptych.model.kernels import flash_attention, flash_usable
from triptych.model.packed import Packed, Shape, position_ids, runs

_FAMILY = ("bert", "roberta", "xlm-roberta", "camembert")
RunLayer: TypeAlias = Callable[[nn.Module, Tensor, Shape | Tensor], Tensor]


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
    places = position_ids(batch, model.embeddings.position_embeddings.padding_idx)
    states = embed(model.embeddings, batch.ids, places)
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


def embed(embeddings: nn.Module, ids: Tensor, places: Tensor) -> Tensor:
    """The first states ``[..., H]``: words, positions and token type 0, normalised.

    Args:
        embeddings: The backbone's.
        ids: int64 ``[...]``, token ids.
        places: int64 of the same shape, rows of the position table.
    """
    parts = cast(Any, embeddings)
    states = parts.word_embeddings(ids)
    if getattr(parts, "token_type_embeddings", None) is not None:
        states = states + parts.token_type_embeddings.weight[0]
    states = states + parts.position_embeddings(places)
    return parts.dropout(parts.LayerNorm(states))


def run_layer(layer: nn.Module, states: Tensor, shape: Shape | Tensor) -> Tensor:
    """One transformer layer on packed states ``[T, H]``, or on padded ones; see `attention`."""
    parts = cast(Any, layer)
    inner = parts.attention.self
    size = (*states.shape[:-1], inner.num_attention_heads, inner.attention_head_size)
    query, key, value = (part(states).view(size) for part in (inner.query, inner.key, inner.value))
    drop = float(inner.dropout.p) if layer.training else 0.0
    context = attention(query, key, value, shape, drop).flatten(-2)
    output = parts.attention.output
    states = output.LayerNorm(output.dropout(output.dense(context)) + states)
    wide = parts.intermediate.intermediate_act_fn(parts.intermediate.dense(states))
    return parts.output.LayerNorm(parts.output.dropout(parts.output.dense(wide)) + states)


def attention(query: Tensor, key: Tensor, value: Tensor, shape: Shape | Tensor, drop: float = 0.0) -> Tensor:
    """Every position attends to all positions of its own text.

    **Math** ``softmax(q kᵀ / √d) v`` per text and head; with `drop` each weight is zeroed with that probability
    and the others scaled up, as in BERT.

    Args:
        query: ``[T, heads, d]``; padded ``[N, L, heads, d]``.
        key: The same shape.
        value: The same shape.
        shape: The texts' bounds; of a padded batch bool ``[N, L]``, the positions that are no padding.
        drop: Probability in [0, 1).

    Returns:
        The shape of `query`.
    """
    if isinstance(shape, Tensor):
        sides = (part.transpose(1, 2) for part in (query, key, value))
        mixed = scaled_dot_product_attention(*sides, attn_mask=shape[:, None, None, :], dropout_p=drop)
        return mixed.transpose(1, 2)
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
