"""Chooses among training runs by the development split, and makes a link to the best one's model.

    python scripts/choose_run.py RUN RUN … --into LINK [--metric integrated]

The figure of a run is the best of its evaluations (`evaluation` in its log.jsonl), which is also the step whose
weights stand in its folder `best` (or `final`, if that is the last). The choice is written beside the link.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from triptych.files import write_json


def main() -> None:
    """Chooses."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--metric", default="integrated")
    arguments = parser.parse_args()
    figures = {str(run): best(run, arguments.metric) for run in arguments.runs}
    chosen = max(figures, key=lambda run: figures[run][arguments.metric])
    model = next(path for name in ("best", "final") if (path := Path(chosen) / name).is_dir())
    arguments.into.unlink(missing_ok=True)
    arguments.into.symlink_to(model.resolve())
    write_json(arguments.into.with_name(arguments.into.name + ".json"), {"chosen": chosen, "runs": figures})
    print(f"{arguments.into} -> {model}: {figures[chosen]}")


def best(run: Path, metric: str) -> dict[str, Any]:
    """The best evaluation of a run after its start."""
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    found = [{"step": line["step"], **line["evaluation"]} for line in lines if "evaluation" in line]
    return max((each for each in found if each["step"]), key=lambda each: each[metric])


if __name__ == "__main__":
    main()
