"""RetroMAE's collation at a given length: ours beside the published one.

The published collator is in FlagEmbedding's source distributions up to 1.2 (folder
``FlagEmbedding/baai_general_embedding/retromae_pretrain``) and needs transformers 4. Both are given as folders:

    python benchmarks/train_retromae.py --tokenizer FOLDER --published FOLDER --transformers FOLDER \
        --out benchmarks/results/train.jsonl

`ours` gives the patterns and which position uses which; `ours expanded` also makes the [L, L] matrix that the
published collator gives, as our decoder does on the device.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

SHARE = {"encoder": 0.3, "decoder": 0.5}


def ids_of(options: argparse.Namespace, special: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1000, 200000, options.length - special).tolist() for _ in range(options.texts)]


def ours(options: argparse.Namespace) -> dict[str, float]:
    import torch

    from triptych.model.tokenizer import TextTokenizer
    from triptych.train.retromae import Masking, hide, visibility
    from triptych.train.tasks import alphabet

    letters = alphabet(TextTokenizer.load(options.tokenizer))
    texts = [np.array([0, *text, 2]) for text in ids_of(options, 2)]
    found: dict[str, float] = {}
    for name in ("ours", "ours whole words", "ours expanded"):
        times: list[float] = []
        masking = Masking(**SHARE, whole_words=name == "ours whole words")
        for repeat in range(options.repeats + 1):
            begin = time.process_time()
            batch = hide(texts, letters, masking, np.random.default_rng(repeat))
            if name == "ours expanded":
                visibility(batch, torch.arange(len(texts) * options.length).view(len(texts), -1))
            times.append(time.process_time() - begin)
        found[name] = sorted(times[1:])[options.repeats // 2]
    return found


def published(options: argparse.Namespace) -> dict[str, float]:
    import importlib

    sys.path.insert(0, str(options.published.parent))
    # It imports three names of this package that its collator does not use.
    names: Any = ModuleType("datasets")
    names.Dataset = names.load_dataset = names.concatenate_datasets = None
    names.__spec__ = ModuleSpec("datasets", None)
    sys.modules["datasets"] = names
    from transformers import AutoTokenizer

    module: Any = importlib.import_module(f"{options.published.name}.data")
    tokenizer = AutoTokenizer.from_pretrained(str(options.tokenizer))
    collate = module.RetroMAECollator(
        tokenizer,
        encoder_mlm_probability=SHARE["encoder"],
        decoder_mlm_probability=SHARE["decoder"],
        max_seq_length=options.length,
    )
    # It takes strings and cuts them itself; its tokenisation is a thousandth of its time.
    pieces = [tokenizer.decode([*text, *text]) for text in ids_of(options, 2)]
    times: list[float] = []
    for _ in range(options.repeats):
        begin = time.process_time()
        collate(list(pieces))
        times.append(time.process_time() - begin)
    return {"published": sorted(times)[options.repeats // 2]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of XLM-R's tokenizer")
    parser.add_argument("--published", type=Path, help="folder of the published collator")
    parser.add_argument("--transformers", type=Path, help="folder with transformers 4 for it")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--texts", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("ours", "published"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps((ours if options.only == "ours" else published)(options)))
        return
    seconds: dict[str, float] = {}
    for system in ("ours", *(("published",) if options.published else ())):
        environment = dict(os.environ)
        if system == "published" and options.transformers:
            environment["PYTHONPATH"] = str(options.transformers)
        command = [sys.executable, __file__, *sys.argv[1:], "--only", system]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        seconds |= json.loads(done.stdout.splitlines()[-1])
    slow = seconds.get("published", 0.0)
    line = json.dumps(
        {
            "benchmark": "RetroMAE collation",
            "length": options.length,
            "texts": options.texts,
            "cpu_seconds": {name: round(value, 5) for name, value in seconds.items()},
            "times_faster": {name: round(slow / value, 1) for name, value in seconds.items() if slow},
        }
    )
    print(line)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a", encoding="utf-8") as log:
            log.write(line + "\n")


if __name__ == "__main__":
    main()
