"""Against sentence-transformers 6: folders that we write, folders that it writes, and those that cannot be read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
import twin
from checkpoints import POSITIONS, TEXTS, WIDTH
from triptych import Encoder
from triptych.errors import InputError, ModelError

# Deprecations inside the library and what it imports.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

LONG = "the world of text " * 30
PROMPTS = {"query": "query ", "document": "passage "}
Loader = Callable[..., Any]


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("sentence_transformers", reason="the group 'parity' is not installed")


@pytest.fixture
def modules(library: Any) -> Any:
    """The module classes by name."""
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    return {
        kind.__name__: kind for kind in (Dense, LayerNorm, MultiVectorMask, Normalize, Pooling, Transformer)
    }


def load(folder: Path, **settings: Any) -> Encoder:
    return Encoder.from_pretrained(folder, device="cpu", dtype="float32", **settings)


def assert_dense(ours: Encoder, theirs: Any) -> None:
    """All three ways of encoding, and a text that is cut."""
    for way in ("encode", "encode_query", "encode_document"):
        expected = getattr(theirs, way)(TEXTS, convert_to_numpy=True)
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(getattr(ours, way)(TEXTS, outputs="dense").dense, expected, atol=1e-5)
    with pytest.warns(UserWarning, match="1 of 1 texts were cut"):
        cut = ours.encode(LONG, outputs="dense").dense
    expected = theirs.encode([LONG])
    np.testing.assert_allclose(cut, expected / np.linalg.norm(expected), atol=1e-5)


def assert_multi(ours: Encoder, theirs: Any) -> None:
    for way in ("encode", "encode_query", "encode_document"):
        vectors, expected = getattr(ours, way)(TEXTS, outputs="multi").multi, getattr(theirs, way)(TEXTS)
        assert vectors.lengths.tolist() == [len(rows) for rows in expected]
        for rows, other in zip(vectors, expected, strict=True):
            np.testing.assert_allclose(rows, other.numpy(), atol=1e-5)
    with pytest.warns(UserWarning, match="1 of 1 texts were cut"):
        cut = ours.encode(LONG, outputs="multi").multi
    np.testing.assert_allclose(cut[0], theirs.encode([LONG])[0].numpy(), atol=1e-5)


# What we write.


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_it_loads_the_dense_folder_that_we_write_with_equal_vectors(
    library: Any, any_folder: Path, tmp_path: Path, pooling: str
) -> None:
    prefixes = {"query_prefix": "query ", "document_prefix": "passage "}
    ours = load(any_folder, pooling=pooling, max_length=48, **prefixes)
    ours.save_pretrained(tmp_path, layout="sentence-transformers", part="dense")
    theirs = library.SentenceTransformer(str(tmp_path), device="cpu")
    assert theirs.prompts == PROMPTS
    assert_dense(ours, theirs)
    similarity = theirs.similarity(theirs.encode_query(TEXTS[:2]), theirs.encode_document(TEXTS))
    np.testing.assert_allclose(ours.score(TEXTS[:2], TEXTS, (1, 0, 0)), similarity.numpy(), atol=1e-5)
    again = load(tmp_path)
    assert again.heads == ("dense",)
    assert_dense(again, theirs)


def test_it_has_nothing_to_say_when_it_loads_what_we_write(
    library: Any, any_folder: Path, tmp_path: Path, transformers_log: list[str]
) -> None:
    for part, kind in (("dense", library.SentenceTransformer), ("multi", library.MultiVectorEncoder)):
        load(any_folder).save_pretrained(tmp_path / part, layout="sentence-transformers", part=part)
        kind(str(tmp_path / part), device="cpu")
    assert transformers_log == []
    # The log would have it: without the setting the layer after [CLS] is missed where the class has one.
    settings = tmp_path / "dense" / "sentence_bert_config.json"
    values = json.loads(settings.read_text())
    if values.pop("model_args", None):
        settings.write_text(json.dumps(values))
        library.SentenceTransformer(str(tmp_path / "dense"), device="cpu")
        assert any("pooler" in line for line in transformers_log)


@pytest.mark.parametrize(("first", "last"), [(False, True), (True, True), (False, False)])
def test_it_loads_the_multi_vector_folder_that_we_write_with_equal_vectors_and_scores(
    library: Any, any_folder: Path, tmp_path: Path, first: bool, last: bool
) -> None:
    ours = load(any_folder, max_length=48, query_prefix="query ", multi_first=first, multi_last=last)
    ours.save_pretrained(tmp_path, layout="sentence-transformers", part="multi")
    theirs = library.MultiVectorEncoder(str(tmp_path), device="cpu")
    assert_multi(ours, theirs)
    # A text without any vector scores 0 with us; there it cannot be scored.
    queries, documents = TEXTS[:2], [text for text in TEXTS if text]
    similarity = theirs.similarity(theirs.encode_query(queries), theirs.encode_document(documents))
    np.testing.assert_allclose(ours.score(queries, documents, (0, 0, 1)), similarity.numpy(), atol=1e-5)
    again = load(tmp_path)
    assert again.heads == ("multi",)
    assert_multi(again, theirs)


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("counts", [False, True])
def test_it_loads_the_sparse_folder_that_we_write_with_equal_weights(
    library: Any, any_folder: Path, tmp_path: Path, counts: bool
) -> None:
    settings = {"max_length": 48, "query_prefix": "query ", "prefix_in_lexical": counts}
    ours = load(any_folder, **settings)
    ours.save_pretrained(tmp_path / "sparse", layout="sentence-transformers", part="lexical")
    with pytest.raises(ValueError, match="trust_remote_code"):
        library.SparseEncoder(str(tmp_path / "sparse"), device="cpu")
    theirs = library.SparseEncoder(str(tmp_path / "sparse"), device="cpu", trust_remote_code=True)
    assert theirs.get_embedding_dimension() == ours.widths["lexical"]
    texts = [text for text in TEXTS if not text.startswith("query")]
    for way in ("encode", "encode_query", "encode_document"):
        expected = getattr(theirs, way)(texts, convert_to_sparse_tensor=False).numpy()
        found = getattr(ours, way)(texts, outputs="lexical").lexical.toarray()
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected.any()
    similarity = theirs.similarity(theirs.encode_query(texts[:2]), theirs.encode_document(texts))
    np.testing.assert_allclose(ours.score(texts[:2], texts, (0, 1, 0)), similarity.numpy(), atol=1e-4)
    with pytest.raises(ModelError, match="code of its own"):
        load(tmp_path / "sparse")


def test_a_smaller_multi_vector_head_keeps_its_width(library: Any, tmp_path: Path) -> None:
    source = checkpoints.make("xlm-roberta", tmp_path / "source", multi_dim=8)
    ours = load(source)
    ours.save_pretrained(tmp_path / "multi", layout="sentence-transformers", part="multi")
    theirs = library.MultiVectorEncoder(str(tmp_path / "multi"), device="cpu")
    assert theirs.get_embedding_dimension() == 8
    assert_multi(ours, theirs)


def test_what_modules_cannot_express_is_not_written(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mcls"):
        load(folder, pooling="mcls").save_pretrained(tmp_path, layout="sentence-transformers")
    with pytest.raises(InputError, match="dense, multi, lexical"):
        load(folder).save_pretrained(tmp_path, layout="sentence-transformers", part="sparse")
    dense_only = tmp_path / "dense"
    load(folder).save_pretrained(dense_only, layout="sentence-transformers")
    with pytest.raises(InputError, match=r"multi.*this model has dense"):
        load(dense_only).save_pretrained(tmp_path, layout="sentence-transformers", part="multi")


# What others wrote.


def test_it_reads_the_published_folder_with_our_dense_vectors(
    library: Any, folder: Path, tmp_path: Path
) -> None:
    """As BGE-M3 is published: `modules.json` of the old form beside the two heads."""
    copy = tmp_path / "published"
    shutil.copytree(folder, copy)
    old_form(copy, "pooling_mode_cls_token")
    theirs = library.SentenceTransformer(str(copy), device="cpu")
    ours = load(copy)
    assert ours.heads == ("dense", "lexical", "multi")
    assert_dense(ours, theirs)


def test_a_folder_of_the_old_form_as_e5_has_it_is_read(library: Any, folder: Path, tmp_path: Path) -> None:
    """Mean pooling in flags, no prompts, no settings for Normalize; the prefixes are given by the caller."""
    copy = checkpoints.without_heads(folder, tmp_path / "e5")
    old_form(copy, "pooling_mode_mean_tokens")
    theirs = library.SentenceTransformer(str(copy), device="cpu", prompts=PROMPTS)
    ours = load(copy, query_prefix="query ", document_prefix="passage ")
    assert (ours.config.pooling, ours.config.max_length) == ("mean", 32)
    assert_dense(ours, theirs)


def test_a_plain_encoder_folder_gives_the_mean_pooling_that_it_has_there(
    library: Any, folder: Path, tmp_path: Path
) -> None:
    copy = checkpoints.without_heads(folder, tmp_path / "plain")
    with pytest.raises(ModelError, match=r"without heads.*from_backbone"):
        load(copy)
    ours = Encoder.from_backbone(copy, device="cpu", pooling="mean", lexical=False, multi_dim=None)
    assert_dense(ours, library.SentenceTransformer(str(copy), device="cpu"))


def old_form(folder: Path, mode: str) -> None:
    kinds = ("Transformer", "Pooling", "Normalize")
    listed = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    flags = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, mode: True}
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": WIDTH, **flags})
    )
    length = POSITIONS if mode == "pooling_mode_cls_token" else 32
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": length, "do_lower_case": False})
    )


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("normalised", [True, False])
def test_dense_folders_that_it_writes_are_read_with_equal_vectors(
    library: Any, modules: Any, any_folder: Path, tmp_path: Path, pooling: str, normalised: bool
) -> None:
    steps = [modules["Transformer"](str(any_folder)), modules["Pooling"](WIDTH, pooling)]
    steps += [modules["Normalize"]()] if normalised else []
    theirs = library.SentenceTransformer(modules=steps, device="cpu", prompts=PROMPTS)
    theirs.max_seq_length = 48
    theirs.save(str(tmp_path), create_model_card=False)
    ours = load(tmp_path)
    assert (ours.heads, ours.config.max_length) == (("dense",), 48)
    assert_dense(ours, theirs)


@pytest.mark.parametrize("case", ["bias", "no bias", "no projection", "no mask"])
def test_multi_vector_folders_that_it_writes_are_read_with_equal_vectors(
    library: Any, modules: Any, any_folder: Path, tmp_path: Path, case: str
) -> None:
    transformer = modules["Transformer"](str(any_folder))
    cls = transformer.tokenizer.cls_token
    torch.manual_seed(0)
    steps = [
        transformer,
        projection(modules, bias=case != "no bias"),
        modules["MultiVectorMask"]([cls], skiplist_tasks=["query", "document"]),
        modules["Normalize"]("token_embeddings"),
    ]
    left_out = {"no projection": steps[1], "no mask": steps[2]}.get(case)
    steps = [step for step in steps if step is not left_out]
    theirs = library.MultiVectorEncoder(modules=steps, device="cpu", prompts=PROMPTS)
    theirs.max_seq_length = 48
    theirs.save(str(tmp_path), create_model_card=False)
    ours = load(tmp_path)
    assert ours.heads == ("multi",)
    assert_multi(ours, theirs)


def projection(modules: Any, *, bias: bool = True, tokens: bool = True) -> Any:
    name = "token_embeddings" if tokens else "sentence_embedding"
    return modules["Dense"](
        WIDTH, 16, bias=bias, activation_function=torch.nn.Identity(), module_input_name=name
    )


def test_a_dense_head_can_be_added_to_a_multi_vector_folder_by_naming_its_pooling(
    folder: Path, tmp_path: Path
) -> None:
    whole = load(folder)
    whole.save_pretrained(tmp_path, layout="sentence-transformers", part="multi")
    both = load(tmp_path, dense=True, pooling="cls")
    twin.assert_same(both.encode(TEXTS), whole.encode(TEXTS, outputs=("dense", "multi")))


# What cannot be read.


def change(path: Path, **values: Any) -> None:
    old = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(old | values))


def add_module(folder: Path, kind: str, place: str) -> None:
    path = folder / "modules.json"
    listed = json.loads(path.read_text())
    path.write_text(json.dumps([*listed, {"idx": 9, "name": "9", "path": place, "type": kind}]))


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a projection of the sentence vector": (
        "dense",
        lambda f: add_module(f, "sentence_transformers.models.Dense", "3_Dense"),
        r"modules\.json: got Dense.*projection of the sentence vector",
    ),
    "another module": (
        "dense",
        lambda f: add_module(f, "sentence_transformers.models.LayerNorm", "3_LayerNorm"),
        r"modules\.json: got LayerNorm",
    ),
    "custom code": (
        "dense",
        lambda f: add_module(f, "mine.Module", "3_Mine"),
        r"mine\.Module is code of its own",
    ),
    "a path outside": (
        "dense",
        lambda f: add_module(f, "sentence_transformers.models.Normalize", "../x"),
        "leads out of the folder",
    ),
    "modules.json broken": (
        "dense",
        lambda f: (f / "modules.json").write_text("[{"),
        r"modules\.json: cannot be read",
    ),
    "modules.json no list": (
        "dense",
        lambda f: (f / "modules.json").write_text("{}"),
        r"modules\.json: expected a JSON",
    ),
    "an entry without type": (
        "dense",
        lambda f: (f / "modules.json").write_text("[{}]"),
        r"entries with type",
    ),
    "no module": ("dense", lambda f: (f / "modules.json").write_text("[]"), "expected a Transformer first"),
    "another pooling": (
        "dense",
        lambda f: (f / "1_Pooling" / "config.json").write_text('{"pooling_mode": "max"}'),
        r"1_Pooling.config\.json: pooling 'max'",
    ),
    "two poolings": (
        "dense",
        lambda f: change(f / "1_Pooling" / "config.json", pooling_mode_mean_tokens=True),
        r"pooling \['cls', 'mean'\]",
    ),
    "prompts left out of the pooling": (
        "dense",
        lambda f: change(f / "1_Pooling" / "config.json", include_prompt=False),
        "include_prompt is False",
    ),
    "lower-casing that the tokenizer does not do": (
        "dense",
        lambda f: change(f / "sentence_bert_config.json", do_lower_case=True),
        "do_lower_case",
    ),
    "another task": (
        "dense",
        lambda f: change(f / "sentence_bert_config.json", transformer_task="fill-mask"),
        "transformer_task is 'fill-mask'",
    ),
    "another kind of model": (
        "dense",
        lambda f: change(f / "config_sentence_transformers.json", model_type="SparseEncoder"),
        "model_type 'SparseEncoder'",
    ),
    "query expansion": (
        "multi",
        lambda f: change(
            f / "sentence_bert_config.json", query_expansion={"strategy": "fixed", "length": 32}
        ),
        "query_expansion",
    ),
    "two lengths": (
        "multi",
        lambda f: change(f / "sentence_bert_config.json", query_length=8),
        "query_length 8, document_length None",
    ),
    "punctuation left out": (
        "multi",
        lambda f: change(f / "2_MultiVectorMask" / "config.json", skiplist_words=["<s>", "?"]),
        r"skiplist_words \['\?'\]",
    ),
    "one side's tokens left out": (
        "multi",
        lambda f: change(f / "2_MultiVectorMask" / "config.json", skiplist_tasks=["document"]),
        "skiplist_tasks",
    ),
    "an activation": (
        "multi",
        lambda f: change(
            f / "1_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh"
        ),
        "activation_function is",
    ),
    "a residual": (
        "multi",
        lambda f: change(f / "1_Dense" / "config.json", use_residual=True),
        "use_residual",
    ),
    "settings of the projection missing": (
        "multi",
        lambda f: (f / "1_Dense" / "config.json").unlink(),
        "expected module_input_name",
    ),
    "weights of the projection missing": (
        "multi",
        lambda f: (f / "1_Dense" / "model.safetensors").unlink(),
        r"1_Dense.model\.safetensors",
    ),
    "weights of the projection broken": (
        "multi",
        lambda f: (f / "1_Dense" / "model.safetensors").write_bytes(b"junk"),
        r"1_Dense.model\.safetensors",
    ),
}


@pytest.fixture(scope="module")
def written(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("written")
    for part in ("dense", "multi"):
        load(folder).save_pretrained(place / part, layout="sentence-transformers", part=part)
    return place


@pytest.mark.parametrize("case", REFUSED)
def test_what_we_cannot_express_is_refused_with_its_name(written: Path, tmp_path: Path, case: str) -> None:
    part, spoil, message = REFUSED[case]
    shutil.copytree(written / part, tmp_path / part)
    spoil(tmp_path / part)
    with pytest.raises(ModelError, match=message):
        load(tmp_path / part)


def test_vectors_without_length_1_for_a_dot_product_are_refused(
    library: Any, modules: Any, folder: Path, tmp_path: Path
) -> None:
    steps = [modules["Transformer"](str(folder)), modules["Pooling"](WIDTH, "cls")]
    theirs = library.SentenceTransformer(modules=steps, device="cpu", similarity_fn_name="dot")
    theirs.save(str(tmp_path), create_model_card=False)
    with pytest.raises(ModelError, match="no Normalize and similarity 'dot'"):
        load(tmp_path)
