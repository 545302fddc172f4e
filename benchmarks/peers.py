"""Libraries that the encoding benchmark also compares; most are not in this project's environment.

Install them into a folder of their own and put that on the path; a system whose packages are missing is left out,
and the benchmark says so:

    pip install --no-deps --target build/peers openvino openvino-telemetry bge-m3-lite     # what is compared
    pip install --no-deps --target build/peers nncf ninja pydot tabulate networkx          # for OpenVINO in 8 bits
    pip install --no-deps --target build/peers fastembed py-rust-stemmers mmh3 loguru m3serve
    PYTHONPATH=build/peers python benchmarks/encode.py --systems triptych openvino bge-m3-lite fastembed m3serve

None of them reads a checkpoint folder of random weights by itself: OpenVINO and onnxruntime get our own ONNX graph
with all three heads; bge-m3-lite takes a graph of the backbone, but heads and tokenizer only as the published files,
known by their digests, so its look-up is replaced and hands it the same weights and our tokenizer. fastembed gets the
graph of the backbone as a custom model and makes dense vectors alone; m3serve reads the folder itself.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from triptych.types import Floats

NEEDS = {
    "openvino": ("openvino",),
    "openvino-int8": ("openvino", "nncf"),
    "bge-m3-lite": ("bge_m3_lite", "onnxruntime"),
    "onnxruntime": ("onnxruntime",),
    "onnxruntime-int8": ("onnxruntime",),
    "fastembed": ("fastembed", "onnxruntime"),
    "m3serve": ("m3serve",),
}
# Texts that choose the ranges of 8-bit activations.
_CALIBRATION = 24


def missing(name: str, hidden: int) -> str | None:
    """Why a system cannot be measured here; None: it can."""
    absent = [package for package in NEEDS.get(name, ()) if find_spec(package) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if name == "bge-m3-lite" and hidden != 1024:
        return "it reads nothing but BGE-M3's own shape"
    return None


def prepare(folder: Path, names: list[str]) -> None:
    """Writes the graphs that these systems run, unless they are there; large models need some memory for it."""
    from triptych import Encoder

    if any(name in NEEDS for name in names) and not (folder / "heads.onnx").exists():
        Encoder.from_pretrained(folder, device="cpu").export_onnx(folder / "heads.onnx")
    if {"bge-m3-lite", "fastembed"} & set(names) and not (folder / "states.onnx").exists():
        _export_states(folder)
    if "onnxruntime-int8" in names and not (folder / "heads_dynamic8.onnx").exists():
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(folder / "heads.onnx", folder / "heads_dynamic8.onnx", use_external_data_format=True)
    if "openvino-int8" in names and not (folder / "heads_int8.xml").exists():
        _quantize(folder)


def _export_states(folder: Path) -> None:
    """The backbone alone, its output named as bge-m3-lite expects it."""
    import onnx
    import torch

    from triptych.model import checkpoint as layouts
    from triptych.model import onnx as onnx_export

    class States(onnx_export.PaddedModel):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor]:
            return (self._states(input_ids, attention_mask.bool()),)

    model = layouts.load(folder).model.float().eval()
    program = onnx_export._program(States(model), ("token_embeddings",), model.special)  # type: ignore[arg-type]
    program.save(str(folder / "states.onnx"), external_data=True)
    onnx.checker.check_model(str(folder / "states.onnx"))


def _quantize(folder: Path) -> None:
    """OpenVINO's own 8 bits: weights and activations, ranges found on a few texts."""
    import nncf
    import openvino

    from workloads import Texts, mixed_lengths

    work = Texts(folder).workload("calibration", mixed_lengths(_CALIBRATION, 256, seed=7))
    tokens = _tokenizer(folder)(work.texts, 256)
    core = openvino.Core()
    quantized = nncf.quantize(
        core.read_model(folder / "heads.onnx"),
        nncf.Dataset([_padded([ids]) for ids in tokens]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=_CALIBRATION,
    )
    openvino.save_model(quantized, folder / "heads_int8.xml")


def _tokenizer(folder: Path) -> Any:
    from triptych.model.tokenizer import TextTokenizer

    tokenizer = TextTokenizer.load(folder)
    return lambda texts, most: tokenizer.encode(texts, max_length=most).ids


def _padded(batch: list[Any]) -> dict[str, np.ndarray]:
    width = max(len(ids) for ids in batch)
    ids = np.ones((len(batch), width), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(batch):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


def _batched(folder: Path, tokens: int, run: Any) -> Any:
    """Texts by falling length in padded batches through `run`, all heads taken, the dense one given back."""
    tokenize = _tokenizer(folder)

    def encode(texts: list[str], batch: int | None = None) -> Floats:
        ids, size = tokenize(texts, tokens), batch or 16
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        dense: list[Floats] = [np.empty(0, np.float32)] * len(ids)
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            for i, row in zip(chosen, run(_padded([ids[i] for i in chosen])), strict=True):
                dense[i] = row
        return np.stack(dense)

    return encode


def openvino(folder: Path, precision: str = "bf16", tokens: int = 8192, threads: int = 1) -> Any:
    """OpenVINO with all three heads, tuned for one batch at a time on all cores."""
    import openvino as ov

    core = ov.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    path = folder / ("heads_int8.xml" if precision == "int8" else "heads.onnx")
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    request = compiled.create_infer_request()

    def run(inputs: dict[str, np.ndarray]) -> Floats:
        outputs = request.infer(inputs, share_inputs=True, share_outputs=True)
        return np.array(outputs[0])

    encode = _batched(folder, tokens, run)
    encode.settings = {"precision": precision, "threads": threads, "openvino": ov.__version__}
    return encode


def onnxruntime(folder: Path, precision: str = "float32", tokens: int = 8192, threads: int = 1) -> Any:
    """Our graph of all heads by onnxruntime, in float32 or its dynamic 8 bits (its kernels have no bfloat16)."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    name = "heads_dynamic8.onnx" if precision == "int8" else "heads.onnx"
    session = ort.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
    encode = _batched(folder, tokens, lambda inputs: session.run(None, inputs)[0])
    encode.settings = {"dtype": precision, "threads": threads, "onnxruntime": ort.__version__}
    return encode


def fastembed(folder: Path, tokens: int = 8192, threads: int = 1) -> Any:
    """fastembed: the dense head alone, float32; it does not sort, so it gets the texts by falling length."""
    from importlib.metadata import version

    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="bench/backbone",
        pooling=PoolingType.CLS,
        normalization=True,
        sources=ModelSource(hf="bench/backbone"),
        dim=1,  # it is only reported
        model_file="states.onnx",
    )
    model = TextEmbedding("bench/backbone", specific_model_path=str(folder), threads=threads, cuda=False)

    def encode(texts: list[str], batch: int | None = None) -> Floats:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors = np.stack(list(model.embed([texts[i] for i in order], batch_size=batch or 16)))
        return vectors[np.argsort(order)]

    encode.settings = {"dtype": "float32", "threads": threads, "fastembed": version("fastembed")}  # type: ignore[attr-defined]
    return encode


def m3serve(folder: Path, tokens: int = 8192, threads: int = 1) -> Any:
    """m3serve with all three heads; on a processor it computes in float32. It sorts by length itself."""
    import asyncio
    from importlib.metadata import version

    from m3serve import Engine
    from m3serve.model import BGEM3Encoder

    encoder = BGEM3Encoder(str(folder), device="cpu", use_fp16=False, max_length=tokens)
    loop, engines = asyncio.new_event_loop(), dict[int, Any]()

    def encode(texts: list[str], batch: int | None = None) -> Floats:
        size = batch or 16
        if size not in engines:
            engines[size] = Engine(
                max_batch_size=size, batch_delay=0.0, tokenizer_threads=1, _encoder=encoder
            )
            loop.run_until_complete(engines[size].start())
        found = loop.run_until_complete(engines[size].embed(texts, return_sparse=True, return_colbert=True))
        return np.asarray(found.dense, np.float32)

    encode.settings = {"dtype": "float32", "threads": threads, "m3serve": version("m3serve")}  # type: ignore[attr-defined]
    return encode


def bge_m3_lite(folder: Path, tokens: int = 8192, threads: int = 1) -> Any:
    """bge-m3-lite with all three heads, float32.

    It wants a SentencePiece file too, which the checkpoint does not have; our tokenizer stands in for it, which
    is in its favour, since its own is written in Python. Its fused graph can only be made from the published one.
    """
    from importlib.metadata import version

    import bge_m3_lite as package
    from bge_m3_lite import embedder, hub

    tokenize = _tokenizer(folder)

    class Stand:
        PAD_ID, special_ids = 1, frozenset((0, 1, 2, 3))

        @classmethod
        def from_file(cls, _path: Path) -> Stand:
            return cls()

        @staticmethod
        def encode(text: str, max_length: int) -> list[int]:
            return tokenize([text], max_length)[0].tolist()

    local = {name: folder / name for name in ("sparse_linear.pt", "colbert_linear.pt")}
    hub.ensure_files = lambda *_, **__: {**local, "sentencepiece.bpe.model": folder}
    embedder.XLMRobertaTokenizer = Stand
    model = package.BGEM3Embedder(model_path=folder / "states.onnx", num_threads=threads, max_length=tokens)

    def encode(texts: list[str], batch: int | None = None) -> Floats:
        size = {} if batch is None else {"batch_size": batch}
        return model.encode(texts, return_sparse=True, return_colbert_vecs=True, **size)["dense_vecs"]

    encode.settings = {"dtype": "float32", "threads": threads, "bge-m3-lite": version("bge-m3-lite")}  # type: ignore[attr-defined]
    return encode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes the graphs that the systems need.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("systems", nargs="+")
    arguments = parser.parse_args()
    prepare(arguments.folder, arguments.systems)
