"""BM25 on words and on pieces, against the formula in plain loops."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import checkpoints
from triptych.collections.base import Document, MemoryCorpus
from triptych.errors import InputError, ModelError
from triptych.eval.analyzers import Words, words
from triptych.eval.baselines import BM25, Pieces, open_baseline


class Blanks:
    """Splits at blanks."""

    name = "blanks"
    facts: Mapping[str, str] = MappingProxyType({"words": "blanks"})

    def group(self, language: str) -> str:
        return language

    def split(self, texts: Sequence[str], group: str) -> list[list[str]]:
        return [text.split() for text in texts]


def slow(documents: dict[str, str], query: str, k1: float, b: float) -> dict[str, float]:
    split = {id_: text.split() for id_, text in documents.items()}
    mean = sum(map(len, split.values())) / len(split)
    scores: dict[str, float] = {}
    for id_, terms in split.items():
        counts = Counter(terms)
        for term in query.split():
            n = sum(term in other for other in split.values())
            if counts[term]:
                idf = math.log(1 + (len(split) - n + 0.5) / (n + 0.5))
                norm = k1 * (1 - b + b * len(terms) / mean)
                scores[id_] = scores.get(id_, 0.0) + idf * counts[term] / (counts[term] + norm)
    return scores


TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=6).map(" ".join)


@given(st.lists(TEXT, min_size=1, max_size=8), TEXT, st.sampled_from([(0.9, 0.4), (1.2, 0.75), (1.0, 0.0)]))
def test_scores_are_those_of_the_formula(texts: list[str], query: str, numbers: tuple[float, float]) -> None:
    documents = {f"d{number}": text for number, text in enumerate(texts)}
    expected = slow(documents, query, *numbers) if any(texts) else {}
    [ranked] = BM25(Blanks(), *numbers).rank(MemoryCorpus.of(documents), [query], [""], len(texts))
    found = dict(zip(ranked.documents, ranked.scores.tolist(), strict=True))
    assert found == pytest.approx(expected, rel=1e-5)
    assert list(ranked.scores) == sorted(ranked.scores, reverse=True)


@given(st.lists(TEXT, min_size=1, max_size=8), TEXT, st.integers(1, 4))
def test_the_first_k_are_a_prefix_of_all_and_equal_scores_go_by_id(
    texts: list[str], query: str, k: int
) -> None:
    corpus = MemoryCorpus.of({f"d{number}": text for number, text in enumerate(texts)})
    [whole], [first] = (BM25(Blanks()).rank(corpus, [query], [""], n) for n in (len(texts), k))
    assert first.documents == whole.documents[:k]
    pairs = list(zip(-whole.scores, whole.documents, strict=True))
    assert pairs == sorted(pairs)


def test_each_group_of_languages_has_an_index_of_its_own_and_queries_keep_their_order() -> None:
    corpus = MemoryCorpus.of({"1": "die Häuser", "2": "houses", "3": "the house of horrors"})
    told: list[tuple[str, int, int | None]] = []
    queries, languages = ["Haus am See", "housing", "Häuser", "zzz"], ["de", "en", "de-CH", "xx"]
    found = BM25(Words()).rank(corpus, queries, languages, 5, lambda *state: told.append(state))
    assert [sorted(ranked.documents) for ranked in found] == [["1"], ["2", "3"], ["1"], []]
    assert told[-1] == ("bm25 (words)", 4, 4)


def test_a_corpus_without_a_term_and_no_corpus_give_empty_rankings() -> None:
    for corpus in (MemoryCorpus.of({"1": "", "2": " "}), MemoryCorpus.of({})):
        [ranked] = BM25(Words()).rank(corpus, ["anything"], ["en"], 3)
        assert len(ranked) == 0


def test_words_are_letters_digits_and_marks_without_case() -> None:
    assert words("L’Été, à 20 °C: DON'T ﬁx Straße") == (
        ["l", "été", "à", "20", "c", "don", "t", "fix", "strasse"]
    )
    assert words("हिन्दी में") == ["हिन्दी", "में"]


def test_scripts_without_blanks_give_overlapping_runs() -> None:
    assert words("東京都へ行く2024年") == (["東京", "京都", "都へ", "へ行", "行く", "2024", "年"])
    assert words("ภาษา") == ["ภาษ", "าษา"]
    assert words("中") == ["中"]


def test_stems_and_frequent_words_are_the_languages_own() -> None:
    splitter = Words()
    assert splitter.split(["the runner was running"], "en") == [["runner", "run"]]
    assert splitter.split(["der Läufer lief"], splitter.group("de_AT")) == [["lauf", "lief"]]
    assert splitter.split(["the running"], splitter.group("xx")) == [["the", "running"]]
    assert splitter.group("") == splitter.group("zh") == ""


def test_every_stemmer_that_is_named_is_there() -> None:
    known = (
        "ar ca cs da de el en es et eu fa fi fr ga hi hu hy id it lt nb ne nl nn no pl pt ro ru sr sv ta tr"
    )
    assert all(Words().group(language) == language for language in known.split())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make("xlm-roberta", tmp_path_factory.mktemp("model"))


def test_pieces_are_the_models_own_without_special_tokens(model: Path) -> None:
    [found] = Pieces(model).split(["what is bge m3?"], "")
    assert "".join(found).replace("▁", " ").strip() == "what is bge m3?"
    long = "text " * (2 * checkpoints.POSITIONS)
    assert len(Pieces(model).split([long], "")[0]) >= 2 * checkpoints.POSITIONS  # nothing is cut


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer.json: cannot be read"):
        Pieces(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer.json: cannot be read"):
        Pieces(tmp_path)


def test_the_fingerprint_says_what_decides_on_the_scores(model: Path) -> None:
    marks = {
        BM25(Words()).fingerprint,
        BM25(Words(), k1=1.2).fingerprint,
        BM25(Words(), b=0.75).fingerprint,
        BM25(Pieces(model)).fingerprint,
    }
    assert len(marks) == 4
    assert BM25(Words()).fingerprint == BM25(Words()).fingerprint


@pytest.mark.parametrize(("k1", "b"), [(-1, 0.4), (0.9, 1.5), (float("nan"), 0.4)])
def test_parameters_out_of_range_are_refused(k1: float, b: float) -> None:
    with pytest.raises(InputError, match="expected k1"):
        BM25(Blanks(), k1, b)


def test_baselines_are_made_by_name(model: Path) -> None:
    assert open_baseline("bm25").name == open_baseline("bm25:words").name == "bm25 (words)"
    assert open_baseline(f"bm25:pieces={model}").name == "bm25 (pieces)"
    for wrong in ("bm26", "bm25:letters", "bm25:words=x", "st:", "lucene:x.jar", "flag:x", "st:a,b"):
        with pytest.raises(InputError, match="baseline: got"):
            open_baseline(wrong)


def test_a_stream_of_many_blocks_is_ranked_as_a_whole() -> None:
    corpus = MemoryCorpus.of(Document(f"d{n:04}", f"w{n % 7} w{n}") for n in range(1500))
    [ranked] = BM25(Blanks()).rank(corpus, ["w1444"], [""], 3)
    assert ranked.documents == ("d1444",)
    [ranked] = BM25(Blanks()).rank(corpus, ["w3"], [""], 2)
    assert ranked.documents == ("d0003", "d0010")
    assert np.all(np.diff(ranked.scores) <= 0)
