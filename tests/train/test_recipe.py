import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from triptych.cli.app import app
from triptych.errors import DataError, InputError
from triptych.train.objective import OBJECTIVES, Objective
from triptych.train.optim import Average, factor
from triptych.train.settings import RECIPES, DataSettings, OptimizerSettings, Recipe, dump, read


def written(tmp_path, text: str):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_that_is_written_is_read_back_the_same(tmp_path):
    recipe = read(
        None,
        [
            "data.train=[a.jsonl, {path: b, weight: 2}]",
            "data.table={100: 32, 512: 8}",
            "objective={name: contrastive, temperature: 0.05, dense_widths: [64, 128]}",
            "lora={rank: 4}",
            "settings={max_length: 128}",
        ],
    )
    assert read(written(tmp_path, dump(recipe))) == recipe
    assert recipe.objective.temperature == 0.05
    assert not recipe.objective.self_distillation
    assert recipe.data.train[1].weight == 2


def test_set_counts_more_than_the_file_and_the_file_more_than_the_defaults(tmp_path):
    path = written(tmp_path, "optimizer: {lr: 1e-4, warmup: 7}\nseed: 3\n")
    recipe = read(path, ["optimizer.lr=5e-5"])
    assert (recipe.optimizer.lr, recipe.optimizer.warmup, recipe.seed) == (5e-5, 7, 3)
    assert recipe.optimizer.clip == OptimizerSettings().clip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.learning_rate=1", "unknown key 'optimizer.learning_rate'"),
        ("data.bach_size=4", "unknown key 'data.bach_size'; did you mean 'batch_size'?"),
        ("sed=1", "unknown key 'sed'; did you mean 'seed'?"),
        ("objective.temprature=1", "objective: unknown key 'temprature'; did you mean 'temperature'?"),
        ("objective.temperature=hot", "objective.temperature: input should be a valid number"),
        ("objective.temperature=0", "temperature 0.0; expected 0.001 to 100"),
        ("objective=m3", "expected one of dense, unified, contrastive"),
        ("masking.encoder=2", "expected shares between 0 and 1"),
        ("data.batch_size=0", "data.batch_size: input should be greater than or equal to 1, got 0"),
        ("lora.rnk=2", "unknown key 'lora.rnk'; did you mean 'rank'?"),
        ("data.train=[{pth: x}]", "unknown key 'data.train.0.pth'; did you mean 'path'?"),
        ("optimizer.lr", "expected key=value"),
        ("a b=1", "expected key=value"),
        ("seed=[", "which is not YAML"),
        ("freeze=[tail]", "freeze.0"),
        ("saving.merge_start=0.3", "was removed; merge models with: triptych merge"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(change, message):
    with pytest.raises(InputError) as error:
        read(None, [change])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1\nb: 2\n", "recipe.yaml:2: broken YAML"), ("- 1\n", "got list; expected keys and values")],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(written(tmp_path, text))


def test_a_recipe_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.yaml")


def test_batches_come_from_a_number_a_budget_or_a_table():
    assert DataSettings(batch_size=3, bounds=(8, 16)).batches(20).sizes == (3, 3, 3)
    assert DataSettings(batch_tokens=64, bounds=(8, 16), group=2).batches(16).sizes == (4, 2)
    assert DataSettings(table="finetune").batches(8192).sizes[0] == 48
    assert DataSettings(table={10: 4, 20: 2}).batches(20).bounds == (10, 20)
    with pytest.raises(InputError, match="batch_size and table"):
        DataSettings(batch_size=1, table="finetune").batches(8)


def test_every_recipe_of_the_package_and_the_repository_can_be_read_and_its_data_are_there():
    bundled = [
        path for path in RECIPES.glob("*.yaml") if not path.name.startswith("ablate-")
    ]  # see tests/ablate
    small = [*(Path(__file__).parents[2] / "recipes" / "small").glob("[0-9]*.yaml")]
    assert len(bundled) >= 8
    assert len(small) >= 3
    for path in [*bundled, *small]:
        assert isinstance(read(path), Recipe)
    assert Path(read(Path("smoke")).data.train[0].path).is_file()


def test_a_recipe_of_the_package_is_found_by_its_name_and_a_wrong_name_is_answered_with_the_right_ones(
    tmp_path,
):
    assert read(Path("laptop-unified")) == read(RECIPES / "laptop-unified.yaml")
    with pytest.raises(InputError, match=r"laptop-unifed.*laptop-unified.*paper-unified"):
        read(Path("laptop-unifed"))
    with pytest.raises(DataError, match="no/recipe"):
        read(tmp_path / "no" / "recipe")


def test_the_objectives_are_what_their_names_say():
    assert OBJECTIVES["dense"].heads == ("dense",)
    assert OBJECTIVES["unified"] == Objective()


SETTINGS = st.builds(
    OptimizerSettings,
    warmup=st.one_of(st.floats(0, 0.99), st.integers(1, 50)),
    schedule=st.sampled_from(["linear", "cosine", "constant", "wsd"]),
    floor=st.floats(0, 1),
)


@given(SETTINGS, st.integers(1, 200))
def test_a_schedule_rises_to_at_most_1_and_never_rises_after_the_warm_up(settings, total):
    rates = [factor(step, total, settings) for step in range(total)]
    assert all(0 <= rate <= 1 for rate in rates)
    warmup = settings.warmup * total if settings.warmup < 1 else settings.warmup
    after = [rate for step, rate in enumerate(rates) if step >= warmup]
    assert after == sorted(after, reverse=True)
    before = [rate for step, rate in enumerate(rates) if step < warmup]
    assert before == sorted(before)


def test_schedules_have_their_closed_form():
    def at(step, **kwargs):
        return factor(step, 100, OptimizerSettings(**kwargs))

    assert at(4, warmup=10) == pytest.approx(0.5)
    assert at(55, warmup=10, schedule="linear") == pytest.approx(0.5)
    assert at(55, warmup=0.1, schedule="cosine", floor=0.2) == pytest.approx(0.6)
    assert at(70, warmup=10, schedule="cosine") == pytest.approx((1 + math.cos(math.pi * 2 / 3)) / 2)
    assert at(91, warmup=10, schedule="wsd") == pytest.approx(0.5)
    assert at(99, warmup=0, schedule="constant") == 1


def test_a_moving_average_is_the_recursion_written_out():
    model = torch.nn.Linear(2, 2)
    average = Average(model, 0.9)
    expected = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for step in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0 + step)
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
    for name, tensor in expected.items():
        torch.testing.assert_close(average.weights[name], tensor)


def test_a_recipe_is_given_as_an_argument_or_an_option_and_not_as_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (("smok",), ("--recipe", "smok")):
        assert "'smok', which is no file" in CliRunner().invoke(app, ["train", *words]).output.replace(
            "\n", " "
        )
    both = CliRunner().invoke(app, ["train", "smoke", "--recipe", "smoke"])
    assert (both.exit_code, "expected one recipe" in both.output) == (2, True)
