"""Run files as systems, and the call that people use first."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import triptych
from cli.conftest import Run, run
from eval import made
from triptych.collections.base import Collection, MemoryCorpus, Wanted
from triptych.collections.catalogue import read_collections
from triptych.errors import DataError, InputError
from triptych.eval.evaluate import evaluate_systems
from triptych.eval.results import RunFolder
from triptych.eval.running import EvalOptions
from triptych.eval.systems import RunFile

__all__ = ["run"]


def write_run(path: Path, rankings: dict[str, list[str]]) -> Path:
    lines = [
        f"{query} Q0 {name} {rank} {1 / rank} tag"
        for query, names in rankings.items()
        for rank, name in enumerate(names, 1)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_run_that_we_wrote_scores_as_the_system_that_made_it(tmp_path: Path) -> None:
    one = made.collection(excluded=5)
    first = evaluate_systems(
        [one], [made.Toy()], EvalOptions(block=16, rrf=False), keep=RunFolder(tmp_path).keep
    )
    path = tmp_path / "made" / "all" / "toy.all.run"
    second = evaluate_systems([one], [RunFile.read(path), RunFile.read(f"again={path}")])
    assert list(second.systems) == ["toy.all", "again"]
    for name in second.systems:
        assert second.averages["made"][name] == first.averages["made"]["toy/all"]
    assert second.systems["again"].seconds_per_query is None
    assert second.contenders["again"].facts == {"run": "toy.all.run"}


def test_what_a_run_lacks_counts_0_and_is_told(tmp_path: Path) -> None:
    one = made.collection(queries=4)
    best = {query: sorted(judged, key=lambda d: -judged[d]) for query, judged in one.qrels.items()}
    del best["q0-2"]
    best["q0-1"].append("nowhere")
    best["unknown"] = ["d1"]
    run = RunFile.read(write_run(tmp_path / "perfect.txt", best))
    [subset] = evaluate_systems([one], [run]).subsets
    assert subset.per_query["perfect"] == pytest.approx([1, 1, 0, 1])
    many = len({name for query, names in best.items() if query != "unknown" for name in names})
    assert subset.notes == [
        "made: perfect ranks nothing for 1 of 4 queries, which count 0",
        f"made: 1 of {many} documents of perfect are not in the corpus",
    ]


def test_documents_that_a_query_leaves_out_are_taken_from_runs(tmp_path: Path) -> None:
    one = made.collection(excluded=9)
    every = [document.id for document in one.corpus]
    run = RunFile.read(write_run(tmp_path / "all.run", dict.fromkeys(one.queries, every)))
    kept: list[Any] = []
    evaluate_systems([one], [run], keep=lambda _, system, rankings, values: kept.append(rankings))
    for query, ranked in kept[0].items():
        assert ranked.documents == tuple(name for name in every if name not in one.excluded[query])


@pytest.mark.parametrize(
    ("rankings", "message"),
    [({"other": ["d1"]}, "none of the evaluated queries"), ({"q0-1": ["x", "y"]}, "none of the 2 documents")],
)
def test_a_run_on_other_data_is_refused_by_its_name(rankings: dict, message: str, tmp_path: Path) -> None:
    path = write_run(tmp_path / "other.run", rankings)
    with pytest.raises(DataError, match=message) as raised:
        evaluate_systems([made.collection()], [RunFile.read(path)])
    assert "other.run" in str(raised.value)


def test_answers_are_judged_in_runs_too_and_unknown_documents_hold_none(tmp_path: Path) -> None:
    corpus = MemoryCorpus.of({"a": "w1 w2", "b": "w3"})
    metrics = ("AnswerRecall@1", "AnswerRecall@2")
    one = Collection(
        "mkqa",
        "de-en",
        corpus,
        {"1": "x", "2": "y"},
        {},
        answers={"1": ("w2",), "2": ("w3",)},
        metrics=metrics,
    )
    run = RunFile.read(write_run(tmp_path / "theirs.run", {"1": ["nowhere", "a"]}))
    [subset] = evaluate_systems([one], [run]).subsets
    assert subset.metrics["theirs"] == {"AnswerRecall@1": 0.0, "AnswerRecall@2": 0.5}


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder in which query "a" is a document, too, and judged relevant for itself."""
    folder = tmp_path_factory.mktemp("sets") / "tiny"
    (folder / "qrels").mkdir(parents=True)
    texts = {"a": "hello world", "b": "a model of text", "c": "hello there"}
    for name, values in (("corpus", texts), ("queries", {"a": "hello", "q": "model"})):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in values.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    qrels = "query-id\tcorpus-id\tscore\na\ta\t1\na\tc\t1\nq\tb\t1\n"
    (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return folder


def test_three_lines_of_python_evaluate_a_model_beside_baselines_and_runs(
    beir: Path, folder: Path, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "theirs.run", {"a": ["c"], "q": ["b"]})
    encoder = triptych.Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    result = triptych.evaluate(
        encoder, f"beir:{beir}", modes=["dense", "all"], baselines=["bm25"], runs=[run], metrics=("nDCG@10",)
    )
    name = Path(encoder.source).name
    assert list(result.systems) == [f"{name}/dense", f"{name}/all", "bm25 (words)", "theirs"]
    assert list(result.averages["tiny"]["theirs"]) == ["nDCG@10"]
    assert "| theirs |" in str(result)
    same = triptych.evaluate(None, read_collections(beir), runs=[f"x={run}"])
    assert same.averages["tiny"]["x"]["nDCG@10"] == result.averages["tiny"]["theirs"]["nDCG@10"]
    with pytest.raises(InputError, match=r"option 'protocl'.*protocol"):
        triptych.evaluate(None, beir, runs=[run], protocl="paper")
    with pytest.raises(InputError, match="one or more"):
        triptych.evaluate(None, beir)


def test_evaluate_is_found_without_loading_torch() -> None:
    code = "import sys, triptych; triptych.evaluate; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_a_document_with_the_querys_id_is_left_out_of_beir_folders_even_if_it_is_relevant(beir: Path) -> None:
    [as_beir] = read_collections(beir)
    assert as_beir.excluded["a"] == {"a"}
    [kept] = read_collections(beir, Wanted(ignore_identical_ids=False))
    assert not kept.excluded.get("a")
    run = RunFile("run", "", {}, made_run({"a": ["a", "c"], "q": ["b"]}), beir)
    [with_it] = evaluate_systems([kept], [run]).subsets
    [without_it] = evaluate_systems([as_beir], [run]).subsets
    assert with_it.per_query["run"] == pytest.approx([1, 1])
    # As BEIR has it: the document is taken from the ranking, and its judgement still counts.
    assert without_it.per_query["run"] == pytest.approx([1 / (1 + 1 / np.log2(3)), 1])
    assert any("the query's own id" in note for note in without_it.notes)
    assert not with_it.notes


def made_run(rankings: dict[str, list[str]]):
    from triptych.collections.base import Ranked

    return {q: Ranked.of({name: -float(i) for i, name in enumerate(names)}) for q, names in rankings.items()}


def test_runs_stand_beside_results_on_the_command_line(run: Run, beir: Path, tmp_path: Path) -> None:
    path = write_run(tmp_path / "theirs.run", {"a": ["c"], "q": ["b"]})
    done = run(
        "eval",
        beir,
        "--model",
        "none",
        "--baseline",
        "bm25",
        "--run",
        f"x={path}",
        "--json",
        tmp_path / "out.json",
    )
    assert done.code == 0, done.err
    assert "x" in done.out
    done = run("compare", tmp_path / "out.json", "--run", path, "--data", beir, "--json")
    assert done.code == 0, done.err
    [comparison] = done.lines
    values = {column["name"]: column["values"] for column in comparison["columns"]}
    assert values["theirs"] == pytest.approx(values["x"], rel=1e-5)
    for wrong in (["--run", path], ["--data", beir], []):
        done = run("compare", *wrong)
        assert (done.code, "expected RESULT files, or --run" in done.err) == (2, True)
    kept = run("eval", beir, "--model", "none", "--run", path, "--keep-identical-ids")
    assert "own id" not in kept.err
    assert "own id" in run("eval", beir, "--model", "none", "--run", path).err
