"""Training on queries and their passages: contrastive pre-training and unified fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from triptych.data.collate import Collator
from triptych.data.datasets import PairLimits, open_pairs
from triptych.data.examples import Example
from triptych.data.joined import Datasets
from triptych.data.training import Reading
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed, Reps
from triptych.model.tokenizer import TextTokenizer
from triptych.train import distributed, gradcache
from triptych.train.batches import PairBatch
from triptych.train.objective import Objective, losses
from triptych.train.reps import take, text_keys
from triptych.train.settings import Recipe
from triptych.train.tasks import Progress, Runner, cache, digest, opened, sampler, within
from triptych.types import Head


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
        datasets: Datasets[Example] = Datasets(parts)
        self.sampler = sampler(recipe, datasets, max(self.limits.query_max, self.limits.passage_max))
        data = recipe.data
        self.collate = Collator(
            datasets,
            tokenizer,
            self.limits,
            group=data.group,
            seed=recipe.seed,
            fill=data.fill,
            mixed=data.mixed,
        )
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.left_over = dict(self.sampler.left_over)
        self.digest = digest(recipe, datasets.lengths, [part.name for part in parts])

    def batch(self, step: int) -> PairBatch:
        """See `Task`."""
        rows = self.sampler.step(step).shard(distributed.rank(), distributed.size())
        return PairBatch.of(self.collate(rows, step))

    def tokens(self, batch: PairBatch) -> int:
        """See `Task`."""
        return sum(batch.queries.lengths) + sum(batch.passages.lengths)

    def backward(self, batch: PairBatch, step: int, runner: Runner) -> dict[str, Tensor]:
        """See `Task`: one forward for queries and passages, in sub-batches if the recipe says so."""
        keys = text_keys(batch.passages.lengths, batch.passages.ids).to(runner.device)
        batch = batch.to(runner.device)
        parts = gradcache.split(joint(batch.queries, batch.passages), self.recipe.compute.sub_batch_tokens)
        return gradcache.backward(
            lambda packed: encode(runner, packed, self.objective.heads),
            parts,
            lambda reps: pair_losses(self.objective, reps, batch, keys, step),
            runner.replica.synchronised,
        )


def encode(runner: Runner, packed: Packed, heads: Sequence[Head]) -> Reps:
    """The representations of a packed batch, in the type of arithmetic that the run has."""
    with runner.autocast():
        return runner.replica.call(packed, heads)


def pair_losses(
    objective: Objective, reps: Reps, batch: PairBatch, keys: Tensor, step: int
) -> dict[str, Tensor]:
    """The losses of a batch whose queries and passages were encoded together, queries first.

    Also gives ``lexical_active``, the share of the passages' tokens that have a lexical weight: where it falls to 0
    the lexical head is lost, since no gradient comes through its ReLU any more.
    """
    queries = len(batch.queries)
    numbers = torch.arange(len(reps.offsets) - 1, device=reps.offsets.device)
    sides = take(reps, numbers[:queries]), take(reps, numbers[queries:])
    candidates = distributed.candidates(
        *sides,
        batch.group,
        teacher=batch.teacher_scores,
        keys=keys,
        bidirectional=objective.bidirectional,
    )
    found = losses(objective, candidates, step)
    if sides[1].lexical is not None:
        found["lexical_active"] = (sides[1].lexical.detach() > 0).float().mean()
    return found


def joint(first: Packed, second: Packed) -> Packed:
    """Two batches as one."""
    offsets = torch.cat([first.offsets, second.offsets[1:] + first.offsets[-1]])
    return Packed(torch.cat([first.ids, second.ids]), offsets, first.lengths + second.lengths)


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
