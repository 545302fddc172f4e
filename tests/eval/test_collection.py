"""Corpora as values: digests, streams."""

from pathlib import Path

import pytest

from triptych.collections.base import Collection, Document, FileCorpus, MemoryCorpus, Ranked
from triptych.errors import DataError


def test_corpora_in_memory_of_the_same_documents_have_the_same_digest() -> None:
    made = MemoryCorpus.of({"a": "x", "b": "y"})
    assert made.digest == MemoryCorpus.of([Document("a", "x"), Document("b", "y")]).digest
    assert list(made) == list(made) == [("a", "x"), ("b", "y")]
    assert made.size == 2


@pytest.mark.parametrize(
    "other", [{"a": "xb", "": "y"}, {"b": "y", "a": "x"}, {"a": "x"}, {"ax": "", "b": "y"}]
)
def test_corpora_in_memory_of_other_documents_have_other_digests(other: dict[str, str]) -> None:
    assert MemoryCorpus.of({"a": "x", "b": "y"}).digest != MemoryCorpus.of(other).digest


def test_the_digest_of_files_depends_on_bytes_order_and_kind_but_not_on_names(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path, content in zip(paths, ("1", "2", "1"), strict=True):
        path.write_text(content)

    def digest(files: list[Path], kind: str = "k") -> str:
        return FileCorpus.of(lambda: iter(()), files, kind).digest

    assert digest(paths[:2]) == digest([paths[2], paths[1]])
    assert len({digest(paths[:2]), digest(paths[1::-1]), digest(paths[:1]), digest(paths[:2], "other")}) == 4


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl"):
        FileCorpus.of(lambda: iter(()), [tmp_path / "nothing.jsonl"], "k")


def test_a_corpus_in_files_is_read_from_the_beginning_each_time() -> None:
    corpus = FileCorpus(lambda: iter([Document("a", "x")]), "digest")
    assert list(corpus) == list(corpus) == [("a", "x")]


def test_equal_scores_are_ranked_by_id() -> None:
    ranked = Ranked.of({"b": 1.0, "c": 2.0, "a": 1.0})
    assert ranked.documents == ("c", "a", "b")
    assert ranked.scores.tolist() == [2, 1, 1]


def test_the_label_of_a_collection_names_its_subset() -> None:
    corpus = MemoryCorpus.of({})
    assert [Collection("miracl", subset, corpus, {}, {}).label for subset in ("de", "")] == [
        "miracl/de",
        "miracl",
    ]
