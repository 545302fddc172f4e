"""Each published layout gives the collection that it holds, and is told by its files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.collections.base import Collection, Ranked, Wanted
from triptych.collections.catalogue import check, guess, read_collections
from triptych.collections.mteb import collections_of_task
from triptych.collections.trec import read_run
from triptych.errors import DataError
from triptych.eval import results as run_files

from . import made

LAYOUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "beir": ("beir", made.beir),
    "miracl": ("miracl", made.miracl),
    "mrtydi": ("mrtydi", made.mrtydi),
    "mrtydi of the hub": ("mrtydi", made.mrtydi_hub),
    "mldr": ("mldr", made.mldr),
    "mkqa": ("mkqa", made.mkqa),
    "mkqa with DPR's passages": ("mkqa", lambda path: made.mkqa(path, "dpr")),
    "narrativeqa of the hub": ("narrativeqa", made.narrativeqa_hub),
    "narrativeqa of the repository": ("narrativeqa", made.narrativeqa_github),
    "narrativeqa of longembed": ("narrativeqa", made.longembed),
    "longembed": ("longembed", lambda path: made.longembed(path / "passkey").parent),
    "msmarco": ("msmarco", made.msmarco),
    "cmteb": ("cmteb", made.cmteb),
    "cmteb of mteb 2": ("cmteb", made.cmteb_new),
    "trec": ("trec", made.trec),
    "training": ("training", made.training),
}


def read(made_by: Callable[..., Path], folder: Path, **wanted: Any) -> list[Collection]:
    return read_collections(made_by(folder), Wanted(**wanted))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_told_by_its_files_and_every_judged_document_is_there(
    layout: str, tmp_path: Path
) -> None:
    name, make = LAYOUTS[layout]
    path = make(tmp_path / "folder")
    assert guess(path) == name
    by_name, by_files = (
        read_collections(source, Wanted(warn=lambda _: None)) for source in (f"{name}:{path}", path)
    )
    assert [each.label for each in by_name] == [each.label for each in by_files]
    warnings: list[str] = []
    check(by_files, warnings.append)
    assert not warnings
    for collection in by_files:
        assert list(collection.corpus) == list(collection.corpus)  # it can be read again
        assert collection.queries
        assert collection.answers or set(collection.qrels) == set(collection.queries)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_digest_is_that_of_the_content(layout: str, tmp_path: Path) -> None:
    _, make = LAYOUTS[layout]
    one, other = (
        read_collections(make(tmp_path / name / "folder"), Wanted(warn=lambda _: None))
        for name in ("one", "other")
    )
    assert [each.corpus.digest for each in one] == [each.corpus.digest for each in other]


def test_beir_puts_the_title_in_front_and_leaves_out_the_querys_own_document(tmp_path: Path) -> None:
    [collection] = read(made.beir, tmp_path / "set")
    assert collection.label == "set"
    assert [tuple(doc) for doc in collection.corpus][:2] == [
        ("d1", "Moka\nbrews coffee"),
        ("d2", "a volcano"),
    ]
    assert collection.queries == {"q1": "moka pot"}  # q2 is of another split
    assert collection.qrels == {"q1": {"d1": 2, "d2": 0}}
    assert dict(collection.excluded) == {"q1": frozenset({"q1"})}


def test_beir_leaves_out_a_relevant_document_with_the_querys_own_id_too_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    """As BEIR's own evaluation does (``ignore_identical_ids``); elsewhere nothing is left out."""
    folder = made.beir(tmp_path / "set")
    made.write(folder / "qrels" / "test.tsv", "q1\td1\t1\nq1\tq1\t1\n")
    [collection] = read_collections(folder)
    assert dict(collection.excluded) == {"q1": frozenset({"q1"})}
    assert collection.qrels == {"q1": {"d1": 1, "q1": 1}}  # it counts as not found
    [collection] = read_collections(folder, Wanted(ignore_identical_ids=False))
    assert dict(collection.excluded) == {}
    [trec] = read_collections(made.trec(tmp_path / "trec"))
    assert dict(trec.excluded) == {}
    [trec] = read_collections(tmp_path / "trec", Wanted(ignore_identical_ids=True))
    assert dict(trec.excluded) == {"301": frozenset({"301"})}


