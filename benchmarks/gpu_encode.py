"""Encoding on one GPU, side by side: correctness first, then throughput, long documents, single queries, scores.

    python benchmarks/gpu_encode.py [--shape m3] [--rounds 3] [--scale 1] [--out FILE]
    python benchmarks/gpu_encode.py --device cpu --shape tiny --scale 0.01     # a dry run anywhere
    python benchmarks/gpu_encode.py --parts forward throughput query --workloads mix long --ways triptych-compiled

Ours (as it is, that is with CUDA graphs for single texts; without them; compiled) against FlagEmbedding in float16 and
sentence-transformers in bfloat16 with torch's attention. The systems take turns; the figures are medians of the
time from texts to arrays on the processor. Beside them the forward pass alone, as a share of the measured limit
of the matrix products. Appends JSON lines; every part that fails says so and the others go on.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import systems
from workloads import SHAPES, Shape, Texts, Workload, make_checkpoint, mixed_lengths

RESULTS = Path(__file__).parent / "results" / "encode.jsonl"
PARTS = ("check", "training", "forward", "throughput", "query", "scores")
OTHERS = ("flagembedding", "sentence-transformers")
WAYS = ("triptych", "triptych-eager", "triptych-compiled")
Line = dict[str, Any]


class Bench:
    """The options, the facts that every line carries, and the lines so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device, self.shape = options, torch.device(options.device), SHAPES[options.shape]
        self.lines: list[Line] = []
        self.begin = time.perf_counter()
        gpu = torch.cuda.get_device_name() if self.device.type == "cuda" else "none"
        names = ("torch", "transformers", "sentence-transformers", "FlagEmbedding")
        self.facts: Line = {
            **({"tree": options.tree} if options.tree else {}),
            "run": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "shape": self.shape.name,
            "machine": {"gpu": gpu, "cuda": torch.version.cuda, "versions": {n: _version(n) for n in names}},
        }

    def add(self, **line: Any) -> None:
        self.lines.append({**self.facts, **line})
        with self.options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.lines[-1]) + "\n")
        print(f"[{time.perf_counter() - self.begin:5.0f} s]", json.dumps(line), flush=True)

    def part(self, name: str, run: Callable[[], Any]) -> None:
        """Runs a part; one that fails does not stop the others."""
        try:
            run()
        except Exception:
            print(f"PART {name} FAILED", flush=True)
            traceback.print_exc()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], Any], repeat: int = 5, warm: int = 2) -> float:
        for _ in range(warm):
            run()
        times = []
        for _ in range(repeat):
            self.sync()
            start = time.perf_counter()
            run()
            self.sync()
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def limits(bench: Bench) -> float:
    """Measured ceilings: a large product, a product of the layer's shape, a copy in device memory."""
    size = 8192 if bench.device.type == "cuda" else 256
    a, b = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    square = 2 * size**3 / bench.seconds(lambda: a @ b, 20)
    x = torch.randn(8 * size, 1024, device=bench.device, dtype=torch.bfloat16)
    w = torch.randn(1024, 4096, device=bench.device, dtype=torch.bfloat16)
    layer = 2 * len(x) * 1024 * 4096 / bench.seconds(lambda: x @ w, 20)
    source = torch.randn(size * size * 8, device=bench.device)
    target = torch.empty_like(source)
    copy = 8 * source.numel() / bench.seconds(lambda: target.copy_(source), 10)
    bench.add(part="limits", tflops_square=square / 1e12, tflops_layer=layer / 1e12, copy_gb_s=copy / 1e9)
    return square


def reference(folder: Path, texts: list[str], device: torch.device, tokens: int) -> np.ndarray:
    """Dense vectors by transformers alone: padded, float32, without the matrix units' short float32."""
    from transformers import AutoModel, AutoTokenizer

    torch.backends.cuda.matmul.allow_tf32 = False
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).to(device).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            batch = tokenizer([text], truncation=True, max_length=tokens, return_tensors="pt").to(device)
            rows.append(model(**batch).last_hidden_state[:, 0].float())
    return torch.nn.functional.normalize(torch.cat(rows), dim=-1).cpu().numpy()


