"""Would 8-bit floats (e4m3) pay on a GPU? Products alone, whole passes, and what they do to the dense vectors.

    python benchmarks/gpu_fp8.py [--out FILE]
    python benchmarks/gpu_fp8.py --device cpu --shape tiny     # a dry run anywhere

Products: the four of a layer of BGE-M3's shape at 8k to 32k tokens, bfloat16 against `torch._scaled_mm` with one
scale a tensor or one a row (activations) and column (weights), with and without the time that quantising the
activations takes. Passes: the inference engine with the same weights, its linear layers in either type, on a packed
batch of mixed lengths, eager and compiled. Vectors: cosines of the dense vectors to float32, random weights; what
8-bit floats cost a trained model is in benchmarks/precision_cost.py. Appends JSON lines, under 40 s on an H100.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, gelu, linear, normalize

from triptych.model.inference import Engine
from triptych.model.kernels import Kernels, TorchKernels, Weights
from triptych.model.packed import Packed
from workloads import SHAPES, Shape, mixed_lengths

RESULTS = Path(__file__).parent / "results" / "gpu_fp8.jsonl"
E4M3, LARGEST = torch.float8_e4m3fn, 448.0


def quantize(x: Tensor, *, rows: bool) -> tuple[Tensor, Tensor]:
    """Codes and the scale of each row ``[n, 1]``, or of the whole tensor ``[]``."""
    top = x.abs().amax(-1, keepdim=True) if rows else x.abs().amax()
    steps = top.float().clamp_min(1e-12) / LARGEST
    return (x.float() / steps).clamp(-LARGEST, LARGEST).to(E4M3), steps


class Fp8Kernels:
    """Linear layers in e4m3, activations quantised as they come; see `triptych.model.kernels.Kernels`.

    Args:
        rows: A scale for each token and each output in place of one for the whole tensor.
    """

    def __init__(self, *, rows: bool) -> None:
        self.rows = rows
        self.name = f"fp8-{'rows' if rows else 'tensor'}"

    def pack(self, matrix: Tensor, bias: Tensor) -> Weights:
        codes, scales = quantize(matrix, rows=self.rows)
        return Weights(codes, bias, scales.t() if self.rows else scales)

    def unpack(self, weights: Weights) -> Tensor:
        raise NotImplementedError("the probe does not give its weights back")

    def linear(self, x: Tensor, weights: Weights) -> Tensor:
        return self.product(*quantize(x, rows=self.rows), weights) + weights.bias

    def linear_gelu(self, x: Tensor, weights: Weights) -> Tensor:
        return gelu(self.linear(x, weights))

    def linear_add(self, x: Tensor, weights: Weights, residual: Tensor) -> Tensor:
        return self.linear(x, weights) + residual

    @staticmethod
    def product(codes: Tensor, steps: Tensor, weights: Weights) -> Tensor:
        """The product alone, into bfloat16."""
        return torch._scaled_mm(
            codes,
            weights.matrix.t(),
            scale_a=steps,
            scale_b=weights.scales,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )


class Probe:
    """Times on the device, lines into the file."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device, self.out, self.begin = torch.device(options.device), options.out, time.perf_counter()
        gpu = torch.cuda.get_device_name() if self.device.type == "cuda" else "none"
        self.facts = {
            "run": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "shape": options.shape,
            "machine": {"gpu": gpu, "cuda": torch.version.cuda, "versions": {"torch": version("torch")}},
        }

    def add(self, **line: Any) -> None:
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**self.facts, **line}) + "\n")
        print(f"[{time.perf_counter() - self.begin:5.1f} s]", json.dumps(line), flush=True)

    def part(self, run: Callable[[], None]) -> None:
        """Runs a part; one that fails does not stop the others."""
        try:
            run()
        except Exception:
            print("A PART FAILED", flush=True)
            traceback.print_exc()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def seconds(self, run: Callable[[], Any], repeat: int = 10, warm: int = 3) -> float:
        times = []
        for i in range(warm + repeat):
            self._sync()
            begin = time.perf_counter()
            run()
            self._sync()
            times += [time.perf_counter() - begin] if i >= warm else []
        return statistics.median(times)

    def _sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def products(probe: Probe, shape: Shape, tokens: list[int]) -> None:
    """The four products of a layer; each with its bias, as the engine needs them."""
    h, f = shape.hidden, shape.ffn
    sizes = {"qkv": (h, 3 * h), "out": (h, h), "up": (h, f), "down": (f, h)}
    ways = {"tensor": Fp8Kernels(rows=False), "rows": Fp8Kernels(rows=True)}
    fused = torch.compile(quantize, dynamic=True) if probe.device.type == "cuda" else quantize
    for name, (width, outputs) in sizes.items():
        matrix = (torch.randn(outputs, width, device=probe.device) * 0.03).bfloat16()
        bias = torch.randn(outputs, device=probe.device).bfloat16()
        for count in tokens:
            x = torch.randn(count, width, device=probe.device).bfloat16()
            line: dict[str, Any] = {"part": "product", "product": name, "tokens": count}
            line["bfloat16_ms"] = 1e3 * probe.seconds(lambda x=x, m=matrix, b=bias: linear(x, m, b))
            exact = linear(x[:256].float(), matrix.float())
            for way, kernels in ways.items():
                weights = kernels.pack(matrix, bias)
                codes, steps = quantize(x, rows=kernels.rows)
                got = kernels.product(codes[:256], steps[:256] if kernels.rows else steps, weights).float()
                alone = probe.seconds(lambda c=codes, s=steps, w=weights: Fp8Kernels.product(c, s, w))
                each = probe.seconds(lambda x=x, r=kernels.rows: fused(x, rows=r))
                line[f"{way}_ms"], line[f"{way}_quantize_ms"] = 1e3 * alone, 1e3 * each
                line[f"{way}_relative_error"] = float((got - exact).norm() / exact.norm())
            flops = 2 * count * width * outputs
            probe.add(
                **line,
                bfloat16_tflops=flops / line["bfloat16_ms"] / 1e9,
                rows_tflops=flops / line["rows_ms"] / 1e9,
                tensor_tflops=flops / line["tensor_ms"] / 1e9,
            )


