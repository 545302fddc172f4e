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
