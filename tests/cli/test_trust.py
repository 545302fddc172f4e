"""Every command that loads a model's folder leaves the Python in it alone, and runs it where it is told to."""

import json
from pathlib import Path

import pytest

import checkpoints
from cli.conftest import Run

ROWS = [
    {"query": "a moka pot", "pos": ["A moka pot brews coffee."], "neg": ["Ein Topf."]},
    {"query": "a model of text", "pos": ["bge m3 is a model"], "neg": ["hello world"]},
]
TEXT = (
    "A moka pot brews coffee on a stove. Water boils in the lower part, and its steam presses it through the ground "
    "coffee into the upper part, where it gathers until all of the water has gone up."
)
PAGE = {"id": "p", "title": "How a moka pot brews coffee", "text": TEXT}


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    checkpoints.make("bert", tmp_path / "model")
    checkpoints.add_code(tmp_path / "model", tmp_path / "mark")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "page.jsonl").write_text(json.dumps(PAGE) + "\n")
    return tmp_path


COMMANDS = {
    "train": "train -d rows.jsonl -m model -o run --set steps=1 --set data.batch_size=2",
    "data check": "data check rows.jsonl -m model --no-languages",
    "merge": "merge model model -o merged",
    "mine-negatives": "mine-negatives rows.jsonl -o mined.jsonl --reranker model",
    "mine-negatives, the model": "mine-negatives rows.jsonl -o mined.jsonl -m model",
    "data pairs": "data pairs page.jsonl -o pairs -m model",
    "eval": "eval beir -m model",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_commands_model_runs_its_own_code_only_if_that_is_said(command: str, trap: Path, run: Run) -> None:
    if command.startswith("eval"):
        dev = trap / "beir" / "qrels"
        dev.mkdir(parents=True)
        (dev.parent / "corpus.jsonl").write_text('{"_id": "d", "text": "A moka pot."}\n')
        (dev.parent / "queries.jsonl").write_text('{"_id": "q", "text": "moka"}\n')
        (dev / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    if command.startswith("data check"):  # which reads the tokenizer alone
        path = trap / "model" / "tokenizer_config.json"
        own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
    refused = run(*command.split(), stdin="y\ny\ny\n")
    assert refused.code != 0
    assert "trust_remote_code" in refused.err
    assert not (trap / "mark").exists()
    for place in ("run", "pairs"):
        if (trap / place).exists():
            (trap / place).rename(trap / f"{place}-refused")
    done = run(*command.split(), "--trust-remote-code")
    assert (trap / "mark").read_text() == "ran"
    assert done.code == 0, done.err
