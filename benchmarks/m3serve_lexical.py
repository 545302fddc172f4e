"""What m3serve gives as lexical weights of a short text beside a longer one, and what ours are.

    pip install --no-deps --target build/peers m3serve==0.2.3 loguru
    PYTHONPATH=build/peers python benchmarks/m3serve_lexical.py

On a tiny random checkpoint in BGE-M3's published form: the number of entries does not depend on the weights' values.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from m3serve import Engine
from m3serve.model import BGEM3Encoder

from triptych import Encoder

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import checkpoints  # noqa: E402

TEXTS = ["hello", "what is the model of the text of the world and the passage of the query of the model"]


async def theirs(folder: Path) -> list[list[int]]:
    """The token ids of each text's entries."""
    engine = Engine(_encoder=BGEM3Encoder(str(folder), device="cpu", use_fp16=False, max_length=512))
    await engine.start()
    found = await engine.embed(TEXTS, return_sparse=True)
    await engine.stop()
    return found.sparse_indices


def main() -> None:
    """Writes benchmarks/results/m3serve_lexical.json."""
    with tempfile.TemporaryDirectory() as place:
        folder = checkpoints.make("xlm-roberta", Path(place))
        ours = Encoder.from_pretrained(folder, dtype="float32").encode(TEXTS).lexical
        found = asyncio.run(theirs(folder))
    result = {
        "day": datetime.now(UTC).date().isoformat(),
        "m3serve": version("m3serve"),
        "texts": TEXTS,
        "m3serve_ids": found,
        "triptych_ids": [ours[[n]].indices.tolist() for n in range(len(TEXTS))],
    }
    (ROOT / "benchmarks" / "results" / "m3serve_lexical.json").write_text(
        json.dumps(result, indent=1) + "\n", "utf-8"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
