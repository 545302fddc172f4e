"""Vectors out of an index and into one, through files of every form."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import FakeEncoder, random_texts

from triptych.errors import DataError, IndexForeign, InputError
from triptych.index.index import Index
from triptych.index.tables import create_for_table, export, import_table
from triptych.scores.packing import pack, unpack
from triptych.types import Encoded

N = 300
TEXTS = ["", "w1 \u0627\u0644\u0646\u0635\nw2", *random_texts(np.random.default_rng(0), N - 2)]
IDS = ["\u00e9 #1", "\U0001f600/2", *(f"d{i}" for i in range(2, N))]
METADATA: list[dict[str, Any]] = [{"n": i / 2, "title": "T", "id": i, "x": {"y": [None]}} for i in range(N)]


@pytest.fixture
def index(tmp_path: Path, encoder: FakeEncoder) -> Index:
    index = Index.create(tmp_path / "an.index", encoder, engine="exact", multi="float16")
    index.add(IDS, TEXTS, METADATA)
    return index


def same(left: Encoded, right: Encoded) -> bool:
    ours, theirs = pack(left), pack(right)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def of_head(encoded: Encoded, head: str) -> Encoded:
    return Encoded(**{head: getattr(encoded, head)})


def columns(**values: Any) -> pa.Table:
    """A good table of three rows, with some columns replaced; None drops one."""
    good: dict[str, Any] = {
        "id": ["a", "b", "c"],
        "text": ["w1", "w2", "w3"],
        "dense": [[0.5] * 8] * 3,
        "lexical_indices": [[1, 2], [3], []],
        "lexical_values": [[0.5, 1.0], [2.0], []],
        "multi": [[[0.5] * 6], [], [[1.0] * 6] * 2],
    }
    return pa.table({name: each for name, each in {**good, **values}.items() if each is not None})


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_a_file_becomes_the_same_index_bit_by_bit(tmp_path: Path, index: Index, ending: str) -> None:
    path = tmp_path / f"vectors{ending}"
    seen: list[tuple[str, int, int | None]] = []
    assert export(index, path, progress=lambda *each: seen.append(each)) == N
    assert seen[-1] == ("exporting", N, N)
    with create_for_table(str(tmp_path / "new.index"), path, multi="float16") as new:
        assert import_table(new, path) == N
        assert new.get(IDS) == index.get(IDS)
        assert same(new.vectors(IDS), index.vectors(IDS))
        assert new.info()["model"] == index.info()["model"]
        assert import_table(new, path) == len(new) == N
    again = tmp_path / f"again{ending}"
    export(index, again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_an_empty_index_keeps_its_widths_in_a_file(tmp_path: Path, encoder: FakeEncoder, ending: str) -> None:
    path = tmp_path / f"none{ending}"
    with Index.create(tmp_path / "none.index", encoder) as index:
        assert export(index, path) == 0
    with create_for_table(str(tmp_path / "new.index"), path) as new:
        assert import_table(new, path) == 0
        assert new.info()["layout"]["widths"] == dict(encoder.widths)


def test_numpy_and_fvecs_hold_vectors_and_ids(tmp_path: Path, index: Index) -> None:
    names = list(index.ids)
    expected = index.vectors(names)
    export(index, tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as found:
        arrays = dict(found)
    assert arrays.pop("ids").tolist() == names
    assert same(unpack(arrays), expected)
    export(index, tmp_path / "dense.npy")
    assert np.array_equal(np.load(tmp_path / "dense.npy"), expected.dense)
    assert json.loads((tmp_path / "dense.npy.ids.json").read_text("utf-8")) == names
    export(index, tmp_path / "dense.fvecs")
    raw = np.fromfile(tmp_path / "dense.fvecs", np.int32).reshape(N, 9)
    assert (raw[:, 0] == 8).all()
    assert np.array_equal(raw[:, 1:].view(np.float32), expected.dense)
    assert json.loads((tmp_path / "dense.fvecs.ids.json").read_text("utf-8")) == names


def test_json_lines_have_vectors_only_if_asked_and_every_bit_of_them(tmp_path: Path, index: Index) -> None:
    export(index, tmp_path / "plain.jsonl")
    first = json.loads((tmp_path / "plain.jsonl").read_text("utf-8").splitlines()[0])
    assert list(first) == ["id", "text", "metadata"]
    rows: list[Any] = []
    export(index, rows.append, ["dense", "lexical", "multi"])
    vectors = index.vectors([row["id"] for row in rows])
    assert vectors.dense is not None
    assert vectors.lexical is not None
    assert vectors.multi is not None
    assert np.array_equal(np.asarray([row["dense"] for row in rows], np.float32), vectors.dense)
    for i, row in enumerate(rows):
        weights = np.zeros(vectors.lexical.shape[1], np.float32)
        weights[[int(token) for token in row["lexical"]]] = list(row["lexical"].values())
        assert np.array_equal(weights, vectors.lexical[[i]].toarray()[0])
        assert np.array_equal(np.asarray(row["multi"], np.float32).reshape(-1, 6), vectors.multi[i])


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".npz", ".npy"])
def test_half_precision_rounds_to_sixteen_bits(tmp_path: Path, index: Index, ending: str) -> None:
    path, names = tmp_path / f"half{ending}", list(index.ids)
    export(index, path, ["dense"], half=True)
    if ending == ".npy":
        found = np.load(path)
    elif ending == ".npz":
        found = np.load(path)["dense"]
    else:
        table = pq.read_table(path) if ending == ".parquet" else pa.ipc.open_file(path).read_all()
        assert table.schema.field("dense").type.value_type == pa.float16()
        dense = Encoded.from_arrow(table).dense
        assert dense is not None
        found = dense.astype(np.float16)
    dense = index.vectors(names, heads=["dense"]).dense
    assert dense is not None
    assert np.array_equal(found, dense.astype(np.float16))


def test_a_filter_and_heads_choose_what_is_written(tmp_path: Path, index: Index) -> None:
    assert export(index, tmp_path / "few.parquet", ["lexical"], filter={"n": {"lt": 2}}) == 4
    table = pq.read_table(tmp_path / "few.parquet")
    assert table.column_names == ["id", "text", "metadata", "lexical_indices", "lexical_values"]
    assert export(index, tmp_path / "few.npy", filter={"n": {"lt": 2}}) == 4


def test_what_a_form_cannot_hold_is_refused(tmp_path: Path, index: Index) -> None:
    for name, heads, options, message in [
        ("a.fvecs", ["multi"], {}, "expected dense, which .fvecs holds alone"),
        ("a.fvecs", None, {"half": True}, "no numbers of 16 bits"),
        ("a.doc", None, {}, "ends in none of .parquet"),
        ("a.parquet", ["words"], {}, "expected one or more of dense"),
    ]:
        with pytest.raises(InputError, match=message):
            export(index, tmp_path / name, heads, **options)
    assert not list(tmp_path.glob("a.*"))
    index.add(["nul\0"], ["w"])
    with pytest.raises(InputError, match="expected none that ends in NUL"):
        export(index, tmp_path / "a.npz")
    big = Encoded(np.full((1, 8), 1e6, np.float32))
    with pytest.raises(InputError, match="beyond ±65504"):
        big.to_arrow(half=True)


def test_an_export_that_is_killed_leaves_the_old_file(tmp_path: Path, index: Index) -> None:
    index.close()
    for ending in (".parquet", ".arrow", ".npy", ".npz", ".jsonl"):
        (tmp_path / f"old{ending}").write_text("old")
    code = f"""
