"""The model: any Hugging Face encoder as backbone, and three heads over its states."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from triptych.config import M3Config
from triptych.errors import InputError
from triptych.model.backbone import hidden_size
from triptych.model.forward import RunLayer, last_states, supported
from triptych.model.inference import Engine
from triptych.model.packed import Packed, Reps, SpecialIds, positions, to_device
from triptych.types import HEADS, Head

# Elements of a large tensor that enter the fingerprint: a training step changes nearly all of them, and
# reading all of a 2 GB checkpoint would cost seconds at every start.
_SAMPLE = 65536
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class M3Model(nn.Module):
    """One encoder pass, three representations (arXiv 2402.03216v4, section 3.2).

    Attributes:
        backbone: A Hugging Face encoder.
        lexical_head: Linear ``H → 1``, or None.
        multi_head: Linear ``H → D'``, or None.
        config: See `M3Config`.
        special: Ids that the heads treat apart.
        packs: Whether texts of unequal lengths run without padding.
        engine: Runs the backbone for inference, without gradients, and holds its linear weights; None: the backbone
            runs itself.
        run_layer: Runs a layer of the backbone's own unpadded pass, such as a compiled function; None: the plain one.
    """

    def __init__(self, backbone: nn.Module, config: M3Config, special: SpecialIds) -> None:
        super().__init__()
        width = self._hidden_size = hidden_size(backbone)
        self.backbone = backbone
        self.lexical_head = nn.Linear(width, 1) if config.lexical else None
        self.multi_head = nn.Linear(width, config.multi_dim) if config.multi_dim is not None else None
        self.config = config
        self.special = special
        self.packs = supported(backbone) is None
        self.engine: Engine | None = None
        self.run_layer: RunLayer | None = None

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that the model has."""
        present = {
            "dense": self.config.dense,
            "lexical": self.lexical_head is not None,
            "multi": self.multi_head is not None,
        }
        return tuple(head for head in HEADS if present[head])

    @property
    def widths(self) -> Mapping[Head, int]:
        """Columns of each head: hidden size, vocabulary size, D'."""
        config = cast(Any, self.backbone).config
        widths = {
            "dense": self._hidden_size,
            "lexical": config.vocab_size,
            "multi": self.config.multi_dim,
        }
        return {head: int(cast(int, widths[head])) for head in self.heads}

    def forward(self, batch: Packed, outputs: Sequence[Head] = HEADS) -> Reps:
        """Runs the backbone once and the heads that are asked for.

        Args:
            batch: Token ids of N texts, on the model's device.
            outputs: Heads to compute.

        Returns:
            Packed representations; the dense rows, the lexical weights and every normalisation are float32. An engine
            with fused kernels gives token vectors in float16, in which those of a 16-bit model lose nothing.

        Raises:
            InputError: For a head that the model does not have, or if gradients are recorded while an inference engine
                holds the weights.
        """
        absent = [head for head in outputs if head not in self.heads]
        if absent:
            raise InputError(f"M3Model: outputs {absent} asked for; this model has {', '.join(self.heads)}")
        states = self._states(batch, first_only=tuple(outputs) == ("dense",) and self.config.pooling == "cls")
        multi, multi_offsets = self._multi(states, batch) if "multi" in outputs else (None, batch.offsets)
        return Reps(
            ids=batch.ids,
            offsets=batch.offsets,
            dense=self._dense(states, batch) if "dense" in outputs else None,
            lexical=self._lexical(states, batch) if "lexical" in outputs else None,
            multi=multi,
            multi_offsets=multi_offsets,
        )

    def _states(self, batch: Packed, *, first_only: bool) -> Tensor:
        """``[T, H]``; with `first_only` the first state of each text, ``[N, H]``."""
        if self.engine is not None:
            if torch.is_grad_enabled():
                raise InputError(
                    "M3Model: got a pass with gradients while the inference engine holds the weights; "
                    "call Encoder.release_model() to train the model, or use torch.no_grad() to run it"
                )
            return self.engine(batch, first_only=first_only)
        states = last_states(self.backbone, batch, self.special.pad, self.run_layer)
        return states[batch.offsets[:-1]] if first_only else states

    def _counted(self, batch: Packed, head: Head) -> Tensor:
        """Bool ``[T]``, on the processor where the batch is known there."""
        return positions(batch.host or batch, head, self.config, self.special)

    def _dense(self, states: Tensor, batch: Packed) -> Tensor:
        """The mean of the states that count, normalised: with `cls` pooling that is the first state."""
        if self.config.pooling == "cls":
            first = states if len(states) == len(batch) else states[batch.offsets[:-1]]
            return normalize(first.float(), dim=-1)
        chosen = to_device(self._counted(batch, "dense").nonzero().squeeze(1), states.device)
        # The sum has the direction of the mean.
        total = states.new_zeros(len(batch), states.shape[1], dtype=torch.float32)
        return normalize(total.index_add(0, batch.rows[chosen], states[chosen].float()), dim=-1)

    def _lexical(self, states: Tensor, batch: Packed) -> Tensor:
        """``w_i = ReLU(W_lex h_i + b)`` in float32, 0 at positions that do not count."""
        head = cast(nn.Linear, self.lexical_head)
        if self.engine is not None and self.engine.rows is not None:
            weights = self.engine.rows.lexical_weights(states, head.weight, head.bias)
            return weights * to_device(self._counted(batch, "lexical"), weights.device)
        with torch.autocast(states.device.type, enabled=False):
            weights = torch.relu(linear(states.float(), head.weight.float(), head.bias.float()).squeeze(1))
        return weights * to_device(self._counted(batch, "lexical"), weights.device)

    def _multi(self, states: Tensor, batch: Packed) -> tuple[Tensor, Tensor]:
        """``E_i = norm(W_mul h_i + b)`` for the positions that count."""
        head = cast(nn.Linear, self.multi_head)
        counted = self._counted(batch, "multi")
        ends = torch.cat([counted.new_zeros(1, dtype=torch.int64), counted.cumsum(0)])
        chosen = to_device(counted.nonzero().squeeze(1), states.device)
        vectors = head(states.index_select(0, chosen).to(head.weight.dtype))
        offsets = to_device(ends[(batch.host or batch).offsets], states.device)
        if self.engine is not None and self.engine.rows is not None:
            return self.engine.rows.unit_rows(vectors, torch.float16), offsets
        return normalize(vectors.float(), dim=-1), offsets

    def fingerprint(self, also: Mapping[str, Any] | None = None) -> str:
        """Hex digest (128 bits) of the configuration and the weights in the type in which they are now.

        Args:
            also: Further facts that determine the vectors, such as the tokenizer's digest.
        """
        backbone, config = cast(Any, self.backbone).config, self.config.to_dict()
        # Only where it makes a difference, so that models without prefixes, and those that count them, keep the
        # fingerprint that they had before there was this setting.
        counted = config.pop("prefix_in_lexical")
        if not counted and (config["query_prefix"] or config["document_prefix"]) and config["lexical"]:
            config["prefix_in_lexical"] = False
        facts = {"model": backbone.model_type, "config": config, **(also or {})}
        digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
        for name, tensor in sorted(self.state_dict().items()):
            flat = tensor.detach().flatten()
            sample = flat[:: max(1, len(flat) // _SAMPLE)].float().cpu().numpy()
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(sample.tobytes())
        return digest.hexdigest()

    def checksum(self) -> str:
        """Hex digest that changes with every change of any weight or of the configuration; quick, not portable."""
        facts: list[Any] = [self.config]
        for name, tensor in sorted(self.state_dict().items()):
            flat = tensor.detach().contiguous().flatten()
            bits = flat.view(_BITS[flat.element_size()]) if flat.is_floating_point() else flat
            facts.append((name, tuple(tensor.shape), str(tensor.dtype), int(bits.sum(dtype=torch.int64))))
        return hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()
