"""CUDA graphs for one short text: all kernels of the pass are launched at once.

A short text keeps a GPU busy for less time than the processor needs to launch its kernels. A graph is recorded
for a few numbers of tokens; a text is put into the next larger one, with a second text of junk behind it that
takes up the rest. Attention does not look across texts, so the junk changes nothing.

The inference engine: the packed forward with fused and prepacked weights.

Built from a loaded model, whose linear weights it takes over, so that they are in memory once; `give_back`
ends that. What it computes is what `packed_states` computes; the differences are speed, rounding, and that it
has no gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from triptych.model.forward import LONG, Shape, attend, attend_first, flash_usable, position_ids, supported
from triptych.model.kernels import Kernels, Weights, choose
from triptych.model.packed import Packed

SIZES = (16, 32, 64, 128, 256, 512)
_WARM_UP = 3

Forward = Callable[[Tensor, Tensor, Shape], Tensor]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph with all the memory that it reads and writes: freed, it would be given to somebody else."""

    graph: torch.cuda.CUDAGraph
    ids: Tensor
    places: Tensor
    bounds: Tensor
    states: Tensor


class Graphs:
    """Records and replays a forward pass.

    Args:
        forward: From token ids ``[T]``, rows of the position table ``[T]`` and bounds to states ``[T, H]``,
            without asking the device for anything.
        padding_idx: The model's, from which its positions count; None: they count from 0.
    """

    def __init__(self, forward: Forward, padding_idx: int | None) -> None:
        self._forward = forward
        self._padding = padding_idx
        self._first = 0 if padding_idx is None else padding_idx + 1
        self._recorded: dict[int, _Recorded] = {}
        self._lock = Lock()

    def takes(self, batch: Packed) -> bool:
        """Whether a batch is one text that is short enough, with positions that simply count up."""
        if len(batch) != 1 or not batch.ids.is_cuda or batch.lengths[0] > SIZES[-1]:
            return False
        return self._padding is None or not bool((batch.ids == self._padding).any())

    def __call__(self, batch: Packed) -> Tensor:
        """States ``[T, H]`` of one text."""
        length = batch.lengths[0]
        size = next(size for size in SIZES if size >= length)
        with self._lock:
            if size not in self._recorded:
                # Recording uses streams of the current device, which need not be the batch's.
                with torch.cuda.device(batch.ids.device):
                    self._recorded[size] = self._record(size, batch.ids.device)
            recorded = self._recorded[size]
            recorded.ids[:length].copy_(batch.ids, non_blocking=True)
            recorded.bounds[1:2].fill_(length)
            recorded.graph.replay()
            return recorded.states[:length].clone()

    def _record(self, size: int, device: torch.device) -> _Recorded:
        ids = torch.zeros(size, dtype=torch.int64, device=device)
        places = torch.arange(self._first, self._first + size, device=device)
        bounds = torch.tensor([0, size // 2, size], dtype=torch.int32, device=device)
        # The kernel is told the most tokens that either text can have.
        shape = Shape((size, size), bounds, size)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(_WARM_UP):
                self._forward(ids, places, shape)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream), torch.inference_mode():
            states = self._forward(ids, places, shape)
        return _Recorded(graph, ids, places, bounds, states)


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm."""

    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, module: nn.Module, dtype: torch.dtype) -> Norm:
        """Takes it from a module."""
        norm = cast(nn.LayerNorm, module)
        return cls(norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), norm.eps)

    def __call__(self, x: Tensor) -> Tensor:
        """Normalises the rows of ``[T, H]``."""
        return layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer: attention in (query, key and value fused), attention out, FFN up, FFN down."""

    qkv: Weights
    out: Weights
    after_attention: Norm
    up: Weights
    down: Weights
    after_ffn: Norm


class Engine:
    """Runs a BERT-like encoder on packed batches, for inference.

    Args:
        backbone: A Hugging Face encoder that `supported` accepts, on its device and in its type. Its linear
            weights are moved: until `give_back` it cannot run, be saved or trained.
        kernels: How linear layers are computed.

    Attributes:
        kernels: See above.
    """

    def __init__(self, backbone: nn.Module, kernels: Kernels) -> None:
        model = cast(Any, backbone)
        self.kernels = kernels
        self._dtype: torch.dtype = model.embeddings.LayerNorm.weight.dtype
        self._heads = int(model.config.num_attention_heads)
        self._embed(model.embeddings)
        self._act = _activation(model.encoder.layer[0].intermediate.intermediate_act_fn)
        self._taken: list[tuple[tuple[nn.Linear, ...], Weights]] = []
        self._layers = [self._layer(layer) for layer in model.encoder.layer]
        self._run = self._run_layer
        self.graphs: Graphs | None = None

    @classmethod
    def of(
        cls, backbone: nn.Module, device: torch.device, dtype: torch.dtype, *, int8: bool = False
    ) -> tuple[Engine | None, str]:
        """The engine for a backbone, if there is one, and in words why this one or none."""
        problem = supported(backbone)
        if problem is not None:
            return None, problem
        kernels, why = choose(device, dtype, int8=int8)
        engine = cls(backbone, kernels)
        engine.accelerate()
        return engine, why

    def _embed(self, embeddings: Any) -> None:
        self._words: Tensor = embeddings.word_embeddings.weight.detach()
        self._padding: int | None = embeddings.position_embeddings.padding_idx
        types = getattr(embeddings, "token_type_embeddings", None)
        places = embeddings.position_embeddings.weight.detach()
        self._places: Tensor = places if types is None else places + types.weight.detach()[0]
        self._first_norm = Norm.of(embeddings.LayerNorm, self._dtype)

    def _layer(self, layer: Any) -> Layer:
        inner, output = layer.attention.self, layer.attention.output
        return Layer(
            self._take(inner.query, inner.key, inner.value),
            self._take(output.dense),
            Norm.of(output.LayerNorm, self._dtype),
            self._take(layer.intermediate.dense),
            self._take(layer.output.dense),
            Norm.of(layer.output.LayerNorm, self._dtype),
        )

    def _take(self, *modules: nn.Linear) -> Weights:
        """Packs layers with the same input as one, and empties them."""
        weights = self.kernels.pack(
            torch.cat([module.weight.detach() for module in modules]),
            torch.cat([module.bias.detach() for module in modules]),
        )
        for module in modules:
            module.weight.data = module.weight.data.new_empty(0)
        self._taken.append((modules, weights))
        return weights

    def give_back(self) -> None:
        """Returns the weights to the backbone; the engine must not be used any more."""
        self._layers.clear()
        self.graphs = None
        while self._taken:
            modules, weights = self._taken.pop()
            pieces = self.kernels.unpack(weights).split([len(module.bias) for module in modules])
            for module, piece in zip(modules, pieces, strict=True):
                module.weight.data = piece.clone()

    def accelerate(self, *, compile: bool = False, graphs: bool = True) -> None:
        """Spends time at the first calls to be faster afterwards; for GPUs.

        Args:
            compile: Compile the layers by torch.compile, once for all sizes; it fuses what is not a product, but
                was slower where it was measured (docs/performance.md).
            graphs: Record the pass over one short text as a CUDA graph, which saves launching its kernels; only
                where attention takes texts of unequal lengths at once.
        """
        if compile:
            self._run = torch.compile(self._run_layer, dynamic=True)
        if graphs and flash_usable(self._words, self._words.shape[1] // self._heads):
            self.graphs = Graphs(self._graphed, self._padding)

    def __call__(self, batch: Packed, *, first_only: bool = False) -> Tensor:
        """The last states of a packed batch.

        Args:
            batch: N texts, T tokens; fastest if texts of equal length stand together.
            first_only: Compute of the last layer only what the first position of each text needs.

        Returns:
            ``[T, H]``, or ``[N, H]`` with `first_only`.
        """
        if self.graphs is not None and self.graphs.takes(batch):
            states = self.graphs(batch)
            return states[:1] if first_only else states
        states = self._first_norm(self._words[batch.ids] + self._places_of(batch))
        if not len(batch):
            return states
        shape = Shape.of(batch.lengths, batch.offsets.int())
        return self._through(states, shape, first_only=first_only)

    def _graphed(self, ids: Tensor, places: Tensor, shape: Shape) -> Tensor:
        """The pass as it is recorded: nothing in it depends on the values on the processor."""
        return self._through(
            self._first_norm(self._words[ids] + self._places[places]), shape, first_only=False
        )

    def _through(self, states: Tensor, shape: Shape, *, first_only: bool) -> Tensor:
        # Long texts are taken apart by their lengths, which would be compiled again for each batch.
        run = self._run_layer if shape.longest >= LONG else self._run
        for layer in self._layers[:-1]:
            states = run(layer, states, shape, first_only=False)
        return run(self._layers[-1], states, shape, first_only=first_only)

    def _places_of(self, batch: Packed) -> Tensor:
        ids = batch.ids
        if len(batch) != 1 or (self._padding is not None and bool((ids == self._padding).any())):
            return self._places[position_ids(batch, self._padding)]
        start = 0 if self._padding is None else self._padding + 1
        return self._places[start : start + len(ids)]

    def _run_layer(self, layer: Layer, states: Tensor, shape: Shape, *, first_only: bool) -> Tensor:
        kernels = self.kernels
        qkv = kernels.linear(states, layer.qkv)
        if first_only:
            context = attend_first(qkv, self._heads, shape)
            states = states.index_select(0, shape.bounds[:-1].long())
        else:
            context = attend(qkv, self._heads, shape)
        states = layer.after_attention(kernels.linear_add(context, layer.out, states))
        if self._act is None:
            wide = kernels.linear_gelu(states, layer.up)
        else:
            wide = self._act(kernels.linear(states, layer.up))
        return layer.after_ffn(kernels.linear_add(wide, layer.down, states))


def _activation(module: Any) -> Callable[[Tensor], Tensor] | None:
    """None for the exact GELU, which kernels fuse."""
    exact = type(module).__name__ == "GELUActivation" or isinstance(module, nn.GELU)
    plain = getattr(module, "approximate", "none") == "none" and not getattr(module, "use_gelu_python", False)
    return None if exact and plain else module
