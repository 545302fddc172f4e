"""docs/scale.md and its picture say what the results of `benchmarks/million.py` say; tried on those of a small run."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SMALL = Path(__file__).parent / "million.jsonl"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    for folder in ("benchmarks", "docs"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    import million_page

    return million_page


def test_the_page_has_the_figures_of_the_committed_results(page: Any) -> None:
    text = page.PAGE.read_text("utf-8")
    assert page.render(text, page.read()) == text, "run python benchmarks/million_page.py"


def test_a_run_becomes_a_column_for_each_size_and_a_line_for_each_other_engine(page: Any) -> None:
    rows = page.read(SMALL)
    made = page.render(page.PAGE.read_text("utf-8"), rows)
    lines = made.splitlines()
    assert "| passages | 100 | 200 | 300 |" in lines
    built = {row["passages"]: row for row in rows if row["kind"] == "build" and row["engine"] == "edge"}
    wanted = " | ".join(f"{built[n]['bytes_per_passage']:,}" for n in (100, 200, 300))
    assert f"| bytes a passage | {wanted} |" in lines
    peers = [
        line
        for line in lines
        if line.startswith(("| bm25s |", "| fast-plaid |", "| Triptych on PostgreSQL |"))
    ]
    assert len(peers) == 6  # of PostgreSQL two routes and both, of fast-plaid two sizes
    assert (
        f"{[row for row in rows if row['kind'] == 'churn'][-1]['changed']} of 200 passages were removed"
        in made
    )
    assert page.render(made, rows) == made


def test_the_picture_draws_every_size_of_a_run(page: Any) -> None:
    import pictures

    figure = pictures.growth([json.loads(line) for line in SMALL.read_text("utf-8").splitlines()])
    seconds, room, times = figure.axes
    for axes, lines in ((seconds, 2), (room, 2), (times, 5)):
        assert len(axes.lines) == lines
        assert list(axes.lines[0].get_xdata()) == [100, 200, 300]
    assert sys.modules["pictures"].MILLION.name == "million.jsonl"


def test_a_collection_is_read_to_its_end_past_a_block_that_was_never_written(
    page: Any, tmp_path: Path
) -> None:
    import index_scale

    for number in (0, 2):
        (tmp_path / f"{number:08d}.safetensors").touch()
    (tmp_path / ".00000003.safetensors").touch()
    found = index_scale.files_of({"stream": str(tmp_path), "until": 0})
    assert [path.name for path in found] == ["00000000.safetensors", "00000002.safetensors"]
