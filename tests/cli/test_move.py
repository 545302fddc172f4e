"""`triptych export`, `copy`, and vectors in and out of files on the command line."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from triptych import Encoder, Index

from .conftest import DOCUMENTS, Run


def test_a_copy_says_what_it_did_and_finds_the_same(run: Run, made: Path, tmp_path: Path) -> None:
    done = run("copy", made, tmp_path / "b", "--engine", "exact", "--json")
    (report,) = done.lines
    assert {name: report[name] for name in ("documents", "copied", "unchanged", "removed")} == {
        "documents": 4,
        "copied": 4,
        "unchanged": 0,
        "removed": 0,
    }
    found = run("search", tmp_path / "b", "a", "model", "--json").lines
    assert [line["id"] for line in found] == [
        line["id"] for line in run("search", made, "a", "model", "--json").lines
    ]
    again = run("copy", made, tmp_path / "b")
    assert f"4 documents (4 unchanged), digest {report['digest']}" in again.out
    refused = run("copy", made, made)
    assert refused.code == 2
    assert "expected another place" in refused.err


def test_an_exported_parquet_file_becomes_an_index_without_a_model(
    run: Run, made: Path, tmp_path: Path
) -> None:
    path, place = tmp_path / "a.parquet", tmp_path / "new.index"
    assert f"{path}: 4 documents" in run("export", made, "--output", path, "--with-tokens").err
    row = pq.read_table(path).to_pylist()[0]
    assert len(row["lexical_tokens"]) == len(row["lexical_indices"])
    done = run(
        "index", path, "--into", place, "--metadata", "kind=x", "--json", env={"TRIPTYCH_MODEL": "nothing"}
    )
    assert done.lines[0]["added"] == done.lines[0]["documents"] == 4
    with Index.open(made) as old, Index.open(place) as new:
        ids = sorted(old.ids)
        assert sorted(new.ids) == ids
        ours, theirs = old.vectors(ids), new.vectors(ids)
        assert ours.dense is not None
        assert theirs.dense is not None
        assert ours.dense.tobytes() == theirs.dense.tobytes()
        assert [each and each["metadata"].pop("kind") for each in new.get(ids)] == ["x"] * 4
    mixed = run("index", path, tmp_path, "--into", place)
    assert mixed.code == 2
    assert "expected files with vectors alone" in mixed.err
    assert run("index", path, "--watch", "--into", place).code == 2


def test_encode_writes_a_parquet_file_that_index_takes(
    run: Run, corpus: Path, tmp_path: Path, encoder: Encoder
) -> None:
    path = tmp_path / "vectors.parquet"
    done = run("encode", corpus, "--into", path, "--with-text", "--dtype", "float32", "--json")
    assert done.lines[0]["file"] == str(path)
    assert done.lines[0]["texts"] == 4
    rows = pq.read_table(path).to_pylist()
    assert [row["id"] for row in rows] == ["a", "b", "c", "d"]
    assert rows[2]["text"] == "hello world"
    assert json.loads(rows[2]["metadata"]) == {"title": "hello", "lang": "fr", "year": 2022}
    expected = encoder.encode_document([row["text"] for row in rows]).dense
    assert expected is not None
    np.testing.assert_allclose([row["dense"] for row in rows], expected, atol=1e-5)
    assert run("index", path, "--into", tmp_path / "new.index", "--json").lines[0]["documents"] == 4
    found = run("search", tmp_path / "new.index", "bm25", "--filter", "lang=fr", "--json").lines
    assert {line["id"] for line in found} == {"c", "d"}


def test_encode_writes_vectors_alone_and_halves_them(run: Run, corpus: Path, tmp_path: Path) -> None:
    run("encode", corpus, "--into", tmp_path / "a.parquet", "--half", "--outputs", "dense")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["id", "dense"]
    assert table.schema.field("dense").type.value_type == pa.float16()
    run("encode", corpus, "--into", tmp_path / "a.npy", "--outputs", "dense")
    assert np.load(tmp_path / "a.npy").shape[0] == len(DOCUMENTS)
    no_text = run("index", tmp_path / "a.parquet", "--into", tmp_path / "new.index")
    assert "no field 'text'" in no_text.err
    assert not (tmp_path / "new.index").exists()
    for arguments in (
        ["--into", tmp_path / "folder", "--half"],
        ["--jsonl", "--with-text"],
        ["--into", tmp_path / "b.parquet", "--shard", "1/2"],
    ):
        assert run("encode", corpus, *arguments).code == 2


def test_rows_of_parquet_without_vectors_are_encoded(run: Run, tmp_path: Path) -> None:
    table = pa.table({"docid": [7, 8], "contents": ["one text", "two"], "lang": ["en", None]})
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "rows.parquet")
    (report,) = run("index", tmp_path / "in" / "rows.parquet", "--into", tmp_path / "i", "--json").lines
    assert report["new"] == 2
    with Index.open(tmp_path / "i") as index:
        assert index.get(["7", "8"]) == [
            {"id": "7", "text": "one text", "metadata": {"lang": "en"}},
            {"id": "8", "text": "two", "metadata": {"lang": None}},
        ]
    (again,) = run("index", tmp_path / "in", "--into", tmp_path / "j", "--json").lines  # within a folder, too
    assert again["new"] == 2
    pq.write_table(pa.table({"contents": ["a", None]}), tmp_path / "bad.parquet")
    bad = run("index", tmp_path / "bad.parquet", "--into", tmp_path / "k")
    assert bad.code == 2
    assert "record 2: field 'contents' is null" in bad.err
