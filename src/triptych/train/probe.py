"""Finds out which batches fit into a GPU's memory, by trying."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from triptych.errors import InputError
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed, Reps
from triptych.train import distributed, gradcache
from triptych.train.collate import PairBatch
from triptych.train.distributed import autocast
from triptych.train.objective import Candidates, losses, parted
from triptych.train.optim import trained
from triptych.train.sampling import BatchTable, probe_table
from triptych.train.settings import Recipe, read
from triptych.train.tasks import encode, pair_limits

PROBE = "probe"
# Of what fits so much is used: other processes' passages and what lies between tensors take room too.
_SHARE = 0.9


def probed(recipe: Recipe, model: M3Model, device: torch.device, before: Path | None = None) -> Recipe:
    """The recipe with a table of batch sizes in the place of ``data.table: probe``.

    Every bucket's largest batch is found by steps of training on random tokens, all of the bucket's length; the weights
    stay as they are. With many processes the least of what fits in one of them is taken.

    Args:
        recipe: Any recipe; one that asks for no probe is given back as it is.
        model: What is trained, with all that is not trained frozen; it is moved to the device.
        device: A GPU.
        before: The recipe of a run that is resumed: what was found then is taken.

    Raises:
        InputError: Without a GPU, or if not even one row fits.
    """
    if recipe.data.table != PROBE:
        return recipe
    if before is not None:
        return _with(recipe, read(before).data.table)
    if device.type != "cuda":
        raise InputError(
            f"data.table: probe: got the device {device}; expected a GPU, whose memory has an end"
        )
    limits = pair_limits(recipe, model)
    longest = max(limits.query_max, limits.passage_max)
    bounds = (*(bound for bound in recipe.data.bounds if bound < longest), longest)
    model.to(device).train()
    # Room for the optimiser's two moments, as in a run.
    room = [torch.zeros(2, *weight.shape, device=device) for weight in trained(model).values()]
    table = largest(partial(step, recipe, model, device), bounds)
    del room
    torch.cuda.empty_cache()
    sizes = distributed.least(torch.tensor(table.sizes, device=device))
    return _with(recipe, dict(zip(bounds, sizes, strict=True)))


def largest(trial: Callable[[int, int], object], bounds: Sequence[int]) -> BatchTable:
    """Nine tenths of the most rows of each length with which a trial does not run out of memory.

    Args:
        trial: Takes tokens and rows.
        bounds: Ascending lengths.
    """

    def fits(tokens: int, rows: int) -> bool:
        try:
            trial(tokens, rows)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return False
        return True

    return probe_table(fits, bounds).scaled(_SHARE)


def step(recipe: Recipe, model: M3Model, device: torch.device, tokens: int, rows: int) -> dict[str, Tensor]:
    """One step of training on random tokens, whose gradient is thrown away.

    Args:
        recipe: Objective, G, sub-batches, arithmetic.
        model: On the device.
        device: Where it is.
        tokens: Of every passage, and of every query up to their limit.
        rows: Queries.
    """
    limits, group, objective = pair_limits(recipe, model), recipe.data.group, recipe.objective
    most = int(cast(Any, model.backbone).config.vocab_size)
    draw = torch.Generator().manual_seed(0)

    def texts(count: int, length: int) -> Packed:
        return Packed.of(list(torch.randint(0, most, (count, length), generator=draw).numpy()))

    batch = PairBatch(
        texts(rows, min(tokens, limits.query_max)),
        texts(rows * group, min(tokens, limits.passage_max)),
        group,
    )
    context = partial(autocast, recipe.compute.dtype, device)

    def loss(reps: Reps) -> dict[str, Tensor]:
        queries, passages = parted(reps, rows, sum(batch.queries.lengths))
        return losses(objective, Candidates.of(queries, passages, group))

    parts = [part.to(device) for part in gradcache.split(batch.joint(), recipe.compute.sub_batch_tokens)]
    try:
        return gradcache.backward(lambda packed: encode(model, context, packed, objective.heads), parts, loss)
    finally:
        model.zero_grad(set_to_none=True)


def _with(recipe: Recipe, table: object) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"table": table})})
