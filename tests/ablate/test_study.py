import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from triptych import Encoder
from triptych.cli.app import app
from triptych.collections.base import Wanted
from triptych.collections.catalogue import read_collections
from triptych.errors import DataError, InputError
from triptych.eval.ablate import MARK, Watcher, ablate
from triptych.eval.ablate_plan import read_plan
from triptych.eval.ablate_tables import Study
from triptych.eval.evaluate import evaluate_systems
from triptych.eval.running import EvalOptions
from triptych.eval.systems import EncoderSystem
from triptych.train.settings import RECIPES

from .made import make, plan, write

ALONE = {"heads": ["lexical"], "self_distillation": False}
VARIANTS: list[dict[str, Any]] = [
    {"name": "without self-distillation", "settings": {"three": {"objective": {"self_distillation": False}}}},
    {"name": "without one", "without": ["one"]},
    {"name": "without two", "without": ["two"]},
    {"name": "no negatives", "settings": {"three": {"data": {"group": 1}}}},
    {"name": "lexical alone", "settings": {"three": {"objective": ALONE}}},
    {"name": "mcls", "inference": {"pooling": "mcls", "mcls_every": 4}},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("ablate"))


def study_of(values: dict[str, Any], out: Path, watcher: Watcher | None = None) -> Study | None:
    return ablate(read_plan(write(out.with_suffix(".yaml"), values)), out, watcher)


@pytest.fixture(scope="module")
def done(place: Path) -> tuple[Study, list[str]]:
    """The whole study, and what was begun."""
    begun: list[str] = []
    values = plan(place, VARIANTS)
    study = study_of(values, place / "whole", Watcher(begun.append))
    assert study is not None
    return study, begun


def test_a_stage_that_variants_share_is_trained_once(place, done):
    study, begun = done
    trained = [sentence.partition(": training ")[2] for sentence in begun if ": training " in sentence]
    # One: the base's, for all but "without one". Two: after one, and without it. Three: one for each that differs.
    assert {name: trained.count(name) for name in ("one", "two", "three")} == {"one": 1, "two": 2, "three": 6}
    assert len(study.stages) == 9 == len(list((place / "whole" / "stages").iterdir()))
    users = {name.split("-")[0]: names for name, names in study.stages.items() if len(names) > 4}
    assert users["one"] == ["base", *(v["name"] for v in VARIANTS if v["name"] != "without one")]
    mcls = [names for names in study.stages.values() if "mcls" in names]
    assert all("base" in names for names in mcls)


def test_the_numbers_are_the_evaluations_own(place, done):
    table = done[0].tables[0]
    marks = {
        mark.parent.name: json.loads(mark.read_text())
        for mark in (place / "whole" / "stages").glob(f"*/{MARK}")
    }
    for variant in ("base", "without two", "no negatives"):
        name = next(n for n, users in done[0].stages.items() if n.startswith("three") and variant in users)
        model = place / "whole" / "stages" / name / marks[name]["model"]
        contender = EncoderSystem.of(Encoder.from_pretrained(model, device="cpu", dtype="float32"), "x")
        result = evaluate_systems(
            read_collections(place / "dev", Wanted((), "dev")), [contender], EvalOptions()
        )
        for mode in ("dense", "lexical", "multi", "all"):
            expected = result.averages["dev"][f"x/{mode}"][table.metric]
            assert table.rows[variant][mode].mean == pytest.approx(expected, abs=1e-5)


def test_what_a_variant_does_not_train_is_not_shown_and_a_change_at_inference_changes_numbers(done):
    rows = done[0].tables[0].rows
    assert list(rows) == ["base", *(variant["name"] for variant in VARIANTS)]
    assert set(rows["lexical alone"]) == {"lexical"}  # though its second stage trains the dense head
    assert set(rows["base"]) == {"dense", "lexical", "multi", "all"}
    files = done[0].evaluations
    assert files["mcls"] != files["base"]


def test_a_finished_study_does_nothing_again_and_files_say_the_same(place, done):
    begun: list[str] = []
    values = plan(place, VARIANTS)
    assert study_of(values, place / "whole", Watcher(begun.append)) == done[0]
    assert begun == []
    written = json.loads((place / "whole" / "ablation.json").read_text())
    assert written == json.loads(json.dumps(done[0].to_json()))
    assert "| without two |" in (place / "whole" / "ablation.md").read_text()
    assert "<svg" in (place / "whole" / "ablation.svg").read_text()


def test_a_further_variant_reuses_what_is_there(place, done):
    begun: list[str] = []
    values = plan(
        place, [*VARIANTS, {"name": "three negatives", "settings": {"three": {"data": {"group": 4}}}}]
    )
    study = study_of(values, place / "whole", Watcher(begun.append))
    assert study is not None
    assert begun == [f"three negatives, seed 0: {what}" for what in ("training three", "evaluating")]


