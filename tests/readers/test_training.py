"""Every data set from a small sample of its published format to training examples."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from triptych.collections.base import Wanted
from triptych.collections.catalogue import CONVERTIBLE, read_collections
from triptych.collections.joined import Options
from triptych.collections.training import read_examples
from triptych.errors import DataError, InputError
from triptych.tools.convert import ConversionReport, convert

from . import made
from . import samples as s


def run(
    name: str, folder: Path, out: Path | None = None, **options: Any
) -> tuple[list[dict[str, Any]], ConversionReport]:
    out = out or folder.parent / "out.jsonl"
    report = convert(name, [folder], out, Options(**options))
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(lines) == report.examples == len(list(read_examples(out)))
    for line in lines:
        assert line["source"] == {"dataset": report.dataset, "split": report.split, "license": report.license}
    return lines, report


def only(lines: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(line.get(name) for name in names) for line in lines]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_msmarco_joins_collection_queries_and_judgements_and_takes_negatives_of_the_triples(
    data: Path,
) -> None:
    lines, report = run("msmarco", s.put(data, s.MSMARCO))
    assert only(lines, "id", "query", "pos", "neg", "lang", "pos_ids", "neg_ids") == [
        (
            "1",
            "how is tea picked",
            ["Tea is picked by hand."],
            ["Rain fell.", "Rice."],
            "en",
            ["10"],
            ["12", "13"],
        ),
        ("2", "what whistles", ["Kettles whistle."], ["Rice."], "en", ["11"], ["13"]),
    ]
    assert report.dropped.counts == {"judged query is not among the queries": 1}
    assert report.dropped.first["judged query is not among the queries"].endswith("qrels.train.tsv: 9")
    assert "non-commercial" in str(report.license)


def test_msmarco_without_negatives_and_with_few(data: Path) -> None:
    s.put(data, s.MSMARCO)
    assert [line["neg"] for line in run("msmarco", data, negatives="none")[0]] == [[], []]
    few, report = run("msmarco", data, max_negatives=1)
    assert [len(line["neg"]) for line in few] == [1, 1]
    assert report.negatives == 2
    assert few == run("msmarco", data, max_negatives=1)[0]


def test_the_small_development_files_of_msmarco_are_found(data: Path) -> None:
    files = {name.replace("train", "dev.small"): content for name, content in s.MSMARCO.items()}
    assert len(run("msmarco", s.put(data, files), split="dev")[0]) == 2


def test_msmarco_triples_of_texts_are_joined_by_neighbouring_queries(data: Path) -> None:
    rows = [("a", "p", "n1"), ("a", "p", "n2"), ("b", "q", "n1")]
    lines, _ = run("msmarco", s.put(data, {"triples.train.small.tsv": s.tsv(*rows)}))
    assert only(lines, "query", "pos", "neg") == [("a", ["p"], ["n1", "n2"]), ("b", ["q"], ["n1"])]


@pytest.mark.parametrize("form", ["lines", "columns", "parquet"])
def test_msmarco_question_answering_in_lines_columns_and_parquet(form: str, data: Path) -> None:
    if form == "parquet":
        rows = [
            {
                **row,
                "passages": {
                    key: [each[key] for each in row["passages"]]
                    for key in ("is_selected", "passage_text", "url")
                },
            }
            for row in s.MSMARCO_JSON
        ]
        pq.write_table(pa.Table.from_pylist(rows), data / "train.parquet")
    else:
        s.put(data, {"train_v1.1.json": s.MSMARCO_JSON if form == "lines" else s.columns(s.MSMARCO_JSON)})
    lines, report = run("msmarco", data)
    assert only(lines, "id", "query", "pos", "neg", "answers") == [
        (
            "19699",
            "what is a moka pot",
            ["A moka pot is a coffee maker."],
            ["Pots hold soup."],
            ["A coffee maker."],
        )
    ]
    assert report.dropped.counts == {"no passage is selected": 1}


def test_mmarco_reads_every_language_or_one_with_the_positives_of_its_triples(data: Path) -> None:
    s.put(data, s.MMARCO)
    lines, _ = run("mmarco", data)
    assert only(lines, "lang", "query", "pos", "neg") == [
        ("fr", "comment cueille-t-on le thé", ["Le thé est cueilli."], ["La pluie tomba."]),
        ("de", "wie wird tee geerntet", ["Tee wird gepflückt."], ["Regen fiel."]),
    ]
    assert only(run("mmarco", data, language="german")[0], "lang") == [("de",)]
    with pytest.raises(DataError, match="no collection in 'it'; there are fr, de"):
        run("mmarco", data, language="it")


def test_natural_questions_has_the_long_answer_as_a_passage_under_the_title_of_its_page(data: Path) -> None:
    s.put(data, {"v1.0-simplified-nq-train.jsonl.gz": s.NQ})
    lines, report = run("natural-questions", data)
    assert only(lines, "id", "query", "pos", "neg", "answers") == [
        (
            "5655493461695504401",
            "what does the otter eat",
            ["Sea otter\nThe otter (a mammal) eats fish."],
            [],
            ["fish"],
        )
    ]
    assert report.dropped.counts == {"no long answer": 1}
    (line,) = run("natural-questions", data, negatives="all", titles=False)[0]
    assert line["neg"] == ["It sleeps in a holt near the water."]


def test_natural_questions_in_whole_needs_two_annotators_of_five(data: Path) -> None:
    row = dict(s.NQ[0])
    text = row.pop("document_text").split(" ")
    row["document_tokens"] = [{"token": token, "html_token": token.startswith("<")} for token in text]
    row["document_title"] = "Otter"
    nothing = s.NQ[1]["annotations"]
    once = {**row, "annotations": row["annotations"] + nothing * 4}
    twice = {**row, "annotations": row["annotations"] * 2 + nothing * 3}
    s.put(data, {"nq-dev-00.jsonl.gz": [once, twice]})
    lines, report = run("natural-questions", data, split="dev")
    assert only(lines, "pos") == [(["Otter\nThe otter (a mammal) eats fish."],)]
    assert report.dropped.counts == {"no long answer": 1}


@pytest.mark.parametrize("name", ["dpr", "natural-questions", "triviaqa"])
def test_the_json_of_dpr_is_read_under_every_name_that_has_it(name: str, data: Path) -> None:
    s.put(data, {"biencoder-nq-train.json": json.dumps(s.DPR, indent=4)})
    lines, report = run(name, data)
    assert only(lines, "query", "pos", "neg", "pos_ids", "neg_ids", "answers") == [
        ("who built the mill", ["Mill\nAda built it."], ["Mills grind."], ["7"], ["9"], ["Ada"])
    ]
    assert report.dropped.counts == {"no positive": 1}
    assert len(run(name, data, negatives="all")[0][0]["neg"]) == 2


def test_triviaqa_tells_positives_by_the_words_of_the_answer(data: Path) -> None:
    lines, report = run("triviaqa", s.put(data, s.TRIVIAQA), negatives="all")
    (line,) = lines
    assert line["pos"] == ["Fox\n\nReynard is a red-fox.", "Reynard\nThe RED FOX of the tales is Reynard."]
    assert line["neg"] == ["Owls are no foxes, though red foxglove grows."]
    assert (line["id"], line["answers"]) == ("tc_1", ["Red Fox", "The Red Fox", "red fox"])
    assert report.dropped.counts == {"evidence is not there": 1}


def test_triviaqa_rows_bring_their_documents(data: Path) -> None:
    row = {
        "question": "Who?",
        "question_id": "t1",
        "answer": {"value": "Ada", "aliases": ["Ada L"]},
        "entity_pages": {"title": ["P"], "filename": ["P.txt"], "wiki_context": ["It was Ada."]},
        "search_results": {"title": [], "search_context": []},
    }
    assert only(run("triviaqa", s.put(data, {"train.jsonl": [row]}))[0], "pos") == [(["P\nIt was Ada."],)]


def test_an_evidence_file_outside_of_the_evidence_is_refused(data: Path) -> None:
    s.put(data, {name: text.replace("Fox.txt", "../../../secret") for name, text in s.TRIVIAQA.items()})
    (data.parent / "secret").write_text("red fox")
    with pytest.raises(DataError, match="leads out of"):
        run("triviaqa", data)


def test_squad_has_the_paragraph_as_positive_and_its_neighbours_without_the_answer_as_negatives(
    data: Path,
) -> None:
    s.put(data, {"train-v2.0.json": json.dumps(s.SQUAD)})
    lines, report = run("squad", data)
    assert only(lines, "id", "query", "pos", "neg", "lang", "answers") == [
        ("s1", "How deep is the mine?", ["Salt mine\nThe mine is 300 metres deep."], [], "en", ["300 metres"])
    ]
    assert report.dropped.counts == {"the paragraph does not answer the question": 1}
    assert run("squad", data, negatives="all")[0][0]["neg"] == ["Salt mine\nSalt was carried down the river."]


def test_rows_of_squad_and_other_names_of_its_format(data: Path) -> None:
    row = {
        "id": "k",
        "title": "산",
        "context": "산은 높다.",
        "question": "산은 어떤가?",
        "answers": {"text": ["높다"]},
    }
    s.put(data, {"KorQuAD_v1.0_train.jsonl": [row]})
    for name, language in (("korquad", "ko"), ("dureader-robust", "zh"), ("squad-like", None)):
        assert only(run(name, data)[0], "pos", "lang") == [(["산은 높다."], language)]


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_hotpotqa_tells_supporting_paragraphs_from_distractors(form: str, data: Path) -> None:
    if form == "json":
        s.put(data, {"hotpot_train_v1.1.json": json.dumps(s.HOTPOT)})
    else:
        (row,) = s.HOTPOT
        facts, context = zip(*row["supporting_facts"], strict=True), zip(*row["context"], strict=True)
        changed = {
            **row,
            "id": row["_id"],
            "supporting_facts": dict(zip(("title", "sent_id"), map(list, facts), strict=True)),
            "context": dict(zip(("title", "sentences"), map(list, context), strict=True)),
        }
        del changed["_id"]
        pq.write_table(pa.Table.from_pylist([changed]), data / "train-00000-of-00002.parquet")
    (line,) = run("hotpotqa", data)[0]
    assert line["pos"] == [
        "Blue clock\nIt was made by Ines Vogt. It still runs.",
        "Ines Vogt\nShe made clocks. She was born in Ulm.",
    ]
    assert (line["neg"], line["answers"], line["id"]) == (["Red clock\nIt stands still."], ["Ulm"], "h1")


def test_nli_triplets_have_premise_entailment_and_contradiction_wherever_the_pairs_stand(data: Path) -> None:
    lines, report = run(
        "snli", s.put(data, {"snli_1.0_train.jsonl": s.SNLI, "snli_1.0_dev.jsonl": s.SNLI[:1]})
    )
    assert only(lines, "query", "pos", "neg") == [
        ("A dog runs.", ["An animal moves.", "A dog is running."], ["The dog sleeps."])
    ]
    assert report.dropped.counts == {"neutral pair": 1, "no gold label": 1, "the premise entails nothing": 1}


def test_nli_from_tables_from_numbers_and_in_several_languages(data: Path) -> None:
    rows = [
        {"language": lang, "gold_label": label, "sentence1": f"{lang} one", "sentence2": f"{lang} {label}"}
        for lang in ("sw", "ur")
        for label in ("entailment", "contradiction")
    ]
    s.put(data, {"xnli/xnli.dev.jsonl": rows})
    assert only(run("xnli", data / "xnli", split="dev")[0], "lang", "pos", "neg") == [
        ("sw", ["sw entailment"], ["sw contradiction"]),
        ("ur", ["ur entailment"], ["ur contradiction"]),
    ]
    assert only(run("xnli", data / "xnli", split="dev", language="ur")[0], "lang") == [("ur",)]
    table = s.tsv(
        ("premise", "hypo", "label"), ("un", "deux", "entailment"), ("un", "trois", "contradictory")
    )
    s.put(data, {"mt/multinli.train.fr.tsv": table})
    assert only(run("xnli", data / "mt")[0], "lang", "pos", "neg") == [("fr", ["deux"], ["trois"])]
    numbers = [{"premise": "p", "hypothesis": f"h{label}", "label": label} for label in (0, 1, 2, -1)]
    lines, report = run("nli", s.put(data / "n", {"train.jsonl": numbers}))
    assert only(lines, "pos", "neg") == [(["h0"], ["h2"])]
    assert report.dropped.counts == {"neutral pair": 1, "no gold label": 1}


def test_dureader_retrieval_from_training_pairs_and_from_json(data: Path) -> None:
    s.put(data, s.DUREADER)
    assert only(run("dureader-retrieval", data)[0], "query", "pos", "neg") == [
        ("怎么煮米饭", ["先把米洗干净。", "加水后煮二十分钟。"], ["面条要煮十分钟。", "今天下雨。"]),
        ("猫吃什么", ["猫吃鱼。"], ["狗吃骨头。"]),
    ]
    lines, report = run("dureader-retrieval", data, split="dev")
    assert only(lines, "id", "query", "pos", "pos_ids") == [
        ("q1", "河有多长", ["这条河长九百公里。"], ["p1"])
    ]
    assert report.dropped.counts == {"no paragraph answers": 1}
    (data / "train" / "dual.train.tsv").unlink()
    assert only(run("dureader-retrieval", data)[0], "pos", "neg") == [(["猫吃鱼。"], ["狗吃骨头。"])]


def test_t2ranking_takes_grades_from_two_on_and_mined_negatives(data: Path) -> None:
    s.put(data, s.T2RANKING)
    lines, report = run("t2ranking", data)
    assert only(lines, "id", "pos", "neg") == [("5", ["山很高。"], ["水很深。", "风很大。"])]
    assert report.dropped.counts == {"no positive": 1}
    assert only(run("t2ranking", data, positive_from=1)[0], "id", "pos") == [
        ("5", ["山很高。", "水很深。"]),
        ("6", ["水很深。"]),
    ]
    (data / "qrels.train.tsv").unlink()
    assert only(run("t2ranking", data)[0], "id", "pos", "neg") == [("5", ["山很高。"], ["风很大。"])]


def test_mrtydi_from_its_own_files_and_as_queries_with_passages(data: Path) -> None:
    assert only(run("mrtydi", s.put(data / "own", s.MRTYDI))[0], "id", "lang", "pos") == [
        ("0", "fi", ["Sauna\n\nSauna on kuuma huone."])
    ]
    s.put(data / "hub", {"mrtydi-v1.1-english/train.jsonl.gz": s.LISTS})
    assert only(run("mrtydi", data / "hub")[0], "lang", "pos", "neg") == [
        ("en", ["Holt\nA holt is an otter's den."], ["Hold\nA ship has a hold.", "Hold\nCargo lies in it."])
    ]


def test_passages_without_text_need_the_corpus(data: Path) -> None:
    bare = [
        {"query_id": "0", "query": "What?", "positive_passages": [{"docid": "3#0", "title": "", "text": ""}]}
    ]
    s.put(data, {"mrtydi-v1.1-english/dev.jsonl.gz": bare})
    with pytest.raises(DataError, match="1 × passages have ids alone; give the corpus too"):
        run("mrtydi", data, split="dev")
    s.put(data, {"mrtydi-v1.1-english/corpus.jsonl.gz": [{"docid": "3#0", "title": "T", "text": "It."}]})
    assert only(run("mrtydi", data, split="dev")[0], "pos", "pos_ids") == [(["T\nIt."], ["3#0"])]


def test_miracl_keeps_languages_apart_whose_documents_have_the_same_ids(data: Path) -> None:
    s.put(data, s.MIRACL)
    lines, report = run("miracl", data, split="dev")
    assert only(lines, "lang", "query", "pos", "neg") == [
        ("fi", "Mikä on leijona?", ["T\nLeijona on eläin."], ["T\nSataa vettä."]),
        ("sw", "Simba ni nini?", ["T\nSimba ni mnyama."], ["T\nMvua inanyesha."]),
    ]
    assert report.languages == {"fi": 1, "sw": 1}
    assert only(run("miracl", data, split="dev", language="sw")[0], "lang") == [("sw",)]
    with pytest.raises(DataError, match="nothing in 'yo'; there are fi, sw"):
        run("miracl", data, split="dev", language="yo")


def test_mldr_has_whole_documents(data: Path) -> None:
    (line,) = run("mldr", s.put(data, s.MLDR))[0]
    assert (line["lang"], line["pos_ids"], line["neg_ids"]) == ("it", ["doc-it-1"], ["doc-it-2"])
    assert line["pos"] == [("Il ponte fu costruito nel 1502. " * 40).strip()]


def test_beir_folders_take_their_threshold_from_the_options(data: Path) -> None:
    lines, report = run("beir", s.put(data, s.BEIR), split="test")
    assert only(lines, "id", "pos", "neg") == [("q1", ["Bees dance."], ["Ants dig."])]
    assert report.dropped.counts == {"no positive": 1}
    assert report.license is None
    with pytest.raises(DataError, match="2 × no positive"):
        run("beir", data, split="test", positive_from=3)


def test_trec_topics_qrels_and_sgml_documents(data: Path) -> None:
    lines, report = run("trec", s.put(data, s.TREC))
    assert only(lines, "id", "query", "pos", "neg") == [
        ("301", "Salt & pepper", ["Old mines\nSalt is mined & washed.\nThen it is dried."], ["Pepper grows."])
    ]
    assert report.dropped.counts == {"judged passage is not in the corpus": 1, "no positive": 1}
    lines, _ = run("trec", data, topic_fields=("title", "desc"))
    assert lines[0]["query"] == "Salt & pepper Documents on how salt is mined."


def test_trec_topics_with_attributes_and_documents_in_lines(data: Path) -> None:
    topic = '<topic number="1">\n<query>bells</query>\n<question>where are bells</question>\n</topic>'
    topics = f"<topics>\n{topic}\n</topics>"
    files = {"topics.xml": topics, "qrels.txt": "1 0 a 2\n", "docs.jsonl": [{"id": "a", "text": "Here."}]}
    s.put(data, files)
    assert only(run("trec", data)[0], "id", "query", "pos") == [("1", "bells", ["Here."])]
    assert run("trec", data, topic_fields=("desc",))[0][0]["query"] == "where are bells"


SAMPLES: dict[str, dict[str, Any]] = {
    "msmarco": s.MSMARCO,
    "mmarco": s.MMARCO,
    "natural-questions": {"v1.0-simplified-nq-train.jsonl.gz": s.NQ},
    "dpr": {"biencoder-nq-train.json": json.dumps(s.DPR)},
    "triviaqa": s.TRIVIAQA,
    "squad-like": {"train-v2.0.json": json.dumps(s.SQUAD)},
    "hotpotqa": {"hotpot_train_v1.1.json": json.dumps(s.HOTPOT)},
    "nli": {"snli_1.0_train.jsonl": s.SNLI},
    "dureader-retrieval": s.DUREADER,
    "t2ranking": s.T2RANKING,
    "mrtydi": s.MRTYDI,
    "miracl": {name.replace("-dev", "-train"): content for name, content in s.MIRACL.items()},
    "mldr": s.MLDR,
    "beir": {name.replace("test", "train"): content for name, content in s.BEIR.items()},
    "trec": s.TREC,
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_files_tell_which_data_set_they_are(name: str, data: Path) -> None:
    s.put(data, SAMPLES[name])
    assert run("auto", data)[1].dataset == name


@pytest.mark.parametrize("name", SAMPLES)
def test_both_views_of_a_data_set_have_the_same_queries(name: str, data: Path) -> None:
    """Training examples and test collections come from one reader."""
    files = {file: content for file, content in SAMPLES[name].items() if "cross.train" not in file}
    if name == "msmarco":  # its sample judges a query that is not there, which evaluation refuses
        files["qrels.train.tsv"] = s.tsv((1, 0, 10, 1), (2, 0, 11, 1))
    if name == "trec":  # and this one judges a document that is not there
        files["qrels.301-302.txt"] = "301 0 FT-1 1\n301 0 FT-2 0\n"
    s.put(data, files)
    wanted = {line["query"] for line in run(name, data, positive_from=1)[0]}
    collections = read_collections(f"{name}:{data}", Wanted(split="train"))
    assert {query for each in collections for query in each.queries.values()} == wanted
    for each in collections:
        ids = {document.id for document in each.corpus}
        assert all(docs.keys() <= ids for docs in each.qrels.values())
        assert each.split == "train"
    assert len({each.label for each in collections}) == len(collections)


@pytest.mark.parametrize(
    ("name", "make", "split"),
    [
        ("cmteb", made.cmteb, "dev"),
        ("cmteb", made.cmteb_new, "dev"),
        ("longembed", lambda path: made.longembed(path / "passkey").parent, "test"),
        ("narrativeqa", made.narrativeqa_hub, "test"),
        ("narrativeqa", made.narrativeqa_github, "test"),
        ("training", made.training, "train"),
    ],
)
def test_sets_known_for_evaluation_make_training_examples_too(
    name: str, make: Callable[[Path], Path], split: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "folder")
    collections = read_collections(f"{name}:{path}")
    lines, _ = run(name, path, tmp_path / "out.jsonl", split=split)
    assert {line["query"] for line in lines} == {q for each in collections for q in each.queries.values()}
    texts = {document.text.strip() for each in collections for document in each.corpus}
    assert all(text in texts for line in lines for text in line["pos"] + line["neg"])


def test_every_reader_has_a_sample() -> None:
    readers = {dataset.read for dataset in CONVERTIBLE.values()}
    others = {CONVERTIBLE[name].read for name in ("cmteb", "longembed", "narrativeqa", "training")}
    assert readers == {CONVERTIBLE[name].read for name in SAMPLES} | others


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        (
            "auto",
            {"a.txt": "x"},
            "the files are like no data set that is known; name the data set: one of msmarco",
        ),
        ("auto", {"train.jsonl": [{"a": "b"}]}, "like no data set that is known"),
        ("mircal", {"a.txt": "x"}, "unknown data set 'mircal'; did you mean 'miracl'"),
        ("msmarco", {"collection.tsv": ""}, r"no queries among collection\.tsv; expected a file named like"),
        (
            "msmarco",
            {"collection.tsv": "1 x\n", "queries.train.tsv": "", "qrels.train.tsv": ""},
            "got 1 columns",
        ),
        (
            "squad",
            {"train.jsonl": [{"x": 1}]},
            "got fields 'x'; expected paragraphs, or question and context",
        ),
        ("squad", {"dev.json": "{}"}, "no questions of the split 'train'; there are dev"),
        ("hotpotqa", {"train.json": "[{"}, r"train\.json: broken JSON"),
        ("dureader-retrieval", {"cross.train.tsv": "q\t\tp\t2\n"}, r"cross\.train\.tsv:1: got the label '2'"),
        (
            "trec",
            {"topics": "<top>\n<title> x\n</top>", "qrels": "1 0 a 1\n", "d": "<DOC>"},
            "a document that does not end",
        ),
    ],
)
def test_what_cannot_be_read_is_named(name: str, files: dict[str, Any], message: str, data: Path) -> None:
    with pytest.raises(InputError, match=message):
        run(name, s.put(data, files))
    assert not (data.parent / "out.jsonl").exists()


def test_an_archive_and_a_missing_path_are_refused(data: Path) -> None:
    (data / "a.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="is an archive; unpack it"):
        run("msmarco", data / "a.tar.gz")
    with pytest.raises(DataError, match="no such file or folder"):
        run("msmarco", data / "none")


def test_blank_and_repeated_passages_are_counted(data: Path) -> None:
    rows = [
        {
            **s.LISTS[0],
            "positive_passages": [{"docid": "1", "text": " "}, *s.LISTS[0]["negative_passages"][:1] * 2],
        }
    ]
    lines, report = run("mldr", s.put(data, {"mldr-v1.0-en/train.jsonl": rows}))
    assert only(lines, "pos", "neg") == [(["Hold\nA ship has a hold."], ["Hold\nCargo lies in it."])]
    assert report.dropped.counts == {
        "blank passage": 1,
        "passage that came before": 1,
        "negative that is also a positive": 1,
    }
    assert report.dropped.first["blank passage"].endswith("train.jsonl:1: What is a holt?")


def test_a_draw_of_negatives_does_not_depend_on_how_they_come(data: Path) -> None:
    ids = [f"d{i}" for i in range(300)]
    files = {
        "collection.tsv": s.tsv(*((id_, f"text {id_}") for id_ in ["p", *ids])),
        "queries.train.tsv": s.tsv((1, "one"), (2, "two")),
        "qrels.train.tsv": s.tsv((1, 0, "p", 1), (2, 0, "p", 1)),
    }
    grouped = [(query, "p", id_) for query in (1, 2) for id_ in ids]
    mixed = [(query, "p", id_) for id_ in reversed(ids) for query in (1, 2)]
    sets = []
    for triples in (grouped, mixed):
        s.put(data, {**files, "qidpidtriples.train.full.2.tsv": s.tsv(*triples)})
        sets.append([set(line["neg"]) for line in run("msmarco", data, max_negatives=7)[0]])
    assert sets[0] == sets[1]
    assert len(sets[0][0]) == 7
    assert sets[0][0] != sets[0][1]
    assert sets[0] != [set(line["neg"]) for line in run("msmarco", data, max_negatives=7, seed=1)[0]]


def test_the_corpus_is_not_held_in_memory(data: Path) -> None:
    with (data / "collection.tsv").open("w") as file:
        file.writelines(f"{i}\t{'word ' * 100}{i}\n" for i in range(30_000))
    s.put(data, {"queries.train.tsv": s.tsv((1, "q")), "qrels.train.tsv": s.tsv((1, 0, 17, 1))})
    tracemalloc.start()
    lines, _ = run("msmarco", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines[0]["pos_ids"] == ["17"]
    assert peak < (data / "collection.tsv").stat().st_size / 4


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_the_output_is_compressed_by_its_name_and_the_same_twice(ending: str, data: Path) -> None:
    s.put(data, s.MSMARCO)
    paths = [data.parent / f"{i}{ending}" for i in (1, 2)]
    for path in paths:
        convert("msmarco", [data], path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert [example.id for _, example in read_examples(paths[0])] == ["1", "2"]
