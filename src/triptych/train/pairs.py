"""Training on queries and their passages: contrastive pre-training and unified fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from triptych.data.collate import Collator
from triptych.data.datasets import PairLimits, PairRow, open_pairs
from triptych.data.joined import Datasets
from triptych.data.training import Reading
from triptych.errors import InputError
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed, Reps, sent
from triptych.model.tokenizer import TextTokenizer
from triptych.train import distributed, gradcache
from triptych.train.batches import PairBatch
from triptych.train.gradcache import SubBatch
from triptych.train.objective import Objective, losses, nothing
from triptych.train.reps import parted
from triptych.train.settings import Recipe
from triptych.train.tasks import Progress, Runner, cache, digest, opened, sampler, within
from triptych.types import Head


class PairStep(NamedTuple):
    """A step's pairs, the sub-batches in which they are encoded, and the heads that learn; all on the processor."""

    pairs: PairBatch
    parts: list[SubBatch]
    heads: tuple[Head, ...]


class Pairs:
    """Queries with their passages: contrastive training and unified fine-tuning.

    Args:
        recipe: Data and objective.
        model: Its configuration has the prefixes and lengths.
        tokenizer: Of the model.
        progress: Called while data sets are prepared.
    """

    def __init__(
        self, recipe: Recipe, model: M3Model, tokenizer: TextTokenizer, progress: Progress | None = None
    ) -> None:
        self.recipe, self.objective = recipe, recipe.objective
        self.limits = pair_limits(recipe, model)
        parts = opened(
            recipe,
            lambda source: open_pairs(
                source.path,
                tokenizer,
                self.limits,
                cache=cache(recipe),
                reading=Reading(split=source.split),
                progress=progress,
            ),
        )
        datasets: Datasets[PairRow] = Datasets(parts)
        self.heads = _heads(recipe)
        self.sampler = sampler(recipe, datasets, max(self.limits.query_max, self.limits.passage_max))
        data = recipe.data
        self.collate = Collator(
            datasets,
            group=data.group,
            seed=recipe.seed,
            fill=data.fill,
            mixed=data.mixed,
        )
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.left_over = dict(self.sampler.left_over)
        self.digest = digest(recipe, datasets.lengths, [part.name for part in parts])

    def batch(self, step: int) -> PairStep:
        """See `Task`: queries and passages go through together, in sub-batches if the recipe says so."""
        rows = self.sampler.step(step).shard(distributed.rank(), distributed.size())
        batch = PairBatch.of(self.collate(rows, step), keyed=self.objective.drop_duplicates)
        parts = gradcache.split(batch.joint(), self.recipe.compute.sub_batch_tokens)
        return PairStep(batch, parts, self.heads[self.collate.datasets.part_of(int(rows[0]))])

    def tokens(self, batch: PairStep) -> int:
        """See `Task`."""
        return sum(sum(part.batch.lengths) for part in batch.parts)

    def backward(self, batch: PairStep, step: int, runner: Runner) -> dict[str, Tensor]:
        """See `Task`."""
        return gradcache.backward(
            lambda packed: encode(runner.replica.call, runner.autocast, packed, self.objective.heads),
            [part.to(runner.device) for part in batch.parts],
            lambda reps: self._losses(reps, batch, step),
            runner.replica.synchronised,
        )

    def _losses(self, reps: Reps, batch: PairStep, step: int) -> dict[str, Tensor]:
        found = pair_losses(replace(self.objective, heads=batch.heads), reps, batch.pairs, step)
        idle = [getattr(reps, head) for head in self.objective.heads if head not in batch.heads]
        return found | {"loss": found["loss"] + nothing(idle)} if idle else found


def encode(
    model: Callable[[Packed, Sequence[Head]], Reps],
    context: Callable[[], AbstractContextManager[Any]],
    packed: Packed,
    heads: Sequence[Head],
) -> Reps:
    """The representations of a packed batch, in the type of arithmetic that the run has.

    On a GPU that computes in bfloat16 the token vectors are that too: their products are most of the losses' work.
    """
    with context():
        reps = model(packed, heads)
        if reps.multi is None or not torch.is_autocast_enabled("cuda"):
            return reps
        return replace(reps, multi=reps.multi.bfloat16())


def pair_losses(objective: Objective, reps: Reps, batch: PairBatch, step: int) -> dict[str, Tensor]:
    """The losses of a batch whose queries and passages were encoded together, queries first.

    Also gives ``lexical_active``, the share of the passages' tokens that have a lexical weight: where it falls to 0
    the lexical head is lost, since no gradient comes through its ReLU any more.
    """
    sides = parted(reps, len(batch.queries), sum(batch.queries.lengths))
    device = reps.offsets.device
    candidates = distributed.candidates(
        *sides,
        batch.group,
        teacher=None if batch.teacher_scores is None else sent(batch.teacher_scores, device),
        keys=None if batch.keys is None else sent(batch.keys, device),
        bidirectional=objective.bidirectional,
    )
    found = losses(objective, candidates, step)
    if sides[1].lexical is not None:
        found["lexical_active"] = (sides[1].lexical.detach() > 0).float().mean()
    return found


def _heads(recipe: Recipe) -> list[tuple[Head, ...]]:
    """By source, the heads that learn from it."""
    known, sources = recipe.objective.heads, recipe.data.train
    if recipe.data.mixed and any(source.heads for source in sources):
        raise InputError(
            "data.train: heads of a source need batches of one source; expected data.mixed false"
        )
    for source in sources:
        if unknown := set(source.heads or ()) - set(known):
            raise InputError(
                f"data.train: {source.path}: heads {sorted(unknown)} are not trained; expected some of {list(known)}"
            )
    return [tuple(head for head in known if head in (source.heads or known)) for source in sources]


def pair_limits(recipe: Recipe, model: M3Model) -> PairLimits:
    """Lengths and prefixes of queries and passages.

    Raises:
        InputError: For lengths that the model cannot read.
    """
    most = model.config.max_length
    query = recipe.data.query_length or min(512, most)
    passage = recipe.data.passage_length or most
    within(query, model, "data.query_length")
    within(passage, model, "data.passage_length")
    return PairLimits(query, passage, model.config.query_prefix, model.config.document_prefix)
