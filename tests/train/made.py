"""Random representations, and a tiny model with random weights, for the tests of training."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

import checkpoints
from checkpoints import make
from triptych.config import M3Config
from triptych.model import checkpoint as layouts
from triptych.model.backbone import without_pooler
from triptych.model.checkpoint import Checkpoint
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed, Reps
from triptych.model.tokenizer import TextTokenizer

VOCABULARY = 30


def reps(lengths: Sequence[int], seed: int, *, width: int = 8, dtype: torch.dtype = torch.float32) -> Reps:
    """Representations of texts of given lengths; ids repeat, some lexical weights are 0."""
    torch.manual_seed(seed)
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    total = int(offsets[-1])
    vectors = [length - 1 for length in lengths]
    return Reps(
        ids=torch.randint(4, VOCABULARY, (total,)),
        offsets=offsets,
        dense=normalize(torch.randn(len(lengths), width, dtype=dtype), dim=-1).requires_grad_(),
        lexical=torch.relu(torch.randn(total, dtype=dtype)).requires_grad_(),
        multi=normalize(torch.randn(sum(vectors), width, dtype=dtype), dim=-1).requires_grad_(),
        multi_offsets=torch.tensor([0, *torch.tensor(vectors).cumsum(0).tolist()]),
    )


def tiny(folder: Path, kind: str = "xlm-roberta", *, dropout: float = 0.1) -> Checkpoint:
    """A model of two layers with random weights."""
    checkpoint = layouts.load(make(kind, folder))
    for module in checkpoint.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return checkpoint


def tokens(lengths: Sequence[int], seed: int = 0) -> Packed:
    """Texts of random ids between [CLS] and [EOS]."""
    draw = torch.Generator().manual_seed(seed)
    texts = [[0, *torch.randint(4, VOCABULARY, (n - 2,), generator=draw).tolist(), 2] for n in lengths]
    return Packed.of(texts)


def tiny_model(folder: Path, *, dropout: float = 0.1) -> Path:
    """A folder in our layout with a tiny model whose tokenizer has a mask."""
    tokenizer = checkpoints.xlmr_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder: Any = checkpoints.ENCODERS["xlm-roberta"](tokenizer)
        encoder.config.hidden_dropout_prob = encoder.config.attention_probs_dropout_prob = dropout
        wrapped = TextTokenizer.of(tokenizer, "test")
        config = M3Config(max_length=32, multi_dim=16)
        model = M3Model(without_pooler(encoder), config, wrapped.special)
    layouts.save(Checkpoint(model, wrapped), folder)
    return folder


def write_pairs(path: Path, rows: int = 40, negatives: int = 2) -> Path:
    """Training data of a few words: the positive repeats the query's words."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            query = " ".join(draw.choices(checkpoints.WORDS, k=draw.randint(1, 4)))
            others = [
                " ".join(draw.choices(checkpoints.WORDS, k=draw.randint(2, 12))) for _ in range(negatives)
            ]
            record = {"query": query, "pos": [f"{query} {number}", f"the {query}"], "neg": others}
            file.write(json.dumps(record) + "\n")
    return path


def write_texts(path: Path, rows: int = 40) -> Path:
    """Raw texts of a few words."""
    draw = random.Random(1)
    lines = [" ".join(draw.choices(checkpoints.WORDS, k=draw.randint(2, 30))) for _ in range(rows)]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    return path


def write_beir(folder: Path) -> Path:
    """A collection in which each document answers one query."""
    (folder / "qrels").mkdir(parents=True)
    documents = [f"{word} {i} is the text" for i, word in enumerate(checkpoints.WORDS)]
    write_lines(folder / "corpus.jsonl", [{"_id": f"d{i}", "text": text} for i, text in enumerate(documents)])
    queries = [{"_id": f"q{i}", "text": word} for i, word in enumerate(checkpoints.WORDS)]
    write_lines(folder / "queries.jsonl", queries)
    lines = [f"q{i}\td{i}\t1\n" for i in range(len(documents))]
    (folder / "qrels" / "dev.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8"
    )
    return folder


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """JSON Lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
