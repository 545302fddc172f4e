"""Models that sentence-transformers runs give what our encoder gives for the same weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import checkpoints
from checkpoints import TEXTS
from triptych import Encoder
from triptych.errors import InputError, ModelError
from triptych.eval.baselines import SentenceModel, open_baseline
from triptych.types import Encoded

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make("xlm-roberta", tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def encoder(published: Path) -> Encoder:
    prefixes = {"query_prefix": "query: ", "document_prefix": "passage: ", "pooling": "mean"}
    return Encoder.from_pretrained(published, device="cpu", dtype="float32", **prefixes)


@pytest.fixture(scope="module")
def dense(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense") / "e5"
    encoder.save_pretrained(folder, layout="sentence-transformers")
    return folder


@pytest.fixture(scope="module")
def sentence_model(dense: Path) -> Any:
    pytest.importorskip("sentence_transformers", reason="the group 'parity' is not installed")
    return open_baseline(f"st:{dense}", "cpu")


def joined(parts: Iterator[Encoded]) -> Encoded:
    return Encoded.concat(list(parts))


def test_a_sentence_model_encodes_with_the_folders_prompts_as_our_encoder_does(
    encoder: Encoder, sentence_model: Any
) -> None:
    assert sentence_model.name == "e5"
    assert sentence_model.modes == {"dense": (1, 0, 0)}
    ours = encoder.encode_query(TEXTS).dense
    np.testing.assert_allclose(sentence_model.encode_queries(TEXTS).dense, ours, atol=1e-5)
    theirs = joined(sentence_model.encode_documents(iter(TEXTS), 3))
    np.testing.assert_allclose(theirs.dense, encoder.encode_document(TEXTS).dense, atol=1e-5)
    assert sentence_model.facts["dimensions"] == checkpoints.WIDTH
    assert sentence_model.encode_queries([]).dense.shape == (0, checkpoints.WIDTH)


def test_given_prompts_take_the_place_of_the_folders(
    encoder: Encoder, dense: Path, sentence_model: Any
) -> None:
    other: Any = open_baseline(f"st:{dense},what ,is ", "cpu")
    np.testing.assert_allclose(
        other.encode_queries(TEXTS).dense, encoder.encode(TEXTS, prefix="what ").dense, atol=1e-5
    )
    [documents] = other.encode_documents(TEXTS, 100)
    np.testing.assert_allclose(documents.dense, encoder.encode(TEXTS, prefix="is ").dense, atol=1e-5)
    assert other.fingerprint != sentence_model.fingerprint
    assert sentence_model.fingerprint == SentenceModel.open(dense, "cpu").fingerprint


def test_a_model_that_compares_by_distance_is_refused(
    dense: Path, sentence_model: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    sentence_model.model.save_pretrained(str(folder))
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(settings.read_text().replace('"cosine"', '"euclidean"'))
    with pytest.raises(InputError, match="compares by 'euclidean'"):
        SentenceModel.open(folder, "cpu")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ModelError, match="expected the folder of a model"):
        open_baseline(f"st:{tmp_path}")
