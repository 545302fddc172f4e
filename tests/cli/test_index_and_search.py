"""`triptych index`, `triptych search` and `triptych info` on a tiny model."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from checkpoints import WIDTH
from readers import kinds
from triptych import Encoder, HeadWeights, Index
from triptych.index import store
from triptych.scores.on_numpy import combine, head_scores

from .conftest import DOCUMENTS, Run


def ids_of(lines: list[dict[str, Any]]) -> list[str]:
    return [line["id"] for line in lines]


def test_search_finds_what_was_indexed_with_its_text_and_metadata(run: Run, made: Path) -> None:
    lines = run("search", made, "defination", "of", "bm25", "--json", "-k", 4).lines
    assert [line["rank"] for line in lines] == [1, 2, 3, 4]
    assert {line["query"] for line in lines} == {"defination of bm25"}
    found = {line["id"]: line for line in lines}
    assert found["b"]["text"] == "defination of bm25"
    assert found["b"]["metadata"] == {"lang": "de", "year": 2020}
    assert found["c"]["metadata"]["title"] == "hello"


def test_search_gives_the_scores_of_the_encoder(run: Run, exact_index: Path, encoder: Encoder) -> None:
    lines = run(
        "search", exact_index, "a model", "--json", "-k", 4, "--dtype", "float32", "-w", "1,0.5,2"
    ).lines
    texts = [line["text"] for line in lines]
    sides = encoder.encode_query(["a model"]), encoder.encode_document(texts)
    scores = {head: head_scores(*sides, head)[0] for head in encoder.heads}
    total = combine(scores, HeadWeights(1, 0.5, 2))
    for i, line in enumerate(lines):
        assert line["score"] == pytest.approx(float(total[i]), abs=1e-4)
        assert line["scores"]["lexical"] == pytest.approx(float(scores["lexical"][i]), abs=1e-5)
    assert [line["score"] for line in lines] == sorted((line["score"] for line in lines), reverse=True)


def test_filters_choose_by_value_by_several_values_and_by_range(run: Run, made: Path) -> None:
    def found(*conditions: str) -> list[str]:
        options = [part for condition in conditions for part in ("--filter", condition)]
        return sorted(ids_of(run("search", made, "model of the world", "--json", *options).lines))

    assert found("lang=fr") == ["c", "d"]
    assert found("lang=fr", "lang=de") == ["b", "c", "d"]
    assert found("year>=2020", "year<2024") == ["b", "c"]
    assert found("lang=fr", "year<2020") == ["d"]
    assert found("lang=fr|de") == ["b", "c", "d"]
    assert found("lang!=fr", "id!=a") == ["b"]
    assert found("id=a|c") == ["a", "c"]
    assert found("title^=hel") == ["c"]
    assert found("title?") == ["c"]
    assert found("title!?", "lang=fr") == ["d"]
    either = json.dumps({"or": [{"lang": "de"}, {"title": {"exists": True}}]})
    lines = run("search", made, "model", "--json", "--filter-json", either, "-f", "year>2000").lines
    assert sorted(ids_of(lines)) == ["b", "c"]


def test_a_field_that_no_document_has_is_said(run: Run, made: Path) -> None:
    done = run("search", made, "model", "-f", "colour=red")
    assert done.code == 0
    assert "no document has the field 'colour'; fields are" in done.err
    done = run("search", made, "model", "-f", "lnag!?", "-f", "lang=xx")
    assert done.code == 2
    assert "did you mean 'lang'" in done.err


def test_an_index_is_opened_once_by_a_command(
    run: Run, index: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = store.load_engine

    def count(*arguments: Any, **options: Any) -> Any:
        opened.append("")
        return real(*arguments, **options)

    monkeypatch.setattr(store, "load_engine", count)
    for command in (("search", index, "model"), ("index", corpus, "--into", index)):
        opened.clear()
        assert run(*command).code == 0
        assert len(opened) == 1


def test_routes_and_candidates_reach_the_index(run: Run, made: Path) -> None:
    lexical = run("search", made, "a model of text", "--json", "--routes", "lexical", "-w", "0,1,0").lines
    assert lexical
    assert all(line["scores"]["lexical"] > 0 for line in lexical)
    assert len(run("search", made, "a model of text", "--json", "--routes", "dense").lines) == 4
    few = run("search", made, "model", "--json", "-k", 2, "-c", 2, "--routes", "dense").lines
    assert len(few) == 2


def test_hits_are_paged_cut_at_a_score_and_grouped(run: Run, made: Path) -> None:
    everything = run("search", made, "model of the world", "--json").lines
    page = run("search", made, "model of the world", "--json", "-k", 2, "--offset", 1).lines
    assert ids_of(page) == ids_of(everything)[1:3]
    assert [line["rank"] for line in page] == [2, 3]
    least = everything[1]["score"] - 1e-6
    good = run("search", made, "model of the world", "--json", "--min-score", least).lines
    assert ids_of(good) == ids_of(everything)[:2]
    options = ("--group-by", "lang", "--group-size", 2, "-k", 10)
    groups = run("search", made, "model of the world", "--json", *options).lines
    assert sorted(line["metadata"]["lang"] for line in groups) == ["de", "en", "fr"]
    (french,) = [line for line in groups if line["metadata"]["lang"] == "fr"]
    assert ids_of([french, *french["more"]]) == [name for name in ids_of(everything) if name in "cd"]
    assert f"+ {french['more'][0]['score']:.3f} {french['more'][0]['id']} " in (
        run("search", made, "model of the world", *options).out
    )


@pytest.mark.parametrize("name", ["x.jsonl", "new folder/x.jsonl.zst", "x.jsonl.gz"])
def test_what_is_exported_can_be_indexed_again(run: Run, made: Path, tmp_path: Path, name: str) -> None:
    out, again = tmp_path / name, tmp_path / "again.index"
    assert "4 documents" in run("export", made, "--output", out).err
    run("index", out, "--into", again, "--engine", "exact")
    with Index.open(made) as old, Index.open(again) as new:
        documents = sorted(old.documents(), key=lambda document: document["id"])
        assert documents == sorted(new.documents(), key=lambda document: document["id"])
    lines = run("export", made, "-o", "-", "-f", "lang=fr", "-f", "year<2020").lines
    assert lines == [document for document in documents if document["id"] == "d"]


def test_weights_are_kept_in_the_index_and_shown(run: Run, index: Path) -> None:
    assert run("index", "--into", index, "--weights", "0,1,0").code == 0
    lines = run("search", index, "model of the world", "--json").lines
    assert all(line["score"] == pytest.approx(line["scores"]["lexical"]) for line in lines)
    assert "score = 1 × ■ lexical\n" in run("search", index, "model").out
    assert run("info", index, "--json").lines[0]["index"]["weights"] == [0, 1, 0]
    for line in run("search", index, "model of the world", "--json", "-w", "1,0.3,1").lines:
        single = line["scores"]
        assert line["score"] == pytest.approx(single["dense"] + 0.3 * single["lexical"] + single["multi"])


def test_paper_protocol_is_an_option(run: Run, made: Path) -> None:
    lines = run("search", made, "hello world", "--json", "--protocol", "paper", "-w", "1,0.3,0").lines
    assert lines
    assert run("search", made, "hello", "--protocol", "best").code == 2


def test_queries_come_from_a_file_or_from_standard_input(run: Run, made: Path, tmp_path: Path) -> None:
    file = tmp_path / "queries.tsv"
    file.write_text("q1\thello world\nq2\ta model\n", encoding="utf-8")
    lines = run("search", made, "--queries", file, "--json", "-k", 1).lines
    assert [(line["query_id"], line["query"]) for line in lines] == [("q1", "hello world"), ("q2", "a model")]
    for way in (["-"], ["--queries", "-"]):
        again = run("search", made, *way, "--json", "-k", 1, stdin="hello world\na model\n").lines
        assert ids_of(again) == ids_of(lines)


def test_explanation_in_json_adds_up_to_the_scores(run: Run, exact_index: Path) -> None:
    options = ("--json", "--explain", "--dtype", "float32")
    for line in run("search", exact_index, "a model of text", *options).lines:
        parts = line["explanation"]
        total = sum(match["score"] for match in parts["words"])
        assert total == pytest.approx(line["scores"]["lexical"], abs=1e-5)
        shown = [match["query_token"] for match in parts["tokens"]]
        assert shown == ["a", "model", "of", "text"]  # and neither <s> nor </s>
        left_out = parts["left_out"]
        total = sum(match["score"] for match in parts["tokens"])
        total += left_out["tokens"] * left_out["score"]
        mean = total / (len(shown) + left_out["tokens"])
        assert mean == pytest.approx(line["scores"]["multi"], abs=1e-4)


def test_a_search_by_rarity_says_how_many_documents_have_a_word(run: Run, index: Path) -> None:
    lines = run("search", index, "a model of text", "--query-weights", "idf", "--explain", "--json").lines
    assert lines
    for line in lines:
        parts = line["explanation"]
        assert parts["query_weights"] == {"by": "idf", "documents": 4}
        assert sum(match["score"] for match in parts["words"]) == pytest.approx(line["score"], abs=1e-4)
        assert {*line["scores"]} == {"lexical"}
        assert all(1 <= match["documents"] <= 4 for match in parts["words"])
    shown = run("search", index, "a model of text", "--query-weights", "idf", "--explain").out
    assert "query (rarity)" in shown
    assert f"{lines[0]['explanation']['words'][0]['documents']} of 4" in shown


def test_rarity_is_counted_in_other_texts_when_asked_for(run: Run, index: Path, tmp_path: Path) -> None:
    (tmp_path / "others.jsonl").write_text('{"text": "a model"}\n{"text": "a text"}\n{"text": "of"}\n')
    assert run("index", "--into", index, "--query-weights-from", tmp_path / "others.jsonl").code == 0
    (line, *_) = run("search", index, "a model", "--query-weights", "idf", "--explain", "--json").lines
    assert line["explanation"]["query_weights"] == {"by": "idf", "documents": 3}


def test_a_search_by_rarity_loads_no_model(made: Path) -> None:
    words = ["search", str(made), "a model", "--query-weights", "idf", "--explain", "--json"]
    script = (
        "import sys; from triptych.cli.app import main\n"
        f"sys.argv = ['triptych', *{words}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert json.loads(done.stdout.splitlines()[0])["scores"]


def test_a_person_sees_scores_languages_words_and_partners_in_80_columns(run: Run, made: Path) -> None:
    out = run("search", made, "a model of text", "-k", 2, "--explain").out
    assert max(map(len, out.splitlines())) <= 80
    assert "score = 1 × ■ dense + 0.3 × ■ lexical coverage³ + 3 × ■ multi" in out
    for part in (
        "[en]",
        "words in common",
        "model",
        "lexical score",
        "nearest document token",
        "multi score",
        "the mean of these and of 1 special or prefix token with",
    ):
        assert part in " ".join(out.split()), part
    assert "</s>→" not in out


def test_whole_texts_are_shown_when_asked_for(run: Run, tmp_path: Path) -> None:
    text = "world " * 60 + "hello"
    place = tmp_path / "long.index"
    run("index", "-", "--into", place, "--engine", "exact", stdin=json.dumps({"id": "x", "text": text}))
    assert "hello" not in run("search", place, "world").out
    assert "…" in run("search", place, "world").out
    assert "hello" in run("search", place, "world", "--full").out


def test_the_same_documents_come_from_every_format(run: Run, corpus: Path, tmp_path: Path) -> None:
    data = corpus.read_bytes()
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "x.jsonl.zst").write_bytes(zstandard.compress(data))
    rows = "".join(f"{d['id']}\t{d['text']}\n" for d in DOCUMENTS)
    (tmp_path / "x.tsv").write_text(rows, encoding="utf-8")
    (tmp_path / "x.csv").write_text("id,text\n" + rows.replace("\t", ","), encoding="utf-8")
    for i, name in enumerate(("x.jsonl.gz", "x.jsonl.zst", "x.tsv", "x.csv")):
        place = tmp_path / f"{i}.index"
        report = run("index", tmp_path / name, "-o", place, "--engine", "exact", "--json").lines[0]
        assert report["added"] == report["documents"] == 4, name
        with Index.open(place) as opened:
            assert sorted(opened.ids) == ["a", "b", "c", "d"]


def test_a_folder_is_read_recursively_and_other_files_are_named(run: Run, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    (notes / "deep").mkdir(parents=True)
    (notes / "one.txt").write_text("hello world", encoding="utf-8")
    (notes / "two.md").write_text("# The *model*\n\nof text", encoding="utf-8")
    (notes / "deep" / "three.html").write_text("<title>T</title><p>bm25</p>", encoding="utf-8")
    (notes / "picture.png").write_bytes(b"\x89PNG")
    done = run("index", notes, "-o", tmp_path / "n.index", "--engine", "exact", "--json")
    assert done.lines[0]["added"] == 3
    assert "skipped 1 files: unknown kind (picture.png)" in done.err
    with Index.open(tmp_path / "n.index") as opened:
        document = opened.get(["two.md"])[0]
        assert document is not None
        assert "model" in document["text"]
        assert "*" not in document["text"]


def test_standard_input_as_json_lines_or_as_one_text_a_line(run: Run, corpus: Path, tmp_path: Path) -> None:
    for i, stdin in enumerate((corpus.read_text("utf-8"), "hello\n\nworld\n")):
        done = run("index", "-", "-o", tmp_path / f"{i}.index", "--engine", "exact", "--json", stdin=stdin)
        assert done.lines[0]["added"] == (4, 2)[i]


def test_adding_again_replaces_and_deleting_removes(run: Run, index: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.jsonl"
    new.write_text('{"id": "a", "text": "hello"}\n{"id": "e", "text": "x"}\n', encoding="utf-8")
    gone = tmp_path / "gone.txt"
    gone.write_text("c\n\nnever-there\n", encoding="utf-8")
    report = run("index", new, "-o", index, "--delete", "b", "--delete-from", gone, "--json").lines[0]
    assert (report["added"], report["deleted"], report["documents"]) == (2, 2, 3)
    with Index.open(index) as opened:
        assert sorted(opened.ids) == ["a", "d", "e"]
        document = opened.get(["a"])[0]
        assert document is not None
        assert document["text"] == "hello"


def test_deleting_and_optimizing_need_no_input(run: Run, index: Path) -> None:
    report = run("index", "-o", index, "--delete", "a", "--optimize", "--json").lines[0]
    assert (report["added"], report["deleted"], report["documents"]) == (0, 1, 3)


def test_metadata_for_all_documents_of_a_run_keeps_its_types(run: Run, corpus: Path, tmp_path: Path) -> None:
    options = ("--metadata", "source=web", "--metadata", "year=2030", "--metadata", "draft=true")
    run("index", corpus, "-o", tmp_path / "m.index", "--engine", "exact", *options)
    with Index.open(tmp_path / "m.index") as opened:
        document = opened.get(["a"])[0]
    assert document is not None
    assert document["metadata"] == {"lang": "en", "source": "web", "year": 2030, "draft": True}


def test_fields_with_other_names_are_read(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"key": "k1", "body text": "hello", "head": "T"}\n', encoding="utf-8")
    fields = ("--id-field", "key", "--text-field", "body text", "--title-field", "head")
    run("index", file, "-o", tmp_path / "f.index", "--engine", "exact", *fields)
    with Index.open(tmp_path / "f.index") as opened:
        document = opened.get(["k1"])[0]
    assert document == {"id": "k1", "text": "T\nhello", "metadata": {"title": "T"}}


@pytest.mark.parametrize("multi", ["float32", "int8", "2bit", "binary", "none"])
def test_token_vectors_are_stored_as_chosen(run: Run, corpus: Path, tmp_path: Path, multi: str) -> None:
    place = tmp_path / "p.index"
    assert run("index", corpus, "-o", place, "--multi", multi).code == 0
    facts = run("info", place, "--json").lines[0]["index"]
    assert facts["layout"]["multi"] == multi
    assert facts["documents"] == 4
    done = run("search", place, "hello world", "--json", "-k", 1)
    assert ("multi" in done.lines[0]["scores"]) == (multi != "none")
    if multi == "none":
        assert "multi" not in run("search", place, "hello world").out.splitlines()[1]
        assert run("search", place, "hello", "-w", "1,1,1").code == 2


def test_token_vectors_recall_through_one_vector_a_document(run: Run, corpus: Path, tmp_path: Path) -> None:
    place, width = tmp_path / "my.index", str(WIDTH)
    assert run("index", corpus, "--into", place, "--fde", f"0:{width}:1").code == 0
    found = run("search", place, "a model of text", "--routes", "multi", "--json")
    plain = run("search", place, "a model of text", "--json")
    assert sorted(ids_of(found.lines)) == sorted(ids_of(plain.lines))
    refused = run("index", corpus, "--into", place, "--fde", f"1:{width}:1")
    assert refused.code == 2
    assert "which is chosen once" in refused.err


def test_how_an_index_stores_is_chosen_once(run: Run, corpus: Path, tmp_path: Path) -> None:
    place = tmp_path / "o.index"
    chosen = ("--multi", "1bit", "--pool-tokens", 2)
    assert run("index", corpus, "-o", place, *chosen).code == 0
    assert run("index", corpus, "-o", place, *chosen).code == 0
    layout = run("info", place, "--json").lines[0]["index"]["layout"]
    assert (layout["multi"], layout["pool_tokens"], layout["multi_width"]) == ("1bit", 2, None)
    assert "frame" not in layout
    done = run("index", corpus, "-o", place, "--pool-tokens", 3)
    assert done.code == 2
    assert "--pool-tokens: got 3;" in done.err
    assert "has 2, which is chosen once" in done.err


def test_the_size_of_a_large_index_is_announced_and_little_room_warned_of(
    run: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "will take" not in run("index", corpus, "-o", tmp_path / "a.index", "--engine", "exact").err
    monkeypatch.setattr("triptych.cli.index._WORTH_SAYING", 1)
    said = run("index", corpus, "-o", tmp_path / "b.index", "--engine", "exact").err
    assert "b.index will take about 0.0 GB more; the disk has" in said
    assert "warning" not in said
    monkeypatch.setattr("triptych.cli.index._WHILE_BUILDING", 1e12)
    assert (
        "warning: that is too little"
        in run("index", corpus, "-o", tmp_path / "c.index", "--engine", "exact").err
    )


def test_vectors_that_several_processes_encoded_make_an_index(run: Run, corpus: Path, tmp_path: Path) -> None:
    stream, place = tmp_path / "stream", tmp_path / "s.index"
    for part in ("1/2", "2/2"):
        assert run("encode", corpus, "--into", stream, "--block", 2, "--shard", part).code == 0
    done = run("index", corpus, "-o", place, "--engine", "exact", "--from-stream", stream)
    assert done.code == 0, done.err
    run("index", corpus, "-o", tmp_path / "t.index", "--engine", "exact", "--passages", "none")
    with Index.open(place) as one, Index.open(tmp_path / "t.index") as other:
        names = sorted(one.ids)
        assert names == sorted(other.ids)
        np.testing.assert_allclose(one.vectors(names).dense, other.vectors(names).dense, atol=1e-5)  # type: ignore[arg-type]
    assert "4 unchanged" in run("index", corpus, "-o", place, "--passages", "none").out
    refused = run("index", corpus, "-o", tmp_path / "u.index", "--from-stream", tmp_path)
    assert refused.code == 2
    assert "expected a folder of `triptych encode`" in refused.err


def test_the_model_of_an_index_is_found_from_another_folder(
    run: Run, corpus: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    run("index", corpus, "-o", tmp_path / "r.index", "--engine", "exact", "--model", f"./{folder.name}")
    monkeypatch.chdir(tmp_path)
    assert run("search", "r.index", "hello", "--json", env={"TRIPTYCH_MODEL": "nowhere"}).code == 0


def test_info_tells_the_machine_the_arithmetic_and_why(run: Run, folder: Path) -> None:
    facts = run("info", folder, "--json", "--device", "cpu", "--dtype", "float32").lines[0]
    assert facts["device"]["dtype"] == "float32"
    assert facts["device"]["dtype_why"] == "as asked for"
    assert facts["machine"]["packages"]["torch"]
    assert facts["model"]["layout"] == "published"
    assert facts["model"]["widths"]["dense"] == 32
    shown = run("info", folder).out
    for part in ("machine", "device", "dtype why", "model", "fingerprint", "published"):
        assert part in shown
    assert "model" not in run("info", "--json").lines[0]


def test_ranges_match_the_numbers_of_a_table(run: Run, tmp_path: Path) -> None:
    rows = "ID,Text,year,price,ok,code\n1,hello world,2019,1.5,true,007\n2,hello text,2021,2.50,false,07\n"
    (tmp_path / "a.csv").write_text(rows)
    place = tmp_path / "a.index"
    assert run("index", tmp_path / "a.csv", "--into", place, "--engine", "exact").code == 0
    for condition, wanted in (
        ("year>=2020", ["2"]),
        ("year=2019", ["1"]),
        ("price>2", ["2"]),
        ("ok=true", ["1"]),
        ('code="007"', ["1"]),
    ):
        done = run("search", place, "hello", "--filter", condition, "--json")
        assert [hit["id"] for line in done.lines for hit in line.get("hits", [line])] == wanted, condition


def test_a_folder_with_strange_files_is_indexed_and_they_are_named(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "good.txt").write_text("hello world")
    os.mkfifo(folder / "pipe.txt")
    (folder / "zero.txt").symlink_to("/dev/zero")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("hello")
    done = run("index", folder, "--into", tmp_path / "a.index", "--engine", "exact")
    assert done.code == 0, done.err
    notes = " ".join(done.err.split())
    assert "skipped 2 files: no regular file (pipe.txt, zero.txt)" in notes
    assert "skipped 1 files: no UTF-8 name (caf\\xe9.txt)" in notes
    (folder / "latin.txt").write_bytes("\xe9t\xe9".encode("latin-1"))
    done = run("index", folder, "--into", tmp_path / "b.index", "--engine", "exact")
    assert done.code == 0, done.err
    notes = " ".join(done.err.split())
    assert "left out 1 files that cannot be read" in notes
    assert "latin.txt:1: byte 0xe9 at offset 0 is not UTF-8" in notes
    (folder / "rows.jsonl").write_text('{"text": "hello"}\n{\n')
    done = run("index", folder, "--into", tmp_path / "c.index", "--engine", "exact")
    assert done.code != 0
    assert "rows.jsonl:2: broken JSON" in " ".join(done.err.split())
    done = run(
        "index", folder, "--into", tmp_path / "c.index", "--engine", "exact", "--skip-unreadable", "--json"
    )
    assert done.code == 0, done.err
    assert "left out 2 files that cannot be read" in " ".join(done.err.split())


def test_more_hits_than_candidates_raise_the_candidates(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "x.jsonl"
    source.write_text("".join(f'{{"id": "{i}", "text": "hello world"}}\n' for i in range(300)), "utf-8")
    place = tmp_path / "i.index"
    assert run("index", source, "-o", place, "--engine", "exact").code == 0
    assert len(run("search", place, "hello", "-k", 500, "--json").lines) == 300
    assert len(run("search", place, "hello", "-k", 250, "--json").lines) == 250


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.tsv", "qid\tquery\n7\thello\n8\tbm25\n"),
        ("q.csv", "query,qid\nhello,7\nbm25,8\n"),
        ("q.jsonl", '{"qid": "7", "query": "hello"}\n{"qid": "8", "text": "bm25"}\n'),
    ],
)
def test_queries_keep_the_ids_of_the_field_that_is_named(
    name: str, content: str, run: Run, made: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    done = run("search", made, "-q", tmp_path / name, "--id-field", "qid", "-k", 1, "--json")
    assert done.code == 0, done.err
    assert [line["query_id"] for line in done.lines] == ["7", "8"]


def test_scanned_pages_are_counted_and_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.pdf").write_bytes(kinds.pdf([["hello world"], None, None]))
    done = run("index", tmp_path / "notes", "--into", tmp_path / "x", "--engine", "exact")
    assert done.code == 0
    said = "skipped 2 pages: page without text (scanned?) (a.pdf page 2, a.pdf page 3)"
    assert said in done.err


def test_a_file_of_other_records_in_a_folder_is_left_out_and_said(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.txt").write_text("hello world", encoding="utf-8")
    (folder / "train.jsonl").write_text('{"query": "x", "pos": ["y"]}\n', encoding="utf-8")
    (folder / "table.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    done = run("index", folder, "-o", tmp_path / "n.index", "--engine", "exact")
    assert done.code == 0
    assert "left out 2 files" in done.err
    with Index.open(tmp_path / "n.index") as opened:
        assert list(opened.ids) == ["a.txt"]
    (folder / "train.jsonl").write_text(
        '{"text": "y"}\n{"query": "x"}\n{"query": "x"}\n{broken', encoding="utf-8"
    )
    assert run("index", folder, "-o", tmp_path / "n.index").code == 2
