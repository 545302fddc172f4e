"""Where a run computes, and many processes as one: representations of all heads from every process.

Each process compares its own queries with the passages of all. Its loss is ``W/Q_all · Σ`` over its own queries
(W processes, Q_all queries), so that the mean of the processes' gradients, which data-parallel training takes, is
the gradient of the joint batch in one process. Processes may have different amounts of work in a step: they agree on
the number of passes first, since each pass may exchange weights or gradients.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from inspect import signature
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from triptych.errors import InputError
from triptych.model.backbone import has_bfloat16
from triptych.model.forward import run_layer, supported
from triptych.model.m3 import M3Model
from triptych.model.packed import Reps, Shape
from triptych.train.objective import Answers, Candidates

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


def autocast(wanted: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of a forward pass: in bfloat16 if that is wanted, or if `wanted` is auto and the device can."""
    if wanted == "float32" or (wanted == "auto" and not has_bfloat16(device)):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


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


def size() -> int:
    """W, the number of processes; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def candidates(
    queries: Reps,
    passages: Reps,
    group: int,
    *,
    teacher: Tensor | None = None,
    keys: Tensor | None = None,
    answers: Answers | None = None,
    bidirectional: bool = False,
) -> Candidates:
    """This process's queries against the passages of all processes.

    Every process must call this at the same time, with the same G and the same heads; the number of queries may
    differ, and may be 0.

    Args:
        queries: This process's Q queries.
        passages: Its Q·G passages.
        group: G.
        teacher: Re-ranker scores ``[Q, G]``.
        keys: Numbers of the passages' texts, ``[Q·G]``.
        answers: Numbers of the texts that are labelled as positives of the queries, which count from 0.
        bidirectional: Whether the queries of all processes are needed as well.
    """
    own = Candidates.of(queries, passages, group, teacher=teacher, keys=keys, answers=answers)
    if size() == 1:
        return own
    counts, columns = _counts(len(queries.offsets) - 1, len(passages.offsets) - 1)
    before, total = sum(counts[: rank()]), sum(counts)
    return replace(
        own,
        passages=gather(passages),
        targets=own.targets + before * group,
        share=size() / max(1, total),
        keys=None if keys is None else _Gather.one(keys, columns),
        answers=None if answers is None else _gather_answers(answers, before),
        everyone=gather(queries) if bidirectional else None,
    )


def _gather_answers(answers: Answers, before: int) -> Answers:
    """Those of all processes; `before` queries stand before this process's."""
    (counts,) = _counts(len(answers.keys))
    both = torch.stack([answers.keys, answers.queries + before], dim=1)
    return Answers(*_Gather.one(both, counts).unbind(1))


def gather(reps: Reps) -> Reps:
    """The texts of all processes, in the order of the processes; all heads, differentiable.

    The gradient of what a process gave is the sum of the gradients from all processes.
    """
    multi = reps.multi
    bounds = [reps.offsets, reps.offsets if multi is None else reps.multi_offsets]
    height = 0 if multi is None else len(multi)
    texts, tokens, vectors = _counts(len(reps.offsets) - 1, len(reps.ids), height)
    lengths = _Gather.one(torch.stack([each.diff() for each in bounds], dim=1), texts)
    offsets, multi_offsets = (_bounds(column) for column in lengths.unbind(1))
    rows = {"dense": texts, "lexical": tokens, "multi": vectors}
    present = [name for name in rows if getattr(reps, name) is not None]
    plan = _Plan(tuple(tuple(rows[name]) for name in present), rank())
    found: Any = _Gather.apply(plan, *(getattr(reps, name) for name in present))
    heads = dict(zip(present, found, strict=True))  # a teacher's vectors are compared where they are
    return Reps(_Gather.one(reps.ids, tokens), offsets, multi_offsets=multi_offsets, **heads)


def mean(values: dict[str, Tensor]) -> dict[str, float]:
    """The mean over all processes of some scalars; one exchange for all."""
    if not values:
        return {}
    flat = torch.stack([value.detach().float() for value in values.values()])
    if size() > 1:
        dist.all_reduce(flat)
    return dict(zip(values, (flat / size()).tolist(), strict=True))


