"""The command as a process of its own: what it imports, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triptych import Index

TRIPTYCH = [sys.executable, "-m", "triptych.cli"]


@pytest.fixture(scope="session")
def environment(folder: Path) -> dict[str, str]:
    """What the processes see."""
    return {**os.environ, "TRIPTYCH_MODEL": str(folder), "OMP_NUM_THREADS": "1"}


def test_help_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from triptych.cli.app import app\n"
        "try:\n    app(['search', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'transformers', 'qdrant_edge'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "--explain" in done.stdout


def test_the_installed_command_and_the_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("triptych")
    versions = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in ([str(script)], TRIPTYCH)
    ]
    assert versions[0] == versions[1]
    assert versions[0].startswith("triptych ")


def test_a_pipe_in_and_json_out(made: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*TRIPTYCH, "search", str(made), "-", "--json", "-k", "2"],
        input="hello world\nbm25\n",
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["query"] for line in lines] == ["hello world"] * 2 + ["bm25"] * 2
    assert done.stderr == ""


def test_an_error_is_one_line_without_a_traceback(tmp_path: Path, environment: dict[str, str]) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n", encoding="utf-8")
    done = subprocess.run(
        [*TRIPTYCH, "index", str(bad), "-o", str(tmp_path / "x")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"triptych: error: {bad}:1: no field 'text' or ")


def test_a_reader_that_goes_away_is_no_error_message(
    corpus: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    many = tmp_path / "many.jsonl"
    many.write_text(
        "".join(f'{{"id": "{i}", "text": "hello world"}}\n' for i in range(400)), encoding="utf-8"
    )
    command = [*TRIPTYCH, "encode", str(many), "--jsonl", "--block", "20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()


def test_ctrl_c_keeps_what_was_stored_and_exits_with_130(tmp_path: Path, environment: dict[str, str]) -> None:
    place = tmp_path / "x.index"
    command = [*TRIPTYCH, "index", "-", "-o", str(place), "--block-tokens", "40", "--engine", "exact"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    assert process.stderr is not None
    lines = "".join(f'{{"id": "{i}", "text": "hello world"}}\n' for i in range(7500))
    process.stdin.write(lines.encode())  # and no end of the input: it waits for more after the first 256 KiB
    process.stdin.flush()
    for _ in range(600):
        if len(list(place.glob("data/*.safetensors"))) > 3:  # a file for each stored block
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    message = process.stderr.read().decode()
    process.stdin.close()
    process.stderr.close()
    assert "Traceback" not in message
    assert "interrupted" in message
    kept = int(message.split("stopped after ")[1].split()[0])
    with Index.open(place) as opened:
        assert len(opened) >= kept > 0
