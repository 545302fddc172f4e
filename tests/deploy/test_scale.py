"""docs/large-collections.md says what its script computes from the committed results."""

import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def script() -> Any:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_large_collections_has_the_figures_that_are_computed_now() -> None:
    scale = script()
    page = scale.PAGE.read_text("utf-8")
    assert scale.render(page, scale.Measured()) == page, "run python benchmarks/scale.py"


def test_more_passages_take_more_of_everything() -> None:
    scale = script()
    measured = scale.Measured()
    for form in scale.FORMS:
        small, large = (scale.plan(measured, count, form) for count in (10**8, 10**10))
        assert large["disk"] == 100 * small["disk"]
        assert large["nodes"] > small["nodes"]
        assert large["encode_gpu"] == 100 * small["encode_gpu"]
        assert large["queries"] <= small["queries"] * large["nodes"] / small["nodes"]
    bytes_each = [scale.plan(measured, 10**8, form)["bytes"] for form in scale.FORMS]
    assert bytes_each == sorted(bytes_each)
