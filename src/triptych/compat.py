"""For people who come from FlagEmbedding: its `BGEM3FlagModel`, over `triptych.Encoder`.

Arguments, results and their names are those of FlagEmbedding 1.4.2; what it silently gets wrong is right here:
an unknown argument is an error (there it is swallowed), an empty list gives an empty result, padding never
counts as a token (there it has similarity 0), and pairs are scored as pairs, not as the diagonal of all with all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from triptych.encode.encoder import Encoder
from triptych.errors import InputError
from triptych.scores.on_numpy import maxsim_scores
from triptych.types import Encoded, Floats, Head, HeadWeights, Ragged

LexicalWeights = dict[str, float]
Mode = Literal["colbert", "sparse", "dense", "sparse+dense", "colbert+sparse+dense"]
MODES: tuple[Mode, ...] = ("colbert", "sparse", "dense", "sparse+dense", "colbert+sparse+dense")

_PAIRS = 256  # encoded at a time


class Output(TypedDict):
    """What `encode` gives; what was not asked for is None. For a single string the values are those of one text.

    Attributes:
        dense_vecs: float32 ``[N, D]``.
        lexical_weights: For each text token id (as a string) to weight.
        colbert_vecs: For each text float32 ``[n_i, D']``.
    """

    dense_vecs: Floats | None
    lexical_weights: list[LexicalWeights] | LexicalWeights | None
    colbert_vecs: list[Floats] | Floats | None


class BGEM3FlagModel:
    """An `Encoder` with the methods of FlagEmbedding's class of this name.

    Example:
        >>> from triptych.compat import BGEM3FlagModel
        >>> model = BGEM3FlagModel("small", use_fp16=False)
        >>> output = model.encode(["Ein Satz."], return_dense=True, return_sparse=True)
        >>> output["dense_vecs"].shape
        (1, 384)

    Args:
        model_name_or_path: A name as `Encoder.from_pretrained` takes it, or an encoder.
        use_fp16: True: half precision where the device computes in it (on a processor bfloat16);
            False: float32.
        devices: One device, such as "cuda:0"; None: a GPU if there is one. For several devices see
            `Encoder.encode_stream`.
        batch_size: Default of the methods' argument.
        query_max_length: Default length of queries; the model's own if that is less.
        passage_max_length: Default length of passages and of `encode`; the model's own if that is less.

    Attributes:
        encoder: The encoder.
    """

    def __init__(
        self,
        model_name_or_path: str | Path | Encoder,
        use_fp16: bool = True,
        *,
        devices: str | Sequence[str] | None = None,
        batch_size: int | None = None,
        query_max_length: int = 512,
        passage_max_length: int = 512,
    ) -> None:
        self.encoder = (
            model_name_or_path
            if isinstance(model_name_or_path, Encoder)
            else Encoder.from_pretrained(
                model_name_or_path, device=_one(devices), dtype="auto" if use_fp16 else "float32"
            )
        )
        self.batch_size = batch_size
        limit = self.encoder.config.max_length
        self.query_max_length = min(query_max_length, limit)
        self.passage_max_length = min(passage_max_length, limit)

    def encode(
        self,
        sentences: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
    ) -> Output:
        """Encodes texts as they are.

        Args:
            sentences: N texts, or one.
            batch_size: Texts of full length in one forward pass; None: by device. It changes no result.
            max_length: Tokens a text; None: `passage_max_length`.
            return_dense: Whether to compute `dense_vecs`.
            return_sparse: Whether to compute `lexical_weights`.
            return_colbert_vecs: Whether to compute `colbert_vecs`.

        Raises:
            InputError: If nothing is asked for, or the model cannot give it.
        """
        flags = (return_dense, return_sparse, return_colbert_vecs)
        return self._encode(sentences, "", batch_size, max_length or self.passage_max_length, flags)

    def encode_queries(
        self,
        queries: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
    ) -> Output:
        """Encodes queries, with the prefix that the model has for them (BGE-M3 has none)."""
        flags = (return_dense, return_sparse, return_colbert_vecs)
        prefix = self.encoder.config.query_prefix
        return self._encode(queries, prefix, batch_size, max_length or self.query_max_length, flags)

    def encode_corpus(
        self,
        corpus: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
    ) -> Output:
        """Encodes passages, with the prefix that the model has for them (BGE-M3 has none)."""
        flags = (return_dense, return_sparse, return_colbert_vecs)
        prefix = self.encoder.config.document_prefix
        return self._encode(corpus, prefix, batch_size, max_length or self.passage_max_length, flags)

    def compute_score(
        self,
        sentence_pairs: Sequence[Sequence[str]] | tuple[str, str],
        batch_size: int | None = None,
        max_query_length: int | None = None,
        max_passage_length: int | None = None,
        weights_for_different_modes: Sequence[float] | None = None,
    ) -> dict[Mode, list[float]] | dict[Mode, float]:
        """Scores pairs of a query and a passage.

        **Math** ``sparse+dense = (w₀·dense + w₁·sparse) / (w₀ + w₁)`` and ``colbert+sparse+dense =
        (w₀·dense + w₁·sparse + w₂·colbert) / (w₀ + w₁ + w₂)``, as FlagEmbedding 1.4.2 computes them; unlike in
        the paper and in `Encoder.score` the sums are divided by the weights'. Without weights both are 0.

        Args:
            sentence_pairs: Pairs, or one pair of strings.
            batch_size: As in `encode`.
            max_query_length: Tokens a query; None: `query_max_length`.
            max_passage_length: Tokens a passage; None: `passage_max_length`.
            weights_for_different_modes: w₀, w₁, w₂ of dense, sparse and colbert; None: (1, 1, 1).

        Returns:
            For each mode the pairs' scores in their order; for one pair its score.

        Raises:
            InputError: For something that is not pairs of strings, or bad weights.
        """
        given = cast("Sequence[Any]", sentence_pairs)
        single = len(given) == 2 and all(isinstance(part, str) for part in given)
        pairs = _pairs([given] if single else given)
        weights = HeadWeights.of(weights_for_different_modes or (1.0, 1.0, 1.0))
        scores: dict[Head, list[float]] = {"dense": [], "lexical": [], "multi": []}
        lengths = (max_query_length or self.query_max_length, max_passage_length or self.passage_max_length)
        for start in range(0, len(pairs), _PAIRS):
            left, right = self._encode_pairs(pairs[start : start + _PAIRS], batch_size, lengths)
            for head, values in _pair_scores(left, right).items():
                scores[head].extend(values)
        modes = _modes(scores, weights)
        return {mode: modes[mode][0] for mode in MODES} if single else modes

    def convert_id_to_token(
        self, lexical_weights: Mapping[str, float] | Sequence[Mapping[str, float]]
    ) -> list[LexicalWeights] | LexicalWeights:
        """Names the tokens of `lexical_weights`.

        Where two ids have the same name ("the" and " the" have), the larger weight is given.

        Returns:
            A mapping for a mapping or a list of one (as FlagEmbedding does), otherwise a list.
        """
        items = [lexical_weights] if isinstance(lexical_weights, Mapping) else list(lexical_weights)
        tokenizer = self.encoder.tokenizer.tokenizer
        named: list[LexicalWeights] = []
        for item in items:
            names: LexicalWeights = {}
            for key, weight in item.items():
                name = str(tokenizer.decode([int(key)]))
                names[name] = max(weight, names.get(name, weight))
            named.append(names)
        return named[0] if len(named) == 1 else named

    @staticmethod
    def compute_lexical_matching_score(
        lexical_weights_1: Mapping[str, float] | Sequence[Mapping[str, float]],
        lexical_weights_2: Mapping[str, float] | Sequence[Mapping[str, float]],
    ) -> float | Floats:
        """The lexical score of two mappings, or float32 ``[Q, N]`` of all pairs of two lists.

        Raises:
            InputError: If one is a mapping and the other a list.
        """
        left, right = lexical_weights_1, lexical_weights_2
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            return _shared(left, right)
        if isinstance(left, Mapping) or isinstance(right, Mapping):
            raise InputError(
                "compute_lexical_matching_score: got a mapping and a list; expected two mappings or two lists"
            )
        rows = [[_shared(one, other) for other in right] for one in left]
        return np.array(rows, dtype=np.float32).reshape(len(left), len(right))

    @staticmethod
    def colbert_score(q_reps: NDArray[Any], p_reps: NDArray[Any]) -> float:
        """The multi-vector score of a query's and a passage's `colbert_vecs`, each ``[n, D']``."""
        return float(maxsim_scores(Ragged.of([q_reps]), Ragged.of([p_reps]))[0, 0])

    def _encode(
        self,
        texts: str | Sequence[str],
        prefix: str,
        batch_size: int | None,
        max_length: int,
        flags: tuple[bool, bool, bool],
    ) -> Output:
        heads = [head for head, wanted in zip(("dense", "lexical", "multi"), flags, strict=True) if wanted]
        encoded = self._run(texts, heads, prefix, batch_size, max_length)
        lexical = None if encoded.lexical is None else list(_weights(encoded.lexical))
        multi = None if encoded.multi is None else list(encoded.multi)
        if not isinstance(texts, str):
            return Output(dense_vecs=encoded.dense, lexical_weights=lexical, colbert_vecs=multi)
        return Output(
            dense_vecs=None if encoded.dense is None else encoded.dense[0],
            lexical_weights=None if lexical is None else lexical[0],
            colbert_vecs=None if multi is None else multi[0],
        )

    def _run(
        self, texts: str | Sequence[str], heads: list[str], prefix: str, batch_size: int | None, length: int
    ) -> Encoded:
        size = batch_size or self.batch_size
        if size is not None and size < 1:
            raise InputError(f"batch_size: got {size}; expected ≥ 1")
        budget = None if size is None else size * length
        return self.encoder.encode(
            texts, outputs=heads, prefix=prefix, max_length=length, token_budget=budget
        )

    def _encode_pairs(
        self, pairs: list[tuple[str, str]], batch_size: int | None, lengths: tuple[int, int]
    ) -> tuple[Encoded, Encoded]:
        """Both sides of pairs, row by row; a text that comes again is encoded once."""
        config = self.encoder.config
        sides: list[Encoded] = []
        for side, prefix in enumerate((config.query_prefix, config.document_prefix)):
            numbers: dict[str, int] = {}
            rows = [numbers.setdefault(pair[side], len(numbers)) for pair in pairs]
            heads = ["dense", "lexical", "multi"]
            sides.append(self._run(list(numbers), heads, prefix, batch_size, lengths[side])[rows])
        return sides[0], sides[1]


def _one(devices: str | Sequence[str] | None) -> str | None:
    if devices is None or isinstance(devices, str):
        return devices
    if len(devices) != 1:
        raise InputError(
            f"devices: got {list(devices)}; expected one device here (Encoder.encode_stream takes several)"
        )
    return devices[0]


def _pairs(given: Sequence[Any]) -> list[tuple[str, str]]:
    for i, pair in enumerate(given):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise InputError(f"sentence_pairs[{i}]: got {pair!r:.80}; expected a pair of strings")
    return [(pair[0], pair[1]) for pair in given]


def _weights(lexical: sparse.csr_array) -> Iterator[LexicalWeights]:
    for start, end in zip(lexical.indptr[:-1], lexical.indptr[1:], strict=True):
        ids, weights = lexical.indices[start:end].tolist(), lexical.data[start:end].tolist()
        yield {str(number): weight for number, weight in zip(ids, weights, strict=True)}


def _shared(left: Mapping[str, float], right: Mapping[str, float]) -> float:
    return float(sum(weight * right[token] for token, weight in left.items() if token in right))


def _pair_scores(left: Encoded, right: Encoded) -> dict[Head, list[float]]:
    """The scores of row i with row i, for all i."""
    dense = np.einsum("nd,nd->n", cast(Floats, left.dense), cast(Floats, right.dense))
    product = cast(sparse.csr_array, left.lexical).multiply(cast(sparse.csr_array, right.lexical))
    lexical = np.asarray(product.sum(axis=1), dtype=np.float32).ravel()
    sides = zip(cast(Ragged, left.multi), cast(Ragged, right.multi), strict=True)
    multi = [BGEM3FlagModel.colbert_score(query, passage) for query, passage in sides]
    return {"dense": dense.tolist(), "lexical": lexical.tolist(), "multi": multi}


def _modes(scores: Mapping[Head, list[float]], weights: HeadWeights) -> dict[Mode, list[float]]:
    dense, lexical, multi = (np.array(scores[head]) for head in ("dense", "lexical", "multi"))
    two = weights.dense * dense + weights.lexical * lexical
    three = two + weights.multi * multi
    both = weights.dense + weights.lexical
    return {
        "colbert": multi.tolist(),
        "sparse": lexical.tolist(),
        "dense": dense.tolist(),
        "sparse+dense": (two / both if both else two).tolist(),
        "colbert+sparse+dense": (three / sum(weights)).tolist(),
    }
