"""Runs the notebooks and keeps their outputs in them.

Usage: python scripts/make_notebooks.py [NOTEBOOK...]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(path: Path) -> Any:
    """The notebook after a run of all its cells, without times and warnings.

    Raises:
        CellExecutionError: If a cell fails.
    """
    notebook: Any = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # else where a text is cut depends on the machine's load
        resources=place,
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of this machine
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "text/html" in output.get("data", {}):
                    del output.data["text/plain"]  # the same again, with paths of this machine
    return notebook


def texts(notebook: Any) -> list[str]:
    """What each code cell shows, with its HTML, and with every number as 0: these differ a little between machines."""
    shown: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            parts = [output.get("text", "") + str(output.get("data", "")) for output in cell.outputs]
            text = re.sub(r"about .* for the steps", "", "\n".join(parts))
            shown.append(re.sub(r"[+-]?\d[\d.,]*\*?(e-\d+)?", "0", text))
    return shown


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        nbformat.write(run(path), path)
