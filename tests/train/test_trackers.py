"""What the trackers get, read back from the files that each package writes when it has no network."""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from triptych.errors import InputError, MissingExtra
from triptych.train.settings import Recipe, read
from triptych.train.trackers import TRACKERS, TrackedRun, TrackerWarning, figures_of, open_trackers

# What the packages warn of inside themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SETTINGS = {"seed": 0, "optimizer": {"lr": 1e-5}, "data": {"train": [{"path": "pairs.jsonl"}]}}
FIRST, SECOND = ({"train/loss": 2.5, "sources/a (b)/loss": 2.5}, 1), ({"eval/dense": 0.75}, 2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    values = {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "MLFLOW_TRACKING_URI": f"file:{tmp_path / 'mlruns'}",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HF_HUB_OFFLINE": "1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "my-run").mkdir()
    return tmp_path / "my-run"


def track(name: str, folder: Path) -> None:
    """A run that was stopped after its first step, and went on."""
    for done, (figures, step) in enumerate((FIRST, SECOND)):
        if name == "wandb" and done:
            time.sleep(1.1)  # its folders are named by the second
        with TRACKERS[name](TrackedRun(folder, SETTINGS, done)) as log:
            log(figures, step)


def ids(folder: Path) -> dict[str, str]:
    return json.loads((folder / "trackers.json").read_bytes())


def test_a_line_of_the_log_is_flat_numbers_in_three_groups() -> None:
    record = {"step": 3, "loss": 1.5, "dense": 1, "sources": {"a": {"loss": 2.0}}, "lowered": ["dense"]}
    assert figures_of(record) == {"train/loss": 1.5, "train/dense": 1.0, "sources/a/loss": 2.0}
    assert figures_of({"step": 0, "evaluation": {"dense": 0.5}}) == {"eval/dense": 0.5}


def test_tensorboard_has_both_steps(folder: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track("tensorboard", folder)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 2.5)]
    assert [(e.step, e.value) for e in events.Scalars("eval/dense")] == [(2, 0.75)]


@pytest.mark.slow
def test_weights_and_biases_has_both_steps_of_one_run(folder: Path) -> None:
    pytest.importorskip("wandb", reason="the extra 'wandb' is not installed")
    track("wandb", folder)
    texts = {b"train/loss", b"eval/dense", b"my-run", b"triptych"}
    for _ in range(100):  # its service writes the last of it when the run is over
        files = (folder / "wandb").glob(f"offline-run-*-{ids(folder)['wandb']}/*.wandb")
        content = b"".join(path.read_bytes() for path in files)
        missing = {text for text in texts if text not in content}
        if not missing:
            break
        time.sleep(0.2)
    assert not missing


@pytest.mark.slow
def test_mlflow_has_both_steps_of_one_run(folder: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    track("mlflow", folder)
    client: Any = mlflow.MlflowClient()
    [experiment] = [e for e in client.search_experiments() if e.name == "triptych"]
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == ids(folder)["mlflow"]
    assert (found.info.run_name, found.info.status) == ("my-run", "FINISHED")
    assert found.data.metrics == {"train/loss": 2.5, "sources/a _b_/loss": 2.5, "eval/dense": 0.75}
    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "train/loss")] == [
        (1, 2.5)
    ]
    with pytest.raises(KeyError), TRACKERS["mlflow"](TrackedRun(folder, SETTINGS, 2)):
        raise KeyError
    assert client.get_run(found.info.run_id).info.status == "FAILED"


@pytest.mark.slow
def test_trackio_has_both_steps_of_one_run(folder: Path) -> None:
    trackio = pytest.importorskip("trackio", reason="the extra 'trackio' is not installed")
    track("trackio", folder)
    from trackio.sqlite_storage import SQLiteStorage

    [found] = trackio.Api().runs("triptych")
    assert found.name == f"my-run-{ids(folder)['trackio'][:8]}"
    rows = SQLiteStorage.get_logs("triptych", found.name)
    assert [(row["step"], row.get("train/loss"), row.get("eval/dense")) for row in rows] == [
        (1, 2.5, None),
        (2, None, 0.75),
    ]


def test_a_new_run_in_a_folder_gets_a_new_id_and_a_resumed_one_keeps_it(folder: Path) -> None:
    first = TrackedRun(folder, {}, 0).id_of("wandb")
    assert TrackedRun(folder, {}, 5).id_of("wandb") == first
    assert TrackedRun(folder, {}, 0).id_of("wandb") != first


def test_a_tracker_that_fails_is_warned_of_and_the_others_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    got: list[Any] = []

    @contextmanager
    def broken(job: TrackedRun) -> Any:
        yield lambda figures, step: 1 / 0

    @contextmanager
    def good(job: TrackedRun) -> Any:
        yield lambda figures, step: got.append((figures, step))

    monkeypatch.setattr("triptych.train.trackers.TRACKERS", {"wandb": broken, "mlflow": good})
    with ExitStack() as stack:
        send = open_trackers(["wandb", "mlflow"], TrackedRun(folder, {}, 0), stack)
        with pytest.warns(TrackerWarning, match="wandb: division by zero; the run goes on without it"):
            send({}, 1)
        send({}, 2)
    assert got == [({}, 1), ({}, 2)]


def test_a_tracker_that_cannot_be_opened_ends_the_run_before_it_begins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    with ExitStack() as stack, pytest.raises(InputError, match="report_to: mlflow cannot be opened"):
        open_trackers(["mlflow"], TrackedRun(folder, {}, 0), stack)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with ExitStack() as stack, pytest.raises(MissingExtra, match=r"pip install 'triptych\[wandb\]'"):
        open_trackers(["wandb"], TrackedRun(folder, {}, 0), stack)


def test_the_setting_of_releases_before_is_read() -> None:
    assert Recipe.model_validate({"tensorboard": True}).report_to == ("tensorboard",)
    assert Recipe.model_validate({"tensorboard": False}).report_to == ()
    assert read(None, ["report_to=[wandb, mlflow]"]).report_to == ("wandb", "mlflow")
    with pytest.raises(InputError, match=r"report_to\.0"):
        read(None, ["report_to=[wandbb]"])
