import gzip
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from typer.testing import CliRunner

import checkpoints
from triptych import Encoder
from triptych.cli.app import app
from triptych.errors import DataError, IndexMissing, InputError
from triptych.index.index import Index
from triptych.text import fold
from triptych.tools.negatives.mine import MiningInputs, mine
from triptych.tools.negatives.options import FilterOptions, Margin, MiningOptions, RankingOptions
from triptych.types import HeadWeights

from .made import read_lines, write_corpus, write_lines, write_training

WIDE = MiningOptions(ranks=(1, 60), keep=100, choose="top", filters=FilterOptions(margin=Margin(None)))
"""Everything that the filters leave, in the order of the ranks."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    passages = write_corpus(folder / "corpus.jsonl")
    write_training(folder / "train.jsonl", passages)
    return folder


def inputs(place: Path, **changes: Any) -> MiningInputs:
    return MiningInputs(**{"train": [place / "train.jsonl"], "corpus": [place / "corpus.jsonl"], **changes})


def shown(passage: dict[str, Any]) -> str:
    title = passage.get("title")
    return f"{title}\n{passage['text']}" if title else passage["text"]


def expected(
    record: dict[str, Any], passages: list[dict[str, Any]], encoder: Encoder, margin: Margin
) -> list[tuple[str, float]]:
    """Mining of one query in plain loops, by all pairs' scores: what is left, by rank."""
    passages = sorted(passages, key=lambda passage: passage["id"])
    texts = [shown(passage) for passage in passages]
    scores = encoder.score(record["query"], texts + record["pos"], (1, 0.3, 1))[0]
    limit = margin.limit(float(max(scores[len(texts) :])))
    positives = {fold(text) for text in record["pos"]}
    quoted = [p for p in passages if {fold(shown(p)), fold(p["text"])} & positives]
    articles = {passage["article"] for passage in quoted}
    seen: set[str] = set()
    left: list[tuple[str, float]] = []
    for i in sorted(range(len(texts)), key=lambda i: (-scores[i], i)):
        text = fold(texts[i])
        if text in positives or text == fold(record["query"]) or passages[i]["article"] in articles:
            continue
        if text not in seen and scores[i] <= limit:
            left.append((texts[i], float(scores[i])))
        seen.add(text)
    return left


@pytest.mark.parametrize("margin", [Margin(None), Margin(0.9), Margin(None, 0.2), Margin(0.95, 0.3)], ids=str)
def test_the_negatives_are_those_of_plain_loops(place, tmp_path, encoder, margin):
    options = replace(WIDE, filters=FilterOptions(margin=margin))
    report = mine(inputs(place), tmp_path / "out.jsonl", encoder, options)
    passages, records = read_lines(place / "corpus.jsonl"), read_lines(tmp_path / "out.jsonl")
    assert report.queries == len(records) == 30
    for given, record in zip(read_lines(place / "train.jsonl"), records, strict=True):
        wanted = expected(given, passages, encoder, margin)
        assert len(record["neg"]) == len(wanted)
        np.testing.assert_allclose(record["neg_scores"], [score for _, score in wanted], atol=1e-3)
        # Token vectors are held in float16, so that neighbours of almost equal scores may change places.
        assert sorted(record["neg"]) == sorted(text for text, _ in wanted)
        positives = encoder.score(given["query"], given["pos"], (1, 0.3, 1))[0]
        np.testing.assert_allclose(record["pos_scores"], positives, atol=1e-3)
        assert {name: record[name] for name in ("id", "query", "pos", "lang", "source")} == {
            name: given[name] for name in ("id", "query", "pos", "lang", "source")
        }


@pytest.mark.parametrize("ranking", ["dense", "lexical", "multi", "hybrid"])
def test_every_candidate_is_kept_or_counted_and_each_ranking_uses_its_score(
    place, tmp_path, encoder, ranking
):
    options = MiningOptions(
        search=RankingOptions(ranking), ranks=(3, 40), keep=4, filters=FilterOptions(margin=Margin(0.98))
    )
    report = mine(inputs(place), tmp_path / "out.jsonl", encoder, options)
    assert report.candidates == report.negatives + report.dropped.counts.total()
    assert report.queries == report.full + report.short + report.empty
    weights = HeadWeights() if ranking == "hybrid" else HeadWeights.of({ranking: 1.0})
    for record in read_lines(tmp_path / "out.jsonl"):
        assert len(record["neg"]) <= 4
        assert record["neg_scores"] == sorted(record["neg_scores"], reverse=True)
        if record["neg"]:
            scores = encoder.score(record["query"], record["neg"], weights)[0]
            np.testing.assert_allclose(record["neg_scores"], scores, atol=2e-3)


