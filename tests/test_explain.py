"""What scores are made of adds up to the scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from triptych import Encoder
from triptych.errors import InputError
from triptych.explain import Explanation, explain, explain_by_idf, tokens_of
from triptych.index.index import Index
from triptych.scores.on_numpy import head_scores
from triptych.types import Head

TEXTS = ["a retrieval model of text", "bge m3 is a model? of the world", "hello 日本 world", "", "x"]
LONG = "the world of the model " * 40


def check_sums(encoder: Encoder, query: str, texts: list[str]) -> None:
    sides = encoder.encode_query([query]), encoder.encode_document(texts)
    scores: dict[Head, np.ndarray] = {head: head_scores(*sides, head)[0] for head in encoder.heads}
    for i, found in enumerate(explain(encoder, query, texts)):
        total = sum(match.query_weight * match.document_weight for match in found.lexical)
        assert total == pytest.approx(scores["lexical"][i], abs=1e-5)
        mean = np.mean([match.similarity for match in found.tokens])
        assert mean == pytest.approx(scores["multi"][i], abs=1e-5)
        for head in encoder.heads:
            assert found.scores[head] == pytest.approx(scores[head][i], abs=1e-5)


def test_contributions_sum_and_similarities_average_to_the_scores(any_encoder: Encoder) -> None:
    check_sums(any_encoder, "what is a model of text", TEXTS)


@pytest.mark.filterwarnings("ignore:.*were cut:UserWarning")
def test_they_do_for_texts_that_are_cut(any_encoder: Encoder) -> None:
    check_sums(any_encoder, LONG, [LONG, "hello"])


@settings(max_examples=15, deadline=None)
@given(st.text("abcd 日本?.", min_size=1, max_size=40), st.text("abcd 日本?.", max_size=40))
def test_they_do_for_any_text(encoder: Encoder, query: str, text: str) -> None:
    check_sums(encoder, query, [text])


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": "mcls", "mcls_every": 2},
        {"pooling": "mean", "query_prefix": "query: ", "document_prefix": "passage: "},
        {"multi_first": True, "multi_last": False},
    ],
)
def test_they_do_for_other_poolings_prefixes_and_positions(
    folder: object, changes: dict[str, object]
) -> None:
    encoder = Encoder.from_pretrained(str(folder), device="cpu", dtype="float32", **changes)
    check_sums(encoder, "what is a model of text", TEXTS)


def test_each_partner_is_the_document_token_of_the_largest_product(encoder: Encoder) -> None:
    query, text = "a model", "the world of a model"
    left, right = encoder.encode_query([query]).multi, encoder.encode_document([text]).multi
    assert left is not None
    assert right is not None
    tokens = tokens_of(encoder, text)
    found = explain(encoder, query, [text])[0].tokens
    for i, match in enumerate(found):
        products = [float(left[0][i] @ vector) for vector in right[0]]
        best = int(np.argmax(products))
        assert match.document_token == tokens[best + 1]  # the first position has no vector
        assert match.similarity == pytest.approx(products[best], abs=1e-6)


def test_tokens_name_their_piece_word_and_kind(folder: object) -> None:
    encoder = Encoder.from_pretrained(str(folder), device="cpu", query_prefix="query: ")
    tokens = tokens_of(encoder, "hello models", encoder.config.query_prefix)
    shown = [(token.piece, token.word, token.kind) for token in tokens]
    assert shown[0] == ("<s>", "<s>", "special")
    assert shown[1:3] == [("query", "query:", "prefix"), (":", "query:", "prefix")]
    assert shown[3:6] == [("hello", "hello", "text"), ("model", "models", "text"), ("s", "models", "text")]
    assert shown[-1][2] == "special"
    assert [token.position for token in tokens] == list(range(len(tokens)))


def test_pieces_are_characters_of_the_text_for_every_kind_of_tokenizer(any_encoder: Encoder) -> None:
    text = "hello world of text"
    tokens = [token for token in tokens_of(any_encoder, text) if token.kind == "text"]
    assert "".join(token.piece for token in tokens) == text.replace(" ", "")


def test_lexical_matches_come_with_the_largest_contribution_first(encoder: Encoder) -> None:
    matches = explain(encoder, "what is a model of text", ["a text is a model of the world"])[0].lexical
    contributions = [match.contribution for match in matches]
    assert contributions == sorted(contributions, reverse=True)
    assert all(match.query_token.id == match.document_token.id for match in matches)


def test_tokens_of_the_prefix_and_special_ones_can_be_left_out_and_are_counted(folder: Path) -> None:
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32", query_prefix="query: ")
    (found,) = explain(encoder, "hello models", ["hello world"])
    assert [match.query_token.piece for match in found.text_tokens] == ["hello", "model", "s"]
    others = [match.similarity for match in found.tokens if match not in found.text_tokens]
    assert found.left_out == (len(others), pytest.approx(np.mean(others)))
    assert len(others) == 3  # "query", ":" and the end; the first position has no vector
    (found,) = explain(encoder, "", [""])
    assert found.text_tokens == ()
    assert Explanation({}).left_out == (0, 0.0)


def test_no_documents_give_no_explanations_and_a_bare_string_is_refused(encoder: Encoder) -> None:
    assert explain(encoder, "hello", []) == []
    with pytest.raises(InputError, match="list of strings"):
        explain(encoder, "hello", "world")


def test_a_word_that_the_prefix_has_too_is_explained_by_its_place_in_the_text(folder: Path) -> None:
    prefixes = {"query_prefix": "text of ", "document_prefix": "text of "}
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32", **prefixes)  # type: ignore[arg-type]
    (found,) = explain(encoder, "a model of text", ["the text of a model"])
    check_sums(encoder, "a model of text", ["the text of a model", "日本", ""])
    assert found.lexical
    for match in found.lexical:
        assert match.query_token.kind == match.document_token.kind == "text"
    (found,) = explain(encoder, "hello", ["world"])
    assert found.lexical == (), "a prefix is no word in common"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, "a", ["b"]), "encoder: got None"),
        (("small", "a", ["b"]), "encoder: got 'small'"),
        ((..., None, ["b"]), "query: got None"),
        ((..., ["a"], ["b"]), "query: got"),
        ((..., "a", None), "documents: got NoneType"),
        ((..., "a", {"b": "c"}), "documents: got dict"),
        ((..., "a", ["b", 3]), r"documents\[1\]: got int"),
        ((..., "a", "b"), "documents: got one string"),
    ],
    ids=str,
)
def test_wrong_arguments_are_errors_that_name_them(
    encoder: Encoder, arguments: tuple[Any, ...], message: str
) -> None:
    values = [encoder if value is ... else value for value in arguments]
    with pytest.raises(InputError, match=message):
        explain(*values)


def test_a_model_without_a_dense_head_is_explained(folder: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32", dense=False)
    (found,) = explain(encoder, "a model", ["a text model"])
    assert set(found.scores) == {"lexical", "multi"}


def test_the_span_of_a_token_is_where_its_piece_stands_in_the_text() -> None:
    encoder = Encoder.from_pretrained("small", device="cpu")
    for text in ("the coffee maker cools", "  القهوة  ساخنة", "😀😀 two 😀", "ﬁne  ﬂour", "日本語 の本"):
        tokens = tokens_of(encoder, text, encoder.config.document_prefix)
        spans = [token.span for token in tokens if token.span]
        assert spans == sorted(spans)
        assert len(set(spans)) == len(spans)
        covered = "".join(text[start:end] for start, end in spans)
        assert covered == "".join(text.split()), text
        for token in tokens:
            assert token.span is None or text[slice(*token.span)] == token.piece


def test_hits_of_a_search_by_rarity_are_explained_without_the_model(encoder: Encoder, tmp_path: Path) -> None:
    texts = ["a retrieval model of text", "bge m3 is a model? of the world", "hello 日本 world", "the world"]
    with Index.create(tmp_path / "an.index", encoder, engine="exact") as index:
        index.add(["a", "b", "c", "d"], texts)
    with Index.open(tmp_path / "an.index") as index:
        hits = index.search("the world of the model", lexical_queries="idf")
        found = explain_by_idf(index, "the world of the model", hits)
        having = [set(row.indices.tolist()) for row in index.vectors([*"abcd"], heads=["lexical"]).lexical]  # type: ignore[union-attr]
    assert {hit.id for hit in hits} == {*"abcd"}
    for hit, one in zip(hits, found, strict=True):
        assert one.scores == {"lexical": pytest.approx(hit.score, rel=1e-5)}
        assert one.counted == 4
        for match in one.lexical:
            known = sum(match.query_token.id in each for each in having)
            assert match.documents == known
            assert match.query_weight == pytest.approx(reference.idf(having, match.query_token.id), rel=1e-5)
            assert hit.text[slice(*match.document_token.span)] == match.document_token.piece  # type: ignore[misc]
        again = Explanation.from_json(one.to_json(), one.scores)
        assert again.counted == 4
        assert [each.documents for each in again.lexical] == [each.documents for each in one.lexical]
        assert one.to_json()["query_weights"] == {"by": "idf", "documents": 4}