import os, signal, pathlib
from triptych.index import tables
from triptych.index.index import Index
for ending in (".parquet", ".arrow", ".npy", ".npz", ".jsonl"):
    if os.fork() == 0:
        index = Index.open({str(tmp_path / "an.index")!r})
        kill = lambda stage, done, total: done > 200 and os.kill(os.getpid(), signal.SIGKILL)
        tables.export(index, {str(tmp_path / "old")!r} + ending, progress=kill)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    for ending in (".parquet", ".arrow", ".npy", ".npz", ".jsonl"):
        assert (tmp_path / f"old{ending}").read_text() == "old"
    assert signal.SIGKILL == 9


def test_arrow_columns_of_other_programs_are_read_whatever_lists_they_are() -> None:
    good = Encoded.from_arrow(columns(), {"lexical": 1000})
    plain = columns()
    types = [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float16(), 8)]
    for kind in types:
        other = plain.set_column(2, "dense", plain.column("dense").cast(kind))
        assert same(Encoded.from_arrow(other, {"lexical": 1000}), good)
    assert same(Encoded.from_arrow(plain.slice(1), {"lexical": 1000}), good[1:])
    chunked = pa.concat_tables([plain.slice(0, 1), plain.slice(1)])
    assert same(Encoded.from_arrow(chunked, {"lexical": 1000}), good)
    assert same(Encoded.from_arrow(plain.to_batches()[0], {"lexical": 1000}), good)
    assert Encoded.from_arrow(plain).lexical.shape == (3, 4)  # type: ignore[union-attr]


