"""Learning rates as pure functions of the step, the optimiser, and averages of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from triptych.errors import InputError
from triptych.train.settings import Optimisation

# The last part of `wsd`, in which the learning rate falls.
_DECAY = 0.2


def factor(step: int, total: int, settings: Optimisation) -> float:
    """What the learning rates are multiplied with at a step.

    **Math** with W steps of warm-up and f the floor: ``(s + 1) / W`` for s < W, then with p = (s − W)/(N − W):
    linear ``f + (1 − f)(1 − p)``, cosine ``f + (1 − f)(1 + cos πp)/2``, constant 1, wsd 1 and linear at the end.

    Args:
        step: s, from 0.
        total: N.
        settings: warm-up, schedule and floor.

    Returns:
        A number from 0 to 1.
    """
    warmup = settings.warmup * total if settings.warmup < 1 else settings.warmup
    if step < warmup:
        return min(1.0, (step + 1) / warmup)
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "cosine":
        left = (1 + math.cos(math.pi * progress)) / 2
    elif settings.schedule == "wsd":
        left = min(1.0, (1 - progress) / _DECAY)
    else:
        left = 1 - progress
    return settings.floor + (1 - settings.floor) * left


def optimizer(model: nn.Module, settings: Optimisation) -> torch.optim.AdamW:
    """AdamW over the weights that are trained; each group keeps its largest learning rate as ``peak``.

    Matrices decay, biases and normalisations do not; the heads may have a learning rate of their own.

    Raises:
        InputError: If all is frozen.
    """
    chosen: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            head = "lexical_head." in name or "multi_head." in name
            chosen.setdefault((head, parameter.ndim > 1), []).append(parameter)
    if not chosen:
        raise InputError("freeze: nothing is left to train")
    groups = [
        {
            "params": parameters,
            "peak": settings.head_lr if head and settings.head_lr is not None else settings.lr,
            "weight_decay": settings.weight_decay if matrix else 0.0,
        }
        for (head, matrix), parameters in sorted(chosen.items())
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, share: float) -> float:
    """Sets every group's learning rate to `share` of its peak; gives the first one."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share
    return float(optimiser.param_groups[0]["lr"])


class Average:
    """An exponential moving average of the weights that are trained.

    **Math** ``a ← d·a + (1 − d)·w`` after every step, with d = min(decay, (1 + s)/(10 + s)) so that the first
    weights are soon forgotten.

    Attributes:
        weights: Name to average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: parameter.detach().clone() for name, parameter in trained(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes the weights after a step (from 0) in."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = trained(model)
        for name, average in self.weights.items():
            average.lerp_(now[name].detach(), 1 - decay)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name to weight, of those that are trained."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def merged(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """The weighted mean of models of the same shape (arXiv 2203.05482; LM-Cocktail, arXiv 2311.13534).

    **Math** ``w = Σ_i α_i·w_i / Σ_i α_i``, computed in float64.

    Args:
        states: Name to tensor, of each model.
        weights: α; None: equal.

    Raises:
        InputError: If the models differ in names or shapes, or the weights are not as many numbers ≥ 0.
    """
    shares = [1.0] * len(states) if weights is None else list(weights)
    if not states or len(shares) != len(states) or min(shares) < 0 or not sum(shares):
        raise InputError(
            f"merged: got {len(states)} models, weights {shares}; expected as many numbers ≥ 0, not all 0"
        )
    first = {name: tuple(tensor.shape) for name, tensor in states[0].items()}
    for number, state in enumerate(states[1:], start=1):
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if shapes != first:
            odd = sorted(name for name in first.keys() | shapes.keys() if first.get(name) != shapes.get(name))
            raise InputError(f"merged: model {number} differs from the first in {odd[:5]}")
    total = sum(shares)
    return {
        name: sum(
            (state[name].double() * (share / total) for state, share in zip(states, shares, strict=True)),
            torch.zeros_like(tensor, dtype=torch.float64),
        ).to(tensor.dtype)
        for name, tensor in states[0].items()
    }
