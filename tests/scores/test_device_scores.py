"""Scores on a device equal those in NumPy, in float32 up to rounding, in bfloat16 nearly."""

import numpy as np
import pytest
import torch
from scipy import sparse

from triptych.errors import InputError
from triptych.scores import on_torch as device_scores
from triptych.scores.on_numpy import head_scores
from triptych.scores.on_torch import DeviceQueries, device_scoring
from triptych.types import HEADS, Encoded, Ragged


def texts(rng: np.random.Generator, n: int, width: int = 16) -> Encoded:
    """Random representations; some texts have no token vectors."""
    rows = [rng.standard_normal((int(rng.integers(0, 9)), width)).astype(np.float32) for _ in range(n)]
    unit = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]
    dense = rng.standard_normal((n, 8)).astype(np.float32)
    lexical = sparse.random_array((n, 50), density=0.1, format="csr", dtype=np.float32, rng=rng)
    return Encoded(dense, sparse.csr_array(lexical), Ragged.of(unit, width))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [1, 200, 10**9])
@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)]
)
def test_all_scores_equal_those_in_numpy(
    seed: int, block: int, dtype: torch.dtype, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_scores, "_DEVICE_BLOCK", block)
    rng = np.random.default_rng(seed)
    queries, documents = texts(rng, 7), texts(rng, 23)
    found = device_scoring(torch.device("cpu"), dtype)(queries)(documents, HEADS)
    for head in HEADS:
        np.testing.assert_allclose(found[head], head_scores(queries, documents, head), atol=error)


def test_texts_without_token_vectors_score_zero_on_either_side() -> None:
    empty = Ragged(np.zeros((0, 4), np.float32), np.zeros(4, np.int64))
    full = Ragged(np.ones((3, 4), np.float32), np.array([0, 1, 1, 3]))
    for left, right in ((empty, full), (full, empty), (empty, empty)):
        scores = DeviceQueries(left, torch.device("cpu"), torch.float32).scores(right)
        assert scores.tolist() == [[0] * 3] * 3


def test_other_widths_and_missing_heads_are_refused() -> None:
    narrow, wide = (Ragged(np.ones((2, width), np.float32), np.array([0, 2])) for width in (3, 4))
    with pytest.raises(InputError, match="width 4; expected 3"):
        DeviceQueries(narrow, torch.device("cpu"), torch.float32).scores(wide)
    score = device_scoring(torch.device("cpu"), torch.float32)(Encoded(multi=narrow))
    with pytest.raises(InputError, match="no 'dense'"):
        score(Encoded(multi=narrow), ["dense"])
