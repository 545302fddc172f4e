"""What can be trained, as the loop sees it: `Pairs` of queries and passages, or raw `Texts` (RetroMAE).

Everything that a task draws at random is a function of the seed and the step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from triptych.collections.training import Reading
from triptych.errors import InputError, ModelError
from triptych.model.backbone import hidden_size
from triptych.model.m3 import M3Model
from triptych.model.packed import Reps, to_device
from triptych.model.tokenizer import TextTokenizer
from triptych.train import distributed, gradcache
from triptych.train.collate import Collator, PairBatch
from triptych.train.data import (
    Datasets,
    PairDataset,
    PairLimits,
    TextDataset,
    data_sets,
    open_pairs,
    open_texts,
)
from triptych.train.distributed import Replica
from triptych.train.gradcache import SubBatch
from triptych.train.losses import vector_distance
from triptych.train.objective import Answers, Objective, losses, split_at, zero_loss
from triptych.train.retromae import Alphabet, MaskedBatch, hide
from triptych.train.sampling import Sampler, Step
from triptych.train.settings import Recipe, SourceSettings
from triptych.types import Head, Progress

Batch = TypeVar("Batch", bound="AnyBatch")


class AnyBatch(Protocol):
    """A batch on the processor.

    Attributes:
        parts: What goes through the model at a time; each has a method `to`.
        source: The source that its rows are from; None: several.
        tokens: Tokens of all parts.
    """

    @property
    def parts(self) -> Sequence[Any]:
        """See above."""
        ...

    @property
    def source(self) -> str | None:
        """See above."""
        ...

    @property
    def tokens(self) -> int:
        """See above."""
        ...


class Runner(NamedTuple):
    """What computes, and how.

    Attributes:
        replica: The module that is trained.
        device: Where it is.
        autocast: Returns the context of a forward pass.
    """

    replica: Replica
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]


class Prepared(NamedTuple):
    """Opened sources.

    Attributes:
        datasets: The data sets.
        sampler: What draws the rows of each step.
        settings: The source that each data set belongs to.
        digest: Changes with the content of the data, its order and the number of processes.
        old_digest: As releases before wrote it, to resume their runs.
    """

    datasets: Datasets[Any]
    sampler: Sampler
    settings: list[SourceSettings]
    digest: str
    old_digest: str

    def step(self, number: int) -> tuple[Step, np.ndarray[Any, np.dtype[np.int64]], str | None]:
        """A step, this process's rows of it, and the name of their source."""
        step = self.sampler.step(number)
        name = None if step.source is None else self.sampler.sources[step.source].name
        return step, step.shard(distributed.rank(), distributed.size()), name


class Task(Protocol[Batch]):
    """What the loop needs.

    Attributes:
        additive: Whether the loss of a batch is the sum of its parts' losses; otherwise it needs the outputs of all.
        data: The sources, opened.
    """

    additive: bool
    data: Prepared

    def batch(self, step: int) -> Batch:
        """The batch of a step; may be called from another thread."""
        ...

    def counts(self, batch: Batch) -> list[int]:
        """Numbers whose sums over all processes `forward` needs."""
        ...

    def forward(self, model: Callable[..., Any], part: Any, totals: Sequence[int]) -> Any:
        """The outputs of a part."""
        ...

    def loss(self, outputs: Any, batch: Batch, step: int) -> dict[str, Tensor]:
        """``loss`` with its graph, and what else is worth a log."""
        ...

    def idle(self, batch: Batch) -> Iterable[nn.Parameter]:
        """Weights that a batch says nothing about: they stay as they are in its step."""
        ...


