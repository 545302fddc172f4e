"""What less precise products cost the bundled model in nDCG@10, head by head, and how near the vectors stay.

    python benchmarks/precision_cost.py qa-train.jsonl.zst [--passages 100] [--questions 200]

The passages and questions are those that `recipes/small/qa_split.py` sets aside for development. Every question is
asked in every precision, so that the differences are paired: their mean (of the sets' means), its 95 % interval by
resampling the questions of each set, and which questions changed. "fp8" is what `benchmarks/gpu_fp8.py` measures on a
GPU, here with the same rounding on a processor."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.encode.encoder import Encoder
from triptych.io import write_json
from triptych.model.inference import Engine
from triptych.model.kernels import Kernels, Weights, choose
from triptych.scores.on_numpy import combine, head_scores
from triptych.types import HEADS, HeadWeights

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "small"))
from development import Pool, gains, ndcg10, pool
from qa_split import read

DTYPES = ("float32", "bfloat16", "int8", "fp8")
RESAMPLES = 10_000


class Fp8Rounding:
    """Linear layers whose inputs are rounded to e4m3, a scale for each token and each output, products in bfloat16.

    An e4m3 number is a bfloat16 one, and the products are summed in float32: only where the result is rounded to
    bfloat16, before the scales or after them, differs from a GPU's.
    """

    name = "fp8 (rounding alone)"

    def __init__(self) -> None:
        self._inner: Kernels = choose(torch.device("cpu"), torch.bfloat16)[0]

    def pack(self, matrix: Tensor, bias: Tensor) -> Weights:
        codes, scales = self._rounded(matrix)
        packed = self._inner.pack(codes, torch.zeros_like(bias))
        return Weights(packed.matrix, bias, scales.squeeze(1))

    def unpack(self, weights: Weights) -> Tensor:
        raise NotImplementedError("the rounding cannot be undone")

    def linear(self, x: Tensor, weights: Weights) -> Tensor:
        codes, steps = self._rounded(x)
        products = self._inner.linear(codes, Weights(weights.matrix, torch.zeros_like(weights.bias)))
        return (products.float() * steps * weights.scales + weights.bias.float()).bfloat16()

    def linear_gelu(self, x: Tensor, weights: Weights) -> Tensor:
        return torch.nn.functional.gelu(self.linear(x, weights))

    def linear_add(self, x: Tensor, weights: Weights, residual: Tensor) -> Tensor:
        return self.linear(x, weights) + residual

    @staticmethod
    def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
        steps = x.abs().amax(-1, keepdim=True).float().clamp_min(1e-12) / 448
        return (x.float() / steps).to(torch.float8_e4m3fn).bfloat16(), steps


def encoder_in(model: str, dtype: str) -> Encoder:
    if dtype != "fp8":
        return Encoder.from_pretrained(model, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    encoder = Encoder.from_pretrained(model, device="cpu", dtype="bfloat16")
    inner = encoder.release_model()
    inner.engine = Engine(inner.backbone, Fp8Rounding())
    return encoder


def difference(before: NDArray[Any], after: NDArray[Any], questions: Pool) -> dict[str, Any]:
    """Of the mean of the sets' means; both are gains ``[Q]`` of the same questions."""
    change, names = after - before, np.array(questions.sets)
    rng = np.random.default_rng(0)
    groups = [change[names == name] for name in np.unique(names)]
    drawn = np.mean(
        [group[rng.integers(0, len(group), (RESAMPLES, len(group)))].mean(1) for group in groups], axis=0
    )
    rows = np.flatnonzero(change)
    alone = change[rng.integers(0, len(change), (RESAMPLES, len(change)))].mean(1)
    return {
        "mean": float(np.mean([group.mean() for group in groups])),
        "interval_95": [float(x) for x in np.quantile(drawn, [0.025, 0.975])],
        "mean_of_questions": float(change.mean()),
        "interval_95_of_questions": [float(x) for x in np.quantile(alone, [0.025, 0.975])],
        "better": int((change > 0).sum()),
        "worse": int((change < 0).sum()),
        "of": len(change),
        "changed": [[int(row), round(float(before[row]), 4), round(float(after[row]), 4)] for row in rows],
    }


def main() -> None:
    here = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("qa", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--passages", type=int, default=100, help="most passages of a set and language")
    parser.add_argument("--questions", type=int, default=200, help="most questions of a set and language")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES, help="float32 comes first")
    parser.add_argument("--out", type=Path, default=here / "benchmarks/results/precision.json")
    arguments = parser.parse_args()
    development = pool(list(read([arguments.qa])), arguments.passages, arguments.questions)
    result: dict[str, Any] = {
        "model": arguments.model,
        "passages": len(development.passages),
        "questions": len(development.questions),
        "sets": {name: development.sets.count(name) for name in sorted(set(development.sets))},
        "dtypes": {},
    }
    exact, before = None, dict[str, NDArray[Any]]()
    for dtype in arguments.dtypes:
        encoder = encoder_in(arguments.model, dtype)
        begin = time.process_time()
        queries = encoder.encode_query(development.questions)
        passages = encoder.encode_document(development.passages)
        seconds = time.process_time() - begin
        scores: dict[str, Any] = {head: head_scores(queries, passages, head) for head in HEADS}
        scores["all"] = combine({head: scores[head] for head in HEADS}, HeadWeights())
        exact = exact or passages
        cosine = (exact.dense * passages.dense).sum(1)
        each = {name: gains(part, development) for name, part in scores.items()}
        before = before or each
        result["dtypes"][dtype] = {
            "kernels": encoder._model.engine.kernels.name,
            "nDCG@10": {name: ndcg10(part, development)["mean"] for name, part in scores.items()},
            "against float32": {
                name: difference(before[name], part, development) for name, part in each.items()
            },
            "dense cosine to float32": {"least": float(cosine.min()), "mean": float(cosine.mean())},
            "processor_s": seconds,
        }
        print(dtype, result["dtypes"][dtype]["nDCG@10"], flush=True)
        for name, change in result["dtypes"][dtype]["against float32"].items():
            print("  ", name, {k: v for k, v in change.items() if k != "changed"}, flush=True)
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
