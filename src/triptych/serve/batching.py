"""Texts of many requests through one model: joined under a token budget, fairly, and dropped with their clients.

tokenise in threads → cut into the encoder's own passes → queue → join passes of several requests that fit together →
one thread per device computes → split, in threads, while the next pass runs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from triptych.encode.encoder import Encoder
from triptych.errors import InputError, TriptychError
from triptych.model.packed import Ids
from triptych.model.tokenizer import TextTokenizer, Tokenized
from triptych.serve.metrics import Metrics
from triptych.serve.settings import ServeSettings
from triptych.types import HEADS, Encoded, Head, Spans

_T = TypeVar("_T")
Cut: TypeAlias = Literal["end", "start", "none"]
"""What a text that is too long loses; "none": it is refused."""
_LOOK_AHEAD = 256  # jobs that are looked at for one pass


class Overloaded(TriptychError):
    """The queue is full.

    Args:
        retry_after: Seconds after which there may be room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server's queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class RequestTooLarge(InputError):
    """A request has more than the server takes at once."""


class Counted(NamedTuple):
    """Representations of N texts, and what the model read for them.

    Attributes:
        encoded: The representations.
        ids: Token ids of each text, special tokens included.
        truncated: How many texts were cut.
    """

    encoded: Encoded
    ids: list[Ids]
    truncated: int

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(map(len, self.ids))


class _Job:
    """One request's texts, in the passes that the encoder alone would make of them."""

    def __init__(
        self, ids: Sequence[Ids], kind: tuple[tuple[Head, ...], str], passes: list[NDArray[np.int64]]
    ) -> None:
        self.ids, self.kind = ids, kind
        self.arrived = time.monotonic()
        self.waiting = deque(passes)
        self.sizes = deque(sum(len(ids[i]) for i in rows) for rows in passes)
        self.open = len(passes)
        self.parts: list[tuple[NDArray[np.int64], Encoded]] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def result(self) -> Encoded:
        """All parts, in the order of the request."""
        rows = np.concatenate([rows for rows, _ in self.parts])
        encoded = Encoded.concat([part for _, part in self.parts])
        return encoded if np.array_equal(rows, np.arange(len(rows))) else encoded[np.argsort(rows)]


class _Piece(NamedTuple):
    job: _Job
    rows: NDArray[np.int64]
    tokens: int


