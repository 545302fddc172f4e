"""Chooses among models by what a training run made of each on the development split, and makes a link to the best.

    python recipes/small/choose_run.py MODEL=RUN MODEL=RUN … --into LINK [--metric integrated]

The figure of a run is the best of its evaluations (`evaluation` in its log.jsonl). The choice is written beside the
link.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from triptych.io import write_json


def main() -> None:
    """Chooses."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("pairs", nargs="+", metavar="MODEL=RUN")
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--metric", default="integrated")
    arguments = parser.parse_args()
    runs = dict(pair.split("=", 1) for pair in arguments.pairs)
    figures = {model: best(Path(run), arguments.metric) for model, run in runs.items()}
    chosen = max(figures, key=lambda model: figures[model][arguments.metric])
    arguments.into.unlink(missing_ok=True)
    arguments.into.symlink_to(Path(chosen).resolve())
    write_json(arguments.into.with_name(arguments.into.name + ".json"), {"chosen": chosen, "models": figures})
    print(f"{arguments.into} -> {chosen}: {figures[chosen]}")


def best(run: Path, metric: str) -> dict[str, Any]:
    """The best evaluation of a run after its start."""
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    found = [{"step": line["step"], **line["evaluation"]} for line in lines if "evaluation" in line]
    return max((each for each in found if each["step"]), key=lambda each: each[metric])


if __name__ == "__main__":
    main()
