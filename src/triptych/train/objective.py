"""The objective: scores of a batch, and the losses that are made of them.

One function, `losses`, builds every training signal from the same score matrices (arXiv 2402.03216v4, section
3.3): a contrastive loss for each head and for their integrated score, and each head's distillation from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from triptych.errors import InputError
from triptych.model.packed import Reps
from triptych.scores import on_torch as torch_scores
from triptych.scores.on_torch import combine
from triptych.train import losses as terms
from triptych.types import HEADS, Head, check_heads


def take(reps: Reps, texts: Tensor, *, permutes: bool = False) -> Reps:
    """The texts `texts` (int64 ``[K]``), in that order; differentiable.

    Args:
        reps: N texts.
        texts: Their numbers.
        permutes: Whether each text comes once: then the sizes are known, which avoids a device sync.
    """
    places, offsets = ragged_places(reps.offsets, texts, len(reps.ids) if permutes else None)
    multi, multi_offsets = reps.multi, offsets
    if multi is not None:
        vectors, multi_offsets = ragged_places(reps.multi_offsets, texts, len(multi) if permutes else None)
        multi = multi.index_select(0, vectors)
    return Reps(
        ids=reps.ids[places],
        offsets=offsets,
        dense=None if reps.dense is None else reps.dense.index_select(0, texts),
        lexical=None if reps.lexical is None else reps.lexical.index_select(0, places),
        multi=multi,
        multi_offsets=multi_offsets,
        projected=None if reps.projected is None else reps.projected.index_select(0, texts),
    )


def split_at(reps: Reps, texts: int, tokens: int) -> tuple[Reps, Reps]:
    """The first `texts` texts, which have `tokens` tokens, and the others; as views."""
    vectors = 0 if reps.multi is None else int(reps.multi_offsets[texts])

    def part(own: slice, bounds: slice, flat: slice, row: slice) -> Reps:
        return Reps(
            ids=reps.ids[flat],
            offsets=reps.offsets[bounds] - reps.offsets[own.start or 0],
            dense=None if reps.dense is None else reps.dense[own],
            lexical=None if reps.lexical is None else reps.lexical[flat],
            multi=None if reps.multi is None else reps.multi[row],
            multi_offsets=reps.multi_offsets[bounds] - reps.multi_offsets[own.start or 0],
            projected=None if reps.projected is None else reps.projected[own],
        )

    return (
        part(slice(texts), slice(texts + 1), slice(tokens), slice(vectors)),
        part(slice(texts, None), slice(texts, None), slice(tokens, None), slice(vectors, None)),
    )


def ragged_places(offsets: Tensor, texts: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
    """Positions of the texts `texts` in a flat buffer with bounds `offsets`, and the bounds that result.

    Args:
        offsets: int64 ``[N + 1]``.
        texts: int64 ``[K]``.
        total: How many positions these are, if that is known.
    """
    lengths = offsets.diff()[texts]
    bounds = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    count = int(bounds[-1]) if total is None else total
    within = torch.arange(count, device=offsets.device)
    shift = (offsets[:-1][texts] - bounds[:-1]).repeat_interleave(lengths, output_size=count)
    return within + shift, bounds


def concat_reps(parts: Sequence[Reps]) -> Reps:
    """One batch of several, in their order; all have the same heads."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]

    def concat(name: str) -> Tensor | None:
        if getattr(first, name) is None:
            return None
        return torch.cat([cast(Tensor, getattr(part, name)) for part in parts])

    return Reps(
        ids=torch.cat([part.ids for part in parts]),
        offsets=_concat_offsets([part.offsets for part in parts]),
        dense=concat("dense"),
        lexical=concat("lexical"),
        multi=concat("multi"),
        multi_offsets=_concat_offsets([part.multi_offsets for part in parts]),
        projected=concat("projected"),
    )


