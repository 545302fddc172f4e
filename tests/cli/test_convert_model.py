"""`triptych convert`: a model in every layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych import Encoder
from triptych.model.checkpoint import layout_of

from .conftest import Run

TEXTS = ["the world of text", "hello world"]


def convert(run: Run, *arguments: object) -> None:
    done = run("convert", *arguments)
    assert done.code == 0, done.err


def dense(place: Path) -> Any:
    return Encoder.from_pretrained(place, device="cpu", dtype="float32").encode(TEXTS, outputs="dense").dense


def test_a_model_keeps_its_vectors_in_each_layout(run: Run, folder: Path, tmp_path: Path) -> None:
    for layout in ("triptych", "published", "sentence-transformers"):
        place = tmp_path / layout
        convert(run, folder, "--layout", layout, "-o", place)
        assert layout_of(place) == layout
        np.testing.assert_allclose(dense(place), dense(folder), atol=1e-6)
    for part in ("multi", "lexical"):
        convert(run, folder, "--layout", "sentence-transformers", "--part", part, "-o", tmp_path / part)
    assert Encoder.from_pretrained(tmp_path / "multi", device="cpu").heads == ("multi",)
    assert (tmp_path / "lexical" / "lexical_pooling.py").is_file()


def test_a_model_becomes_an_onnx_graph(run: Run, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    convert(run, folder, "--layout", "onnx", "-o", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size > 10_000


def test_nothing_is_written_over(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = run("convert", folder, "-o", tmp_path)
    assert done.code == 2
    assert "not an empty folder" in done.err
