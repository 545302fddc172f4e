"""Training on one GPU: whether it computes what a processor computes, how fast it is, and beside others.

    python benchmarks/gpu_train.py --out results.jsonl                       # everything, about 8 minutes on an H100
    python benchmarks/gpu_train.py --out results.jsonl --parts equal speed
    python benchmarks/gpu_train.py --out results.jsonl --device cpu --shape tiny --scale 0.02 --parts equal speed

Four parts, each in a process of its own with a time limit, so that one that fails does not stop the others:

- `equal`: losses and gradients of a small random model on the device and on the processor: all objectives, GradCache
  with several sub-batches, RetroMAE; then bfloat16, compiled layers and dropout on the device;
- `speed`: `triptych train` and `pretrain` themselves on made-up text, with a model of the bundled one's size and random
  weights: tokens a second, the share of time in which the loop waits for batches, and where the device's time goes;
- `unified`: `train_unified.py` at BGE-M3's size beside FlagEmbedding's trainer;
- `fit`: `train_fit.py`, the largest batch at 8192 tokens.

JSON lines are appended to `--out` as they come; the profiles go to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
LIMITS = {"equal": 100, "speed": 200, "unified": 120, "fit": 150}
PAIRS = "pairs.jsonl"
Line = dict[str, Any]


# --------------------------------------------------------------------------------------------------------- equal


def equal(options: argparse.Namespace) -> None:
    from triptych.train.objective import OBJECTIVES, Objective

    device = torch.device(options.device)
    teacher = torch.randn(4, 3, generator=torch.Generator().manual_seed(5))
    objectives = {
        **OBJECTIVES,
        "own passages alone": Objective(in_batch=False),
        "both directions": Objective(bidirectional=True),
        "margin": Objective(false_negative_margin=0.01),
        "narrow": Objective(dense_widths=(16,), multi_widths=(16,)),
        "ranked": Objective(reranker="ranked"),
        "listwise": Objective(reranker="listwise"),
    }
    for name, objective in objectives.items():
        scores = teacher if objective.reranker else None
        with guarded(options, f"equal {name}"):
            here = pair_step("cpu", objective, scores)
            for budget in (None, 64):
                there = pair_step(device, objective, scores, budget=budget)
                compare(options, name, here, there, {"sub_batch_tokens": budget}, limit=1e-3)
    with guarded(options, "equal RetroMAE"):
        compare(options, "RetroMAE", retromae_step("cpu"), retromae_step(device), {}, limit=1e-3)
    if device.type != "cuda":
        return
    ways: dict[str, dict[str, Any]] = {
        "bfloat16": {"half": True},
        "bfloat16, GradCache": {"half": True, "budget": 64},
        "bfloat16, compiled": {"half": True, "compiled": True},
        "bfloat16, compiled, GradCache": {"half": True, "compiled": True, "budget": 64},
        "bfloat16, layers again": {"half": True, "again": True},
    }
    for name, way in ways.items():
        with guarded(options, f"equal {name}"):
            here, there = pair_step("cpu", Objective()), pair_step(device, Objective(), **way)
            compare(options, name, here, there, {}, limit=0.2)
    with guarded(options, "equal RetroMAE bfloat16"):
        for compiled in (False, True):
            there = retromae_step(device, half=True, compiled=compiled)
            name = f"RetroMAE bfloat16{', compiled' if compiled else ''}"
            compare(options, name, retromae_step("cpu"), there, {}, limit=0.2)
    for compiled in (False, True):
        name = f"dropout, GradCache against its sub-batches at once{', compiled' if compiled else ''}"
        with guarded(options, f"equal {name}"):
            way = {"half": True, "compiled": compiled, "budget": 64, "dropout": 0.2}
            whole = pair_step(device, Objective(), **way, at_once=True)
            compare(options, name, whole, pair_step(device, Objective(), **way), {}, limit=0.02)
    with guarded(options, "MaxSim"):
        maxsim(options, device)


def small_model(device: torch.device, dropout: float = 0.0) -> Any:
    """Three layers with random weights, larger than a fresh model's, so that all of it matters."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    from triptych.config import M3Config
    from triptych.model.m3 import M3Model
    from triptych.model.packed import SpecialIds

    config = XLMRobertaConfig(
        vocab_size=500,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    torch.manual_seed(0)
    model = M3Model(
        XLMRobertaModel(config, add_pooling_layer=False), M3Config(multi_dim=32), SpecialIds(0, 2, 1, 3)
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(1.0 if "LayerNorm" in name else 3.0)
    return model.to(device).train()


def small_texts(lengths: list[int]) -> list[list[int]]:
    draw = random.Random(1)
    return [[0, *(draw.randrange(4, 499) for _ in range(length - 2)), 2] for length in lengths]


Step = tuple[dict[str, float], dict[str, Tensor]]


def pair_step(
    device: torch.device | str,
    objective: Any,
    teacher: Tensor | None = None,
    *,
    budget: int | None = None,
    half: bool = False,
    compiled: bool = False,
    again: bool = False,
    dropout: float = 0.0,
    at_once: bool = False,
) -> Step:
    """Losses and gradients of four queries with three passages each; one text of a passage comes twice."""
    from triptych.model.packed import Packed
    from triptych.train import gradcache
    from triptych.train.collate import PairBatch
    from triptych.train.data import text_key
    from triptych.train.distributed import compile_layers
    from triptych.train.tasks import encode, pair_losses

    device = torch.device(device)
    model = small_model(device, dropout)
    if compiled:
        compile_layers(model, device, None)  # whether sub-batches go with it is what is looked at
    if again:
        model.backbone.gradient_checkpointing_enable()
    texts = small_texts([5, 9, 4, 17, 6, 30, 8, 12, 3, 21, 7, 11, 19, 41, 64, 5])
    queries, passages = texts[:4], texts[4:]
    passages[3] = passages[0]
    batch = PairBatch(
        Packed.of(queries),
        Packed.of(passages),
        3,
        teacher,
        torch.tensor([text_key(each) for each in passages]),
    )

    def autocast() -> Any:
        return torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext()

    parts = [part.to(device) for part in gradcache.split(batch.joint(), budget)]
    torch.manual_seed(3)

    def losses(reps: Any) -> dict[str, Tensor]:
        return pair_losses(objective, reps, batch, 0)

    def one(part: gradcache.SubBatch) -> Any:
        with autocast():
            return encode(model, part, objective.heads)

    if at_once:
        reps = gradcache.concat_reps([one(part) for part in parts])
        found = losses(gradcache.take(reps, gradcache.original_order(parts)))
        found["loss"].backward()
    else:
        found = gradcache.backward(one, parts, losses)
    return values(found), gradients(model)


def retromae_step(device: torch.device | str, *, half: bool = False, compiled: bool = False) -> Step:
    import numpy as np

    from triptych.train.distributed import compile_layers
    from triptych.train.retromae import Alphabet, Masking, RetroMAE, hide

    device = torch.device(device)
    encoder = small_model(torch.device("cpu"))
    if compiled:
        compile_layers(encoder, device, None)
    torch.manual_seed(1)
    module = RetroMAE(encoder).to(device).train()
    special = np.zeros(500, dtype=np.bool_)
    special[:4] = special[499] = True
    texts = [np.array(text) for text in small_texts([64, 64, 40, 33, 21, 9, 3])]
    batch = hide(texts, Alphabet(499, special), Masking(patterns=16), np.random.default_rng(0)).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext():
        found = module(batch)
    found["loss"].backward()
    return values(found), gradients(module)


def maxsim(options: argparse.Namespace, device: torch.device) -> None:
    """The 16-bit products and their gradient beside float32 ones."""
    from triptych.scores.on_torch import maxsim_scores

    draw = torch.Generator(device).manual_seed(0)
    bounds = torch.arange(0, 33, device=device) * 20, torch.arange(0, 129, device=device) * 50
    sides = [
        torch.nn.functional.normalize(torch.randn(n, 128, device=device, generator=draw), dim=1)
        for n in (640, 6400)
    ]
    weight = torch.randn(32, 128, device=device, generator=draw)
    found: list[list[Tensor]] = []
    for kind in (torch.float32, torch.bfloat16):
        q, d = (side.to(kind).requires_grad_() for side in sides)
        scores = maxsim_scores(q, bounds[0], d, bounds[1])
        (scores * weight).sum().backward()
        found.append([scores.detach(), q.grad.float(), d.grad.float()])  # type: ignore[union-attr]
    names = ("scores", "of queries", "of documents")
    errors = {n: float((a - b).norm() / a.norm()) for n, a, b in zip(names, *found, strict=True)}
    # Rounding the vectors to bfloat16 changes which token is the nearest, here and there.
    report(options, benchmark="equal", case="MaxSim in 16 bits", errors=errors, ok=max(errors.values()) < 0.1)


def values(found: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in found.items()}


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.double().cpu() for n, p in model.named_parameters() if p.grad is not None}


def compare(
    options: argparse.Namespace, case: str, here: Step, there: Step, facts: Line, *, limit: float
) -> None:
    """Reports the largest relative differences of losses and of gradients by parameter."""
    losses = {name: abs(there[0][name] - value) / max(1e-6, abs(value)) for name, value in here[0].items()}
    assert here[1].keys() == there[1].keys(), here[1].keys() ^ there[1].keys()
    flat = [torch.cat([each.flatten() for each in side[1].values()]) for side in (here, there)]
    whole = float((flat[0] - flat[1]).norm() / flat[0].norm())
    floor = 1e-3 * float(flat[0].norm())
    single = {n: float((g - there[1][n]).norm()) / max(floor, float(g.norm())) for n, g in here[1].items()}
    worst = max(single, key=lambda name: single[name])
    report(
        options,
        benchmark="equal",
        case=case,
        **facts,
        loss=max(losses.values()),
        gradient=whole,
        worst={worst: single[worst]},
        ok=max(losses.values()) < limit and whole < limit,
    )


# --------------------------------------------------------------------------------------------------------- speed


@dataclass
class Measure:
    """Watches a run: takes the lines of its log, profiles some steps, and stops it."""

    device: torch.device
    steps: int
    seconds: float
    profiled: int = 2
    lines: list[Line] = field(default_factory=list)
    done: int = 0
    begin: float = 0.0
    profiler: Any = None
    table: str = ""

    def progress(self, stage: str, done: int, _total: int | None) -> None:
        if stage != "training":
            return
        self.done = done
        if done == 1:
            self.begin = time.perf_counter()
        if done == self.steps - self.profiled and self.device.type == "cuda":
            self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self.profiler.start()

    def stop(self) -> bool:
        late = bool(self.done) and time.perf_counter() - self.begin > self.seconds
        if self.profiler is not None and (self.done >= self.steps or late):
            torch.cuda.synchronize()
            self.profiler.stop()
            self.table = self.profiler.key_averages().table(
                sort_by="self_cuda_time_total", row_limit=15, max_name_column_width=90
            )
            self.profiler = None
        return self.done >= self.steps or late

    def result(self) -> Line:
        """Medians over the lines of the log, without those at the beginning and while profiling."""
        good = [line for line in self.lines if 3 < line["step"] <= self.steps - self.profiled]
        good = good or self.lines[-1:]
        middle = sorted(line["tokens_per_second"] for line in good)[len(good) // 2]
        waiting = sorted(line["waiting"] for line in good)[len(good) // 2]
        return {"tokens_per_second": round(middle), "waiting": round(waiting, 4), "steps": self.done}


STAGES: dict[str, dict[str, Any]] = {
    "1 RetroMAE": {
        "data": {"passage_length": 128, "batch_tokens": 131072, "bounds": [128], "group": 1},
        "masking": {"patterns": 64},
    },
    "2 contrastive": {
        "data": {"query_length": 32, "passage_length": 128, "group": 1, "batch_size": 4096, "bounds": [128]},
        "objective": {"name": "dense"},
        "compute": {"sub_batch_tokens": 131072},
    },
    "3 unified": {
        "data": {"query_length": 32, "passage_length": 128, "group": 8, "batch_size": 512, "bounds": [128]},
        "objective": {"name": "unified"},
        "compute": {"sub_batch_tokens": 131072},
    },
}


# Stage, compiled, without sub-batches.
RUNS = [
    ("2 contrastive", True, False),
    ("2 contrastive", True, True),
    ("3 unified", True, False),
    ("1 RetroMAE", True, False),
    ("2 contrastive", False, False),
    ("3 unified", False, False),
    ("1 RetroMAE", False, False),
]


def speed(options: argparse.Namespace) -> None:
    from workloads import SHAPES, make_checkpoint

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint(SHAPES[options.shape], folder / "model", device=options.device, plain=True)
        write_texts(folder, options)
        print("texts and model are made", flush=True)
        runs = RUNS if options.device.startswith("cuda") else [(stage, False, False) for stage in STAGES]
        for stage, compiled, whole in runs:
            with guarded(options, f"speed {stage} compile={compiled}"):
                stage_speed(options, stage, compiled, whole, model, folder)


def write_texts(folder: Path, options: argparse.Namespace) -> None:
    """Queries of 6 to 30 words with 8 passages of 14 to 126 words each."""
    draw = random.Random(0)
    words = [f"w{draw.randrange(250_000)}" for _ in range(100_000)]

    def text(shortest: int, longest: int) -> str:
        start, length = draw.randrange(len(words) - longest), draw.randint(shortest, longest)
        return " ".join(words[start : start + length])

    rows = max(8, round(4096 * options.scale))
    with (folder / PAIRS).open("w") as pairs, (folder / "texts.jsonl").open("w") as texts:
        for _ in range(rows):
            passages = [text(14, 126) for _ in range(8)]
            pairs.write(json.dumps({"query": text(6, 30), "pos": passages[:1], "neg": passages[1:]}) + "\n")
            for passage in passages[:2]:
                texts.write(json.dumps({"text": passage}) + "\n")


def stage_speed(
    options: argparse.Namespace, stage: str, compiled: bool, whole: bool, model: Path, folder: Path
) -> None:
    from triptych.train.run import RunCallbacks, run
    from triptych.train.settings import Recipe, validate

    device = torch.device(options.device)
    first = stage.startswith("1")
    values = json.loads(json.dumps(STAGES[stage]))
    data, compute = values["data"], values.setdefault("compute", {})
    data |= {"train": str(folder / ("texts.jsonl" if first else PAIRS)), "cache": str(folder / "cache")}
    for place, key in ((data, "batch_tokens"), (data, "batch_size"), (compute, "sub_batch_tokens")):
        if place.get(key):
            place[key] = max(256 if "tokens" in key else 4, round(place[key] * options.scale))
    if whole:
        compute["sub_batch_tokens"] = None
    compute |= {"compile": compiled, "device": options.device}
    recipe = validate(
        Recipe, {"model": str(model), "freeze": ["words"], "steps": 10_000, "log_every": 1, **values}, stage
    )
    measure = Measure(device, steps=12, seconds=60 if compiled else 9)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    output = Path(tempfile.mkdtemp(dir=folder))
    callbacks = RunCallbacks(progress=measure.progress, on_log=measure.lines.append, should_stop=measure.stop)
    run("pretrain" if first else "train", recipe, output, callbacks=callbacks)
    last = measure.lines[-1]
    report(
        options,
        benchmark="training speed",
        stage=stage,
        compile=compiled,
        sub_batch_tokens=compute.get("sub_batch_tokens"),
        **measure.result(),
        tokens_a_step=round(last["tokens"] / last["step"]),
        peak_gb=round(torch.cuda.max_memory_allocated() / 1e9, 2) if device.type == "cuda" else None,
        seconds=round(time.perf_counter() - begin, 1),
        loss=[round(line["loss"], 4) for line in measure.lines],
    )
    print(f"\n{stage}, compile={compiled}, whole={whole}\n{measure.table}", flush=True)


# ------------------------------------------------------------------------------------------------ unified and fit


def unified(options: argparse.Namespace) -> None:
    """BGE-M3's size beside FlagEmbedding; what does not fit says so."""
    tool = [sys.executable, str(HERE / "train_unified.py"), "--shape", "bge-m3", "--out", str(options.out)]
    tool += ["--device", options.device, "--rounds", "1", "--steps", "4", "--warmup", "2"]
    for size in (["--queries", "4", "--longest", "512"], ["--queries", "8", "--longest", "256"]):
        subprocess.run([*tool, *size], check=False)
    subprocess.run([*tool, "--queries", "8", "--longest", "512", "--systems", "ours"], check=False)


def fit(options: argparse.Namespace) -> None:
    """The largest batch at 8192 tokens."""
    tool = [sys.executable, str(HERE / "train_fit.py"), "--out", str(options.out), "--patience", "40"]
    subprocess.run([*tool, "--device", options.device], check=False)


# ---------------------------------------------------------------------------------------------------------- parts


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "equal": equal,
    "speed": speed,
    "unified": unified,
    "fit": fit,
}


@contextmanager
def guarded(options: argparse.Namespace, name: str) -> Iterator[None]:
    """What fails in it is reported, and the rest goes on."""
    try:
        yield
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        report(options, benchmark=name, failed=f"{type(error).__name__}: {error}"[:500])


def report(options: argparse.Namespace, **line: Any) -> None:
    text = json.dumps({**line, "place": place(options), "torch": torch.__version__})
    print(text, flush=True)
    with options.out.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


def place(options: argparse.Namespace) -> str:
    return torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="small", help="of `speed`")
    parser.add_argument("--scale", type=float, default=1.0, help="of the batches of `speed`")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=580, help="for all parts together")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.part:
        PARTS[options.part](options)
        return
    begin = time.perf_counter()
    for part in options.parts:
        left = options.seconds - (time.perf_counter() - begin)
        start = time.perf_counter()
        command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
        # A session of its own, so that what the part started ends with it and holds no memory of the device.
        process = subprocess.Popen(command, start_new_session=True)
        try:
            ended = f"exit code {process.wait(max(1.0, min(LIMITS[part], left)))}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            ended = "out of time"
        report(options, benchmark="part", part=part, ended=ended, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main()