def check(bench: Bench, folder: Path, works: dict[str, Workload]) -> None:
    """The smallest cosine between each way of ours and the padded float32 reference."""
    texts = [*works["mix"].texts[:48], works["long"].texts[0], *works["query"].texts[:8]]
    expected = reference(folder, texts, bench.device, bench.shape.max_tokens)
    for name, (encode, _) in ours(bench, folder).items():
        together = encode(texts)
        alone = np.concatenate([encode([text]) for text in texts])
        lowest = {"together": cosines(together, expected).min(), "alone": cosines(alone, expected).min()}
        bench.add(part="check", system=name, dense_cosine={k: float(v) for k, v in lowest.items()})


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def check_training(bench: Bench, folder: Path) -> None:
    """The packed forward on this device against the padded one: states, gradients, dropout's mean."""
    from triptych.model import backbone as backbones
    from triptych.model.forward import packed_states
    from triptych.model.packed import Packed

    rng = np.random.default_rng(0)
    batch = Packed.of([rng.integers(5, 200, n) for n in (300, 17, 64, 5, 129)], bench.device)
    model: Any = backbones.read(folder).to(bench.device)
    grads = []
    # Not a function of the rows' norms, which the last layer norm makes constant.
    target = torch.randn(sum(batch.lengths), bench.shape.hidden, device=bench.device)
    kinds = {"float32 padded": (torch.float32, False), "bfloat16 padded": (torch.bfloat16, False)}
    for name, (kind, packed) in {**kinds, "bfloat16 packed": (torch.bfloat16, True)}.items():
        model.to(kind).zero_grad()
        states = packed_states(model, batch) if packed else backbones.padded_states(model, batch, 1)
        (states.float() * target).sum().backward()
        grads.append(
            (name, states.detach().float(), model.encoder.layer[0].attention.self.query.weight.grad.float())
        )
    for name, states, grad in grads[1:]:
        errors = [float((a - b).norm() / b.norm()) for a, b in ((states, grads[0][1]), (grad, grads[0][2]))]
        bench.add(
            part="check", system=f"packed_states {name}", states_error=errors[0], gradient_error=errors[1]
        )
    model.train().to(torch.bfloat16)
    with torch.no_grad():
        draws = torch.stack([packed_states(model, batch).float().mean(0) for _ in range(64)])
    model.eval()
    with torch.no_grad():
        still = packed_states(model, batch).float().mean(0)
    apart = float((draws.mean(0) - still).norm() / still.norm())
    bench.add(
        part="check", system="packed_states dropout", spread=float(draws.std(0).mean()), mean_apart=apart
    )


Way = tuple[Any, int | None]


def ours(bench: Bench, folder: Path) -> dict[str, Way]:
    """Ours in its ways, each with its token budget (None: by device)."""
    kind = "bfloat16"
    ways: dict[str, Way] = {}
    for name in bench.options.ways:
        encode = systems.triptych(folder, kind, device=str(bench.device))
        engine = encode.encoder._model.engine
        if name == "triptych-eager":
            engine.graphs = encode.encoder._single = None
        elif name == "triptych-compiled" and bench.device.type == "cuda":
            engine.accelerate(compile=True)
        ways[name] = (encode, None)
    return ways


def others(bench: Bench, folder: Path, works: dict[str, Workload]) -> dict[str, Way]:
    """The other libraries that are asked for, with the best of a few batch sizes on a part of the mix."""
    tokens, device = bench.shape.max_tokens, str(bench.device)
    half = "float16" if bench.device.type == "cuda" else "float32"
    makes = {
        "flagembedding": ((32, 64), lambda: systems.flag_embedding(folder, half, device, tokens)),
        "sentence-transformers": (
            (64, 128),
            lambda: systems.sentence_transformers(folder, "bfloat16", device, tokens),
        ),
    }
    ways: dict[str, Way] = {}
    part = works["mix"].texts[::8]
    for name, (sizes, make) in makes.items():
        if name not in bench.options.others:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                encode = make()
            encode(part[:64], sizes[0])  # warm
            cost = {batch: bench.seconds(lambda e=encode, b=batch: e(part, b), 1, 0) for batch in sizes}
            ways[name] = (encode, min(cost, key=lambda batch: cost[batch]))
            bench.add(part="tuning", system=name, seconds=cost)
        except Exception:
            print(f"{name} CANNOT BE MEASURED", flush=True)
            traceback.print_exc()
    return ways


