"""Every formula in its slow, obvious form: plain loops in float64, beside the paper's text.

arXiv 2402.03216v4, section 3.2. Nothing here is fast and nothing here shares code with the package.
"""

import math
from collections.abc import Sequence

import numpy as np


def dense_score(query: Sequence[float], document: Sequence[float]) -> float:
    """s_dense = <e_q, e_p>."""
    return sum(float(a) * float(b) for a, b in zip(query, document, strict=True))


def lexical_weights(ids: Sequence[int], weights: Sequence[float], ignored: set[int]) -> dict[int, float]:
    """The largest weight of each token id; ignored ids, and weights that are not positive, do not count."""
    best: dict[int, float] = {}
    for token, weight in zip(ids, weights, strict=True):
        if token not in ignored and weight > 0:
            best[token] = max(best.get(token, 0.0), float(weight))
    return best


def lexical_score(query: dict[int, float], document: dict[int, float]) -> float:
    """s_lex = Σ over the ids in both of w_q · w_p."""
    return sum(weight * document[token] for token, weight in query.items() if token in document)


def maxsim_score(query: Sequence[Sequence[float]], document: Sequence[Sequence[float]]) -> float:
    """s_mul = 1/N Σ_i max_j <E_q[i], E_p[j]>; 0 where either side has no vectors."""
    if len(query) == 0 or len(document) == 0:
        return 0.0
    return sum(max(dense_score(q, d) for d in document) for q in query) / len(query)


def normalised(vector: Sequence[float]) -> list[float]:
    """The vector divided by its length."""
    length = math.sqrt(sum(float(x) ** 2 for x in vector))
    return [float(x) / length for x in vector]


def linear(vector: Sequence[float], weight: np.ndarray, bias: np.ndarray) -> list[float]:
    """W h + b."""
    return [
        sum(float(w) * float(x) for w, x in zip(row, vector, strict=True)) + float(b)
        for row, b in zip(weight, bias, strict=True)
    ]


def few_bits(vector: Sequence[float], mean: Sequence[float], bits: int) -> list[float]:
    """What an index keeps of a vector: its difference from the mean, in codes of so many bits and one scale."""
    apart = [float(x) - float(m) for x, m in zip(vector, mean, strict=True)]
    squares, half = sum(x * x for x in apart), 2 ** (bits - 1)
    step = {1: 1.0, 2: 0.996, 4: 0.335}[bits] * math.sqrt(squares / len(apart)) or 1.0
    codes = [min(max(math.floor(x / step), -half), half - 1) + 0.5 for x in apart]
    product = sum(x * code for x, code in zip(apart, codes, strict=True))
    scale = float(np.float16(squares / product)) if product > 0 else 0.0
    return [float(m) + scale * code for m, code in zip(mean, codes, strict=True)]


def muvera(
    tokens: Sequence[Sequence[float]],
    signs: np.ndarray,
    projection: np.ndarray,
    *,
    document: bool,
) -> list[float]:
    """One vector for token vectors (arXiv 2405.19504, section 2).

    signs: [repetitions, bits, width], projection: [repetitions, columns, width].
    """
    found: list[float] = []
    for directions, rows in zip(signs, projection, strict=True):
        parts = [[dense_score(line, token) > 0 for line in directions] for token in tokens]
        for number in range(2 ** len(directions)):
            part = [bool(number >> i & 1) for i in range(len(directions))]
            inside = [token for token, own in zip(tokens, parts, strict=True) if own == part]
            if document and not inside:
                away = [sum(a != b for a, b in zip(own, part, strict=True)) for own in parts]
                inside = [tokens[away.index(min(away))]]
            count = len(inside) if document else 1
            found += [sum(dense_score(row, token) for token in inside) / count for row in rows]
    return found


def idf(documents: Sequence[set[int]], token: int) -> float:
    """ln(1 + (N − n + ½) / (n + ½)), n of N documents having the token."""
    having = sum(token in document for document in documents)
    return math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
