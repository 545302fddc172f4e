"""Where the figures of a run go besides its log: TensorBoard, Weights & Biases, MLflow, trackio.

Each is a context that yields what takes the figures of a step; each package is an extra of its own. Projects and
addresses are set the way each package has for it (``WANDB_PROJECT``, ``MLFLOW_TRACKING_URI``, ``TRACKIO_DIR``, …); the
run has the name of its folder.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from triptych.errors import InputError, MissingExtra, require_extra
from triptych.io import write_json

Figures: TypeAlias = Mapping[str, float]
Log: TypeAlias = Callable[[Figures, int], None]

PROJECT = "triptych"
"""The name of the project, or of the experiment, unless the package's own setting names one."""
_IDS = "trackers.json"


class TrackerWarning(UserWarning):
    """A tracker failed while the run went on; it gets no further figures."""


class TrackedRun(NamedTuple):
    """A run as a tracker knows it.

    Attributes:
        folder: The run's.
        settings: The recipe.
        step: Steps done: above 0, the run is resumed.
    """

    folder: Path
    settings: Mapping[str, Any]
    step: int

    def id_of(self, tracker: str, make: Callable[[], str] = lambda: uuid.uuid4().hex) -> str:
        """The run's id at a tracker, which a resumed run keeps; `make` gives the one of a new run."""
        path = self.folder / _IDS
        known: dict[str, str] = json.loads(path.read_bytes()) if path.is_file() else {}
        if not self.step or tracker not in known:
            known[tracker] = make()
            write_json(path, known)
        return known[tracker]


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log: ``train/…``, ``sources/NAME/…`` and ``eval/…``."""
    groups = {
        "train": {key: value for key, value in record.items() if key != "step"},
        **{f"sources/{name}": values for name, values in record.get("sources", {}).items()},
        "eval": record.get("evaluation", {}),
    }
    return {
        f"{group}/{name}": float(value)
        for group, values in groups.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }


@contextmanager
def tensorboard(job: TrackedRun) -> Generator[Log]:
    """Files in the run's folder ``tensorboard``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise MissingExtra("report_to: tensorboard", "tensorboard") from error
    board: Any = SummaryWriter(str(job.folder / "tensorboard"), purge_step=job.step + 1 if job.step else None)

    def log(figures: Figures, step: int) -> None:
        for name, value in figures.items():
            board.add_scalar(name, value, step)

    try:
        yield log
    finally:
        board.close()


def wandb(job: TrackedRun) -> AbstractContextManager[Log]:
    """Weights & Biases; with ``WANDB_MODE=offline`` files in the run's folder ``wandb``."""
    place = {"name": job.folder.name, "dir": str(job.folder), "settings": {"console": "off"}}
    return _log_to("wandb", job, lambda run_id: {**place, "id": run_id}, {"exit_code": 1})


def trackio(job: TrackedRun) -> AbstractContextManager[Log]:
    """Trackio, in its folder on this machine or the Space that its settings name."""
    return _log_to(
        "trackio", job, lambda run_id: {"name": f"{job.folder.name}-{run_id[:8]}", "embed": False}, {}
    )


@contextmanager
def _log_to(
    tracker: str, job: TrackedRun, own: Callable[[str], dict[str, Any]], failed: Mapping[str, Any]
) -> Generator[Log]:
    """A run of Weights & Biases, or of trackio, which has its functions.

    Args:
        tracker: The package.
        job: The run.
        own: From the run's id to the arguments of ``init`` in which they differ.
        failed: What ``finish`` is given after an error.
    """
    with require_extra(f"report_to: {tracker}", tracker):
        api: Any = import_module(tracker)
    project = os.environ.get(f"{tracker.upper()}_PROJECT", PROJECT)
    settings = dict(job.settings)
    run = api.init(project=project, resume="allow", config=settings, **own(job.id_of(tracker)))
    try:
        yield lambda figures, step: run.log(dict(figures), step=step)
    except BaseException:
        run.finish(**failed)
        raise
    run.finish()


@contextmanager
def mlflow(job: TrackedRun) -> Generator[Log]:
    """MLflow, by a client of its own, so that no other active run is touched."""
    with require_extra("report_to: mlflow", "mlflow"):
        from mlflow import MlflowClient
        from mlflow.entities import Metric
    client: Any = MlflowClient()

    def create() -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = client.get_experiment_by_name(name)
        experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
        return client.create_run(experiment_id, run_name=job.folder.name).info.run_id

    run_id = job.id_of("mlflow", create)
    client.log_dict(run_id, dict(job.settings), "recipe.json")

    def log(figures: Figures, step: int) -> None:
        now = int(time.time() * 1000)
        names = {name: re.sub(r"[^\w\-. /:]", "_", name) for name in figures}  # sources have any name
        client.log_batch(run_id, metrics=[Metric(names[n], value, now, step) for n, value in figures.items()])

    status = "FAILED"
    try:
        yield log
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)


TRACKERS: Mapping[str, Callable[[TrackedRun], AbstractContextManager[Log]]] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "mlflow": mlflow,
    "trackio": trackio,
}


def open_trackers(names: Sequence[str], job: TrackedRun, stack: ExitStack) -> Log:
    """Opens trackers; the result sends a step's figures to all of them.

    Args:
        names: Of `TRACKERS`.
        job: The run.
        stack: Closes them.

    Raises:
        MissingExtra: If a package is not installed.
        InputError: If a tracker cannot be opened, with what it says.
    """
    sinks: dict[str, Log] = {}
    for name in names:
        try:
            sinks[name] = stack.enter_context(TRACKERS[name](job))
        except MissingExtra:
            raise
        except Exception as error:  # each package has errors of its own
            raise InputError(f"report_to: {name} cannot be opened: {error}") from error

    def send(figures: Figures, step: int) -> None:
        for name, sink in list(sinks.items()):
            try:
                sink(figures, step)
            except Exception as error:
                del sinks[name]
                warnings.warn(
                    f"report_to: {name}: {error}; the run goes on without it", TrackerWarning, stacklevel=2
                )

    return send
