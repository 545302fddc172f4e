"""The backbone: padding that changes nothing, and more positions for a longer text."""

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import POSITIONS, TEXTS
from triptych import Encoder
from triptych.errors import InputError
from triptych.model import checkpoint as layouts
from triptych.model.backbone import extend_positions, padded_states, usable_positions
from triptych.model.packed import Packed

KINDS = ("xlm-roberta", "bert")


@pytest.mark.parametrize("junk", [0, 3, 11])
def test_junk_in_the_padding_changes_nothing(any_own_encoder: Encoder, junk: int) -> None:
    batch = Packed.of(any_own_encoder.tokenizer.encode(TEXTS, max_length=64).ids)
    backbone, pad = any_own_encoder.release_model().backbone, any_own_encoder.tokenizer.special.pad
    with torch.inference_mode():
        expected = padded_states(backbone, batch, pad)
        torch.testing.assert_close(padded_states(backbone, batch, junk), expected, atol=2e-6, rtol=0)


def test_the_order_of_a_batch_permutes_its_states(any_own_encoder: Encoder) -> None:
    ids = any_own_encoder.tokenizer.encode(TEXTS, max_length=64).ids
    model = any_own_encoder.release_model()

    @settings(max_examples=10, deadline=None)
    @given(st.permutations(range(len(ids))))
    def check(order: list[int]) -> None:
        with torch.inference_mode():
            plain = model(Packed.of(ids)).dense
            torch.testing.assert_close(model(Packed.of([ids[i] for i in order])).dense, plain[list(order)])

    check()


def loaded(folder: Path) -> tuple[Any, layouts.Checkpoint]:
    checkpoint = layouts.load(folder)
    return checkpoint.model.backbone, checkpoint


@pytest.fixture
def backbone_folder(any_folder: Path, any_own_encoder: Encoder) -> Path:
    if any_own_encoder.model.backbone.config.model_type not in KINDS:
        pytest.skip("no table of positions")
    return any_folder


@pytest.mark.parametrize("method", ["tile", "interpolate"])
def test_an_extended_backbone_reads_long_texts_and_survives_a_round_trip(
    backbone_folder: Path, tmp_path: Path, method: Literal["tile", "interpolate"]
) -> None:
    backbone, checkpoint = loaded(backbone_folder)
    assert usable_positions(backbone) == POSITIONS
    extend_positions(backbone, 150, method)
    assert usable_positions(backbone) == 150
    encoder = Encoder(layouts.reconfigured(checkpoint, {"max_length": 150}), device="cpu", dtype="float32")
    text = "the world of text " * 30  # 122 tokens and more
    ids = encoder.tokenizer.encode([text], max_length=150)
    assert len(ids.ids[0]) > POSITIONS
    long = encoder.encode([text, "a model"])
    assert len(long.multi[0]) == len(ids.ids[0]) - 1
    encoder.save_pretrained(tmp_path)
    again = Encoder.from_pretrained(tmp_path, device="cpu", dtype="float32")
    assert again.config.max_length == 150
    np.testing.assert_allclose(again.encode([text, "a model"]).dense, long.dense, atol=1e-6)


def test_tiling_leaves_short_texts_as_they_were(backbone_folder: Path) -> None:
    expected = Encoder.from_pretrained(backbone_folder, device="cpu", dtype="float32").encode(TEXTS)
    backbone, checkpoint = loaded(backbone_folder)
    extend_positions(backbone, 1000)
    got = Encoder(checkpoint, device="cpu", dtype="float32").encode(TEXTS)
    np.testing.assert_allclose(got.dense, expected.dense, atol=1e-6)
    np.testing.assert_allclose(got.multi.values, expected.multi.values, atol=1e-6)


def test_tiling_repeats_the_table(backbone_folder: Path) -> None:
    backbone, _ = loaded(backbone_folder)
    old = backbone.embeddings.position_embeddings.weight.detach().clone()
    offset = len(old) - POSITIONS
    extend_positions(backbone, 2 * POSITIONS + 5)
    new = backbone.embeddings.position_embeddings.weight
    assert torch.equal(new[: len(old)], old)
    assert torch.equal(new[len(old) : len(old) + POSITIONS], old[offset:])
    assert torch.equal(new[-5:], old[offset : offset + 5])


def test_interpolation_keeps_both_ends_and_lies_between_its_neighbours(backbone_folder: Path) -> None:
    backbone, _ = loaded(backbone_folder)
    old = backbone.embeddings.position_embeddings.weight.detach().clone()
    offset = len(old) - POSITIONS
    extend_positions(backbone, 2 * POSITIONS - 1, "interpolate")
    new = backbone.embeddings.position_embeddings.weight[offset:]
    torch.testing.assert_close(new[::2], old[offset:])
    torch.testing.assert_close(new[1::2], (old[offset:-1] + old[offset + 1 :]) / 2)


def test_positions_are_extended_only_to_more_and_only_where_there_is_a_table(
    any_folder: Path, tmp_path: Path
) -> None:
    backbone, _ = loaded(Path(shutil.copytree(any_folder, tmp_path / "copy")))
    message = "no learned positions" if backbone.config.model_type == "modernbert" else "more than the 64"
    with pytest.raises(InputError, match=message):
        extend_positions(backbone, POSITIONS)
