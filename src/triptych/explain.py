"""Why a document matched a query: the words that both have, and the token that each query token met.

The parts add up to the scores: lexical contributions sum to the lexical score, and the similarities of the
query's tokens average to the multi-vector score (arXiv 2402.03216v4, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from scipy import sparse

from triptych.errors import InputError, show
from triptych.notebook import bars, html_table
from triptych.types import Encoded, Head, Hit, Ragged, check_str, check_texts

if TYPE_CHECKING:
    from triptych.encode.encoder import Encoder
    from triptych.index.index import Index
    from triptych.model.packed import Ids
    from triptych.model.tokenizer import TextTokenizer

Kind = Literal["text", "prefix", "special"]

_ENDLESS = 2**31


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an encoded text.

    Attributes:
        piece: The characters of the text that it stands for, or its name in the vocabulary.
        word: The run of characters between blanks in which it stands; equal to `piece` for whole words.
        id: Its id in the vocabulary.
        position: Its place in the encoded text, from 0, special tokens and the prefix counted.
        span: The characters of the text that `piece` is, from and to (beyond the last); None for a token that is not of
            the text.
        kind: Whether it is of the text, of the prefix that the model puts before it, or a special token. Tokens of a
            prefix have vectors, but no lexical weight (`M3Config.prefix_in_lexical`).
    """

    piece: str
    word: str
    id: int
    position: int
    kind: Kind = "text"
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class LexicalMatch:
    """A token id that has a weight on both sides.

    Attributes:
        query_token: Where the query has it (first place).
        document_token: Where the document has it (first place).
        query_weight: w_q.
        document_weight: w_d.
        documents: Of a query weight by rarity: how many documents have the token; None: the model gave the weight.
    """

    query_token: Token
    document_token: Token
    query_weight: float
    document_weight: float
    documents: int | None = None

    @property
    def contribution(self) -> float:
        """``w_q · w_d``, what it adds to the lexical score."""
        return self.query_weight * self.document_weight


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """A query token and the document token nearest to it.

    Attributes:
        query_token: The token.
        document_token: Its partner: the one whose vector has the largest inner product with the token's.
        similarity: That inner product.
    """

    query_token: Token
    document_token: Token
    similarity: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the scores of one query and one document are made of.

    Attributes:
        scores: The single scores, for the heads that the model has.
        lexical: Shared token ids, the largest contribution first.
        tokens: For each query token with a vector its partner, in the query's order; empty if the document has
            no token vectors.
        counted: Of query weights by rarity: how many documents were counted; None: the model gave the weights.
    """

    scores: dict[Head, float]
    lexical: tuple[LexicalMatch, ...] = ()
    tokens: tuple[TokenMatch, ...] = ()
    counted: int | None = None

    @property
    def text_tokens(self) -> tuple[TokenMatch, ...]:
        """Those of the query's own text, without its prefix and special tokens."""
        return tuple(match for match in self.tokens if match.query_token.kind == "text")

    @property
    def left_out(self) -> tuple[int, float]:
        """How many tokens `text_tokens` leaves out, and the mean of their similarities (0 for none).

        They count in the score like the others, and are similar to their like in every document.
        """
        found = [match.similarity for match in self.tokens if match.query_token.kind != "text"]
        return len(found), float(np.mean(found)) if found else 0.0

    def _repr_html_(self) -> str:
        scores = html_table([*self.scores], [list(self.scores.values())], "scores")
        top = max((match.contribution for match in self.lexical), default=0.0)
        words = [
            [
                match.document_token.word,
                match.query_weight,
                match.document_weight,
                *bars({"lexical": match.contribution}, {"lexical": top}, ["lexical"]),
            ]
            for match in self.lexical
        ]
        partners = [
            [
                match.query_token.piece,
                match.document_token.piece,
                *bars({"multi": match.similarity}, {"multi": 1.0}, ["multi"]),
            ]
            for match in self.text_tokens
        ]
        return (
            scores
            + html_table(
                ("word in common", "in the query", "in the document", "product"), words or [["none"]]
            )
            + html_table(("query token", "nearest document token", "similarity"), partners)
        )

    def to_json(self) -> dict[str, Any]:
        """The words and tokens that matched, as the command line and the server write them; see `text_tokens`."""
        by_idf = {} if self.counted is None else {"query_weights": {"by": "idf", "documents": self.counted}}
        return {
            **by_idf,
            "words": [
                {
                    "token": match.document_token.piece,
                    "word": match.document_token.word,
                    "id": match.document_token.id,
                    "document_span": match.document_token.span and list(match.document_token.span),
                    "query_weight": match.query_weight,
                    "document_weight": match.document_weight,
                    "score": match.contribution,
                    **({} if match.documents is None else {"documents": match.documents}),
                }
                for match in self.lexical
            ],
            "tokens": [
                {
                    "query_token": match.query_token.piece,
                    "kind": match.query_token.kind,
                    "document_token": match.document_token.piece,
                    "document_position": match.document_token.position,
                    "document_span": match.document_token.span and list(match.document_token.span),
                    "score": match.similarity,
                }
                for match in self.text_tokens
            ],
            "left_out": dict(zip(("tokens", "score"), self.left_out, strict=True)),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], scores: Mapping[Head, float]) -> Explanation:
        """The explanation of `to_json`, as far as that tells: tokens have no id and position but where it names them.

        Args:
            value: The object.
            scores: The single scores of the hit.
        """

        def token(piece: str, word: str = "", id: int = -1, position: int = -1, kind: Kind = "text") -> Token:
            return Token(piece, word or piece, id, position, kind)

        lexical: list[LexicalMatch] = []
        for each in value["words"]:
            weights = each["query_weight"], each["document_weight"]
            sides = token(each["token"]), token(each["token"], each["word"], each["id"])
            lexical.append(LexicalMatch(*sides, *weights, each.get("documents")))
        partners: list[TokenMatch] = []
        for each in value["tokens"]:
            partner = token(each["document_token"], position=each["document_position"])
            partners.append(TokenMatch(token(each["query_token"]), partner, each["score"]))
        left_out = TokenMatch(
            token("", kind="special"), token("", kind="special"), value["left_out"]["score"]
        )
        partners += [left_out] * value["left_out"]["tokens"]
        counted = value.get("query_weights", {}).get("documents")
        return cls(dict(scores), tuple(lexical), tuple(partners), counted)


