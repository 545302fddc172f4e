"""`Encoder`: texts in, three representations out.

tokenise once → sort by length → batches by a token budget → one forward for all heads → the callers' order.
"""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from triptych.config import M3Config
from triptych.encode import late, stream
from triptych.encode.pieces import TextPieces
from triptych.errors import InputError, show
from triptych.model import checkpoint as layouts
from triptych.model import hub
from triptych.model.assembly import Assembly
from triptych.model.backbone import Dtype, device_of, dtype_of
from triptych.model.checkpoint import Checkpoint
from triptych.model.inference import Engine
from triptych.model.m3 import M3Model
from triptych.model.packed import Ids, Packed, batches, usual_budget
from triptych.model.single import OneText
from triptych.model.tokenizer import TextTokenizer, Tokenized
from triptych.notebook import NotebookProgress, in_notebook
from triptych.scores import on_numpy as scores
from triptych.types import (
    Encoded,
    Floats,
    Head,
    HeadWeights,
    Progress,
    Spans,
    check_callable,
    check_heads,
    check_int,
    check_iterable,
    check_path,
    check_str,
    check_texts,
    chunked,
)


class TruncationWarning(UserWarning):
    """Some texts were longer than the model reads and were cut."""


class ForkWarning(UserWarning):
    """An encoder runs in a forked process, on one thread."""


@dataclass(frozen=True, slots=True)
class RankedText:
    """A text's place in a ranking.

    Attributes:
        index: Its number in what was ranked.
        score: The weighted sum.
        scores: The single scores.
    """

    index: int
    score: float
    scores: Mapping[Head, float]


