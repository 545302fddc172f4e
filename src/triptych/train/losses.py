"""Losses on score matrices: what training minimises, without a model.

Scores are ``[Q, N]``: Q queries against N candidate passages. A query's own passages stand together, its positive
first: with groups of G passages the positive of query i is column ``i·G``. Every loss is float32 and has one
value per query, so that the caller decides what to average over (all queries of all processes, for example).
The formulae are those of arXiv 2402.03216v4, section 3.3; `tests/reference_losses.py` writes them out in loops.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, linear, log_softmax, pad, softmax

from triptych.errors import InputError

_MAX_LOGITS = 1 << 28  # elements of the largest block of logits over a vocabulary: 1 GB in float32


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

    Example:
        >>> info_nce(torch.tensor([[0.9, 0.9]]), torch.tensor([0]), temperature=0.02)  # log 2
        tensor([0.6931])
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

    Example:
        >>> equal = torch.tensor([[0.5, 0.5]])
        >>> distillation(equal, equal, temperature=1.0)  # the entropy of the teacher
        tensor([0.6931])
    """
    target = softmax(_logits(teacher.detach(), temperature * teacher_temperature, dropped), dim=1)
    return _soft_cross_entropy(target, _logits(student, temperature, dropped))


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

    Example:
        >>> scores = torch.zeros(1, 3)
        >>> listwise(scores, torch.tensor([[9.0, 1.0, 2.0]]), temperature=1.0, teacher_temperature=1.0)  # log 3
        tensor([1.0986])
    """
    target = softmax(teacher.detach().float() / teacher_temperature, dim=1)
    return _soft_cross_entropy(target, scores.float() / temperature)


def ranked(
    scores: Float[Tensor, "q n"],
    teacher: Float[Tensor, "q g"],
    targets: Int[Tensor, "q"],
    temperature: float,
    teacher_temperature: float = 1.0,
    *,
    dropped: Bool[Tensor, "q n"] | None = None,
) -> Float[Tensor, "q"]:
    """Distillation of a re-ranker's scores by InfoNCE with each own passage in turn as the positive.

    Passage g competes with all candidates but those own passages that rank before it, and counts as much as the
    re-ranker gives it. The positive ranks first, as in the published trainer (``m3_kd_loss``), and the negatives by
    their score; there they rank as they are listed, which is the same for negatives that are listed by score.

    **Math** ``L = −Σ_g softmax(t/T)_g · log( exp(s_g/τ) / Σ_{p not before g} exp(s_p/τ) )``.

    Args:
        scores: ``[Q, N]``.
        teacher: The re-ranker's scores of a query's own G passages, in columns ``targets … targets + G − 1``.
        targets: Column of each query's positive.
        temperature: τ of `scores`.
        teacher_temperature: T of `teacher`.
        dropped: Candidates that do not count; own passages always do.

    Example:
        >>> scores, sure = torch.zeros(1, 4), torch.tensor([[30.0, 0.0]])
        >>> ranked(scores, sure, torch.tensor([0]), temperature=1.0)  # InfoNCE, log 4
        tensor([1.3863])
    """
    group = teacher.shape[1]
    logits = _logits(scores, temperature, None)
    columns = own_columns(targets, group)
    own = logits.gather(1, columns)
    mask = torch.zeros_like(logits, dtype=torch.bool) if dropped is None else dropped
    others = logits.masked_fill(mask.scatter(1, columns, True), -torch.inf).logsumexp(1, keepdim=True)
    rank = teacher.detach().float().clone()
    rank[:, 0] = torch.inf
    before = rank[:, None, :] > rank[:, :, None]
    rivals = own[:, None, :].expand(-1, group, -1).masked_fill(before, -torch.inf).logsumexp(2)
    target = softmax(teacher.detach().float() / teacher_temperature, dim=1)
    return -(target * (own - torch.logaddexp(others, rivals))).sum(1)


def vector_distance(projected: Float[Tensor, "n t"], teacher: Float[Tensor, "n t"]) -> Float[Tensor, "n"]:
    """How far a text's vector, mapped into the teacher's space, points away from the teacher's.

    **Math** ``L = 1 − cos(W·e, t)``; the map W is trained along and thrown away, so that the teacher may have any width
    (as in arXiv 2412.19048, the distillation of Jasper and Stella).

    Args:
        projected: ``W·e`` of N texts, of any length.
        teacher: The teacher's vectors; a row of NaN has none.

    Returns:
        float32 ``[N]``, 0 to 2; 0 for a text without a teacher's vector.

    Example:
        >>> vector_distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([1.])
    """
    absent = teacher.isnan().any(1)
    known = teacher.masked_fill(absent[:, None], 1.0)
    return (1 - cosine_similarity(projected.float(), known.float())).masked_fill(absent, 0)


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

    Example:
        >>> false_negatives(torch.tensor([[0.8, 0.9, 0.3]]), torch.tensor([0]), margin=0.0)
        tensor([[False,  True, False]])
    """
    fixed = scores.detach().float()
    positive = fixed.gather(1, targets[:, None])
    limit = positive - margin * (positive.abs() if relative else 1.0)
    return (fixed > limit).scatter(1, targets[:, None], False)


