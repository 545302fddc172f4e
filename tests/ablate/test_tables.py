import numpy as np
import pytest
from scipy import stats

from triptych.eval.ablate_tables import SCHEMA, Study, draw, markdown, tables_of
from triptych.eval.results import SCHEMA as EVAL_SCHEMA
from triptych.eval.results import Evaluation, ModeFacts, Subset, SystemFacts, averages

MODES = ("dense", "lexical")


def evaluation(name: str, values: dict[str, list[list[float]]]) -> Evaluation:
    """One contender: mode to the values of each subset's queries."""
    systems = {f"{name}/{mode}": ModeFacts(name, mode, None) for mode in values}
    count = len(next(iter(values.values())))
    subsets = [
        Subset(
            dataset="set",
            subset=str(number),
            split="dev",
            corpus="",
            documents=9,
            queries=len(next(iter(values.values()))[number]),
            judged=9,
            metrics={
                f"{name}/{m}": {"nDCG@10": float(np.mean(parts[number]))} for m, parts in values.items()
            },
            primary="nDCG@10",
            ids=[],
            per_query={f"{name}/{mode}": parts[number] for mode, parts in values.items()},
            characters=[],
        )
        for number in range(count)
    ]
    entrants = {name: SystemFacts("")}
    return Evaluation(EVAL_SCHEMA, "", {}, {}, entrants, systems, subsets, averages(subsets))


@pytest.fixture(scope="module")
def study() -> tuple[Study, dict[str, dict[str, list[list[np.ndarray]]]]]:
    """Three seeds, two subsets; a variant that is worse, one that is chance, one without lexical."""
    draw_ = np.random.default_rng(0)
    hard = [draw_.random(20), draw_.random(5)]
    values = {
        name: {
            mode: [[part + by + draw_.normal(0, 0.05, len(part)) for part in hard] for _ in range(3)]
            for mode in (MODES if name != "dense alone" else ("dense",))
        }
        for name, by in {"base": 0.0, "worse": -0.3, "chance": 0.0, "dense alone": 0.0}.items()
    }
    return Study(SCHEMA, [0, 1, 2], tables_of(evaluations(values), MODES, "t"), {}, {}, "t"), values


def evaluations(values: dict[str, dict[str, list[list[np.ndarray]]]]) -> dict[str, list[Evaluation]]:
    """Variant to mode to seed to subset to values, as evaluations."""
    return {
        name: [
            evaluation(name, {mode: [p.tolist() for p in each[seed]] for mode, each in modes.items()})
            for seed in range(len(next(iter(modes.values()))))
        ]
        for name, modes in values.items()
    }


def test_a_cell_is_the_mean_over_seeds_of_the_mean_over_subsets(study):
    table, values = study[0].tables[0], study[1]
    assert (table.metric, table.queries) == ("nDCG@10", 25)
    for name, modes in values.items():
        assert set(table.rows[name]) == set(modes)
        for mode, seeds in modes.items():
            means = [np.mean([part.mean() for part in seed]) for seed in seeds]
            cell = table.rows[name][mode]
            assert cell.mean == pytest.approx(np.mean(means))
            assert cell.seeds == pytest.approx(means)
            assert cell.deviation == pytest.approx(np.std(means, ddof=1))


def p_of(own: list[np.ndarray], base: list[np.ndarray], every: list[list[np.ndarray]]) -> float:
    """The p-value in plain steps: runs of S seeds, each with the values of its queries."""
    freedom = sum(len(runs) - 1 for runs in every)
    pooled = sum((run.mean() - np.mean(runs)) ** 2 for runs in every for run in runs) / freedom
    difference = np.mean(own, axis=0) - np.mean(base, axis=0)
    queries = np.var(difference, ddof=1) / len(difference)
    seeds = pooled / len(own) + pooled / len(base)
    degrees = (queries + seeds) ** 2 / (queries**2 / (len(difference) - 1) + seeds**2 / freedom)
    return 2 * stats.t.sf(abs(difference.mean()) / np.sqrt(queries + seeds), degrees)