def test_the_draw_depends_on_the_seed_and_on_nothing_else(place, tmp_path, encoder):
    options = replace(WIDE, choose="sample", keep=3)
    for name, changes in {"a": {}, "b": {"block": 7}, "c": {"seed": 1}}.items():
        mine(inputs(place), tmp_path / f"{name}.jsonl", encoder, replace(options, **changes))
    drawn = {name: [r["neg"] for r in read_lines(tmp_path / f"{name}.jsonl")] for name in "abc"}
    assert drawn["a"] == drawn["b"] != drawn["c"]


def test_without_a_corpus_the_examples_own_passages_are_searched(place, tmp_path, encoder):
    report = mine(inputs(place, corpus=None), tmp_path / "out.jsonl", encoder, WIDE)
    given = read_lines(place / "train.jsonl")
    own = {fold(text) for record in given for text in record["pos"] + record["neg"]}
    assert report.facts["passages"] == len(own)
    for before, after in zip(given, read_lines(tmp_path / "out.jsonl"), strict=True):
        mined = {fold(text) for text in after["neg"]}
        assert mined <= own - {fold(text) for text in before["pos"]}
        assert len(mined) == len(after["neg"])


def test_an_article_that_only_the_record_names_is_enough(tmp_path, encoder):
    write_lines(tmp_path / "corpus.jsonl", [{"id": i, "text": f"hello {i} world", "key": i} for i in "ab"])
    records = [{"query": "hello", "pos": ["world of text"], "key": "a"}, {"query": "hello", "pos": ["x"]}]
    write_lines(tmp_path / "train.jsonl", records)
    mine(inputs(tmp_path), tmp_path / "out.jsonl", encoder, WIDE)
    first, second = (record["neg"] for record in read_lines(tmp_path / "out.jsonl"))
    assert first == ["hello b world"]
    assert sorted(second) == ["hello a world", "hello b world"]


def test_a_title_stands_in_the_negative_and_a_positive_may_quote_the_text_without_it(tmp_path, encoder):
    corpus = [
        {"id": "1", "title": "bge", "text": "a model of text"},
        {"id": "2", "title": "m3", "text": "hello"},
    ]
    write_lines(tmp_path / "corpus.jsonl", corpus)
    write_lines(tmp_path / "train.jsonl", [{"query": "bge", "pos": ["A  model of text"]}])
    report = mine(inputs(tmp_path), tmp_path / "out.jsonl", encoder, WIDE)
    assert read_lines(tmp_path / "out.jsonl")[0]["neg"] == ["m3\nhello"]
    assert report.dropped["positive"] == 1


def test_existing_negatives_are_kept_scored_and_not_mined_again(place, tmp_path, encoder):
    mine(inputs(place), tmp_path / "out.jsonl", encoder, replace(WIDE, existing=True, keep=5))
    for given, record in zip(
        read_lines(place / "train.jsonl"), read_lines(tmp_path / "out.jsonl"), strict=True
    ):
        count = len(given["neg"])
        assert record["neg"][:count] == given["neg"]
        assert len(record["neg"]) == len(record["neg_scores"]) == 5
        assert len({fold(text) for text in record["neg"]}) == 5
        if count:
            scores = encoder.score(given["query"], given["neg"], (1, 0.3, 1))[0]
            np.testing.assert_allclose(record["neg_scores"][:count], scores, atol=1e-3)


class Lengths:
    """A re-ranker for which a passage is the better the nearer its length is to 30 characters."""

    name = "lengths"

    def score(self, pairs):
        return np.array([-abs(len(passage) - 30) for _, passage in pairs], dtype=np.float32)


