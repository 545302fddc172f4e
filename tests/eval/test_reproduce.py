"""The commands of docs/reproduce.md on small files in the published formats, with the tiny model."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from readers import made
from triptych.cli.app import app
from triptych.eval.compare import published_table

PAGE = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text("utf-8")
SETS: dict[str, Callable[[Path], Path]] = {
    "miracl": made.miracl,
    "mkqa": made.mkqa,
    "mldr": made.mldr,
    "narrativeqa": made.narrativeqa_hub,
}


@pytest.mark.parametrize("name", SETS)
def test_the_pages_command_evaluates_the_published_files(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    SETS[name](tmp_path / "data" / name)
    line = next(line for line in PAGE.splitlines() if line.startswith(f"triptych eval {name}:"))
    words = [str(folder) if word == "BAAI/bge-m3" else word for word in shlex.split(line)[1:]]
    done = CliRunner().invoke(app, [*words, "--dtype", "float32"])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
    modes = {system.rpartition("/")[2] for system in result["systems"]}
    assert modes >= {"dense", "lexical", "multi", "dense+lexical", "all"}
    assert result["options"]["protocol"] == "paper"
    if name in ("mldr", "narrativeqa"):
        [weights] = [each["weights"] for system, each in result["systems"].items() if system.endswith("/all")]
        assert weights == [0.15, 0.5, 0.35]


ROW = re.compile(r"^\| (\w+)[\w ]*, (nDCG@10|Recall@100) \|(.*)\| table (\d+) \|$", re.MULTILINE)


def test_the_figures_to_expect_are_those_of_the_papers_tables() -> None:
    rows = ROW.findall(PAGE)
    assert [row[0].lower() for row in rows] == list(SETS)
    for name, metric, cells, table in rows:
        found = published_table(
            name.lower(),
            "dev" if name == "MIRACL" else "test",
            "AnswerRecall@100" if name == "MKQA" else metric,
        )
        assert found is not None
        assert found.source.endswith(f"table {table}")
        modes = ("dense", "lexical", "multi", "dense+lexical", "all")
        values = [cell.strip() for cell in cells.split("|")]
        assert [float(value) for value in values[1:6]] == [
            found.systems[f"BGE-M3/{mode}"].mean for mode in modes
        ]
        assert values[0] in ("", str(found.systems["BM25"].mean) if "BM25" in found.systems else "")