def explain(encoder: Encoder, query: str, documents: Sequence[str]) -> list[Explanation]:
    """Explains the scores of documents for one query.

    The texts are encoded again, so the numbers are those of the encoder: an index that stores token vectors in
    fewer bits may give slightly other ones.

    Args:
        encoder: The model.
        query: One query.
        documents: N texts.

    Returns:
        N explanations. The contributions of one sum to its lexical score, the similarities average to its
        multi-vector score, up to rounding in float32.

    Raises:
        InputError: If `documents` is one string, or something is not a string.
    """
    from triptych.encode.encoder import Encoder

    if not isinstance(encoder, Encoder):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"encoder: got {show(encoder)}; expected an Encoder")
    check_str(query, "query")
    if isinstance(documents, str):
        raise InputError("documents: got one string; expected a list of strings")
    documents = check_texts(documents, "documents")
    if not documents:
        return []
    config = encoder.config
    left = encoder.encode_query([query])
    right = encoder.encode_document(documents)
    query_tokens = tokens_of(encoder, query, config.query_prefix)
    explained: list[Explanation] = []
    for row, text in enumerate(documents):
        tokens = tokens_of(encoder, text, config.document_prefix)
        explained.append(_explain_one(encoder, (query_tokens, left), (tokens, right[row])))
    return explained


def explain_by_idf(index: Index, query: str, hits: Sequence[Hit]) -> list[Explanation]:
    """Explains hits of a search with ``lexical_queries="idf"``, without a model.

    Args:
        index: Where they were found.
        query: The query.
        hits: N hits.

    Returns:
        N explanations, with the lexical score alone. A token that is not in a hit's text, but was in what was encoded
        with it, has the position -1.
    """
    tokenizer, table = index.tokenizer, index.query_weights
    vectors = cast("sparse.csr_array", index.vectors([hit.id for hit in hits], heads=["lexical"]).lexical)
    texts = [query, *(hit.text for hit in hits)]
    ids = tokenizer.encode(texts, max_length=_ENDLESS).ids
    named = [_locate(tokenizer, own, "", text) for own, text in zip(ids, texts, strict=True)]
    left = named[0], table.encode([query], tokenizer)
    explained: list[Explanation] = []
    for i, tokens in enumerate(named[1:]):
        row = cast("sparse.csr_array", vectors[[i]])
        others = np.setdiff1d(row.indices, [token.id for token in tokens]).tolist()
        pieces = tokenizer.pieces(others)
        elsewhere = [Token(piece, piece, id, -1) for id, piece in zip(others, pieces, strict=True)]
        matches = [
            replace(match, documents=int(table.counts[match.query_token.id]))
            for match in _lexical_matches(left, (tokens + elsewhere, row))
        ]
        score = float(sum(match.contribution for match in matches))
        explained.append(Explanation({"lexical": score}, tuple(matches), counted=table.documents))
    return explained


def tokens_of(encoder: Encoder, text: str, prefix: str = "") -> list[Token]:
    """The tokens of a text as the model reads them: with prefix and special tokens, cut to its length."""
    config = encoder.config
    every = config.mcls_every if config.pooling == "mcls" else None
    encoded = encoder.tokenizer.encode([text], prefix=prefix, max_length=config.max_length, mcls_every=every)
    return _locate(encoder.tokenizer, encoded.ids[0], prefix, text)


