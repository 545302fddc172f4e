"""What the encoding benchmarks run: checkpoints of known shapes, texts of known lengths, and what they must cost."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from triptych.model import hub
from triptych.model.tokenizer import TextTokenizer

PLAIN_WORDS = 250_000


@dataclass(frozen=True)
class Shape:
    """Sizes of an XLM-R encoder with the three heads."""

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    max_tokens: int
    multi: int

    def flops(self, lengths: list[int], all_heads: bool = True) -> float:
        """Multiplications and additions of the products that encoding must do, without any padding."""
        tokens = sum(lengths)
        linear = 2 * tokens * self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.ffn)
        attention = 4 * self.layers * self.hidden * sum(length * length for length in lengths)
        return linear + attention + (2 * tokens * self.hidden * (self.multi + 1) if all_heads else 0)

    def layer_bytes(self, per_weight: int = 2) -> int:
        """Bytes of the layers' weights: what one pass has to read at least."""
        return per_weight * self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.ffn)


SHAPES = {
    "m3": Shape("m3", 24, 1024, 16, 4096, 8192, 1024),
    "small": Shape("small", 12, 384, 12, 1536, 512, 384),
    "tiny": Shape("tiny", 2, 64, 4, 128, 8192, 64),
}


def make_checkpoint(shape: Shape, folder: Path, *, device: str = "cpu", plain: bool = False) -> Path:
    """Writes random weights of a shape in the published layout; every library in the comparison reads it.

    The time does not depend on the weights' values.

    Args:
        shape: Sizes.
        folder: Made if needed; a folder that is complete is kept.
        device: Where the random numbers are drawn.
        plain: A tokenizer of numbered words, for machines that have only part of this project's dependencies;
            otherwise the bundled model's, which is XLM-R's.
    """
    if (folder / "colbert_linear.pt").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if plain:
        _plain_tokenizer(folder)
    else:
        TextTokenizer.load(hub.resolve("small")).save(folder)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": shape.max_tokens}
    path.write_text(json.dumps(values), encoding="utf-8")
    config = XLMRobertaConfig(
        vocab_size=len(TextTokenizer.load(folder).tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=shape.max_tokens + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = XLMRobertaModel(config, add_pooling_layer=False)
    model.cpu().save_pretrained(folder)
    for name, rows in (("sparse_linear.pt", 1), ("colbert_linear.pt", shape.multi)):
        state = {"weight": torch.randn(rows, shape.hidden) * 0.02, "bias": torch.zeros(rows)}
        torch.save(state, folder / name)
    return folder


def _plain_tokenizer(folder: Path) -> None:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(PLAIN_WORDS))])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(zip(("bos", "pad", "eos", "unk", "mask"), special, strict=True)) | {
        "cls": "<s>",
        "sep": "</s>",
    }
    PreTrainedTokenizerFast(
        tokenizer_object=backend, **{f"{name}_token": token for name, token in names.items()}
    ).save_pretrained(folder)


@dataclass(frozen=True)
class Workload:
    """Texts to encode at once, or one after another (`single`)."""

    name: str
    texts: list[str]
    lengths: list[int]
    single: bool = False

    @property
    def tokens(self) -> int:
        """Real tokens, special ones included."""
        return sum(self.lengths)


class Texts:
    """Real text in many languages, cut to any number of tokens.

    Args:
        folder: A checkpoint folder; lengths are counted in its tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        self.backend = TextTokenizer.load(folder).backend
        self.rng = np.random.default_rng(0)
        self.words = self._words()

    def _words(self) -> list[str]:
        if self.backend.token_to_id("w7") is not None:
            return [f"w{i}" for i in self.rng.integers(0, PLAIN_WORDS, 100_000)]
        from triptych.demo import load_corpus

        return [word for document in load_corpus() for word in document.text.split()]

    def of_length(self, tokens: int) -> str:
        """A passage of about so many tokens, the two special ones counted."""
        start = int(self.rng.integers(len(self.words)))
        text = " ".join(self.words[(start + i) % len(self.words)] for i in range(tokens))
        encoding = self.backend.encode(text, add_special_tokens=False)
        return text[: encoding.offsets[min(tokens - 2, len(encoding.offsets)) - 1][1]]

    def workload(self, name: str, lengths: list[int], *, single: bool = False) -> Workload:
        """Texts of these lengths; what they are exactly is counted again."""
        texts = [self.of_length(length) for length in lengths]
        exact = [len(e.ids) + 2 for e in self.backend.encode_batch_fast(texts, add_special_tokens=False)]
        return Workload(name, texts, exact, single)


def mixed_lengths(count: int, longest: int, seed: int = 0) -> list[int]:
    """Log-normal, median 56 tokens, 95th percentile 461: a knowledge base's passages and pages."""
    drawn = np.exp(np.random.default_rng(seed).normal(math.log(56), 1.28, count))
    return [int(length) for length in drawn.round().clip(8, longest)]


def workloads(shape: Shape, folder: Path, scale: float = 1.0) -> list[Workload]:
    """Short texts, a realistic mix, long documents, and single queries.

    Args:
        shape: Sets the longest text.
        folder: A checkpoint folder, for the tokenizer.
        scale: Multiplies the numbers of texts.
    """
    source, rng = Texts(folder), np.random.default_rng(1)

    def count(texts: int) -> int:
        return max(1, round(texts * scale))

    long = 2 if shape.max_tokens > 1000 else 24
    return [
        source.workload("short", rng.integers(6, 24, count(128)).tolist()),
        source.workload("mix", mixed_lengths(count(96), min(2048, shape.max_tokens))),
        source.workload("long", [shape.max_tokens] * count(long)),
        source.workload("query", rng.integers(8, 16, count(24)).tolist(), single=True),
    ]
