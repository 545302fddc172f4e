"""Joining requests: what runs together, fairness, cancellation, faults, and that nothing of it shows in the vectors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from triptych import Encoder
from triptych.errors import InputError
from triptych.serve.batching import Batcher, Overloaded, RequestTooLarge, SharedEncoder
from triptych.serve.metrics import Metrics
from triptych.serve.settings import ServeSettings

MIX = ["a", "", "bge m3 is a model of text", "hello world " * 20, "defination of bm25", "x y z " * 7]


def run(encoder: Any, work: Callable[[Batcher], Awaitable[Any]], **settings: Any) -> Any:
    """Runs something with a batcher of its own."""

    async def inside() -> Any:
        batcher = Batcher([encoder], ServeSettings(**settings), Metrics())
        batcher.start()
        try:
            return await work(batcher)
        finally:
            async with asyncio.timeout(20):
                await batcher.close()

    return asyncio.run(inside())


class Slow:
    """An encoder whose passes wait until they may run; remembers what ran together."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.gate = threading.Event()
        self.sizes: list[int] = []
        self.bad: np.ndarray | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_ids(self, ids: Sequence[np.ndarray], **options: Any) -> Any:
        assert self.gate.wait(20)
        self.sizes.append(len(ids))
        if self.bad is not None and any(np.array_equal(row, self.bad) for row in ids):
            raise RuntimeError("this text breaks the model")
        return self._encoder.encode_ids(ids, **options)


@pytest.fixture
def slow(encoder: Encoder) -> Slow:
    return Slow(encoder)


@pytest.mark.parametrize("budget", [None, 1, 40])
@pytest.mark.parametrize("join", [True, False])
def test_a_request_alone_has_the_encoders_vectors_bit_for_bit(
    encoder: Encoder, join: bool, budget: int | None
) -> None:
    found = run(encoder, lambda batcher: batcher.encode(MIX), join=join, token_budget=budget)
    expected = encoder.encode(MIX, token_budget=budget)
    assert np.array_equal(found.encoded.dense, expected.dense)
    assert (found.encoded.lexical != expected.lexical).nnz == 0
    assert np.array_equal(found.encoded.multi.values, expected.multi.values)
    assert found.tokens == sum(map(len, encoder.tokenize(MIX).ids))