def _concat_offsets(parts: Sequence[Tensor]) -> Tensor:
    """Bounds of flat buffers that are laid one after the other."""
    lengths = torch.cat([part.diff() for part in parts])
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def leaves(reps: Reps) -> Reps:
    """The same values cut off from what made them, each waiting for its gradient."""

    def leaf(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().requires_grad_()

    names = ("dense", "lexical", "multi", "projected")
    return replace(reps, **{name: leaf(getattr(reps, name)) for name in names})


def score(head: Head, queries: Reps, passages: Reps, width: int | None = None) -> Tensor:
    """The score of one head for all pairs, float32 ``[Q, N]``.

    Args:
        head: Which score.
        queries: Q texts.
        passages: N texts.
        width: Use only the first so many columns, normalised anew (Matryoshka, arXiv 2205.13147); dense and
            multi-vector only.
    """
    if head == "lexical":
        return torch_scores.lexical_scores(
            queries.ids,
            cast(Tensor, queries.lexical),
            queries.offsets,
            passages.ids,
            cast(Tensor, passages.lexical),
            passages.offsets,
        )
    sides = [cast(Tensor, getattr(side, head)) for side in (queries, passages)]
    if width is not None:
        sides = [normalize(side[:, :width], dim=-1) for side in sides]
    if head == "dense":
        return torch_scores.dense_scores(*sides)
    return torch_scores.maxsim_scores(sides[0], queries.multi_offsets, sides[1], passages.multi_offsets)


_MAX_WEIGHT = 1000.0
INTEGRATED = "integrated"
Name: TypeAlias = Literal["dense", "lexical", "multi", "integrated"]
Reranker: TypeAlias = Literal["ranked", "listwise"]
Triple: TypeAlias = tuple[float, float, float]
_TEMPERATURES = (1e-3, 100.0)


@dataclass(frozen=True, slots=True)
class Objective:
    """What is trained and how; the defaults are the paper's unified fine-tuning.

    Attributes:
        heads: Heads that are trained.
        temperature: τ by which all scores are divided; 0.001 to 100, as the other temperatures.
        score_weights: Weights (dense, lexical, multi) ≥ 0 of the integrated score; 0 leaves a head out of it.
        loss_weights: λ ≥ 0, weights of the heads' contrastive losses and distillations.
        integrated_weight: Weight ≥ 0 of the integrated score's contrastive loss.
        self_distillation: Whether each head also learns the ranking of the integrated score.
        distill_from: First step with self-distillation, counted from 0.
        teacher_temperature: T of the integrated score as a teacher. 1, as published, sharpens it, since the
            weighted sum is not renormalized; the sum of `score_weights` undoes that.
        in_batch: Whether the passages of other queries are negatives.
        bidirectional: Whether a passage must also find its query among the others (symmetric pairs).
        reranker: What re-ranker scores in the data do. `ranked` replaces the contrastive losses (see
            `triptych.train.losses.ranked`), `listwise` is added to them.
        reranker_temperature: T of the re-ranker's scores.
        false_negative_margin: Leaves negatives out that score above the positive less this margin, judged by
            the integrated score; None: keeps all.
        false_negative_relative: Whether the margin is a share of the positive's score.
        drop_duplicates: Leaves negatives out whose text is the positive's or is labelled as a positive of the same
            query, in whatever row of its data set.
        vector_weight: Weight ≥ 0 of the distance of the dense vectors from a teacher's, which the data must have (see
            `triptych.train.losses.vector_distance`), through a linear map that is trained along and thrown away.
        dense_widths: Narrower dense vectors that are trained too (Matryoshka).
        multi_widths: Narrower token vectors that are trained too.
    """

    heads: tuple[Head, ...] = HEADS
    temperature: float = 0.02
    score_weights: Triple = (1.0, 0.3, 1.0)
    loss_weights: Triple = (1.0, 0.1, 1.0)
    integrated_weight: float = 1.0
    self_distillation: bool = True
    distill_from: int = 0
    teacher_temperature: float = 1.0
    in_batch: bool = True
    bidirectional: bool = False
    reranker: Reranker | None = None
    reranker_temperature: float = 1.0
    false_negative_margin: float | None = None
    false_negative_relative: bool = False
    drop_duplicates: bool = True
    vector_weight: float = 0.0
    dense_widths: tuple[int, ...] = ()
    multi_widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", check_heads(self.heads, "objective.heads"))
        if wrong := [problem for problem, found in self._problems() if found]:
            raise InputError(f"objective: {'; '.join(wrong)}")

    def _problems(self) -> Iterator[tuple[str, bool]]:
        least, most = _TEMPERATURES
        for name in ("temperature", "teacher_temperature", "reranker_temperature"):
            value = getattr(self, name)
            yield f"{name} {value}; expected {least} to {most:g}", not least <= value <= most
        for name in ("score_weights", "loss_weights"):
            values = getattr(self, name)
            good = len(values) == 3 and all(0 <= value <= _MAX_WEIGHT for value in values)
            yield f"{name} {values}; expected three numbers from 0 to {_MAX_WEIGHT:g}", not good
            if not good:
                return
        inter, margin = self.integrated_weight, self.false_negative_margin
        yield f"integrated_weight {inter}; expected 0 to {_MAX_WEIGHT:g}", not 0 <= inter <= _MAX_WEIGHT
        yield f"distill_from {self.distill_from}; expected a step ≥ 0", self.distill_from < 0
        yield (
            f"false_negative_margin {margin}; expected −100 to 100",
            margin is not None and not -100 <= margin <= 100,
        )
        yield (
            "false_negative_relative without false_negative_margin",
            margin is None and self.false_negative_relative,
        )
        weight = self.vector_weight
        yield f"vector_weight {weight}; expected 0 to {_MAX_WEIGHT:g}", not 0 <= weight <= _MAX_WEIGHT
        yield "vector_weight without dense among the heads", weight > 0 and "dense" not in self.heads
        yield "bidirectional needs in_batch", self.bidirectional and not self.in_batch
        scored = [head for head in self.heads if self._weight(head, self.score_weights)]
        yield (
            f"score_weights {self.score_weights} give every one of the heads {', '.join(self.heads)} the weight 0; "
            "expected a weight above 0 for one of them",
            len(self.heads) > 1 and not scored,
        )
        for head in self.heads:
            learns = self._weight(head, self.loss_weights) or (
                len(self.heads) > 1 and inter and self._weight(head, self.score_weights)
            )
            yield f"heads: {head} has no loss of a weight above 0; leave it out of heads", not learns
        for head, widths in (("dense", self.dense_widths), ("multi", self.multi_widths)):
            yield f"{head}_widths {widths}; expected numbers ≥ 1", min(widths, default=1) < 1
            yield f"{head}_widths without {head} among the heads", bool(widths) and head not in self.heads

    @staticmethod
    def _weight(head: Head, weights: Triple) -> float:
        return weights[HEADS.index(head)]

    def widths(self, head: Head) -> tuple[int | None, ...]:
        """Widths at which a head is trained; None is the whole."""
        narrow = {"dense": self.dense_widths, "multi": self.multi_widths, "lexical": ()}[head]
        return (None, *narrow)


OBJECTIVES: Mapping[str, Objective] = {
    "dense": Objective(heads=("dense",), self_distillation=False),
    "unified": Objective(),
    "contrastive": Objective(self_distillation=False),
}
"""By name: the paper's second stage, its third, and its third without self-distillation (the ablation)."""


class Answers(NamedTuple):
    """Keys of labelled positives, and the queries that they belong to.

    Attributes:
        keys: int64 ``[A]``.
        queries: int64 ``[A]``, the query of each, numbered through all processes.
    """

    keys: Tensor
    queries: Tensor


@dataclass(frozen=True, slots=True)
class Candidates:
    """A batch as the losses see it: this process's queries against the passages of all.

    Attributes:
        queries: Q texts.
        passages: N texts; the G passages of a query stand together, its positive first.
        targets: int64 ``[Q]``, column of each query's positive.
        group: G.
        share: What one query counts in the mean; 1 / Q with one process.
        teacher: Re-ranker scores of each query's own passages, ``[Q, G]``; a row of NaN has none.
        keys: int64 ``[N]``, equal for equal passages; None: unknown.
        answers: Keys of the passages that are labelled as positives of the queries; None: unknown.
        everyone: The queries of all processes, in the order of the passages; needed for `bidirectional` alone.
    """

    queries: Reps
    passages: Reps
    targets: Tensor
    group: int
    share: float
    teacher: Tensor | None = None
    keys: Tensor | None = None
    answers: Answers | None = None
    everyone: Reps | None = None

    @classmethod
    def of(
        cls,
        queries: Reps,
        passages: Reps,
        group: int,
        *,
        teacher: Tensor | None = None,
        keys: Tensor | None = None,
        answers: Answers | None = None,
    ) -> Candidates:
        """The batch of a single process."""
        count = len(queries.offsets) - 1
        targets = torch.arange(count, device=queries.offsets.device) * group
        share = 1.0 / max(1, count)
        return cls(queries, passages, targets, group, share, teacher, keys, answers, queries)


def losses(objective: Objective, batch: Candidates, step: int = 0) -> dict[str, Tensor]:
    """All losses of a batch.

    **Math** with s_inter = Σ w_h·s_h, and H heads::

        L  = (Σ_h λ_h·L_h + w_i·L_inter) / (H + 1)         contrastive; with one head L = λ·L_h
        L' = Σ_h λ_h·L'_h / H                              distillation from stopgrad(s_inter)
        loss = (L + L') / 2                                from step `distill_from` on, before it L

    Args:
        objective: What to compute.
        batch: Queries and candidates.
        step: Of the training, from 0.

    Returns:
        ``loss`` with its graph; the others are for the log: ``head`` and ``head_distilled``, and ``negatives``, the
        mean number of negatives that count for a query. Each is this process's sum times `share`.
    """
    scores: dict[Head, list[Tensor]] = {
        head: [score(head, batch.queries, batch.passages, w) for w in objective.widths(head)]
        for head in objective.heads
    }
    whole: dict[Head, Tensor] = {head: found[0] for head, found in scores.items()}
    inter = _integrate(objective, whole)
    view = _View.of(objective, batch, inter)
    named: dict[str, Tensor] = {"negatives": view.negatives(len(inter[0]) if len(inter) else 0) * batch.share}
    for head, found in scores.items():
        rows = [_contrast(objective, view, view.seen(each)) for each in found]
        if objective.bidirectional:
            rows += [_backward(objective, batch, head, width) for width in objective.widths(head)]
        named[head] = torch.stack(rows).mean(0).sum() * batch.share
    weights = dict(zip(HEADS, objective.loss_weights, strict=True))
    total = torch.stack([weights[head] * named[head] for head in objective.heads]).sum()
    if len(objective.heads) > 1:
        named[INTEGRATED] = _contrast(objective, view, view.seen(inter)).sum() * batch.share
        total = (total + objective.integrated_weight * named[INTEGRATED]) / (len(objective.heads) + 1)
    if objective.self_distillation and len(objective.heads) > 1 and step >= objective.distill_from:
        distilled: dict[str, Tensor] = {}
        for head, found in scores.items():
            taus = objective.temperature, objective.teacher_temperature
            rows = [
                terms.distillation(view.seen(each), view.seen(inter), *taus, view.dropped) for each in found
            ]
            distilled[head] = torch.stack(rows).mean(0).sum() * batch.share
        mean = torch.stack([weights[head] * distilled[head] for head in objective.heads]).mean()
        total = (total + mean) / 2
        named |= {f"{head}_distilled": value for head, value in distilled.items()}
    if not len(batch.targets):
        heads = (batch.passages.dense, batch.passages.lexical, batch.passages.multi)
        total = total + zero_loss(head for head in heads if head is not None)
    return {"loss": total, **{name: value.detach() for name, value in named.items()}}


@dataclass(frozen=True, slots=True)
class _View:
    """Which columns of the score matrices count: all of the batch, or each query's own."""

    targets: Tensor
    own: Tensor | None
    group: int
    dropped: Tensor | None
    teacher: Tensor | None

    @classmethod
    def of(cls, objective: Objective, batch: Candidates, inter: Tensor) -> _View:
        dropped = None
        if objective.drop_duplicates and batch.keys is not None:
            dropped = _answers_mask(batch, batch.keys)
        if objective.false_negative_margin is not None:
            close = terms.false_negatives(
                inter,
                batch.targets,
                objective.false_negative_margin,
                relative=objective.false_negative_relative,
            )
            dropped = close if dropped is None else dropped | close
        if objective.in_batch:
            return cls(batch.targets, None, batch.group, dropped, batch.teacher)
        own = terms.own_columns(batch.targets, batch.group)
        dropped = None if dropped is None else dropped.gather(1, own)
        return cls(torch.zeros_like(batch.targets), own, batch.group, dropped, batch.teacher)

    def seen(self, scores: Tensor) -> Tensor:
        return scores if self.own is None else scores.gather(1, self.own)

    def negatives(self, candidates: int) -> Tensor:
        """The number of negatives of all queries together."""
        count = candidates if self.own is None else self.group
        whole = (self.targets.new_ones(()) * len(self.targets) * max(0, count - 1)).float()
        return whole if self.dropped is None else whole - self.dropped.sum()


def _answers_mask(batch: Candidates, keys: Tensor) -> Tensor:
    """Bool ``[Q, N]``: passages that answer this process's queries, other than the positives themselves."""
    own = batch.targets // batch.group
    first, count = int(own[0]) if len(own) else 0, len(own)
    if batch.answers is None:
        known = keys[batch.targets][:, None] == keys[None]
    else:
        answers, queries = batch.answers
        mine = (queries >= first) & (queries < first + count)
        known = terms.known_answers(keys, answers[mine], queries[mine] - first, count)
    return known.scatter(1, batch.targets[:, None], False)


def _contrast(objective: Objective, view: _View, scores: Tensor) -> Tensor:
    """One contrastive loss a query; re-ranker scores, where there are any, have their part in it."""
    tau = objective.temperature
    plain = terms.info_nce(scores, view.targets, tau, view.dropped)
    if objective.reranker is None or view.teacher is None:
        return plain
    absent = view.teacher.isnan().any(1)
    teacher = view.teacher.masked_fill(absent[:, None], 0)
    if objective.reranker == "listwise":
        own = terms.own_group(scores, view.targets, view.group)
        taught = plain + terms.listwise(own, teacher, tau, objective.reranker_temperature)
    else:
        heat = objective.reranker_temperature
        taught = terms.ranked(scores, teacher, view.targets, tau, heat, dropped=view.dropped)
    return torch.where(absent, plain, taught)


def _backward(objective: Objective, batch: Candidates, head: Head, width: int | None) -> Tensor:
    """The contrastive loss of each positive passage looking for its query among all queries."""
    if batch.everyone is None:
        raise InputError("losses: bidirectional needs the queries of all processes (everyone)")
    positives = take(batch.passages, batch.targets)
    scores = score(head, batch.everyone, positives, width).T
    places = batch.targets // batch.group
    dropped = None
    if objective.drop_duplicates and batch.keys is not None:
        count = scores.shape[1]
        own = batch.keys[batch.targets]
        if batch.answers is None:
            others = torch.arange(count, device=scores.device) * batch.group
            known = own[:, None] == batch.keys[others][None]
        else:
            known = terms.known_answers(own, *batch.answers, count).T
        dropped = known.scatter(1, places[:, None], False)
    return terms.info_nce(scores, places, objective.temperature, dropped)


def zero_loss(heads: Iterable[Tensor]) -> Tensor:
    """0 with a graph: keeps unused heads in the autograd graph, as the exchange of gradients (DDP) needs."""
    return torch.stack([head.flatten()[:1].sum() * 0 for head in heads]).sum()


def _integrate(objective: Objective, scores: Mapping[Head, Tensor]) -> Tensor:
    if len(scores) == 1:
        return next(iter(scores.values()))
    return combine(scores.get("dense"), scores.get("lexical"), scores.get("multi"), objective.score_weights)
