"""The adapter against FlagEmbedding itself: equal where that is right, and where not, how they differ."""

import importlib
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from triptych import Encoder
from triptych.compat import MODES, BGEM3FlagModel
from triptych.errors import InputError

flag = pytest.importorskip("FlagEmbedding", reason="needs the dependency group 'parity'")

TEXTS = ["what is bge m3?", "a model of text", "the the world of the world", "x", "hello 日本 world"]
PAIRS = [("what is a model", "a model of text"), ("hello", "the world"), ("a model", "bm25 bm25 model")]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def published(folder: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield flag.BGEM3FlagModel(
            str(folder), use_fp16=False, devices="cpu", query_max_length=60, passage_max_length=60
        )


@pytest.fixture(scope="module")
def ours(folder: Path) -> BGEM3FlagModel:
    return BGEM3FlagModel(folder, use_fp16=False, devices="cpu")


WANTED = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}


def test_encode_gives_what_flagembedding_gives(published: Any, ours: BGEM3FlagModel) -> None:
    theirs, mine = published.encode(TEXTS, **WANTED), ours.encode(TEXTS, **WANTED)
    assert set(mine) == set(theirs)
    np.testing.assert_allclose(mine["dense_vecs"], theirs["dense_vecs"], atol=1e-5)
    for one, other in zip(mine["lexical_weights"] or [], theirs["lexical_weights"], strict=True):
        assert isinstance(one, dict)
        assert one == pytest.approx({key: float(weight) for key, weight in other.items()}, abs=1e-5)
    for one, other in zip(mine["colbert_vecs"] or [], theirs["colbert_vecs"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_one_string_gives_the_values_of_one_text(published: Any, ours: BGEM3FlagModel) -> None:
    theirs, mine = published.encode(TEXTS[0], **WANTED), ours.encode(TEXTS[0], **WANTED)
    assert mine["dense_vecs"] is not None
    assert mine["dense_vecs"].shape == theirs["dense_vecs"].shape
    assert isinstance(mine["lexical_weights"], dict)
    assert np.shape(mine["colbert_vecs"]) == np.shape(theirs["colbert_vecs"])


def test_by_default_only_dense_vectors_are_given(published: Any, ours: BGEM3FlagModel) -> None:
    for model in (published, ours):
        output = model.encode(TEXTS[:2])
        assert output["dense_vecs"] is not None
        assert output["lexical_weights"] is None
        assert output["colbert_vecs"] is None


def test_queries_and_corpus_are_encoded_alike_without_prefixes(published: Any, ours: BGEM3FlagModel) -> None:
    for name in ("encode_queries", "encode_corpus"):
        theirs, mine = getattr(published, name)(TEXTS), getattr(ours, name)(TEXTS)
        np.testing.assert_allclose(mine["dense_vecs"], theirs["dense_vecs"], atol=1e-5)


@pytest.mark.parametrize("weights", [None, [0.4, 0.2, 0.4], [1, 0.3, 1], [0, 0, 1.0], [0.5, 0.5, 0]])
def test_single_pairs_have_the_scores_of_flagembedding(
    published: Any, ours: BGEM3FlagModel, weights: list[float] | None
) -> None:
    undefined = {"sparse+dense"} if weights == [0, 0, 1.0] else set()  # 0/0 in theirs
    for pair in PAIRS:
        theirs = published.compute_score(pair, weights_for_different_modes=weights)
        mine: Any = ours.compute_score(pair, weights_for_different_modes=weights)
        assert list(mine) == list(MODES)
        assert set(theirs) == set(MODES)
        for mode in set(MODES) - undefined:
            assert mine[mode] == pytest.approx(theirs[mode], abs=1e-5), (pair, mode)


def test_many_pairs_have_the_scores_of_single_pairs(ours: BGEM3FlagModel) -> None:
    together: Any = ours.compute_score(PAIRS * 100)
    assert all(len(together[mode]) == 300 for mode in MODES)
    for i, pair in enumerate(PAIRS):
        alone: Any = ours.compute_score(pair)
        for mode in MODES:
            assert together[mode][i] == pytest.approx(alone[mode], abs=1e-5)
            assert together[mode][297 + i] == pytest.approx(alone[mode], abs=1e-5)


def test_padding_never_counts_as_a_token(published: Any, ours: BGEM3FlagModel) -> None:
    """There a pad vector of zeros takes part in the maximum: a score below it rises when others are longer."""
    pairs = [(query, text) for query, text in PAIRS] + [("a", "the world of the model " * 5)]
    theirs: Any = published.compute_score(pairs)["colbert"]
    mine: Any = ours.compute_score(pairs)["colbert"]
    alone = [published.compute_score(pair)["colbert"] for pair in pairs]
    np.testing.assert_allclose(mine, alone, atol=1e-5)
    assert all(there >= here - 1e-5 for there, here in zip(theirs, mine, strict=True))


def test_lexical_matching_is_that_of_flagembedding(published: Any, ours: BGEM3FlagModel) -> None:
    left: Any = ours.encode(TEXTS[:3], return_sparse=True)["lexical_weights"]
    right: Any = ours.encode(TEXTS[1:], return_sparse=True)["lexical_weights"]
    theirs = published.compute_lexical_matching_score(left, right)
    np.testing.assert_allclose(ours.compute_lexical_matching_score(left, right), theirs, atol=1e-6)
    one = ours.compute_lexical_matching_score(left[0], right[0])
    assert one == pytest.approx(published.compute_lexical_matching_score(left[0], right[0]), abs=1e-6)
    with pytest.raises(InputError, match="two mappings or two lists"):
        ours.compute_lexical_matching_score(left, right[0])


def test_colbert_score_is_that_of_flagembedding(published: Any, ours: BGEM3FlagModel) -> None:
    vectors: Any = ours.encode(TEXTS, return_dense=False, return_colbert_vecs=True)["colbert_vecs"]
    for passage in vectors:
        theirs = float(published.colbert_score(vectors[0], passage))
        assert ours.colbert_score(vectors[0], passage) == pytest.approx(theirs, abs=1e-6)


def test_tokens_of_one_name_keep_the_larger_weight(published: Any, ours: BGEM3FlagModel) -> None:
    """There the last one wins: "a" at a word's beginning and "a" inside a word have the same name."""
    tokenizer = ours.encoder.tokenizer.tokenizer
    start, inside = (str(tokenizer.convert_tokens_to_ids(piece)) for piece in ("▁a", "a"))
    weights = {start: 0.9, inside: 0.1}
    assert ours.convert_id_to_token(weights) == {"a": 0.9}
    assert published.convert_id_to_token(weights) == {"a": 0.1}
    many = [{start: 0.5}, {inside: 0.2}]
    assert ours.convert_id_to_token(many) == published.convert_id_to_token(many)


def test_empty_lists_give_empty_results_where_flagembedding_fails(
    published: Any, ours: BGEM3FlagModel
) -> None:
    with pytest.raises(Exception):  # noqa: B017 - an IndexError or a ValueError, by accident
        published.encode([])
    output = ours.encode([], **WANTED)
    assert output["dense_vecs"] is not None
    assert output["dense_vecs"].shape == (0, 32)
    assert output["lexical_weights"] == []
    assert output["colbert_vecs"] == []
    assert ours.compute_score([]) == {mode: [] for mode in MODES}


def test_unknown_arguments_are_errors_where_flagembedding_swallows_them(ours: BGEM3FlagModel) -> None:
    for call in (lambda: ours.encode(TEXTS, devcie="cpu"), lambda: BGEM3FlagModel("x", normalise=True)):  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="unexpected keyword"):
            call()


def test_every_argument_here_has_its_name_there() -> None:
    for name in ("encode", "encode_queries", "encode_corpus", "compute_score"):
        here = inspect.signature(getattr(BGEM3FlagModel, name)).parameters
        there = inspect.signature(getattr(flag.BGEM3FlagModel, name)).parameters
        assert set(here) - {"convert_to_numpy"} <= set(there), name
    assert "convert_to_numpy" in inspect.signature(flag.abc.inference.AbsEmbedder.encode).parameters


def test_the_constructor_takes_every_argument_of_flagembedding_in_its_order() -> None:
    here, there = (
        [name for name in inspect.signature(of.__init__).parameters if name != "kwargs"]
        for of in (BGEM3FlagModel, flag.BGEM3FlagModel)
    )
    assert here[: len(there)] == there


def test_the_calls_that_people_write_run(folder: Path, published: Any) -> None:
    """The call of milvus-model, and `device`, numbers as devices and arrays as weights of others."""
    model = BGEM3FlagModel(
        model_name_or_path=str(folder),
        normalize_embeddings=True,
        use_fp16=False,
        use_bf16=False,
        query_instruction_for_retrieval=None,
        query_instruction_format="{}{}",
        devices=["cpu"],
        pooling_method="cls",
        trust_remote_code=False,
        cache_dir=None,
        colbert_dim=-1,
        batch_size=12,
        query_max_length=8192,
        passage_max_length=8192,
        return_dense=True,
        return_sparse=True,
        return_colbert_vecs=True,
        truncate_dim=None,
    )
    output = model.encode(TEXTS)
    assert all(value is not None for value in output.values()), "the constructor's defaults count"
    assert model.encode(TEXTS, return_colbert_vecs=False)["colbert_vecs"] is None
    assert BGEM3FlagModel(folder, device="cpu", use_fp16=False).encode(TEXTS)["dense_vecs"] is not None
    with pytest.raises(InputError, match="cuda:99"):
        BGEM3FlagModel(folder, devices=99)
    left, right = zip(*PAIRS, strict=True)
    weights = np.array([0.4, 0.2, 0.4])
    expected: Any = model.compute_score(PAIRS, weights_for_different_modes=[0.4, 0.2, 0.4])
    assert model.compute_score(zip(left, right, strict=True), weights_for_different_modes=weights) == expected
    vectors: Any = output["colbert_vecs"]
    score = model.colbert_score(vectors[0], vectors[1])
    assert score.item() == pytest.approx(float(published.colbert_score(vectors[0], vectors[1])), abs=1e-6)
    assert (score.numpy().shape, float(score.numpy())) == ((), pytest.approx(score))


@pytest.mark.parametrize(
    "options",
    [
        {"query_instruction_for_retrieval": "what is ", "query_instruction_format": "{}{}"},
        {"query_instruction_for_retrieval": "hello", "query_instruction_format": "{}\\n{}"},
        {"truncate_dim": 8},
        {"normalize_embeddings": False},
        {"normalize_embeddings": False, "pooling_method": "mean"},
        {"normalize_embeddings": False, "truncate_dim": 8},
        {"pooling_method": "mean"},
        {"convert_to_numpy": False},
    ],
    ids=str,
)
def test_options_of_the_constructor_do_what_they_do_in_flagembedding(
    folder: Path, options: dict[str, Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = flag.BGEM3FlagModel(
            str(folder), use_fp16=False, devices="cpu", query_max_length=60, **options
        )
    ours = BGEM3FlagModel(folder, use_fp16=False, devices="cpu", **options)
    for name in ("encode_queries", "encode_corpus"):
        expected, got = getattr(theirs, name)(TEXTS, **WANTED), getattr(ours, name)(TEXTS, **WANTED)
        np.testing.assert_allclose(got["dense_vecs"], expected["dense_vecs"], atol=1e-5)
        for one, other in zip(got["lexical_weights"], expected["lexical_weights"], strict=True):
            assert one == pytest.approx({key: float(weight) for key, weight in other.items()}, abs=1e-5)
        for one, other in zip(got["colbert_vecs"], expected["colbert_vecs"], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"colbert_dim": 7},
        {"colbert_dim": "x"},
        {"pooling_method": "last"},
        {"query_instruction_for_retrieval": 3},
        {"query_instruction_for_retrieval": "x", "query_instruction_format": "{}"},
        {"query_instruction_for_retrieval": "x", "query_instruction_format": 5},
        {"batch_size": "12"},
        {"batch_size": 0},
        {"query_max_length": 5.5},
        {"passage_max_length": None},
        {"truncate_dim": -1},
        {"devices": 5.5},
        {"devices": []},
        {"device": "nowhere"},
        {"cache_dir": 5},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_honoured_is_an_error_that_names_the_argument(
    folder: Path, options: dict[str, Any]
) -> None:
    name = list(options)[-1].replace("cache_dir", "cache").replace("pooling_method", "pooling")
    with pytest.raises(InputError, match=name.replace("devices", "device")):
        BGEM3FlagModel(folder, **{"devices": "cpu", "use_fp16": False} | options)


@pytest.mark.parametrize(
    "wrong",
    [None, 5, 5.5, {"a": 1}, b"bytes", object(), ["x", 3], np.array("x")],
    ids=lambda wrong: type(wrong).__name__,
)
def test_wrong_types_are_input_errors_in_every_method(ours: BGEM3FlagModel, wrong: Any) -> None:
    calls: list[Any] = [ours.encode, ours.encode_queries, ours.encode_corpus, ours.compute_score]
    calls += [lambda value: ours.colbert_score(value, np.zeros((1, 32)))]
    calls += [lambda value: ours.encode("a", max_length=value) if value is not None else ours.encode(None)]  # type: ignore[arg-type]
    calls += [lambda value: ours.encode("a", batch_size=value) if value not in (None, 5) else ours.encode(5)]  # type: ignore[arg-type]
    if not isinstance(wrong, dict):
        calls += [ours.convert_id_to_token, lambda value: ours.compute_lexical_matching_score(value, [{}])]
    for call in calls:
        if call is calls[5] and wrong == 5:
            continue
        with pytest.raises(InputError):
            call(wrong)


def test_batch_size_changes_no_result(ours: BGEM3FlagModel) -> None:
    whole = ours.encode(TEXTS)["dense_vecs"]
    assert whole is not None
    for size in (1, 3):
        np.testing.assert_allclose(ours.encode(TEXTS, batch_size=size)["dense_vecs"], whole, atol=1e-5)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [([("a", "b", "c")], r"sentence_pairs\[0\]"), (["ab", "cd", "ef"], r"\[0\]"), ([("a", 5)], r"\[0\]")],
)
def test_what_is_not_pairs_is_refused(ours: BGEM3FlagModel, pairs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ours.compute_score(pairs)


def test_bad_weights_devices_and_sizes_are_refused(ours: BGEM3FlagModel, encoder: Encoder) -> None:
    with pytest.raises(InputError, match="weights"):
        ours.compute_score(PAIRS, weights_for_different_modes=[1, 2])
    with pytest.raises(InputError, match="normalize_embeddings"):
        BGEM3FlagModel(encoder, normalize_embeddings=False)
    with pytest.raises(InputError, match="device: got 'cuda:7'"):
        ours.encode_single_device(TEXTS, device="cuda:7")
    with pytest.raises(InputError, match="batch_size"):
        BGEM3FlagModel(encoder).encode(TEXTS, batch_size=-1)
    with pytest.raises(InputError, match="outputs"):
        ours.encode(TEXTS, return_dense=False)


def same(got: Any, expected: Any) -> None:
    """Compares two outputs; float32 but for rounding."""
    assert set(got) == set(expected)
    for name in ("dense_vecs", "colbert_vecs"):
        assert (got[name] is None) == (expected[name] is None)
    if got["dense_vecs"] is not None:
        np.testing.assert_allclose(got["dense_vecs"], expected["dense_vecs"], atol=1e-5)
    for one, other in zip(got["lexical_weights"] or [], expected["lexical_weights"] or [], strict=True):
        assert one == pytest.approx({key: float(weight) for key, weight in other.items()}, abs=1e-5)
    for one, other in zip(got["colbert_vecs"] or [], expected["colbert_vecs"] or [], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_single_device_and_the_modules_have_the_names_of_flagembedding(
    published: Any, ours: BGEM3FlagModel
) -> None:
    same(
        ours.encode_single_device(TEXTS, device="cpu", **WANTED),
        published.encode_single_device(TEXTS, **WANTED),
    )
    same(ours.encode_single_device(TEXTS), published.encode_single_device(TEXTS, max_length=60))
    assert ours.target_devices == published.target_devices == ["cpu"]
    assert ours.tokenizer(TEXTS[0])["input_ids"] == published.tokenizer(TEXTS[0])["input_ids"]
    assert len(ours.tokenizer) == len(published.tokenizer)
    for model in (published, ours):
        assert model.model.model.config.hidden_size == 32
        assert model.model.colbert_linear.out_features == 32
        assert model.model.sparse_linear.out_features == 1
        assert model.model.tokenizer is model.tokenizer
        assert not any(parameter.is_meta for parameter in model.model.eval().parameters())
        model.stop_self_pool()
        same(model.encode(TEXTS, convert_to_numpy=False, **WANTED), published.encode(TEXTS, **WANTED))
    with pytest.raises(AttributeError):
        ours.model.nothing_like_this  # noqa: B018


@pytest.mark.slow
def test_two_devices_share_the_texts_and_give_what_one_gives(folder: Path, published: Any) -> None:
    model = BGEM3FlagModel(folder, use_fp16=False, devices=["cpu", "cpu"], query_max_length=60)
    try:
        texts = TEXTS * 7
        same(model.encode_corpus(texts, **WANTED), published.encode_corpus(texts, **WANTED))
        assert model.pool is not None
        pool = model.pool
        pairs = PAIRS * 5
        expected: Any = [published.compute_score(pair) for pair in pairs]
        scores: Any = model.compute_score(pairs)
        for mode in MODES:
            assert scores[mode] == pytest.approx([score[mode] for score in expected], abs=1e-5)
        assert model.pool is pool, "the processes are kept"
        one = model.encode(TEXTS[0])["dense_vecs"]
        np.testing.assert_allclose(one, published.encode(TEXTS[0])["dense_vecs"], atol=1e-5)
        assert model.encode([])["dense_vecs"] is not None
        model.stop_self_pool()
        model.stop_self_pool()
        assert model.pool is None
        own = model.start_multi_process_pool()
        same(model.encode_multi_process(TEXTS, own, **WANTED), published.encode(TEXTS, **WANTED))
        model.stop_multi_process_pool(own)
    finally:
        model.stop_self_pool()


def test_milvus_gets_the_numbers_that_it_gets_of_flagembedding(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("milvus_model", reason="needs milvus-model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bge_m3: Any = importlib.import_module("milvus_model.hybrid.bge_m3")  # the package has a lazy stand-in
    options = {"device": "cpu", "use_fp16": False, "return_colbert_vecs": True, "batch_size": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = bge_m3.BGEM3EmbeddingFunction(str(folder), **options)
        expected = {name: getattr(theirs, name)(TEXTS) for name in ("encode_queries", "encode_documents")}
    monkeypatch.setattr(bge_m3, "BGEM3FlagModel", BGEM3FlagModel)
    ours = bge_m3.BGEM3EmbeddingFunction(str(folder), **options)
    assert isinstance(ours.model, BGEM3FlagModel)
    assert ours.dim == theirs.dim
    for name, wanted in expected.items():
        got = getattr(ours, name)(TEXTS)
        assert set(got) == set(wanted) == {"dense", "sparse", "colbert_vecs"}
        np.testing.assert_allclose(np.stack(got["dense"]), np.stack(wanted["dense"]), atol=1e-5)
        np.testing.assert_allclose(got["sparse"].toarray(), wanted["sparse"].toarray(), atol=1e-5)
        for one, other in zip(got["colbert_vecs"], wanted["colbert_vecs"], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_calls_of_flagembeddings_own_examples_give_its_numbers(folder: Path, published: Any) -> None:
    """Many texts with repeats, by a number of options, scored by hand and by `compute_score`, in both orders."""
    options: dict[str, Any] = {"normalize_embeddings": True, "pooling_method": "cls", "cache_dir": None}
    ours = BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu", **options)
    queries = ["what is bge m3?", "defination of bm25"] * 50
    passages = ["bge m3 is a model of text", "bm25 is a retrieval model of the world"] * 50
    found: list[tuple[Any, ...]] = []
    for model in (published, ours):
        left, right = model.encode_queries(queries, **WANTED), model.encode_corpus(passages, **WANTED)
        dense = left["dense_vecs"] @ right["dense_vecs"].T
        lexical = model.compute_lexical_matching_score(left["lexical_weights"], right["lexical_weights"])
        one, other = (torch.tensor(side["colbert_vecs"][0], dtype=torch.float) for side in (left, right))
        multi = (one @ other.T).max(dim=1).values.sum()
        score = model.colbert_score(left["colbert_vecs"][0], right["colbert_vecs"][0]).item()
        names = model.convert_id_to_token(left["lexical_weights"])
        pairs = list(zip(queries, passages, strict=True)), list(zip(queries[::-1], passages, strict=True))
        weights = [1.0, 0.3, 1.0]
        # By ones there, where padding takes part in a batch.
        scores = [
            model.compute_score(some[:2], batch_size=1, weights_for_different_modes=weights) for some in pairs
        ]
        found.append((dense, lexical, float(multi), score, [sorted(name) for name in names], scores))
    theirs, mine = found
    np.testing.assert_allclose(mine[0], theirs[0], atol=1e-5)
    np.testing.assert_allclose(mine[1], theirs[1], atol=1e-5)
    assert mine[2:4] == pytest.approx(theirs[2:4], abs=1e-5)
    assert mine[4] == theirs[4]
    for got, expected in zip(mine[5], theirs[5], strict=True):
        assert {mode: pytest.approx(values, abs=1e-5) for mode, values in expected.items()} == got