class Encoder:
    """A model on a device, with its tokenizer.

    In bfloat16, float16 and int8 a text's vectors depend a little on the texts that it is encoded with, since other
    shapes are summed in another order: dense vectors differ by up to 2e-3, token vectors by up to 7e-3. With
    ``dtype="float32"`` the differences are below 2e-6; encoded one at a time (``token_budget=1``), or in the same
    batches again, texts have bit-equal vectors in every type.

    Example:
        >>> from triptych import Encoder
        >>> encoder = Encoder.from_pretrained("small")
        >>> encoder.encode(["Ein Satz.", "Une phrase."]).dense.shape
        (2, 384)

    Args:
        checkpoint: Model and tokenizer.
        source: Name or folder from which they came, "" if they were made in memory.
        device: Such as "cpu", "cuda", "cuda:1", "mps"; None: a GPU if there is one.
        dtype: Type of the backbone's arithmetic. "auto": bfloat16 where the device computes in it, otherwise
            float32. The last normalisation and the lexical head are float32 in any case. "int8": 8-bit products
            on a processor that has them, otherwise as "bfloat16"; `describe` says which. None: the type that the
            model has.
        inference_engine: Whether the weights are given to the inference engine, which is faster and has no
            gradients; `release_model` takes them back. Needs a `dtype`.

    Attributes:
        source: See above.
        tokenizer: The model's tokenizer.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        source: str = "",
        device: str | torch.device | None = None,
        dtype: Dtype | None = "auto",
        inference_engine: bool = False,
    ) -> None:
        if not isinstance(checkpoint, Checkpoint):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"checkpoint: got {show(checkpoint)}; expected a Checkpoint (Encoder.from_pretrained takes a name)"
            )
        _use_one_thread_after_fork()
        self.source = check_str(source, "source")
        self.device = device_of(device)
        # What workers load and `save_pretrained` reads again: of a Hub name, the revision that was fetched.
        self._folder: Path | None = None
        self._trusted = False
        self.dtype = dtype_of(dtype, self.device) if dtype is not None else None
        self._int8 = dtype == "int8"
        self.tokenizer: TextTokenizer = checkpoint.tokenizer
        weights = checkpoint.model.stored or checkpoint.model.state_dict()
        self.parameters = sum(math.prod(tensor.shape) for tensor in weights.values())
        # Of weights that stay as they are stored it is made when it is asked for.
        self._fingerprint = checkpoint.fingerprint if checkpoint.model.stored is None else None
        self._checksum: str | None = None  # of the weights when the model was handed out
        self._model: M3Model = checkpoint.model.to(self.device, self.dtype)
        self._single: OneText | None = None
        self._engine_note = "the encoder was made without an inference engine: its weights may still change"
        if inference_engine and self.dtype is not None:
            self._start_engine()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "small",
        *,
        device: str | torch.device | None = None,
        dtype: Dtype | None = "auto",
        revision: str | None = None,
        cache: str | Path | None = None,
        inference_engine: bool = True,
        trust_remote_code: bool = False,
        **settings: Any,
    ) -> Encoder:
        """Loads a model.

        Args:
            name: "small" (bundled), a local folder in any of the layouts of `triptych.model.checkpoint`, or a
                Hub name such as "BAAI/bge-m3".
            device: See `Encoder`.
            dtype: See `Encoder`.
            revision: Branch, tag or commit on the Hub.
            cache: Folder for downloads; None: the Hub's own.
            inference_engine: See `Encoder`; False, or `dtype` None: to train the model.
            trust_remote_code: Whether Python files of the model's folder may run. It is never asked.
            settings: Fields of `M3Config` to change, such as ``pooling="mcls"`` or ``max_length=512``.

        Raises:
            InputError: For a device that is not there, or a bad argument; before the model is loaded.
            ModelError: If the model cannot be found, fetched or read; the message says what to do.
        """
        _use_one_thread_after_fork()
        chosen = device_of(device)
        if dtype is not None:
            dtype_of(dtype, chosen)
        folder = hub.resolve(name, revision=revision, cache=cache)
        checkpoint = layouts.load(
            folder,
            trust_remote_code=bool(trust_remote_code),
            for_engine=inference_engine and dtype is not None,
        )
        if settings:
            checkpoint = layouts.reconfigured(checkpoint, settings)
        # A relative path would mean another folder after a change of the working directory.
        source = str(folder) if Path(name).is_dir() and str(name) not in hub.BUNDLED else str(name)
        encoder = cls(
            checkpoint, source=source, device=chosen, dtype=dtype, inference_engine=inference_engine
        )
        encoder._folder, encoder._trusted = folder, bool(trust_remote_code)
        layouts.release_memory()
        return encoder

    @classmethod
    def from_backbone(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        seed: int = 0,
        trust_remote_code: bool = False,
        **settings: Any,
    ) -> Encoder:
        """A plain encoder, such as "FacebookAI/xlm-roberta-base", with new heads: where training starts.

        Args:
            name: Local folder or Hub name.
            device: See `Encoder`.
            seed: Of the heads' random weights.
            trust_remote_code: See `from_pretrained`.
            settings: Fields of `M3Config`, such as ``multi_dim=128``.
        """
        seed, chosen = check_int(seed, "seed", 0, 2**63 - 1), device_of(device)
        folder = hub.resolve(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            checkpoint = layouts.from_backbone(folder, trust_remote_code=bool(trust_remote_code), **settings)
        return cls(checkpoint, device=chosen, dtype="float32")

    def __repr__(self) -> str:
        widths = ", ".join(f"{head} {width}" for head, width in self.widths.items())
        return f"Encoder({self.source or 'made in memory'!r}: {widths}; {self._precision} on {self.device})"

    @property
    def model(self) -> M3Model:
        """The model as a module.

        While the inference engine holds its linear weights they are empty here and only passes without gradients
        run: `release_model` gives the whole model. What is changed in it changes the `fingerprint`.
        """
        if self._model.stored is not None:
            self._fingerprint = self.fingerprint
            self._model.make_backbone()
            self._model.to(self.device, self.dtype)
            self._start_engine()
        self._checksum = self._checksum or self._model.checksum()
        return self._model

    def release_model(self) -> M3Model:
        """The model as an ordinary module with all its weights, to train, change or take apart.

        The inference engine, if there is one, returns the weights and is gone; encoding then runs the module
        itself, which is slower on a processor.
        """
        if self.model.engine is not None:
            self._fingerprint, self._checksum = self.fingerprint, None
            cast(Engine, self._model.engine).give_back()
            self._model.engine = self._single = None
            self._engine_note = "release_model was called, so the weights may change"
        return self.model

    def _start_engine(self) -> None:
        self._model.engine, self._engine_note = Engine.of(
            self._model.backbone, self.device, cast(torch.dtype, self.dtype), int8=self._int8
        )
        self._single = OneText.of(self._model)

    @property
    def fingerprint(self) -> str:
        """Hex digest of weights (as stored, whatever `dtype`), tokenizer and configuration.

        It follows changes of a model that was handed out by `model` or `release_model`.
        """
        if self._fingerprint is None:
            self._fingerprint = Checkpoint(self._model, self.tokenizer).fingerprint
        if not self._is_changed:
            return self._fingerprint
        now = Checkpoint(self._model, self.tokenizer).fingerprint
        # That digest samples large tensors; a change elsewhere must still make another model.
        return (
            now if now != self._fingerprint else self._model.fingerprint({"checksum": self._model.checksum()})
        )

    @property
    def _is_changed(self) -> bool:
        """Whether weights or configuration differ from what was loaded."""
        return self._checksum is not None and self._model.checksum() != self._checksum

    def describe(self) -> dict[str, str]:
        """How texts are run through the model here: device, dtype, engine, kernels, and why so."""
        engine = self._model.engine
        return {
            "device": str(self.device),
            "dtype": self._precision,
            "engine": "packed" if self._model.packs else "padded",
            "kernels": engine.kernels.name if engine is not None else "transformers",
            "why": self._engine_note,
        }

    @property
    def _precision(self) -> str:
        """The `dtype` that gives this arithmetic."""
        if self._int8:
            return "int8"
        return str(self.dtype or cast(Any, self._model.backbone).dtype).removeprefix("torch.")

    @property
    def config(self) -> M3Config:
        """The model's configuration."""
        return self._model.config

    @property
    def widths(self) -> Mapping[Head, int]:
        """Columns of each head that the model has."""
        return self._model.widths

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that the model has."""
        return self._model.heads

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        outputs: str | Sequence[str] | None = None,
        prefix: str = "",
        max_length: int | None = None,
        token_budget: int | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
        show_progress_bar: bool | None = False,
    ) -> Encoded:
        """Encodes texts as they are, without the model's prefixes.

        Args:
            texts: N strings: any ordered iterable, or a column of a table; one string counts as a list of one.
            outputs: Heads to compute, among "dense", "lexical", "multi"; None: all that the model has.
            prefix: Put before every text. Its tokens have no lexical weight, unless the configuration says so.
            max_length: Maximum tokens per text; None: what the model reads. Longer texts are cut, and one
                `TruncationWarning` says how many.
            token_budget: Tokens of one forward pass; None: by device. Results differ by
                rounding alone.
            batch_size: Texts of one forward pass, at most, as sentence-transformers has it; None: as many as the
                token budget allows, which is faster for short texts and needs less memory for long ones.
            progress: Called with ("encoding", texts done, N).
            show_progress_bar: Whether a bar is drawn on standard error.

        Returns:
            An `Encoded` of N texts in their order. The empty string is encoded as its special tokens alone.

        Raises:
            InputError: For an unknown or absent head, something that is not a string, or a bad length.
        """
        with _progress_bar(progress) if show_progress_bar else nullcontext(progress) as draw:
            start = self._prepare(
                texts,
                cut=self._overlaps,
                outputs=outputs,
                prefix=prefix,
                max_length=max_length,
                token_budget=token_budget,
                batch_size=batch_size,
                progress=draw,
            )
            return start()()

    def _begin(self, texts: str | Iterable[str], **options: Any) -> Callable[[], Encoded]:
        """`encode` up to the launches; the result waits for the vectors."""
        return self._prepare(texts, **options)()

    def _prepare(
        self, texts: str | Iterable[str], *, cut: bool = False, **options: Any
    ) -> Callable[[], Callable[[], Encoded]]:
        """`encode` up to the token ids, of the first texts at least; the result hands them to the device.

        What that gives waits for the vectors.
        """
        _use_one_thread_after_fork()
        batch_size = options.pop("batch_size", None)
        most = None if batch_size is None else check_int(batch_size, "batch_size")
        heads, prefix, length, budget, progress = self._check_options(**options)
        listed = check_texts(texts)
        tokenize = partial(
            self.tokenizer.encode, prefix=prefix, max_length=length, mcls_every=self._mcls_every
        )
        pieces = TextPieces(listed, tokenize, cut=cut)
        prefix_ids = self.tokenizer.prefix_ids(prefix, self._mcls_every)
        return partial(self._start, pieces, heads, prefix_ids, length, budget, progress, most)

    def _start(
        self,
        pieces: TextPieces,
        heads: Sequence[Head],
        prefix: tuple[int, ...],
        max_length: int,
        budget: int | None,
        progress: Progress | None,
        most: int | None,
    ) -> Callable[[], Encoded]:
        """Runs texts through the model, longest first in batches of a token budget, one forward for all heads.

        A GPU is then still at work; the result waits for it.
        """
        model, total, done = self._model, len(pieces), 0
        if progress is not None:
            progress("encoding", done, total)
        if total == 1 and self._single is not None and self._single.takes(pieces.found[0]):
            encoded = self._single(pieces.found[0], heads, prefix)
            if progress is not None:
                progress("encoding", 1, 1)
            _warn_of_cut(pieces, max_length)
            return lambda: encoded
        if total == 1 and self.device.type == "cpu":  # nothing to put in order, and no device to wait for
            batch = Packed.of(pieces.found, self.device, prefix)
            with torch.inference_mode():
                reps = model(batch, heads)
            encoded = reps.to_encoded(self.widths.get("lexical", 0))
            if progress is not None:
                progress("encoding", 1, 1)
            _warn_of_cut(pieces, max_length)
            return lambda: encoded
        assembly = Assembly(model, heads, total, pieces.all, ahead=self._overlaps)
        budget = budget or self.token_budget
        with pieces:
            for numbers in pieces:
                for rows in self.passes([pieces.found[i] for i in numbers], budget, most):
                    texts = numbers[rows]
                    batch = Packed.of([pieces.found[i] for i in texts], self.device, prefix)
                    with torch.inference_mode():
                        assembly.add(texts, model(batch, heads))
                    done += len(texts)
                    if progress is not None:
                        progress("encoding", done, total)
        _warn_of_cut(pieces, max_length)
        return assembly.result

    def tokenize(
        self,
        texts: str | Iterable[str],
        *,
        prefix: str = "",
        max_length: int | None = None,
        keep_end: bool = False,
    ) -> Tokenized:
        """The token ids that `encode` reads, special tokens included, and how many texts were cut.

        Args:
            texts: See `encode`.
            prefix: See `encode`.
            max_length: See `encode`.
            keep_end: Whether texts that are too long lose their beginning, prefix included, instead of their end.
        """
        _, prefix, length, _, _ = self._check_options(prefix=prefix, max_length=max_length)
        return self.tokenizer.encode(
            check_texts(texts),
            prefix=prefix,
            max_length=length,
            mcls_every=self._mcls_every,
            keep_end=keep_end,
        )

    def passes(
        self, ids: Sequence[Ids], token_budget: int | None = None, batch_size: int | None = None
    ) -> list[NDArray[np.int64]]:
        """Which texts go through the model together: the numbers of those of each pass, the longest first.

        Args:
            ids: Token ids of N texts.
            token_budget: See `encode`.
            batch_size: See `encode`.
        """
        lengths = np.array([len(text) for text in ids], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        budget = token_budget or self.token_budget
        parts = batches(lengths[order], budget, padded=not self._model.packs, most=batch_size)
        return [order[rows] for rows in parts]

    @property
    def token_budget(self) -> int:
        """Tokens of one forward pass, if nothing else is said."""
        return usual_budget(self._model, self.device)

    def encode_ids(
        self,
        ids: Sequence[Ids],
        *,
        outputs: str | Sequence[str] | None = None,
        prefix: str = "",
        token_budget: int | None = None,
    ) -> Encoded:
        """The second half of `encode`, for texts that `tokenize` has read.

        Args:
            ids: Token ids of N texts, special tokens included.
            outputs: See `encode`.
            prefix: The prefix with which they were tokenised.
            token_budget: See `encode`.

        Returns:
            What `encode` gives for the texts.
        """
        heads, prefix, _, budget, _ = self._check_options(
            outputs=outputs, prefix=prefix, token_budget=token_budget
        )
        prefix_ids, length = self.tokenizer.prefix_ids(prefix, self._mcls_every), self.config.max_length
        return self._start(TextPieces.of(ids), heads, prefix_ids, length, budget, None, None)()

    def encode_query(self, texts: str | Iterable[str], **options: Any) -> Encoded:
        """Encodes queries, with the model's query prefix. Options as in `encode`."""
        return self.encode(texts, **cast("dict[str, Any]", {"prefix": self.config.query_prefix, **options}))

    def encode_document(self, texts: str | Iterable[str], **options: Any) -> Encoded:
        """Encodes documents, with the model's document prefix. Options as in `encode`."""
        return self.encode(
            texts, **cast("dict[str, Any]", {"prefix": self.config.document_prefix, **options})
        )

    def token_spans(self, texts: str | Iterable[str]) -> list[Spans]:
        """Where the tokens of texts stand, uncut and without special tokens.

        Returns:
            For each text int64 ``[T, 2]``: the first character of each token and the one after its last.
        """
        return [places for _, places in self.tokenizer.spans(check_texts(texts))]

    def encode_spans(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[tuple[int, int]]],
        *,
        outputs: str | Sequence[str] | None = None,
    ) -> Encoded:
        """Encodes parts of documents, each as the pass over the whole document sees it (late chunking).

        A document that is longer than the model reads is seen through several windows. The dense vector of a part is
        the mean of its tokens' states; a model that was trained with another pooling has not learned that.

        Args:
            texts: N documents.
            spans: For each the parts, in order: first character and the one after the last.
            outputs: As for `encode`.

        Returns:
            The parts of the first document, then those of the second …

        Raises:
            InputError: For a part with more tokens than the model reads.
        """
        heads, prefix, length, budget, _ = self._check_options(
            outputs=outputs, prefix=self.config.document_prefix
        )
        windows = late.windows_of(self.tokenizer, check_texts(texts), spans, prefix, length)
        return late.encode_windows(
            self._model, windows, heads, budget or usual_budget(self._model, self.device), self.device
        )

    def encode_stream(
        self,
        texts: Iterable[str],
        *,
        block: int = 1024,
        folder: str | Path | None = None,
        devices: Sequence[str] | None = None,
        shard: tuple[int, int] | None = None,
        outputs: str | Sequence[str] | None = None,
        prefix: str | None = None,
        max_length: int | None = None,
        token_budget: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Encoded]:
        """Encodes any number of documents block by block; never holds the corpus in memory.

        On a GPU the next blocks are read, tokenised and computed while one's vectors are brought into their order.

        Args:
            texts: Any iterable of strings.
            block: Texts in a block.
            folder: Where each block is written before it is given out. What an earlier, interrupted run of the
                same texts and the same model left there is read back instead of encoded again.
            devices: Encode with one worker process for each, such as ("cuda:0", "cuda:1"); None: here.
            shard: Which of how many parts to encode, from 0, for several machines with one `folder`: (1, 4) takes
                blocks 1, 5, 9 … of the same texts. None: all.
            outputs: See `encode`.
            prefix: Put before every text; None: the model's prefix of documents.
            max_length: See `encode`.
            token_budget: See `encode`.
            progress: Called with ("encoding", texts done, None) before each block is given out.

        Returns:
            An iterator of one `Encoded` for each block, in order.

        Raises:
            InputError: For a bad argument, or if `folder` holds blocks of other texts, options or another model.
            WorkerError: If a worker dies.
        """
        if isinstance(texts, str):
            raise InputError("texts: got one string; expected an iterable of strings")
        source, block = check_iterable(texts), check_int(block, "block")
        options: dict[str, Any] = {
            "prefix": self.config.document_prefix if prefix is None else prefix,
            "outputs": self.heads if outputs is None else outputs,
        }
        # Only what was given: the facts of a stored block are compared word by word.
        given = {"max_length": max_length, "token_budget": token_budget}
        options |= {name: value for name, value in given.items() if value is not None}
        options["outputs"] = self._check_options(**options, progress=progress)[0]
        store = None
        if folder is not None:
            store = stream.Store(check_path(folder, "folder"), self._facts(block, options))
        part, parts = (0, 1) if shard is None else shard
        parts = check_int(parts, "shard")
        part = check_int(part, "shard", 0, parts - 1)
        pool = None if devices is None else self.workers(devices)
        blocks = islice(chunked(source, block), part, None, parts)
        return self._stream(blocks, options, store, pool, progress, count(part, parts))

    def _stream(
        self,
        blocks: Iterator[list[str]],
        options: dict[str, Any],
        store: stream.Store | None,
        pool: stream.WorkerPool | None,
        progress: Progress | None,
        numbers: Iterable[int],
    ) -> Iterator[Encoded]:
        with ExitStack() as stack:
            if pool is not None:
                stack.enter_context(pool)
                parts = stream.encode_blocks(
                    blocks,
                    lambda texts: partial(pool.result, pool.submit(texts, options)),
                    store,
                    ahead=3 * pool.size - 1,
                    numbers=numbers,
                )
            elif self._overlaps:
                thread = stack.enter_context(ThreadPoolExecutor(1))
                start = stream.prepare_ahead(partial(self._prepare, **options), thread)
                parts = stream.encode_blocks(blocks, start, store, ahead=2, numbers=numbers)
            else:
                parts = stream.encode_blocks(
                    blocks, lambda texts: partial(self.encode, texts, **options), store, numbers=numbers
                )
            yield from stream.count_texts(parts, progress)

    def _facts(self, block: int, options: Mapping[str, Any]) -> dict[str, Any]:
        """What determines the vectors of a stored block."""
        facts = {"model": self.fingerprint, "dtype": self._precision, "block": block, **options}
        facts.pop("token_budget", None)
        if options["prefix"] and "lexical" in options["outputs"] and not self.config.prefix_in_lexical:
            facts["prefix_in_lexical"] = False  # blocks of earlier versions have it
        return facts

    def workers(self, devices: Sequence[str]) -> stream.WorkerPool:
        """Worker processes that hold this model, one per device; use it as a context manager.

        The script that calls this is imported by the workers, so it must do so under
        ``if __name__ == "__main__":``.

        Raises:
            InputError: For no devices, or an unknown one; or if the model was made or changed in memory: save it
                first, so that workers can load it.
            WorkerError: If worker processes cannot be started from here.
        """
        names = [] if isinstance(devices, str) else list(check_iterable(devices, "devices"))
        if not names:
            raise InputError(f"devices: got {show(devices)}; expected a list of one or more devices")
        for name in names:
            device_of(check_str(name, "device"))
        return stream.WorkerPool(partial(_begin_on, self._recipe("workers"), _threads_each(names)), names)

    def _recipe(self, what: str) -> dict[str, Any]:
        """How to load this encoder again in another process, but for the device."""
        if self._folder is None or self._is_changed:
            made = "made in memory" if self._folder is None else "changed after it was loaded"
            raise InputError(
                f"{what}: this encoder's model was {made}; save_pretrained it and load it from there"
            )
        config = self.config.to_dict()
        return {
            "name": self._folder,
            "source": self.source,
            "dtype": self._precision,
            "inference_engine": self._model.engine is not None,
            "trust_remote_code": self._trusted,
            "settings": {key: config[key] for key in config if key != "layout"},
        }

    def __reduce__(self) -> tuple[Callable[..., Encoder], tuple[Any, ...]]:
        """Pickled, an encoder is the place of its model: unpickling loads the model again."""
        return _load_again, (self._recipe("pickle"), str(self.device))

    def score(
        self,
        queries: str | Iterable[str],
        documents: str | Iterable[str],
        weights: HeadWeights | Sequence[float] | Mapping[str, float] | None = None,
    ) -> Floats:
        """The exact combined score of every query with every document.

        Args:
            queries: Q strings.
            documents: N strings.
            weights: Weights of the three scores; heads with weight 0 are not computed.

        Returns:
            float32 ``[Q, N]``.
        """
        weights = HeadWeights.default(self.heads) if weights is None else HeadWeights.of(weights)
        asked, listed = check_texts(queries, "queries"), check_texts(documents, "documents")
        sides = (
            self.encode_query(asked, outputs=weights.heads),
            self.encode_document(listed, outputs=weights.heads),
        )
        single: dict[Head, Floats] = {head: scores.head_scores(*sides, head) for head in weights.heads}
        return scores.combine(single, weights, sides[0])

    def rerank(
        self,
        query: str,
        texts: str | Iterable[str],
        k: int | None = None,
        weights: HeadWeights | Sequence[float] | Mapping[str, float] | None = None,
    ) -> list[RankedText]:
        """Ranks texts by their exact combined score with one query.

        Args:
            query: The query.
            texts: N texts.
            k: How many are returned; None: all.
            weights: As for `score`; None: the default ones of the heads that the model has.

        Returns:
            The best first, equal ones by position.
        """
        check_str(query, "query")
        most = None if k is None else check_int(k, "k")
        weights = HeadWeights.default(self.heads) if weights is None else HeadWeights.of(weights)
        listed = check_texts(texts)
        if not listed:
            return []
        left = self.encode_query([query], outputs=weights.heads)
        right = self.encode_document(listed, outputs=weights.heads)
        single: dict[Head, Floats] = {
            head: scores.head_scores(left, right, head)[0] for head in weights.heads
        }
        total = scores.combine(single, weights, left)
        best = scores.top_k(total, most or len(listed)).tolist()
        return [
            RankedText(i, float(total[i]), {head: float(single[head][i]) for head in single}) for i in best
        ]

    def similarity(self, queries: Encoded | Floats, documents: Encoded | Floats) -> Floats:
        """Dense scores of all pairs, as sentence-transformers' method of this name computes them."""
        return scores.dense_scores(_dense_of(queries, "queries"), _dense_of(documents, "documents"))

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Writes a checkpoint folder; `options` as in `triptych.model.checkpoint.save`.

        A model that was loaded is written in its full stored precision, whatever `dtype` it runs in, and its matrices
        of 4 or 8 bits and its card come along (`start` is the folder that it came from), unless it was changed.
        """
        path = check_path(folder, "folder")
        options.setdefault("start", self._folder)
        layouts.check_save_options(**options)
        engine = self._model.engine
        source = None if self._is_changed else self._folder
        stored = Checkpoint(self._model, self.tokenizer)
        if source is not None and (engine or self.dtype is not None):
            stored = self._load_stored()
        if engine is None or stored.model is not self._model:
            layouts.save(stored, path, **options)
            layouts.copy_card(source, path)
            return
        checksum = self._checksum
        engine.give_back()
        self._model.engine = self._single = None
        try:
            layouts.save(stored, path, **options)
        finally:
            self._start_engine()
            self._checksum = checksum

    def push_to_hub(
        self, name: str, *, private: bool = False, token: str | None = None, **options: Any
    ) -> str:
        """Uploads the model to the Hub as `name`; returns its address. `options` as in `save_pretrained`."""
        layouts.check_save_options(**options)
        if token is not None:
            check_str(token, "token")
        return hub.push(
            check_str(name, "name"),
            lambda folder: self.save_pretrained(folder, **options),
            private=bool(private),
            token=token,
        )

    def export_onnx(self, path: str | Path) -> None:
        """Writes one ONNX graph with all heads, float32; what it takes and gives: `triptych.model.onnx`.

        Raises:
            MissingExtra: Without the extra `onnx`.
            StorageError: If the file cannot be written.
        """
        from triptych.model.onnx import export

        place = check_path(path, "path")
        if self._folder is not None and not self._is_changed:  # in full precision, whatever this one runs in
            model = self._load_stored().model.float()
        elif self._model.engine is not None:
            raise InputError("export_onnx: the model was changed; call release_model first")
        else:
            model = copy.deepcopy(self._model).cpu().float()
        export(model, place, {"fingerprint": self.fingerprint})

    def _load_stored(self) -> Checkpoint:
        stored = layouts.load(cast(Path, self._folder), trust_remote_code=self._trusted)
        return layouts.reconfigured(stored, self.config.to_dict())

    @property
    def _overlaps(self) -> bool:
        """Whether the processor is free while the model computes."""
        return self.device.type != "cpu"

    @property
    def _mcls_every(self) -> int | None:
        return self.config.mcls_every if self.config.pooling == "mcls" else None

    def _check_options(
        self,
        *,
        outputs: Any = None,
        prefix: Any = "",
        max_length: Any = None,
        token_budget: Any = None,
        progress: Any = None,
    ) -> tuple[tuple[Head, ...], str, int, int | None, Progress | None]:
        """The options of `encode`, checked.

        Raises:
            InputError: Names the option, what came and what was expected.
        """
        heads = self.heads if outputs is None else check_heads(outputs, "outputs")
        if absent := [head for head in heads if head not in self.heads]:
            raise InputError(f"outputs: got {absent}; this model has {', '.join(self.heads)}")
        limit = self.config.max_length
        length = limit if max_length is None else check_int(max_length, "max_length", 4, limit)
        budget = None if token_budget is None else check_int(token_budget, "token_budget")
        check_callable(progress, "progress")
        return heads, check_str(prefix, "prefix"), length, budget, progress


@contextmanager
def _progress_bar(progress: Progress | None) -> Generator[Progress]:
    """A bar on standard error, or in a notebook; calls `progress`, too."""
    if in_notebook():
        bar = NotebookProgress()

        def both(stage: str, done: int, total: int | None) -> None:
            bar(stage, done, total)
            if progress is not None:
                progress(stage, done, total)

        yield both
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn
    from rich.progress import Progress as Bars

    with Bars(*Bars.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task("encoding", total=None)

        def draw(stage: str, done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total)
            if progress is not None:
                progress(stage, done, total)

        yield draw


def _warn_of_cut(pieces: TextPieces, max_length: int) -> None:
    if pieces.truncated:
        warnings.warn(
            f"{pieces.truncated} of {len(pieces)} texts were cut to {max_length} tokens",
            TruncationWarning,
            stacklevel=4,
        )


def _dense_of(value: Any, where: str) -> Floats:
    dense = value.dense if isinstance(value, Encoded) else value
    if dense is None and isinstance(value, Encoded):
        raise InputError(
            f"similarity: {where}: got representations without the dense head; expected it on both sides"
        )
    try:
        rows = np.asarray(dense)
        with np.errstate(over="ignore"):
            usable = rows.ndim > 0 and not np.iscomplexobj(rows)
            rows = np.atleast_2d(rows.astype(np.float32)) if usable else np.zeros((0, 0, 0))
    except (TypeError, ValueError):
        rows = np.zeros((0, 0, 0))
    if rows.ndim != 2:
        raise InputError(f"similarity: {where}: got {show(value)}; expected an Encoded or rows of numbers")
    return cast(Floats, rows)


def _threads_each(devices: Sequence[str]) -> int:
    """Threads of each worker that computes on the processor, which they share."""
    sharing = sum(torch.device(name).type == "cpu" for name in devices)
    return max(1, torch.get_num_threads() // max(1, sharing))


def _load_on(recipe: Mapping[str, Any], threads: int, device: str) -> Encoder:
    """What a worker process runs to get its own copy of an encoder."""
    place = torch.device(device)
    if place.type == "cpu":
        torch.set_num_threads(threads)
    elif place.type == "cuda":
        # Otherwise each process would also take memory on the first GPU, for what it does without naming one.
        torch.cuda.set_device(place)
    return _load_again(recipe, device)


def _begin_on(recipe: Mapping[str, Any], threads: int, device: str) -> stream.Begin:
    """What a worker process runs to be able to encode blocks."""
    return _load_on(recipe, threads, device)._begin  # pyright: ignore[reportPrivateUsage]


def _load_again(recipe: Mapping[str, Any], device: str) -> Encoder:
    options = dict(recipe)
    source, settings = options.pop("source"), options.pop("settings")
    encoder = Encoder.from_pretrained(**options, device=device, **settings)
    encoder.source = source
    return encoder


_first_process: int | None = None


def _use_one_thread_after_fork() -> None:
    """Lets an encoder run in a forked child of a process that has computed.

    Torch's threads do not survive a fork, and the first product that is shared among them would wait for ever. On
    one thread nothing is shared.
    """
    global _first_process
    process = os.getpid()
    if _first_process not in (None, process) and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warnings.warn(
            "an encoder runs in a forked process whose parent has computed already; torch's threads do not survive a "
            "fork, so it runs on one. To use more, load the model after forking, or start processes by 'spawn'",
            ForkWarning,
            stacklevel=4,
        )
    _first_process = process
