"""Where a run computes, and in which type of numbers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from triptych.errors import InputError
from triptych.model.m3 import M3Model
from triptych.model.packed_forward import run_layer, supported

EVALUATION_TOKENS = {"cpu": 4096, "mps": 8192, "cuda": 65536}
"""Tokens that an evaluation encodes at a time."""


def autocast(wanted: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of a forward pass: in bfloat16 if that is wanted, or if `wanted` is auto and the device can."""
    if wanted == "float32" or (wanted == "auto" and not _computes_in_bfloat16(device)):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cpu":
        able = getattr(torch.cpu, "get_capabilities", dict[str, Any])()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def compile_layers(model: M3Model, device: torch.device, sub_batch_tokens: int | None) -> None:
    """Compiles what runs of the model in training: the layers, once for all lengths; on a GPU alone.

    A processor takes texts of each length on their own, which would be compiled again for every batch.

    Raises:
        InputError: With sub-batches and dropout. GradCache encodes twice and needs the same dropout both times; that
            compiled code with and without a graph draws the same was not shown.
    """
    if sub_batch_tokens is not None and any(
        isinstance(part, nn.Dropout) and part.p > 0 for part in model.modules()
    ):
        raise InputError(
            "compute.compile: got true with compute.sub_batch_tokens and a model with dropout; expected one of the "
            "two, or a model without dropout, since the gradient would not be that of the whole batch"
        )
    if device.type != "cuda":
        return
    if supported(model.backbone) is None:
        model.run_layer = torch.compile(run_layer, dynamic=True)
    else:
        model.backbone.compile(dynamic=True)


def best_device() -> torch.device:
    """A GPU if there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
