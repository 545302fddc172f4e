"""The notebooks: what they keep is what their code gives, and nothing of the machine that ran them."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
nbformat: Any = pytest.importorskip("nbformat", reason="the group 'dev' is not installed")


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_there_are_notebooks() -> None:
    assert len(PATHS) == 5


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_was_run_from_top_to_bottom_and_names_no_place_of_the_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert notebook.cells[0].source.startswith("# ")
    kinds = {output.output_type for output in outputs(notebook)}
    assert kinds <= {"execute_result", "display_data", "stream"}
    text = path.read_text(encoding="utf-8")
    for place in (str(Path.home()), "/tmp/", "/home/", "/Users/", "/root", str(ROOT)):
        assert place not in text, place
    words = sum(len(cell.source.split()) for cell in notebook.cells)
    assert words < 900  # to be read in five minutes


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_somewhere(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source) if cell.cell_type == "markdown" else ():
            assert target.startswith("https://") or (path.parent / target).is_file(), target
        for name in re.findall(r"`(docs/[^`]+|recipes/[^`]+)`", cell.source):
            assert (ROOT / name).exists(), name


@pytest.mark.slow
@pytest.mark.notebooks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_keeps_what_its_code_gives(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("nbclient", reason="the group 'dev' is not installed")
    pytest.importorskip("ipykernel", reason="the group 'dev' is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    from make_notebooks import run, texts

    assert texts(run(path)) == texts(nbformat.read(path, as_version=4))
    sys.modules.pop("make_notebooks")
