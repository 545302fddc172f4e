"""Training on several GPUs: one gradient whatever the form, where runs drift apart, and what a step costs.

    python benchmarks/gpu_distributed.py --gpus 2 [--parts equal drift speed] [--out FILE]
    python benchmarks/gpu_distributed.py --gpus 2 --device cpu --shape tiny --parts equal drift speed    # a dry run

- `equal`: float32 without dropout: the gradient of DDP and of FSDP against one process with the joint batch, by head,
  whole batches and GradCache;
- `drift`: losses of a few steps of AdamW of the same run twice with DDP and once with FSDP, by type and dropout;
- `speed`: a step of the unified objective with BGE-M3's shape at 1, 2 … GPUs, each with its own batch, and its memory.

Processes exchange over NCCL (gloo on a processor). JSON lines are appended to `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

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
) -> float:
    """Forward and backward as the training loop does it; gives the mean loss of the processes."""
    from triptych.train import distributed, gradcache
    from triptych.train.tasks import encode, pair_losses

    parts = [part.to(device) for part in gradcache.split(batch.joint(), budget)]
    _, passes = distributed.agree([], len(parts), device)

    def one(part: Any) -> Any:
        with torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext():
            return encode(replica.call, part, objective.heads)

    found = gradcache.backward(
        one, parts, lambda reps: pair_losses(objective, reps, batch, 0), replica.synchronized, passes
    )
    return distributed.mean({"loss": found["loss"]})["loss"]


def full(tensor: Any) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().double().cpu()


def gradient(module: Any) -> torch.Tensor:
    return torch.cat([full(p.grad).flatten() for p in module.parameters() if p.grad is not None])


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


def equal(
    options: argparse.Namespace, report: Any, rank: int, world: int, device: torch.device, folder: Path
) -> None:
    from triptych.train.distributed import Replica
    from triptych.train.objective import Objective
    from workloads import SHAPES

    for name, heads in HEADS.items():
        for budget in (None, 96):
            parts = halves(1, options.gpus, queries=4, lengths=(4, 40))
            path = folder / f"{name}-{budget}.pt"
            for way in ("one",) if world == 1 else ("ddp", "fsdp"):
                model = model_of(SHAPES["tiny"], device, 0.0, 3.0)
                for part, module in (("lexical", model.lexical_head), ("multi", model.multi_head)):
                    module.requires_grad_(part in heads)  # as training does
                replica = Replica(model, "ddp" if way == "one" else way)  # type: ignore[arg-type]
                batch = joint(parts) if world == 1 else parts[rank]
                loss = step(replica, Objective(heads=heads), batch, device, budget, False)
                found = gradient(model)
                if world == 1:
                    torch.save((loss, found), path)
                elif rank == 0:
                    one_loss, expected = torch.load(path)
                    report(
                        part="equal",
                        heads=name,
                        form=way,
                        sub_batch_tokens=budget,
                        loss_error=abs(loss - one_loss) / abs(one_loss),
                        gradient_error=error(found, expected),
                    )


def drift(
    options: argparse.Namespace, report: Any, rank: int, world: int, device: torch.device, folder: Path
) -> None:
    from triptych.train.distributed import Replica
    from triptych.train.objective import Objective
    from workloads import SHAPES

    for half, dropout in ((False, 0.0), (False, 0.1), (True, 0.0), (True, 0.1)):
        losses: dict[str, list[float]] = {}
        first: dict[str, torch.Tensor] = {}
        for run, way in (
            (("one", "ddp"),) if world == 1 else (("ddp", "ddp"), ("ddp again", "ddp"), ("fsdp", "fsdp"))
        ):
            model = model_of(SHAPES["small" if options.shape == "m3" else "tiny"], device, dropout)
            replica = Replica(model, way)  # type: ignore[arg-type]
            optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
            losses[run] = []
            for number in range(5):
                parts = halves(number, options.gpus, queries=8, lengths=(8, 100))
                batch = joint(parts) if world == 1 else parts[rank]
                torch.manual_seed(100 * number + rank)
                losses[run].append(step(replica, Objective(), batch, device, None, half))
                if number == 0:
                    first[run] = gradient(model)
                replica.clip(1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        if rank == 0:
            apart = {run: error(found, next(iter(first.values()))) for run, found in first.items()}
            report(
                part="drift",
                dtype="bfloat16" if half else "float32",
                dropout=dropout,
                gpus=world,
                losses={run: [round(value, 6) for value in values] for run, values in losses.items()},
                first_gradient_apart=apart,
            )


def speed(
    options: argparse.Namespace, report: Any, rank: int, world: int, device: torch.device, folder: Path
) -> None:
    from triptych.train.distributed import Replica
    from triptych.train.objective import Objective
    from workloads import SHAPES

    cuda = device.type == "cuda"
    for way in ("ddp",) if world == 1 else ("ddp", "fsdp"):
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        model = model_of(SHAPES[options.shape], device, 0.1)
        replica = Replica(model, way)  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(model.parameters(), 1e-5, fused=cuda)
        length = 128 if cuda else 16
        rng = np.random.default_rng(rank)
        batch = batch_of(rng, options.queries, (length, length))
        times = []
        for number in range(options.steps + 3):
            torch.manual_seed(100 * number + rank)
            if cuda:
                torch.cuda.synchronize()
            if world > 1:
                dist.barrier()
            begin = time.perf_counter()
            step(replica, Objective(), batch, device, None, cuda)
            replica.clip(1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        if rank == 0:
            tokens = sum(batch.queries.lengths) + sum(batch.passages.lengths)
            seconds = statistics.median(times[3:])
            report(
                part="speed",
                form="one" if world == 1 else way,
                gpus=world,
                shape=options.shape,
                tokens_per_gpu=tokens,
                step_s=seconds,
                tokens_per_s=tokens * world / seconds,
                peak_mb=torch.cuda.max_memory_allocated() / 2**20 if cuda else None,
            )
        del model, replica, optimizer


PARTS = {"equal": equal, "drift": drift, "speed": speed}


def process(rank: int, world: int, port: int, options: argparse.Namespace, folder: Path) -> None:
    if options.device == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
        torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if world > 1:
        dist.init_process_group("nccl" if options.device == "cuda" else "gloo", rank=rank, world_size=world)
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else "none"
    facts = {"run": options.run, "gpu": gpu, "torch": torch.__version__}

    def report(**line: Any) -> None:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**facts, **line}) + "\n")
        print(json.dumps(line), flush=True)

    for part in options.parts:
        PARTS[part](options, report, rank, world, device, folder)
    if world > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="m3", choices=["m3", "small", "tiny"])
    parser.add_argument("--queries", type=int, default=48, help="of a process, in the part speed")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.run = time.strftime("%Y-%m-%dT%H:%M:%S")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for world in [1, *(n for n in (2, 4, 8) if n <= options.gpus)]:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            # The joint batch is that of all GPUs; fewer than all are for the speed.
            parts = options.parts if world in (1, options.gpus) else ["speed"]
            chosen = argparse.Namespace(
                **{**vars(options), "parts": [p for p in options.parts if p in parts]}
            )
            if chosen.parts:
                multiprocessing.spawn(process, (world, port, chosen, Path(name)), nprocs=world)


if __name__ == "__main__":
    main()
