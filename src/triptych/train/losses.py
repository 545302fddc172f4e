"""Losses on score matrices: what training minimises, without a model.

Scores are ``[Q, N]``: Q queries against N candidate passages. A query's own passages stand together, its positive
first: with groups of G passages the positive of query i is column ``i·G``. Every loss is float32 and has one
value a query, so that the caller decides what to average over (all queries of all processes, for example).
The formulae are those of arXiv 2402.03216v4, section 3.3; `tests/reference_losses.py` writes them out in loops.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, log_softmax, pad, softmax

from triptych.errors import InputError

# Elements of the largest block of logits over a vocabulary: 1 GB in float32.
_LOGITS = 1 << 28


def info_nce(
    scores: Float[Tensor, "q n"],
    targets: Int[Tensor, "q"],
    temperature: float,
    dropped: Bool[Tensor, "q n"] | None = None,
) -> Float[Tensor, "q"]:
    """The contrastive loss: how far the positive is from standing out among the candidates.

    **Math** ``L = −log( exp(s(q, p*)/τ) / Σ_p exp(s(q, p)/τ) )`` (section 3.3, equation 1).

    Args:
        scores: ``[Q, N]``.
        targets: Column of each query's positive.
        temperature: τ > 0.
        dropped: Candidates that do not count (see `false_negatives`); never a positive.

    Returns:
        float32 ``[Q]``, ≥ 0.
    """
    return cross_entropy(_logits(scores, temperature, dropped), targets, reduction="none")


def distillation(
    student: Float[Tensor, "q n"],
    teacher: Float[Tensor, "q n"],
    temperature: float,
    teacher_temperature: float = 1.0,
    dropped: Bool[Tensor, "q n"] | None = None,
) -> Float[Tensor, "q"]:
    """Cross-entropy of the student's ranking with the teacher's; the teacher gets no gradient.

    **Math** ``L' = −Σ_p softmax(s_teacher/(τ·T))_p · log softmax(s_student/τ)_p`` (section 3.3, self-knowledge
    distillation, with the integrated score as the teacher and T = 1). It is the KL divergence plus the entropy of
    the teacher, which has no gradient.

    Args:
        student: Scores of one head.
        teacher: Scores of the same pairs.
        temperature: τ > 0.
        teacher_temperature: T > 0. The published integrated score is a sum that is not renormalised, so that at
            T = 1 the teacher is about 2.3 times sharper than one head.
        dropped: Candidates that do not count.

    Returns:
        float32 ``[Q]``.
    """
    wanted = softmax(_logits(teacher.detach(), temperature * teacher_temperature, dropped), dim=1)
    return _cross_entropy(wanted, _logits(student, temperature, dropped))


def listwise(
    scores: Float[Tensor, "q g"],
    teacher: Float[Tensor, "q g"],
    temperature: float,
    teacher_temperature: float,
) -> Float[Tensor, "q"]:
    """Distillation of a re-ranker's scores over a query's own passages, whatever their order.

    **Math** ``L = −Σ_g softmax(t/T)_g · log softmax(s/τ)_g``: the published trainer's ``kl_div``.

    Args:
        scores: Scores of a query's own G passages (see `own_group`).
        teacher: The re-ranker's scores of the same passages.
        temperature: τ of `scores`.
        teacher_temperature: T of `teacher`.
    """
    wanted = softmax(teacher.detach().float() / teacher_temperature, dim=1)
    return _cross_entropy(wanted, scores.float() / temperature)


def ranked(
    scores: Float[Tensor, "q n"],
    teacher: Float[Tensor, "q g"],
    targets: Int[Tensor, "q"],
    temperature: float,
    teacher_temperature: float = 1.0,
    *,
    order: Literal["teacher", "given"] = "teacher",
    dropped: Bool[Tensor, "q n"] | None = None,
) -> Float[Tensor, "q"]:
    """Distillation of a re-ranker's scores by InfoNCE with each own passage in turn as the positive.

    Passage g competes with all candidates but those own passages that stand before it, and counts as much as the
    re-ranker gives it.

    **Math** ``L = −Σ_g softmax(t/T)_g · log( exp(s_g/τ) / Σ_{p not before g} exp(s_p/τ) )``. "Before" means a
    higher score of the re-ranker, which does not depend on the order of the negatives; the published trainer
    (``m3_kd_loss``) means an earlier place in the list: ``order="given"``.

    Args:
        scores: ``[Q, N]``.
        teacher: The re-ranker's scores of a query's own G passages, in columns ``targets … targets + G − 1``.
        targets: Column of each query's first passage.
        temperature: τ of `scores`.
        teacher_temperature: T of `teacher`.
        order: What stands before what.
        dropped: Candidates that do not count; own passages always do.
    """
    q, group = teacher.shape
    logits = _logits(scores, temperature, None)
    columns = own_columns(targets, group)
    own = logits.gather(1, columns)
    hidden = torch.zeros_like(logits, dtype=torch.bool) if dropped is None else dropped
    others = logits.masked_fill(hidden.scatter(1, columns, True), -torch.inf).logsumexp(1, keepdim=True)
    if order == "teacher":
        before = teacher[:, None, :] > teacher[:, :, None]
    elif order == "given":
        before = torch.ones(group, group, dtype=torch.bool, device=scores.device).tril(-1).expand(q, -1, -1)
    else:
        raise InputError(f"ranked: order: got {order!r}; expected 'teacher' or 'given'")
    rivals = own[:, None, :].expand(-1, group, -1).masked_fill(before, -torch.inf).logsumexp(2)
    wanted = softmax(teacher.detach().float() / teacher_temperature, dim=1)
    return -(wanted * (own - torch.logaddexp(others, rivals))).sum(1)


def false_negatives(
    scores: Float[Tensor, "q n"], targets: Int[Tensor, "q"], margin: float, *, relative: bool = False
) -> Bool[Tensor, "q n"]:
    """Candidates that score so close to the positive, or above it, that they are likely right answers too.

    **Math** dropped where ``s(q, p) > s(q, p*) − m``, or with `relative` where ``s(q, p) > s(q, p*) − m·|s(q, p*)|``
    (the positive-aware thresholds of arXiv 2407.15831, used in the batch).

    Args:
        scores: ``[Q, N]``; no gradient flows.
        targets: Column of each query's positive, which is never dropped.
        margin: m. 0: whatever is above the positive; negative: only what is so far above it.
        relative: Whether m is a share of the positive's score.
    """
    known = scores.detach().float()
    positive = known.gather(1, targets[:, None])
    limit = positive - margin * (positive.abs() if relative else 1.0)
    return (known > limit).scatter(1, targets[:, None], False)


def duplicates(keys: Int[Tensor, "n"], targets: Int[Tensor, "q"]) -> Bool[Tensor, "q n"]:
    """Candidates whose text is the positive's: two questions on one passage are not each other's negatives.

    Args:
        keys: A number for each candidate's text.
        targets: Column of each query's positive, which is not dropped.
    """
    return (keys[targets][:, None] == keys[None]).scatter(1, targets[:, None], False)


def own_columns(targets: Int[Tensor, "q"], group: int) -> Int[Tensor, "q g"]:
    """Columns of each query's own passages."""
    return targets[:, None] + torch.arange(group, device=targets.device)


