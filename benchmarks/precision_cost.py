"""What bfloat16 and 8-bit products cost the bundled model in nDCG@10, head by head, and how near the vectors stay.

    python benchmarks/precision_cost.py qa-train.jsonl.zst [--passages 60] [--questions 25]

The passages and questions are those that `scripts/qa_split.py` sets aside for development.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from triptych.encode.encoder import Encoder
from triptych.files import write_json
from triptych.ops.scores import combine, head_scores
from triptych.types import HEADS, HeadWeights

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from development import ndcg10, pool
from qa_split import read


def main() -> None:
    here = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("qa", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--passages", type=int, default=60, help="most passages of a set and language")
    parser.add_argument("--questions", type=int, default=25, help="most questions of a set and language")
    parser.add_argument("--out", type=Path, default=here / "benchmarks/results/precision.json")
    arguments = parser.parse_args()
    development = pool(list(read([arguments.qa])), arguments.passages, arguments.questions)
    result: dict[str, Any] = {
        "model": arguments.model,
        "passages": len(development.passages),
        "questions": len(development.questions),
        "dtypes": {},
    }
    exact = None
    for dtype in ("float32", "bfloat16", "int8"):
        encoder = Encoder.from_pretrained(arguments.model, dtype=dtype)
        begin = time.process_time()
        queries = encoder.encode_query(development.questions)
        passages = encoder.encode_document(development.passages)
        seconds = time.process_time() - begin
        scores = {head: head_scores(queries, passages, head) for head in HEADS}
        exact = exact or passages
        cosine = (exact.dense * passages.dense).sum(1)
        figures = {head: ndcg10(each, development)["mean"] for head, each in scores.items()}
        result["dtypes"][dtype] = {
            "kernels": encoder.describe()["kernels"],
            "nDCG@10": {**figures, "all": ndcg10(combine(scores, HeadWeights()), development)["mean"]},
            "dense cosine to float32": {"least": float(cosine.min()), "mean": float(cosine.mean())},
            "processor_s": seconds,
        }
        print(dtype, result["dtypes"][dtype], flush=True)
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
