"""Small files in the published layouts."""

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def lines(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def beir(folder: Path, split: str = "test") -> Path:
    lines(
        folder / "corpus.jsonl",
        [
            {"_id": "d1", "title": "Moka", "text": "brews coffee", "metadata": {"url": "u"}},
            {"_id": "d2", "title": "", "text": "a volcano"},
            {"_id": "q1", "title": "", "text": "the query itself"},
        ],
    )
    lines(
        folder / "queries.jsonl",
        [{"_id": "q1", "text": "moka pot", "metadata": {}}, {"_id": "q2", "text": "?", "metadata": {}}],
    )
    write(folder / "qrels" / f"{split}.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    return folder


def miracl(folder: Path, language: str = "sw") -> Path:
    docs = [
        {"docid": "7#0", "title": "Moka", "text": "Chombo"},
        {"docid": "7#1", "title": "Moka", "text": "Moka ni"},
        {"docid": "12#0", "title": "Mlima", "text": "Volkeno"},
    ]
    for number, doc in ((0, docs[0]), (2, docs[1]), (10, docs[2])):
        lines(folder / f"miracl-corpus-v1.0-{language}" / f"docs-{number}.jsonl.gz", [doc])
    own = folder / f"miracl-v1.0-{language}"
    name = f"miracl-v1.0-{language}-dev.tsv"
    write(own / "topics" / f"topics.{name}", "3\tMoka ni nini?\n4\tMlima gani?\n")
    write(own / "qrels" / f"qrels.{name}", "3\tQ0\t7#0\t1\n3\tQ0\t12#0\t0\n4\tQ0\t12#0\t1\n")
    return folder


def mrtydi(folder: Path) -> Path:
    own = folder / "mrtydi-v1.1-swahili"
    docs = [{"id": "7#0", "contents": "Moka\n\nChombo"}, {"id": "12#0", "contents": "Mlima\n\nVolkeno"}]
    lines(own / "collection" / "docs.jsonl.gz", docs)
    write(own / "topic.test.tsv", "3\tMoka ni nini?\n")
    write(own / "topic.train.tsv", "9\tKitu kingine?\n")
    write(own / "qrels.test.txt", "3 Q0 7#0 1\n")
    return folder


def mrtydi_hub(folder: Path) -> Path:
    own = folder / "mrtydi-v1.1-thai"
    lines(own / "corpus.jsonl.gz", [{"docid": "7#0", "title": "ก", "text": "ข"}])
    passage = {"docid": "7#0", "title": "ก", "text": "ข"}
    record = {"query_id": "3", "query": "ค", "positive_passages": [passage], "negative_passages": []}
    lines(own / "test.jsonl.gz", [record])
    return folder


def mldr(folder: Path) -> Path:
    own = folder / "mldr-v1.0-es"
    docs = [{"docid": f"doc-es-{n}", "text": text} for n, text in ((64, "Un largo texto."), (65, "Otro."))]
    lines(own / "corpus.jsonl.gz", docs)
    record = {
        "query_id": "q-es-8",
        "query": "deidad solar",
        "positive_passages": [{"docid": "doc-es-64", "text": "Un largo texto."}],
        "negative_passages": [{"docid": "doc-es-65", "text": "Otro."}],
    }
    empty = {"query_id": "q-es-9", "query": "nada", "positive_passages": [], "negative_passages": []}
    lines(own / "test.jsonl.gz", [record, empty])
    return folder


def mkqa(folder: Path, passages: str = "beir") -> Path:
    for language, question in (("zh_cn", "谁建的?"), ("en", "who built it?")):
        records = [
            {"id": 1, "question": question, "answers": ["Éiffel", "Gustave Éiffel"]},
            {"id": 2, "question": question, "answers": []},
        ]
        lines(folder / f"{language}.jsonl", records)
    if passages == "beir":
        docs = [{"_id": "doc0", "title": "The Tower", "text": "“Built” by Éiffel — in Paris…"}]
        lines(folder / "nq" / "corpus.jsonl", docs)
    else:
        write(
            folder / "psgs_w100.tsv",
            'id\ttext\ttitle\n1\t"Built by ""Gustave"" Éiffel"\tThe Tower\n2\tOther\tRome\n',
        )
    return folder


def narrativeqa_hub(folder: Path) -> Path:
    rows = [
        {"document": {"id": "s1", "kind": "gutenberg", "text": "Call me."}, "question": {"text": "Who?"}},
        {"document": {"id": "s1", "kind": "gutenberg", "text": "Call me."}, "question": {"text": "Why?"}},
        {"document": {"id": "s2", "kind": "movie", "text": "Fade in."}, "question": {"text": "When?"}},
    ]
    parquet(folder / "data" / "test-00000-of-00002.parquet", rows[:2])
    parquet(folder / "data" / "test-00001-of-00002.parquet", rows[2:])
    return folder


def narrativeqa_github(folder: Path) -> Path:
    write(
        folder / "documents.csv",
        "document_id,set,kind,story_url\ns1,test,gutenberg,u\ns2,test,movie,u\ns3,train,movie,u\n",
    )
    header = (
        "document_id,set,question,answer1,answer2,question_tokenized,answer1_tokenized,answer2_tokenized\n"
    )
    rows = 's1,test,"Who, then?",I,Me,a,b,c\ns3,train,What?,I,Me,a,b,c\ns2,test,When?,I,Me,a,b,c\n'
    write(folder / "qaps.csv", header + rows)
    write(folder / "tmp" / "s1.content", "Call me.\n")
    write(folder / "tmp" / "s2.content", "Fade in.")
    return folder


def longembed(folder: Path) -> Path:
    lines(folder / "corpus.jsonl", [{"doc_id": "s1", "text": "Call me."}, {"doc_id": "s2", "text": "Fade."}])
    lines(folder / "queries.jsonl", [{"qid": "0", "text": "Who?"}])
    lines(folder / "qrels.jsonl", [{"qid": "0", "doc_id": "s1"}])
    return folder


def msmarco(folder: Path) -> Path:
    write(folder / "collection.tsv", '0\tThe presence of "communication"\n1\tOther\n2\tThird\n')
    write(folder / "queries.dev.small.tsv", "10\twhat is it\n11\tunjudged here\n")
    write(folder / "qrels.dev.small.tsv", "10\t0\t1\t1\n")
    write(folder / "msmarco-test2019-queries.tsv", "20\twhat else\n")
    write(folder / "2019qrels-pass.txt", "20 Q0 0 0\n20 Q0 2 3\n")
    return folder


def cmteb(folder: Path) -> Path:
    task = folder / "T2Retrieval" / "data"
    parquet(task / "corpus-00000-of-00001-8afe7b7a7eca49e3.parquet", [{"id": "p1", "text": "胆碱"}])
    parquet(task / "queries-00000-of-00001-930bf3b805a80dd9.parquet", [{"id": "q1", "text": "胆碱重要吗"}])
    judged = [{"qid": "q1", "pid": "p1", "score": 1}]
    parquet(folder / "T2Retrieval-qrels" / "data" / "dev-00000-of-00001-92ed0416056ff7e1.parquet", judged)
    return folder


def cmteb_new(folder: Path) -> Path:
    task = folder / "DuRetrieval"
    parquet(task / "corpus" / "dev-00000-of-00001.parquet", [{"_id": "p1", "title": "题", "text": "文"}])
    parquet(task / "queries" / "dev-00000-of-00001.parquet", [{"_id": "q1", "text": "问"}])
    judged = [{"query-id": "q1", "corpus-id": "p1", "score": 1.0}]
    parquet(task / "data" / "dev-00000-of-00001.parquet", judged)
    return folder


def trec(folder: Path) -> Path:
    write(
        folder / "docs.trec.gz",
        "<DOC>\n<DOCNO> FT911-3 </DOCNO>\n<HEADLINE>Moka &amp; pot</HEADLINE>\n<TEXT>\nBrews\n<P>coffee.</P>\n"
        "</TEXT>\n</DOC>\n<DOC><DOCNO>FT911-4</DOCNO><TEXT>Lava</TEXT></DOC>\n",
    )
    write(
        folder / "topics.301.txt",
        "<top>\n\n<num> Number: 301\n<title> Moka\npots\n\n<desc> Description:\nHow?\n\n<narr> Narrative:\nN\n</top>\n",
    )
    write(folder / "qrels.301.txt", "301 0 FT911-3 1\n301 0 FT911-4 0\n")
    return folder


def training(folder: Path) -> Path:
    records = [
        {"query": "moka pot", "pos": ["brews coffee"], "neg": ["lava", "a tower"]},
        {"query": "volcano", "pos": ["lava"], "neg": ["brews coffee"]},
        {"query": "moka pot", "pos": ["a coffee maker"], "neg": []},
    ]
    lines(folder / "mine.jsonl", records)
    return folder / "mine.jsonl"
