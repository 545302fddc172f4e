"""The losses in their slow, obvious form: plain loops in float64, beside the paper's text.

arXiv 2402.03216v4, section 3.3. Nothing here shares code with the package.
"""

import math
from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def softmax(values: Sequence[float]) -> list[float]:
    """exp(x_i) / Σ exp(x_j), shifted by the largest so that nothing overflows."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def info_nce(
    scores: Matrix, targets: Sequence[int], tau: float, dropped: Sequence[Sequence[bool]] | None = None
):
    """-log( exp(s*/τ) / Σ exp(s/τ) ), one value a query."""
    found = []
    for i, row in enumerate(scores):
        kept = [j for j in range(len(row)) if dropped is None or not dropped[i][j]]
        share = softmax([row[j] / tau for j in kept])[kept.index(targets[i])]
        found.append(-math.log(share))
    return found


def distillation(student: Matrix, teacher: Matrix, tau: float, heat: float = 1.0):
    """-Σ_p softmax(s_teacher/(τT)) · log softmax(s_student/τ), one value a query."""
    found = []
    for left, right in zip(student, teacher, strict=True):
        wanted = softmax([value / (tau * heat) for value in right])
        given = softmax([value / tau for value in left])
        found.append(-sum(w * math.log(g) for w, g in zip(wanted, given, strict=True) if w > 0))
    return found


def ranked(scores: Matrix, teacher: Matrix, targets: Sequence[int], tau: float):
    """Each own passage in turn is the positive; own passages before it are taken out of the candidates.

    The positive stands before all negatives, and these stand by the teacher's score.
    """
    found = []
    for i, row in enumerate(scores):
        wanted = softmax(teacher[i])
        total = 0.0
        for g in range(len(teacher[i])):
            out = [
                targets[i] + other
                for other in range(len(teacher[i]))
                if other != g and g > 0 and (other == 0 or teacher[i][other] > teacher[i][g])
            ]
            kept = [j for j in range(len(row)) if j not in out]
            share = softmax([row[j] / tau for j in kept])[kept.index(targets[i] + g)]
            total -= wanted[g] * math.log(share)
        found.append(total)
    return found


def unified(scores: dict[str, Matrix], targets: Sequence[int], tau: float, *, distils: bool = True) -> float:
    """L_final of the paper: (L + L') / 2 with λ = (1, 0.1, 1) and w = (1, 0.3, 1)."""
    inter = [
        [1.0 * d + 0.3 * s + 1.0 * m for d, s, m in zip(*rows, strict=True)]
        for rows in zip(scores["dense"], scores["lexical"], scores["multi"], strict=True)
    ]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    contrast = {name: mean(info_nce(each, targets, tau)) for name, each in {**scores, "inter": inter}.items()}
    first = (contrast["dense"] + 0.1 * contrast["lexical"] + contrast["multi"] + contrast["inter"]) / 4
    if not distils:
        return first
    learnt = {name: mean(distillation(each, inter, tau)) for name, each in scores.items()}
    second = (learnt["dense"] + 0.1 * learnt["lexical"] + learnt["multi"]) / 3
    return (first + second) / 2