def test_a_reranker_drops_what_it_finds_too_near_and_its_scores_are_written(place, tmp_path, encoder):
    filters = FilterOptions(margin=Margin(None), rerank_margin=Margin(None, 5.0))
    options = replace(WIDE, filters=filters, keep=6)
    report = mine(inputs(place), tmp_path / "out.jsonl", encoder, options, reranker=Lengths())
    assert report.dropped["reranker"] > 0
    assert report.candidates == report.negatives + report.dropped.counts.total()
    for record in read_lines(tmp_path / "out.jsonl"):
        assert record["neg_scores"] == [-abs(len(text) - 30) for text in record["neg"]]
        assert all(score <= max(record["pos_scores"]) - 5 for score in record["neg_scores"])


def test_a_prompt_is_carried_along_and_queries_have_the_models_prefix(tmp_path, encoder):
    write_corpus(tmp_path / "corpus.jsonl")
    records = [{"query": "world", "pos": ["hello"], **extra} for extra in ({}, {"prompt": "query of text "})]
    write_lines(tmp_path / "train.jsonl", records)
    mine(inputs(tmp_path), tmp_path / "out.jsonl", encoder, replace(WIDE, search=RankingOptions("dense")))
    plain, prompted = read_lines(tmp_path / "out.jsonl")
    for record, query in ((plain, "world"), (prompted, "world")):
        scores = encoder.score(query, record["neg"], (1, 0, 0))[0]
        np.testing.assert_allclose(record["neg_scores"], scores, atol=1e-5)
    assert prompted["prompt"] == "query of text "


@pytest.mark.parametrize("kept", [True, False], ids=["an index that is kept", "a temporary index"])
def test_through_an_index_the_negatives_are_those_of_the_exact_engine(place, tmp_path, encoder, kept):
    index = str(tmp_path / "my.index") if kept else None
    options = replace(WIDE, ranks=(2, 40), keep=40)
    mine(inputs(place), tmp_path / "a.jsonl", encoder, options)
    mine(inputs(place, engine="index", index=index), tmp_path / "b.jsonl", encoder, options)
    for one, other in zip(read_lines(tmp_path / "a.jsonl"), read_lines(tmp_path / "b.jsonl"), strict=True):
        assert len(set(one["neg"]) & set(other["neg"])) >= len(one["neg"]) - 2  # float16 at the last rank
        np.testing.assert_allclose(one["pos_scores"], other["pos_scores"], atol=2e-3)
        shared = dict(zip(other["neg"], other["neg_scores"], strict=True))
        for text, score in zip(one["neg"], one["neg_scores"], strict=True):
            assert abs(shared.get(text, score) - score) < 2e-3
    if kept:
        with Index.open(index, encoder) as opened:
            assert len(opened) == 60
        # The index is the corpus by itself, too, with its articles and titles.
        mine(inputs(place, corpus=None, engine="index", index=index), tmp_path / "c.jsonl", encoder, options)
        assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_the_output_may_be_compressed(place, tmp_path, encoder, ending):
    mine(inputs(place), tmp_path / "a.jsonl", encoder, WIDE)
    out = tmp_path / f"b.jsonl{ending}"
    mine(inputs(place), out, encoder, WIDE)
    mine(inputs(place), tmp_path / f"c.jsonl{ending}", encoder, WIDE)
    assert out.read_bytes() == (tmp_path / f"c.jsonl{ending}").read_bytes()
    unpack = gzip.decompress if ending == ".gz" else zstandard.ZstdDecompressor().stream_reader
    unpacked = unpack(out.read_bytes())
    content = unpacked if isinstance(unpacked, bytes) else unpacked.read()
    assert content == (tmp_path / "a.jsonl").read_bytes()


def test_a_finished_file_is_not_made_again_and_another_one_is_not_overwritten(place, tmp_path, encoder):
    out = tmp_path / "out.jsonl"
    report = mine(inputs(place), out, encoder, WIDE)
    before = out.stat().st_mtime_ns
    assert mine(inputs(place), out, encoder, WIDE) == report
    assert out.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="exists, and was not made from this"):
        mine(inputs(place), out, encoder, replace(WIDE, keep=3))


class Stop(Exception):
    """Where a run is cut."""