@contextmanager
def process_group(device: torch.device | None) -> Generator[torch.device | None]:
    """Joins the processes that torchrun started, if it did, and leaves them at the end.

    Args:
        device: Kind of device; None: a GPU if there is one.

    Yields:
        This process's device: with GPUs each process has its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield device
        return
    cuda = torch.cuda.is_available() if device is None else device.type == "cuda"
    if cuda:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    # Numbers go by gloo, so that no process waits for its GPU to say how many texts there are.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def agree(counts: Sequence[int], parts: int) -> tuple[list[int], int]:
    """The sums of some whole numbers over all processes, and the largest number of parts of a process."""
    if size() == 1:
        return list(counts), parts
    everything = _counts(parts, *counts)
    return [sum(each) for each in everything[1:]], max(everything[0])


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return flag if size() == 1 else any(_counts(int(flag))[0])


def barrier() -> None:
    """Waits for all processes."""
    if size() > 1:
        dist.barrier()


@dataclass(frozen=True, slots=True)
class _Plan:
    """Rows that each process gives, for each tensor."""

    rows: tuple[tuple[int, ...], ...]
    rank: int


class _Gather(torch.autograd.Function):
    """Joins tensors of different heights from all processes.

    One function for all heads: the exchanges of its backward pass then happen in the same order in every process,
    whatever parts of the losses a process has.
    """

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.plan = plan
        return tuple(_Gather.one(tensor, rows) for tensor, rows in zip(tensors, plan.rows, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        return (None, *(_reduce(grad, rows, plan.rank) for grad, rows in zip(grads, plan.rows, strict=True)))

    @staticmethod
    def one(tensor: Tensor, rows: tuple[int, ...] | list[int]) -> Tensor:
        """Without gradient: the rows of all processes, one after the other."""
        height = max(rows)
        padded = tensor.new_zeros(height, *tensor.shape[1:])
        padded[: len(tensor)] = tensor.detach()
        everything = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(everything, padded)
        return torch.cat([part[:n] for part, n in zip(everything, rows, strict=True)])


def _reduce(grad: Tensor, rows: tuple[int, ...], own: int) -> Tensor:
    """The sum over all processes of the gradients of this process's rows."""
    starts = [0, *accumulate(rows)]
    if not grad.is_cuda:  # gloo has no reduce-scatter
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[starts[own] : starts[own + 1]]
    height = max(rows)
    padded = [grad.new_zeros(height, *grad.shape[1:]) for _ in rows]
    for part, first, n in zip(padded, starts, rows, strict=False):
        part[:n] = grad[first : first + n]
    result = torch.empty_like(padded[own])
    dist.reduce_scatter(result, padded)
    return result[: rows[own]]


def _bounds(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def _counts(*own: int) -> list[list[int]]:
    """Some numbers of every process: for each number the list over the processes."""
    mine = torch.tensor(own, device="cpu" if "cpu:" in dist.get_backend_config() else "cuda")
    everything = [torch.empty_like(mine) for _ in range(size())]
    dist.all_gather(everything, mine)
    return torch.stack(everything, dim=1).tolist()


@cache
def _show_reps() -> None:
    """Lets FSDP find the tensors in a model's output.

    It waits for their gradients to exchange the weights'. Before torch 2.13 it looks into no dataclass that torch does
    not know, and would train each process's part of the weights on that process's texts alone, without an error.
    """
    from torch.export import register_dataclass

    register_dataclass(Reps, serialized_type_name="triptych.Reps")


def _shard(module: nn.Module) -> list[FSDPModule]:
    """Shares out a module's weights, each transformer layer as a unit of its own and the rest as one.

    A layer's weights are gathered while the layers before are computed, and its gradients are reduced while the
    backward pass goes on. Weights that are gathered stay until the end of that pass.

    Returns:
        The units; the whole module is the first.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
    from transformers.modeling_layers import GradientCheckpointingLayer

    _show_reps()
    for encoder in (part for part in module.modules() if isinstance(part, M3Model)):
        for layer in reversed(list(encoder.backbone.modules())):
            if isinstance(layer, GradientCheckpointingLayer):
                fully_shard(layer, reshard_after_forward=False)
        if encoder.packs:
            # The unpadded pass reads the modules within a layer, whose own forward, with FSDP's hooks, it never calls.
            run = encoder.run_layer or run_layer
            for layer in cast(Any, encoder.backbone).encoder.layer:
                layer.run_unpadded = partial(run, layer)
                register_fsdp_forward_method(layer, "run_unpadded")
            encoder.run_layer = _run_sharded
    fully_shard(module, reshard_after_forward=False)
    # Otherwise the module that runs first counts as the whole one; an evaluation may run an inner one first.
    cast(Any, fully_shard).state(module)._lazy_init()
    return [part for part in module.modules() if isinstance(part, FSDPModule)]


def _run_sharded(layer: nn.Module, states: Tensor, shape: Shape | Tensor) -> Tensor:
    return cast(Any, layer).run_unpadded(states, shape)


class Replica:
    """A module as this process calls it.

    Args:
        module: On its device, with all that is not trained frozen.
        way: `ddp`: every process has all; `fsdp`: gradients and the optimizer's state are shared out.

    Attributes:
        module: The original; its parameters are those to give to the optimizer.
        call: What to call.
    """

    def __init__(self, module: nn.Module, way: Literal["ddp", "fsdp"]) -> None:
        self.module = module
        self.call: nn.Module = module
        self._units: list[FSDPModule] = []
        if size() > 1 and way == "fsdp":
            self._units = _shard(module)
        elif size() > 1:
            # Buffers are constants here; the name of the option changed with the versions of torch.
            names = signature(DistributedDataParallel.__init__).parameters
            buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
            options: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True}
            self.call = DistributedDataParallel(module, **options)

    @contextmanager
    def synchronized(self, last: bool) -> Generator[None]:
        """The context of a backward pass; gradients are exchanged in the last one of a step."""
        if isinstance(self.call, DistributedDataParallel) and not last:
            with self.call.no_sync():
                yield
            return
        for whole in self._units[:1]:
            whole.set_requires_gradient_sync(last)
            whole.set_reshard_after_backward(last)  # the next pass needs the weights again
        yield

    @contextmanager
    def gathered(self) -> Generator[nn.Module]:
        """The module with all its weights in this process, and without dropout: for evaluation."""
        module = self.module
        for unit in self._units:
            unit.unshard()
        module.eval()
        try:
            yield module
        finally:
            module.train()
            for unit in self._units:
                unit.reshard()

    def clip(self, limit: float | None) -> Tensor:
        """Scales the gradient down to a norm of at most `limit`; gives the norm before, on the device."""
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        norm: Any = nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit)
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
        return cast(Tensor, norm)
