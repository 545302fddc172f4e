"""The libraries that the encoding benchmarks compare, each behind one function of texts.

Settings are each library's best that we know of: its text sorting on, its batch size tuned, its fastest type
that it runs in on the device.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import peers
from triptych.types import Floats

Encode = Callable[[list[str]], Floats]


def triptych(folder: Path, dtype: str = "auto", heads: tuple[str, ...] | None = None, **options: Any) -> Any:
    """Ours: all heads unless told otherwise."""
    from triptych import Encoder

    encoder = Encoder.from_pretrained(folder, dtype=dtype, **options)  # type: ignore[arg-type]

    def encode(texts: list[str], batch: int | None = None) -> Floats:
        return encoder.encode(texts, outputs=heads, token_budget=batch).dense

    encode.settings = encoder.describe()  # type: ignore[attr-defined]
    encode.encoder = encoder  # type: ignore[attr-defined]
    return encode


def flag_embedding(folder: Path, dtype: str = "float32", device: str = "cpu", tokens: int = 8192) -> Any:
    """FlagEmbedding: all three heads.

    Two things are put right in its favour: its bfloat16 on a processor, which fails otherwise, and, for more
    than one text, that it runs the first (longest) batch twice, which in a small benchmark would cost it much.
    """
    import torch

    model = _published_class()(
        str(folder),
        use_fp16=dtype == "float16",
        use_bf16=dtype == "bfloat16" and device != "cpu",
        devices=device,
    )
    if dtype == "bfloat16" and device == "cpu":
        model.model.to(torch.bfloat16)
        model.model.float = lambda: model.model  # it converts its model at each call on a processor
        model._convert_to_numpy = lambda part, device=None: (
            part.float() if part.is_floating_point() else part
        ).numpy()

    forward, trials = model.model.forward, [0]

    def skipping(*args: Any, **kwargs: Any) -> Any:
        if trials[0]:
            trials[0] -= 1
            return {}  # it looks only at whether this fails
        return forward(*args, **kwargs)

    model.model.forward = skipping

    def encode(texts: list[str], batch: int | None = None) -> Floats:
        trials[0] = int(len(texts) > 1)
        return np.asarray(
            model.encode(
                texts,
                batch_size=batch or 16,
                max_length=tokens,
                return_dense=True,
                return_sparse=True,
                return_colbert_vecs=True,
            )["dense_vecs"],
            dtype=np.float32,
        )

    encode.settings = {"dtype": dtype, "device": device}  # type: ignore[attr-defined]
    return encode


def _published_class() -> Any:
    """FlagEmbedding's class, also where packages are missing that only its training uses."""
    import sentence_transformers  # noqa: F401  # looks for these packages itself, and must not find ours
    import transformers  # noqa: F401

    missing = [name for name in ("peft", "datasets", "ir_datasets") if find_spec(name) is None]
    sys.modules.update({name: _Absent(name) for name in missing})
    try:
        from FlagEmbedding import BGEM3FlagModel
    finally:
        for name in missing:
            del sys.modules[name]
    return BGEM3FlagModel


class _Absent(ModuleType):
    """A module whose every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def sentence_transformers(
    folder: Path, dtype: str = "bfloat16", device: str = "cpu", tokens: int = 8192, attention: str = "sdpa"
) -> Any:
    """sentence-transformers: the dense head alone, since it has no lexical one in the same pass."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    kind = getattr(torch, dtype)
    body = Transformer(str(folder), model_kwargs={"dtype": kind, "attn_implementation": attention})
    body.max_seq_length = tokens
    width = body.get_embedding_dimension()
    model = SentenceTransformer(modules=[body, Pooling(width, "cls"), Normalize()], device=device)

    def encode(texts: list[str], batch: int | None = None) -> Floats:
        vectors = model.encode(texts, batch_size=batch or 16, convert_to_tensor=True, show_progress_bar=False)
        return vectors.float().cpu().numpy()

    encode.settings = {"dtype": dtype, "device": device, "attention": attention}  # type: ignore[attr-defined]
    return encode


def limit(*_: Any, dtype: str = "bfloat16", **__: Any) -> Any:
    """The matrix product that a layer of BGE-M3's shape needs, in a loop: the arithmetic limit."""
    import torch

    from triptych.model.kernels import choose

    kernels, _why = choose(torch.device("cpu"), getattr(torch, dtype))
    x = torch.randn(2048, 1024).to(getattr(torch, dtype))
    weights = kernels.pack(torch.randn(4096, 1024) * 0.03, torch.randn(4096))

    def encode(texts: list[str], batch: int | None = None) -> Floats:
        with torch.inference_mode():
            for _ in range(40):
                kernels.linear(x, weights)
        return np.zeros((1, 1), np.float32)

    encode.settings = {"kernels": kernels.name, "flops": 40 * 2 * 2048 * 1024 * 4096}  # type: ignore[attr-defined]
    return encode


SYSTEMS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "triptych": (triptych, {}),
    "triptych-dense": (triptych, {"heads": ("dense",)}),
    "triptych-int8": (triptych, {"dtype": "int8"}),
    "triptych-float32": (triptych, {"dtype": "float32"}),
    "flagembedding": (flag_embedding, {}),
    "flagembedding-bfloat16": (flag_embedding, {"dtype": "bfloat16"}),
    "sentence-transformers": (sentence_transformers, {}),
    "sentence-transformers-float32": (sentence_transformers, {"dtype": "float32"}),
    "openvino": (peers.openvino, {}),
    "openvino-int8": (peers.openvino, {"precision": "int8"}),
    "bge-m3-lite": (peers.bge_m3_lite, {}),
    "onnxruntime": (peers.onnxruntime, {}),
    "onnxruntime-int8": (peers.onnxruntime, {"precision": "int8"}),
    "fastembed": (peers.fastembed, {}),
    "m3serve": (peers.m3serve, {}),
    "limit": (limit, {}),
}


def load(name: str, folder: Path, tokens: int, threads: int = 1) -> Any:
    """One of `SYSTEMS` with its model."""
    make, options = SYSTEMS[name]
    if name in peers.NEEDS:
        options = {**options, "tokens": tokens, "threads": threads}
    if make in (flag_embedding, sentence_transformers):
        options = {**options, "tokens": tokens}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(folder, **options)


def one_by_one(encode: Encode, texts: list[str]) -> list[float]:
    """Seconds of each text alone."""
    seconds = []
    for text in texts:
        begin = time.perf_counter()
        encode([text])
        seconds.append(time.perf_counter() - begin)
    return seconds