def _explain_one(
    encoder: Encoder, query: tuple[list[Token], Encoded], document: tuple[list[Token], Encoded]
) -> Explanation:
    (query_tokens, left), (document_tokens, right) = query, document
    scores: dict[Head, float] = {}
    if left.dense is not None and right.dense is not None:
        scores["dense"] = float(left.dense[0] @ right.dense[0])
    lexical: list[LexicalMatch] = []
    partners: list[TokenMatch] = []
    if left.lexical is not None and right.lexical is not None:
        counted = encoder.config.prefix_in_lexical
        query_side, document_side = (
            [token for token in side if counted or token.kind != "prefix"]
            for side in (query_tokens, document_tokens)
        )
        lexical = _lexical_matches((query_side, left.lexical), (document_side, right.lexical))
        scores["lexical"] = float(sum(match.contribution for match in lexical))
    if left.multi is not None and right.multi is not None:
        partners = _token_matches(
            (_with_vectors(encoder, query_tokens), left.multi),
            (_with_vectors(encoder, document_tokens), right.multi),
        )
        scores["multi"] = float(np.mean([match.similarity for match in partners])) if partners else 0.0
    return Explanation(scores, tuple(lexical), tuple(partners))


def _lexical_matches(
    query: tuple[list[Token], sparse.csr_array], document: tuple[list[Token], sparse.csr_array]
) -> list[LexicalMatch]:
    sides: list[dict[int, tuple[Token, float]]] = []
    for tokens, row in (query, document):
        first: dict[int, Token] = {}
        for token in tokens:
            first.setdefault(token.id, token)
        weights = zip(row.indices.tolist(), cast("list[float]", row.data.tolist()), strict=True)
        sides.append({int(column): (first[column], weight) for column, weight in weights})
    left, right = sides
    matches = [LexicalMatch(left[i][0], right[i][0], left[i][1], right[i][1]) for i in left if i in right]
    return sorted(matches, key=lambda match: (-match.contribution, match.query_token.position))


def _token_matches(
    query: tuple[list[Token], Ragged], document: tuple[list[Token], Ragged]
) -> list[TokenMatch]:
    (query_tokens, left), (document_tokens, right) = query, document
    if not query_tokens or not document_tokens:
        return []
    products = left[0].astype(np.float32) @ right[0].astype(np.float32).T
    best = products.argmax(axis=1)
    return [
        TokenMatch(token, document_tokens[int(partner)], float(products[i, partner]))
        for i, (token, partner) in enumerate(zip(query_tokens, best, strict=True))
    ]


def _with_vectors(encoder: Encoder, tokens: list[Token]) -> list[Token]:
    """The tokens that have a vector in the multi-vector head."""
    from triptych.model.packed import Packed, positions

    batch = Packed.of([[token.id for token in tokens]])
    counted = positions(batch, "multi", encoder.config, encoder.tokenizer.special).tolist()
    return [token for token, counts in zip(tokens, counted, strict=True) if counts]


def _locate(tokenizer: TextTokenizer, ids: Ids, prefix: str, text: str) -> list[Token]:
    """Finds the characters that each token stands for.

    The ids are those that the model reads; the tokens of the text stand among them in their order, with
    special tokens before, after and (with `mcls`) between them.
    """
    whole = prefix + text
    plain = tokenizer.backend.encode(whole, add_special_tokens=False)
    spans = plain.offsets
    names = tokenizer.pieces(ids.tolist())
    tokens: list[Token] = []
    at = 0
    for position, (number, name) in enumerate(zip(ids.tolist(), names, strict=True)):
        if position < len(tokenizer.before) or at >= len(plain.ids) or number != plain.ids[at]:
            tokens.append(Token(name, name, number, position, "special"))
            continue
        start, end = spans[at]
        if name.strip("▁ "):
            start += len(whole[start:end]) - len(whole[start:end].lstrip())
        else:  # a blank alone, for which some tokenizers give the character after it
            start = end
        end = start + len(whole[start:end].rstrip())
        piece = whole[start:end] or name
        inside = 0 < end <= len(prefix)
        place = None if inside or start < len(prefix) else (start - len(prefix), end - len(prefix))
        kind: Kind = "prefix" if inside else "text"
        tokens.append(
            Token(
                piece,
                _word(whole, start, end) or piece,
                number,
                position,
                kind,
                None if start == end else place,
            )
        )
        at += 1
    return tokens


def _word(text: str, start: int, end: int) -> str:
    """The run of characters between blanks around a span."""
    if start == end:
        return ""
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return text[start:end]
