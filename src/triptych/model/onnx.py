"""One ONNX graph with all the heads that a model has, for onnxruntime and whatever else reads ONNX.

Inputs: ``input_ids`` and ``attention_mask``, int64 ``[N, L]``, padded on the right. Outputs, float32:

- ``dense`` ``[N, D]``, rows of length 1;
- ``lexical`` ``[N, L]``, the weight of each position's token, 0 where it does not count (special tokens, and the
  model's own prefix at the beginning of a text); the weight of a token id in a text is the maximum over its
  positions;
- ``multi`` ``[N, L, D']``, rows of length 1, and 0 where a position has no vector.

The file's metadata say what the graph cannot: the configuration with its prefixes, and the heads.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from triptych.errors import InputError, StorageError, require_extra
from triptych.io import replacing
from triptych.model.forward import embed, run_layer, supported
from triptych.model.m3 import M3Model
from triptych.model.packed import SpecialIds, counts
from triptych.types import Head

# Parameters above 2 GB do not fit into one protobuf message; they then go into a file beside it.
_ONE_FILE = 2**31 - 2**20


class PaddedModel(nn.Module):
    """The model as a function of a padded batch, of operations that ONNX has.

    Args:
        model: In float32, in evaluation mode.
    """

    def __init__(self, model: M3Model) -> None:
        super().__init__()
        self.model = model
        self.packs = supported(model.backbone) is None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """See the module."""
        model, real = self.model, attention_mask.bool()
        if self.packs:
            states = self._states(input_ids, real)
        else:
            states = model.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        outputs: list[Tensor] = []
        for head in model.heads:
            counted = real & self._counted(head, input_ids, real)
            if head == "dense":
                outputs.append(normalize((states * counted[..., None]).sum(1), dim=-1))
            elif head == "lexical":
                outputs.append(torch.relu(cast(nn.Linear, model.lexical_head)(states).squeeze(2)) * counted)
            else:
                vectors = cast(nn.Linear, model.multi_head)(states)
                outputs.append(normalize(vectors, dim=-1) * counted[..., None])
        return tuple(outputs)

    def _states(self, ids: Tensor, real: Tensor) -> Tensor:
        """``[N, L, H]`` by the training forward: tracing the backbone's own depends on the release of transformers."""
        backbone = cast(Any, self.model.backbone)
        padding = backbone.embeddings.position_embeddings.padding_idx
        if padding is None:
            places = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        else:
            counted = (real & (ids != padding)).long()
            places = counted.cumsum(1) * counted + padding
        states = embed(backbone.embeddings, ids, places)
        for layer in backbone.encoder.layer:
            states = run_layer(layer, states, real)
        return states

    def _counted(self, head: Head, ids: Tensor, real: Tensor) -> Tensor:
        model = self.model
        column = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        prefix = None
        if head == "lexical" and not model.config.prefix_in_lexical:
            for pattern in model.special.prefixes:
                length = len(pattern)
                begin = nn.functional.pad(ids, (0, length), value=-1)[:, :length]
                found = (begin == torch.tensor(pattern)).all(1, keepdim=True) & (column < length)
                prefix = found if prefix is None else prefix | found
        first, last = column == 0, column == real.sum(1, keepdim=True) - 1
        return counts(head, model.config, model.special, ids, first, last, prefix)


def export(model: M3Model, path: Path, facts: dict[str, str] | None = None) -> tuple[Head, ...]:
    """Writes the graph; large weights go into ``NAME.data`` beside it.

    Args:
        model: On the processor, in float32, with its weights (no inference engine).
        path: The file, ending in .onnx; its folder must exist.
        facts: Further metadata, such as the fingerprint.

    Returns:
        The graph's outputs, in order.

    Raises:
        MissingExtra: Without the packages onnx and onnxscript.
        InputError: For another ending, or a model in another type.
        StorageError: If the file cannot be written.
    """
    if path.suffix != ".onnx":
        raise InputError(f"export: got {path.name!r}; expected a file name that ends in .onnx")
    if next(model.parameters()).dtype != torch.float32 or model.engine is not None:
        raise InputError(
            "export: expected a model in float32 without an inference engine (load with dtype=None)"
        )
    program = _program(PaddedModel(model).eval(), model.heads, model.special)
    program.model.metadata_props.update(
        {"triptych": json.dumps(model.config.to_dict()), "heads": ",".join(model.heads), **(facts or {})}
    )
    large = sum(p.numel() * p.element_size() for p in model.parameters()) > _ONE_FILE
    _save(program, path, external=large)
    return model.heads


def _save(program: Any, path: Path, *, external: bool) -> None:
    """Writes into a folder of its own first; the graph appears last, when its weights are there."""
    try:
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            program.save(str(Path(folder) / path.name), external_data=external)
            for name in (f"{path.name}.data", path.name):
                if (Path(folder) / name).exists():
                    with replacing(path.parent / name) as temporary:
                        (Path(folder) / name).replace(temporary)
    except OSError as error:
        raise StorageError(error.errno, f"{path}: cannot be written: {error.strerror or error}") from error


def _program(module: PaddedModel, heads: Sequence[Head], special: SpecialIds) -> Any:
    with require_extra("the export to ONNX", "onnx"):
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport]
    ids = torch.full((2, 7), special.eos, dtype=torch.int64)
    ids[:, 0] = special.cls
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    rows, columns = torch.export.Dim("texts", min=1), torch.export.Dim("tokens", min=2)
    sizes = {0: rows, 1: columns}
    with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
        # The exporter deprecates parts of itself, and reports on standard output.
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            module,
            (ids, mask),
            dynamo=True,
            input_names=["input_ids", "attention_mask"],
            output_names=list(heads),
            dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
            verbose=False,
        )