def test_a_run_that_stopped_goes_on_and_gives_the_same_bytes(place, tmp_path, encoder):
    options = replace(WIDE, block=4)
    mine(inputs(place), tmp_path / "whole.jsonl", encoder, options)

    def stop_at(count: int):
        def progress(stage: str, done: int, _total: int | None) -> None:
            if stage == "mining" and done >= count:
                raise Stop

        return progress

    out = tmp_path / "cut.jsonl"
    for count in (4, 12, 20):
        with pytest.raises(Stop):
            mine(inputs(place), out, encoder, options, progress=stop_at(count))
    assert not out.exists()
    with pytest.raises(InputError, match=r"beginning of another run \(options was"):
        mine(inputs(place), out, encoder, replace(options, seed=1))
    report = mine(inputs(place), out, encoder, options)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    whole = json.loads((tmp_path / "whole.jsonl.report.json").read_text())
    assert json.loads((tmp_path / "cut.jsonl.report.json").read_text()) == whole
    assert report.to_json() == whole
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.slow
def test_a_killed_process_is_completed_by_the_same_command(place, folder, tmp_path):
    write_training(tmp_path / "train.jsonl", read_lines(place / "corpus.jsonl"), count=60)
    command = ["mine-negatives", str(tmp_path / "train.jsonl"), "--corpus", str(place / "corpus.jsonl")]
    command += ["--model", str(folder), "--device", "cpu", "--dtype", "float32", "--block", "2", "--out"]

    def run(out: str) -> None:
        done = CliRunner().invoke(app, [*command, str(tmp_path / out)])
        assert done.exit_code == 0, done.output

    process = subprocess.Popen(
        [sys.executable, "-m", "triptych", *command, str(tmp_path / "killed.jsonl")],
        stdout=subprocess.DEVNULL,
    )
    parts, wanted = tmp_path / "killed.jsonl.parts", random.Random(0).randint(3, 25)
    while len(list(parts.glob("*.jsonl"))) < wanted and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed.jsonl").exists()
    run("killed.jsonl")
    run("whole.jsonl")
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_the_vectors_of_an_interrupted_run_are_read_again(place, tmp_path, encoder):
    vectors = tmp_path / "vectors"
    for name in ("a.jsonl", "b.jsonl"):
        mine(inputs(place, vectors=vectors), tmp_path / name, encoder, WIDE)
        times = [path.stat().st_mtime_ns for path in sorted(vectors.iterdir())]
        assert times
        if name == "a.jsonl":
            first = times
    assert first == times
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": ["none.jsonl"]}, DataError, "none.jsonl"),
        ({"train": []}, InputError, "train: got no file"),
        ({"corpus": ["broken.jsonl"]}, DataError, "broken.jsonl:2: broken JSON"),
        ({"corpus": ["blank.jsonl"]}, DataError, "no passage with text among 1"),
        ({"corpus": ["twice.jsonl"]}, DataError, "duplicate id '1'"),
        ({"train": ["blank.jsonl"]}, DataError, "blank.jsonl:1: no query"),
        ({"index": "x"}, InputError, "expected the engine 'index'"),
        ({"engine": "index", "index": "nowhere", "corpus": None}, IndexMissing, "nowhere"),
        ({"engine": "index", "vectors": "x"}, InputError, "expected the engine 'exact'"),
        ({"engine": "slow"}, InputError, "expected 'exact' or 'index'"),
    ],
)
def test_bad_input_is_named(place, tmp_path, encoder, monkeypatch, changes, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jsonl").write_text('{"id": "1", "text": "a"}\n{"id"\n')
    (tmp_path / "blank.jsonl").write_text('{"id": "1", "text": " "}\n')
    (tmp_path / "twice.jsonl").write_text('{"id": "1", "text": "a"}\n' * 2)
    with pytest.raises(error, match=message):
        mine(inputs(place, **changes), tmp_path / "out.jsonl", encoder)
    with pytest.raises(InputError, match=r"ends in one of \.jsonl"):
        mine(inputs(place), tmp_path / "out.parquet", encoder)


def test_a_head_that_the_model_lacks_is_named(place, tmp_path, folder, encoder):
    checkpoints.without_heads(folder, tmp_path / "plain")
    plain = Encoder.from_backbone(tmp_path / "plain", device="cpu", lexical=False, multi_dim=None)
    with pytest.raises(InputError, match="this model has dense"):
        mine(inputs(place), tmp_path / "out.jsonl", plain, MiningOptions(search=RankingOptions("lexical")))
    report = mine(inputs(place), tmp_path / "out.jsonl", plain, MiningOptions(keep=2))
    assert report.facts["weights"] == [1.0, 0.0, 0.0]
