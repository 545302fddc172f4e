"""Against FlagEmbedding 1.4.2: equal where it is right; where it is wrong, the difference is pinned and explained."""

import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
import twin
from checkpoints import POSITIONS, TEXTS
from triptych import Encoder
from triptych.errors import InputError, ModelError

# Deprecations and unclosed files inside the published package and what it imports.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

PAIRS = [
    ("what is bge m3?", "bge m3 is a model of text."),
    ("defination of bm25", "the world"),
    ("x", "hello world"),
]
ALL = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True, "max_length": POSITIONS}


@pytest.fixture(scope="module")
def embedder() -> Any:
    """The published class; imported under this module's filters."""
    package = pytest.importorskip("FlagEmbedding", reason="the group 'parity' is not installed")
    assert version("FlagEmbedding") == "1.4.2", "what is pinned here is true of this version"
    return package.BGEM3FlagModel


@pytest.fixture(scope="module")
def published(embedder: Any, folder: Path) -> Iterator[Any]:
    return embedder(str(folder), use_fp16=False, devices="cpu")


def compare(encoder: Encoder, published: Any) -> None:
    ours, theirs = encoder.encode(TEXTS), published.encode(TEXTS, **ALL)
    np.testing.assert_allclose(ours.dense, theirs["dense_vecs"], atol=1e-5)
    for i in range(len(TEXTS)):
        expected = {int(token): float(weight) for token, weight in theirs["lexical_weights"][i].items()}
        assert twin.row(ours.lexical, i) == pytest.approx(expected, abs=1e-5)
        np.testing.assert_allclose(ours.multi[i], theirs["colbert_vecs"][i], atol=1e-5)


def test_all_three_representations_are_equal(encoder: Encoder, published: Any) -> None:
    compare(encoder, published)


@pytest.mark.parametrize("weights", [(1.0, 0.3, 1.0), (0.2, 0.8, 0.0), (0.15, 0.5, 0.35)])
def test_the_scores_of_pairs_are_equal_but_for_their_division_by_the_sum_of_the_weights(
    encoder: Encoder, published: Any, weights: tuple[float, float, float]
) -> None:
    # One pair at a time: see the test of padded passages below.
    theirs = published.compute_score(PAIRS, batch_size=1, weights_for_different_modes=list(weights))
    queries, documents = zip(*PAIRS, strict=True)

    def ours(*weights: float) -> np.ndarray:
        return encoder.score(queries, documents, weights).diagonal()

    np.testing.assert_allclose(ours(1, 0, 0), theirs["dense"], atol=1e-5)
    np.testing.assert_allclose(ours(0, 1, 0), theirs["sparse"], atol=1e-5)
    np.testing.assert_allclose(ours(0, 0, 1), theirs["colbert"], atol=1e-5)
    both = ours(weights[0], weights[1], 0) / sum(weights[:2])
    np.testing.assert_allclose(both, theirs["sparse+dense"], atol=1e-5)
    np.testing.assert_allclose(ours(*weights) / sum(weights), theirs["colbert+sparse+dense"], atol=1e-5)


def test_the_lexical_score_of_two_rows_is_equal(encoder: Encoder, published: Any) -> None:
    rows = published.encode(TEXTS, **ALL)["lexical_weights"]
    theirs = published.compute_lexical_matching_score(rows, rows)
    np.testing.assert_allclose(encoder.score(TEXTS, TEXTS, (0, 1, 0)), theirs, atol=1e-5)


@pytest.mark.parametrize("multi_dim", [checkpoints.WIDTH, 16])
def test_it_loads_the_published_folder_that_we_write_with_equal_numbers(
    embedder: Any, tmp_path: Path, multi_dim: int
) -> None:
    """By way of our own layout, whose part in the configuration must not come along."""
    source = checkpoints.make("xlm-roberta", tmp_path / "source", seed=3, multi_dim=multi_dim)
    Encoder.from_pretrained(source, device="cpu").save_pretrained(tmp_path / "ours")
    ours = Encoder.from_pretrained(tmp_path / "ours", device="cpu", dtype="float32")
    ours.save_pretrained(tmp_path / "published", layout="published")
    theirs = embedder(str(tmp_path / "published"), use_fp16=False, devices="cpu", colbert_dim=multi_dim)
    compare(ours, theirs)


def test_it_has_nothing_to_say_when_it_loads_what_we_write(
    embedder: Any, folder: Path, tmp_path: Path, transformers_log: list[str]
) -> None:
    Encoder.from_pretrained(folder, device="cpu").save_pretrained(tmp_path, layout="published")
    embedder(str(tmp_path), use_fp16=False, devices="cpu")
    assert transformers_log == []


# What the published code does wrong, and ours does not.


