"""The README's code and the examples run; links lead somewhere; the table of tests names tests that exist."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_python_block_of_the_readme_runs_on_its_own(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"README.md block {number + 1}", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out


def test_the_readme_has_blocks_to_run() -> None:
    assert len(BLOCKS) >= 2


def test_the_commands_of_the_readme_exist_with_their_options() -> None:
    from triptych.cli.app import Data, Main

    text = (ROOT / "README.md").read_text("utf-8")
    lines = re.findall(
        r"\btriptych ([\w-]+) (.*)", "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S))
    )
    assert {name for name, _ in lines} >= {"index", "search", "encode", "score", "info"}
    for name, rest in lines:
        inner = rest.split()[0]
        command: Any = Data.table[inner].build(inner) if name == "data" else Main.table[name].build(name)
        known = {option for parameter in command.params for option in parameter.opts}
        used = set(re.findall(r"(?<!\S)(--?[a-z][\w-]*)", rest.split(" # ")[0].split("      ")[0]))
        assert used <= known, f"triptych {name}: {used - known}"


@pytest.mark.parametrize("name", ["search", "rerank"])
def test_an_example_runs(name: str, folder: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_example_of_a_stream_resumes(folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "x.jsonl"
    corpus.write_text(
        "".join(f'{{"id": "{i}", "text": "hello world"}}\n' for i in range(300)), encoding="utf-8"
    )
    command = [
        sys.executable,
        str(ROOT / "examples" / "encode_stream.py"),
        str(corpus),
        str(tmp_path / "out"),
    ]
    runs = [
        subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0].splitlines()[-1].startswith("300 texts")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        if not re.match(r"\w+:", target):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_map_of_files_names_what_exists() -> None:
    text = (ROOT / "README.md").read_text("utf-8").split("## Map of the files")[1].split("\n## ")[0]
    for line in text.splitlines():
        first, *others = re.findall(r"`([^`]+)`", line.split("|")[1]) if line.startswith("| `") else [""]
        parent = (ROOT / first).parent
        for name in (first, *others):
            assert (ROOT / name).exists() or (parent / name).exists(), name


def test_the_table_of_the_paper_names_code_and_tests_that_exist() -> None:
    text = (ROOT / "docs" / "paper-code-test.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 10
    for path, name in re.findall(r"`((?:src|tests)?/?[\w/]+\.py)(?:::(\w+))?`", text):
        file = ROOT / path if path.startswith("tests/") else ROOT / "src" / "triptych" / path
        assert file.is_file(), path
        if name:
            source = file.read_text("utf-8")
            assert re.search(rf"\b(def|class) {name}\b|^{name}\b", source, re.MULTILINE), f"{path}::{name}"
