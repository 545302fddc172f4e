"""Backbones as their files hold them, for the inference engine alone.

XLM-R, BERT and their kin run in `triptych.model.inference`, which needs weights and a few numbers, and none of
transformers' classes; importing those takes longer than loading the weights. What the file holds is mapped into memory,
not copied; of a table of words in few bits only the rows that a text needs are ever expanded.

Only what is exactly as expected is taken. Everything else is left to transformers, errors included.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model import backbone as backbones
from triptych.model import tensors as compact
from triptych.model.forward import supported
from triptych.model.tensors import Quantized

Stored: TypeAlias = "Mapping[str, Tensor | Quantized]"

_WORDS = "embeddings.word_embeddings.weight"
# Of what a configuration may leave out.
_DEFAULTS: dict[str, Any] = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2}
_PREFIXES = ("bert.", "roberta.")
# The layer after [CLS], which M3 does not use, and numbers that old releases wrote.
_UNUSED = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids")


class WordTable(nn.Module):
    """A table of words whose rows are looked up in the form in which they are stored.

    Args:
        table: ``[V, H]``.

    Attributes:
        table: See above.
    """

    def __init__(self, table: Tensor | Quantized) -> None:
        super().__init__()
        self.table = table

    def __getitem__(self, ids: Tensor) -> Tensor:
        """Rows ``[T, H]`` of ids ``[T]``, float32 or in the type of the table."""
        table = self.table
        return torch.from_numpy(table.rows(ids.numpy())) if isinstance(table, Quantized) else table[ids]


class StoredBackbone(nn.Module):
    """The weights of a BERT-like encoder under their Hugging Face names, without a forward pass.

    Args:
        values: The Hugging Face configuration.
        tensors: The weights; all but the words become parameters.

    Attributes:
        config: The configuration's values as attributes.
        tensors: See above.
    """

    def __init__(self, values: Mapping[str, Any], tensors: Stored) -> None:
        super().__init__()
        self._values = dict(values)
        padding = values.get("pad_token_id", 1) if values.get("model_type") != "bert" else None
        self.config = SimpleNamespace(**_DEFAULTS | self._values)
        self.tensors = tensors
        for name, tensor in tensors.items():
            *path, last = name.split(".")
            if name == _WORDS:
                self._folder(path[:-1]).add_module(path[-1], WordTable(tensor))
            else:
                parameter = nn.Parameter(expand(tensor), requires_grad=False)
                self._folder(path).register_parameter(last, parameter)
        cast(Any, self).embeddings.position_embeddings.padding_idx = padding

    def _folder(self, path: list[str]) -> nn.Module:
        module: nn.Module = self
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.ModuleList() if part == "layer" else nn.Module())
            module = cast(nn.Module, module._modules[part])
        return module

    def to_transformers(self) -> nn.Module:
        """The same encoder as a module of transformers."""
        from transformers import CONFIG_MAPPING

        values = {name: value for name, value in self._values.items() if name != "triptych"}
        config = CONFIG_MAPPING[self.config.model_type].from_dict(values)
        tensors = {name: expand(tensor) for name, tensor in self.tensors.items()}
        return backbones.build(config, tensors, "the loaded model")


def expand(tensor: Tensor | Quantized) -> Tensor:
    """A tensor as it is; float32 if it is compact."""
    return torch.from_numpy(tensor.dequantize()) if isinstance(tensor, Quantized) else tensor


def read_backbone(folder: Path) -> StoredBackbone | None:
    """The encoder of a Hugging Face folder; None if it must be left to transformers."""
    config, weights, pickled = (
        folder / name for name in ("config.json", "model.safetensors", "pytorch_model.bin")
    )
    try:
        values = compact.read_object(config)
        tensors = read_weights(weights) if weights.is_file() else _read_pickled(pickled)
    except ModelError:  # which transformers words for the whole folder
        return None
    kinds = {str(each.dtype) for each in tensors.values() if isinstance(each, Tensor)}
    wanted = str(values.get("dtype") or values.get("torch_dtype") or next(iter(kinds), None))
    # transformers converts to the type that the configuration names.
    return open_backbone(values, tensors) if kinds == {f"torch.{wanted.removeprefix('torch.')}"} else None


def read_weights(path: Path) -> Stored:
    """The tensors of a safetensors file, mapped; compact ones stay compact.

    Raises:
        ModelError: If it cannot be read.
    """
    return {
        name: tensor if isinstance(tensor, Quantized) else torch.from_numpy(tensor)
        for name, tensor in compact.read_stored(path).items()
    }


def open_backbone(values: Mapping[str, Any], tensors: Stored) -> StoredBackbone | None:
    """An encoder of a configuration and its weights; None if they are not exactly what is expected."""
    prefix = next((each for each in _PREFIXES if each + _WORDS in tensors), "")
    named = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if not name.removeprefix(prefix).startswith(_UNUSED)
    }
    known = {**_DEFAULTS, **values}
    try:
        shapes = _shapes(known)
    except (KeyError, TypeError):
        return None
    fits = shapes == {name: tuple(tensor.shape) for name, tensor in named.items()}
    if not fits or known["hidden_act"] != "gelu" or "auto_map" in values:
        return None
    backbone = StoredBackbone(values, {name: named[name] for name in shapes})  # layers in their order
    return backbone if supported(backbone) is None else None


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of an encoder."""
    width, wide = config["hidden_size"], config["intermediate_size"]
    tables = {
        "word": config["vocab_size"],
        "position": config["max_position_embeddings"],
        "token_type": config["type_vocab_size"],
    }
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.{name}_embeddings.weight": (rows, width) for name, rows in tables.items()
    }
    linear = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
    linear |= {"attention.output.dense": (width, width)}
    linear |= {"intermediate.dense": (wide, width), "output.dense": (width, wide)}
    norms = ["embeddings.LayerNorm"]
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}."
        shapes |= {f"{layer}{name}.weight": shape for name, shape in linear.items()}
        shapes |= {f"{layer}{name}.bias": shape[:1] for name, shape in linear.items()}
        norms += [f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"]
    return shapes | {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}


def _read_pickled(path: Path) -> Stored:
    try:
        found = cast("dict[str, Any]", torch.load(path, map_location="cpu", weights_only=True, mmap=True))
        return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    except Exception as error:  # a broken pickle raises whatever its bytes lead to
        raise ModelError(f"{path}: cannot be read as a torch file of tensors: {error}") from error
