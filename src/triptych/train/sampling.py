"""Which examples make which training step, and batch sizes by length: pure functions of seed and step number.

The batching of arXiv 2402.03216v4, section 3.4: examples of about the same length and from the same data set in a
batch, the batch size from a table by length, all processes on the same bucket at a step. Unlike the published
code, nothing is silently left out: what does not fill a batch makes a smaller one, and what cannot be divided
by the number of processes is counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError


@dataclass(frozen=True, slots=True)
class BatchTable:
    """Batch sizes by length.

    Attributes:
        bounds: Ascending; bucket i has the rows of more than ``bounds[i - 1]`` and at most ``bounds[i]`` tokens.
        sizes: Rows of a batch of each bucket, for each process.
    """

    bounds: tuple[int, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip((0, *self.bounds), self.bounds, strict=False))
        if not (self.bounds and len(self.bounds) == len(self.sizes) and ascending and min(self.sizes) >= 1):
            raise InputError(
                f"BatchTable: got bounds {list(self.bounds)}, sizes {list(self.sizes)}; expected as many sizes "
                "≥ 1 as ascending bounds ≥ 1"
            )

    @classmethod
    def of_budget(cls, tokens: int, bounds: Sequence[int], group: int = 1) -> BatchTable:
        """The largest batches whose longest passages stay within a number of tokens.

        Args:
            tokens: Most tokens of a batch's passages, on each process.
            bounds: Ascending bounds of the buckets.
            group: Passages of a query.
        """
        return cls(tuple(bounds), tuple(max(1, tokens // (bound * group)) for bound in bounds))

    def up_to(self, length: int) -> BatchTable:
        """The part of the table that texts of at most `length` tokens need."""
        last = min(bisect_left(self.bounds, length), len(self.bounds) - 1)
        return BatchTable(self.bounds[: last + 1], self.sizes[: last + 1])

    def buckets(self, lengths: NDArray[np.int32], name: str) -> NDArray[np.int64]:
        """The bucket of each length.

        Raises:
            InputError: For a length beyond the last bound.
        """
        found = np.searchsorted(self.bounds, lengths, side="left")
        if len(found) and found.max() == len(self.bounds):
            longest = int(lengths.max())
            raise InputError(f"{name}: a row has {longest} tokens; the batch table ends at {self.bounds[-1]}")
        return found


_PAPER_BOUNDS = (500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8192)
PRETRAIN_TABLE = BatchTable(_PAPER_BOUNDS, (700, 570, 388, 288, 224, 180, 157, 128, 104))
"""Contrastive pre-training on GPUs of 80 GB (arXiv 2402.03216v4, appendix on implementation)."""
FINETUNE_TABLE = BatchTable(_PAPER_BOUNDS, (48, 32, 20, 18, 14, 14, 12, 10, 8))
"""Fine-tuning with 7 negatives on GPUs of 80 GB (the same place)."""


Rows = NDArray[np.int64]
_ORDER, _FULL, _WINDOW, _SHUFFLE = range(4)  # kinds of random streams


@dataclass(frozen=True, slots=True, eq=False)
class SampledSource:
    """Rows that batches are made of, without others among them.

    Attributes:
        name: For reports.
        rows: int64 ``[n]``, their numbers.
        lengths: int32 ``[n]``, their tokens.
        weight: Multiplies the source's share; 0 leaves it out.
    """

    name: str
    rows: Rows
    lengths: NDArray[np.int32]
    weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The rows of one training step.

    Attributes:
        source: Number of the source, or None for a mixed batch.
        bucket: Number of the bucket; no row is longer than its bound.
        rows: int64; the first part is that of process 0, and so on, all of the same size.
    """

    source: int | None
    bucket: int
    rows: Rows

    def shard(self, rank: int, world_size: int) -> Rows:
        """The rows of one process."""
        return self.rows.reshape(world_size, -1)[rank]


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """All steps of an epoch, in order.

    Attributes:
        left_over: By source, how many rows could not be divided by the number of processes.
    """

    _keys: NDArray[np.int32]
    _bounds: NDArray[np.int64]
    _rows: Rows
    left_over: Mapping[str, int] = field(default_factory=dict[str, int])

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, n: int) -> Step:
        if not 0 <= n < len(self):
            raise IndexError(f"step {n} of {len(self)}")
        source, bucket = (int(number) for number in self._keys[n])
        rows = self._rows[self._bounds[n, 0] : self._bounds[n, 1]]
        return Step(None if source < 0 else source, bucket, rows)


