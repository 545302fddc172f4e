"""Imports only point down, and what is cheap to import stays cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import triptych

ROOT = Path(triptych.__file__).parent

# A package or module may import those of its own line and of the lines below.
LAYERS = (
    ("cli",),
    ("eval", "tools", "mteb", "hakari", "compat", "serve", "client", "integrations"),
    ("train", "demo"),
    ("index", "explain"),
    ("encode", "collections"),
    ("scores", "model"),
    ("documents", "files", "markup", "passages", "records"),
    ("io", "text", "config"),
    ("types", "columns", "notebook"),
    ("errors",),
)
LEVEL = {name: level for level, names in enumerate(reversed(LAYERS)) for name in names}
WITHOUT_TORCH = (
    "index",
    "client",
    "eval",
    "collections",
    "documents",
    "files",
    "markup",
    "passages",
    "records",
    "text",
    "io",
    "types",
    "columns",
    "errors",
    "config",
)
# Modules of the evaluation that train or encode with our own model.
WITH_AN_ENCODER = ("ablate.py", "ablate_plan.py", "ablate_tables.py")
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def home(path: Path) -> str:
    """The package or module under `triptych` to which a file belongs."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full names of all that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_its_layer() -> None:
    assert {home(path) for path in MODULES} <= set(LEVEL) | {"__main__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = home(path)
    if own == "__main__":
        return
    used = {name.split(".")[1] for name in imported(path) if name.startswith("triptych.")} - {
        own,
        "__version__",
    }
    assert used <= set(LEVEL), "a name of the top package is imported; take it from its own module"
    upward = {name for name in used if LEVEL[name] > LEVEL[own]}
    assert not upward, f"{own} may not import {upward}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_index_and_evaluation_name_neither_torch_nor_transformers(path: Path) -> None:
    if home(path) in WITHOUT_TORCH:
        assert not {name.split(".")[0] for name in imported(path)} & {"torch", "transformers"}


def loaded_by(names: list[str]) -> set[str]:
    """Top-level packages that a fresh interpreter holds after importing `names`."""
    code = f"import sys\nfor name in {names!r}: __import__(name)\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return {name.split(".")[0] for name in output.split()}


def test_import_triptych_loads_neither_torch_nor_numpy() -> None:
    assert not loaded_by(["triptych"]) & {"torch", "numpy", "scipy", "transformers"}


def test_importing_the_index_and_the_evaluation_loads_neither_torch_nor_transformers() -> None:
    names = [
        ".".join(("triptych", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for path in MODULES
        if home(path) in WITHOUT_TORCH and path.name not in WITH_AN_ENCODER
    ]
    assert not loaded_by(names) & {"torch", "transformers"}


def test_the_public_names_are_there_and_others_are_not() -> None:
    assert set(dir(triptych)) == set(triptych.__all__)
    assert triptych.HeadWeights is not None
    with pytest.raises(AttributeError, match="nothing_like_this"):
        triptych.nothing_like_this  # noqa: B018
