"""Whatever is passed to a public method of `Encoder`, the answer is a result or an `InputError` that names it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import twin
from checkpoints import TEXTS
from triptych import Encoder
from triptych.errors import InputError, TriptychError

pa = pytest.importorskip("pyarrow")

WRONG: list[Any] = [None, True, 5, -1, 5.5, float("nan"), 10**400, "5", "x", "\ud800", b"x", object(), 3 + 1j]
WRONG += [
    [],
    [5],
    [None],
    [[]],
    {},
    {"a": "b"},
    {"a"},
    (1, 2),
    np.array("x"),
    np.zeros((2, 2)),
    np.float32(2),
]
WRONG += [torch.zeros(2), Path("absent"), print, lambda: None, iter([1]), range(3)]
odd = st.one_of(
    st.sampled_from(WRONG),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.binary(max_size=3)
        | st.complex_numbers(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    ),
)
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ENCODING = ("texts", "outputs", "prefix", "max_length", "token_budget", "progress")


def attempt(call: Any, *names: str) -> None:
    """Runs a call that may only work or raise one of our own errors, which names an argument."""
    message = names[0]
    try:
        result = call()
        if isinstance(result, Iterator):
            next(result, None)
    except TriptychError as error:
        message = str(error)
    assert any(name in message for name in names), f"{message} names none of {names}"


@MANY
@given(
    value=odd,
    name=st.sampled_from(ENCODING),
    method=st.sampled_from(("encode", "encode_query", "encode_document")),
)
@example(value=5.5, name="max_length", method="encode")
@example(value="x", name="token_budget", method="encode")
@example(value=3, name="outputs", method="encode")
@example(value=3, name="progress", method="encode")
@example(value=None, name="prefix", method="encode")
@pytest.mark.filterwarnings("ignore::triptych.encode.encoder.TruncationWarning")
def test_encoding_takes_anything_without_a_raw_error(
    encoder: Encoder, value: Any, name: str, method: str
) -> None:
    options = {"texts": ["a model"]} | {name: value}
    if name == "progress" and callable(value):
        return
    attempt(lambda: getattr(encoder, method)(**options), name)


@MANY
@given(value=odd, name=st.sampled_from((*ENCODING, "block", "folder", "devices")))
@pytest.mark.filterwarnings("ignore::triptych.encode.encoder.TruncationWarning")
def test_streams_take_anything_without_a_raw_error(
    encoder: Encoder, tmp_path_factory: pytest.TempPathFactory, value: Any, name: str
) -> None:
    if (name == "progress" and callable(value)) or (name == "folder" and isinstance(value, str | Path)):
        return
    attempt(lambda: encoder.encode_stream(**({"texts": ["a model"]} | {name: value})), name, "device")


@MANY
@given(value=odd)
def test_scores_and_all_that_takes_a_place_take_anything_without_a_raw_error(
    encoder: Encoder, value: Any
) -> None:
    attempt(lambda: encoder.score(value, ["a"]), "queries", "texts")
    attempt(lambda: encoder.score(["a"], value), "documents", "texts")
    attempt(lambda: encoder.score("a", "a", value), "weights")
    attempt(lambda: encoder.similarity(value, encoder.encode("a")), "queries", "dense_scores")
    attempt(lambda: encoder.workers(value), "device")
    attempt(lambda: encoder.push_to_hub(value, layout=value), "layout")
    if not isinstance(value, str | Path):
        attempt(lambda: encoder.save_pretrained(value), "folder")
        attempt(lambda: encoder.export_onnx(value), "path")
        attempt(lambda: encoder.push_to_hub(value), "name")
    for option in ("layout", "part", "bits", "start"):
        if not (option == "bits" and isinstance(value, dict)) and value is not None:
            if option == "start" and isinstance(value, str | Path):
                continue
            with pytest.raises(InputError, match=option):
                encoder.save_pretrained("never", **{option: value})


@MANY
@given(
    value=odd,
    name=st.sampled_from(
        ("name", "device", "dtype", "revision", "cache", "pooling", "max_length", "query_prefix", "multi_dim")
    ),
)
def test_loading_takes_anything_without_a_raw_error(folder: Path, value: Any, name: str) -> None:
    options = {"name": folder, "device": "cpu", "dtype": "float32"} | {name: value}
    attempt(
        lambda: Encoder.from_pretrained(**options),
        name,
        str(value) if name == "name" else name.removeprefix("query_"),
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"id": "text"}, r"got dict; its values are list\(mapping.values\(\)\)"),
        (pa.table({"a": ["x"]}), "got Table; take one of its columns"),
        (np.array("x"), "got ndarray with 0 dimensions"),
        (np.array([["x"]]), "got ndarray with 2 dimensions"),
        ({"a", "b"}, "got set"),
        (b"bytes", "got bytes"),
        (None, "got NoneType"),
        (5, "got int"),
        (Path("x"), "got PosixPath"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_sequence_of_texts_is_refused_and_not_walked(
    encoder: Encoder, texts: Any, message: str
) -> None:
    for call in (encoder.encode, lambda each: list(encoder.encode_stream(each))):
        with pytest.raises(InputError, match=f"texts: {message}"):
            call(texts)


def test_a_data_frame_is_refused_and_its_columns_are_taken(encoder: Encoder) -> None:
    frames = pytest.importorskip("pandas")
    table = frames.DataFrame({"text": TEXTS, "other": TEXTS})
    with pytest.raises(InputError, match="got DataFrame; take one of its columns"):
        encoder.encode(table)
    twin.assert_same(encoder.encode(table["text"]), encoder.encode(TEXTS), 0)


def test_arrays_of_arrow_are_taken(encoder: Encoder) -> None:
    for texts in (pa.array(TEXTS), pa.chunked_array([TEXTS[:3], TEXTS[3:]])):
        twin.assert_same(encoder.encode(texts), encoder.encode(TEXTS), 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "meta"])
def test_a_device_that_is_not_there_is_an_error_before_anything_is_loaded(device: str) -> None:
    with pytest.raises(InputError, match=f"device: got '{device}'; this machine has cpu"):
        Encoder.from_pretrained("/no/such/folder/at/all", device=device)