def backbone(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """Random weights of a shape, the same at each call."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(
        vocab_size=32_000,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=1026,
        type_vocab_size=1,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = XLMRobertaModel(config, add_pooling_layer=False)
    return model.to(dtype).eval()


def batch_of(device: torch.device, budget: int) -> Packed:
    """Random ids in texts of mixed lengths under 1,000 tokens, longest first, up to `budget` tokens."""
    generator = torch.Generator().manual_seed(1)
    texts, total = list[list[int]](), 0
    for length in mixed_lengths(4096, 1000):
        if total + length > budget:
            break
        texts.append([0, *torch.randint(4, 32_000, (length - 2,), generator=generator).tolist(), 2])
        total += length
    return Packed.of(sorted(texts, key=len, reverse=True), device)


def passes(probe: Probe, shape: Shape, budget: int) -> None:
    """The whole pass in each type, and how near the first states, normalised, stay to float32's."""
    some, large = batch_of(probe.device, min(budget, 4096)), batch_of(probe.device, budget)
    flops = shape.flops(list(large.lengths), all_heads=False)
    ways: dict[str, tuple[torch.dtype, Kernels]] = {
        "float32": (torch.float32, TorchKernels(torch.float32)),
        "bfloat16": (torch.bfloat16, TorchKernels(torch.bfloat16)),
        "fp8-rows": (torch.bfloat16, Fp8Kernels(rows=True)),
        "fp8-tensor": (torch.bfloat16, Fp8Kernels(rows=False)),
    }
    exact: Tensor | None = None
    with torch.inference_mode():
        for name, (dtype, kernels) in ways.items():
            engine = Engine(backbone(shape, probe.device, dtype), kernels)
            dense = normalize(engine(some, first_only=True).float(), dim=-1)
            exact = dense if exact is None else exact
            # Random weights put all texts near one point; what tells them apart is what is left without it.
            cosine, apart = (
                cosine_similarity(dense, exact),
                cosine_similarity(dense - exact.mean(0), exact - exact.mean(0)),
            )
            line: dict[str, Any] = {"least_cosine": float(cosine.min()), "mean_cosine": float(cosine.mean())}
            line["least_centred_cosine"], line["mean_centred_cosine"] = (
                float(apart.min()),
                float(apart.mean()),
            )
            if name == "float32":
                probe.add(part="pass", way=name, texts=len(some), **line)
                continue
            for mode in ("eager", "compiled"):
                if mode == "compiled":
                    if probe.device.type != "cuda" or name == "fp8-tensor":
                        continue
                    engine.accelerate(compile=True, graphs=False)
                seconds = probe.seconds(lambda e=engine: e(large), 5, 2)
                line[f"{mode}_ms"], line[f"{mode}_tokens_per_s"] = 1e3 * seconds, len(large.ids) / seconds
                line[f"{mode}_tflops"] = flops / seconds / 1e12
            probe.add(part="pass", way=name, tokens=len(large.ids), **line)
            del engine


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="m3", choices=list(SHAPES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    probe, shape = Probe(options), SHAPES[options.shape]
    small = probe.device.type != "cuda"
    probe.part(lambda: products(probe, shape, [256] if small else [8192, 16384, 32768]))
    probe.part(lambda: passes(probe, shape, 1024 if small else 32768))


if __name__ == "__main__":
    main()