def test_requests_that_are_not_joined_have_the_encoders_vectors_bit_for_bit(encoder: Encoder) -> None:
    requests = [MIX[i : i + 1 + i % 3] for i in range(len(MIX))] * 4

    async def work(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(*(batcher.encode(texts) for texts in requests))

    for texts, found in zip(requests, run(encoder, work, join=False), strict=True):
        assert np.array_equal(found.encoded.dense, encoder.encode(texts).dense)
        assert np.array_equal(found.encoded.multi.values, encoder.encode(texts).multi.values)


def test_requests_that_are_joined_keep_their_order_and_their_vectors_up_to_rounding(slow: Slow) -> None:
    requests = [MIX[i:] + MIX[:i] for i in range(len(MIX))] * 3

    async def work(batcher: Batcher) -> list[Any]:
        tasks = [asyncio.ensure_future(batcher.encode(texts)) for texts in requests]
        await asyncio.sleep(0.2)
        slow.gate.set()
        return await asyncio.gather(*tasks)

    for texts, found in zip(requests, run(slow, work), strict=True):
        expected = slow._encoder.encode(texts)
        assert np.allclose(found.encoded.dense, expected.dense, atol=2e-6)
        assert abs(found.encoded.lexical - expected.lexical).max() < 2e-6
        assert np.allclose(found.encoded.multi.values, expected.multi.values, atol=2e-6)
        assert np.array_equal(found.encoded.multi.offsets, expected.multi.offsets)
    assert len(slow.sizes) < len(requests) / 2


def test_no_pass_has_more_tokens_than_the_budget(slow: Slow) -> None:
    slow.gate.set()
    metrics: list[Metrics] = []

    async def work(batcher: Batcher) -> None:
        metrics.append(batcher._metrics)
        await asyncio.gather(*(batcher.encode(MIX) for _ in range(20)))

    run(slow, work, token_budget=64)
    buckets = {
        sample.labels["le"]: sample.value
        for family in metrics[0].registry.collect()
        for sample in family.samples
        if sample.name == "triptych_tokens_per_pass_bucket"
    }
    assert buckets["64.0"] == buckets["+Inf"] > 0


def test_other_heads_and_other_prefixes_run_apart(slow: Slow) -> None:
    async def work(batcher: Batcher) -> list[Any]:
        first = asyncio.ensure_future(batcher.encode(["first"]))
        await asyncio.sleep(0.1)
        kinds: list[dict[str, Any]] = [{}, {"outputs": ["dense"]}, {"prefix": "query: "}, {}]
        tasks = [asyncio.ensure_future(batcher.encode(["a b"], **kind)) for kind in kinds]
        await asyncio.sleep(0.1)
        slow.gate.set()
        return await asyncio.gather(first, *tasks)

    found = run(slow, work)
    assert sorted(slow.sizes) == [1, 1, 1, 2]
    assert [each.encoded.heads for each in found][2] == ("dense",)


def test_a_single_query_does_not_wait_for_all_of_a_large_request(slow: Slow) -> None:
    done: list[str] = []

    async def work(batcher: Batcher) -> None:
        async def ask(name: str, texts: list[str]) -> None:
            await batcher.encode(texts)
            done.append(name)

        large = asyncio.ensure_future(ask("large", ["hello world " * 10] * 50))
        await asyncio.sleep(0.1)
        small = asyncio.ensure_future(ask("small", ["a query"]))
        await asyncio.sleep(0.1)
        slow.gate.set()
        await asyncio.gather(large, small)

    run(slow, work, token_budget=64)
    assert done == ["small", "large"]
    assert len(slow.sizes) > 10


def test_what_a_client_that_went_away_wanted_is_not_computed(slow: Slow) -> None:
    async def work(batcher: Batcher) -> None:
        first = asyncio.ensure_future(batcher.encode(["first"]))
        await asyncio.sleep(0.1)
        gone = [asyncio.ensure_future(batcher.encode(MIX)) for _ in range(5)]
        await asyncio.sleep(0.1)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        assert batcher._queued == 0
        slow.gate.set()
        await first

    run(slow, work)
    assert slow.sizes == [1]


def test_a_text_that_breaks_the_model_is_the_error_of_its_request_alone(slow: Slow) -> None:
    slow.bad = slow.tokenize("bad text").ids[0]

    async def work(batcher: Batcher) -> list[Any]:
        first = asyncio.ensure_future(batcher.encode(["first"]))
        await asyncio.sleep(0.1)
        tasks = [asyncio.ensure_future(batcher.encode([text])) for text in ("good", "bad text", "fine")]
        await asyncio.sleep(0.1)
        slow.gate.set()
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    found = run(slow, work)
    assert [type(each).__name__ for each in found] == ["Counted", "Counted", "RuntimeError", "Counted"]


def test_a_text_that_cannot_be_tokenised_is_the_error_of_its_request_alone(encoder: Encoder) -> None:
    async def work(batcher: Batcher) -> list[Any]:
        texts = ["good", "half \ud800", "fine"]
        return await asyncio.gather(*(batcher.encode([text]) for text in texts), return_exceptions=True)

    good, bad, fine = run(encoder, work)
    assert isinstance(bad, InputError)
    assert np.allclose(good.encoded.dense, encoder.encode("good").dense, atol=2e-6)
    assert len(fine.ids) == 1


def test_a_full_queue_says_when_to_come_again(slow: Slow) -> None:
    async def work(batcher: Batcher) -> None:
        tasks = [asyncio.ensure_future(batcher.encode(["a"])) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded) as caught:
            await batcher.encode(["b"])
        assert 1 <= caught.value.retry_after <= 30
        slow.gate.set()
        await asyncio.gather(*tasks)
        await batcher.encode(["b"])

    run(slow, work, queue=3)


def test_too_many_texts_or_tokens_are_refused(encoder: Encoder) -> None:
    with pytest.raises(RequestTooLarge, match="texts: got 6; expected at most 5"):
        run(encoder, lambda batcher: batcher.encode(MIX), max_texts=5)
    with pytest.raises(RequestTooLarge, match="expected at most 10 in a request"):
        run(encoder, lambda batcher: batcher.encode(MIX), max_tokens=10)


def test_closing_finishes_what_was_accepted(slow: Slow) -> None:
    async def work() -> Any:
        batcher = Batcher([slow], ServeSettings(), Metrics())  # type: ignore[list-item]
        batcher.start()
        tasks = [asyncio.ensure_future(batcher.encode(MIX)) for _ in range(5)]
        await asyncio.sleep(0.1)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0.1)
        assert not closing.done()
        slow.gate.set()
        await closing
        return [task.result() for task in tasks]

    assert all(len(found.encoded) == len(MIX) for found in asyncio.run(work()))


def test_several_devices_share_the_work(encoder: Encoder) -> None:
    both = [Slow(encoder), Slow(encoder)]

    async def work() -> None:
        batcher = Batcher(both, ServeSettings(join=False), Metrics())  # type: ignore[arg-type]
        batcher.start()
        tasks = [asyncio.ensure_future(batcher.encode(["a"])) for _ in range(8)]
        await asyncio.sleep(0.1)
        for each in both:
            each.gate.set()
        await asyncio.gather(*tasks)
        await batcher.close()

    asyncio.run(work())
    assert all(each.sizes for each in both)
    assert sum(len(each.sizes) for each in both) == 8


def test_an_index_may_encode_through_the_batcher_from_its_own_thread(encoder: Encoder) -> None:
    async def work(batcher: Batcher) -> Any:
        shared = SharedEncoder(batcher, asyncio.get_running_loop())
        assert (shared.fingerprint, shared.widths) == (encoder.fingerprint, encoder.widths)
        return await asyncio.to_thread(shared.encode_document, MIX, outputs=["dense"])

    assert np.array_equal(run(encoder, work).dense, encoder.encode_document(MIX, outputs=["dense"]).dense)


def test_an_index_may_cut_documents_late_through_the_batcher(encoder: Encoder) -> None:
    async def work(batcher: Batcher) -> Any:
        shared = SharedEncoder(batcher, asyncio.get_running_loop())
        spans = [[(0, 5), (5, len(text))] for text in MIX[2:4]]
        return await asyncio.to_thread(shared.encode_spans, MIX[2:4], spans, outputs=["dense"]), spans

    found, spans = run(encoder, work)
    assert np.array_equal(found.dense, encoder.encode_spans(MIX[2:4], spans, outputs=["dense"]).dense)
