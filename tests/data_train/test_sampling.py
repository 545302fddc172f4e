"""Steps of training: nothing lost, one source and bucket a batch, a function of seed and number alone."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.errors import InputError
from triptych.train.sampling import (
    FINETUNE_TABLE,
    PRETRAIN_TABLE,
    BatchTable,
    SampledSource,
    Sampler,
    Step,
    shares,
)

TABLE = BatchTable((10, 20, 40), (4, 3, 2))


def sources_of(lengths: list[list[int]], weights: list[float] | None = None) -> list[SampledSource]:
    found: list[SampledSource] = []
    start = 0
    for number, each in enumerate(lengths):
        rows = np.arange(start, start + len(each))
        weight = 1.0 if weights is None else weights[number]
        found.append(SampledSource(f"s{number}", rows, np.array(each, dtype=np.int32), weight))
        start += len(each)
    return found


def epoch_of(sampler: Sampler, number: int) -> list[Step]:
    n = sampler.steps_per_epoch
    return [sampler.step(i) for i in range(number * n, (number + 1) * n)]


LENGTHS = st.lists(st.lists(st.integers(1, 40), max_size=40), min_size=1, max_size=4).filter(
    lambda parts: sum(map(len, parts)) >= 20
)


@given(LENGTHS, st.integers(1, 4), st.booleans(), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_row_comes_once_an_epoch_but_for_the_counted_rest(
    lengths: list[list[int]], world_size: int, mixed: bool, epoch: int
) -> None:
    sources = sources_of(lengths)
    sampler = Sampler(sources, TABLE, world_size=world_size, mixed=mixed, seed=3)
    steps = epoch_of(sampler, epoch)
    rows = [int(row) for step in steps for row in step.rows]
    assert len(rows) == len(set(rows))
    assert len(rows) + sum(sampler.left_over.values()) == sum(map(len, lengths))
    # At most W - 1 rows of a source cannot be divided.
    assert all(rest < world_size for rest in sampler.left_over.values())


@given(LENGTHS, st.integers(1, 3), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_batch_has_one_source_fits_its_bucket_and_divides_by_the_processes(
    lengths: list[list[int]], world_size: int, mixed: bool
) -> None:
    sources = sources_of(lengths)
    of_row = {int(row): number for number, source in enumerate(sources) for row in source.rows}
    length = np.concatenate([source.lengths for source in sources])
    for step in epoch_of(Sampler(sources, TABLE, world_size=world_size, mixed=mixed), 0):
        assert step.source is None if mixed else {of_row[int(row)] for row in step.rows} == {step.source}
        assert length[step.rows].max() <= TABLE.bounds[step.bucket]
        assert 0 < len(step.rows) <= TABLE.sizes[step.bucket] * world_size
        shards = [step.shard(rank, world_size) for rank in range(world_size)]
        assert len({len(shard) for shard in shards}) == 1
        assert np.concatenate(shards).tolist() == step.rows.tolist()


def test_only_one_batch_of_a_source_is_smaller_where_a_longer_bucket_takes_the_rest() -> None:
    source = sources_of([[5] * 9 + [15] * 4 + [30] * 2])  # 9 = 2·4 + 1; 1 + 4 = 3 + 2; 2 of 2 make a batch
    steps = epoch_of(Sampler(source, TABLE), 0)
    assert sorted((step.bucket, len(step.rows)) for step in steps) == [
        (0, 4), (0, 4), (1, 2), (1, 3), (2, 2),
    ]  # fmt: skip


def test_a_source_smaller_than_the_global_batch_is_used() -> None:
    sampler = Sampler(sources_of([[5] * 100, [5] * 3]), TABLE, world_size=2)
    used = [step for step in epoch_of(sampler, 0) if step.source == 1]
    assert [len(step.rows) for step in used] == [2]
    assert sampler.left_over == {"s1": 1}


def test_steps_do_not_depend_on_what_was_asked_before() -> None:
    sources = sources_of([[5] * 50, [15] * 33], [1.0, 2.0])
    forward, backward = (Sampler(sources, TABLE, seed=7, world_size=2) for _ in range(2))
    n = 3 * forward.steps_per_epoch
    there = [forward.step(i) for i in range(n)]
    back = [backward.step(i) for i in reversed(range(n))][::-1]
    for a, b in zip(there, back, strict=True):
        assert (a.source, a.bucket, a.rows.tolist()) == (b.source, b.bucket, b.rows.tolist())


def test_epochs_and_seeds_differ_in_order() -> None:
    sources = sources_of([[5] * 64])
    orders: dict[tuple[int, int], tuple[int, ...]] = {}
    for seed in (0, 1):
        sampler = Sampler(sources, TABLE, seed=seed)
        for epoch in (0, 1):
            rows = np.concatenate([step.rows for step in epoch_of(sampler, epoch)])
            orders[seed, epoch] = tuple(rows.tolist())
    assert len(set(orders.values())) == 4
    assert all(sorted(order) == list(range(64)) for order in orders.values())


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.lists(st.floats(0.01, 50), min_size=4, max_size=4),
    st.floats(1, 8),
)
@settings(max_examples=100, deadline=None)
def test_shares_follow_weight_and_temperature(
    sizes: list[int], weights: list[float], temperature: float
) -> None:
    pairs = list(zip(sizes, weights, strict=False))
    wants = [weight * size ** (1 / temperature) for size, weight in pairs]
    for share, want in zip(shares(pairs, temperature), wants, strict=True):
        assert share == max(1, round(sum(sizes) * want / sum(wants)))


@given(st.integers(4, 40), st.integers(4, 40), st.floats(0.05, 20))
@settings(max_examples=60, deadline=None)
def test_with_weights_no_batch_has_a_row_twice_and_all_rows_get_their_turn(
    first: int, second: int, weight: float
) -> None:
    sampler = Sampler(sources_of([[5] * first, [15] * second], [1.0, weight]), TABLE)
    counts: Counter[int] = Counter()
    epochs = 0
    while epochs < 2 or len(counts) < first + second:
        steps = epoch_of(sampler, epochs)
        assert all(len(set(step.rows.tolist())) == len(step.rows) for step in steps)
        counts.update(int(row) for step in steps for row in step.rows)
        epochs += 1
        # A source that has m of its n rows an epoch is through after n / m epochs.
        assert epochs <= 1 + max(
            np.ceil(size / share) for size, share in zip((first, second), sampler.shares, strict=True)
        )
    for rows in (range(first), range(first, first + second)):
        seen = [counts[row] for row in rows]
        assert max(seen) - min(seen) <= epochs  # a row is never more than one pass an epoch ahead of another


@given(LENGTHS, st.floats(1, 4), st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_any_temperature_plans_every_epoch(lengths: list[list[int]], temperature: float, epoch: int) -> None:
    """A source that is drawn once and a little more, where the little rounds to nothing, is no exception."""
    sampler = Sampler(sources_of(lengths), TABLE, temperature=temperature)
    drawn = sum(len(step.rows) for step in epoch_of(sampler, epoch))
    assert abs(drawn - sum(sampler.shares)) <= len(TABLE.sizes) * len(lengths)


def test_a_source_of_weight_zero_is_left_out() -> None:
    steps = epoch_of(Sampler(sources_of([[5] * 8, [5] * 8], [1.0, 0.0]), TABLE), 0)
    assert {step.source for step in steps} == {0}


def test_every_epoch_has_the_same_number_of_steps_with_weights_and_temperature() -> None:
    sources = sources_of([[5] * 41 + [15] * 7, [30] * 5, [5] * 200], [1.0, 3.0, 0.5])
    sampler = Sampler(sources, TABLE, temperature=2.0, world_size=2)
    assert {len(sampler.epoch(epoch)) for epoch in range(20)} == {sampler.steps_per_epoch}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.5}, "temperature 0.5"),
        ({"seed": -1}, "seed -1"),
        ({"world_size": 0}, "world_size 0"),
        ({"world_size": 100}, "too few for 100 processes"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampler(sources_of([[5] * 10]), TABLE, **options)


def test_nothing_to_draw_from_and_rows_beyond_the_table_are_refused() -> None:
    with pytest.raises(InputError, match="no row of a weight above 0"):
        Sampler(sources_of([[5] * 10], [0.0]), TABLE)
    with pytest.raises(InputError, match="expected finite numbers"):
        Sampler(sources_of([[5] * 10], [-1.0]), TABLE)
    with pytest.raises(InputError, match="s0: a row has 41 tokens; the batch table ends at 40"):
        Sampler(sources_of([[5, 41]]), TABLE)


def test_the_papers_tables_are_those_of_the_paper() -> None:
    lengths = np.array([1, 500, 501, 1000, 1001, 7000, 7001, 8192], dtype=np.int32)
    assert [PRETRAIN_TABLE.sizes[i] for i in PRETRAIN_TABLE.buckets(lengths, "x")] == [
        700, 700, 570, 570, 388, 128, 104, 104,
    ]  # fmt: skip
    assert FINETUNE_TABLE.sizes == (48, 32, 20, 18, 14, 14, 12, 10, 8)


def test_a_budget_of_tokens_gives_the_largest_batches_within_it() -> None:
    table = BatchTable.of_budget(4096, (64, 128, 512, 8192), group=4)
    assert table.sizes == (16, 8, 2, 1)
    assert table.up_to(100).bounds == (64, 128)
    assert table.up_to(9000).bounds == table.bounds


@pytest.mark.parametrize(("bounds", "sizes"), [((), ()), ((5, 5), (1, 1)), ((5,), (0,)), ((5,), (1, 2))])
def test_an_impossible_table_is_refused(bounds: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="BatchTable"):
        BatchTable(bounds, sizes)