def own_group(scores: Float[Tensor, "q n"], targets: Int[Tensor, "q"], group: int) -> Float[Tensor, "q g"]:
    """Scores of each query's own passages: what is left without in-batch negatives."""
    return scores.gather(1, own_columns(targets, group))


def vocabulary_cross_entropy(
    states: Float[Tensor, "m h"],
    table: Float[Tensor, "v h"],
    bias: Float[Tensor, "v"],
    labels: Int[Tensor, "m"],
    block: int | None = None,
) -> Float[Tensor, ""]:
    """The sum of the cross-entropies of predicting one of V tokens at M places, without an ``[M, V]`` array.

    The logits exist for `block` places at a time, and once: their gradient is made of them at the same time, since a
    sum's gradient is known but for a factor. With 250,000 tokens the logits of one text of 8192 would take 8 GB.
    Under autocast the products are in its type.

    **Math** ``L = −Σ_i log softmax(W h_i + b)[label_i]``.

    Args:
        states: One state a place.
        table: W, such as the input embeddings.
        bias: b.
        labels: The right tokens.
        block: Places at a time; None: by V, so that the logits of a block have at most 2^28 elements.
    """
    size = block or max(1, _LOGITS // max(1, len(table)))
    kind = torch.promote_types(states.dtype, torch.float32)
    if torch.is_autocast_enabled(states.device.type):
        kind = torch.get_autocast_dtype(states.device.type)
    total: Tensor = _VocabularyLoss.apply(states, table, bias, labels, size, kind)  # type: ignore[assignment]
    return total


class _VocabularyLoss(torch.autograd.Function):
    """See `vocabulary_cross_entropy`; `size` places at a time, products in the type `kind`."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        bias: Tensor,
        labels: Tensor,
        size: int,
        kind: torch.dtype,
    ) -> Tensor:
        # Autocast would turn the softmax, the largest of the arrays, into float32.
        with torch.autocast(states.device.type, enabled=False):
            total, parts = _loss_and_gradients(
                states, table, bias, labels, size, kind, ctx.needs_input_grad[:3]
            )
        ctx.save_for_backward(*parts)
        ctx.kinds = states.dtype, table.dtype, bias.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        found = zip(ctx.saved_tensors, ctx.kinds, strict=True)
        parts = (None if part is None else (part * grads[0]).to(kind) for part, kind in found)
        return (*parts, None, None, None)


def _loss_and_gradients(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    labels: Tensor,
    size: int,
    kind: torch.dtype,
    wanted: Sequence[bool],
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """The summed loss, and its gradient with respect to states, table and bias where it is wanted."""
    words, shift = _aligned(table.to(kind), bias.to(kind))
    total = states.new_zeros((), dtype=torch.float32)
    of_states = torch.empty_like(states, dtype=torch.float32) if wanted[0] else None
    of_table = torch.zeros_like(table, dtype=torch.float32) if wanted[1] else None
    of_bias = torch.zeros_like(bias, dtype=torch.float32) if wanted[2] else None
    for first in range(0, len(states), size):
        part, right = states[first : first + size].to(kind), labels[first : first + size, None]
        logits = linear(part, words, shift)
        most, where = logits.max(dim=1, keepdim=True)
        given = logits.gather(1, right)
        chances = softmax(logits, dim=1)
        # The likeliest token's chance is exp(0) / Σ exp(l − most), and at least 1 / V.
        spread = -chances.gather(1, where).float().log()
        total += (most.float() + spread - given.float()).sum()
        del logits
        if any(wanted):
            chances.scatter_add_(1, right, torch.full_like(given, -1))
        if of_states is not None:
            of_states[first : first + size] = chances @ words
        if of_table is not None:
            of_table += (chances.T @ part)[: len(table)]
        if of_bias is not None:
            of_bias += chances.sum(0, dtype=torch.float32)[: len(table)]
    return total, (of_states, of_table, of_bias)


def _aligned(table: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Table and bias with words that are never likely, up to a multiple of 64.

    A GPU's fast matrix products need rows that begin at even addresses: with XLM-R's 250,037 words the profiler showed
    the kernels of an older generation, and two thirds of a RetroMAE step in them.
    """
    more = -len(table) % 64
    lowest = torch.finfo(bias.dtype).min
    return pad(table, (0, 0, 0, more)), pad(bias, (0, more), value=lowest)


def _logits(scores: Tensor, temperature: float, dropped: Tensor | None) -> Tensor:
    if not temperature > 0:
        raise InputError(f"temperature: got {temperature}; expected a number > 0")
    logits = scores.float() / temperature
    return logits if dropped is None else logits.masked_fill(dropped, -torch.inf)


def _cross_entropy(wanted: Tensor, logits: Tensor) -> Tensor:
    # Where nothing is wanted the logarithm may be −∞, and 0 · −∞ is no number.
    return -(wanted * log_softmax(logits, dim=1).masked_fill(wanted == 0, 0)).sum(1)
