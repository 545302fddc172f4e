"""Nothing in a model's folder runs unless it is asked for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from triptych import Encoder
from triptych.errors import ModelError


@pytest.fixture(params=["published", "triptych"])
def trap(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A folder whose configuration names its own Python, and the file that this would write."""
    import checkpoints

    folder, mark = checkpoints.make("bert", tmp_path / "model"), tmp_path / "mark"
    if request.param == "triptych":
        Encoder.from_pretrained(folder, device="cpu").save_pretrained(tmp_path / "ours")
        shutil.rmtree(folder)
        (tmp_path / "ours").rename(folder)
    checkpoints.add_code(folder, mark)
    return folder, mark


def test_python_in_a_models_folder_does_not_run_and_nothing_is_asked(trap: tuple[Path, Path]) -> None:
    folder, mark = trap
    for command in (["info", str(folder)], ["encode", "-", "--jsonl", "--model", str(folder)]):
        done = subprocess.run(
            [sys.executable, "-m", "triptych", *command],
            input="y\ny\ny\n",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode != 0
        assert "trust_remote_code" in done.stderr
        assert "y/N" not in done.stdout + done.stderr
        assert not mark.exists()
    with pytest.raises(ModelError, match="trust_remote_code"):
        Encoder.from_pretrained(folder, device="cpu")
    assert not mark.exists()


def test_it_runs_where_it_is_trusted(
    trap: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, mark = trap
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32", trust_remote_code=True)
    assert mark.read_text() == "ran"
    assert encoder.encode(["a model"]).dense.shape[0] == 1
