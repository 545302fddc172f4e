"""Merging: the weighted mean of models of one architecture, whatever their layouts; others are refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import make
from triptych import Encoder
from triptych.errors import InputError, ModelError
from triptych.model import checkpoint as layouts
from triptych.model import tensors as compact
from triptych.train.start import merge


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One model in three layouts' folders, with other weights each."""
    folder = tmp_path_factory.mktemp("models")
    published = [make("xlm-roberta", folder / f"published-{seed}", seed=seed) for seed in (0, 1, 2)]
    layouts.save(layouts.load(published[1]), folder / "ours")
    return [published[0], folder / "ours", published[2]]


def state(folder: Path | Any) -> dict[str, torch.Tensor]:
    return (layouts.load(folder) if isinstance(folder, Path) else folder).model.state_dict()


@pytest.mark.parametrize("weights", [None, [1, 1, 2], [0.25, 0, 0.75]])
def test_every_tensor_is_the_weighted_mean_and_layouts_may_differ(
    models: list[Path], weights: list[float] | None
) -> None:
    got, parts = state(merge(models, weights)), [state(folder) for folder in models]
    shares = weights or [1, 1, 1]
    for name, tensor in got.items():
        wanted = sum(part[name].double() * share for part, share in zip(parts, shares, strict=True))
        torch.testing.assert_close(tensor.double(), wanted / sum(shares), rtol=1e-6, atol=1e-7)


def test_a_model_merged_with_itself_is_itself(models: list[Path]) -> None:
    for name, tensor in state(merge([models[0], models[0]], [0.3, 0.7])).items():
        torch.testing.assert_close(tensor, state(models[0])[name], rtol=1e-6, atol=0)


def test_a_weight_of_0_leaves_the_other_model_exactly(models: list[Path]) -> None:
    for name, tensor in state(merge(models[:2], [0, 5])).items():
        assert torch.equal(tensor, state(models[1])[name])


@pytest.mark.parametrize("layout", ["triptych", "published", "sentence-transformers"])
def test_the_merged_model_is_written_in_any_layout_and_loads(
    models: list[Path], tmp_path: Path, layout: Any
) -> None:
    merged = merge(models)
    layouts.save(merged, tmp_path / "out", layout)
    got = layouts.load(tmp_path / "out").model
    assert torch.equal(next(got.backbone.parameters()), next(merged.model.backbone.parameters()))


def test_matrices_that_all_models_share_keep_the_few_bits_of_the_first(
    models: list[Path], tmp_path: Path
) -> None:
    words = "embeddings.word_embeddings.weight"
    layouts.save(layouts.load(models[0]), tmp_path / "a", bits={words: 4, "multi_head.weight": 8})
    other = layouts.load(tmp_path / "a")
    with torch.no_grad():
        other.model.multi_head.weight.add_(1)  # type: ignore[union-attr]
    layouts.save(other, tmp_path / "b")
    layouts.save(merge([tmp_path / "a", tmp_path / "b"]), tmp_path / "out", start=tmp_path / "a")
    stored, before = (compact.read_stored(tmp_path / name / layouts.WEIGHTS) for name in ("out", "a"))
    assert (stored[words].codes == before[words].codes).all()  # type: ignore[union-attr]
    assert not hasattr(stored["multi_head.weight"], "codes")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"kind": "bert"}, "model_type is 'bert', not 'xlm-roberta'"),
        ({"multi_dim": 8}, "multi_dim is 8, not 32; .*multi_head"),
    ],
)
def test_another_architecture_is_refused_by_what_differs(
    models: list[Path], tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    folder = make(other.pop("kind", "xlm-roberta"), tmp_path / "other", **other)
    with pytest.raises(InputError, match=f"merge: .*other does not fit .*published-0: .*{message}"):
        merge([models[0], folder])


def test_other_pooling_or_tokenizer_is_refused(models: list[Path], tmp_path: Path) -> None:
    layouts.save(layouts.reconfigured(layouts.load(models[0]), {"pooling": "mean"}), tmp_path / "mean")
    with pytest.raises(InputError, match="pooling is 'mean', not 'cls'"):
        merge([models[0], tmp_path / "mean"])
    strange = layouts.load(models[0])
    strange.tokenizer.tokenizer.add_tokens(["strange"])
    layouts.save(strange, tmp_path / "strange")
    with pytest.raises(InputError, match="another tokenizer"):
        merge([models[0], tmp_path / "strange"])


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [1, 1, 1]])
def test_weights_that_do_not_fit_are_refused(models: list[Path], weights: list[float]) -> None:
    with pytest.raises(InputError, match="a number ≥ 0, not all 0"):
        merge(models[:2], weights)


def test_one_model_or_a_missing_one_is_refused(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two models or more"):
        merge(models[:1])
    with pytest.raises(ModelError, match="no such folder"):
        merge([models[0], tmp_path / "nowhere"])


def test_the_command_writes_a_model_and_refuses_a_folder_that_is_there(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from triptych.cli.app import app

    arguments = ["merge", *map(str, models), "-w", "2", "-w", "1", "-w", "1", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Encoder.from_pretrained" in result.stdout
    got = Encoder.from_pretrained(tmp_path / "out")
    assert got.encode(["hello world"]).dense.shape == (1, 32)  # type: ignore[union-attr]
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "not an empty folder" in again.output
