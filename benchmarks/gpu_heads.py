"""Three heads from texts to arrays against the pass alone, on one GPU: what lies between them.

    python benchmarks/gpu_heads.py [--rounds 5] [--out FILE]
    python benchmarks/gpu_heads.py --device cpu --shape tiny --scale 0.01      # a dry run anywhere

All ways take turns on the mix: the pass on batches that lie on the GPU; `encode` with three heads as it is, with token
vectors brought to their places text by text, with more batches on their way, and of token ids that are known; a stream
of four blocks; dense vectors alone. `busy` is the time of the thread that puts the vectors into their places. JSON
lines are appended to `--out`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from gpu_encode import common_arguments, start
from triptych import Encoder
from triptych.model import assembly
from triptych.model.packed import Packed, batches
from workloads import Texts, mixed_lengths

RESULTS = Path(__file__).parent / "results" / "gpu_heads.jsonl"


def place_by_text(self: Any, multi: Any, texts: Any, vectors: Any) -> None:
    """`Assembly._place_vectors` text by text, with no copy in float32 between."""
    starts, ends = self._bounds[texts].tolist(), self._bounds[texts + 1].tolist()
    places = [multi[start:end] for start, end in zip(starts, ends, strict=True)]
    torch._foreach_copy_(places, vectors.split([len(place) for place in places]))


def main() -> None:
    options = common_arguments(__doc__, 5, RESULTS).parse_args()
    bench, limit, folder = start(options)
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

    by_text, more = {"_place_vectors": place_by_text}, {"_AHEAD": 8}
    ways: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "the pass alone": (the_pass, {}),
        "encode, text by text": (lambda: encoder.encode(work.texts), by_text),
        "encode": (lambda: encoder.encode(work.texts), {}),
        "encode, 8 batches on their way": (lambda: encoder.encode(work.texts), more),
        "token ids, text by text": (lambda: encoder.encode_ids(ids), by_text),
        "token ids": (lambda: encoder.encode_ids(ids), {}),
        "stream, text by text": (stream, by_text),
        "stream": (stream, {}),
        "encode, dense alone": (lambda: encoder.encode(work.texts, outputs="dense"), {}),
    }

    def measure(run: Callable[[], Any], changes: dict[str, Any]) -> tuple[float, float]:
        nonlocal busy
        busy = 0.0
        settle = assembly.Assembly._settle

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
            if "_place_vectors" in changes:
                stack.enter_context(mock.patch.object(assembly.Assembly, "_place_vectors", place_by_text))
            if "_AHEAD" in changes:
                stack.enter_context(mock.patch.object(assembly, "_AHEAD", changes["_AHEAD"]))
            return bench.seconds(run, 1, 0), busy

    # The same vectors, whichever way they come to their places.
    first = encoder.encode(work.texts[:64])
    with mock.patch.object(assembly.Assembly, "_place_vectors", place_by_text):
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