def _prepare(recipe: Recipe, longest: int, open_: Callable[[SourceSettings], list[Any]]) -> Prepared:
    """Opens all sources; with many processes the first one prepares what is not prepared yet."""
    data = recipe.data
    if not data.train:
        raise InputError("data.train: got no source; expected a file or folder, such as --data pairs.jsonl")
    if distributed.rank() > 0:
        distributed.barrier()
    opened = [(source, part) for source in data.train for part in open_(source)]
    if distributed.rank() == 0:
        distributed.barrier()
    settings, parts = [source for source, _ in opened], [part for _, part in opened]
    datasets: Datasets[Any] = Datasets(parts)
    sampler = Sampler(
        datasets.sources(by_language=data.by_language, weights=[source.weight for source in settings]),
        data.batches(longest),
        temperature=data.temperature,
        seed=recipe.seed,
        world_size=distributed.size(),
        mixed=data.mixed,
    )
    facts = repr([recipe.seed, distributed.size(), [part.digest for part in parts]])
    new: Any = dict.fromkeys(("cache", "prompts", "positive_from", "blank_negatives"), True)
    new["train"] = {"__all__": {"bidirectional"}}
    old = f"{data.model_dump(mode='json', exclude=new)}|{recipe.seed}|{distributed.size()}|"
    old += str([part.name for part in parts])
    return Prepared(
        datasets,
        sampler,
        settings,
        _digest(facts.encode()),
        _digest(old.encode() + datasets.lengths.tobytes()),
    )


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _check_length(length: int, model: M3Model, where: str) -> None:
    if length > model.config.max_length:
        raise InputError(
            f"{where}: got {length}; the model reads {model.config.max_length} tokens (extend_positions changes that)"
        )


def _cache(recipe: Recipe) -> Path | None:
    return None if recipe.data.cache is None else Path(recipe.data.cache)


class PairStep(NamedTuple):
    """A step's pairs, the sub-batches in which they are encoded, their source, and the objective that it has."""

    pairs: PairBatch
    parts: list[SubBatch]
    source: str | None
    objective: Objective

    @property
    def tokens(self) -> int:
        """Tokens of queries and passages."""
        return sum(self.pairs.queries.lengths) + sum(self.pairs.passages.lengths)


class Pairs:
    """Queries with their passages: contrastive training and unified fine-tuning.

    Args:
        recipe: Data and objective.
        model: Its configuration has the prefixes and lengths.
        tokenizer: Of the model.
        progress: Called while data sets are prepared.

    Raises:
        InputError: For settings that do not fit the model or the data, or with which there is nothing to learn.
    """

    additive = False

    def __init__(
        self, recipe: Recipe, model: M3Model, tokenizer: TextTokenizer, progress: Progress | None = None
    ) -> None:
        self.recipe, self.objective, self._model = recipe, recipe.objective, model
        _check_widths(self.objective, model)
        limits = pair_limits(recipe, model)

        def open_(source: SourceSettings) -> list[PairDataset]:
            options: dict[str, Any] = {"cache": _cache(recipe), "progress": progress}
            data = recipe.data
            options["reading"] = Reading(source.split, data.positive_from, data.blank_negatives)
            if source.records is not None:
                return [open_pairs(source.records, tokenizer, limits, **options)]
            if source.path == "(records)":
                raise InputError(
                    "data.train: this recipe was for records in memory; pass them again from Python"
                )
            found = data_sets(Path(source.path))
            return [open_pairs(files, tokenizer, limits, name=name, **options) for name, files in found]

        self.data = _prepare(recipe, max(limits.query_max, limits.passage_max), open_)
        self._objectives = [_of_source(self.objective, source) for source in self.data.settings]
        data = recipe.data
        self.collate = Collator(
            self.data.datasets, group=data.group, seed=recipe.seed, fill=data.fill, mixed=data.mixed
        )
        self._check_trainable()
        self.vector_width = self._vector_width()

    def _vector_width(self) -> int:
        """T of the teacher's vectors; 0 if they are not used."""
        if not self.objective.vector_weight:
            return 0
        parts = cast("Sequence[PairDataset]", self.data.datasets.parts)
        widths = sorted({part.vector_width for part in parts} - {0})
        if len(widths) != 1:
            raise InputError(
                f"objective.vector_weight: got {self.objective.vector_weight}, and teacher_vectors of {widths} numbers "
                "in the data; expected vectors of one width, or the weight 0"
            )
        return widths[0]

    def _check_trainable(self) -> None:
        parts = cast("Sequence[PairDataset]", self.data.datasets.parts)
        if self.objective.reranker is not None and not any(part.scored for part in parts):
            raise InputError(
                f"objective.reranker: got {self.objective.reranker!r}, but no row of the data has pos_scores and "
                "neg_scores; expected a re-ranker's scores in the data, or no reranker"
            )
        group = min(self.recipe.data.group, 1 + max(part.max_negatives for part in parts))
        epoch = self.data.sampler.epoch(0)
        queries = max(len(epoch[step].rows) for step in range(len(epoch))) if self.objective.in_batch else 1
        if queries * group < 2:
            raise InputError(
                "data: no step has a negative, so that the loss would be 0 for ever: "
                + ("a batch has one query" if self.objective.in_batch else "objective.in_batch is false")
                + " and no negatives of its own; expected larger batches (data.batch_size), more rows, or negatives "
                "in the data with data.group of 2 or more"
            )

    def batch(self, step: int) -> PairStep:
        """See `Task`: queries and passages go through together, in sub-batches if the recipe says so."""
        _, rows, source = self.data.step(step)
        pairs = PairBatch.of(self.collate(rows, step), keyed=self.objective.drop_duplicates)
        parts = gradcache.split(pairs.joint(), self.recipe.compute.sub_batch_tokens)
        return PairStep(pairs, parts, source, self._objectives[self.data.datasets.part_of(int(rows[0]))])

    def counts(self, batch: PairStep) -> list[int]:
        """See `Task`."""
        del batch
        return []

    def forward(self, model: Callable[..., Reps], part: SubBatch, totals: Sequence[int]) -> Reps:
        """See `Task`."""
        del totals
        return encode(model, part, self.objective.heads)

    def loss(self, outputs: Reps, batch: PairStep, step: int) -> dict[str, Tensor]:
        """See `Task`."""
        found = pair_losses(batch.objective, outputs, batch.pairs, step)
        unused = [
            getattr(outputs, head) for head in self.objective.heads if head not in batch.objective.heads
        ]
        return found | {"loss": found["loss"] + zero_loss(unused)} if unused else found

    def idle(self, batch: PairStep) -> Iterable[nn.Parameter]:
        """See `Task`: momentum and weight decay would move a head that has no loss."""
        own = {"lexical": self._model.lexical_head, "multi": self._model.multi_head}
        for head, module in own.items():
            if module is not None and head not in batch.objective.heads:
                yield from module.parameters()