def test_beir_takes_the_only_split_and_files_of_excluded_documents(tmp_path: Path) -> None:
    folder = made.beir(tmp_path / "set", "validation")
    made.write(folder / "excluded" / "validation.tsv", "query-id\tcorpus-id\nq1\td1\nq1\td2\n")
    [collection] = read_collections(folder)
    assert collection.split == "validation"
    assert collection.excluded["q1"] == {"q1", "d2"}  # d1 is relevant


def test_a_folder_of_beir_folders_has_a_subset_for_each(tmp_path: Path) -> None:
    for name in ("android", "english"):
        made.beir(tmp_path / "cqadupstack" / name)
    path = tmp_path / "cqadupstack"
    assert [each.label for each in read_collections(path)] == ["cqadupstack/android", "cqadupstack/english"]
    assert [each.subset for each in read_collections(path, Wanted(("eng*",)))] == ["english"]


def test_miracl_reads_the_parts_of_a_corpus_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    made.miracl(tmp_path, "fi")
    [fi, sw] = read(made.miracl, tmp_path)
    assert (fi.label, sw.label, sw.split) == ("miracl/fi", "miracl/sw", "dev")
    assert [tuple(doc) for doc in sw.corpus] == [
        ("7#0", "Moka\nChombo"),
        ("7#1", "Moka ni"),  # the text begins with the title
        ("12#0", "Mlima\nVolkeno"),
    ]
    assert sw.qrels == {"3": {"7#0": 1, "12#0": 0}, "4": {"12#0": 1}}
    assert [each.subset for each in read(made.miracl, tmp_path, subsets=("sw",))] == ["sw"]


def test_miracl_of_one_language_finds_the_corpus_beside_it(tmp_path: Path) -> None:
    made.miracl(tmp_path)
    [collection] = read_collections(tmp_path / "miracl-v1.0-sw")
    assert len(list(collection.corpus)) == 3


def test_mrtydi_has_both_of_its_layouts(tmp_path: Path) -> None:
    [collection] = read(made.mrtydi, tmp_path / "tar")
    assert collection.subset == "sw"
    assert [doc.text for doc in collection.corpus] == ["Moka\n\nChombo", "Mlima\n\nVolkeno"]
    assert collection.queries == {"3": "Moka ni nini?"}
    [collection] = read(made.mrtydi_hub, tmp_path / "hub")
    assert (collection.subset, collection.qrels) == ("th", {"3": {"7#0": 1}})


def test_name_and_subsets_may_stand_beside_the_path(tmp_path: Path) -> None:
    made.miracl(tmp_path, "fi")
    made.miracl(tmp_path, "sw")
    for source in (f"{tmp_path}:sw", f"miracl:{tmp_path}:sw", f"miracl:{tmp_path}:de,s*"):
        assert [each.subset for each in read_collections(source)] == ["sw"]
    assert len(read_collections(f"miracl:{tmp_path}")) == 2
    made.miracl(tmp_path / "a:b")
    assert len(read_collections(f"miracl:{tmp_path}/a:b")) == len(read_collections(tmp_path / "a:b")) == 1


def test_mldr_takes_positives_and_negatives_and_tells_of_queries_without_a_positive(tmp_path: Path) -> None:
    warnings: list[str] = []
    [collection] = read(made.mldr, tmp_path, warn=warnings.append)
    assert collection.qrels == {"q-es-8": {"doc-es-64": 1, "doc-es-65": 0}}
    assert len(warnings) == 1
    assert "1 of 2 queries have no relevant document" in warnings[0]


def test_mkqa_is_judged_by_answers_in_passages_made_plain(tmp_path: Path) -> None:
    warnings: list[str] = []
    en, zh = read(made.mkqa, tmp_path, warn=warnings.append)
    assert (en.subset, zh.subset) == ("en", "zh_cn-en")
    assert en.corpus.digest == zh.corpus.digest
    assert [tuple(doc) for doc in zh.corpus] == [("doc0", 'the tower\n"built" by éiffel - in paris...')]
    assert zh.queries == {"1": "谁建的?"}
    assert zh.answers == {"1": ("Éiffel", "Gustave Éiffel")}
    assert zh.metrics == ("AnswerRecall@20", "AnswerRecall@100")
    assert all("1 of 2 questions have no answer" in warning for warning in warnings)