class Batcher:
    """Encodes for all requests; its methods are called in the event loop.

    Args:
        encoders: The same model, once per device.
        settings: Limits and batching.
        metrics: Where it counts.
    """

    def __init__(self, encoders: Sequence[Encoder], settings: ServeSettings, metrics: Metrics) -> None:
        self.encoder, self._encoders = encoders[0], list(encoders)
        self._settings, self._metrics = settings, metrics
        self.budget = settings.token_budget or self.encoder.token_budget
        self._jobs: deque[_Job] = deque()
        self._calls: deque[tuple[Callable[[Encoder], object], asyncio.Future[object]]] = deque()
        self._queued = 0  # tokens
        self._requests = self._tokenizing = self._answers = 0
        self._last_joined = 1
        self._rate = 0.0  # tokens a second
        self._arrival = asyncio.Event()
        self._threads = ThreadPoolExecutor(2, "triptych-text")
        self._devices = [ThreadPoolExecutor(1, f"triptych-{each.device}") for each in encoders]
        self._tasks: list[asyncio.Task[None]] = []
        self._deliveries: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Starts computing, in the running event loop."""
        self._tasks = [
            asyncio.create_task(self._work(encoder, thread))
            for encoder, thread in zip(self._encoders, self._devices, strict=True)
        ]

    async def close(self) -> None:
        """Finishes what is queued and ends the threads."""
        while self._requests or self._jobs or self._calls:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._deliveries, return_exceptions=True)
        for pool in (self._threads, *self._devices):
            pool.shutdown()

    async def tokenize(
        self, texts: Sequence[str], *, prefix: str = "", max_length: int | None = None, keep_end: bool = False
    ) -> Tokenized:
        """`Encoder.tokenize` beside whatever computes."""
        self._check_count(len(texts), "texts")
        self._tokenizing += 1
        try:
            options = {"prefix": prefix, "max_length": max_length, "keep_end": keep_end}
            return await self._in(self._threads, partial(self.encoder.tokenize, texts, **options))
        finally:
            self._tokenizing -= 1

    async def pieces(
        self, texts: Sequence[str], *, special: bool
    ) -> list[list[tuple[int, str, tuple[int, int]]]]:
        """Id, name and span of each token of each text, beside whatever computes.

        Args:
            texts: N strings.
            special: Whether the special tokens around the text are shown.
        """
        self._check_count(len(texts), "texts")
        return await self._in(self._threads, partial(_pieces, self.encoder.tokenizer, texts, special))

    async def encode(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Head] | None = None,
        prefix: str = "",
        max_length: int | None = None,
        cut: Cut = "end",
        admitted: bool = False,
    ) -> Counted:
        """`Encoder.encode`, joined with what other requests bring.

        Args:
            texts: N strings.
            outputs: See `Encoder.encode`.
            prefix: See `Encoder.encode`.
            max_length: See `Encoder.encode`.
            cut: What texts that are too long lose.
            admitted: Whether this is a part of what has its place in the queue.

        Raises:
            Overloaded: If too much is queued.
            InputError: For texts or options that cannot be encoded.
        """
        with nullcontext() if admitted else self._admit():
            tokens = await self.tokenize(texts, prefix=prefix, max_length=max_length, keep_end=cut == "start")
            if tokens.truncated and cut == "none":
                limit = max_length or self.encoder.config.max_length
                raise RequestTooLarge(
                    f"{tokens.truncated} of {len(texts)} texts have more than {limit} tokens"
                )
            return Counted(await self._encode(tokens.ids, outputs, prefix), *tokens)

    async def encode_ids(self, ids: Sequence[Ids], *, outputs: Sequence[Head] | None = None) -> Encoded:
        """`Encoder.encode_ids`, joined with what other requests bring."""
        self._check_count(len(ids), "texts")
        with self._admit():
            return await self._encode(ids, outputs, "")

    async def run(self, function: Callable[[Encoder], _T], *, admitted: bool = False) -> _T:
        """Calls a function with the encoder when a device is free; `admitted` as for `encode`."""
        with nullcontext() if admitted else self._admit():
            future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            self._calls.append((function, future))
            self._arrival.set()
            return cast(_T, await future)

    @contextmanager
    def _admit(self) -> Generator[None]:
        if self._requests >= self._settings.queue:
            raise self._overloaded()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextmanager
    def _reserve(self, size: int) -> Generator[None]:
        """Room for token vectors, which are far larger than what they are made of."""
        most = int(self._settings.answers_mb * 2**20)
        if size > most:
            raise RequestTooLarge(
                f"texts: their token vectors have {size >> 20} MB; expected at most {most >> 20} MB"
            )
        if self._answers + size > most:
            raise self._overloaded()
        self._answers += size
        try:
            yield
        finally:
            self._answers -= size

    def _overloaded(self) -> Overloaded:
        seconds = self._queued / self._rate if self._rate else 1.0
        return Overloaded(int(min(30, max(1, np.ceil(seconds)))))

    def _check_count(self, count: int, what: str) -> None:
        if count > self._settings.max_texts:
            raise RequestTooLarge(
                f"{what}: got {count}; expected at most {self._settings.max_texts} in a request"
            )

    async def _encode(self, ids: Sequence[Ids], outputs: Sequence[Head] | None, prefix: str) -> Encoded:
        tokens = sum(map(len, ids))
        if tokens > self._settings.max_tokens:
            raise RequestTooLarge(
                f"texts: got {tokens} tokens; expected at most {self._settings.max_tokens} in a request"
            )
        heads = tuple(outputs or self.encoder.heads)
        if not ids:
            return self.encoder.encode_ids([], outputs=heads)
        size = 4 * tokens * self.encoder.widths["multi"] if "multi" in heads else 0
        with self._reserve(size):
            return await self._do(_Job(ids, (heads, prefix), self.encoder.passes(ids, self.budget)))

    async def _do(self, job: _Job) -> Encoded:
        self._jobs.append(job)
        self._queue(sum(job.sizes))
        try:
            await job.done
        except asyncio.CancelledError:
            self._queue(-sum(job.sizes))
            job.sizes.clear()
            job.waiting.clear()
            raise
        return await self._in(self._threads, job.result) if len(job.ids) > 1 else job.result()

    def _queue(self, tokens: int) -> None:
        self._queued += tokens
        self._metrics.queued_tokens.set(self._queued)
        if tokens > 0:
            self._arrival.set()

    async def _work(self, encoder: Encoder, thread: Executor) -> None:
        """What one device does: it waits for texts, computes and hands the results over."""
        while True:
            while not self._jobs and not self._calls:
                self._arrival.clear()
                await self._arrival.wait()
            if self._calls:
                await self._call(encoder, thread, *self._calls.popleft())
            await self._linger()
            if pieces := self._take():
                await self._compute(encoder, thread, pieces)

    async def _linger(self) -> None:
        """Waits for others if requests come close together, and not for longer than a few milliseconds."""
        if not self._settings.join or not self._settings.wait_ms or not self._jobs:
            return
        end = self._jobs[0].arrived + self._settings.wait_ms / 1000
        while self._queued < self.budget and (self._tokenizing or self._last_joined > 1):
            if len(self._jobs) >= self._last_joined and not self._tokenizing:
                return
            self._arrival.clear()
            try:
                async with asyncio.timeout(end - time.monotonic()):
                    await self._arrival.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Piece]:
        """The next pass: that of the request whose turn it is, and those of others that fit beside it.

        A request with several passes goes to the end of the queue after each.
        """
        pieces: list[_Piece] = []
        passed_over: list[_Job] = []
        again: list[_Job] = []
        tokens = 0
        while self._jobs and tokens < self.budget and len(passed_over) < _LOOK_AHEAD:
            job = self._jobs.popleft()
            if not job.waiting:  # its client went away
                continue
            fits = job.kind == pieces[0].job.kind and tokens + job.sizes[0] <= self.budget if pieces else True
            if not fits:
                passed_over.append(job)
                continue
            piece = _Piece(job, job.waiting.popleft(), job.sizes.popleft())
            pieces.append(piece)
            tokens += piece.tokens
            if job.waiting:
                again.append(job)
            if not self._settings.join:
                break
        self._jobs.extendleft(reversed(passed_over))
        self._jobs.extend(again)
        self._queue(-tokens)
        return pieces

    async def _call(
        self,
        encoder: Encoder,
        thread: Executor,
        function: Callable[[Encoder], object],
        future: asyncio.Future[object],
    ) -> None:
        if future.done():
            return
        try:
            result = await self._in(thread, partial(function, encoder))
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    async def _compute(self, encoder: Encoder, thread: Executor, pieces: Sequence[_Piece]) -> None:
        self._last_joined = len(pieces)
        started = time.perf_counter()
        try:
            encoded = await self._in(thread, partial(self._forward, encoder, pieces))
        except Exception as error:
            if len(pieces) > 1:  # what one request brought is no fault of the others
                for piece in pieces:
                    await self._compute(encoder, thread, [piece])
            elif not pieces[0].job.done.done():
                pieces[0].job.done.set_exception(error)
            return
        self._count(pieces, time.perf_counter() - started)
        delivery = asyncio.create_task(self._deliver(pieces, encoded))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)

    def _forward(self, encoder: Encoder, pieces: Sequence[_Piece]) -> Encoded:
        heads, prefix = pieces[0].job.kind
        ids = [job.ids[i] for job, rows, _ in pieces for i in rows]
        return encoder.encode_ids(ids, outputs=heads, prefix=prefix, token_budget=self.budget)

    async def _deliver(self, pieces: Sequence[_Piece], encoded: Encoded) -> None:
        if len(pieces) == 1:
            parts = [encoded]
        else:
            parts = await self._in(
                self._threads, partial(_split, encoded, [len(piece.rows) for piece in pieces])
            )
        for (job, rows, _), part in zip(pieces, parts, strict=True):
            job.parts.append((rows, part))
            job.open -= 1
            if not job.open and not job.done.done():
                job.done.set_result(None)

    def _count(self, pieces: Sequence[_Piece], seconds: float) -> None:
        tokens = sum(piece.tokens for piece in pieces)
        self._rate = 0.8 * self._rate + 0.2 * tokens / seconds if self._rate else tokens / seconds
        metrics = self._metrics
        metrics.passes.inc()
        metrics.texts.inc(sum(len(piece.rows) for piece in pieces))
        metrics.tokens.inc(tokens)
        metrics.joined.observe(len(pieces))
        metrics.pass_tokens.observe(tokens)
        metrics.pass_seconds.observe(seconds)

    async def _in(self, pool: Executor, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(pool, function)


def _pieces(
    tokenizer: TextTokenizer, texts: Sequence[str], special: bool
) -> list[list[tuple[int, str, tuple[int, int]]]]:
    before, after = ([*tokenizer.before], [*tokenizer.after]) if special else ([], [])
    found: list[list[tuple[int, str, tuple[int, int]]]] = []
    for own, places in tokenizer.spans(texts):
        ids = [int(i) for i in (*before, *own, *after)]
        spans = [(0, 0)] * len(before) + [(int(a), int(b)) for a, b in places] + [(0, 0)] * len(after)
        names = cast("list[str]", tokenizer.tokenizer.convert_ids_to_tokens(ids))
        found.append(list(zip(ids, names, spans, strict=True)))
    return found


def _split(encoded: Encoded, sizes: Sequence[int]) -> list[Encoded]:
    ends = np.cumsum(sizes)
    return [encoded[slice(int(end) - size, int(end))] for end, size in zip(ends, sizes, strict=True)]


def _encode_spans(
    encoder: Encoder,
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
    outputs: Sequence[Head],
) -> Encoded:
    return encoder.encode_spans(texts, spans, outputs=outputs)


class SharedEncoder:
    """A `TextEncoder` over a `Batcher`, for an index that encodes in a thread of its own.

    Args:
        batcher: The batcher.
        loop: The event loop in which it runs.
    """

    def __init__(self, batcher: Batcher, loop: asyncio.AbstractEventLoop) -> None:
        self._batcher, self._loop = batcher, loop

    @property
    def fingerprint(self) -> str:
        """See `TextEncoder`."""
        return self._batcher.encoder.fingerprint

    @property
    def source(self) -> str:
        """See `TextEncoder`."""
        return self._batcher.encoder.source

    @property
    def widths(self) -> Mapping[Head, int]:
        """See `TextEncoder`."""
        return self._batcher.encoder.widths

    def encode_query(self, texts: str | Sequence[str], *, outputs: Sequence[Head] = HEADS) -> Encoded:
        """See `TextEncoder`."""
        return self._encode(texts, outputs, self._batcher.encoder.config.query_prefix)

    def encode_document(self, texts: str | Sequence[str], *, outputs: Sequence[Head] = HEADS) -> Encoded:
        """See `TextEncoder`."""
        return self._encode(texts, outputs, self._batcher.encoder.config.document_prefix)

    def token_spans(self, texts: Sequence[str]) -> list[Spans]:
        """See `TextEncoder`."""
        return self._batcher.encoder.token_spans(texts)

    def encode_spans(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[tuple[int, int]]],
        *,
        outputs: Sequence[Head] = HEADS,
    ) -> Encoded:
        """See `TextEncoder`."""
        encode = partial(_encode_spans, texts=texts, spans=spans, outputs=outputs)
        work = self._batcher.run(encode, admitted=True)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _encode(self, texts: str | Sequence[str], outputs: Sequence[Head], prefix: str) -> Encoded:
        listed = [texts] if isinstance(texts, str) else list(texts)
        work = self._batcher.encode(listed, outputs=outputs, prefix=prefix, admitted=True)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result().encoded