def encode(model: Callable[..., Reps], part: SubBatch, heads: Sequence[Head]) -> Reps:
    """The representations of a sub-batch.

    On a GPU that computes in bfloat16 the token vectors are that too: their products are most of the losses' work.
    """
    reps = model(part.batch, heads)
    if reps.multi is None or not torch.is_autocast_enabled("cuda"):
        return reps
    return replace(reps, multi=reps.multi.bfloat16())


def pair_losses(objective: Objective, reps: Reps, batch: PairBatch, step: int) -> dict[str, Tensor]:
    """The losses of a batch whose queries and passages were encoded together, queries first.

    Also returns ``lexical_active``, the share of the passages' tokens that have a lexical weight: where it falls to 0
    the lexical head is lost, since no gradient comes through its ReLU any more.
    """
    sides = split_at(reps, len(batch.queries), sum(batch.queries.lengths))
    device = reps.offsets.device

    def place(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else to_device(tensor, device)

    candidates = distributed.candidates(
        *sides,
        batch.group,
        teacher=place(batch.teacher_scores),
        keys=place(batch.keys),
        answers=None
        if batch.answers is None
        else Answers(*(to_device(each, device) for each in batch.answers)),
        bidirectional=objective.bidirectional,
    )
    found = losses(objective, candidates, step)
    if reps.projected is not None:
        distance = _vector_distance(reps.projected, place(batch.teacher_vectors)) * candidates.share
        found["vectors"] = distance.detach() / (1 + batch.group)
        found["loss"] = found["loss"] + objective.vector_weight * distance / (1 + batch.group)
    if sides[1].lexical is not None:
        found["lexical_active"] = (sides[1].lexical.detach() > 0).float().mean()
    return found


def _vector_distance(projected: Tensor, teacher: Tensor | None) -> Tensor:
    """The sum over all texts; 0, with a graph, if no text of the batch has a teacher's vector."""
    return zero_loss([projected]) if teacher is None else vector_distance(projected, teacher).sum()


def _of_source(objective: Objective, source: SourceSettings) -> Objective:
    """The objective of a source that only some heads learn from, or that has a direction of its own."""
    if source.bidirectional is not None:
        objective = replace(objective, bidirectional=source.bidirectional)
    heads = source.heads
    if heads is None:
        return objective
    widths: dict[str, tuple[int, ...]] = {}
    for name in ("dense", "multi"):
        if name not in heads:
            widths[f"{name}_widths"] = ()
    own = tuple(head for head in objective.heads if head in heads)
    weight = objective.vector_weight if "dense" in own else 0.0
    return replace(objective, heads=own, vector_weight=weight, **cast("dict[str, Any]", widths))


def _check_widths(objective: Objective, model: M3Model) -> None:
    multi = model.config.multi_dim if model.multi_head is not None else None
    for name, widths, width in (
        ("dense_widths", objective.dense_widths, hidden_size(model.backbone)),
        ("multi_widths", objective.multi_widths, multi or hidden_size(model.backbone)),
    ):
        if too_wide := [each for each in widths if each >= width]:
            raise InputError(
                f"objective.{name}: got {too_wide}; expected numbers below {width}, the model's own width"
            )


def pair_limits(recipe: Recipe, model: M3Model) -> PairLimits:
    """Lengths and prefixes of queries and passages.

    Raises:
        InputError: For lengths that the model cannot read.
    """
    most = model.config.max_length
    query = recipe.data.query_length or min(512, most)
    passage = recipe.data.passage_length or most
    _check_length(query, model, "data.query_length")
    _check_length(passage, model, "data.passage_length")
    prefixes = model.config.query_prefix, model.config.document_prefix
    vectors = recipe.objective.vector_weight > 0
    return PairLimits(query, passage, *prefixes, prompts=recipe.data.prompts, vectors=vectors)


class TextStep(NamedTuple):
    """The masked texts of a step, in parts, and their source."""

    parts: list[MaskedBatch]
    source: str | None

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(sum(part.texts.lengths) for part in self.parts)


class Texts:
    """Raw texts: RetroMAE. Arguments as of `Pairs`."""

    additive = True

    def __init__(
        self, recipe: Recipe, model: M3Model, tokenizer: TextTokenizer, progress: Progress | None = None
    ) -> None:
        self.recipe = recipe
        self.alphabet = alphabet(tokenizer)
        length = recipe.data.passage_length or model.config.max_length
        _check_length(length, model, "data.passage_length")

        def open_(source: SourceSettings) -> list[TextDataset]:
            if source.records is not None:
                raise InputError("data.train: got records; pre-training expects files of texts")
            options: dict[str, Any] = {
                "lines": recipe.data.lines,
                "cache": _cache(recipe),
                "progress": progress,
            }
            return [open_texts(source.path, tokenizer, length, **options)]

        self.data = _prepare(recipe, length, open_)

    def batch(self, step: int) -> TextStep:
        """See `Task`; what is too large for one forward pass comes in parts."""
        _, rows, source = self.data.step(step)
        texts = sorted((self.data.datasets[int(row)] for row in rows), key=len, reverse=True)
        rng = np.random.default_rng([self.recipe.seed, step, distributed.rank()])
        groups: list[list[Any]] = [[]]
        budget = self.recipe.compute.sub_batch_tokens
        for text in texts:
            if groups[-1] and budget is not None and sum(map(len, groups[-1])) + len(text) > budget:
                groups.append([])
            groups[-1].append(text)
        return TextStep([hide(group, self.alphabet, self.recipe.masking, rng) for group in groups], source)

    def counts(self, batch: TextStep) -> list[int]:
        """See `Task`: predicted tokens of the encoder and of the decoder."""
        names = ("encoder_positions", "decoder_positions")
        return [sum(len(getattr(part, name)) for part in batch.parts) for name in names]

    def forward(
        self, model: Callable[..., dict[str, Tensor]], part: MaskedBatch, totals: Sequence[int]
    ) -> Any:
        """See `Task`: the losses are means over all predicted tokens of all parts and processes."""
        return model(part, [distributed.size() / max(1, total) for total in totals])

    def loss(self, outputs: dict[str, Tensor], batch: TextStep, step: int) -> dict[str, Tensor]:
        """See `Task`."""
        del batch, step
        return outputs

    def idle(self, batch: TextStep) -> Iterable[nn.Parameter]:
        """See `Task`."""
        del batch
        return ()


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
