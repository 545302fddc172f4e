from pathlib import Path

from triptych.eval.results import Evaluation


def write_report(result: Evaluation, path: Path) -> None: ...