def test_every_head_goes_to_arrow_and_back_alone(encoder: FakeEncoder) -> None:
    vectors = encoder.encode_document(TEXTS)
    for head in vectors.heads:
        one = of_head(vectors, head)
        table = one.to_arrow()
        assert same(Encoded.from_arrow(table), one)
        assert same(Encoded.from_arrow(table.slice(3, 5)), one[3:8])
    assert same(Encoded.from_arrow(vectors[:0].to_arrow()), vectors[:0])
    named = of_head(vectors, "lexical").to_arrow(tokens=lambda ids: [f"t{i}" for i in ids])
    assert named.column("lexical_tokens")[5].as_py() == [
        f"t{i}" for i in named.column("lexical_indices")[5].as_py()
    ]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"dense": [[0.5] * 8, [0.5] * 7, [0.5] * 8]}, "record 2: column dense: got 7 numbers; expected 8"),
    ({"dense": [[0.5] * 8, [0.5] * 8, None]}, "record 3: column dense: got null"),
    ({"dense": [[0.5] * 8, [None] * 8, [0.5] * 8]}, "record 2: column dense: got null"),
    ({"dense": [[0.5] * 8, [0.5] * 7 + [float("nan")], [0.5] * 8]}, "record 2: column dense: got nan"),
    ({"dense": [[0.5] * 8, [1e300] * 8, [0.5] * 8]}, "record 2: column dense: got 1e.300"),
    ({"dense": [["x"]] * 3}, "column dense: has the type list.*string.*; expected numbers"),
    ({"lexical_indices": [[1, 2], [3, 4], []]}, "record 2: .*got 2 token ids and 1 weights"),
    ({"lexical_indices": [[1, 2], [1000], []]}, "record 2: column lexical_indices: got 1000; expected 0 to 999"),
    ({"lexical_indices": [[1, 2], [-1], []]}, "record 2: column lexical_indices: got -1"),
    ({"lexical_indices": [[1, 1], [3], []]}, "record 1: column lexical_indices: got the token id 1 twice"),
    ({"lexical_indices": [[1.5, 2], [3], []]}, "column lexical_indices: has the type .*; expected whole numbers"),
    ({"lexical_values": [[1, 2], [-3.0], []]}, "record 2: column lexical_values: got -3.0; expected weights ≥ 0"),
    ({"multi": [[[0.5] * 6], [[0.5] * 6, [0.5] * 5], []]}, "record 2: column multi: got 5 numbers; expected 6"),
    ({"multi": [[[0.5] * 6], [], [[0.5] * 6, [float("inf")] * 6]]}, "record 3: column multi: got inf"),
    ({"multi": [[[0.5] * 6], [None], []]}, "record 2: column multi: got null"),
    ({"multi": [[0.5] * 6] * 3}, "column multi: has the type .*; expected lists of lists"),
    ({"multi": None}, "has no column multi; it has id, text, dense, .*all heads that the index holds"),
    ({"text": None}, "no field 'text' or"),
    ({"text": ["a", None, "b"]}, "record 2: field 'text' is null"),
    ({"id": ["a", "", "b"]}, "record 2: field 'id' is empty"),
    ({"metadata": ["{}", "{", "{}"]}, "record 2: broken JSON"),
    ({"metadata": ["{}", "[1]", "{}"]}, "record 2: got an array"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_a_hostile_file_is_refused_by_file_column_and_row(
    tmp_path: Path, encoder: FakeEncoder, values: dict[str, Any], message: str
) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(columns(**values), path)
    with Index.create(tmp_path / "an.index", encoder, engine="exact") as index:
        with pytest.raises(DataError, match=message) as caught:
            import_table(index, path)
        assert str(path) in str(caught.value)
        assert len(index) == 0


def test_files_that_are_broken_or_have_no_vectors_are_refused(tmp_path: Path, index: Index) -> None:
    good = tmp_path / "good.parquet"
    export(index, good)
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-100])
    (tmp_path / "no.arrow").write_bytes(b"ARROW1 and so on")
    (tmp_path / "empty.parquet").write_bytes(b"")
    for name in ("cut.parquet", "no.arrow", "empty.parquet"):
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            import_table(index, tmp_path / name)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    with pytest.raises(DataError, match="has no vectors"):
        import_table(index, tmp_path / "text.parquet")
    with pytest.raises(DataError, match="has no vectors"):
        import_table(index, tmp_path / "missing.parquet")


def test_a_file_of_another_model_or_of_none_needs_the_model(
    tmp_path: Path, index: Index, encoder: FakeEncoder
) -> None:
    export(index, tmp_path / "a.parquet")
    other = FakeEncoder(name="another")
    with (
        Index.create(tmp_path / "other.index", other) as wrong,
        pytest.raises(IndexForeign, match="of the model 'fake'"),
    ):
        import_table(wrong, tmp_path / "a.parquet")
    with pytest.raises(IndexForeign):
        create_for_table(str(tmp_path / "new.index"), tmp_path / "a.parquet", other)
    pq.write_table(columns(year=[1, 2, 3]), tmp_path / "theirs.parquet")
    with pytest.raises(InputError, match="does not say which model"):
        create_for_table(str(tmp_path / "new.index"), tmp_path / "theirs.parquet")
    with create_for_table(str(tmp_path / "new.index"), tmp_path / "theirs.parquet", encoder) as new:
        assert import_table(new, tmp_path / "theirs.parquet", metadata={"lang": "en"}) == 3
        assert new.get(["b"]) == [{"id": "b", "text": "w2", "metadata": {"year": 2, "lang": "en"}}]
