"""The whole evaluation: what is encoded, measured, kept and refused; results as JSON, tables and a page."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval import made
from triptych.collections.base import Collection, Document, MemoryCorpus, Run
from triptych.errors import DataError, InputError
from triptych.eval.compare import MEAN, Choice, compare, published_table, tables
from triptych.eval.evaluate import evaluate_systems as evaluate
from triptych.eval.groups import survey, usable
from triptych.eval.report import render
from triptych.eval.results import SCHEMA, Evaluation, RunFolder
from triptych.eval.running import EvalOptions, Tools
from triptych.types import HeadWeights


def several(subsets: int = 3, **options: object) -> list[Collection]:
    first = made.collection(seed=1, subset="aa", **options)  # type: ignore[arg-type]
    others = [
        made.collection(seed=i, subset=f"{'bcdefg'[i - 2]}x", corpus=first.corpus, **options)  # type: ignore[arg-type]
        for i in range(2, subsets + 1)
    ]
    return [first, *others]


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return evaluate(several(), [made.Toy(), made.WordCount()], EvalOptions(block=16))


def test_a_shared_corpus_is_encoded_once_and_a_shared_query_compared_once() -> None:
    toy = made.Toy()
    first = made.collection(subset="en-de")
    second = replace(first, subset="en-fr", excluded={"q0-1": frozenset({"d3"})})
    evaluate([first, second], [toy], EvalOptions(block=16))
    assert toy.encoded == 60
    assert toy.asked == len(set(first.queries.values()))


def test_metrics_are_those_of_plain_loops_for_every_system() -> None:
    import ir_measures

    toy, subsets = made.Toy(), several()
    found = evaluate(subsets, [toy], EvalOptions(block=16, rrf=False))
    for one, subset in zip(subsets, found.subsets, strict=True):
        scores = made.scores(toy, one)
        for mode, weights in toy.modes.items():
            run = {
                query: {
                    name: 1000.0 - rank for rank, (name, _) in enumerate(made.ranking(parts, weights)[:100])
                }
                for query, parts in scores.items()
            }
            metric = ir_measures.parse_measure("nDCG@10")
            value = ir_measures.calc_aggregate([metric], one.qrels, run)[metric]
            assert subset.metrics[f"toy/{mode}"]["nDCG@10"] == pytest.approx(value, abs=1e-9)
            assert np.mean(subset.per_query[f"toy/{mode}"]) == pytest.approx(value, abs=1e-9)


def test_averages_are_plain_means_over_the_subsets(result: Evaluation) -> None:
    for system, metrics in result.averages["made"].items():
        for metric, value in metrics.items():
            assert value == pytest.approx(np.mean([one.metrics[system][metric] for one in result.of("made")]))


def test_every_contender_and_mode_is_a_system_with_what_it_costs(result: Evaluation) -> None:
    assert list(result.systems) == [
        *(f"toy/{mode}" for mode in ("dense", "lexical", "multi", "dense+lexical", "all")),
        *("toy/dense+lexical rrf", "toy/all rrf", "words"),
    ]
    assert result.systems["toy/dense"].bytes_per_document == 32
    sizes = {name: one.bytes_per_document for name, one in result.systems.items()}
    parts = [sizes[f"toy/{head}"] for head in ("dense", "lexical", "multi")]
    assert sizes["toy/all"] == pytest.approx(sum(part or 0 for part in parts))
    assert result.systems["words"].bytes_per_document is None
    assert all(one.encode_seconds_per_query for name, one in result.contenders.items() if name == "toy")


def test_a_ranker_is_told_the_language_of_each_query() -> None:
    words = made.WordCount()
    first = made.collection(subset="en-de")
    evaluate([first, made.collection(seed=1, subset="fr-de", corpus=first.corpus)], [words])
    assert set(words.languages) == {"en", "fr"}


def test_what_a_query_leaves_out_is_in_no_run_of_models_or_rankers() -> None:
    one = made.collection(excluded=9)
    seen: dict[str, Run] = {}
    evaluate(
        [one], [made.Toy(), made.WordCount()], keep=lambda _, system, run, values: seen.update({system: run})
    )
    assert len(seen) == 8
    for run in seen.values():
        assert all(not set(ranked.documents) & one.excluded[query] for query, ranked in run.items())


def test_answers_are_judged_by_the_passages_that_were_found() -> None:
    corpus = MemoryCorpus.of({"a": "w1 w2", "b": "w3", "c": "w1 w4"})
    one = Collection(
        "mkqa",
        "xx-en",
        corpus,
        {"q": "w1", "r": "w3", "s": "w5"},
        {},
        answers={"q": ("w4",), "r": ("w9",), "s": ("",)},
        metrics=("AnswerRecall@1", "AnswerRecall@2"),
    )
    kept: dict[str, Mapping[str, np.ndarray]] = {}
    found = evaluate(
        [one], [made.WordCount()], keep=lambda _, system, run, values: kept.update({system: values})
    )
    assert found.subsets[0].metrics["words"] == {"AnswerRecall@1": 0.0, "AnswerRecall@2": 0.5}
    assert kept["words"]["AnswerRecall@2"].tolist() == [1, 0]
    assert found.subsets[0].notes == ["mkqa/xx-en: 1 of 3 queries have no answer and are left out"]


def test_results_survive_their_json(result: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    result.write(path)
    again = Evaluation.read(path)
    assert again.schema == SCHEMA
    assert (again.options, list(again.systems), again.contenders) == (
        result.options,
        list(result.systems),
        {name: pytest_rounded(one) for name, one in result.contenders.items()},
    )
    for one, other in zip(result.subsets, again.subsets, strict=True):
        assert (one.ids, one.characters, one.label) == (other.ids, other.characters, other.label)
        for system in one.per_query:
            assert other.per_query[system] == pytest.approx(one.per_query[system], rel=1e-5)
    again.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def pytest_rounded(one: object) -> object:
    from triptych.eval.results import SystemFacts

    assert isinstance(one, SystemFacts)

    def short(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.6g}")

    return replace(
        one,
        encode_seconds_per_query=short(one.encode_seconds_per_query),
        encode_seconds_per_document=short(one.encode_seconds_per_document),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "expected 'triptych.eval/1'"),
        ('{"schema": "triptych.eval/0"}', "triptych.eval/0"),
        (json.dumps({"schema": SCHEMA, "created": "now"}), "expected the fields"),
    ],
)
def test_a_file_that_is_no_result_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        Evaluation.read(path)


def test_runs_are_written_in_trecs_format_and_metrics_as_parquet(tmp_path: Path) -> None:
    import ir_measures
    import pyarrow.parquet as pq

    one = made.collection()
    found = evaluate([one], [made.Toy()], EvalOptions(block=16, depth=30), keep=RunFolder(tmp_path).keep)
    path = tmp_path / "made" / "all" / "toy.dense+lexical.rrf.run"
    lines = [line.split() for line in path.read_text().splitlines()]
    assert {len(line) for line in lines} == {6}
    assert [line[3] for line in lines[:3]] == ["1", "2", "3"]
    read = list(ir_measures.read_trec_run(str(tmp_path / "made" / "all" / "toy.all.run")))
    assert {entry.query_id for entry in read} == set(one.queries)
    table = pq.read_table(tmp_path / "made" / "all" / "toy.all.parquet").to_pydict()
    assert table["query"] == list(one.queries)
    assert table["nDCG@10"] == pytest.approx(found.subsets[0].per_query["toy/all"])


def test_ids_with_blanks_fit_no_run_file(tmp_path: Path) -> None:
    corpus = MemoryCorpus.of({"a b": "w1", "c": "w2"})
    one = Collection("made", "", corpus, {"q": "w1"}, {"q": {"a b": 1}})
    with pytest.raises(InputError, match="ids without blanks"):
        evaluate([one], [made.WordCount()], keep=RunFolder(tmp_path).keep)
    with pytest.raises(InputError, match=r"'a b'.*ids without blanks"):
        RunFolder(tmp_path).accept([made.collection(), one])
    with pytest.raises(InputError, match=r"'q 1'.*ids without blanks"):
        RunFolder(tmp_path).accept([replace(one, queries={"q 1": "w1"})])
    RunFolder(tmp_path).accept([made.collection()])


def bad(**changes: object) -> Collection:
    return replace(made.collection(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (
            bad(corpus=MemoryCorpus.of([Document("a", "x"), Document("b", ""), Document("a", "y")])),
            "1 and 3 have the same",
        ),
        (bad(corpus=MemoryCorpus.of({})), "without documents"),
        (bad(qrels={}), "none of 12 queries has a relevant document"),
        (bad(qrels={"q0-1": {"nowhere": 1}}), "none of the 1 judged documents"),
        (bad(metrics=("nonsense",)), "made: metrics: got 'nonsense'"),
        (bad(metrics=()), "got none"),
    ],
)
def test_a_collection_that_cannot_be_evaluated_is_refused(one: Collection, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate([one], [made.Toy()])


def test_what_is_left_out_is_counted_and_told() -> None:
    one = made.collection()
    qrels = {**one.qrels, "q0-1": {"d1": 0}, "q0-2": {"d1": 1, "gone": 1}, "unasked": {"d1": 1}}
    queries = {**one.queries, "unjudged": "w1", "q0-3": " "}
    cleaned, notes = usable(replace(one, queries=queries, qrels=qrels), survey(one.corpus, "made"))
    assert set(cleaned.queries) == set(one.queries) - {"q0-1"}
    judged = len({name for query in cleaned.queries for name in qrels[query]})
    assert notes == [
        "made: 1 of 13 judged queries have no text and are left out",
        "made: 2 of 13 queries have no relevant document and are left out",
        f"made: 1 of {judged} judged documents are not in the corpus",
        "made: 1 of 11 queries are empty texts",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EvalOptions(depth=0), "depth=0"),
        (EvalOptions("paper", candidates=5), "candidates=5 with the protocol 'paper'"),
        (EvalOptions(reference="nobody"), "nobody"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: EvalOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate([made.collection()], [made.Toy()], options, Tools())


def test_contenders_and_collections_need_names_of_their_own() -> None:
    with pytest.raises(InputError, match="different names"):
        evaluate([made.collection()], [made.Toy(), made.Toy()])
    with pytest.raises(InputError, match="twice"):
        evaluate([made.collection(), made.collection(seed=1)], [made.Toy()])
    sparse = made.Toy(modes={"lexical": HeadWeights(0, 1, 0)})
    with pytest.raises(InputError, match="no dense vectors"):
        evaluate([made.collection()], [sparse], EvalOptions("paper"))


def test_the_page_shows_every_system_and_has_no_part_outside_itself(result: Evaluation) -> None:
    page = render(result)
    assert all(name in page for name in result.systems)
    assert page.count("<svg") == 3  # by language, by length, time
    assert "<script" not in page
    assert 'src="' not in page
    assert "None" not in page


def test_the_page_escapes_names_that_people_chose() -> None:
    one = replace(made.collection(), name="<b>x</b>")
    page = render(evaluate([one], [made.Toy()]))
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page


def test_many_pairs_of_languages_become_a_field() -> None:
    first = made.collection(subset="aa-bb")
    names = [f"{a}-{b}" for a in "cdefghi" for b in "cdefghi" if a != b]
    pairs = [
        made.collection(queries=2, seed=i, subset=n, corpus=first.corpus) for i, n in enumerate(names, 3)
    ]
    page = render(evaluate([first, *pairs], [made.WordCount()]))
    assert "language of the document" in page


def test_results_side_by_side_have_their_own_columns_and_stars_where_queries_are_shared(
    result: Evaluation,
) -> None:
    better = made.Toy(name="toy")
    one = evaluate(several(), [better], EvalOptions(block=16))
    [found] = compare({"a": result, "b": one}, Choice(systems=("toy/*", "words")))
    assert found.rows == [MEAN, "aa", "bx", "cx"]
    assert found.reference == "a: toy/all"
    values = {column.name: column.values for column in found.columns}
    assert values["a: toy/dense"] == values["b: toy/dense"]
    assert values["words"][0] == pytest.approx(100 * result.averages["made"]["words"]["nDCG@10"])
    assert not any(
        star for column in found.columns if column.name.endswith("toy/all") for star in column.significant
    )


def test_a_large_difference_gets_a_star_and_other_corpora_get_none() -> None:
    one = made.collection(queries=40, words=(4,))
    good = evaluate([one], [made.WordCount(), Perfect(one)])
    [found] = compare({"x": good}, Choice(reference="words"))
    assert {column.name: column.significant for column in found.columns} == {
        "words": [False],
        "perfect": [True],
    }
    moved = replace(good, subsets=[replace(good.subsets[0], corpus="other")])
    [found] = compare({"x": good, "y": moved}, Choice(reference="x: words"))
    assert [c.name for c in found.columns if any(c.significant)] == ["x: perfect"]
    assert found.notes == ["the results were made on different corpora: their numbers are not comparable"]


class Perfect(made.WordCount):
    name = "perfect"

    def __init__(self, one: Collection) -> None:
        self._one = one

    def rank(self, corpus, queries, languages, k, progress=None):
        from triptych.collections.base import Ranked

        by_text = {text: self._one.qrels[query] for query, text in self._one.queries.items()}
        return [Ranked.of({name: float(value) for name, value in by_text[text].items()}) for text in queries]


def test_published_figures_stand_beside_results_on_the_same_data_set() -> None:
    subsets = [
        replace(one, name="miracl", split="dev", subset=lang)
        for one, lang in zip(several(2), ("de", "fr"), strict=True)
    ]
    [found] = compare({"x": evaluate(subsets, [made.WordCount()])})
    theirs = {column.name: column.values for column in found.columns if column.source}
    assert theirs["BGE-M3/all"] == [pytest.approx((59.8 + 61.2) / 2), 59.8, 61.2]
    assert "OpenAI-3" not in theirs  # only a mean over 18 languages is printed
    assert found.columns[-1].source == "arXiv 2402.03216v4, table 1"
    [without] = compare({"x": evaluate(subsets, [made.WordCount()])}, Choice(figures=False))
    assert not any(column.source for column in without.columns)


def test_published_means_are_those_of_their_languages_and_of_the_papers_text() -> None:
    for table in tables():
        for name, figures in table.systems.items():
            if figures.mean is not None and figures.subsets:
                values = list(figures.subsets.values())
                assert figures.mean == pytest.approx(sum(values) / len(values), abs=0.06), (
                    table.source,
                    name,
                )
    expected = {
        ("miracl", "dev", "nDCG@10"): [69.2, 53.9, 70.5, 70.4, 71.5],
        ("miracl", "dev", "R@100"): [95.5, 85.6, 96.3, 96.2, 96.4],
        ("mkqa", "test", "AnswerRecall@100"): [75.1, 45.3, 75.3, 75.3, 75.5],
        ("mldr", "test", "nDCG@10"): [52.5, 62.2, 57.6, 64.8, 65.0],
        ("narrativeqa", "test", "nDCG@10"): [48.7, 57.5, 55.4, 60.1, 61.7],
    }
    for key, means in expected.items():
        table = published_table(*key)
        assert table is not None
        assert [f.mean for name, f in table.systems.items() if name.startswith("BGE-M3/")] == means
    assert published_table("miracl", "test", "nDCG@10") is None
