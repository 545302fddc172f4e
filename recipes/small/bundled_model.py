"""Carries a trained model from the machine that trained it into the package.

    python recipes/small/bundled_model.py strip RUN/final --into PARTS            # where it was trained
    python recipes/small/bundled_model.py join PARTS --words FIRST --into FOLDER
    python recipes/small/bundled_model.py ship FOLDER --words FIRST --into src/triptych/models/small --bits 8

The word vectors are frozen in training, so that the first version of the model has them already: what travels are
the other tensors, as float16 in files of at most 15 MB. `ship` stores the word vectors in 4 bits, as they were at
first (bit by bit, which it checks), and the matrices of the layers in as many bits as are asked for; tokenizer and
configuration stay those of the first version but for the length.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from triptych.io import write_json
from triptych.model import tensors as compact
from triptych.model.tensors import read_object

WORDS = "embeddings.word_embeddings.weight"
MOST = 15_000_000
Tensors = dict[str, NDArray[Any]]


def main() -> None:
    """Runs one of the three commands."""
    arguments = _arguments()
    arguments.into.mkdir(parents=True, exist_ok=True)
    if arguments.command == "strip":
        strip(arguments.source, arguments.into)
    elif arguments.command == "join":
        join(arguments.source, arguments.words, arguments.into)
    else:
        ship(arguments.source, arguments.words, arguments.into, arguments.bits)
    size = sum(path.stat().st_size for path in arguments.into.iterdir())
    print(f"{arguments.into}: {size / 1e6:.1f} MB")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("command", choices=("strip", "join", "ship"))
    parser.add_argument("source", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--words", type=Path, help="join, ship: the first version, for its words")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=8, help="ship: of the layers' matrices")
    return parser.parse_args()


def strip(model: Path, into: Path) -> None:
    """Writes all tensors but the word vectors as float16, and the configuration."""
    tensors = compact.read_tensors(model / "model.safetensors")
    del tensors[WORDS]
    for number, part in enumerate(_parts(tensors)):
        save_file(part, into / f"part{number}.safetensors")
    shutil.copy(model / "config.json", into / "config.json")


def _parts(tensors: Mapping[str, NDArray[Any]]) -> Iterator[Tensors]:
    part: Tensors = {}
    used = 0
    for name, tensor in tensors.items():
        half = tensor.astype(np.float16)
        if part and used + half.nbytes > MOST:
            yield part
            part, used = {}, 0
        part[name] = half
        used += half.nbytes
    yield part


def join(parts: Path, words: Path, into: Path) -> None:
    """Puts the parts, the word vectors and the tokenizer together."""
    tensors: Tensors = {WORDS: compact.read_tensors(words / "model.safetensors")[WORDS]}
    for path in sorted(parts.glob("part*.safetensors")):
        tensors |= {name: tensor.astype(np.float32) for name, tensor in load_file(path).items()}
    _copy_texts(words, into)
    write_json(into / "config.json", read_object(parts / "config.json"))
    compact.write_tensors(into / "model.safetensors", tensors, {WORDS: 4})


def ship(model: Path, first: Path, into: Path, bits: int) -> None:
    """Writes the model with its matrices in few bits."""
    tensors = compact.read_tensors(model / "model.safetensors")
    matrices = {name: bits for name, tensor in tensors.items() if is_matrix(name, tensor)}
    config, trained = read_object(first / "config.json"), read_object(model / "config.json")
    config["max_position_embeddings"] = trained["max_position_embeddings"]
    config["triptych"] = trained["triptych"]
    tokenizer = read_object(first / "tokenizer_config.json")
    tokenizer["model_max_length"] = trained["triptych"]["max_length"]
    _copy_texts(first, into)
    write_json(into / "config.json", config)
    write_json(into / "tokenizer_config.json", tokenizer)
    compact.write_tensors(into / "model.safetensors", tensors, {**matrices, WORDS: 4})
    before, after = (compact.read_tensors(folder / "model.safetensors")[WORDS] for folder in (first, into))
    if not np.array_equal(before, after):
        raise ValueError(f"{model}: the word vectors are not those of {first}; expected frozen ones")


def is_matrix(name: str, tensor: NDArray[Any]) -> bool:
    """Whether a tensor is stored in few bits: matrices but the word vectors, which have their own."""
    return tensor.ndim == 2 and min(tensor.shape) >= 32 and name != WORDS


def _copy_texts(source: Path, into: Path) -> None:
    for path in source.iterdir():
        if source != into and path.name.startswith(("tokenizer", "special_tokens")):
            shutil.copy(path, into / path.name)


if __name__ == "__main__":
    main()
