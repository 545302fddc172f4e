"""What pyproject.toml, the code and the release papers say of the package agrees."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import triptych

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_every_extra_that_an_error_names_can_be_installed() -> None:
    named: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtra":
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
        for requirement in requirements:
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
