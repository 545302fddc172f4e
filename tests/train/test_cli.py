import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from triptych import Encoder

from .made import tiny_model, write_beir, write_pairs, write_texts


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl")
    write_texts(folder / "texts.jsonl")
    write_beir(folder / "dev")
    return folder


def start(place: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TRIPTYCH_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-m", "triptych", *arguments]
    return subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def triptych(place: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(place, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


SMALL = ("--set", "data.batch_size=8", "--set", "compute.device=cpu", "--model", "model")


@pytest.mark.slow
def test_training_needs_no_recipe_and_shows_each_head_before_and_after(place, tmp_path):
    out = str(tmp_path / "run")
    code, text, err = triptych(place, "train", "--data", "pairs.jsonl", "--eval", "dev", "-o", out, *SMALL)
    assert code == 0, err
    for head in ("dense", "lexical", "multi", "integrated"):
        assert head in text
    assert "before" in text
    assert Encoder.from_pretrained(tmp_path / "run" / "best").heads == ("dense", "lexical", "multi")
    assert "step 5" in err or "loss" in err


@pytest.mark.slow
def test_pretraining_writes_json_lines_and_nothing_else_on_request(place, tmp_path):
    out = str(tmp_path / "run")
    code, text, err = triptych(place, "pretrain", "--data", "texts.jsonl", "-o", out, "--json", *SMALL)
    assert code == 0, err
    records = [json.loads(line) for line in text.splitlines()]
    assert {"loss", "encoder", "decoder"} <= records[0].keys()
    assert records[-1]["model"] == str(tmp_path / "run" / "final")


@pytest.mark.slow
def test_sigterm_ends_in_a_checkpoint_from_which_the_run_goes_on(place, tmp_path):
    out = str(tmp_path / "run")
    more = ("--set", "steps=2000", "--set", "log_every=1")
    process = start(place, "train", "--data", "pairs.jsonl", "-o", out, "--json", *SMALL, *more)
    assert process.stdout is not None
    for _ in range(3):
        json.loads(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    rest, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, err
    last = json.loads(rest.splitlines()[-1])
    assert last["model"] is None
    checkpoint = tmp_path / "run" / "checkpoints" / f"step-{last['steps']:08d}"
    assert (checkpoint / "state.json").is_file()
    # The recipe is found in the folder; nothing else has to be said again.
    process = start(place, "train", "-o", out, "--resume", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["step"] == last["steps"] + 1
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--data", "nothing.jsonl"), "nothing.jsonl"),
        (("train",), "data.train: got no source"),
        (("train", "none.yaml"), "none.yaml: cannot be read"),
        (("train", "--data", "pairs.jsonl", "--set", "data.bach_size=2"), "did you mean 'batch_size'?"),
        (("pretrain", "--data", "pairs.jsonl"), "pairs.jsonl:1"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(place, tmp_path, arguments, message):
    code, text, err = triptych(place, *arguments, "-o", str(tmp_path / "run"), "--model", "model")
    assert (code, text) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_of_several_processes_the_first_alone_prints(place, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    more = ("-d", "pairs.jsonl", "-o", str(tmp_path / "run"), "--eval", "dev", "--set", "steps=2")
    processes = [
        start(
            place,
            "train",
            *SMALL,
            *more,
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            WORLD_SIZE="2",
            RANK=str(rank),
        )
        for rank in range(2)
    ]
    (first, _), (second, error) = (process.communicate(timeout=300) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], error
    assert "Load it with" in first
    assert (second, error) == ("", "")
