"""A small study: a tiny model with random weights, three stages, and data of a few words."""

from pathlib import Path
from typing import Any

import yaml

from train.made import tiny_model, write_beir, write_pairs, write_texts

SMALL = {
    "data": {"batch_size": 8, "passage_length": 16},
    "optimizer": {"lr": 1e-3},
    "saving": {"every": 2},
    "log_every": 1,
}


def make(folder: Path) -> Path:
    """Writes model and data; gives the folder."""
    tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl", rows=24, negatives=3)
    write_texts(folder / "texts.jsonl", rows=24)
    write_beir(folder / "dev")
    return folder


def plan(folder: Path, variants: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Values of a plan on what `make` wrote."""
    pairs = {"train": str(folder / "pairs.jsonl"), "cache": str(folder / "cache")}
    texts = {"train": str(folder / "texts.jsonl"), "cache": str(folder / "cache")}
    stages = [
        stage("one", "pretrain", texts),
        stage("two", "train", {**pairs, "group": 1}, objective="dense"),
        stage("three", "train", {**pairs, "group": 2}, objective="unified"),
    ]
    judging = {"sets": [{"path": str(folder / "dev"), "split": "dev"}]}
    values = {"model": str(folder / "model"), "stages": stages, "variants": variants, "evaluation": judging}
    return {**values, "device": "cpu", "dtype": "float32", **changes}


def stage(name: str, command: str, data: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A stage with small settings."""
    return {
        "name": name,
        "command": command,
        "settings": {**SMALL, "data": {**SMALL["data"], **data}, **settings},
    }


def write(path: Path, values: dict[str, Any]) -> Path:
    """YAML."""
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
