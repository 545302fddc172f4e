"""What commands that make training data write, byte for byte; scores of negatives but for their last digits."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from .conftest import EXACT, INPUTS, Command, Golden

SETS = sorted(path.name for path in (INPUTS / "labelled").iterdir())
SPLITS = {"beir": "test", "miracl": "dev"}
VARIANTS: dict[str, tuple[str, tuple[object, ...]]] = {
    "dureader-dev": ("dureader-retrieval", ("--split", "dev")),
    "miracl-one-language": ("miracl", ("--split", "dev", "--lang", "sw")),
    "msmarco-few-negatives": ("msmarco", ("--max-negatives", 1, "--seed", 3)),
    "squad-all-negatives": ("squad", ("--negatives", "all", "--no-titles")),
    "t2ranking-low-grade": ("t2ranking", ("--positive-from", 1, "--licence", "CC0")),
    "trec-two-fields": ("trec", ("--topic-fields", "title,desc", "--negatives", "none")),
}


def convert(triptych: Command, here: Path, name: str, *options: object) -> str:
    """The lines, and then what the command says of them."""
    order = ("data", "convert", name, f"labelled/{name}", "--out", "out.jsonl", *options)
    done = triptych(*order, "--json")
    return (here / "out.jsonl").read_bytes().decode() + done.out


@pytest.mark.parametrize("name", SETS)
def test_a_labelled_data_set_is_converted_to_the_same_bytes(
    triptych: Command, here: Path, golden: Golden, name: str
) -> None:
    golden(
        f"outputs/convert/{name}.jsonl", convert(triptych, here, name, "--split", SPLITS.get(name, "train"))
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_options_of_a_conversion_lead_to_the_same_bytes(
    triptych: Command, here: Path, golden: Golden, name: str
) -> None:
    known, options = VARIANTS[name]
    golden(f"outputs/convert/{name}.jsonl", convert(triptych, here, known, *options))


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_compressed_conversion_holds_the_same_bytes(triptych: Command, here: Path, ending: str) -> None:
    triptych("data", "convert", "msmarco", "labelled/msmarco", "--out", "plain.jsonl")
    triptych("data", "convert", "msmarco", "labelled/msmarco", "--out", f"out.jsonl.{ending}")
    assert content(here / f"out.jsonl.{ending}") == content(here / "plain.jsonl")


def content(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if path.suffix == ".zst" else data


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("all", ()),
        ("few-kinds", ("--kinds", "title-body,neighbour,link", "--licence", "CC0", "--source", "guide")),
        ("held-out", ("--against", "held.jsonl", "--set", "near=0.7", "--seed", 5)),
    ],
)
def test_pairs_are_mined_to_the_same_bytes(
    triptych: Command, here: Path, golden: Golden, name: str, options: tuple[object, ...]
) -> None:
    held = {
        "query": "Cold water dissolves less of the bitter parts, so that the coffee tastes milder in the end."
    }
    (here / "held.jsonl").write_text(json.dumps(held) + "\n", encoding="utf-8")
    triptych("data", "pairs", "manual", "--out", "out", "--languages-in-paths", "--no-plot", *options)
    parts = sorted((here / "out" / "pairs").iterdir())
    golden(f"outputs/pairs/{name}.jsonl", b"".join(map(content, parts)).decode())
    golden(f"outputs/pairs/{name}.report.json", (here / "out" / "report.json").read_bytes().decode())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hybrid", ("--corpus", "passages.jsonl")),
        (
            "dense-top",
            ("--corpus", "passages.jsonl", "--search", "dense", "--choose", "top", "--margin", "none"),
        ),
        (
            "lexical-kept",
            ("--corpus", "passages.jsonl", "--search", "lexical", "--keep-existing", "--seed", 4),
        ),
        ("multi", ("--corpus", "passages.jsonl", "--search", "multi")),
        ("own-passages", ("--same-article", "--translations", "--weights", "1,0.5,0")),
    ],
)
def test_the_same_negatives_are_mined(
    triptych: Command, here: Path, golden: Golden, name: str, options: tuple[object, ...]
) -> None:
    order = ("mine-negatives", "training.jsonl", "--out", "out.jsonl", "--ranks", "2:40", "--keep", 3, *EXACT)
    triptych(*order, *options)
    golden(f"outputs/negatives/{name}.jsonl", (here / "out.jsonl").read_bytes().decode(), within=1e-4)