def test_dprs_passages_are_unquoted(tmp_path: Path) -> None:
    made.mkqa(tmp_path, "dpr")
    collection = read_collections(tmp_path, Wanted(("en",)))[0]
    assert [doc.text for doc in collection.corpus] == ['the tower\nbuilt by "gustave" éiffel', "rome\nother"]


@pytest.mark.parametrize("make", [made.narrativeqa_hub, made.narrativeqa_github], ids=["hub", "repository"])
def test_narrativeqa_has_each_story_once_and_every_question(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    [collection] = read(make, tmp_path)
    assert [doc.id for doc in collection.corpus] == ["s1", "s2"]
    assert [doc.text.strip() for doc in collection.corpus] == ["Call me.", "Fade in."]
    assert next(iter(collection.qrels.values())) == {"s1": 1}
    assert list(collection.qrels.values())[-1] == {"s2": 1}


def test_msmarco_has_the_development_queries_and_the_tracks(tmp_path: Path) -> None:
    [small] = read(made.msmarco, tmp_path)
    assert small.queries == {"10": "what is it"}
    assert next(iter(small.corpus)) == ("0", 'The presence of "communication"')
    assert small.metrics[0] == "RR@10"
    [track] = read_collections(tmp_path, Wanted(split="dl19"))
    assert track.qrels == {"20": {"0": 0, "2": 3}}
    assert "RR(rel=2)@10" in track.metrics


def test_cmteb_has_both_of_its_layouts(tmp_path: Path) -> None:
    [old] = read(made.cmteb, tmp_path / "old")
    assert (old.label, old.qrels, next(iter(old.corpus)).text) == (
        "T2Retrieval/zh",
        {"q1": {"p1": 1}},
        "胆碱",
    )
    [new] = read(made.cmteb_new, tmp_path / "new")
    assert (new.label, new.qrels, next(iter(new.corpus)).text) == (
        "DuRetrieval/zh",
        {"q1": {"p1": 1}},
        "题\n文",
    )


def test_trec_documents_lose_their_tags_and_topics_are_their_titles(tmp_path: Path) -> None:
    [collection] = read(made.trec, tmp_path / "robust")
    assert [tuple(doc) for doc in collection.corpus] == [
        ("FT911-3", "Moka & pot\nBrews\ncoffee."),
        ("FT911-4", "Lava"),
    ]
    assert collection.queries == {"301": "Moka pots"}


def test_trec_topics_may_be_xml(tmp_path: Path) -> None:
    made.trec(tmp_path)
    (tmp_path / "topics.301.txt").unlink()
    made.write(
        tmp_path / "topics.301.xml",
        '<topics task="x"><topic number="301">\n<query>moka pots</query>\n<question>What?</question></topic></topics>',
    )
    assert read_collections(tmp_path)[0].queries == {"301": "moka pots"}


def test_training_data_makes_one_document_of_each_text_and_one_query_of_each_wording(tmp_path: Path) -> None:
    [collection] = read(made.training, tmp_path)
    documents = {doc.text: doc.id for doc in collection.corpus}
    assert list(documents) == ["brews coffee", "lava", "a tower", "a coffee maker"]
    first, second = collection.qrels.values()
    assert first == {
        documents["brews coffee"]: 1,
        documents["lava"]: 0,
        documents["a tower"]: 0,
        documents["a coffee maker"]: 1,
    }
    assert second == {documents["lava"]: 1, documents["brews coffee"]: 0}


def test_a_run_is_ordered_by_its_scores_and_equal_ones_by_id(tmp_path: Path) -> None:
    text = "301 Q0 b 1 2.5 tag\n301 Q0 c 2 9 tag\n301 Q0 a 3 2.5 tag\n\n302\tQ0\ta\t1\t-1e-3\ttag\n"
    run = read_run(made.write(tmp_path / "run.gz", text))
    assert {query: ranked.documents for query, ranked in run.items()} == {
        "301": ("c", "a", "b"),
        "302": ("a",),
    }
    assert run["301"].scores.tolist() == [9, 2.5, 2.5]


def test_a_run_that_was_written_is_read_back_as_it_was(tmp_path: Path) -> None:
    scores = np.random.default_rng(1).normal(size=20).astype(np.float32)
    ranked = Ranked.of({f"d{n}": float(score) for n, score in enumerate(scores)})
    lines = run_files._lines({"q": ranked}, "tag", tmp_path)  # pyright: ignore[reportPrivateUsage]
    back = read_run(made.write(tmp_path / "run.trec", "".join(lines)))["q"]
    assert back.documents == ranked.documents
    np.testing.assert_array_equal(back.scores, ranked.scores)


def make_task(**changes: Any) -> Any:
    """A task of mteb in memory."""
    task = type("Task", (), {})()
    task.metadata = type("Metadata", (), {})()
    facts = {
        "name": "Small",
        "modalities": ["text"],
        "main_score": "recall_at_10",
        "license": "mit",
        "reference": None,
    }
    vars(task.metadata).update(facts)
    corpus = [
        {"id": "d1", "text": "brews coffee", "title": "Moka"},
        {"id": "q2", "text": "a volcano", "title": ""},
    ]
    queries = [{"id": "q1", "text": "moka pot"}, {"id": "q2", "text": "lava"}]
    data = {
        "corpus": corpus,
        "queries": queries,
        "relevant_docs": {"q1": {"d1": 1}, "q2": {"d1": 2, "q2": 1}},
    }
    vars(task).update(
        eval_splits=["dev", "test"],
        hf_subsets=["de", "en"],
        ignore_identical_ids=True,
        data_loaded=True,
        dataset={"de": {"test": data}, "en": {"test": {**data, "top_ranked": None}}},
    )
    vars(task).update(changes)
    return task


def test_a_task_of_mteb_is_a_collection_for_each_subset() -> None:
    german, english = collections_of_task(make_task(), Wanted())
    assert (german.label, english.label, german.split, german.license) == (
        "Small/de",
        "Small/en",
        "test",
        "mit",
    )
    assert [tuple(doc) for doc in german.corpus] == [("d1", "Moka\nbrews coffee"), ("q2", "a volcano")]
    assert german.corpus.digest == english.corpus.digest
    assert german.qrels == {"q1": {"d1": 1}, "q2": {"d1": 2, "q2": 1}}
    assert dict(german.excluded) == {"q1": {"q1"}, "q2": {"q2"}}
    assert german.metrics[:2] == ("R@10", "nDCG@10")
    assert [each.subset for each in collections_of_task(make_task(), Wanted(("e*",)))] == ["en"]
    keeping = Wanted(ignore_identical_ids=False)
    assert dict(collections_of_task(make_task(), keeping)[0].excluded) == {}
    alone = make_task(hf_subsets=["default"], dataset={"default": make_task().dataset["de"]})
    assert collections_of_task(alone, Wanted())[0].label == "Small"


def test_a_task_of_mteb_loads_only_what_is_wanted_and_says_when_the_hub_is_not_there() -> None:
    loaded: list[Any] = []
    task = make_task(data_loaded=False, convert_v1_dataset_format_to_v2=lambda _: None)
    task.load_data = lambda: loaded.append(task.hf_subsets)
    collections_of_task(task, Wanted(("de",)))
    assert loaded == [["de"]]

    def fail() -> None:
        raise ConnectionError("Couldn't reach the Hub")

    with pytest.raises(
        DataError, match=r"mteb:Small: its data cannot be loaded; expected a reachable Hub, .*reach the Hub"
    ):
        collections_of_task(make_task(data_loaded=False, load_data=fail), Wanted())


def test_tasks_of_mteb_that_are_no_search_in_a_corpus_are_refused() -> None:
    task = make_task()
    with pytest.raises(DataError, match="no split 'train'; the task has dev, test"):
        collections_of_task(task, Wanted(split="train"))
    task.dataset["de"]["test"] = {**task.dataset["de"]["test"], "top_ranked": {"q1": ["d1"]}}
    with pytest.raises(DataError, match="re-ranks given candidates"):
        collections_of_task(task, Wanted())
    task.metadata.modalities = ["image"]
    with pytest.raises(DataError, match="no retrieval task on texts"):
        collections_of_task(task, Wanted())
