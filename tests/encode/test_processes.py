"""An encoder across processes: forked, pickled, in workers whose parent is killed, from scripts without a guard."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import twin
from checkpoints import TEXTS, without_heads
from triptych import Encoder
from triptych.errors import InputError, WorkerError

PREFIX = """
import os, sys, time
from pathlib import Path
from triptych import Encoder
encoder = Encoder.from_pretrained(sys.argv[1], device="cpu", dtype="float32")
"""
THREADS = {**os.environ, "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"}


def run(
    code: str, *arguments: object, script: Path | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", code] if script is None else [str(script)]), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=THREADS, **options
    )


FORKED = (
    PREFIX
    + """
import warnings
texts = ["the world of text " * 10] * 40
before = encoder.encode(texts, outputs="dense").dense
child = os.fork()
if child == 0:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        after = encoder.encode(texts, outputs="dense").dense
        again = Encoder.from_pretrained(sys.argv[1], device="cpu", dtype="float32").encode(texts, outputs="dense").dense
    good = [w.category.__name__ for w in caught if "fork" in str(w.message)] == ["ForkWarning"]
    close = abs(before - after).max() < 1e-5 and abs(before - again).max() < 1e-5
    os._exit(0 if good and close else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
)


def test_a_forked_child_encodes_on_one_thread_with_a_warning(folder: Path) -> None:
    done = run(FORKED, folder)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


def test_a_pickled_encoder_is_loaded_again_with_its_settings(folder: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(
        folder, device="cpu", dtype="float32", pooling="mean", query_prefix="query "
    )
    again: Encoder = pickle.loads(pickle.dumps(encoder))
    assert (again.config, again.fingerprint, again.source) == (
        encoder.config,
        encoder.fingerprint,
        encoder.source,
    )
    assert again.describe() == encoder.describe()
    twin.assert_same(again.encode_query(TEXTS), encoder.encode_query(TEXTS), 0)


def test_an_encoder_without_a_folder_cannot_be_pickled_and_says_what_to_do(
    folder: Path, tmp_path: Path
) -> None:
    made = Encoder.from_backbone(without_heads(folder, tmp_path / "plain"), device="cpu")
    with pytest.raises(
        InputError, match="pickle: this encoder's model was made in memory; save_pretrained it"
    ):
        pickle.dumps(made)


def test_a_relative_path_still_means_its_folder_after_a_change_of_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    encoder = Encoder.from_pretrained(folder.name, device="cpu", dtype="float32")
    assert encoder.source == str(folder)
    monkeypatch.chdir(tmp_path)
    encoder.save_pretrained("saved")
    assert Encoder.from_pretrained("saved", device="cpu", dtype="float32").fingerprint == encoder.fingerprint


STREAM = (
    PREFIX
    + """
if __name__ == "__main__":
    def texts():
        while True:
            yield "a text of the world"
    stream = encoder.encode_stream(texts(), block=2, devices=["cpu"])
    next(stream)
    import multiprocessing
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(60)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_their_parent_is_killed(folder: Path, tmp_path: Path, kind: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(STREAM)
    with subprocess.Popen(
        [sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True, env=THREADS
    ) as parent:
        assert parent.stdout is not None
        workers = [int(number) for number in parent.stdout.readline().split()]
        assert workers
        parent.send_signal(kind)
        parent.wait(20)
        ends = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < ends:
            time.sleep(0.1)
        left = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert left == []


UNGUARDED = (
    PREFIX
    + """
print(len(list(encoder.encode_stream(["a"] * 4, block=2, devices=["cpu"]))))
"""
)


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_about_it(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = run("", folder, script=script)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "WorkerError" in last
    assert "exit code 1" in last
    assert '`if __name__ == "__main__":`' in last
    assert "started again by one of its own workers" in done.stderr


def test_a_script_on_standard_input_is_told_that_workers_cannot_import_it(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-", str(folder)],
        input=UNGUARDED,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "WorkerError" in done.stderr
    assert "cannot import; save it as a file" in done.stderr


def test_a_killed_worker_is_reported_as_killed() -> None:
    from triptych.encode.stream import WorkerPool

    load: Any = killed_while_loading
    with WorkerPool(load, ["cpu"]) as pool, pytest.raises(WorkerError, match=r"SIGKILL.*memory"):
        pool.result(pool.submit(["a"], {}))


def killed_while_loading(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_weights_that_changed_in_memory_cannot_be_sent_to_workers(own_encoder: Encoder) -> None:
    own_encoder.release_model().lexical_head.weight.data.add_(1)
    with pytest.raises(InputError, match="changed after it was loaded"):
        own_encoder.workers(["cpu"])
