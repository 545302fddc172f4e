"""Tiny random encoders and batches for the tests of execution."""

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from triptych.model.packed import Packed

VOCABULARY = 97
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 70,
}


def make(kind: str, seed: int = 0, **changes: Any) -> nn.Module:
    """A random encoder in evaluation mode; its weights are larger than at a real start, so that errors show."""
    sizes = {**SIZES, "pad_token_id": 1, **changes}
    torch.manual_seed(seed)
    models: dict[str, Any] = {
        "bert": lambda: BertModel(BertConfig(**{**sizes, "pad_token_id": 0}), add_pooling_layer=False),
        "roberta": lambda: RobertaModel(RobertaConfig(**sizes), add_pooling_layer=False),
        "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**sizes), add_pooling_layer=False),
        "modernbert": lambda: ModernBertModel(
            ModernBertConfig(**sizes, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3)
        ),
    }
    model = models[kind]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.15 if parameter.dim() == 2 else 0.3
            parameter.copy_(torch.randn_like(parameter) * scale + ("LayerNorm.weight" in name))
    return model


def batch(lengths: list[int], seed: int = 0, low: int = 4) -> Packed:
    """Texts of random ids from `low` on."""
    rng = np.random.default_rng(seed)
    return Packed.of([rng.integers(low, VOCABULARY, length) for length in lengths])
