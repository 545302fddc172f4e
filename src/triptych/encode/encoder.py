"""`Encoder`: texts in, three representations out.

tokenise once → sort by length → batches by a token budget → one forward for all heads → the callers' order.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from triptych.config import M3Config
from triptych.encode import stream
from triptych.encode.batching import Progress, encode_ids
from triptych.encode.stream import WorkerPool
from triptych.errors import InputError
from triptych.model import checkpoint as layouts
from triptych.model import hub
from triptych.model.backbone import Dtype, device_of, dtype_of
from triptych.model.checkpoint import Checkpoint
from triptych.model.forward import supported
from triptych.model.inference import Engine
from triptych.model.m3 import M3Model
from triptych.model.tokenizer import TextTokenizer
from triptych.scores import on_numpy as scores
from triptych.types import Encoded, Floats, Head, HeadWeights, check_heads


class TruncationWarning(UserWarning):
    """Some texts were longer than the model reads and were cut."""


class Encoder:
    """A model on a device, with its tokenizer.

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
            on a processor that has them, otherwise as "bfloat16"; `describe` says which. None: the model as it
            is, for training; otherwise a model that has a `source` is given to the inference engine.

    Attributes:
        config: The model's configuration.
        fingerprint: Hex digest of weights (as stored, whatever `dtype`), tokenizer and configuration.
        source: See above.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        source: str = "",
        device: str | torch.device | None = None,
        dtype: Dtype | None = "auto",
    ) -> None:
        self.source = source
        # What workers load and `save_pretrained` reads again: of a Hub name, the revision that was fetched.
        self._folder: Path | None = None
        self.device = device_of(device)
        self.fingerprint = checkpoint.fingerprint
        self.dtype = dtype_of(dtype, self.device) if dtype is not None else None
        self._model: M3Model = checkpoint.model.to(self.device, self.dtype)
        self._why = "the model was made in memory, or for training: its weights may still change"
        self._int8 = dtype == "int8"
        if self.dtype is not None and source:
            self._model.engine, self._why = Engine.of(
                self._model.backbone, self.device, self.dtype, int8=self._int8
            )
        self.tokenizer: TextTokenizer = checkpoint.tokenizer

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "small",
        *,
        device: str | torch.device | None = None,
        dtype: Dtype | None = "auto",
        revision: str | None = None,
        cache: str | Path | None = None,
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
            settings: Fields of `M3Config` to change, such as ``pooling="mcls"`` or ``max_length=512``.

        Raises:
            ModelError: If it cannot be found, fetched or read; the message says what to do.
        """
        folder = hub.resolve(name, revision=revision, cache=cache)
        checkpoint = layouts.load(folder)
        if settings:
            checkpoint = layouts.reconfigured(checkpoint, settings)
        encoder = cls(checkpoint, source=str(name), device=device, dtype=dtype)
        encoder._folder = folder
        return encoder

    @classmethod
    def from_backbone(
        cls, name: str | Path, *, device: str | torch.device | None = None, seed: int = 0, **settings: Any
    ) -> Encoder:
        """A plain encoder, such as "FacebookAI/xlm-roberta-base", with new heads: where training starts.

        Args:
            name: Local folder or Hub name.
            device: See `Encoder`.
            seed: Of the heads' random weights.
            settings: Fields of `M3Config`, such as ``multi_dim=128``.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            checkpoint = layouts.from_backbone(hub.resolve(name), **settings)
        return cls(checkpoint, source="", device=device, dtype="float32")

    @property
    def model(self) -> M3Model:
        """The model as an ordinary module, to train, save or take apart.

        Whoever takes it may change its weights, so the inference engine gives them back and is gone; encoding
        goes on with the module itself, slower on a processor.
        """
        if self._model.engine is not None:
            self._model.engine.give_back()
            self._model.engine = None
            self._why = "the model was taken out of the encoder, so its weights may change"
        return self._model

    def describe(self) -> dict[str, str]:
        """How texts are run through the model here: device, dtype, engine, kernels, and why so."""
        engine = self._model.engine
        return {
            "device": str(self.device),
            "dtype": self._precision,
            "engine": "packed" if supported(self._model.backbone) is None else "padded",
            "kernels": engine.kernels.name if engine is not None else "transformers",
            "why": self._why,
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

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        outputs: str | Sequence[str] | None = None,
        prefix: str = "",
        max_length: int | None = None,
        token_budget: int | None = None,
        progress: Progress | None = None,
    ) -> Encoded:
        """Encodes texts as they are, without the model's prefixes.

        Args:
            texts: N strings; one string counts as a list of one.
            outputs: Heads to compute, among "dense", "lexical", "multi"; None: all that the model has.
            prefix: Put before every text.
            max_length: Most tokens a text; None: what the model reads. Longer texts are cut, and one
                `TruncationWarning` says how many.
            token_budget: Tokens of one forward pass; None: by device. Results differ by
                rounding alone.
            progress: Called with (texts done, N).

        Returns:
            An `Encoded` of N texts in their order. The empty string is encoded as its special tokens alone.

        Raises:
            InputError: For an unknown or absent head, something that is not a string, or a bad length.
        """
        return self._prepare(
            texts,
            outputs=outputs,
            prefix=prefix,
            max_length=max_length,
            token_budget=token_budget,
            progress=progress,
        )()

    def _prepare(
        self,
        texts: str | Sequence[str],
        *,
        outputs: str | Sequence[str] | None = None,
        prefix: str = "",
        max_length: int | None = None,
        token_budget: int | None = None,
        progress: Progress | None = None,
    ) -> Callable[[], Encoded]:
        """`encode` up to the token ids; what it gives does the rest."""
        heads = self._heads(outputs)
        texts = _as_texts(texts)
        length = self._length(max_length)
        if token_budget is not None and token_budget < 1:
            raise InputError(f"token_budget: got {token_budget}; expected ≥ 1, or None to choose by device")
        tokens = self.tokenizer.encode(texts, prefix=prefix, max_length=length, mcls_every=self._mcls_every)
        if tokens.truncated:
            warnings.warn(
                f"{tokens.truncated} of {len(texts)} texts were cut to {length} tokens",
                TruncationWarning,
                stacklevel=3,
            )
        options: dict[str, Any] = {"budget": token_budget, "progress": progress}
        return lambda: encode_ids(self._model, tokens.ids, heads, self.device, **options)

    def encode_query(self, texts: str | Sequence[str], **options: Any) -> Encoded:
        """Encodes queries, with the model's query prefix. Options as in `encode`."""
        options.setdefault("prefix", self.config.query_prefix)
        return self.encode(texts, **options)

    def encode_document(self, texts: str | Sequence[str], **options: Any) -> Encoded:
        """Encodes documents, with the model's document prefix. Options as in `encode`."""
        options.setdefault("prefix", self.config.document_prefix)
        return self.encode(texts, **options)

    def encode_stream(
        self,
        texts: Iterable[str],
        *,
        block: int = 1024,
        folder: str | Path | None = None,
        devices: Sequence[str] | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Iterator[Encoded]:
        """Encodes any number of documents block by block; never holds the corpus in memory.

        On a GPU the next block is read and tokenised while one is computed.

        Args:
            texts: Any iterable of strings.
            block: Texts in a block.
            folder: Where each block is written before it is given out. What an earlier, interrupted run of the
                same texts and the same model left there is read back instead of encoded again.
            devices: Encode with one worker process for each, such as ("cuda:0", "cuda:1"); None: here.
            progress: Called with (texts done, None) before each block is given out.
            options: As in `encode`; the prefix defaults to the documents'.

        Yields:
            One `Encoded` for each block, in order.

        Raises:
            InputError: If `folder` holds blocks of other texts, options or another model.
            WorkerError: If a worker dies.
        """
        options = {"prefix": self.config.document_prefix, "outputs": self.heads, **options}
        options["outputs"] = self._heads(options["outputs"])
        facts = {
            "model": self.fingerprint,
            "dtype": self._precision,
            "block": block,
            **{k: v for k, v in options.items() if k != "token_budget"},
        }
        store = stream.Store(folder, facts) if folder is not None else None
        blocks = stream.blocks_of(texts, block)
        with ExitStack() as stack:
            if devices is not None:
                pool = stack.enter_context(self.workers(devices))
                parts = stream.encode_blocks_ahead(blocks, pool, options, store)
            elif self._overlaps:
                parts = stream.encode_blocks_prepared(blocks, partial(self._prepare, **options), store)
            else:
                parts = stream.encode_blocks(blocks, lambda part: self.encode(part, **options), store)
            yield from stream.counted(parts, progress)

    def workers(self, devices: Sequence[str]) -> WorkerPool:
        """Worker processes that hold this model, one a device; use it as a context manager.

        Raises:
            InputError: For no devices, or an unknown one; or if the model was made in memory: save it first, so
                that workers can load it.
        """
        if self._folder is None:
            raise InputError(
                "workers: this encoder was made in memory; save_pretrained it and load it from there"
            )
        if isinstance(devices, str) or not devices:
            raise InputError(f"devices: got {devices!r}; expected a list of one or more devices")
        load = partial(_load_on, self._folder, self._precision, self.config.to_dict(), _threads_each(devices))
        return WorkerPool(load, devices)

    def score(
        self,
        queries: str | Sequence[str],
        documents: str | Sequence[str],
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
        weights = HeadWeights.of(weights)
        sides = (
            self.encode_query(queries, outputs=weights.heads),
            self.encode_document(documents, outputs=weights.heads),
        )
        return scores.combine({head: scores.head_scores(*sides, head) for head in weights.heads}, weights)

    def similarity(self, queries: Encoded | Floats, documents: Encoded | Floats) -> Floats:
        """Dense scores of all pairs, as sentence-transformers' method of this name gives."""
        left, right = (part.dense if isinstance(part, Encoded) else part for part in (queries, documents))
        if left is None or right is None:
            raise InputError(
                "similarity: got representations without the dense head; expected it on both sides"
            )
        return scores.dense_scores(np.atleast_2d(left), np.atleast_2d(right))

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that the model has."""
        return self._model.heads

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Writes a checkpoint folder; `options` as in `triptych.model.checkpoint.save`.

        A model that was loaded is written in its full stored precision, whatever `dtype` it runs in.
        """
        layouts.save(self._stored(), Path(folder), **options)

    def push_to_hub(
        self, name: str, *, private: bool = False, token: str | None = None, **options: Any
    ) -> str:
        """Uploads the model to the Hub as `name`; gives its address. `options` as in `save_pretrained`."""
        return hub.push(
            name, lambda folder: self.save_pretrained(folder, **options), private=private, token=token
        )

    def export_onnx(self, path: str | Path) -> None:
        """Writes one ONNX graph with all heads, float32; what it takes and gives: `triptych.model.onnx`.

        Raises:
            MissingExtra: Without the extra `onnx`.
            StorageError: If the file cannot be written.
        """
        from triptych.model.onnx import export

        if self._folder is not None:  # not this encoder's own model, which would lose its inference engine
            model = layouts.reconfigured(layouts.load(self._folder), self.config.to_dict()).model.float()
        else:
            model = copy.deepcopy(self._model).cpu().float()
        export(model, Path(path), {"fingerprint": self.fingerprint})

    def _stored(self) -> Checkpoint:
        if self._folder is not None and self.dtype not in (None, torch.float32):
            return layouts.reconfigured(layouts.load(self._folder), self.config.to_dict())
        return Checkpoint(self.model, self.tokenizer)

    @property
    def _overlaps(self) -> bool:
        """Whether the processor is free while the model computes."""
        return self.device.type != "cpu"

    @property
    def _mcls_every(self) -> int | None:
        return self.config.mcls_every if self.config.pooling == "mcls" else None

    def _heads(self, outputs: str | Sequence[str] | None) -> tuple[Head, ...]:
        heads = self.heads if outputs is None else check_heads(outputs, "outputs")
        if absent := [head for head in heads if head not in self.heads]:
            raise InputError(f"outputs: got {absent}; this model has {', '.join(self.heads)}")
        return heads

    def _length(self, max_length: int | None) -> int:
        limit = self.config.max_length
        if max_length is not None and not 4 <= max_length <= limit:
            raise InputError(
                f"max_length: got {max_length}; expected 4 to {limit}, which is what this model reads"
            )
        return max_length or limit


def _as_texts(texts: str | Sequence[str]) -> list[str]:
    listed = [texts] if isinstance(texts, str) else list(texts)
    for i, text in enumerate(listed):
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"texts[{i}]: got {type(text).__name__}; expected a string")
    return listed


def _threads_each(devices: Sequence[str]) -> int:
    """Threads of each worker that computes on the processor, which they share."""
    sharing = sum(device_of(name).type == "cpu" for name in devices)
    return max(1, torch.get_num_threads() // max(1, sharing))


def _load_on(folder: Path, dtype: str, config: dict[str, Any], threads: int, device: str) -> Encoder:
    """What a worker process runs to get its own copy of an encoder."""
    place = device_of(device)
    if place.type == "cpu":
        torch.set_num_threads(threads)
    elif place.type == "cuda":
        # Otherwise each process would also take memory on the first GPU, for what it does without naming one.
        torch.cuda.set_device(place)
    return Encoder.from_pretrained(folder, device=device, dtype=cast(Dtype, dtype), **config)
