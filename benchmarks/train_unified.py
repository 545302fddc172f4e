"""One step of unified fine-tuning, ours beside FlagEmbedding's M3 trainer: examples a second and peak memory.

Three heads, self-distillation, G passages a query, texts of mixed lengths, AdamW. Both train the same random model on
the same token ids; each system has its own process, and rounds alternate. One JSON line a round is appended.

    python benchmarks/train_unified.py --shape small --queries 2 --out benchmarks/results/gpu_train.jsonl
    python benchmarks/train_unified.py --shape bge-m3 --device cuda --queries 8 --longest 512 --checkpointing
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

SHAPES = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    "small": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "bge-m3": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}
VOCABULARY = 250002
SYSTEMS = ("ours", "flagembedding")
# Both systems keep freed memory: fetching it anew is what a virtual machine is slowest at, and noisiest.
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


def backbone(options: argparse.Namespace) -> nn.Module:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(
        vocab_size=VOCABULARY if options.shape != "tiny" else 5000,
        max_position_embeddings=8194,
        type_vocab_size=1,
        pad_token_id=1,
        **SHAPES[options.shape],
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        return XLMRobertaModel(config, add_pooling_layer=False)


def heads(width: int) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(1)
    return nn.Linear(width, 1), nn.Linear(width, width)


def texts(options: argparse.Namespace, step: int) -> tuple[list[list[int]], list[list[int]]]:
    """Queries of up to 32 tokens and passages of `shortest` to `longest`."""
    draw = random.Random(step)
    most = VOCABULARY if options.shape != "tiny" else 5000

    def text(length: int) -> list[int]:
        return [0, *(draw.randrange(4, most) for _ in range(length - 2)), 2]

    queries = [text(draw.randint(8, 32)) for _ in range(options.queries)]
    count = options.queries * options.group
    return queries, [text(draw.randint(options.shortest, options.longest)) for _ in range(count)]


class Ours:
    def __init__(self, options: argparse.Namespace) -> None:
        from triptych.config import M3Config
        from triptych.model.forward import run_layer
        from triptych.model.m3 import M3Model
        from triptych.model.packed import SpecialIds

        inner: Any = backbone(options)
        if options.checkpointing:
            getattr(inner, "activation_checkpointing_enable", inner.gradient_checkpointing_enable)()
        self.model = M3Model(inner, M3Config(multi_dim=inner.config.hidden_size), SpecialIds(0, 2, 1, 3))
        self.model.lexical_head, self.model.multi_head = heads(inner.config.hidden_size)
        if options.compile:
            self.model.run_layer = torch.compile(run_layer, dynamic=True)
        self.options = options

    def step(self, queries: list[list[int]], passages: list[list[int]]) -> torch.Tensor:
        from triptych.model.packed import Packed
        from triptych.train import gradcache
        from triptych.train.collate import PairBatch
        from triptych.train.objective import Objective
        from triptych.train.tasks import encode, pair_losses
        from triptych.types import HEADS

        device = torch.device(self.options.device)
        batch = PairBatch(Packed.of(queries), Packed.of(passages), self.options.group)
        parts = [part.to(device) for part in gradcache.split(batch.joint(), self.options.sub_batch_tokens)]

        def one(part: gradcache.SubBatch) -> Any:
            with autocast(self.options):
                return encode(self.model, part, HEADS)

        found = gradcache.backward(
            one,
            parts,
            lambda reps: pair_losses(Objective(drop_duplicates=False), reps, batch, 0),
        )
        return found["loss"]


class FlagEmbedding:
    def __init__(self, options: argparse.Namespace) -> None:
        from FlagEmbedding.finetune.embedder.encoder_only.m3.modeling import EncoderOnlyEmbedderM3Model

        inner: Any = backbone(options)
        if options.checkpointing:
            inner.gradient_checkpointing_enable({"use_reentrant": False})
        lexical, multi = heads(inner.config.hidden_size)
        tokenizer: Any = SimpleNamespace(
            cls_token_id=0, pad_token_id=1, eos_token_id=2, unk_token_id=3, padding_side="right"
        )
        self.model = EncoderOnlyEmbedderM3Model(
            {"model": inner, "colbert_linear": multi, "sparse_linear": lexical},
            tokenizer=tokenizer,
            temperature=0.02,
            normalize_embeddings=True,
            use_self_distill=True,
            sub_batch_size=-1,
        )
        self.options = options

    def step(self, queries: list[list[int]], passages: list[list[int]]) -> torch.Tensor:
        with autocast(self.options):
            loss = self.model(queries=self.padded(queries), passages=self.padded(passages)).loss
        loss.backward()
        return loss.detach()

    def padded(self, batch: list[list[int]]) -> dict[str, torch.Tensor]:
        """As its collator pads: to the longest."""
        longest = max(map(len, batch))
        ids = torch.tensor([text + [1] * (longest - len(text)) for text in batch], device=self.options.device)
        return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def autocast(options: argparse.Namespace) -> Any:
    if options.dtype == "float32":
        return nullcontext()
    return torch.autocast(torch.device(options.device).type, dtype=torch.bfloat16)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """One system's round: warm-up, then the timed steps."""
    system: Any = (Ours if options.system == "ours" else FlagEmbedding)(options)
    system.model.to(options.device).train()
    optimizer = torch.optim.AdamW(system.model.parameters(), lr=1e-5, fused=True)
    cuda = options.device.startswith("cuda")
    empty = _memory(cuda)
    losses: list[float] = []
    wall = cpu = 0.0
    for number in range(options.warmup + options.steps):
        batch = texts(options, number)
        if cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter(), time.process_time()
        loss = system.step(*batch)
        nn.utils.clip_grad_norm_(system.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize()
        if number >= options.warmup:
            wall += time.perf_counter() - begin[0]
            cpu += time.process_time() - begin[1]
        losses.append(round(float(loss), 5))
    peak = _memory(cuda)
    return {
        "examples_per_second": options.queries * options.steps / wall,
        "examples_per_cpu_second": options.queries * options.steps / cpu,
        "peak_gb": peak,
        "peak_over_weights_gb": peak - empty,
        "losses": losses,
    }


def _memory(cuda: bool) -> float:
    if cuda:
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="by default bfloat16 on GPUs")
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--shortest", type=int, default=16)
    parser.add_argument("--longest", type=int, default=128)
    parser.add_argument("--sub-batch-tokens", type=int, help="GradCache, ours alone")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, both")
    parser.add_argument("--compile", action="store_true", help="torch.compile, ours alone")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--system", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.dtype = options.dtype or ("bfloat16" if options.device.startswith("cuda") else "float32")
    if options.system:
        options.result.write_text(json.dumps(work(options)), encoding="utf-8")
        return
    facts = {
        key: value
        for key, value in vars(options).items()
        if key not in ("out", "system", "result", "systems")
    }
    place = torch.cuda.get_device_name() if options.device.startswith("cuda") else f"{platform.machine()} CPU"
    for number in range(options.rounds):
        for system in options.systems:
            with tempfile.NamedTemporaryFile(suffix=".json") as file:
                command = [sys.executable, __file__, *sys.argv[1:], "--system", system, "--result", file.name]
                done = subprocess.run(
                    command, check=False, stderr=subprocess.PIPE, text=True, env=KEEP | os.environ
                )
                content = Path(file.name).read_text(encoding="utf-8")
            # The last line of the error says it: out of memory, most likely.
            result = (
                json.loads(content)
                if content
                else {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:300]}
            )
            line = json.dumps(
                {
                    "benchmark": "unified step",
                    "system": system,
                    "round": number,
                    "place": place,
                    **facts,
                    **result,
                }
            )
            print(line, flush=True)
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                with options.out.open("a", encoding="utf-8") as log:
                    log.write(line + "\n")


if __name__ == "__main__":
    main()
