"""What pyproject.toml, the code and the release papers say of the package agrees."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import triptych
from triptych.collections.training import read_examples
from triptych.errors import MissingExtra

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
MISSING = ("MissingExtra", "require_extra")


def test_every_extra_that_an_error_names_can_be_installed() -> None:
    named: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in MISSING:
                named |= {arg.value for arg in node.args[1:] if isinstance(arg, ast.Constant)}
    assert {"serve", "train", "tools", "eval", "files"} <= named <= set(EXTRAS)


def test_every_extra_that_a_page_names_can_be_installed() -> None:
    pages = [ROOT / "README.md", ROOT / "deploy" / "Dockerfile", *(ROOT / "docs").rglob("*.md")]
    form = r"(?:triptych|\.whl\)?)\[([\w,-]+)\]"
    named = {
        name
        for page in pages
        for group in re.findall(form, page.read_text("utf-8"))
        for name in group.split(",")
    }
    assert named - {"NAME"} <= set(EXTRAS)


def test_extras_have_no_package_that_the_tests_do_not_have() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    tested = {*groups["dev"], *groups["parity"]}
    names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in tested}  # type: ignore[index]
    for extra, requirements in EXTRAS.items():
        for requirement in (
            requirements if extra != "trackio" else ()
        ):  # which wants an older pillow than the rest
            name = re.match(r"[\w.-]+", requirement)[0].lower()  # type: ignore[index]
            assert name in names or name == "triptych", f"{extra}: {requirement}"


def test_all_papers_have_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    released = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert triptych.__version__ == PROJECT["version"] == citation["version"]
    assert released[:1] in ([], [triptych.__version__])  # none is cut yet before the first release


@pytest.mark.parametrize("license", ["CC BY-SA 4.0", "CC BY-SA 3.0", "CC BY 4.0", "MPL-2.0", "MIT"])
def test_the_license_field_has_every_license_of_bundled_texts_and_weights(license: str) -> None:
    assert license in (ROOT / "NOTICE").read_text("utf-8")
    assert license.replace(" ", "-") in PROJECT["license"].split(" AND ")


@pytest.mark.slow
def test_without_pyarrow_texts_are_encoded_and_what_needs_it_says_which_extra(
    folder: Path, tmp_path: Path
) -> None:
    """The base installation does not have it."""
    (tmp_path / "texts.jsonl").write_text('{"id": "a", "text": "hello world"}\n', encoding="utf-8")
    program = """
import sys
sys.modules["pyarrow"] = None
from triptych.cli.app import main
sys.argv = ["triptych", *sys.argv[1:]]
main()
"""

    def triptych(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *words]
        variables = os.environ | {"TRIPTYCH_MODEL": str(folder)}
        return subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )

    encoded = triptych("encode", "texts.jsonl", "--jsonl")
    assert (encoded.returncode, json.loads(encoded.stdout)["id"]) == (0, "a"), encoded.stderr
    trained = triptych("train", "--data", "texts.jsonl")
    assert trained.returncode != 0
    assert "pip install 'triptych[train]'" in trained.stderr, trained.stderr


def test_reading_parquet_without_pyarrow_says_which_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"rows.parquet.*triptych\[files\]"):
        list(read_examples([tmp_path / "rows.parquet"]))
