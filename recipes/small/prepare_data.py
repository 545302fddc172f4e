"""Tokenizes the sources of a recipe, each in a process of its own, so that training finds them in its cache.

python recipes/small/prepare_data.py RECIPE --set data.cache=runs/cache --processes 16
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from triptych.train.settings import Recipe, read
from triptych.train.start import prepare
from triptych.train.tasks import Pairs


def main() -> None:
    """Prepares all sources, the largest files first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as for triptych train"
    )
    parser.add_argument("--processes", type=int, default=8)
    arguments = parser.parse_args()
    recipe = read(arguments.recipe, arguments.set)
    order = sorted(range(len(recipe.data.train)), key=lambda n: -_size(Path(recipe.data.train[n].path)))
    threads = max(2, 2 * (os.cpu_count() or 1) // arguments.processes)
    os.environ |= {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        for line in pool.map(_prepare, [recipe] * len(order), order):
            print(line, flush=True)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files)


def _prepare(recipe: Recipe, number: int) -> str:
    begin = time.monotonic()
    source = recipe.data.train[number]
    alone = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": (source,)})})
    start = prepare(alone)
    pairs = Pairs(alone, start.model, start.tokenizer)
    return f"{source.path}: {len(pairs.data.datasets)} rows in {time.monotonic() - begin:.0f} s"


if __name__ == "__main__":
    main()