def throughput(bench: Bench, works: dict[str, Workload], ways: dict[str, Way], limit: float) -> None:
    """Texts to arrays, the systems in turns."""
    encoder = next(iter(ways.values()))[0].encoder

    def dense(texts: list[str], budget: int | None) -> np.ndarray:
        return encoder.encode(texts, outputs="dense", token_budget=budget).dense

    def streamed(texts: list[str], budget: int | None, outputs: Any = None) -> np.ndarray:
        """Four blocks: the next ones are tokenised and computed while one's vectors are put into their places."""
        block = -(-len(texts) // 4)
        options: dict[str, Any] = {"outputs": outputs, "prefix": "", "token_budget": budget}
        return np.concatenate([part.dense for part in encoder.encode_stream(texts, block=block, **options)])

    every = {
        **ways,
        "triptych-dense": (dense, None),
        "triptych-stream": (streamed, None),
        "triptych-stream-dense": (partial(streamed, outputs="dense"), None),
    }
    for name in bench.options.workloads:
        work, times, peaks = works[name], dict[str, list[float]](), dict[str, float]()
        for _ in range(bench.options.rounds + 1):  # the first is a warm-up
            for system, (encode, batch) in every.items():
                batch = 4 if name == "long" and batch is not None else batch
                if bench.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                seconds = bench.seconds(lambda e=encode, b=batch, w=work: e(w.texts, b), 1, 0)
                times.setdefault(system, []).append(seconds)
                peaks[system] = (
                    torch.cuda.max_memory_allocated() / 2**20 if bench.device.type == "cuda" else 0
                )
        for system, all_seconds in times.items():
            seconds = statistics.median(all_seconds[1:])
            flops = bench.shape.flops(work.lengths, not system.endswith(("-dense", "sentence-transformers")))
            bench.add(
                part="throughput",
                system=system,
                workload=name,
                texts=len(work.texts),
                tokens=work.tokens,
                batch=every[system][1],
                wall_s=seconds,
                wall_all_s=all_seconds[1:],
                tokens_per_s=work.tokens / seconds,
                texts_per_s=len(work.texts) / seconds,
                of_limit=flops / seconds / limit,
                gpu_peak_mb=peaks[system],
            )


def forward_alone(bench: Bench, work: Workload, ways: dict[str, Way], limit: float) -> None:
    """The pass itself on batches that are on the device: what of the limit the kernels reach."""
    from triptych.model.packed import Packed, batches

    for name, (encode, _) in ways.items():
        if not name.startswith("triptych"):
            continue
        encoder = encode.encoder
        ids = encoder.tokenizer.encode(work.texts, max_length=bench.shape.max_tokens).ids
        lengths = np.array([len(text) for text in ids])
        order = np.argsort(-lengths, kind="stable")
        for budget in bench.options.budgets:
            cuts = batches(lengths[order], budget, padded=False)
            packed = [Packed.of([ids[i] for i in order[cut]], bench.device) for cut in cuts]

            def run(packed: list[Packed] = packed, encoder: Any = encoder) -> None:
                with torch.inference_mode():
                    for batch in packed:
                        encoder._model(batch, encoder.heads)

            seconds = bench.seconds(run, 3, 2)
            share = bench.shape.flops(lengths.tolist()) / seconds / limit
            rate = float(lengths.sum()) / seconds
            bench.add(
                part="forward", system=name, of=work.name, budget=budget, tokens_per_s=rate, of_limit=share
            )


def queries(bench: Bench, work: Workload, ways: dict[str, Way]) -> None:
    """One short text at a time, warm; the systems in turns."""
    times: dict[str, list[float]] = {}
    for round_ in range(3):
        for name, (encode, batch) in ways.items():
            for text in work.texts:
                seconds = bench.seconds(lambda e=encode, t=text, b=batch: e([t], b), 1, 0)
                if round_:
                    times.setdefault(name, []).append(seconds)
    for name, all_seconds in times.items():
        p50, p95 = np.quantile(all_seconds, [0.5, 0.95]) * 1e3
        bench.add(part="query", workload="query", system=name, p50_ms=float(p50), p95_ms=float(p95))


def scores(bench: Bench) -> None:
    """MaxSim in blocks: queries of 32 tokens against documents of 200."""
    from triptych.scores.on_torch import maxsim_scores

    small = bench.device.type != "cuda"
    documents, width = (20, 64) if small else (1000, 1024)
    d = torch.randn(documents * 200, width, device=bench.device)
    bounds = torch.arange(documents + 1, device=bench.device) * 200
    for count in (1, 32):
        q = torch.randn(count * 32, width, device=bench.device)
        starts = torch.arange(count + 1, device=bench.device) * 32
        with torch.inference_mode():
            seconds = bench.seconds(lambda q=q, s=starts: maxsim_scores(q, s, d, bounds))
        read = d.numel() * d.element_size() / seconds / 1e9
        tera = 2 * q.numel() * len(d) / seconds / 1e12
        bench.add(part="maxsim", queries=count, documents=documents, ms=seconds * 1e3, gb_s=read, tflops=tera)


def works_of(bench: Bench, folder: Path) -> dict[str, Workload]:
    source, rng, scale = Texts(folder), np.random.default_rng(1), bench.options.scale

    def count(texts: int) -> int:
        return max(2, round(texts * scale))

    shape: Shape = bench.shape
    made = [
        source.workload("short", rng.integers(6, 24, count(8192)).tolist()),
        source.workload("mix", mixed_lengths(count(4096), min(2048, shape.max_tokens))),
        source.workload("long", [shape.max_tokens] * count(48)),
        source.workload("query", rng.integers(8, 16, count(64)).tolist(), single=True),
    ]
    return {work.name: work for work in made}


def common_arguments(description: str | None, rounds: int, out: Path) -> argparse.ArgumentParser:
    """The options that the measurements of encoding on a GPU share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="m3", choices=list(SHAPES))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument(
        "--plain", action="store_true", help="a tokenizer of numbered words (see workloads.py)"
    )
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()) / "triptych-bench")
    parser.add_argument("--tree", default="", help="a name for the version that is measured")
    parser.add_argument("--out", type=Path, default=out)
    return parser


def start(options: argparse.Namespace) -> tuple[Bench, float, Path]:
    """The bench, the limit of the products, and the folder of the model that is measured."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    limit = limits(bench)
    name = options.shape + ("-plain" if options.plain else "")
    folder = options.checkpoints / name
    return bench, limit, make_checkpoint(bench.shape, folder, device=options.device, plain=options.plain)


def main() -> None:
    parser = common_arguments(__doc__, 3, RESULTS)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="ways of ours")
    parser.add_argument("--others", nargs="*", default=OTHERS, choices=OTHERS, help="other libraries")
    parser.add_argument("--workloads", nargs="+", default=["short", "mix", "long"], help="of the throughput")
    parser.add_argument(
        "--budgets", nargs="+", type=int, default=[16384, 65536, 131072], help="of the pass alone"
    )
    options = parser.parse_args()
    bench, limit, folder = start(options)
    works = works_of(bench, folder)
    ways: dict[str, Way] = {}
    steps: list[tuple[str, Callable[[], Any]]] = [
        ("check", lambda: check(bench, folder, works)),
        ("training", lambda: check_training(bench, folder)),
        ("forward", lambda: [forward_alone(bench, works[name], ways, limit) for name in ("mix", "long")]),
        ("throughput", lambda: throughput(bench, works, ways, limit)),
        ("query", lambda: queries(bench, works["query"], ways)),
        ("scores", lambda: scores(bench)),
    ]
    for name, run in steps:
        if name not in options.parts:
            continue
        if name in ("forward", "throughput", "query") and not ways:
            ways |= ours(bench, folder)
        if name in ("throughput", "query") and not {"flagembedding", "sentence-transformers"} & set(ways):
            ways |= others(bench, folder, works)
        bench.part(name, run)
    print(f"done in {time.perf_counter() - bench.begin:.0f} s")


if __name__ == "__main__":
    main()