def known_answers(
    keys: Int[Tensor, "n"], answers: Int[Tensor, "a"], queries: Int[Tensor, "a"], count: int
) -> Bool[Tensor, "count n"]:
    """Candidates whose text is labelled as an answer of the query: never its negatives, whichever row brought them.

    Args:
        keys: A number for each candidate's text.
        answers: The same numbers of all texts that are labelled as answers of some query.
        queries: The row of the query that each of `answers` belongs to, below `count`.
        count: Q.

    Example:
        >>> known_answers(torch.tensor([7, 8, 7]), torch.tensor([7, 8]), torch.tensor([0, 1]), 2)
        tensor([[ True, False,  True],
                [False,  True, False]])
    """
    unique, columns = keys.unique(return_inverse=True)
    places = torch.searchsorted(unique, answers.contiguous()).clamp(max=len(unique) - 1)
    present = unique[places] == answers
    member = torch.zeros(count, len(unique), dtype=torch.bool, device=keys.device)
    member[queries[present], places[present]] = True
    return member[:, columns]


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
    """The sum of the cross-entropies of predicting one of V tokens at M positions, without an ``[M, V]`` array.

    The logits exist for `block` positions at a time, and once: their gradient is made of them at the same time, since a
    sum's gradient is known but for a factor. With 250,000 tokens the logits of one text of 8192 would take 8 GB.
    Under autocast the products are in its type.

    **Math** ``L = −Σ_i log softmax(W h_i + b)[label_i]``.

    Args:
        states: One state per position.
        table: W, such as the input embeddings.
        bias: b.
        labels: The right tokens.
        block: Positions at a time; None: by V, so that the logits of a block have at most 2^28 elements.

    Example:
        >>> states, table, bias = torch.zeros(2, 4), torch.zeros(3, 4), torch.zeros(3)
        >>> vocabulary_cross_entropy(states, table, bias, torch.tensor([0, 2]))  # 2 · log 3
        tensor(2.1972)
    """
    size = block or max(1, _MAX_LOGITS // max(1, len(table)))
    dtype = torch.promote_types(states.dtype, torch.float32)
    if torch.is_autocast_enabled(states.device.type):
        dtype = torch.get_autocast_dtype(states.device.type)
    total: Tensor = _VocabularyLoss.apply(states, table, bias, labels, size, dtype)  # type: ignore[assignment]
    return total


class _VocabularyLoss(torch.autograd.Function):
    """The loss, and at once its gradients: `size` positions at a time, products in `dtype`."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, bias: Tensor, labels: Tensor, size: int, dtype: torch.dtype
    ) -> Tensor:
        # Autocast would turn the softmax, the largest of the arrays, into float32.
        with torch.autocast(states.device.type, enabled=False):
            total, grads = _loss_and_gradients(
                states, table, bias, labels, size, dtype, ctx.needs_input_grad[:3]
            )
        ctx.save_for_backward(*grads)
        ctx.dtypes = states.dtype, table.dtype, bias.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        scaled = (None if grad is None else (grad * grads[0]).to(dtype) for grad, dtype in saved)
        return (*scaled, None, None, None)


def _loss_and_gradients(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    labels: Tensor,
    size: int,
    dtype: torch.dtype,
    needs_grad: Sequence[bool],
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """The summed loss, and its gradient with respect to states, table and bias where it is needed."""
    weight, shift = _pad_vocabulary(table.to(dtype), bias.to(dtype))
    total = states.new_zeros((), dtype=torch.float32)
    grad_states = torch.empty_like(states, dtype=torch.float32) if needs_grad[0] else None
    grad_table = torch.zeros_like(table, dtype=torch.float32) if needs_grad[1] else None
    grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needs_grad[2] else None
    for first in range(0, len(states), size):
        chunk, target = states[first : first + size].to(dtype), labels[first : first + size, None]
        logits = linear(chunk, weight, shift)
        max_logit, argmax = logits.max(dim=1, keepdim=True)
        target_logit = logits.gather(1, target)
        probs = softmax(logits, dim=1)
        # Of all probabilities the largest is known best: exp(0) / Σ exp(l − max l), and at least 1 / V.
        log_normalizer = max_logit.float() - probs.gather(1, argmax).float().log()
        total += (log_normalizer - target_logit.float()).sum()
        del logits
        if any(needs_grad):
            probs.scatter_add_(1, target, torch.full_like(target_logit, -1))
        if grad_states is not None:
            grad_states[first : first + size] = probs @ weight
        if grad_table is not None:
            grad_table += (probs.T @ chunk)[: len(table)]
        if grad_bias is not None:
            grad_bias += probs.sum(0, dtype=torch.float32)[: len(table)]
    return total, (grad_states, grad_table, grad_bias)


def _pad_vocabulary(table: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Table and bias padded with rows of the lowest logit, up to a multiple of 64.

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


def _soft_cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    # Where the target is 0 the logarithm may be −∞, and 0 · −∞ is no number.
    return -(target * log_softmax(logits, dim=1).masked_fill(target == 0, 0)).sum(1)
