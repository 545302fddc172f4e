"""The encoder with its inference engine: what it reports, and what taking the model out does."""

from pathlib import Path

import numpy as np
import pytest
import torch

import checkpoints
import twin
from checkpoints import TEXTS
from triptych import Encoder
from triptych.errors import InputError
from triptych.model.checkpoint import load
from triptych.model.packed import Packed, batches


def test_a_loaded_encoder_reports_its_engine_and_one_made_in_memory_says_why_it_has_none(
    folder: Path,
) -> None:
    loaded = Encoder.from_pretrained(folder, device="cpu", dtype="float32").describe()
    assert loaded["engine"] == "packed"
    assert loaded["kernels"] in ("onednn-float32", "torch-float32")
    made = Encoder(load(folder), device="cpu", dtype="float32").describe()
    assert (made["engine"], made["kernels"]) == ("packed", "transformers")
    assert "may still change" in made["why"]


def test_another_architecture_runs_padded_and_the_report_says_why(tmp_path: Path) -> None:
    folder = checkpoints.make("modernbert", tmp_path)
    report = Encoder.from_pretrained(folder, device="cpu").describe()
    assert (report["engine"], report["kernels"]) == ("padded", "transformers")
    assert "modernbert" in report["why"]


def test_reading_the_model_leaves_the_engine_and_releasing_it_ends_the_engine(own_encoder: Encoder) -> None:
    before = own_encoder.encode(TEXTS)
    assert own_encoder.model.engine is not None
    twin.assert_same(own_encoder.encode(TEXTS), before, 0)
    model = own_encoder.release_model()
    assert model is own_encoder.model
    assert model.engine is None
    assert "release_model" in own_encoder.describe()["why"]
    twin.assert_same(own_encoder.encode(TEXTS), before, 1e-5)
    with torch.no_grad():
        model.backbone.encoder.layer[0].output.dense.weight.zero_()
    assert np.abs(own_encoder.encode(TEXTS).dense - before.dense).max() > 1e-3, "its weights are live again"


def test_a_pass_with_gradients_says_that_the_engine_holds_the_weights(own_encoder: Encoder) -> None:
    batch = Packed.of([[0, 5, 2]])
    with pytest.raises(InputError, match=r"release_model\(\) to train"):
        own_encoder.model(batch)
    assert own_encoder.release_model()(batch).dense.requires_grad


def test_the_engine_is_chosen_by_an_argument(folder: Path) -> None:
    plain = Encoder.from_pretrained(folder, device="cpu", dtype="float32", inference_engine=False)
    made = Encoder(load(folder), device="cpu", dtype="float32", inference_engine=True)
    assert plain.describe()["kernels"] == "transformers"
    assert made.describe()["kernels"] != "transformers"
    twin.assert_same(plain.encode(TEXTS), made.encode(TEXTS), 1e-5)


def test_dense_alone_equals_dense_among_all_heads(any_encoder: Encoder) -> None:
    alone = any_encoder.encode(TEXTS, outputs="dense").dense
    np.testing.assert_allclose(alone, any_encoder.encode(TEXTS).dense, atol=1e-5)


def test_bfloat16_keeps_the_dense_vectors_within_the_promised_cosine(folder: Path) -> None:
    exact, half = (Encoder.from_pretrained(folder, device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    cosine = (exact.encode(TEXTS).dense * half.encode(TEXTS).dense).sum(1)
    assert cosine.min() > 0.9995


@pytest.mark.parametrize("budget", [1, 7, 30, 1000])
def test_unpadded_batches_hold_as_many_texts_as_the_budget_of_real_tokens_allows(budget: int) -> None:
    lengths = np.array([9, 9, 5, 4, 4, 3, 1, 1, 1])
    parts = list(batches(lengths, budget, padded=False))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in parts:
        tokens = lengths[part].sum()
        assert part.stop - part.start == 1 or tokens <= budget
        if part.stop < len(lengths):
            assert tokens + lengths[part.stop] > budget, "the next text would have fitted"


def test_a_model_that_was_changed_has_another_fingerprint_and_is_saved_as_it_is(
    folder: Path, tmp_path: Path
) -> None:
    for number, change in enumerate(
        (
            lambda model: model.lexical_head.weight.data.add_(0.5),
            lambda model: model.backbone.embeddings.word_embeddings.weight.data[7].mul_(2),
            lambda model: setattr(model, "config", model.config.with_(pooling="mean")),
        )
    ):
        for engine in (True, False):
            encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32", inference_engine=engine)
            loaded = encoder.fingerprint
            assert encoder.model is not None
            assert encoder.fingerprint == loaded, "reading it changes nothing"
            change(encoder.model)
            changed = encoder.fingerprint
            assert changed != loaded
            place = tmp_path / f"{number}-{engine}"
            encoder.save_pretrained(place)
            assert (encoder.describe()["kernels"] != "transformers") is engine, "saving leaves the engine"
            saved = Encoder.from_pretrained(place, device="cpu", dtype="float32")
            assert saved.fingerprint != loaded
            twin.assert_same(saved.encode(TEXTS), encoder.encode(TEXTS), 1e-5)
            encoder.release_model()
            assert encoder.fingerprint != loaded


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_releasing_the_model_alone_keeps_the_fingerprint_and_training_it_does_not(
    folder: Path, dtype: str
) -> None:
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype=dtype)
    loaded = encoder.fingerprint
    model = encoder.release_model()
    assert encoder.fingerprint == loaded
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    model(Packed.of([[0, 5, 6, 2]])).dense.float()[0, 0].backward()
    optimizer.step()
    assert encoder.fingerprint != loaded


def test_blocks_of_a_model_are_not_taken_for_those_of_the_model_trained_from_it(
    own_encoder: Encoder, tmp_path: Path
) -> None:
    list(own_encoder.encode_stream(TEXTS, folder=tmp_path))
    own_encoder.release_model().lexical_head.bias.data.add_(1)
    with pytest.raises(InputError, match="another model"):
        list(own_encoder.encode_stream(TEXTS, folder=tmp_path))


def test_nothing_is_compiled_where_that_is_switched_off(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "from triptych.model import native; print(native.load())"
    environment = {"TRIPTYCH_NO_JIT": "1", "TRIPTYCH_CACHE": str(tmp_path), "PATH": "/usr/bin:/bin"}
    import os

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    assert done.stdout == "Native(rows=None, why='TRIPTYCH_NO_JIT is set: nothing is compiled')\n"
    assert list(tmp_path.iterdir()) == []
