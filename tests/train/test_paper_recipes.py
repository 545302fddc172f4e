"""The recipes of the paper's stages, one after the other, on small files and a tiny model: two steps of each."""

from pathlib import Path

from triptych import Encoder
from triptych.train.run import run
from triptych.train.settings import read

from .made import tiny_model, write_pairs, write_texts

# What a cluster has and this machine has not; all else is the recipe's.
SMALL = (
    "compute={device: cpu, dtype: float32, sub_batch_tokens: 64, checkpoint_layers: true}",
    "data.passage_length=32",
    "steps=2",
    "log_every=1",
)
PAIRS = ("data.query_length=16", "data.table={16: 4, 32: 2}")


def test_the_four_recipes_of_the_paper_run_after_each_other(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", dropout=0.0)
    write_pairs(tmp_path / "pairs.jsonl")
    write_texts(tmp_path / "texts.jsonl")
    stages = {
        "paper-retromae": (
            "pretrain",
            "texts.jsonl",
            ("data={bounds: [16, 32], batch_tokens: 64}", "new_heads=false", "extend_positions=null"),
        ),
        "paper-contrastive": ("train", "pairs.jsonl", PAIRS),
        "paper-warm-up": ("train", "pairs.jsonl", PAIRS),
        "paper-unified": ("train", "pairs.jsonl", PAIRS),
    }
    start = tmp_path / "model"
    for name, (stage, data, own) in stages.items():
        changes = [f"model={start}", f"data.train={tmp_path / data}", *SMALL, *own]
        outcome = run(stage, read(Path(name), changes), tmp_path / name)  # type: ignore[arg-type]
        assert outcome.steps == 2, name
        start = tmp_path / name / "final"
    assert Encoder.from_pretrained(start).heads == ("dense", "lexical", "multi")