def centred(folder: Path, copy: Path) -> Path:
    """A copy whose token vectors have mean zero, so that best similarities below 0 occur."""
    shutil.copytree(folder, copy)
    plain = twin.Twin(folder)
    states = plain.model(**plain.tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state[0].detach()
    head = plain.heads[1]
    torch.save(
        {"weight": head["weight"], "bias": -head["weight"] @ states.mean(0)}, copy / "colbert_linear.pt"
    )
    return copy


def test_padding_of_a_longer_passage_counts_as_similarity_0_in_its_pair_scores(
    embedder: Any, folder: Path, tmp_path: Path
) -> None:
    """Pads are zero vectors there and take part in the maximum: a negative best similarity becomes 0."""
    copy = centred(folder, tmp_path / "centred")
    theirs = embedder(str(copy), use_fp16=False, devices="cpu")
    ours = Encoder.from_pretrained(copy, device="cpu", dtype="float32")
    documents, long = ["x", "a", "the", "hello", "world"], "the world of text " * 8
    pairs = [("what is bge m3?", document) for document in documents]
    alone = np.array(theirs.compute_score(pairs, batch_size=1)["colbert"])
    padded = np.array(theirs.compute_score([*pairs, ("x", long)])["colbert"][:-1])
    assert (padded >= alone - 1e-6).all()
    assert (padded > alone + 1e-3).any()
    scores = ours.score([pairs[0][0]], [*documents, long], (0, 0, 1))[0, :-1]
    np.testing.assert_allclose(scores, alone, atol=1e-5)


def test_ids_that_decode_to_the_same_string_overwrite_each_other_there(
    encoder: Encoder, published: Any
) -> None:
    word, letter = (encoder.tokenizer.tokenizer.convert_tokens_to_ids(piece) for piece in ("▁a", "a"))
    assert word != letter
    tokens = published.convert_id_to_token({str(word): 0.5, str(letter): 0.25})
    assert tokens == {"a": 0.25}
    assert {word, letter} <= set(twin.row(encoder.encode("a model xa").lexical, 0))


def test_an_empty_list_crashes_there_and_gives_an_empty_result_here(encoder: Encoder, published: Any) -> None:
    with pytest.raises(AttributeError, match="keys"):
        published.encode([])
    assert len(encoder.encode([])) == 0


def test_its_first_batch_runs_twice(
    own_encoder: Encoder, published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model, encode, expected in (
        (published.model.model, lambda: published.encode(["a model"], **ALL), 2),
        (own_encoder.model, lambda: own_encoder.encode(["a model"]), 1),
    ):
        passes: list[int] = []
        handle = model.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        encode()
        handle.remove()
        assert len(passes) == expected


def test_it_takes_every_runtime_error_for_lack_of_memory(
    own_encoder: Encoder, published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch shrinks to nothing, and what the user sees is not the cause."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the real cause")

    monkeypatch.setattr(published.model, "forward", fail)
    with pytest.raises(AttributeError, match="keys"):
        published.encode(["a model"], **ALL)
    monkeypatch.setattr(own_encoder.model, "forward", fail)
    with pytest.raises(RuntimeError, match="the real cause"):
        own_encoder.encode(["a model"])


def test_a_missing_head_becomes_a_random_one_there_and_an_error_here(
    embedder: Any, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "sparse_linear.pt").unlink()
    vectors = [
        embedder(str(copy), use_fp16=False, devices="cpu").encode(["a model"], **ALL)["colbert_vecs"][0]
        for _ in "ab"
    ]
    assert np.abs(vectors[0] - vectors[1]).max() > 0.1
    with pytest.raises(ModelError, match=r"sparse_linear\.pt: missing"):
        Encoder.from_pretrained(copy)


def test_unknown_options_are_swallowed_there_and_errors_here(embedder: Any, folder: Path) -> None:
    model = embedder(str(folder), use_fp16=False, devices="cpu", device="no such device", maximum_length=3)
    assert model.target_devices == ["cpu"]
    with pytest.raises(InputError, match="no such device"):
        Encoder.from_pretrained(folder, device="no such device")
    with pytest.raises(InputError, match="did you mean 'max_length'"):
        Encoder.from_pretrained(folder, maximum_length=3)


def test_the_string_none_is_put_before_queries_in_its_training_data_only(published: Any) -> None:
    """In version 1.4.2 its encoder no longer does so: queries and passages give what `encode` gives."""
    from FlagEmbedding.abc.finetune.embedder.AbsDataset import AbsEmbedderSameDatasetTrainDataset as Data

    data = object.__new__(Data)
    data.args = SimpleNamespace(
        query_instruction_for_retrieval=None,
        query_instruction_format="{}{}",
        passage_instruction_for_retrieval=None,
        train_group_size=2,
        knowledge_distillation=False,
    )
    data.shuffle_ratio = 0.0
    queries, passages, _ = data._create_batch_data(
        {"query": ["a query"], "pos": [["good"]], "neg": [["bad"]]}
    )
    assert (queries, passages) == (["Nonea query"], ["good", "bad"])
    plain = published.encode(["a query"])["dense_vecs"]
    for encode in (published.encode_queries, published.encode_corpus):
        np.testing.assert_array_equal(encode(["a query"])["dense_vecs"], plain)
