"""Training on several GPUs: one gradient whatever the form, where runs drift apart, and what a step costs.

    python benchmarks/gpu_distributed.py --gpus 2 [--parts speed equal drift] [--out FILE]
    python benchmarks/gpu_distributed.py --gpus 2 --device cpu --shape tiny          # a dry run

- `equal`: float32 without dropout: the gradient of DDP and of FSDP against one process with the joint batch, by head,
  whole batches and GradCache;
- `drift`: losses of a few steps of AdamW of the same run twice with DDP and once with FSDP, by type and dropout;
- `speed`: steps of the unified objective with BGE-M3's shape on one GPU and on all, each with its own batch, and their
  memory; the forms take turns, the ones that there were before too (`FORMS`).

Processes exchange over NCCL (gloo on a processor). JSON lines are appended to `--out`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import distributed as dist
from torch import multiprocessing

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
RESULTS = HERE / "results" / "gpu_distributed.jsonl"
HEADS = {
    "dense": ("dense",),
    "lexical": ("lexical",),
    "multi": ("multi",),
    "all": ("dense", "lexical", "multi"),
}
GROUP = 4
Line = dict[str, Any]
FORMS = {
    "one": "one GPU",
    "ddp": "DDP",
    "fsdp": "FSDP",
    "one, before": "one GPU; the norm is waited for before the step",
    "fsdp, before": "FSDP, the model as one unit, numbers through the GPUs",
    "fsdp, layers": "FSDP, numbers through the GPUs",
    "ddp, before": "DDP, numbers through the GPUs",
    "fsdp, resharded": "FSDP, a layer's weights freed after its forward pass",
}


def model_of(shape: Any, device: torch.device, dropout: float, scale: float = 1.0) -> Any:
    """Random weights; `scale` enlarges them, so that all of a small model matters."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    from triptych.config import M3Config
    from triptych.model.m3 import M3Model
    from triptych.model.packed import SpecialIds

    config = XLMRobertaConfig(
        vocab_size=250002 if shape.name == "m3" else 500,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    torch.manual_seed(0)
    with torch.device(device if shape.name == "m3" else "cpu"):
        backbone = XLMRobertaModel(config, add_pooling_layer=False)
        model = M3Model(backbone, M3Config(multi_dim=shape.multi), SpecialIds(0, 2, 1, 3))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(1.0 if "LayerNorm" in name else scale)
    return model.to(device).train()


def batch_of(rng: np.random.Generator, queries: int, lengths: tuple[int, int], highest: int = 499) -> Any:
    """Queries with GROUP passages each; equal lengths where `lengths` are."""
    from triptych.model.packed import Packed
    from triptych.train.collate import PairBatch

    def text(longest: int) -> np.ndarray:
        length = longest if lengths[0] == lengths[1] else int(rng.integers(lengths[0], longest + 1))
        return np.array([0, *rng.integers(4, highest, length - 2), 2])

    sides = [text(max(4, lengths[1] // 2)) for _ in range(queries)]
    passages = [text(lengths[1]) for _ in range(queries * GROUP)]
    return PairBatch(Packed.of(sides), Packed.of(passages), GROUP)


def halves(seed: int, world: int, **options: Any) -> list[Any]:
    """The batches of the processes; together they are the joint batch."""
    rng = np.random.default_rng(seed)
    return [batch_of(rng, **options) for _ in range(world)]


def joint(parts: list[Any]) -> Any:
    from triptych.model.packed import Packed
    from triptych.train.collate import PairBatch

    def texts(packed: Any) -> list[np.ndarray]:
        return [part.numpy() for part in packed.ids.split(packed.lengths)]

    sides = [
        [text for part in parts for text in texts(getattr(part, name))] for name in ("queries", "passages")
    ]
    return PairBatch(Packed.of(sides[0]), Packed.of(sides[1]), GROUP)


def step(
    replica: Any, objective: Any, batch: Any, device: torch.device, budget: int | None, half: bool
) -> Any:
    """Forward and backward as the training loop does it; gives this process's loss."""
    from triptych.train import distributed, gradcache
    from triptych.train.tasks import encode, pair_losses

    parts = [part.to(device) for part in gradcache.split(batch.joint(), budget)]
    _, passes = distributed.agree([], len(parts))

    def one(part: Any) -> Any:
        with torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext():
            return encode(replica.call, part, objective.heads)

    return gradcache.backward(
        one, parts, lambda reps: pair_losses(objective, reps, batch, 0), replica.synchronized, passes
    )["loss"]


def mean(loss: torch.Tensor) -> float:
    from triptych.train import distributed

    return distributed.mean({"loss": loss})["loss"]


def update(replica: Any, optimizer: Any, *, wait: bool = False) -> None:
    """What the training loop does after the backward pass."""
    norm = replica.clip(1.0)
    if wait:
        float(norm)
    optimizer.found_inf = (~norm.isfinite()).float()
    optimizer.step()
    float(norm)
    optimizer.zero_grad(set_to_none=True)


def alone() -> Any:
    """This process as if it were the only one."""
    from triptych.train import distributed

    return mock.patch.object(distributed, "size", return_value=1)


@contextmanager
def arranged(form: str, cuda: bool) -> Generator[None]:
    """The package as the form wants it."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    from triptych.train import distributed

    shard = distributed._shard

    def as_one(module: Any) -> list[Any]:
        distributed._show_reps()
        fully_shard(module, reshard_after_forward=False)
        return [module]

    def resharded(module: Any) -> list[Any]:
        units = shard(module)
        for unit in units[1:]:
            assert isinstance(unit, FSDPModule)
            unit.set_reshard_after_forward(True)
        return units

    with ExitStack() as stack:
        if form.startswith("one"):
            stack.enter_context(alone())
        if cuda and ("before" in form or "layers" in form):
            stack.enter_context(mock.patch.object(dist, "get_backend_config", return_value="cuda:nccl"))
        if form in ("fsdp, before", "fsdp, resharded"):
            other = as_one if "before" in form else resharded
            stack.enter_context(mock.patch.object(distributed, "_shard", other))
        yield


def full(tensor: Any) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().double().cpu()


def gradient(module: Any) -> torch.Tensor:
    return torch.cat([full(p.grad).flatten() for p in module.parameters() if p.grad is not None])


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


def equal(options: argparse.Namespace, report: Any, rank: int, world: int, device: torch.device) -> None:
    from triptych.train.distributed import Replica
    from triptych.train.objective import Objective
    from workloads import SHAPES

    def found(
        way: str, heads: tuple[str, ...], batch: Any, budget: int | None, dtype: torch.dtype = torch.float32
    ) -> tuple[float, torch.Tensor]:
        # Weights so large that texts differ: where they hardly do, float32 itself rounds the gradient by 1e-5.
        model = model_of(SHAPES["tiny"], device, 0.0, 6.0).to(dtype)
        for part, module in (("lexical", model.lexical_head), ("multi", model.multi_head)):
            module.requires_grad_(part in heads)  # as training does
        replica = Replica(model, way)  # type: ignore[arg-type]
        loss = mean(step(replica, Objective(heads=heads), batch, device, budget, False))
        return loss, gradient(model)

    for name, heads in HEADS.items():
        for budget in (None, 96):
            parts = halves(1, world, queries=4, lengths=(4, 40))
            with alone():
                one_loss, expected = found("ddp", heads, joint(parts), budget)
                exact = found("ddp", heads, joint(parts), budget, torch.float64)[1]
            for way in ("ddp", "fsdp"):
                loss, got = found(way, heads, parts[rank], budget)
                if rank == 0:
                    report(
                        part="equal",
                        heads=name,
                        form=way,
                        gpus=world,
                        sub_batch_tokens=budget,
                        loss_error=abs(loss - one_loss) / abs(one_loss),
                        gradient_error=error(got, expected),
                        rounding=error(expected, exact),
                    )


def drift(options: argparse.Namespace, report: Any, rank: int, world: int, device: torch.device) -> None:
    from triptych.train.distributed import Replica
    from triptych.train.objective import Objective
    from workloads import SHAPES

    runs = {"one": "ddp", "ddp": "ddp", "ddp again": "ddp", "fsdp": "fsdp"}
    for half, dropout in ((False, 0.0), (False, 0.1), (True, 0.0), (True, 0.1)):
        losses: dict[str, list[float]] = {}
        first: dict[str, torch.Tensor] = {}
        for run, way in runs.items():
            with alone() if run == "one" else nullcontext():
                model = model_of(SHAPES["small" if options.shape == "m3" else "tiny"], device, dropout)
                replica = Replica(model, way)  # type: ignore[arg-type]
                optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
                losses[run] = []
                for number in range(5):
                    parts = halves(number, world, queries=8, lengths=(8, 100))
                    batch = joint(parts) if run == "one" else parts[rank]
                    torch.manual_seed(100 * number + rank)
                    losses[run].append(mean(step(replica, Objective(), batch, device, None, half)))
                    if number == 0:
                        first[run] = gradient(model)
                    update(replica, optimizer)
        if rank == 0:
            report(
                part="drift",
                dtype="bfloat16" if half else "float32",
                dropout=dropout,
                gpus=world,
                losses={run: [round(value, 6) for value in values] for run, values in losses.items()},
                first_gradient_apart={run: error(found, first["ddp"]) for run, found in first.items()},
            )


def speed(options: argparse.Namespace, report: Any, rank: int, world: int, device: torch.device) -> None:
    from triptych.train import distributed
    from triptych.train.distributed import Replica
    from triptych.train.objective import Objective
    from workloads import SHAPES

    cuda = device.type == "cuda"
    length = 128 if cuda else 16

    def measure(form: str) -> Line:
        model = model_of(SHAPES[options.shape], device, 0.1)
        replica = Replica(model, "fsdp" if "fsdp" in form else "ddp")
        optimizer = torch.optim.AdamW(model.parameters(), 1e-5, fused=True)
        batch = batch_of(np.random.default_rng(rank), options.queries, (length, length))
        begin = 0.0
        for number in range(options.steps + 3):
            if number == 3:
                if cuda:
                    torch.cuda.synchronize()
                begin = time.perf_counter()
            torch.manual_seed(100 * number + rank)
            step(replica, Objective(), batch, device, None, cuda)
            update(replica, optimizer, wait="before" in form or "layers" in form)
        if cuda:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - begin) / options.steps
        tokens = sum(batch.queries.lengths) + sum(batch.passages.lengths)
        gpus = 1 if form.startswith("one") else world
        return {
            "gpus": gpus,
            "tokens_per_gpu": tokens,
            "step_s": seconds,
            "tokens_per_s": tokens * gpus / seconds,
        }

    for number in range(options.rounds):
        for form in [form for form in options.forms if number == 0 or form not in options.once]:
            if cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            if rank == 0 or not form.startswith("one"):
                with arranged(form, cuda):
                    line = measure(form)
                peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else None
                if rank == 0:
                    facts: Line = {"form": form, "what": FORMS[form], "round": number, "peak_mb": peak}
                    report(part="speed", shape=options.shape, **facts, **line)
            distributed.agree([], 0)  # the others wait here
            gc.collect()


PARTS = {"speed": speed, "equal": equal, "drift": drift}


def process(rank: int, world: int, port: int, options: argparse.Namespace) -> None:
    if options.device == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
        torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    backend = "cpu:gloo,cuda:nccl" if options.device == "cuda" else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=world)
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else "none"
    facts = {"run": options.run, "gpu": gpu, "torch": torch.__version__}

    def report(**line: Any) -> None:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**facts, **line}) + "\n")
        print(json.dumps(line), flush=True)

    for part in options.parts:
        PARTS[part](options, report, rank, world, device)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="m3", choices=["m3", "small", "tiny"])
    parser.add_argument("--queries", type=int, default=48, help="of a process, in the part speed")
    parser.add_argument("--steps", type=int, default=8, help="that are timed, after three others")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--once", nargs="*", default=[], choices=list(FORMS), help="in the first round alone")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.run = time.strftime("%Y-%m-%dT%H:%M:%S")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(process, (options.gpus, port, options), nprocs=options.gpus)


if __name__ == "__main__":
    main()
