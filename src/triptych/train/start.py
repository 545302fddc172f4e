"""The model of a run: how it starts, which parts are trained, how it is written in the end; and merging of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from triptych.errors import InputError, require_extra
from triptych.model import backbone as backbones
from triptych.model import checkpoint as layouts
from triptych.model import hub
from triptych.model.checkpoint import Checkpoint
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed, Reps
from triptych.train.checkpoint import assign
from triptych.train.optim import trainable
from triptych.train.settings import LoraSettings, Recipe
from triptych.types import HEADS, Head

# What of a backbone's configuration decides how its weights are used, besides their names and shapes.
_FACTS = ("model_type", "num_attention_heads", "hidden_act", "layer_norm_eps", "pad_token_id", "rope_theta")


def merge(
    models: Sequence[str | Path], weights: Sequence[float] | None = None, *, trust_remote_code: bool = False
) -> Checkpoint:
    """The weighted mean of several models of one architecture.

    Fine-tuned models that started from the same weights can be averaged (arXiv 2203.05482); mixing the starting model
    in restores what fine-tuning made it forget (LM-Cocktail, arXiv 2311.13534).

    **Math** ``w = Σ_i α_i·w_i / Σ_i α_i`` for every tensor, summed in float64.

    Args:
        models: Two or more: bundled names, folders of any layout, Hub names. The first gives tokenizer, prefixes and
            `max_length`.
        weights: α, one number ≥ 0 per model, not all 0; None: equal.
        trust_remote_code: Whether Python files of the models' folders may run.

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
    first = layouts.load(hub.resolve(models[0]), trust_remote_code=trust_remote_code)
    total = _scale(first, shares[0])
    for name, share in zip(models[1:], shares[1:], strict=True):
        other = layouts.load(hub.resolve(name), trust_remote_code=trust_remote_code)
        if problems := differences(first, other):
            raise InputError(f"merge: {name} does not fit {models[0]}: {'; '.join(problems)}")
        for key, tensor in _scale(other, share).items():
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


def _scale(checkpoint: Checkpoint, share: float) -> dict[str, Tensor]:
    return {name: tensor.double() * share for name, tensor in checkpoint.model.state_dict().items()}


def prepare(recipe: Recipe, *, trust_remote_code: bool = False) -> Checkpoint:
    """Loads the model that a run starts from, the same every time.

    Args:
        recipe: Of the run.
        trust_remote_code: Whether Python files of the model's folder may run.

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
            checkpoint = layouts.from_backbone(folder, trust_remote_code=trust_remote_code, **settings)
    else:
        checkpoint = layouts.load(folder, trust_remote_code=trust_remote_code)
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


def add_lora(backbone: nn.Module, settings: LoraSettings, seed: int) -> None:
    """Puts trainable additions beside the linear layers of a backbone, in place.

    Raises:
        MissingExtra: Without peft.
        InputError: If no layer has one of the names.
    """
    with require_extra("LoRA", "lora"):
        from peft import LoraConfig, inject_adapter_in_model
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


class Projected(nn.Module):
    """A model whose dense vectors also come mapped into the space of a teacher's vectors.

    Args:
        encoder: The model.
        width: D of its dense vectors.
        teacher_width: T of the teacher's.

    Attributes:
        encoder: The model that is kept.
        map: W, float32 ``[T, D]``, trained along and thrown away.
    """

    def __init__(self, encoder: M3Model, width: int, teacher_width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.map = nn.Linear(width, teacher_width, bias=False)

    def forward(self, batch: Packed, heads: Sequence[Head]) -> Reps:
        """As the model, with `Reps.projected`; "dense" must be among the heads."""
        reps = cast(Reps, self.encoder(batch, heads))
        return replace(reps, projected=self.map(cast(Tensor, reps.dense)))


def finish(
    recipe: Recipe, heads: Iterable[Head], weights: Mapping[str, Tensor], *, trust_remote_code: bool = False
) -> Checkpoint:
    """The model of a run with given weights, as an ordinary checkpoint.

    Args:
        recipe: Of the run.
        heads: Those that were trained.
        weights: Name to weight, of what was trained.
        trust_remote_code: Whether Python files of the starting model's folder may run.
    """
    checkpoint = prepare(recipe, trust_remote_code=trust_remote_code)
    freeze(checkpoint.model, recipe, heads)
    assign(trainable(checkpoint.model), weights)
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