class Sampler:
    """Steps without end, each a function of the seed and its number alone.

    An epoch has as many rows as all sources together. A source's share of it is proportional to
    ``weight · n^(1/temperature)``; with equal weights and temperature 1 each row comes once an epoch. A source
    whose share is larger than it is comes several times, one whose share is smaller comes in part, another part
    in the next epoch until all had their turn. Every epoch has the same number of steps.

    Args:
        sources: What to draw from.
        table: Batch sizes by length.
        temperature: ≥ 1; larger ones make the sources more equal.
        seed: Any whole number ≥ 0.
        world_size: Number of processes.
        mixed: Let batches mix the sources (for comparison; by default a batch has one).

    Raises:
        InputError: For values out of range, no source with rows and a weight, or a row longer than the table.
    """

    def __init__(
        self,
        sources: Sequence[SampledSource],
        table: BatchTable,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        world_size: int = 1,
        mixed: bool = False,
    ) -> None:
        if temperature < 1 or seed < 0 or world_size < 1:
            raise InputError(
                f"Sampler: got temperature {temperature}, seed {seed}, world_size {world_size}; expected ≥ 1, ≥ 0, ≥ 1"
            )
        self.sources, self.table = tuple(sources), table
        self.seed, self.world_size, self.mixed = seed, world_size, mixed
        self.shares = shares([(len(source.rows), source.weight) for source in sources], temperature)
        self._memory: tuple[int, Epoch] = (0, self._plan(0))
        if not len(self._memory[1]):
            raise InputError(f"Sampler: {sum(self.shares)} rows are too few for {world_size} processes")

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of every epoch."""
        return len(self._memory[1])

    @property
    def left_over(self) -> Mapping[str, int]:
        """By source, rows of an epoch that could not be divided by the number of processes."""
        return self._memory[1].left_over

    def epoch(self, number: int) -> Epoch:
        """All steps of an epoch."""
        if self._memory[0] != number:
            self._memory = (number, self._plan(number))
        return self._memory[1]

    def step(self, n: int) -> Step:
        """Step n, from 0, of training."""
        epoch, within = divmod(n, self.steps_per_epoch)
        return self.epoch(epoch)[within]

    def _plan(self, epoch: int) -> Epoch:
        """Cuts the rows of every pass into batches and puts these in a random order."""
        passes: dict[tuple[int, int], list[Rows]] = {}
        for number, (source, share) in enumerate(zip(self.sources, self.shares, strict=True)):
            buckets = self.table.buckets(source.lengths, source.name)
            parts = [source.rows[buckets == bucket] for bucket in range(len(self.table.bounds))]
            for turn, drawn in enumerate(_passes(parts, share, (self.seed, epoch, number))):
                _merge(passes, (-1, turn) if self.mixed else (number, turn), drawn)
        steps: list[tuple[int, int, Rows]] = []
        left_over: dict[str, int] = {}
        for (number, turn), parts in passes.items():
            if self.mixed:
                shuffle = _generator(self.seed, epoch, turn, _SHUFFLE)
                parts = [shuffle.permutation(rows) for rows in parts]
            batches, left = _batches(parts, self.table.sizes, self.world_size)
            steps += [(number, bucket, rows) for bucket, rows in batches]
            if left:
                name = "mixed" if self.mixed else self.sources[number].name
                left_over[name] = left_over.get(name, 0) + left
        order = _generator(self.seed, epoch, 0, _ORDER).permutation(len(steps))
        return _pack([steps[i] for i in order], left_over)


def shares(sizes: Sequence[tuple[int, float]], temperature: float) -> list[int]:
    """How many rows of each source an epoch has: ``Σn · wᵢ nᵢ^(1/T) / Σⱼ wⱼ nⱼ^(1/T)``, rounded, at least 1.

    Args:
        sizes: Of each source, its number of rows and its weight.
        temperature: T ≥ 1.

    Raises:
        InputError: For a negative or infinite weight, or if nothing is left to draw from.
    """
    if not all(np.isfinite(weight) and weight >= 0 for _, weight in sizes):
        raise InputError(f"weights: got {[weight for _, weight in sizes]}; expected finite numbers ≥ 0")
    wants = [weight * size ** (1 / temperature) if size else 0.0 for size, weight in sizes]
    total = sum(size for size, weight in sizes if weight)
    if not sum(wants):
        raise InputError(
            f"Sampler: {len(sizes)} sources with no row of a weight above 0; expected one or more"
        )
    return [max(1, round(total * want / sum(wants))) if want else 0 for want in wants]


def _passes(parts: Sequence[Rows], share: int, key: tuple[int, int, int]) -> list[list[Rows]]:
    """The rows of a source in an epoch, by bucket: whole passes over it, then a part of it.

    No pass has a row twice. The part of a pass is a window that moves on from epoch to epoch over a fixed order.
    """
    seed, epoch, source = key
    size = sum(len(rows) for rows in parts)
    if not share:
        return []
    full, rest = divmod(share, size)
    passes = [
        [
            _generator(seed, epoch, source, _FULL, turn, bucket).permutation(rows)
            for bucket, rows in enumerate(parts)
        ]
        for turn in range(full)
    ]
    if rest:
        passes.append(
            [_window(rows, rest / size, not full, (*key, bucket)) for bucket, rows in enumerate(parts)]
        )
    return passes


def _window(rows: Rows, fraction: float, at_least_one: bool, key: tuple[int, ...]) -> Rows:
    seed, epoch, source, bucket = key
    n = len(rows)
    count = min(n, max(int(at_least_one), round(n * fraction)))
    order = _generator(seed, source, _WINDOW, bucket).permutation(rows)
    window = order[(np.arange(count) + epoch * count) % n] if n else rows
    return _generator(seed, epoch, source, _SHUFFLE, bucket).permutation(window)


def _batches(
    parts: Sequence[Rows], sizes: Sequence[int], world_size: int
) -> tuple[list[tuple[int, Rows]], int]:
    """Cuts the rows of one pass into batches, and says how many rows are left over.

    What does not fill the last batch of a bucket goes up to the next longer bucket if a batch of that one would
    take it whole; otherwise it makes a smaller batch of its own, as it does in the last bucket.
    """
    batches: list[tuple[int, Rows]] = []
    used = [bucket for bucket, rows in enumerate(parts) if len(rows)]
    if not used:  # of a source that is seen once and a little more, that little may round to nothing
        return [], 0
    carried: Rows = np.zeros(0, dtype=np.int64)
    for bucket, following in zip(used, [*used[1:], None], strict=True):
        rows = np.concatenate([carried, parts[bucket]])
        size = sizes[bucket] * world_size
        whole = len(rows) - len(rows) % size
        batches += [(bucket, rows[i : i + size]) for i in range(0, whole, size)]
        carried = rows[whole:]
        if following is None or len(carried) >= sizes[following] * world_size:
            divisible = len(carried) - len(carried) % world_size
            if divisible:
                batches.append((bucket, carried[:divisible]))
            carried = carried[divisible:]
    return batches, len(carried)


def _merge(passes: dict[tuple[int, int], list[Rows]], key: tuple[int, int], drawn: list[Rows]) -> None:
    known = passes.get(key)
    passes[key] = (
        drawn if known is None else [np.concatenate(pair) for pair in zip(known, drawn, strict=True)]
    )


def _pack(steps: Sequence[tuple[int, int, Rows]], left_over: Mapping[str, int]) -> Epoch:
    ends = np.cumsum([len(rows) for _, _, rows in steps], dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    keys = np.array([step[:2] for step in steps], dtype=np.int32).reshape(-1, 2)
    rows = np.concatenate([np.zeros(0, np.int64), *(rows for _, _, rows in steps)])
    return Epoch(keys, np.stack([starts, ends], axis=1), rows, left_over)


def _generator(*key: Any) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(part) for part in key])))
