"""`triptych encode`, `triptych score` and `triptych demo` on a tiny model."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from triptych import Encoder, Index
from triptych.encode import stream

from .conftest import DOCUMENTS, Run


def contents(encoder: Encoder) -> list[str]:
    """Title and text, as documents are encoded; a title that the text begins with is not repeated."""
    return ["hello world" if d["id"] == "c" else d["text"] for d in DOCUMENTS]


def test_blocks_in_a_folder_are_what_the_encoder_gives(
    run: Run, corpus: Path, encoder: Encoder, tmp_path: Path
) -> None:
    out = tmp_path / "vectors"
    done = run("encode", corpus, "--into", out, "--block", 3, "--dtype", "float32", "--json")
    assert done.lines[0]["texts"] == 4
    assert json.loads((out / "encoded.json").read_bytes())["blocks"] == 2
    expected = encoder.encode_document(contents(encoder))
    assert expected.dense is not None
    assert expected.multi is not None
    parts = [stream.unpack(load_file(out / f"0000000{i}.safetensors")) for i in range(2)]
    np.testing.assert_allclose(np.concatenate([p.dense for p in parts]), expected.dense, atol=1e-5)
    np.testing.assert_allclose(parts[1].multi[0], expected.multi[3], atol=1e-5)
    names = [json.loads((out / f"0000000{i}.ids.json").read_bytes()) for i in range(2)]
    assert names == [["a", "b", "c"], ["d"]]


def test_the_same_command_again_encodes_only_what_is_missing(
    run: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("encode", corpus, "--into", tmp_path / "v", "--block", 2)
    run(*command)
    (tmp_path / "v" / "00000001.safetensors").unlink()
    counted: list[int] = []
    whole = Encoder.encode

    def count(self: Encoder, texts: list[str], **options: object) -> object:
        counted.append(len(texts))
        return whole(self, texts, **options)

    monkeypatch.setattr(Encoder, "encode", count)
    assert run(*command).code == 0
    assert counted == [2]


def test_a_folder_of_other_texts_or_options_is_refused(run: Run, corpus: Path, tmp_path: Path) -> None:
    run("encode", corpus, "--into", tmp_path / "v", "--block", 2)
    assert "other" in run("encode", corpus, "--into", tmp_path / "v", "--block", 3).err
    short = tmp_path / "short.jsonl"
    short.write_text("".join(corpus.read_text("utf-8").splitlines(keepends=True)[:2]), encoding="utf-8")
    done = run("encode", short, "--into", tmp_path / "v", "--block", 2)
    assert done.code == 2
    assert "longer input" in done.err


def test_lines_of_json_hold_the_chosen_heads(run: Run, corpus: Path, encoder: Encoder) -> None:
    done = run("encode", corpus, "--jsonl", "--outputs", "lexical,dense", "--dtype", "float32")
    expected = encoder.encode_document(contents(encoder))
    assert expected.dense is not None
    assert expected.lexical is not None
    for i, line in enumerate(done.lines):
        assert list(line) == ["id", "dense", "lexical"]
        np.testing.assert_allclose(line["dense"], expected.dense[i], atol=1e-5)
        row = np.zeros(encoder.widths["lexical"])
        row[[int(key) for key in line["lexical"]]] = list(line["lexical"].values())
        np.testing.assert_allclose(row, expected.lexical[[i]].toarray()[0], atol=1e-5)


def test_one_text_a_line_comes_from_standard_input(run: Run) -> None:
    lines = run("encode", "-", "--jsonl", "--outputs", "multi", stdin="hello world\na model\n").lines
    assert [line["id"] for line in lines] == ["-:1", "-:2"]
    assert len(lines[0]["multi"]) == 3


def test_scores_are_those_of_encoder_score(run: Run, encoder: Encoder) -> None:
    texts = ["bge m3 is a model", "hello world", ""]
    options = [part for text in texts for part in ("-d", text)]
    done = run("score", "-q", "a model", "-q", "hello", *options, "--json", "--dtype", "float32")
    expected = encoder.score(["a model", "hello"], texts)
    found = {(line["query"], line["text"]): line["score"] for line in done.lines}
    for i, query in enumerate(("a model", "hello")):
        for j, text in enumerate(texts):
            assert found[query, text] == pytest.approx(float(expected[i, j]), abs=1e-5)


def test_queries_and_documents_come_from_files(run: Run, corpus: Path, tmp_path: Path) -> None:
    queries = tmp_path / "q.txt"
    queries.write_text("hello world\nbm25\n", encoding="utf-8")
    lines = run("score", "--queries", queries, "--documents", corpus, "--json").lines
    assert len(lines) == 8
    piped = run(
        "score", "-q", "hello world", "--documents", "-", "--json", stdin=corpus.read_text("utf-8")
    ).lines
    assert [line["id"] for line in piped] == [line["id"] for line in lines[:4]]


def test_scores_are_drawn_and_explained(run: Run) -> None:
    out = run("score", "-q", "a model", "-d", "the model of a world", "--explain").out
    assert "document-1" in out
    assert "words in common" in out


def test_demo_shows_every_query_with_scores_and_what_to_do_next(run: Run, tmp_path: Path) -> None:
    done = run("demo", "--dir", tmp_path / "demo.index", "--queries", 2, "-k", 2)
    assert done.code == 0, done.err
    for part in ("passages in", "languages", "? ", "■ lexical", "a second", "What next", "triptych index"):
        assert part in done.out, part
    assert max(map(len, done.out.splitlines())) <= 160
    with Index.open(tmp_path / "demo.index") as opened:
        assert len(opened) > 200
    assert run("demo", "--dir", tmp_path / "demo.index").code == 1


def test_demo_leaves_nothing_behind_without_a_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lines = run("demo", "--json", "--queries", 1, "-k", 2).lines
    assert len(lines) == 3
    assert lines[-1]["times"]["documents"] > 200
    assert list(tmp_path.iterdir()) == []


def test_two_parts_of_a_corpus_fill_one_folder_as_one_command_does(run: Run, tmp_path: Path) -> None:
    corpus, whole, parts = tmp_path / "corpus.jsonl", tmp_path / "whole", tmp_path / "parts"
    corpus.write_text("".join(f'{{"_id": "d{i}", "text": "a text number {i}"}}\n' for i in range(7)))
    common = ("encode", corpus, "--block", 2, "--dtype", "float32", "--json")
    run(*common, "--into", whole)
    first = run(*common, "--into", parts, "--shard", "1/2").lines[0]
    assert (first["blocks"], first["texts"], first["missing"]) == (2, 4, 2)
    assert not (parts / "encoded.json").exists()
    second = run(*common, "--into", parts, "--shard", "2/2").lines[0]
    assert (second["blocks"], second["texts"], second["missing"]) == (2, 3, 0)
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in parts.iterdir())
    assert len(names) == 10
    for name in names:
        if name.endswith(".json"):
            assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
            continue
        there, here = load_file(whole / name), load_file(parts / name)
        assert there.keys() == here.keys()
        assert all(np.array_equal(there[key], here[key]) for key in there), name
    for wrong in ("0/2", "3/2", "2", "a/b"):
        assert "--shard: got" in run(*common, "--into", parts, "--shard", wrong).err
    assert "needs --into" in run("encode", corpus, "--jsonl", "--shard", "1/2").err
