"""The model of a run: how it starts, what of it is trained, and how it is written in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from triptych.errors import InputError, MissingExtra
from triptych.model import backbone as backbones
from triptych.model import hub, layouts
from triptych.model.layouts import Checkpoint
from triptych.model.m3 import M3Model
from triptych.train.checkpoint import assign
from triptych.train.optim import trained
from triptych.train.settings import Lora, Recipe
from triptych.types import HEADS, Head


def prepare(recipe: Recipe) -> Checkpoint:
    """Loads the model that a run starts from, the same every time.

    Raises:
        ModelError: If it cannot be found or read.
        InputError: For settings that do not fit it.
    """
    folder = hub.resolve(recipe.model)
    settings = dict(recipe.settings)
    if recipe.extend_positions is not None:
        settings.setdefault("max_length", recipe.extend_positions)
    length = settings.pop("max_length", None)
    if recipe.new_heads:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            checkpoint = layouts.from_backbone(folder, **settings)
    else:
        checkpoint = layouts.load(folder)
        if settings:
            checkpoint = layouts.reconfigured(checkpoint, settings)
    if recipe.extend_positions is not None:
        backbones.extend_positions(checkpoint.model.backbone, recipe.extend_positions)
    if length is not None:
        checkpoint = layouts.reconfigured(checkpoint, {"max_length": length})
    if checkpoint.model.config.pooling == "mcls":
        raise InputError("settings.pooling: mcls is for encoding alone; expected cls or mean in training")
    checkpoint.model.float()
    return checkpoint


def freeze(model: M3Model, recipe: Recipe, heads: Iterable[Head]) -> None:
    """Marks what is trained: all but what the recipe freezes and the heads that the objective does not use.

    Raises:
        InputError: If the objective needs a head that the model does not have, or a part to freeze is not there.
    """
    if absent := [head for head in heads if head not in model.heads]:
        raise InputError(
            f"objective.heads: got {absent}; the model {recipe.model!r} has {', '.join(model.heads)}"
        )
    parts = _parts(model)
    if unknown := [name for name in recipe.freeze if parts.get(name) is None]:
        raise InputError(
            f"freeze: got {unknown}; this model has {', '.join(k for k, v in parts.items() if v)}"
        )
    idle = [head for head in HEADS if head not in heads and parts.get(head) is not None]
    if recipe.lora is not None:
        cast(nn.Module, parts["backbone"]).requires_grad_(False)
        add_lora(model.backbone, recipe.lora, recipe.seed)
    for name in (*recipe.freeze, *idle):
        cast(nn.Module, parts[name]).requires_grad_(False)


def _parts(model: M3Model) -> dict[str, nn.Module | None]:
    backbone = cast(Any, model.backbone)
    embeddings = getattr(backbone, "embeddings", None)
    return {
        "backbone": model.backbone,
        "words": backbone.get_input_embeddings(),
        "positions": getattr(embeddings, "position_embeddings", None),
        "lexical": model.lexical_head,
        "multi": model.multi_head,
    }


def add_lora(backbone: nn.Module, settings: Lora, seed: int) -> None:
    """Puts trainable additions beside the linear layers of a backbone, in place.

    Raises:
        MissingExtra: Without peft.
        InputError: If no layer has one of the names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtra("LoRA", "lora") from error
    names = {
        name.rpartition(".")[2] for name, part in backbone.named_modules() if isinstance(part, nn.Linear)
    }
    targets = sorted(names) if settings.targets is None else list(settings.targets)
    if unknown := sorted(set(targets) - names):
        raise InputError(
            f"lora.targets: got {unknown}; the backbone's linear layers are {', '.join(sorted(names))}"
        )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=cast(Any, settings.alpha),
        lora_dropout=settings.dropout,
        target_modules=targets,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, cast(Any, backbone))


def merge_lora(backbone: nn.Module) -> None:
    """Adds the additions to the matrices and removes them, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, part in list(backbone.named_modules()):
        if isinstance(part, BaseTunerLayer):
            layer: Any = part
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, layer.get_base_layer())


def finished(recipe: Recipe, heads: Iterable[Head], weights: Mapping[str, Tensor]) -> Checkpoint:
    """The model of a run with given weights, as an ordinary checkpoint.

    Args:
        recipe: Of the run.
        heads: Those that were trained.
        weights: Name to weight, of what was trained.
    """
    checkpoint = prepare(recipe)
    freeze(checkpoint.model, recipe, heads)
    assign(trained(checkpoint.model), weights)
    if recipe.lora is not None:
        merge_lora(checkpoint.model.backbone)
    checkpoint.model.requires_grad_(False)
    return checkpoint


def export(recipe: Recipe, checkpoint: Checkpoint, folder: Path) -> None:
    """Writes a run's model as a folder that `Encoder.from_pretrained` loads; an old one there is replaced.

    Matrices that the starting model stores in 4 or 8 bits and that training left alone are stored as there; all
    that was trained is float32.
    """
    start = None if recipe.new_heads else hub.resolve(recipe.model)
    layouts.save(checkpoint, folder, start=start)
