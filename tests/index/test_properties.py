"""What holds for all texts: engines agree with each other, and packing keeps what it promises."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import oracle
import pytest
from fakes import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracle import Document

from triptych.index.index import Index
from triptych.scores.tokens import TokenForm, Tokens
from triptych.types import HEADS, Ragged

WORDS = st.lists(st.sampled_from([f"w{i}" for i in range(6)]), max_size=4).map(" ".join)
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "delete", "reopen", "optimize"]), st.integers(0, 5), WORDS),
    max_size=12,
)


@pytest.mark.parametrize("engine", ["exact", "edge", "postgres"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=STEPS,
    query=WORDS.filter(bool),
    weights=st.tuples(*[st.sampled_from([0.0, 0.3, 1.0])] * 3).filter(any),
    routes=st.sets(st.sampled_from(HEADS), min_size=1),
)
def test_after_any_steps_a_search_equals_plain_loops(request, engine, steps, query, weights, routes) -> None:
    encoder, expected = FakeEncoder(), dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "an.index")
        if engine == "postgres":
            place = request.getfixturevalue("postgres").place()
        index = Index.create(place, encoder, engine=engine, multi="float32")
        for step, number, text in steps:
            name = f"d{number}"
            if step == "add":
                index.add([name], [text])
                expected[name] = text
            elif step == "delete":
                assert index.delete([name]) == (expected.pop(name, None) is not None)
            elif step == "optimize":
                index.optimize()
            else:
                index.close()
                index = Index.open(place, encoder)
        assert {name: doc["text"] for name in index.ids for doc in index.get([name]) if doc} == expected
        documents = [Document(name, encoder.encode_document(text), {}) for name, text in expected.items()]
        rows = oracle.search(encoder.encode_query(query), documents, weights, sorted(routes))
        hits = index.search(query, 10, weights=weights, routes=tuple(routes))
        index.close()
    sums = {row[0]: row[1] for row in rows}
    assert {hit.id for hit in hits} == set(sums)
    for hit in hits:
        assert hit.score == pytest.approx(sums[hit.id], abs=2e-5)
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id))


MATRICES = st.integers(1, 20).flatmap(
    lambda width: st.lists(
        st.integers(0, 4).flatmap(
            lambda n: arrays(
                np.float32, (n, width), elements=st.floats(-1, 1, width=32, allow_subnormal=False)
            )
        ),
        min_size=1,
        max_size=6,
    )
)
LARGEST_ERROR = {"float32": 0.0, "float16": 2**-11, "int8": 0.5 / 127 + 1e-6}


@settings(max_examples=40, deadline=None)
@given(matrices=MATRICES)
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_packed_token_vectors_are_within_the_precision(matrices, precision) -> None:
    ragged = Ragged.of(matrices)
    back = Tokens.pack(ragged, TokenForm(ragged.width, precision, ragged.width)).unpack()
    assert back.values.dtype == np.float32
    np.testing.assert_array_equal(back.offsets, ragged.offsets)
    np.testing.assert_allclose(back.values, ragged.values, atol=LARGEST_ERROR[precision], rtol=0)


@settings(max_examples=40, deadline=None)
@given(matrices=MATRICES, data=st.data())
@pytest.mark.parametrize("precision", ["float16", "int8", "binary"])
def test_taking_and_joining_packed_documents_gives_what_packing_them_gives(matrices, data, precision) -> None:
    rows = data.draw(st.lists(st.integers(0, len(matrices) - 1)))
    form = TokenForm(Ragged.of(matrices).width, precision, Ragged.of(matrices).width)
    packed = Tokens.pack(Ragged.of(matrices), form)
    taken = packed.take(np.asarray(rows, dtype=np.int64)).unpack()
    parts = [Tokens.pack(Ragged.of([matrix]), form) for matrix in matrices]
    joined = Tokens.concat(parts).unpack()
    for i, matrix in enumerate(packed.unpack()):
        np.testing.assert_array_equal(matrix, joined[i])
    start = data.draw(st.integers(0, len(matrices)))
    stop = data.draw(st.integers(start, len(matrices)))
    for i, matrix in enumerate(packed.run(start, stop).unpack()):
        np.testing.assert_array_equal(matrix, joined[start + i])
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(taken[i], joined[row])