def test_a_study_that_was_stopped_goes_on_to_the_same_result(place, tmp_path):
    values = plan(place, VARIANTS[:1], seeds=[0, 1])
    del values["stages"][:2]
    whole = study_of(values, tmp_path / "whole")

    def stopping_at(step: int) -> Callable[[], bool]:
        asked = iter(range(1, 10_000))
        return lambda: next(asked) >= step

    for step in (2, 4, 6):
        assert study_of(values, tmp_path / "cut", Watcher(stop=stopping_at(step))) is None
    study = study_of(values, tmp_path / "cut")
    assert study is not None
    assert study == whole
    assert len(study.tables[0].rows["base"]["dense"].seeds) == 2


@pytest.mark.slow
def test_a_killed_study_is_completed_by_the_same_command(place, done, tmp_path):
    values = plan(place, VARIANTS)
    command = ["ablate", str(write(tmp_path / "plan.yaml", values)), "-o", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, "-m", "triptych", *command], stderr=subprocess.DEVNULL)
    stages = tmp_path / "out" / "stages"
    # In the middle of a second stage: one is finished, another has a checkpoint.
    while process.poll() is None:
        if list(stages.glob(f"*/{MARK}")) and len(list(stages.glob("*/checkpoints/step-*"))) > 2:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in stages.glob(f"*/{MARK}")}
    result = CliRunner().invoke(app, command, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert json.loads((tmp_path / "out" / "ablation.json").read_text()) == json.loads(
        json.dumps(done[0].to_json())
    )


def test_the_plan_is_shown_with_what_is_shared_and_done(place, done, tmp_path):
    values = plan(place, VARIANTS)
    path = write(tmp_path / "plan.yaml", values)
    result = CliRunner().invoke(
        app, ["ablate", str(path), "-o", str(place / "whole"), "--plan"], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.count("yes") == 9
    result = CliRunner().invoke(
        app,
        ["ablate", str(path), "-o", str(tmp_path / "new"), "--plan", "--set", "seeds=[0,1]"],
        env={"COLUMNS": "200"},
    )
    assert result.stdout.count("│ no   │") == 18
    assert not (tmp_path / "new").exists()


def test_the_table_is_printed_with_a_column_for_each_mode(place, done, tmp_path):
    values = plan(place, VARIANTS)
    command = ["ablate", str(write(tmp_path / "plan.yaml", values)), "-o", str(place / "whole")]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    for name in ("dense", "lexical", "multi", "all", "without self-distillation"):
        assert name in result.stdout
    again = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(again.stdout)["schema"] == "triptych.ablate/1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"varients": []}, "unknown key 'varients'; did you mean 'variants'?"),
        (
            {"variants": [{"name": "a", "without": ["tow"]}]},
            "variant 'a': no stage 'tow'; did you mean 'two'?",
        ),
        (
            {"variants": [{"name": "a", "settings": {"x": {}}}]},
            "no stage 'x'; expected one of one, two, three",
        ),
        ({"variants": [{"name": "base"}]}, "variants: got 'base' twice"),
        ({"variants": [{"name": "a", "inference": {"poling": "mcls"}}]}, "did you mean 'pooling'?"),
        ({"seeds": [1, 1]}, "seeds: got 1 twice"),
        ({"evaluation": {}}, "evaluation.sets: got none"),
        ({"evaluation": {"sets": "dev", "modes": ["dens"]}}, "did you mean 'dense'?"),
        ({"variants": [{"name": "a", "settings": {"two": {"stepps": 3}}}]}, "a: two: unknown key 'stepps'"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_before_anything_is_trained(place, tmp_path, changes, message):
    with pytest.raises(InputError, match="|".join([message.replace("?", r"\?")])):
        study_of({**plan(place, []), **changes}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_there_are_named(place, tmp_path):
    values = plan(place, [])
    values["stages"][0]["settings"]["data"]["train"] = "nothing.jsonl"
    with pytest.raises(DataError, match=r"nothing\.jsonl"):
        study_of(values, tmp_path / "out")
    values = plan(place, [], evaluation={"sets": [str(place / "nowhere")]})
    with pytest.raises(DataError, match="nowhere"):
        study_of(values, tmp_path / "out")
    values["stages"][0]["recipe"] = "none.yaml"
    with pytest.raises(DataError, match=r"none\.yaml"):
        study_of(values, tmp_path / "out")


def test_without_stages_models_are_compared_as_they_are(place, tmp_path):
    values = plan(place, [{"name": "mean", "inference": {"pooling": "mean"}}], stages=[])
    study = study_of(values, tmp_path / "out")
    assert study is not None
    assert study.stages == {}
    assert set(study.tables[0].rows["mean"]) == {"dense", "lexical", "multi", "all"}


def test_the_recipes_of_the_project_are_plans():
    for path in sorted(RECIPES.glob("ablate-*.yaml")):
        from triptych.eval.ablate_plan import trials_of

        read = read_plan(path)
        assert len(trials_of(read)) == len(read.seeds) * (1 + len(read.variants))
        assert yaml.safe_load(path.read_text())
