"""What is wrong with a data set is said clearly, with file and line."""

from pathlib import Path

import pytest

from triptych.collections import evaluation
from triptych.collections.base import Wanted
from triptych.collections.catalogue import DATASETS, check, read_collections
from triptych.collections.evaluation import distinct
from triptych.collections.joined import Text
from triptych.collections.trec import read_run
from triptych.errors import DataError, InputError
from triptych.records import Place

from . import made


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("training", "mteb")])
def test_a_folder_of_another_layout_is_refused_with_the_expected_one(name: str, tmp_path: Path) -> None:
    made.write(tmp_path / "readme.txt", "nothing here")
    with pytest.raises(DataError, match="expected"):
        read_collections(f"{name}:{tmp_path}")


def test_an_unknown_name_and_an_unknown_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'mircl:.*miracl"):
        read_collections(f"mircl:{tmp_path}")
    with pytest.raises(DataError, match="cannot tell the layout; say NAME:PATH"):
        read_collections(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_collections(tmp_path / "absent")
    with pytest.raises(DataError, match="expected a folder, or a file"):
        read_collections(made.write(tmp_path / "a.csv", "x"))


def test_a_subset_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing found for fi"):
        read_collections(made.miracl(tmp_path), Wanted(("fi",)))


def test_missing_qrels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no qrels/dev.tsv; this folder has the splits test"):
        read_collections(made.beir(tmp_path / "beir"), Wanted(split="dev"))
    made.miracl(tmp_path / "miracl")
    made.write(tmp_path / "miracl/miracl-v1.0-sw/topics/topics.miracl-v1.0-sw-testA.tsv", "1\tx\n")
    with pytest.raises(
        DataError, match=r"no judgements among .*; expected a file named like qrels.miracl-v1.0-sw-testA.tsv"
    ):
        read_collections(tmp_path / "miracl", Wanted(split="testA"))
    made.cmteb(tmp_path / "cmteb")
    with pytest.raises(DataError, match="no judgements of split 'test'"):
        read_collections(tmp_path / "cmteb", Wanted(split="test"))


def test_a_judged_query_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = made.beir(tmp_path)
    made.write(folder / "qrels/test.tsv", "q1\td1\t1\nq9\td1\t1\n")
    with pytest.raises(DataError, match=r"qrels/test.tsv: query 'q9' is judged here"):
        read_collections(folder)


def test_judgements_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    folder = made.beir(tmp_path)
    made.write(folder / "qrels/test.tsv", "q1\td1\t1\nq1\td1\t1\nq1\td1\t0\n")
    with pytest.raises(DataError, match=r"test.tsv:3: .*judged twice"):
        read_collections(folder)
    made.write(folder / "qrels/test.tsv", "query-id\tcorpus-id\tscore\n")
    with pytest.raises(DataError, match="no judgement"):
        read_collections(folder)


def test_a_set_without_any_relevant_document_is_refused(tmp_path: Path) -> None:
    folder = made.beir(tmp_path)
    made.write(folder / "qrels/test.tsv", "q1\td1\t0\n")
    with pytest.raises(DataError, match="no query has a relevant document"):
        read_collections(folder)


def test_queries_without_a_relevant_document_are_counted_and_left_out(tmp_path: Path) -> None:
    folder = made.beir(tmp_path)
    made.write(folder / "qrels/test.tsv", "q1\td1\t1\nq2\td1\t0\n")
    warnings: list[str] = []
    [collection] = read_collections(folder, Wanted(warn=warnings.append))
    assert set(collection.queries) == set(collection.qrels) == {"q1"}
    assert [warning.split(": ")[1] for warning in warnings] == [
        "1 of 2 queries have no relevant document and are left out"
    ]


def test_a_query_id_that_is_there_twice_and_a_blank_query_are_refused(tmp_path: Path) -> None:
    folder = made.beir(tmp_path)
    made.lines(folder / "queries.jsonl", [{"_id": "q1", "text": "a"}, {"_id": "q1", "text": "b"}])
    with pytest.raises(DataError, match=r"queries.jsonl:2: duplicate query id 'q1'"):
        read_collections(folder)
    made.lines(folder / "queries.jsonl", [{"_id": "q1", "text": " "}])
    with pytest.raises(DataError, match=r"queries.jsonl:1: query 'q1' is blank"):
        read_collections(folder)


def test_a_document_id_that_is_there_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    folder = made.beir(tmp_path)
    made.lines(folder / "corpus.jsonl", [{"_id": f"d{n}", "text": "x"} for n in (1, 2, 3, 2)])
    [collection] = read_collections(folder)
    with pytest.raises(DataError, match=r"corpus.jsonl:4: duplicate id 'd2'"):
        list(collection.corpus)


def test_a_duplicate_early_in_a_large_corpus_is_found_before_its_end() -> None:
    given = 0

    def read():  # type: ignore[no-untyped-def]
        for number in range(100_000):
            yield Text(f"d{number % 900}", "", Place("corpus", number + 1))

    def consume() -> None:
        nonlocal given
        for _ in distinct(read):
            given += 1

    with pytest.raises(DataError, match="corpus:901: duplicate id 'd0'"):
        consume()
    assert given == evaluation._FIRST_LOOK  # pyright: ignore[reportPrivateUsage]


def test_judged_documents_that_are_missing_and_blank_documents_are_counted(tmp_path: Path) -> None:
    folder = made.beir(tmp_path / "set")
    made.lines(folder / "corpus.jsonl", [{"_id": "d1", "title": "", "text": " "}])
    warnings: list[str] = []
    check(read_collections(folder), warnings.append)
    assert warnings == [
        "set: 1 documents are blank",
        "set: 1 of 2 judged documents are not in the corpus",
    ]


@pytest.mark.parametrize(
    ("layout", "file", "content", "message"),
    [
        ("miracl", "miracl-v1.0-sw/topics/topics.miracl-v1.0-sw-dev.tsv", "3 no tab\n", "got 1 columns"),
        ("miracl", "miracl-v1.0-sw/qrels/qrels.miracl-v1.0-sw-dev.tsv", "3\t7#0\n", "got 2 columns"),
        ("mldr", "mldr-v1.0-es/test.jsonl.gz", '{"query_id": "1"}\n', "expected query_id, query, positive"),
        ("mkqa", "zh_cn.jsonl", '{"id": 1, "question": "x"}\n', "expected id, question"),
        ("longembed", "qrels.jsonl", '{"qid": 1}\n', "expected qid and doc_id"),
        ("narrativeqa_github", "qaps.csv", "document_id,set\ns1,test\n", "expected the columns"),
        ("trec", "topics.301.txt", "<top><num> 301 </top>", "has none of the fields title"),
        ("trec", "topics.301.txt", "nothing", "got 1 columns"),
        ("msmarco", "queries.dev.small.tsv", "10\ta\tb\n", "got 3 columns"),
    ],
)
def test_a_line_of_another_form_is_refused_with_its_file(
    layout: str, file: str, content: str, message: str, tmp_path: Path
) -> None:
    path = getattr(made, layout)(tmp_path)
    made.write(path / file, content)
    with pytest.raises(DataError, match=message) as error:
        read_collections(path)
    assert Path(file).name in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<DOC>\n<TEXT>x</TEXT>\n</DOC>\n", "docs.trec:1: a document without <DOCNO>"),
        ("<DOC>\n<DOC>\n</DOC>\n", "docs.trec:2: <DOC> inside the document that line 1 begins"),
        ("\n<DOC>\n<DOCNO>1</DOCNO>\n", "docs.trec:2: a document that does not end"),
    ],
)
def test_broken_trec_documents_are_refused(content: str, message: str, tmp_path: Path) -> None:
    made.trec(tmp_path)
    (tmp_path / "docs.trec.gz").unlink()
    made.write(tmp_path / "docs.trec", content)
    [collection] = read_collections(tmp_path)
    with pytest.raises(DataError, match=message):
        list(collection.corpus)


def test_psgs_lines_of_another_width_are_refused(tmp_path: Path) -> None:
    made.mkqa(tmp_path, "dpr")
    made.write(tmp_path / "psgs_w100.tsv", "id\ttext\ttitle\n1\ttext\n")
    with pytest.raises(DataError, match=r"psgs_w100.tsv:2: got 2 columns"):
        list(read_collections(tmp_path, Wanted(("en",)))[0].corpus)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 Q0 a 1 2.0\n", "run:1: got 5 columns"),
        ("1 Q0 a 1 x tag\n", "run:1: score 'x' is not a number"),
        ("1 Q0 a 1 nan tag\n", "run:1: score 'nan'; expected a finite number"),
        ("1 Q0 a 1 2 tag\n1 Q0 a 2 1 tag\n", "run:2: query '1' lists document 'a' twice"),
        ("", "run: no line in it"),
    ],
)
def test_broken_runs_are_refused(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_run(made.write(tmp_path / "run", content))
