"""Three heads from texts to arrays against the pass alone, on one GPU: what lies between them.

    python benchmarks/gpu_heads.py [--rounds 5] [--out FILE]
    python benchmarks/gpu_heads.py --device cpu --shape tiny --scale 0.01      # a dry run anywhere

All ways take turns on the mix: the pass on batches that lie on the GPU; `encode` with three heads as it is, as it was
before (`before`: token vectors come to their places through a copy in float32), with more batches on their way, and of
token ids that are known; a stream of four blocks; dense vectors alone. `busy` is the time of the thread that puts the
vectors into their places. JSON lines are appended to `--out`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from gpu_encode import Bench, limits
from triptych import Encoder
from triptych.model import assembly
from triptych.model.packed import Packed, batches, lexical_rows
from workloads import SHAPES, Texts, make_checkpoint, mixed_lengths

RESULTS = Path(__file__).parent / "results" / "gpu_heads.jsonl"


def settle_before(self: Any, arriving: Any) -> None:
    """`Assembly._settle` as it was, for the comparison."""
    self._make_room()
    if arriving.event is not None:
        arriving.event.synchronize()
    texts, values = arriving.texts, arriving.values
    if self._dense is not None:
        self._dense[torch.from_numpy(texts)] = values["dense"].float()
    if "lexical" in self.heads:
        ids, weights, offsets = (values[name].numpy() for name in ("ids", "lexical", "offsets"))
        self._lexical.append((texts, lexical_rows(ids, weights, offsets, self.widths["lexical"])))
    if self._multi is not None:
        counts = self._bounds[texts + 1] - self._bounds[texts]
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = torch.from_numpy(np.repeat(self._bounds[texts], counts) + within)
        for part, vectors in zip(rows.split(2048), values["multi"].split(2048), strict=True):
            self._multi.index_copy_(0, part, vectors.float())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="m3", choices=list(SHAPES))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="a tokenizer of numbered words")
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()) / "triptych-bench")
    parser.add_argument("--tree", default="", help="a name for the version that is measured")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    limit = limits(bench)
    name = options.shape + ("-plain" if options.plain else "")
    folder = make_checkpoint(
        bench.shape, options.checkpoints / name, device=options.device, plain=options.plain
    )
    lengths = mixed_lengths(max(2, round(4096 * options.scale)), min(2048, bench.shape.max_tokens))
    work = Texts(folder).workload("mix", lengths)
    encoder = Encoder.from_pretrained(folder, device=options.device, dtype="bfloat16")
    ids = encoder.tokenize(work.texts).ids
    order = np.argsort([-len(text) for text in ids], kind="stable")
    sizes = np.array([len(ids[i]) for i in order])
    cuts = list(batches(sizes, encoder.token_budget, padded=False))
    packed = [Packed.of([ids[i] for i in order[cut]], bench.device) for cut in cuts]
    block = -(-len(work.texts) // 4)
    busy = 0.0

    def the_pass() -> None:
        with torch.inference_mode():
            for batch in packed:
                encoder._model(batch, encoder.heads)

    def stream() -> None:
        for _ in encoder.encode_stream(work.texts, block=block, prefix=""):
            pass

    before, more = {"_settle": settle_before}, {"_AHEAD": 8}
    ways: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "the pass alone": (the_pass, {}),
        "encode, before": (lambda: encoder.encode(work.texts), before),
        "encode": (lambda: encoder.encode(work.texts), {}),
        "encode, 8 batches on their way": (lambda: encoder.encode(work.texts), more),
        "token ids, before": (lambda: encoder.encode_ids(ids), before),
        "token ids": (lambda: encoder.encode_ids(ids), {}),
        "stream, before": (stream, before),
        "stream": (stream, {}),
        "encode, dense alone": (lambda: encoder.encode(work.texts, outputs="dense"), {}),
    }

    def measure(run: Callable[[], Any], changes: dict[str, Any]) -> tuple[float, float]:
        nonlocal busy
        busy = 0.0
        settle = changes.get("_settle", assembly.Assembly._settle)

        def clocked(self: Any, arriving: Any) -> None:
            nonlocal busy
            self._make_room()
            if arriving.event is not None:
                arriving.event.synchronize()
            begin = time.perf_counter()
            settle(self, arriving)
            busy += time.perf_counter() - begin

        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(assembly.Assembly, "_settle", clocked))
            if "_AHEAD" in changes:
                stack.enter_context(mock.patch.object(assembly, "_AHEAD", changes["_AHEAD"]))
            return bench.seconds(run, 1, 0), busy

    # The same vectors, whichever way they come to their places.
    first = encoder.encode(work.texts[:64])
    with mock.patch.object(assembly.Assembly, "_settle", settle_before):
        second = encoder.encode(work.texts[:64])
    if not np.array_equal(first.multi.values, second.multi.values):
        raise SystemExit("token vectors differ between the ways")
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(options.rounds + 1):  # the first is a warm-up
        for name, way in ways.items():
            found.setdefault(name, []).append(measure(*way))
    alone = statistics.median(seconds for seconds, _ in found["the pass alone"][1:])
    for name, rounds in found.items():
        seconds = statistics.median(seconds for seconds, _ in rounds[1:])
        flops = bench.shape.flops(work.lengths, "dense" not in name)
        bench.add(
            part="heads",
            way=name,
            texts=len(work.texts),
            tokens=work.tokens,
            wall_s=seconds,
            wall_all_s=[seconds for seconds, _ in rounds[1:]],
            busy_s=statistics.median(spent for _, spent in rounds[1:]),
            tokens_per_s=work.tokens / seconds,
            of_pass=alone / seconds,
            of_limit=flops / seconds / limit,
        )


if __name__ == "__main__":
    main()
