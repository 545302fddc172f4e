"""The form of every report: its keys at all levels and the types of its values, not the values."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from cli.conftest import Done, Run
from tools.synthesize import server

from .conftest import EXACT, Command, Golden, read_lines

TRAINING = ("--model", "model", "--set", "compute.device=cpu", "--set", "data.batch_size=8")
TRAINING += ("--set", "compute.dtype=float32", "--set", "log_every=1")


# Places whose keys are names: of languages, systems, data sets, variants; all such keys are one, written *.
NAMED = re.compile(
    r"\.averages|\.averages\.\*|\.subsets\[\]\.metrics|\.subsets\[\]\.per_query|\.systems|\.contenders|\.stages|\.evaluations"
    r"|\.tables\[\]\.rows|\.tables\[\]\.rows\.\*|\.samples|\.lexical|\.languages|\.languages\.(query|positive|negative)"
)


def form(values: Iterable[Any]) -> str:
    """A line for each place in the values: its path and the types that are there; ``?`` may be missing.

    Items of lists are taken together, and so are values under names, see `NAMED`.
    """
    types: dict[str, set[str]] = {}
    optional: set[str] = set()

    def walk(path: str, here: list[Any]) -> None:
        types[path or "(each)"] = {type(value).__name__.replace("NoneType", "null") for value in here}
        lists = [value for value in here if isinstance(value, list)]
        if items := [item for value in lists for item in value]:
            walk(f"{path}[]", items)
        objects = [value for value in here if isinstance(value, dict)]
        if NAMED.fullmatch(path) and objects and "query" not in objects[0]:
            if items := [item for value in objects for item in value.values()]:
                walk(f"{path}.*", items)
            return
        for key in sorted({key for value in objects for key in value}):
            items = [value[key] for value in objects if key in value]
            if len(items) < len(objects):
                optional.add(f"{path}.{key}")
            walk(f"{path}.{key}", items)

    walk("", list(values))
    return "".join(f"{path}{'?' * (path in optional)}: {'|'.join(sorted(types[path]))}\n" for path in types)


def tree(folder: Path) -> str:
    """The names of all files below a folder."""
    return "".join(f"{p.relative_to(folder).as_posix()}\n" for p in sorted(folder.rglob("*")) if p.is_file())


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def check(golden: Golden) -> Any:
    """Compares the form of a command's output, or of other values, with the golden one of a name."""

    def compare(name: str, values: Done | list[Any]) -> None:
        golden(f"reports/{name}.txt", form(values.lines if isinstance(values, Done) else values))

    return compare


@pytest.fixture
def index(triptych: Command, here: Path) -> Path:
    """An index of the corpus."""
    triptych("index", "corpus.jsonl", "--into", "place", "--engine", "exact", "--model", "model", *EXACT)
    return here / "place"


def test_search_and_index_reports_keep_their_form(triptych: Command, index: Path, check: Any) -> None:
    check("search", triptych("search", "place", "what is bge m3?", "--explain", "--json", *EXACT))
    check("index", triptych("index", "corpus.jsonl", "--into", "place", "--delete", "e", "--json", *EXACT))
    check("index-manifest", [read(index / "manifest.json")])


def test_score_reports_keep_their_form(triptych: Command, check: Any) -> None:
    texts = ("-q", "what is bge m3?", "--documents", "corpus.jsonl")
    check("score", triptych("score", *texts, "--explain", "--json", *EXACT))


def test_encode_reports_keep_their_form(triptych: Command, here: Path, check: Any) -> None:
    check("encode-lines", triptych("encode", "corpus.jsonl", "--jsonl", *EXACT))
    order = ("encode", "corpus.jsonl", "--into", "vectors", "--block", 2)
    check("encode", triptych(*order, "--json", *EXACT))
    check("encode-manifest", [read(here / "vectors" / "encoded.json")])


def test_info_reports_keep_their_form(triptych: Command, index: Path, check: Any) -> None:
    for name, place in (("machine", ()), ("model", ("model",)), ("index", ("place",))):
        (facts,) = triptych("info", *place, "--json").lines
        facts["device"]["gpus"] = []  # there may be some
        check(f"info-{name}", [facts])


