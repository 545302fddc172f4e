"""The inference engine: the forward pass without gradients, with fused and prepacked weights.

Built from a loaded model, whose linear weights it takes over, so that they are in memory once; `give_back`
ends that. What it computes is what `triptych.model.forward.packed_states` computes; the differences are speed,
rounding, and that it has no gradients.

CUDA graphs launch all kernels of the pass over one short text at once, since such a text keeps a GPU busy for less
time than the processor needs to launch its kernels. A graph is recorded for a few numbers of tokens; a text is put
into the next larger one, with a dummy sequence behind it that fills the rest. Attention does not look across texts,
so the dummy sequence changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from triptych.model import native
from triptych.model.forward import supported
from triptych.model.kernels import (
    FusedKernels,
    Kernels,
    Weights,
    choose,
    flash_attention,
    flash_usable,
    has_amx,
)
from triptych.model.packed import Packed, Shape, position_ids, runs, to_device
from triptych.model.stored import StoredBackbone, WordTable, expand

SIZES = (16, 32, 64, 128, 256, 512)
_WARM_UP = 3
# Rows of a tile of scores, and how many scores the heads that share a tile may have together. Measured on two
# cores of Zen 5 (1 MB of second-level cache each, 32 MB shared): of 2, 4, 8 and 16 million scores 2 was best at
# 1024 and 2048 tokens, but from 4096 on what makes as many as 1024 rows (8192 tokens: 285 GFLOP/s with 256
# rows, 389 with 1024). A tile's memory grows with the length, to 16 MB at 8192 tokens.
_ROWS = 1024
_TILE = 2 * 1024 * 1024
# Shorter texts: one call of torch's attention is faster than two products and a softmax.
_SHORT = 48
# With AMX, heads of 32 numbers leave the product's tiles half empty, and torch's attention wins up to here: 6,700
# tokens a second against 5,300 (12 layers of width 384, texts of up to 512 tokens). Heads of 64: no difference.
_AMX_SHORT, _NARROW = 512, 32


# From here on a GPU takes texts of one length together rather than all lengths at once.
LONG = 1024
# Columns of an attention head that the fused kernel takes.
_TILED = (16, 32, 64, 128)

Forward = Callable[[Tensor, Tensor, Shape], Tensor]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph with all the memory that it reads and writes: if freed, the allocator would reuse it."""

    graph: torch.cuda.CUDAGraph
    ids: Tensor
    places: Tensor
    length: Tensor
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
        self._recorded: dict[int, _Recorded] = {}
        self._lock = Lock()

    def takes(self, batch: Packed) -> bool:
        """Whether a batch is one text that is short enough, with positions that simply count up."""
        if len(batch) != 1 or not batch.ids.is_cuda or batch.lengths[0] > SIZES[-1]:
            return False
        return self._padding is None or not bool(((batch.host or batch).ids == self._padding).any())

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
            recorded.length.fill_(length)
            recorded.graph.replay()
            return recorded.states[:length].clone()

    def _record(self, size: int, device: torch.device) -> _Recorded:
        ids = torch.zeros(size, dtype=torch.int64, device=device)
        start = first_place(self._padding)
        places = torch.arange(start, start + size, device=device)
        length = torch.full((1,), size // 2, dtype=torch.int64, device=device)
        graph, states = record(lambda: self._forward(ids, places, two_texts(length, size)), device)
        return _Recorded(graph, ids, places, length, states)


def first_place(padding_idx: int | None) -> int:
    """The row of the position table from which a model's positions count."""
    return 0 if padding_idx is None else padding_idx + 1


def two_texts(length: Tensor, size: int) -> Shape:
    """A text of `length` tokens, int64 ``[1]`` on the device, and one that fills the rest of `size`.

    The kernel is told the most tokens that either can have.
    """
    bounds = torch.cat([torch.zeros_like(length), length, torch.full_like(length, size)]).int()
    return Shape((size, size), bounds, size)


def record(run: Callable[[], Result], device: torch.device) -> tuple[Any, Result]:
    """Records what a function does on the current device as a CUDA graph; gives it and what the function returned."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream), torch.inference_mode():
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream), torch.inference_mode():
        result = run()
    return graph, result


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm."""

    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, module: nn.Module, dtype: torch.dtype, eps: float) -> Norm:
        """Takes it from a module."""
        norm = cast(nn.LayerNorm, module)
        return cls(norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), eps)

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
        backbone: A Hugging Face encoder that `supported` accepts, or one as it is stored, on its device and in its
            type. Its linear weights are moved: until `give_back` it cannot run, be saved or trained.
        kernels: How linear layers are computed.

    Attributes:
        kernels: See above.
    """

    def __init__(self, backbone: nn.Module, kernels: Kernels) -> None:
        model = cast(Any, backbone)
        self.kernels = kernels
        self._dtype: torch.dtype = model.embeddings.LayerNorm.weight.dtype
        self._eps = float(model.config.layer_norm_eps)
        self._heads = int(model.config.num_attention_heads)
        self._embed(model.embeddings)
        stored = isinstance(backbone, StoredBackbone)  # these have the exact GELU
        self._act = None if stored else _activation(model.encoder.layer[0].intermediate.intermediate_act_fn)
        self._taken: list[tuple[tuple[nn.Linear, ...], Weights]] = []
        self._layers = [self._layer(layer) for layer in model.encoder.layer]
        self._run = self._run_layer
        self.graphs: Graphs | None = None

    @classmethod
    def of(
        cls, backbone: nn.Module, device: torch.device, dtype: torch.dtype, *, int8: bool = False
    ) -> tuple[Engine | None, str]:
        """The engine for a backbone, if there is one, and the reason why it was or was not selected."""
        problem = supported(backbone)
        if problem is not None:
            return None, problem
        kernels, why = choose(device, dtype, int8=int8)
        engine = cls(backbone, kernels)
        engine.accelerate()
        return engine, why

    def _embed(self, embeddings: Any) -> None:
        self._words = _words(embeddings)
        self._padding: int | None = embeddings.position_embeddings.padding_idx
        types = getattr(embeddings, "token_type_embeddings", None)
        places = embeddings.position_embeddings.weight.detach()
        self._places: Tensor = places if types is None else places + types.weight.detach()[0]
        self._first_norm = Norm.of(embeddings.LayerNorm, self._dtype, self._eps)

    def _layer(self, layer: Any) -> Layer:
        inner, output = layer.attention.self, layer.attention.output
        return Layer(
            self._take(inner.query, inner.key, inner.value),
            self._take(output.dense),
            Norm.of(output.LayerNorm, self._dtype, self._eps),
            self._take(layer.intermediate.dense),
            self._take(layer.output.dense),
            Norm.of(layer.output.LayerNorm, self._dtype, self._eps),
        )

    def _take(self, *modules: nn.Linear) -> Weights:
        """Packs layers with the same input as one, and empties them."""
        weights = self.kernels.pack(
            *(
                _concat([cast(Tensor, getattr(each, name)).detach() for each in modules])
                for name in ("weight", "bias")
            )
        )
        for module in modules:
            module.weight.data = module.weight.data.new_empty(0)
        self._taken.append((modules, weights))
        return weights

    @property
    def rows(self) -> Any:
        """`triptych.model.fused`, if its kernels run here; otherwise None."""
        return self.kernels.rows if isinstance(self.kernels, FusedKernels) else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._places.device

    @property
    def padding(self) -> int | None:
        """The padding id, from which the positions count; None: they count from 0."""
        return self._padding

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
        if graphs and flash_usable(self._places, self._places.shape[1] // self._heads):
            self.graphs = Graphs(self.graphed, self._padding)

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
        states = self._first_states(batch.ids, self._places_of(batch))
        if not len(batch):
            return states
        return self._through(states, self._shape(batch), first_only=first_only)

    def _shape(self, batch: Packed) -> Shape:
        shape = Shape.of(batch.lengths, batch.offsets.int())
        if not isinstance(self.kernels, FusedKernels) or self._places.shape[1] // self._heads not in _TILED:
            return shape
        rest = batch.lengths[_equal_and_long(batch.lengths) :]
        tiles = torch.from_numpy(self.kernels.rows.tiles_of(rest))
        return replace(shape, tiles=to_device(tiles, batch.ids.device))

    def _first_states(self, ids: Tensor, places: Tensor) -> Tensor:
        norm = self._first_norm
        if not isinstance(self.kernels, FusedKernels):
            return norm(self._words[ids].to(self._dtype) + self._places[places])
        tables = cast(Tensor, self._words), self._places
        return self.kernels.rows.add_norm(*tables, norm.weight, norm.bias, norm.eps, (ids, places))

    def graphed(self, ids: Tensor, places: Tensor, shape: Shape) -> Tensor:
        """The pass as it is recorded: nothing in it depends on the values on the processor."""
        return self._through(self._first_states(ids, places), shape, first_only=False)

    def _through(self, states: Tensor, shape: Shape, *, first_only: bool) -> Tensor:
        # Long texts are taken apart by their lengths, which would be compiled again for each batch.
        run = self._run_layer if shape.longest >= LONG else self._run
        for layer in self._layers[:-1]:
            states = run(layer, states, shape, first_only=False)
        return run(self._layers[-1], states, shape, first_only=first_only)

    def _places_of(self, batch: Packed) -> Tensor:
        """Rows of the position table; one text without padding ids simply counts up."""
        ids = batch.ids
        if len(batch) != 1 or (self._padding is not None and bool((ids == self._padding).any())):
            return position_ids(batch, self._padding)
        start = 0 if self._padding is None else self._padding + 1
        return torch.arange(start, start + len(ids), device=ids.device)

    def _run_layer(self, layer: Layer, states: Tensor, shape: Shape, *, first_only: bool) -> Tensor:
        kernels = self.kernels
        qkv = kernels.linear(states, layer.qkv)
        if first_only:
            context = attend_first(qkv, self._heads, shape)
            states = states.index_select(0, shape.bounds[:-1].long())
        else:
            context = attend(qkv, self._heads, shape)
        states = self._add_norm(context, layer.out, states, layer.after_attention)
        if self._act is None:
            wide = kernels.linear_gelu(states, layer.up)
        else:
            wide = self._act(kernels.linear(states, layer.up))
        return self._add_norm(wide, layer.down, states, layer.after_ffn)

    def _add_norm(self, x: Tensor, weights: Weights, residual: Tensor, norm: Norm) -> Tensor:
        kernels = self.kernels
        if not isinstance(kernels, FusedKernels):
            return norm(kernels.linear_add(x, weights, residual))
        rows = kernels.linear(x, weights)
        return kernels.rows.add_norm(rows, residual, norm.weight, norm.bias, norm.eps)


def _concat(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _words(embeddings: Any) -> Tensor | WordTable:
    """The table of words: as it is stored on the processor, as a whole elsewhere."""
    words, place = embeddings.word_embeddings, embeddings.LayerNorm.weight
    if not isinstance(words, WordTable):
        return words.weight.detach()
    if place.device.type != "cpu":
        return expand(words.table).to(place)
    return words.table if isinstance(words.table, Tensor) else words


def _activation(module: Any) -> Callable[[Tensor], Tensor] | None:
    """None for the exact GELU, which kernels fuse."""
    exact = type(module).__name__ == "GELUActivation" or isinstance(module, nn.GELU)
    plain = getattr(module, "approximate", "none") == "none" and not getattr(module, "use_gelu_python", False)
    return None if exact and plain else module


class Tile(NamedTuple):
    """Heads and rows of one step."""

    heads: slice
    rows: slice


def attend(qkv: Tensor, heads: int, shape: Shape) -> Tensor:
    """Every position attends to all positions of its own text.

    Args:
        qkv: ``[T, 3 H]``, query, key and value side by side.
        heads: Number of heads.
        shape: The texts' bounds; texts of equal length should stand together.

    Returns:
        ``[T, H]``.
    """
    parts = qkv.view(len(qkv), 3, heads, -1)
    if shape.tiles is None and not flash_usable(qkv, parts.shape[-1]):
        out = qkv.new_empty(len(qkv), heads, parts.shape[-1])
        _by_runs(parts, shape.lengths, out)
        return out.flatten(1)
    return _equal_first(parts, shape).flatten(1)


def _by_runs(parts: Tensor, lengths: Sequence[int], out: Tensor) -> None:
    """Texts of equal length at a time, from ``[T, 3, heads, d]`` into ``[T, heads, d]``."""
    tiled = out.dtype == torch.bfloat16 and out.device.type == "cpu"
    shortest = _AMX_SHORT + 1 if tiled and out.shape[-1] <= _NARROW and has_amx() else _SHORT
    compiled = native.load().rows if tiled else None
    for first, count, length in runs(lengths):
        rows = slice(first, first + count * length)
        if compiled is not None and compiled.takes(length, out.shape[-1]):
            compiled.attend(parts[rows], out[rows], length)
            continue
        size = (count, length, *out.shape[1:])
        query, key, value = (part.view(size).transpose(1, 2) for part in parts[rows].unbind(1))
        target = out[rows].view(size)
        if tiled and length >= shortest:
            for i in range(count):
                _tiled(query[i], key[i], value[i], target[i])
        else:
            target.copy_(scaled_dot_product_attention(query, key, value).transpose(1, 2))


def _equal_and_long(lengths: Sequence[int]) -> int:
    """How many texts at the beginning are long and all of one length, as texts are that were cut.

    For these torch has the fastest attention, cuDNN's, which however makes a plan for each length that it meets; for
    the many lengths that whole documents have that would take longer than their attention.
    """
    if lengths[0] < LONG:
        return 0
    same = next((i for i, length in enumerate(lengths) if length != lengths[0]), len(lengths))
    return same if same > 1 else 0


def _equal_first(parts: Tensor, shape: Shape) -> Tensor:
    """The texts of `_equal_and_long` at once, the others by a kernel for unequal lengths: ``[T, heads, d]``."""
    count = _equal_and_long(shape.lengths)
    tokens, rest = sum(shape.lengths[:count]), shape.lengths[count:]
    whole = parts.new_empty(len(parts), *parts.shape[2:]) if count else parts
    if count:
        _by_runs(parts[:tokens], shape.lengths[:count], whole)
    if not rest:
        return whole
    if shape.tiles is not None:
        from triptych.model import fused

        found = fused.attend(parts[tokens:].flatten(1), parts.shape[2], shape.tiles, max(rest))
    else:
        others = Shape.of(rest, shape.bounds[count:] - tokens)
        query, key, value = parts[tokens:].unbind(1)
        found = flash_attention(query, key, value, others)
    if not count:
        return found.view(len(parts), *parts.shape[2:])
    whole[tokens:] = found.view_as(whole[tokens:])
    return whole


def attend_first(qkv: Tensor, heads: int, shape: Shape) -> Tensor:
    """The first position of each text attends to all positions of its text.

    Args:
        qkv: ``[T, 3 H]``.
        heads: Number of heads.
        shape: The texts' bounds.

    Returns:
        ``[N, H]``.
    """
    parts = qkv.view(len(qkv), 3, heads, -1)
    query = parts[:, 0].index_select(0, shape.bounds[:-1].long())
    if flash_usable(qkv, parts.shape[-1]):
        bounds = torch.arange(len(shape.bounds), dtype=torch.int32, device=qkv.device)
        firsts = Shape((), bounds, 1)
        return flash_attention(query, parts[:, 1], parts[:, 2], shape, query_shape=firsts).flatten(1)
    out: list[Tensor] = []
    text = 0
    for first, count, length in runs(shape.lengths):
        size = (count, length, *query.shape[1:])
        key, value = (parts[first : first + count * length, i].view(size).transpose(1, 2) for i in (1, 2))
        chosen = query[text : text + count].unsqueeze(2)
        out.append(scaled_dot_product_attention(chosen, key, value).flatten(1))
        text += count
    return out[0] if len(out) == 1 else torch.cat(out)


def _tiled(query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    """One text, ``[heads, L, d]`` each, into ``[L, heads, d]``: two bfloat16 products and a softmax a tile.

    torch's attention on a processor multiplies in float32 tiles that are too small for its speed in
    bfloat16. The softmax itself runs in float32 inside.
    """
    key_t, scale, rows = key.transpose(1, 2), query.shape[-1] ** -0.5, native.load().rows
    for tile in _tiles(query.shape[0], query.shape[1]):
        scores = torch.bmm(query[tile.heads, tile.rows], key_t[tile.heads])
        if rows is not None:
            factors = rows.softmax(scores, scale)
            rows.merge_heads(torch.bmm(scores, value[tile.heads]), factors, out[tile.rows, tile.heads])
        else:
            torch.softmax(scores.mul_(scale), -1, out=scores)
            out[tile.rows, tile.heads] = torch.bmm(scores, value[tile.heads]).transpose(0, 1)


def _tiles(heads: int, length: int) -> Iterator[Tile]:
    rows = min(length, _ROWS)
    together = max(1, min(heads, _TILE // (length * rows)))
    for head in range(0, heads, together):
        for row in range(0, length, rows):
            yield Tile(slice(head, head + together), slice(row, min(length, row + rows)))