def test_differences_are_tested_over_queries_and_seeds_and_corrected_for_the_whole_table(study):
    table, values = study[0].tables[0], study[1]
    joined = {
        (name, mode): [np.concatenate(seed) for seed in seeds]
        for name, modes in values.items()
        for mode, seeds in modes.items()
    }
    places = [place for place in joined if place[0] != "base"]
    every = {mode: [runs for (_, own), runs in joined.items() if own == mode] for mode in MODES}
    raw = {p: p_of(joined[p], joined["base", p[1]], every[p[1]]) for p in places}
    ordered, highest = sorted(places, key=lambda place: raw[place]), 0.0
    for i, (name, mode) in enumerate(ordered):
        highest = max(highest, min(1.0, (len(places) - i) * raw[name, mode]))
        cell = table.rows[name][mode]
        assert cell.p == pytest.approx(raw[name, mode])
        assert cell.p_holm == pytest.approx(highest)
        assert cell.difference == pytest.approx(cell.mean - table.rows["base"][mode].mean)
    assert table.rows["worse"]["dense"].significant
    assert not table.rows["chance"]["dense"].significant
    assert table.rows["base"]["dense"].p is None


def test_a_difference_that_another_seed_would_have_made_gets_no_star():
    draw_ = np.random.default_rng(1)
    hard, seeds = draw_.random(500), (-0.05, 0.05, 0.0)

    def runs(by: float) -> list[list[np.ndarray]]:
        return [[hard + by + seed + draw_.normal(0, 0.01, 500)] for seed in seeds]

    values = {"base": {"dense": runs(0.0)}, "other": {"dense": runs(0.03)}}
    cell = tables_of(evaluations(values), ["dense"], "t")[0].rows["other"]["dense"]
    means = [np.mean([part[0] for part in values[name]["dense"]], axis=0) for name in ("other", "base")]
    assert stats.ttest_rel(*means).pvalue < 1e-30  # over queries alone it seems certain
    assert cell.p is not None
    assert cell.p > 0.3
    assert not cell.significant


def test_one_seed_says_nothing_of_training_and_marks_nothing():
    values = {
        name: {"dense": [[np.full(30, by) + np.arange(30) / 100]]}
        for name, by in (("base", 0.1), ("other", 0.6))
    }
    tables = tables_of(evaluations(values), ["dense"], "t")
    cell = tables[0].rows["other"]["dense"]
    assert (cell.p, cell.p_holm, cell.significant) == (None, None, False)
    assert cell.difference == pytest.approx(0.5)
    assert "no difference is marked" in markdown(Study(SCHEMA, [0], tables, {}, {}, "t"))


def test_variants_with_one_seed_are_judged_by_the_spread_of_the_others():
    draw_ = np.random.default_rng(2)
    hard = draw_.random(400)
    values = {
        "base": {"dense": [[hard + draw_.normal(0, 0.002)] for _ in range(4)]},
        "far": {"dense": [[hard - 0.2 + draw_.normal(0, 0.01, 400)]]},
        "near": {"dense": [[hard + 0.002 + draw_.normal(0, 0.0001, 400)]]},
    }
    rows = tables_of(evaluations(values), ["dense"], "t")[0].rows
    assert rows["far"]["dense"].significant
    assert not rows["near"]["dense"].significant


def test_the_markdown_has_a_row_for_each_variant_and_a_star_where_it_differs(study):
    text = markdown(study[0], "x.svg")
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert set(rows) == {"", "base", "worse", "chance", "dense alone"} or set(rows) >= set(study[1])
    assert rows["worse"].count("*") == 2
    assert rows["base"].count("*") == 0
    assert rows["dense alone"].rstrip(" |").endswith("–")
    cell = study[0].tables[0].rows["base"]["dense"]
    assert f"{100 * cell.mean:.1f} ± {100 * cell.deviation:.1f}" in rows["base"]
    assert "![" in text


def test_the_picture_is_an_svg_that_is_the_same_every_time(study, tmp_path):
    for name in ("a.svg", "b.svg"):
        draw(study[0].tables, tmp_path / name)
    content = (tmp_path / "a.svg").read_text()
    assert "<svg" in content
    assert "dense alone" in content
    assert content == (tmp_path / "b.svg").read_text()
