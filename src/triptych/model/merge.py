"""Merging checkpoints: the weighted mean of the weights of models of one architecture.

Fine-tuned models that started from the same weights can be averaged (arXiv 2203.05482); mixing the starting model in
gives back what fine-tuning made it forget (LM-Cocktail, arXiv 2311.13534).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from triptych.errors import InputError
from triptych.model import hub, layouts
from triptych.model.layouts import Checkpoint

# What of a backbone's configuration decides how its weights are used, besides their names and shapes.
_FACTS = ("model_type", "num_attention_heads", "hidden_act", "layer_norm_eps", "pad_token_id", "rope_theta")


def merge(models: Sequence[str | Path], weights: Sequence[float] | None = None) -> Checkpoint:
    """The weighted mean of several models.

    **Math** ``w = Σ_i α_i·w_i / Σ_i α_i`` for every tensor, summed in float64.

    Args:
        models: Two or more: bundled names, folders of any layout, Hub names. The first gives tokenizer, prefixes and
            `max_length`.
        weights: α, one number ≥ 0 a model, not all 0; None: equal.

    Raises:
        InputError: For other numbers, or models that do not fit each other; says in what.
        ModelError: For a model that cannot be found or read.
    """
    shares = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
    if len(models) < 2 or len(shares) != len(models) or min(shares) < 0 or not sum(shares) > 0:
        raise InputError(
            f"merge: got {len(models)} models and the weights {shares}; expected two models or more, and for each "
            "a number ≥ 0, not all 0"
        )
    first = layouts.load(hub.resolve(models[0]))
    total = _scaled(first, shares[0])
    for name, share in zip(models[1:], shares[1:], strict=True):
        other = layouts.load(hub.resolve(name))
        if problems := differences(first, other):
            raise InputError(f"merge: {name} does not fit {models[0]}: {'; '.join(problems)}")
        for key, tensor in _scaled(other, share).items():
            total[key] += tensor
    with torch.no_grad():
        for key, tensor in first.model.state_dict().items():
            tensor.copy_(total[key] / sum(shares))
    return first


def differences(one: Checkpoint, other: Checkpoint) -> list[str]:
    """Why two models cannot be merged, in words; empty if they can."""
    left, right = _facts(one), _facts(other)
    found = [f"{name} is {right[name]!r}, not {left[name]!r}" for name in left if left[name] != right[name]]
    if one.tokenizer.digest != other.tokenizer.digest:
        found.append("it has another tokenizer")
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in each.model.state_dict().items()}
        for each in (one, other)
    ]
    odd = sorted(n for n in shapes[0].keys() | shapes[1].keys() if shapes[0].get(n) != shapes[1].get(n))
    return found + [f"{n} has shape {shapes[1].get(n)}, not {shapes[0].get(n)}" for n in odd[:3]]


def _facts(checkpoint: Checkpoint) -> Mapping[str, Any]:
    backbone = cast(Any, checkpoint.model.backbone).config
    own = checkpoint.model.config.to_dict()
    # The first model's are taken; that they differ harms nothing that the weights do.
    for name in ("max_length", "query_prefix", "document_prefix", "mcls_every"):
        del own[name]
    return {name: getattr(backbone, name, None) for name in _FACTS} | own


def _scaled(checkpoint: Checkpoint, share: float) -> dict[str, Tensor]:
    return {name: tensor.double() * share for name, tensor in checkpoint.model.state_dict().items()}
