import numpy as np
import pytest
from scipy import stats

from triptych.eval.ablate_tables import SCHEMA, Study, draw, markdown, tables_of
from triptych.eval.results import SCHEMA as EVAL_SCHEMA
from triptych.eval.results import Entrant, Evaluation, Subset, System, averages

MODES = ("dense", "lexical")


def evaluation(name: str, values: dict[str, list[list[float]]]) -> Evaluation:
    """One contender: mode to the values of each subset's queries."""
    systems = {f"{name}/{mode}": System(name, mode, None) for mode in values}
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
    entrants = {name: Entrant("")}
    return Evaluation(EVAL_SCHEMA, "", {}, {}, entrants, systems, subsets, averages(subsets))


@pytest.fixture(scope="module")
def study() -> tuple[Study, dict[str, dict[str, list[list[np.ndarray]]]]]:
    """Two seeds, two subsets of 20 and 5 queries; a variant that is worse, one that is chance, one without lexical."""
    draw_ = np.random.default_rng(0)
    base = {m: [[draw_.random(20), draw_.random(5)] for _ in range(2)] for m in MODES}
    shift = {"worse": -0.3, "chance": 0.0, "dense alone": 0.0}
    values = {"base": base}
    for name, by in shift.items():
        values[name] = {
            mode: [[part + by + draw_.normal(0, 0.05, len(part)) for part in seed] for seed in base[mode]]
            for mode in (MODES if name != "dense alone" else ("dense",))
        }
    results = {
        name: [
            evaluation(name, {mode: [p.tolist() for p in seeds[s]] for mode, seeds in modes.items()})
            for s in (0, 1)
        ]
        for name, modes in values.items()
    }
    return Study(SCHEMA, [0, 1], tables_of(results, MODES, "t"), {}, {}, "t"), values


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


def test_differences_are_tested_over_queries_and_corrected_for_the_whole_table(study):
    table, values = study[0].tables[0], study[1]
    joined = {
        (name, mode): np.mean([np.concatenate(seed) for seed in seeds], axis=0)
        for name, modes in values.items()
        for mode, seeds in modes.items()
    }
    places = [place for place in joined if place[0] != "base"]
    raw = {p: stats.ttest_rel(joined[p], joined["base", p[1]]).pvalue for p in places}
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
