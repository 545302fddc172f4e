"""Learning rates as pure functions of the step, the optimizer, and the moving average of weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from triptych.errors import InputError
from triptych.train.settings import OptimizerSettings, steps_of

# The last part of `wsd`, in which the learning rate falls.
_DECAY = 0.2


def factor(step: int, total: int, settings: OptimizerSettings) -> float:
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
    warmup = steps_of(settings.warmup, total)
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


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the weights that are trained; each group keeps its largest learning rate as ``peak``.

    Matrices decay, biases and normalizations do not; the heads may have a learning rate of their own.

    Raises:
        InputError: If all is frozen.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            head = "lexical_head." in name or "multi_head." in name
            groups.setdefault((head, parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise InputError("freeze: nothing is left to train")
    settings_of_groups = [
        {
            "params": parameters,
            "peak": settings.head_lr if head and settings.head_lr is not None else settings.lr,
            "weight_decay": settings.weight_decay if matrix else 0.0,
        }
        for (head, matrix), parameters in sorted(groups.items())
    ]
    return torch.optim.AdamW(
        settings_of_groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True
    )


def set_lr(optimizer: torch.optim.Optimizer, share: float) -> float:
    """Sets every group's learning rate to `share` of its peak; gives the first one."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return float(optimizer.param_groups[0]["lr"])


class Average:
    """An exponential moving average of the weights that are trained.

    **Math** ``a ← d·a + (1 − d)·w`` after every step, with d = min(decay, (1 + s)/(10 + s)) so that the first
    weights are soon forgotten.

    Attributes:
        weights: Name to average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: parameter.detach().clone() for name, parameter in trainable(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes the weights after a step (from 0) in."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = trainable(model)
        for name, average in self.weights.items():
            average.lerp_(now[name].detach(), 1 - decay)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name to weight, of those that are trained."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
