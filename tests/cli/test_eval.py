"""`triptych eval` and `triptych compare` in this process, with the tiny model."""

import json
from pathlib import Path

import pytest

from cli.conftest import Run
from triptych import Index
from triptych.eval.results import Evaluation

TEXTS = {
    "a": "bge m3 is a model of text",
    "b": "defination of bm25",
    "c": "hello world",
    "d": "a retrieval model of the world",
    "e": "the passage of the query",
}
QUERIES = {"q1": "what is bge m3?", "q2": "hello", "q3": "bm25", "q4": "of no judgement"}


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder with a test and a dev split. Read only."""
    folder = tmp_path_factory.mktemp("sets") / "tiny"
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", TEXTS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "test.tsv").write_text(head + "q1\ta\t1\nq2\tc\t2\n", encoding="utf-8")
    (folder / "qrels" / "dev.tsv").write_text(head + "q3\tb\t1\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def evaluated(run: Run, beir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Everything that one command writes, and what it printed."""
    out = tmp_path_factory.mktemp("out")
    paths = [
        "--json",
        out / "out.json",
        "--html",
        out / "out.html",
        "--runs",
        out / "runs",
        "--cache",
        out / "cache",
    ]
    done = run("eval", beir, "--tune", beir, "--baseline", "bm25", "--dtype", "float32", *paths)
    assert done.code == 0, done.err
    return out, done.out


def test_one_command_writes_results_report_runs_and_cache(evaluated: tuple[Path, str]) -> None:
    out, _ = evaluated
    result = Evaluation.read(out / "out.json")
    assert result.datasets == ("tiny",)
    names = {system.partition("/")[2] or system for system in result.systems}
    assert {"dense", "lexical", "multi", "dense+lexical", "all", "all tuned", "all rrf"} <= names
    assert any("bm25" in name for name in names)
    assert result.subsets[0].queries == 2
    assert result.tuned[0].queries == 1
    assert "<svg" in (out / "out.html").read_text("utf-8")
    assert len(list((out / "runs" / "tiny" / "all").glob("*.run"))) == len(result.systems)
    assert list((out / "cache").glob("*/000000.safetensors"))


def test_the_tables_show_every_system_and_the_tuned_weights(evaluated: tuple[Path, str]) -> None:
    _, shown = evaluated
    assert "tiny, nDCG@10 × 100" in shown
    assert "weights chosen on development sets" in shown
    assert "all metrics" in shown


@pytest.mark.parametrize("protocol", ["paper", "index"])
def test_the_other_protocols_agree_on_a_corpus_of_five(
    run: Run, beir: Path, evaluated: tuple[Path, str], protocol: str, tmp_path: Path
) -> None:
    out, _ = evaluated
    path = tmp_path / "out.json"
    done = run(
        "eval", beir, "--protocol", protocol, "--dtype", "float32", "--engine", "exact", "--json", path
    )
    assert done.code == 0, done.err
    exact, other = Evaluation.read(out / "out.json"), Evaluation.read(path)
    expected = dict(exact.averages["tiny"])
    if protocol == "paper":  # which has the paper's weights
        again = tmp_path / "again.json"
        assert run("eval", beir, "--dtype", "float32", "--weights", "all=1,0.3,1", "--json", again).code == 0
        expected |= {
            system: metrics
            for system, metrics in Evaluation.read(again).averages["tiny"].items()
            if system.endswith("/all")
        }
    in_few_bits = ("multi", "all") if protocol == "index" else ()  # which rank five documents by chance
    for system, metrics in other.averages["tiny"].items():
        if not system.endswith(in_few_bits):
            assert metrics == pytest.approx(expected[system], abs=1e-5)


