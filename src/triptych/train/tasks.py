"""What can be trained, as the loop sees it, and what all tasks share.

A task makes the batch of a step, and adds the gradient of its losses to the weights. Everything that it draws is a
function of the seed and the step.

Training on queries and their passages: contrastive pre-training and unified fine-tuning.

Training on raw texts: RetroMAE.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from triptych.collections.training import Reading
from triptych.errors import InputError, ModelError
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed, Reps, sent
from triptych.model.tokenizer import TextTokenizer
from triptych.train import distributed, gradcache
from triptych.train.collate import Collator, PairBatch
from triptych.train.data import open_texts
from triptych.train.datasets import Datasets, PairLimits, PairRow, open_pairs
from triptych.train.distributed import Replica
from triptych.train.gradcache import SubBatch
from triptych.train.objective import Objective, losses, nothing, parted
from triptych.train.retromae import Alphabet, MaskedBatch, hide
from triptych.train.sampling import Sampler
from triptych.train.settings import Recipe
from triptych.types import Head

Progress: TypeAlias = Callable[[int, int | None], None]
Batch = TypeVar("Batch")


class Runner(NamedTuple):
    """What computes, and how.

    Attributes:
        replica: The module that is trained.
        device: Where it is.
        autocast: Gives the context of a forward pass.
    """

    replica: Replica
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]


class Task(Protocol[Batch]):
    """What the loop needs.

    Attributes:
        steps_per_epoch: Of the data.
        digest: Changes with the data and how it is drawn.
        left_over: By source, rows of an epoch that no batch has.
    """

    steps_per_epoch: int
    digest: str
    left_over: dict[str, int]

    def batch(self, step: int) -> Batch:
        """The batch of a step, on the processor; may be called from another thread."""
        ...

    def backward(self, batch: Batch, step: int, runner: Runner) -> dict[str, Tensor]:
        """Adds the gradient of the losses to the weights; gives the losses, and what else is worth a log."""
        ...

    def tokens(self, batch: Batch) -> int:
        """Tokens of a batch, in this process."""
        ...


def within(length: int, model: M3Model, where: str) -> None:
    """Refuses a length that the model cannot read."""
    if length > model.config.max_length:
        raise InputError(
            f"{where}: got {length}; the model reads {model.config.max_length} tokens (extend_positions changes that)"
        )


def cache(recipe: Recipe) -> Path | None:
    """Folder for prepared data sets, if the recipe names one."""
    return None if recipe.data.cache is None else Path(recipe.data.cache)


def opened(recipe: Recipe, open_: Callable[[Any], Any]) -> list[Any]:
    """All sources; with many processes the first one prepares what is not prepared yet."""
    if not recipe.data.train:
        raise InputError("data.train: got no source; expected a file or folder, such as --data pairs.jsonl")
    if distributed.rank() > 0:
        distributed.barrier()
    found = [open_(source) for source in recipe.data.train]
    if distributed.rank() == 0:
        distributed.barrier()
    return found


def sampler(recipe: Recipe, datasets: Datasets[Any], longest: int) -> Sampler:
    """What draws the rows of each step; `longest` is the most tokens of a row."""
    data = recipe.data
    return Sampler(
        datasets.sources(by_language=data.by_language, weights=[source.weight for source in data.train]),
        data.batches(longest),
        temperature=data.temperature,
        seed=recipe.seed,
        world_size=distributed.size(),
        mixed=data.mixed,
    )


def digest(recipe: Recipe, lengths: Any, names: Sequence[str]) -> str:
    """Of all that decides which rows a step has."""
    settings = recipe.data.model_dump(mode="json", exclude={"cache"})
    facts = f"{settings}|{recipe.seed}|{distributed.size()}|{list(names)}"
    return hashlib.blake2b(facts.encode() + lengths.tobytes(), digest_size=16).hexdigest()


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


class Texts:
    """Raw texts: RetroMAE. Arguments as of `Pairs`."""

    def __init__(
        self, recipe: Recipe, model: M3Model, tokenizer: TextTokenizer, progress: Progress | None = None
    ) -> None:
        self.recipe = recipe
        self.alphabet = alphabet(tokenizer)
        length = recipe.data.passage_length or model.config.max_length
        within(length, model, "data.passage_length")
        parts = opened(
            recipe,
            lambda source: open_texts(
                source.path,
                tokenizer,
                length,
                lines=recipe.data.lines,
                cache=cache(recipe),
                progress=progress,
            ),
        )
        self.datasets: Datasets[Any] = Datasets(parts)
        self.sampler = sampler(recipe, self.datasets, length)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.left_over = dict(self.sampler.left_over)
        self.digest = digest(recipe, self.datasets.lengths, [part.name for part in parts])

    def batch(self, step: int) -> list[MaskedBatch]:
        """See `Task`; what is too large for one forward pass comes in parts."""
        rows = self.sampler.step(step).shard(distributed.rank(), distributed.size())
        texts = sorted((self.datasets[int(row)] for row in rows), key=len, reverse=True)
        rng = np.random.default_rng([self.recipe.seed, step, distributed.rank()])
        groups: list[list[Any]] = [[]]
        budget = self.recipe.compute.sub_batch_tokens
        for text in texts:
            if groups[-1] and budget is not None and sum(map(len, groups[-1])) + len(text) > budget:
                groups.append([])
            groups[-1].append(text)
        return [hide(group, self.alphabet, self.recipe.masking, rng) for group in groups]

    def tokens(self, batch: list[MaskedBatch]) -> int:
        """See `Task`."""
        return sum(sum(part.texts.lengths) for part in batch)

    def backward(self, batch: list[MaskedBatch], step: int, runner: Runner) -> dict[str, Tensor]:
        """See `Task`: the losses are means over all predicted tokens of all parts and processes."""
        del step
        counts = torch.tensor(
            [
                sum(len(getattr(part, name)) for part in batch)
                for name in ("encoder_places", "decoder_places")
            ],
            device=runner.device if distributed.size() > 1 else None,
        )
        shares = [distributed.size() / max(1, count) for count in distributed.total(counts)]
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(batch):
            with runner.replica.synchronised(number == len(batch) - 1):
                with runner.autocast():
                    found = runner.replica.call(part.to(runner.device), shares)
                found["loss"].backward()
            for name, value in found.items():
                sums[name] = sums.get(name, torch.zeros_like(value.detach())) + value.detach()
        return sums


def alphabet(tokenizer: TextTokenizer) -> Alphabet:
    """What masking needs of a tokenizer.

    Raises:
        ModelError: If it has no [MASK].
    """
    inner: Any = tokenizer.tokenizer
    if inner.mask_token_id is None:
        raise ModelError("pretrain: the tokenizer has no mask token; expected one, such as <mask> or [MASK]")
    size = len(inner)
    special = np.zeros(size, dtype=np.bool_)
    special[list(inner.all_special_ids)] = True
    pieces = cast("list[str]", inner.convert_ids_to_tokens(list(range(size))))
    starts: Any = None
    if any(piece.startswith("▁") for piece in pieces):
        starts = np.array([piece.startswith("▁") for piece in pieces])
    elif any(piece.startswith("##") for piece in pieces):
        starts = np.array([not piece.startswith("##") for piece in pieces])
    elif any(piece.startswith("Ġ") for piece in pieces):
        starts = np.array([piece.startswith("Ġ") for piece in pieces])
    return Alphabet(int(inner.mask_token_id), special, starts)
