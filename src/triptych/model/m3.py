"""The model: any Hugging Face encoder as backbone, and three heads over its states."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from triptych.config import M3Config
from triptych.errors import InputError
from triptych.model.backbone import hidden_size
from triptych.model.forward import RunLayer, last_states, supported
from triptych.model.inference import Engine
from triptych.model.packed import Packed, Reps, SpecialIds, counts, positions, to_device
from triptych.model.stored import Stored, StoredBackbone
from triptych.model.tensors import Quantized
from triptych.types import HEADS, Head

# Elements of a large tensor that enter the fingerprint: a training step changes nearly all of them, and
# reading all of a 2 GB checkpoint would cost seconds at every start.
_SAMPLE = 65536
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class M3Model(nn.Module):
    """One encoder pass, three representations (arXiv 2402.03216v4, section 3.2).

    Attributes:
        backbone: A Hugging Face encoder, or the weights of one, until `make_backbone`.
        lexical_head: Linear ``H → 1``, or None.
        multi_head: Linear ``H → D'``, or None.
        config: See `M3Config`.
        special: Ids that the heads treat apart.
        packs: Whether texts of unequal lengths run without padding.
        engine: Runs the backbone for inference, without gradients, and holds its linear weights; None: the backbone
            runs itself.
        stored: All weights as they were loaded, if `backbone` has not been made of them yet; None: it has.
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
        self.stored: Stored | None = None
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

    def forward_spans(self, batch: Packed, spans: Tensor, outputs: Sequence[Head] = HEADS) -> Reps:
        """Runs the backbone once and the heads over runs of its states, each of them a text of its own.

        The dense vector of a run is the mean of its states, whatever the model's pooling: it has no [CLS].

        Args:
            batch: Token ids of texts, on the model's device.
            spans: int64 ``[S, 2]``, the first position of each run in the batch and the one after its last; none is
                empty, and they may overlap.
            outputs: Heads to compute.

        Returns:
            Packed representations of S runs.
        """
        states = self._states(batch, first_only=False)
        lengths = spans[:, 1] - spans[:, 0]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        rows = torch.arange(len(spans)).repeat_interleave(lengths)
        chosen = torch.arange(int(offsets[-1])) - offsets[:-1][rows] + spans[:, 0][rows]
        places = to_device(chosen, states.device)
        ids, picked = batch.ids.index_select(0, places), states.index_select(0, places)
        own = Packed(ids, to_device(offsets, states.device), tuple(lengths.tolist()))
        dense = lexical = multi = None
        if "dense" in outputs:
            total = picked.new_zeros(len(spans), picked.shape[1], dtype=torch.float32)
            total = total.index_add(0, own.rows, picked.float())
            dense = self._unit(total / to_device(lengths, states.device).unsqueeze(1))
        if "lexical" in outputs:
            no = torch.zeros_like(ids, dtype=torch.bool)
            counted = counts("lexical", self.config, self.special, ids, no, no, None)
            lexical = self._weights(picked) * counted
        if "multi" in outputs:
            multi = self._token_vectors(picked, unit=self.config.normalize)
        return Reps(ids, own.offsets, dense, lexical, multi, own.offsets)

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
            return self._unit(first.float())
        chosen = to_device(self._counted(batch, "dense").nonzero().squeeze(1), states.device)
        rows = batch.rows[chosen]
        total = states.new_zeros(len(batch), states.shape[1], dtype=torch.float32)
        total = total.index_add(0, rows, states[chosen].float())
        if self.config.normalize:  # the sum has the direction of the mean
            return self._unit(total)
        return total / torch.bincount(rows, minlength=len(batch)).clamp(min=1).unsqueeze(1)

    def _unit(self, vectors: Tensor) -> Tensor:
        return normalize(vectors, dim=-1) if self.config.normalize else vectors

    def _lexical(self, states: Tensor, batch: Packed) -> Tensor:
        """``w_i = ReLU(W_lex h_i + b)`` in float32, 0 at positions that do not count."""
        weights = self._weights(states)
        return weights * to_device(self._counted(batch, "lexical"), weights.device)

    def _weights(self, states: Tensor) -> Tensor:
        head = cast(nn.Linear, self.lexical_head)
        if self._rows is not None:
            return self._rows.lexical_weights(states, head.weight, head.bias)
        with torch.autocast(states.device.type, enabled=False):
            return torch.relu(linear(states.float(), head.weight.float(), head.bias.float()).squeeze(1))

    def _multi(self, states: Tensor, batch: Packed) -> tuple[Tensor, Tensor]:
        """``E_i = norm(W_mul h_i + b)`` for the positions that count."""
        chosen = self._counted(batch, "multi").nonzero().squeeze(1)
        ends = torch.searchsorted(chosen, (batch.host or batch).offsets)
        rows = states.index_select(0, to_device(chosen, states.device))
        return self._token_vectors(rows, unit=self.config.normalize), to_device(ends, states.device)

    def _token_vectors(self, states: Tensor, *, unit: bool) -> Tensor:
        head = cast(nn.Linear, self.multi_head)
        vectors = head(states.to(head.weight.dtype))
        if not unit:
            return vectors.float()
        if self._rows is not None:
            return self._rows.unit_rows(vectors, torch.float16)
        return normalize(vectors.float(), dim=-1)

    @property
    def _rows(self) -> Any:
        """The engine's fused kernels, if it has them."""
        return None if self.engine is None else self.engine.rows

    def make_backbone(self) -> None:
        """Makes a module of transformers of a backbone that was loaded as weights alone; ends the engine."""
        if isinstance(self.backbone, StoredBackbone):
            self.engine = self.stored = None
            self.backbone = self.backbone.to_transformers()

    def fingerprint(self, also: Mapping[str, Any] | None = None) -> str:
        """Hex digest (128 bits) of the configuration and the weights: as stored, or in the type that they have now.

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
        for name, tensor in sorted((self.stored or self.state_dict()).items()):
            size = math.prod(tensor.shape)
            every = max(1, size // _SAMPLE)
            if isinstance(tensor, Quantized):
                sample = tensor.elements(np.arange(0, size, every))
            else:
                sample = tensor.detach().flatten()[::every].float().cpu().numpy()
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