def test_modes_weights_metrics_and_candidates_are_taken(run: Run, beir: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    options = [
        "--modes",
        "dense,all",
        "-w",
        "all=0.15,0.5,0.35",
        "--metrics",
        "RR@10,R@1",
        "--multi-candidates",
        "2",
    ]
    done = run("eval", beir, *options, "--dtype", "float32", "--json", path)
    assert done.code == 0, done.err
    result = Evaluation.read(path)
    assert [one.mode for one in result.systems.values()] == ["dense", "all"]
    assert list(result.systems.values())[1].weights == (0.15, 0.5, 0.35)
    assert result.subsets[0].primary == "RR@10"
    assert result.options["candidates"] == 2


def test_baselines_need_no_model(run: Run, beir: Path) -> None:
    done = run("eval", beir, "--model", "none", "--baseline", "bm25")
    assert done.code == 0, done.err
    assert "bm25" in done.out


def test_a_subset_that_is_not_there_and_wrong_options_are_one_line(
    run: Run, beir: Path, tmp_path: Path
) -> None:
    for options, message in (
        ([f"{beir}:de"], "nothing found for de"),
        ([beir.parent / "none"], "no such file or folder"),
        ([beir, "--split", "train"], "test"),
        ([beir, "--modes", "sparse"], "'sparse'"),
        ([beir, "--weights", "all"], "--weights"),
        ([beir, "--baseline", "bm26"], "'bm26'"),
        ([beir, "--metrics", "nDGC@10"], "nDGC@10"),
        ([beir, "--tune", beir, "--tune-split", "test"], "reported, too"),
        ([beir, "--html", tmp_path / "none" / "x.html"], "no such folder"),
        ([beir, "--protocol", "paper", "--multi-candidates", "5"], "candidates=5"),
    ):
        done = run("eval", *options)
        assert done.code == 2, (options, done.err)
        assert message in done.err
        assert len(done.err.strip().splitlines()) == 1


def test_tuned_weights_are_kept_in_an_index_of_the_same_model(
    run: Run, beir: Path, folder: Path, tmp_path: Path
) -> None:
    place, plain = tmp_path / "my.index", tmp_path / "plain.index"
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "a", "text": "a model"}\n', encoding="utf-8")
    for where, multi in ((place, "float16"), (plain, "none")):
        run("index", corpus, "--into", where, "--engine", "exact", "--multi", multi)
    for where in (place, plain):
        done = run("eval", beir, "--tune", beir, "--save-weights", where, "--json", tmp_path / "out.json")
        assert done.code == 0, done.err
        tuned = {
            one.system.partition("/")[2]: one.weights for one in Evaluation.read(tmp_path / "out.json").tuned
        }
        with Index.open(where) as index:
            assert index.weights == tuned["all tuned" if where == place else "dense+lexical tuned"]
            assert str(index.weights.lexical) in done.err or f"{index.weights.lexical:g}" in done.err
    for options, message in (
        ([], "got 1 models and no --tune"),
        (["--tune", beir, "-m", "none", "-b", "bm25"], "got 0 models and some --tune"),
        (["--tune", beir, "--modes", "dense"], "that mode among --modes (dense)"),
    ):
        done = run("eval", beir, "--save-weights", place, *options)
        assert done.code == 2, done.err
        assert message in done.err


def test_results_stand_side_by_side(run: Run, evaluated: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = evaluated
    other = tmp_path / "later.json"
    other.write_bytes((out / "out.json").read_bytes())
    done = run("compare", out / "out.json", other, "--systems", "*/all")
    assert done.code == 0, done.err
    assert "out:" in done.out
    assert "later:" in done.out
    done = run("compare", out / "out.json", other, "--json")
    assert [line["dataset"] for line in done.lines] == ["tiny"]
    for options, message in (
        ([out / "out.json", out / "out.json"], "each file once"),
        ([out / "out.html"], "cannot be read"),
        ([out / "out.json", "--metric", "R@7"], "no system or metric"),
        ([out / "out.json", "--reference", "nobody"], "nobody"),
    ):
        done = run("compare", *options)
        assert done.code == 2
        assert message in done.err
