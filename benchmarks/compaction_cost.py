"""What compacting the bundled model costs in nDCG@10, head by head.

    python benchmarks/compaction_cost.py qa-train.jsonl.zst --text docs.jsonl.zst --model TRAINED

The passages and questions are those that `recipes/small/qa_split.py` sets aside for development. TRAINED is the model
before `recipes/small/bundled_model.py ship`, whose layers are float32: what 8 and 4 bits cost there is measured. Its
word vectors come in blocks of 4 bits, so that what their first rounding cost cannot be seen here; what is measured is
what it costs to go on: one scale a row in place of one for 32 columns, in 8 or 4 bits, and a vocabulary without the
pieces that the text does not use (its tokenizer then cuts words differently; the development articles are not read).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from triptych.encode.encoder import Encoder
from triptych.io import write_atomically, write_json
from triptych.model import tensors as compact
from triptych.scores.on_numpy import combine, head_scores
from triptych.types import HEADS, Encoded, Floats, Head, HeadWeights

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "small"))
from bundled_model import WORDS as TABLE
from bundled_model import is_matrix
from development import Pool, ndcg10, pool
from qa_split import read

Tensors = dict[str, Any]


def main() -> None:
    arguments = _arguments()
    development = pool(list(read([arguments.qa])), arguments.passages, arguments.questions)
    source = compact.read_tensors(arguments.model / "model.safetensors")
    result: dict[str, Any] = {
        "model": arguments.model.name,
        "passages": len(development.passages),
        "questions": len(development.questions),
        "variants": {},
    }
    for name, change in _variants(arguments).items():
        with tempfile.TemporaryDirectory() as folder:
            megabytes = change(arguments.model, source, Path(folder))
            figures = measured(Path(folder), development)
        result["variants"][name] = {"MB": round(megabytes, 1), "nDCG@10": figures}
        print(
            f"{name:32} {megabytes:6.1f} MB  "
            + "  ".join(f"{k} {v['mean']:.4f}" for k, v in figures.items()),
            flush=True,
        )
    _add_differences(result["variants"])
    write_json(arguments.out, result)


def _arguments() -> argparse.Namespace:
    here = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("qa", type=Path, help="passages with questions (JSONL in zstd)")
    parser.add_argument("--text", type=Path, action="append", default=[], help="text whose pieces are kept")
    parser.add_argument("--model", type=Path, default=here / "src/triptych/models/small")
    parser.add_argument("--out", type=Path, default=here / "benchmarks/results/compaction.json")
    parser.add_argument("--passages", type=int, default=60, help="most passages of a set and language")
    parser.add_argument("--questions", type=int, default=25, help="most questions of a set and language")
    return parser.parse_args()


def _variants(arguments: argparse.Namespace) -> dict[str, Callable[[Path, Tensors, Path], float]]:
    """Name → function that writes a changed model and says how large the part is that the name speaks of."""
    variants: dict[str, Callable[[Path, Tensors, Path], float]] = {
        "words in 4 bits, blocks of 32 (source)": _as_it_is,
        "layers in 8 bits": _layers(8),
        "layers in 4 bits": _layers(4),
        "words in 8 bits, one scale a row": _rows8,
        "words in 4 bits, one scale a row": _rows4,
    }
    if arguments.text:
        counts = piece_counts(arguments.model, (p.text for p in read(arguments.text) if not p.is_development))
        for least in (1, 10):
            kept = {piece for piece, count in counts.items() if count >= least}
            variants[f"pieces seen {least} times or more"] = _pruner(kept)
    return variants


def measured(folder: Path, development: Pool) -> dict[str, dict[str, float]]:
    """nDCG@10 of every head and of all with the default weights."""
    encoder = Encoder.from_pretrained(folder, dtype="float32")
    queries = encoder.encode_query(development.questions)
    passages = encoder.encode_document(development.passages)
    return _figures(queries, passages, development)


def _figures(queries: Encoded, passages: Encoded, development: Pool) -> dict[str, dict[str, float]]:
    scores: dict[Head, Floats] = {head: head_scores(queries, passages, head) for head in HEADS}
    figures: dict[str, dict[str, float]] = {head: ndcg10(each, development) for head, each in scores.items()}
    return {**figures, "all": ndcg10(combine(scores, HeadWeights()), development)}


def _add_differences(variants: dict[str, Any]) -> None:
    first = next(iter(variants.values()))["nDCG@10"]
    for variant in variants.values():
        variant["difference"] = {
            head: round(figures["mean"] - first[head]["mean"], 4)
            for head, figures in variant["nDCG@10"].items()
        }


def _write(model: Path, tensors: Tensors, folder: Path) -> None:
    """The model with other tensors; what `model` has beside them is linked."""
    for path in model.iterdir():
        if path.name != "model.safetensors":
            (folder / path.name).symlink_to(path.resolve())
    compact.write_tensors(folder / "model.safetensors", tensors)


def _as_it_is(model: Path, tensors: Tensors, folder: Path) -> float:
    _write(model, tensors, folder)
    return _four_bit_size(len(tensors[TABLE]), tensors[TABLE].shape[1])


def _four_bit_size(rows: int, columns: int) -> float:
    return rows * columns * 18 / 32 / 1e6


def _layers(bits: int) -> Callable[[Path, Tensors, Path], float]:
    """A function that writes a model whose matrices but the word vectors are rounded."""

    def round_layers(model: Path, tensors: Tensors, folder: Path) -> float:
        few = {n: compact.Quantized.of(t, bits) for n, t in tensors.items() if is_matrix(n, t)}
        _write(model, {**tensors, **{name: each.dequantize() for name, each in few.items()}}, folder)
        return sum(each.codes.nbytes + each.scales.nbytes for each in few.values()) / 1e6

    return round_layers


def _rows8(model: Path, tensors: Tensors, folder: Path) -> float:
    few = compact.Quantized.of(tensors[TABLE], 8)
    _write(model, {**tensors, TABLE: few.dequantize()}, folder)
    return (few.codes.nbytes + few.scales.nbytes) / 1e6


def _rows4(model: Path, tensors: Tensors, folder: Path) -> float:
    table = tensors[TABLE]
    scales = np.abs(table).max(axis=1, keepdims=True) / np.float32(7.5)
    codes = np.floor(table / np.where(scales == 0, np.float32(1), scales)).clip(-8, 7)
    _write(model, {**tensors, TABLE: ((codes + np.float32(0.5)) * scales).astype(np.float32)}, folder)
    return (table.size / 2 + 2 * len(table)) / 1e6


def piece_counts(model: Path, texts: Iterable[str]) -> Counter[int]:
    """How often each token id is in the texts."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    counts: Counter[int] = Counter()
    for batch in _batches(texts, 10_000):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            counts.update(encoding.ids)
    return counts


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch


def _pruner(kept: set[int]) -> Callable[[Path, Tensors, Path], float]:
    """A function that writes a model whose vocabulary is the pieces `kept` and the special tokens."""

    def prune(model: Path, tensors: Tensors, folder: Path) -> float:
        tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
        special = {token["id"] for token in tokenizer["added_tokens"]}
        prefixes = piece_counts(model, ["query: ", "passage: "])
        ids = sorted(kept | special | set(prefixes))
        table = tensors[TABLE][ids]
        _write(model, {**tensors, TABLE: table}, folder)
        new_of = {old: new for new, old in enumerate(ids)}
        tokenizer["model"]["vocab"] = [tokenizer["model"]["vocab"][i] for i in ids]
        for token in tokenizer["added_tokens"]:
            token["id"] = new_of[token["id"]]
        config = json.loads((model / "config.json").read_text(encoding="utf-8")) | {"vocab_size": len(ids)}
        for name, values in (("tokenizer.json", tokenizer), ("config.json", config)):
            (folder / name).unlink()
            write_atomically(folder / name, json.dumps(values, ensure_ascii=False).encode())
        return _four_bit_size(len(ids), table.shape[1])

    return prune


if __name__ == "__main__":
    main()
