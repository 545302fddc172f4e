"""What a run tells: its log, TensorBoard, and what every query got in an evaluation."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import MissingExtra
from triptych.files import write_atomically, write_json
from triptych.train.loop import Record


class RunLog:
    """The file ``log.jsonl`` of a run's folder, and what stands beside it.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "log.jsonl"

    def shorten(self, step: int) -> dict[int, dict[str, float]]:
        """Forgets what the log says of steps after `step`, which will be done again; gives the evaluations left."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() and step else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_atomically(self.path, "".join(line + "\n" for line in kept).encode())
        records = [json.loads(line) for line in kept]
        return {record["step"]: record["evaluation"] for record in records if "evaluation" in record}

    @contextmanager
    def writing(
        self, report: Callable[[Record], None], step: int, *, tensorboard: bool
    ) -> Generator[Callable[[Record], None]]:
        """Gives what takes a line.

        Args:
            report: Gets every line too.
            step: Steps done so far.
            tensorboard: Write TensorBoard files as well.
        """
        board = _board(self.folder, step) if tensorboard else None
        with self.path.open("a", encoding="utf-8") as file:

            def log(record: Record) -> None:
                file.write(json.dumps(record) + "\n")
                file.flush()
                report(record)
                if board is not None:
                    for name, value in {**record, **record.get("evaluation", {})}.items():
                        if isinstance(value, int | float):
                            board.add_scalar(name, value, record["step"])

            yield log
        if board is not None:
            board.close()

    def keep_each(self, step: int, queries: Sequence[str], each: Mapping[str, NDArray[np.float64]]) -> None:
        """Writes what every query got, so that runs can be compared query by query."""
        folder = self.folder / "evaluations"
        folder.mkdir(exist_ok=True)
        values = {name: [round(float(value), 6) for value in got] for name, got in each.items()}
        write_json(folder / f"{step}.json", {"queries": queries, **values})


def _board(output: Path, step: int) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise MissingExtra("tensorboard: true", "tensorboard") from error
    return SummaryWriter(str(output / "tensorboard"), purge_step=step or None)


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line that was cut off
        return 1 << 62