def test_evaluation_results_and_comparisons_keep_their_form(
    triptych: Command, here: Path, check: Any, golden: Golden
) -> None:
    order = (
        "eval",
        "set",
        "--model",
        "model",
        "--baseline",
        "bm25",
        "--tune",
        "set",
        *EXACT,
    )
    triptych(*order, "--json", "a.json", "--runs", "runs")
    check("eval", [read(here / "a.json")])
    golden("reports/eval-runs.txt", tree(here / "runs"))
    for path in (here / "runs").rglob("*.run"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert re.fullmatch(r"q\d Q0 [a-e] \d+ \S+ \S+", line)
    schema = pq.read_schema(here / "runs" / "set" / "all" / "model.all.parquet")
    golden("reports/eval-parquet.txt", "".join(f"{field.name}: {field.type}\n" for field in schema))
    (here / "b.json").write_bytes((here / "a.json").read_bytes())
    check("compare", triptych("compare", "a.json", "b.json", "--json"))


def test_data_check_reports_keep_their_form(run: Run, triptych: Command, here: Path, check: Any) -> None:
    check("data-check", triptych("data", "check", "training.jsonl", "--languages", "--json"))
    (here / "bad.jsonl").write_text('{"query": "q", "pos": ["p"], "neg": ["p"]}\n{\n', encoding="utf-8")
    done = run("data", "check", "bad.jsonl", "--no-tokens", "--no-languages", "--json")
    assert done.code == 2
    check("data-check-unusable", done)


def test_reports_of_mined_pairs_keep_their_form(triptych: Command, here: Path, check: Any) -> None:
    order = ("data", "pairs", "manual", "--out", "out", "--languages-in-paths", "--no-plot")
    check("data-pairs", triptych(*order, "--json"))
    check("data-pairs-report", [read(here / "out" / "report.json")])
    check("data-pairs-settings", [read(here / "out" / "settings.json")])


def test_reports_of_conversions_keep_their_form(triptych: Command, here: Path, check: Any) -> None:
    order = ("data", "convert", "auto", "labelled/t2ranking", "--out", "out.jsonl")
    check("data-convert", triptych(*order, "--json"))


def test_reports_of_synthetic_questions_keep_their_form(
    triptych: Command, here: Path, check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    def question(prompt: str) -> str:
        town = next(name for name in ("Arvika", "Bled", "Cieszyn") if name in prompt)
        return "NONE" if town == "Bled" else f"Which fish did the weavers from {town} owe to their bishop?"

    with server.serving(server.Model(server.answer(question))) as model:
        order = ("data", "synthesize", "articles.jsonl", "--out", "out.jsonl", "--model", "tiny", "--json")
        order += ("--base-url", model.url, "--min-document", 100, "--min-passage", 50, "--round-trip", "none")
        check("data-synthesize-dry-run", triptych(*order, "--dry-run"))
        check("data-synthesize", triptych(*order, "--price-in", 2, "--price-out", 10))
    check("data-synthesize-lines", read_lines(here / "out.jsonl"))


def test_reports_of_mined_negatives_keep_their_form(triptych: Command, here: Path, check: Any) -> None:
    order = ("mine-negatives", "training.jsonl", "--corpus", "passages.jsonl", "--out", "out.jsonl")
    check("mine-negatives", triptych(*order, "--ranks", "2:40", "--keep", 3, "--json", *EXACT))
    check("mine-negatives-report", [read(here / "out.jsonl.report.json")])


def test_what_a_training_run_tells_and_leaves_keeps_its_form(
    triptych: Command, here: Path, check: Any, golden: Golden
) -> None:
    more = ("--set", "steps=4", "--set", "saving.every=2", "--set", "evaluation.every=2")
    done = triptych(
        "train", "--data", "pairs.jsonl", "--eval", "set", "-o", "run", "--json", *TRAINING, *more
    )
    *log, result = done.lines
    check("train-log", [record for record in log if "loss" in record])
    check("train-evaluations", [record for record in log if "loss" not in record])
    check("train-result", [result])
    assert read_lines(here / "run" / "log.jsonl") == log
    check("train-each-query", [read(path) for path in (here / "run" / "evaluations").iterdir()])
    check("train-recipe", [yaml.safe_load((here / "run" / "recipe.yaml").read_text("utf-8"))])
    check("train-state", [read(here / "run" / "checkpoints" / "step-00000004" / "state.json")])
    golden("reports/train-folder.txt", tree(here / "run"))
    check("model-config", [read(here / "run" / "final" / "config.json")["triptych"]])


def test_what_pretraining_tells_keeps_its_form(triptych: Command, check: Any) -> None:
    done = triptych("pretrain", "--data", "texts.jsonl", "-o", "run", "--json", "--set", "steps=2", *TRAINING)
    *log, result = done.lines
    check("pretrain-log", log)
    check("pretrain-result", [result])


@pytest.mark.parametrize("layout", ["triptych", "published", "sentence-transformers"])
def test_merged_models_have_the_files_of_their_layout(
    triptych: Command, here: Path, check: Any, golden: Golden, layout: str
) -> None:
    check("merge", triptych("merge", "model", "model", "-o", "merged", "--layout", layout, "--json"))
    golden(f"reports/model-folder-{layout}.txt", tree(here / "merged"))


def test_the_result_of_an_ablation_keeps_its_form(triptych: Command, here: Path, check: Any) -> None:
    settings = {"steps": 1, "data": {"train": "pairs.jsonl", "batch_size": 8, "group": 2}}
    values = {
        "model": "model",
        "seeds": [0, 1],
        "stages": [{"name": "only", "command": "train", "settings": settings}],
        "variants": [{"name": "no negatives", "settings": {"only": {"data": {"group": 1}}}}],
        "evaluation": {"sets": [{"path": "set", "split": "dev"}]},
        "device": "cpu",
        "dtype": "float32",
    }
    (here / "plan.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    check("ablate", triptych("ablate", "plan.yaml", "-o", "out", "--json"))
    check("ablate", [read(here / "out" / "ablation.json")])


def test_the_demo_writes_hits_and_times(triptych: Command, check: Any) -> None:
    *hits, times = triptych("demo", "--queries", 2, "--json", "--model", "model", *EXACT).lines
    check("demo-hits", hits)
    check("demo-times", [times])
