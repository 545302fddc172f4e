"""docs/large-collections.md says what its script computes from the committed results."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "scale", module)  # which dataclasses look up
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec.loader.exec_module(module)
    return module


def test_the_page_of_large_collections_has_the_figures_that_are_computed_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scale = script(monkeypatch)
    page = scale.PAGE.read_text("utf-8")
    assert scale.render(page, scale.Measured()) == page, "run python benchmarks/scale.py"


def test_more_passages_take_more_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = script(monkeypatch)
    measured = scale.Measured()
    for form in scale.FORMS:
        small, large = (scale.plan(measured, count, form) for count in (10**8, 10**10))
        assert large["disk"] == pytest.approx(100 * small["disk"])
        assert large["nodes"] > small["nodes"]
        assert large["encode_gpu"] == pytest.approx(100 * small["encode_gpu"])
        assert large["queries"] <= small["queries"] * large["nodes"] / small["nodes"]
    bytes_each = [scale.plan(measured, 10**8, form)["bytes"] for form in scale.FORMS]
    assert bytes_each == sorted(bytes_each)
