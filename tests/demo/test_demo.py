"""The demo corpus: what the demo and its readers rely on."""

from collections import Counter
from importlib.resources import files

from triptych.demo import CORPUS, QUERIES, load_corpus, load_queries


def test_the_demo_corpus_is_under_a_megabyte_and_names_its_sources() -> None:
    folder = files("triptych.demo")
    assert sum(len((folder / name).read_bytes()) for name in (CORPUS, QUERIES)) < 1_000_000
    notice = (folder / "SOURCES.txt").read_text(encoding="utf-8")
    sources = {document.metadata["source"] for document in load_corpus()}
    assert all(f'"{name}"' in notice or f"{name} (source of the same name)" in notice for name in sources)


def test_the_demo_corpus_has_hundreds_of_passages_in_at_least_twelve_languages() -> None:
    corpus = load_corpus()
    languages = Counter(document.metadata["lang"] for document in corpus)
    assert 400 <= len(corpus) <= 800
    assert len(languages) >= 12
    assert min(languages.values()) >= 5
    assert max(languages.values()) < len(corpus) / 8


def test_demo_passages_differ_and_are_of_readable_length() -> None:
    corpus = load_corpus()
    assert len({document.id for document in corpus}) == len(corpus)
    assert len({document.text for document in corpus}) == len(corpus)
    for document in corpus:
        dense = document.metadata["lang"] in ("zh", "ja", "ko")
        assert (65 if dense else 180) <= len(document.text) <= 900, document.id
        assert set(document.metadata) == {"lang", "source", "topic"}
        assert document.id.split(":")[1] == document.metadata["lang"]


def test_each_demo_query_has_its_answers_in_the_corpus_and_says_whether_it_crosses_languages() -> None:
    languages = {document.id: document.metadata["lang"] for document in load_corpus()}
    queries = load_queries()
    assert 12 <= len(queries) <= 16
    assert len({query.id for query in queries}) == len({query.text for query in queries}) == len(queries)
    for query in queries:
        relevant = query.metadata["relevant"]
        assert relevant
        assert len(set(relevant)) == len(relevant)
        found = {languages[id_] for id_ in relevant}  # a KeyError is an id that is not there
        assert query.metadata["cross_lingual"] == (query.metadata["lang"] not in found)
    assert sum(query.metadata["cross_lingual"] for query in queries) >= 4
    assert len({query.metadata["lang"] for query in queries}) >= 8


def test_the_answers_of_a_demo_query_are_all_versions_of_its_topics() -> None:
    corpus = load_corpus()
    topics = {document.id: document.metadata["topic"] for document in corpus}
    for query in load_queries():
        relevant = set(query.metadata["relevant"])
        wanted = {topics[id_] for id_ in relevant}
        assert relevant == {id_ for id_, topic in topics.items() if topic in wanted}
