"""For people who come from FlagEmbedding: its `BGEM3FlagModel`, over `triptych.Encoder`.

Arguments, results and their names are those of FlagEmbedding 1.4.2; what it silently gets wrong is right here: an
unknown argument is an error (there it is swallowed), as is a value that cannot be honoured; an empty list gives an
empty result, padding never counts as a token (there it has similarity 0), and pairs are scored as pairs, not as the
diagonal of all with all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from triptych.encode.encoder import Encoder
from triptych.encode.stream import WorkerPool
from triptych.errors import InputError, show
from triptych.scores.on_numpy import maxsim_scores
from triptych.types import (
    HEADS,
    Encoded,
    Floats,
    Head,
    HeadWeights,
    Ragged,
    check_int,
    check_iterable,
    check_str,
    check_texts,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
        normalize_embeddings: Whether dense and token vectors have length 1.
        use_fp16: True: half precision where the device computes in it (on a processor bfloat16);
            False: float32.
        use_bf16: bfloat16, whatever `use_fp16` says.
        query_instruction_for_retrieval: Put before every query by `encode_queries`, in place of the model's prefix.
        query_instruction_format: How instruction and query are joined.
        devices: A device, such as "cuda:0", or the number of a GPU, or several of either; None: a GPU if there is one.
            On several, lists of texts are shared among worker processes that start with the first list, and the
            script must be under ``if __name__ == "__main__":``.
        pooling_method: "cls", "mean" or "mcls"; None: the model's own.
        trust_remote_code: See `Encoder.from_pretrained`.
        cache_dir: Folder for downloads; None: the Hub's own.
        colbert_dim: Width of the token vectors, as the model has it; -1: the model's own.
        batch_size: Default of the methods' argument.
        query_max_length: Default length of queries; the model's own if that is less.
        passage_max_length: Default length of passages and of `encode`; the model's own if that is less.
        return_dense: Default of the methods' argument.
        return_sparse: Default of the methods' argument.
        return_colbert_vecs: Default of the methods' argument.
        truncate_dim: Columns of dense and token vectors that the encoding methods keep; None: all.
        convert_to_numpy: Changes nothing, as there: results are arrays.
        device: Another name of `devices`.

    Attributes:
        encoder: The encoder, on the first device.
        target_devices: The devices.
        pool: The worker processes, if they run.

    Raises:
        InputError: For a value that cannot be honoured; the message names the argument.
    """

    def __init__(
        self,
        model_name_or_path: str | Path | Encoder,
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        query_instruction_format: str = "{}{}",
        devices: str | int | Sequence[str | int] | None = None,
        pooling_method: str | None = None,
        trust_remote_code: bool = False,
        cache_dir: str | Path | None = None,
        colbert_dim: int = -1,
        batch_size: int | None = None,
        query_max_length: int = 512,
        passage_max_length: int = 512,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
        truncate_dim: int | None = None,
        *,
        convert_to_numpy: bool = True,
        device: str | int | None = None,
    ) -> None:
        names = _devices(devices if device is None else device)
        settings: dict[str, Any] = {} if pooling_method is None else {"pooling": pooling_method}
        if not normalize_embeddings:
            settings["normalize"] = False
        if isinstance(model_name_or_path, Encoder):
            self.encoder = model_name_or_path
            if not normalize_embeddings and self.encoder.config.normalize:
                raise InputError(
                    "normalize_embeddings: got False and an encoder that normalizes; expected a name"
                )
        else:
            self.encoder = Encoder.from_pretrained(
                model_name_or_path,
                device=names[0] if names else None,
                dtype="bfloat16" if use_bf16 else "auto" if use_fp16 else "float32",
                cache=cache_dir,
                trust_remote_code=trust_remote_code,
                **settings,
            )
        self.target_devices = names or [str(self.encoder.device)]
        self.pool: WorkerPool | None = None
        self.normalize_embeddings, self.convert_to_numpy = normalize_embeddings, convert_to_numpy
        width = self.encoder.widths.get("multi")
        if colbert_dim not in (-1, width):
            raise InputError(
                f"colbert_dim: got {show(colbert_dim)}; expected {width}, which the model has, or -1"
            )
        self._instruct = _instruction(query_instruction_for_retrieval, query_instruction_format)
        self.batch_size = None if batch_size is None else check_int(batch_size, "batch_size")
        limit = self.encoder.config.max_length
        self.query_max_length = min(check_int(query_max_length, "query_max_length", 4), limit)
        self.passage_max_length = min(check_int(passage_max_length, "passage_max_length", 4), limit)
        self._returns = (return_dense, return_sparse, return_colbert_vecs)
        self._truncate = None if truncate_dim is None else check_int(truncate_dim, "truncate_dim")

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of transformers."""
        return self.encoder.tokenizer.tokenizer

    @property
    def model(self) -> M3Modules:
        """The modules under the names that they have there."""
        return M3Modules(self.encoder)

    def start_multi_process_pool(self, process_target_func: object = None) -> WorkerPool:
        """Starts a worker process for each device; `stop_multi_process_pool` ends them.

        Args:
            process_target_func: Not used; what the workers run is known.

        Raises:
            InputError: For a model that was made in memory.
            WorkerError: If worker processes cannot be started from here.
        """
        return self.encoder.workers(self.target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: WorkerPool) -> None:
        """Ends worker processes."""
        pool.__exit__(None, None, None)

    def stop_self_pool(self) -> None:
        """Ends the worker processes that lists of texts were shared among, if they run; they start again if needed."""
        if self.pool is not None:
            self.stop_multi_process_pool(self.pool)
            self.pool = None

    def encode_single_device(
        self,
        sentences: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
        device: str | None = None,
        *,
        convert_to_numpy: bool = True,
    ) -> Output:
        """`encode` in this process, however many devices there are.

        Raises:
            InputError: For another device than the encoder's.
        """
        if device is not None and _devices(device) != [str(self.encoder.device)]:
            raise InputError(
                f"device: got {show(device)}; expected {self.encoder.device}, where the model is"
            )
        heads = _heads(return_dense, return_sparse, return_colbert_vecs)
        encoded = self.encoder.encode(
            sentences, **self._options(heads, "", batch_size, _or(max_length, self.passage_max_length))
        )
        return self._output(encoded, single=isinstance(sentences, str))

    def encode_multi_process(
        self,
        sentences: Sequence[str],
        pool: WorkerPool,
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
        *,
        convert_to_numpy: bool = True,
    ) -> Output:
        """`encode` by the processes of `start_multi_process_pool`."""
        heads = _heads(return_dense, return_sparse, return_colbert_vecs)
        encoded = self._share(
            check_texts(sentences),
            pool,
            self._options(heads, "", batch_size, _or(max_length, self.passage_max_length)),
        )
        return self._output(encoded, single=False)

    def encode(
        self,
        sentences: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
        *,
        convert_to_numpy: bool | None = None,
    ) -> Output:
        """Encodes texts as they are.

        Args:
            sentences: N texts, or one.
            batch_size: Texts of full length in one forward pass; None: by device. It changes no result.
            max_length: Tokens per text; None: `passage_max_length`.
            return_dense: Whether to compute `dense_vecs`; None: as the constructor says.
            return_sparse: Whether to compute `lexical_weights`; None: as the constructor says.
            return_colbert_vecs: Whether to compute `colbert_vecs`; None: as the constructor says.
            convert_to_numpy: Changes nothing, as there.

        Raises:
            InputError: If nothing is asked for, or the model cannot give it.
        """
        flags = (return_dense, return_sparse, return_colbert_vecs)
        return self._encode(sentences, "", batch_size, _or(max_length, self.passage_max_length), flags)

    def encode_queries(
        self,
        queries: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
        *,
        convert_to_numpy: bool | None = None,
    ) -> Output:
        """Encodes queries, with the prefix that the model has for them (BGE-M3 has none)."""
        flags = (return_dense, return_sparse, return_colbert_vecs)
        prefix = self.encoder.config.query_prefix
        if self._instruct is not None:
            single, prefix = isinstance(queries, str), ""
            instructed = [self._instruct(query) for query in check_texts(queries, "queries")]
            queries = instructed[0] if single else instructed
        return self._encode(queries, prefix, batch_size, _or(max_length, self.query_max_length), flags)

    def encode_corpus(
        self,
        corpus: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
        *,
        convert_to_numpy: bool | None = None,
    ) -> Output:
        """Encodes passages, with the prefix that the model has for them (BGE-M3 has none)."""
        flags = (return_dense, return_sparse, return_colbert_vecs)
        prefix = self.encoder.config.document_prefix
        return self._encode(corpus, prefix, batch_size, _or(max_length, self.passage_max_length), flags)

    def compute_score(
        self,
        sentence_pairs: Iterable[Sequence[str]] | tuple[str, str],
        batch_size: int | None = None,
        max_query_length: int | None = None,
        max_passage_length: int | None = None,
        weights_for_different_modes: Sequence[float] | NDArray[Any] | None = None,
    ) -> dict[Mode, list[float]] | dict[Mode, float]:
        """Scores pairs of a query and a passage.

        **Math** ``sparse+dense = (w₀·dense + w₁·sparse) / (w₀ + w₁)`` and ``colbert+sparse+dense =
        (w₀·dense + w₁·sparse + w₂·colbert) / (w₀ + w₁ + w₂)``, as FlagEmbedding 1.4.2 computes them; unlike in
        the paper and in `Encoder.score` the sums are divided by the weights'. Without weights both are 0.

        Args:
            sentence_pairs: Any iterable of pairs, or one pair of strings.
            batch_size: As in `encode`.
            max_query_length: Tokens per query; None: `query_max_length`.
            max_passage_length: Tokens per passage; None: `passage_max_length`.
            weights_for_different_modes: w₀, w₁, w₂ of dense, sparse and colbert; None: (1, 1, 1).

        Returns:
            For each mode the pairs' scores in their order; for one pair its score.

        Raises:
            InputError: For something that is not pairs of strings, or bad weights.
        """
        pairs_given: object = sentence_pairs
        odd = isinstance(pairs_given, str | Mapping) or getattr(pairs_given, "ndim", 1) == 0
        if odd or not isinstance(pairs_given, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"sentence_pairs: got {show(sentence_pairs)}; expected pairs of strings")
        given: list[Any] = list(sentence_pairs)
        single = len(given) == 2 and all(isinstance(part, str) for part in given)
        pairs = _pairs([given] if single else given)
        weights = HeadWeights.of(
            (1.0, 1.0, 1.0)
            if weights_for_different_modes is None
            else cast("Sequence[float]", weights_for_different_modes)
        )
        scores: dict[Head, list[float]] = {"dense": [], "lexical": [], "multi": []}
        lengths = (
            _or(max_query_length, self.query_max_length),
            _or(max_passage_length, self.passage_max_length),
        )
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
        items: list[Any] = (
            [lexical_weights]
            if isinstance(lexical_weights, Mapping)
            else list(check_iterable(lexical_weights, "lexical_weights"))
        )
        tokenizer = self.encoder.tokenizer.tokenizer
        named: list[LexicalWeights] = []
        for item in items:
            names: LexicalWeights = {}
            if not isinstance(item, Mapping) or not all(str(key).isdigit() for key in item):
                raise InputError(f"lexical_weights: got {show(item)}; expected token id → weight")
            for key, weight in item.items():
                name = str(tokenizer.decode([int(key)]))
                names[name] = max(float(weight), names.get(name, float(weight)))
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
            return _lexical_score(left, right)
        if isinstance(left, Mapping) or isinstance(right, Mapping):
            raise InputError(
                "compute_lexical_matching_score: got a mapping and a list; expected two mappings or two lists"
            )
        left, right = (
            list(check_iterable(side, f"lexical_weights_{number}"))
            for number, side in ((1, left), (2, right))
        )
        if odd := [item for item in (*left, *right) if not isinstance(item, Mapping)]:
            raise InputError(
                f"compute_lexical_matching_score: got {show(odd[0])}; expected token id → weight"
            )
        rows = [[_lexical_score(one, other) for other in right] for one in left]
        return np.array(rows, dtype=np.float32).reshape(len(left), len(right))

    @staticmethod
    def colbert_score(q_reps: NDArray[Any], p_reps: NDArray[Any]) -> Score:
        """The multi-vector score of a query's and a passage's `colbert_vecs`, each ``[n, D']``.

        Raises:
            InputError: For what is not two matrices of one width.
        """
        sides = [_matrix(value, name) for value, name in ((q_reps, "q_reps"), (p_reps, "p_reps"))]
        return Score(maxsim_scores(Ragged.of([sides[0]]), Ragged.of([sides[1]]))[0, 0])

    def _encode(
        self,
        texts: str | Sequence[str],
        prefix: str,
        batch_size: int | None,
        max_length: int,
        flags: tuple[bool | None, bool | None, bool | None],
    ) -> Output:
        asked = (
            default if flag is None else flag for flag, default in zip(flags, self._returns, strict=True)
        )
        heads = _heads(*asked)
        return self._output(
            self._run(texts, heads, prefix, batch_size, max_length), single=isinstance(texts, str)
        )

    def _output(self, encoded: Encoded, *, single: bool) -> Output:
        dense = None if encoded.dense is None else self._cut(encoded.dense)
        lexical = None if encoded.lexical is None else list(_weights(encoded.lexical))
        multi = None if encoded.multi is None else [self._cut(vectors) for vectors in encoded.multi]
        if not single:
            return Output(dense_vecs=dense, lexical_weights=lexical, colbert_vecs=multi)
        return Output(
            dense_vecs=None if dense is None else dense[0],
            lexical_weights=None if lexical is None else lexical[0],
            colbert_vecs=None if multi is None else multi[0],
        )

    def _cut(self, vectors: Floats) -> Floats:
        """The first `truncate_dim` columns, with rows of length 1 again if they had it."""
        if self._truncate is None:
            return vectors
        cut = vectors[:, : self._truncate]
        if not self.encoder.config.normalize:
            return cut
        return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)

    def _run(
        self,
        texts: str | Sequence[str],
        heads: Sequence[str],
        prefix: str,
        batch_size: int | None,
        length: int,
    ) -> Encoded:
        options = self._options(heads, prefix, batch_size, length)
        if isinstance(texts, str) or len(self.target_devices) == 1:
            return self.encoder.encode(texts, **options)
        self.pool = self.pool or self.start_multi_process_pool()
        return self._share(check_texts(texts), self.pool, options)

    def _share(self, texts: list[str], pool: WorkerPool, options: Mapping[str, Any]) -> Encoded:
        """Encodes texts in worker processes, in a few pieces for each, so that none waits long for the last."""
        if not texts:
            return self.encoder.encode(texts, **options)
        size = math.ceil(len(texts) / (4 * pool.size))
        futures = [pool.submit(texts[start : start + size], options) for start in range(0, len(texts), size)]
        return Encoded.concat([pool.result(future) for future in futures])

    def _options(
        self, heads: Sequence[str], prefix: str, batch_size: int | None, length: int
    ) -> dict[str, Any]:
        """What `Encoder.encode` takes."""
        size = self.batch_size if batch_size is None else check_int(batch_size, "batch_size")
        length = check_int(length, "max_length", 4)
        budget = None if size is None else size * length
        return {"outputs": heads, "prefix": prefix, "max_length": length, "token_budget": budget}

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


class M3Modules:
    """A model as FlagEmbedding has it: `model` (the backbone), `sparse_linear`, `colbert_linear`.

    All else is asked of the `triptych.model.m3.M3Model`, such as `eval` and `parameters`.

    Args:
        encoder: Whose model it is.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._model = encoder.model
        self.tokenizer = encoder.tokenizer.tokenizer
        self.model, self.config = self._model.backbone, cast(Any, self._model.backbone).config
        self.sparse_linear, self.colbert_linear = self._model.lexical_head, self._model.multi_head

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_model":
            raise AttributeError(name)
        return getattr(self._model, name)


class Score(float):
    """A score as FlagEmbedding returns it: a number with the methods of a tensor of one element that people call."""

    def item(self) -> float:
        """The plain number."""
        return float(self)

    def numpy(self) -> NDArray[np.float32]:
        """A float32 array without dimensions."""
        return np.array(self, dtype=np.float32)

    def tolist(self) -> float:
        """The plain number."""
        return float(self)


def _or(given: int | None, usual: int) -> int:
    return usual if given is None else given


def _devices(devices: Any) -> list[str]:
    """Names of devices; none if none are given."""
    if devices is None:
        return []
    listed: list[Any] = (
        [devices] if isinstance(devices, str | int) else list(check_iterable(devices, "devices"))
    )
    if not listed:
        raise InputError("devices: got an empty list; expected one or more devices")
    return [
        f"cuda:{one}" if isinstance(one, int) and not isinstance(one, bool) else check_str(one, "devices")
        for one in listed
    ]


def _heads(*flags: bool) -> list[Head]:
    """The heads whose flags, of dense, lexical and multi, are set."""
    return [head for head, flag in zip(HEADS, flags, strict=True) if flag]


def _instruction(instruction: str | None, form: str) -> Callable[[str], str] | None:
    """What puts an instruction before a query, as FlagEmbedding does; None without an instruction."""
    if instruction is None:
        return None
    check_str(instruction, "query_instruction_for_retrieval")
    joined = check_str(form, "query_instruction_format").replace("\\n", "\n")
    if joined.replace("{}", "", 2) != joined.replace("{}", "") or joined.count("{}") != 2:
        raise InputError(f"query_instruction_format: got {form!r}; expected two {{}}, such as '{{}}{{}}'")
    return lambda query: joined.format(instruction, query)


def _matrix(value: Any, where: str) -> NDArray[np.float32]:
    try:
        matrix = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        matrix = np.zeros(0, np.float32)
    if matrix.ndim != 2:
        raise InputError(f"{where}: got {show(value)}; expected a matrix, one row per token")
    return matrix


def _pairs(given: Sequence[Any]) -> list[tuple[str, str]]:
    for i, pair in enumerate(given):
        good = isinstance(pair, Sequence | np.ndarray) and not isinstance(pair, str) and len(pair) == 2
        if not good or not all(isinstance(part, str) for part in pair):
            raise InputError(f"sentence_pairs[{i}]: got {show(pair)}; expected a pair of strings")
    return [(pair[0], pair[1]) for pair in given]


def _weights(lexical: sparse.csr_array) -> Iterator[LexicalWeights]:
    for start, end in zip(lexical.indptr[:-1], lexical.indptr[1:], strict=True):
        ids, weights = lexical.indices[start:end].tolist(), lexical.data[start:end].tolist()
        yield {str(number): weight for number, weight in zip(ids, weights, strict=True)}


def _lexical_score(left: Mapping[str, float], right: Mapping[str, float]) -> float:
    return float(sum(weight * right[token] for token, weight in left.items() if token in right))


def _pair_scores(left: Encoded, right: Encoded) -> dict[Head, list[float]]:
    """The scores of row i with row i, for all i."""
    dense = np.einsum("nd,nd->n", cast(Floats, left.dense), cast(Floats, right.dense))
    product = cast(sparse.csr_array, left.lexical).multiply(cast(sparse.csr_array, right.lexical))
    lexical = np.asarray(product.sum(axis=1), dtype=np.float32).ravel()
    sides = zip(cast(Ragged, left.multi), cast(Ragged, right.multi), strict=True)
    multi = [float(BGEM3FlagModel.colbert_score(query, passage)) for query, passage in sides]
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
