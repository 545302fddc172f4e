"""From rows of a training step to packed tensors: its queries, with one positive and some negatives each.

`ahead` prepares the next steps while one is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.errors import InputError
from triptych.model.packed import Packed
from triptych.train.data import Datasets, Ids, PairDataset, PairRow, text_key
from triptych.train.objective import Answers
from triptych.types import Floats

_T = TypeVar("_T")


def ahead(make: Callable[[int], _T], start: int, stop: int, depth: int = 2) -> Iterator[_T]:
    """``make(start)`` to ``make(stop - 1)``, in order, made in another thread before they are asked for.

    One thread is enough: the tokenizer uses all processors and holds no lock of Python's meanwhile. Since every
    step is a function of its number, what was prepared and not used is simply made again after an interruption.

    Args:
        make: Makes one item; called in order, by one thread.
        start: First number.
        stop: After the last.
        depth: Items that are made in advance, at least 1.

    Raises:
        InputError: For a `depth` below 1.
        Exception: What `make` raises, where its item would have come.
    """
    if depth < 1:
        raise InputError(f"ahead: got depth {depth}; expected at least 1")
    return _ahead(make, start, stop, depth)


def _ahead(make: Callable[[int], _T], start: int, stop: int, depth: int) -> Iterator[_T]:
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="triptych-ahead")
    try:
        waiting: deque[Future[_T]] = deque()
        for number in range(start, stop):
            waiting.append(pool.submit(make, number))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


Fill: TypeAlias = Literal["random", "repeat"]
_TRIES = 16


@dataclass(frozen=True, slots=True, eq=False)
class PairIds:
    """The tokens of one process's part of a step.

    Attributes:
        queries: Token ids of Q queries, special tokens included, int32.
        passages: Token ids of Q·G passages; the positive of query i is number i·G, its negatives follow.
        group: G.
        teacher_scores: float32 ``[Q, G]``, a teacher's scores, or None if no row has any. A row that has none is
            all NaN; a passage that was sampled at random has −inf, which is the teacher's probability 0.
        teacher_vectors: float32 ``[Q + Q·G, T]``, a teacher's vectors of the queries, then of the passages, or None if
            no row has any; NaN for a text that has none.
        answers: For each query the keys (`triptych.train.data.text_key`) of all passages labelled as its positives.
        prompts: For each query the tokens of its own prompt, [CLS] included, or None.
    """

    queries: Sequence[Ids]
    passages: Sequence[Ids]
    group: int
    teacher_scores: Floats | None
    teacher_vectors: Floats | None
    answers: Sequence[frozenset[int]]
    prompts: Sequence[tuple[int, ...] | None] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """The passages chosen for a query: a positive and G − 1 negatives, with what a teacher says of them if known."""

    passages: tuple[Ids, ...]
    scores: tuple[float, ...] | None
    vectors: Floats | None = None


class Collator:
    """Chooses the passages of a step's rows.

    Of each row one positive is taken at random, and G − 1 negatives without repetition (arXiv 2402.03216v4 and
    the published code). All draws depend on the seed, the step and the row alone, so that it does not matter how
    many processes share the step, nor where training was interrupted.

    If the rows' data sets have fewer than G − 1 negatives even in their richest row, G is made smaller: without
    any negatives it is 1, and only the other queries' passages compete. A row with fewer negatives than others of
    its data set is filled up: with `fill` = "random" by positives of other rows of the same data set (what an
    in-batch negative is too), with "repeat", as the published code does, by its own negatives once more, which
    doubles their weight; a row with none always by the former, and a row with a teacher's scores by the latter,
    since a random passage has no score.

    Args:
        datasets: Where the rows are.
        group: G, passages of a query, at least 1.
        seed: Any whole number ≥ 0.
        fill: What fills a row up.
        mixed: Whether batches mix the data sets; G is then the same for all of them.

    Raises:
        InputError: For values out of range.
    """

    def __init__(
        self,
        datasets: Datasets[PairRow],
        *,
        group: int = 8,
        seed: int = 0,
        fill: Fill = "random",
        mixed: bool = False,
    ) -> None:
        if group < 1 or seed < 0 or fill not in get_args(Fill):
            raise InputError(
                f"Collator: got group {group}, seed {seed}, fill {fill!r}; expected ≥ 1, ≥ 0, one of {get_args(Fill)}"
            )
        self.datasets = datasets
        self.group, self.seed, self.fill, self.mixed = group, seed, fill, mixed

    def __call__(self, rows: Sequence[int] | NDArray[np.int64], step: int) -> PairIds:
        """The tokens of some rows.

        Args:
            rows: Their numbers in `datasets`; those of one process.
            step: Number of the training step.
        """
        numbers = [int(row) for row in rows]
        size = self.group_size(numbers)
        examples = [self.datasets[row] for row in numbers]
        groups = [
            self.choose(example, row, step, size) for example, row in zip(examples, numbers, strict=True)
        ]
        return PairIds(
            [example.query for example in examples],
            [passage for group in groups for passage in group.passages],
            size,
            _teacher([group.scores for group in groups], size),
            _vectors(examples, [group.vectors for group in groups]),
            [self._answers(example, row) for example, row in zip(examples, numbers, strict=True)],
            [example.prompt for example in examples],
        )

    def _answers(self, example: PairRow, row: int) -> frozenset[int]:
        number = self.datasets.part_of(row)
        part = self.datasets.parts[number]
        if isinstance(part, PairDataset):
            return part.answers(row - int(self.datasets.offsets[number]))
        return frozenset(text_key(passage) for passage in example.passages[: example.positives])

    def group_size(self, rows: Sequence[int]) -> int:
        """G for these rows: a function of their data sets alone, so that all processes agree."""
        parts = (
            range(len(self.datasets.parts)) if self.mixed else {self.datasets.part_of(row) for row in rows}
        )
        used = [self.datasets.parts[part] for part in parts]
        most = max((_max_negatives(part) for part in used), default=0)
        return min(self.group, 1 + most)

    def choose(self, example: PairRow, row: int, step: int, size: int) -> Group:
        """The passages of one row: the positive first, then `size` − 1 negatives."""
        random = np.random.default_rng([self.seed, step, row])
        positive = int(random.integers(example.positives))
        want, have = size - 1, len(example.passages) - example.positives
        chosen = [int(i) for i in random.permutation(have)[:want]]
        repeat = have and (self.fill == "repeat" or example.scores is not None)
        while repeat and len(chosen) < want:
            chosen += [int(i) for i in random.permutation(have)[: want - len(chosen)]]
        places = [positive, *(example.positives + i for i in chosen)]
        extra = self._borrow(example, row, size - len(places), random)
        scores = None
        if example.scores is not None:
            scores = (*example.scores[places].tolist(), *(-np.inf,) * len(extra))
        vectors = None
        if example.vectors is not None:
            unknown = np.full((len(extra), example.vectors.shape[1]), np.nan, dtype=np.float32)
            vectors = np.concatenate([example.vectors[1:][places], unknown])
        return Group((*(example.passages[i] for i in places), *extra), scores, vectors)

    def _borrow(self, example: PairRow, row: int, count: int, random: np.random.Generator) -> list[Ids]:
        """Positives of other rows of the data set, none of them one of the row's own passages if it can be helped.

        Rows that are not longer than this one are preferred: the batch size was chosen for its length.
        """
        if count < 1:
            return []
        part = self.datasets.part_of(row)
        start, lengths = int(self.datasets.offsets[part]), self.datasets.parts[part].lengths
        taken, answers = {passage.tobytes() for passage in example.passages}, self._answers(example, row)
        borrowed: list[Ids] = []
        tries = 0
        while len(borrowed) < count:
            tries += 1
            other = int(random.integers(len(lengths)))
            patient = tries < _TRIES * count
            if patient and lengths[other] > lengths[row - start]:
                continue
            others = self.datasets[start + other]
            passage = others.passages[int(random.integers(others.positives))]
            if passage.tobytes() in taken or text_key(passage) in answers:
                if tries < 2 * _TRIES * count:
                    continue
                passage = _last_resort(example, len(borrowed), row)
            borrowed.append(passage)
            taken.add(passage.tobytes())
        return borrowed


def _last_resort(example: PairRow, number: int, row: int) -> Ids:
    """For a data set whose rows all share their passages."""
    if negatives := example.passages[example.positives :]:
        return negatives[number % len(negatives)]
    raise InputError(
        f"row {row}: no passage of another row can serve as a negative: the whole data set has the same passages; "
        "expected negatives, or group=1"
    )


def _max_negatives(part: object) -> int:
    """A data set that does not know counts as having enough."""
    return part.max_negatives if isinstance(part, PairDataset) else 1 << 30


def _teacher(scores: Sequence[tuple[float, ...] | None], size: int) -> Floats | None:
    if all(row is None for row in scores):
        return None
    return np.array([(np.nan,) * size if row is None else row for row in scores], dtype=np.float32)


def _vectors(examples: Sequence[PairRow], groups: Sequence[Floats | None]) -> Floats | None:
    """Those of the queries, then those of the passages."""
    known = [example.vectors for example in examples if example.vectors is not None]
    if not known:
        return None
    absent = np.full_like(known[0][:1], np.nan)
    size = max(len(group) for group in groups if group is not None)
    queries = [absent if example.vectors is None else example.vectors[:1] for example in examples]
    passages = [absent.repeat(size, 0) if group is None else group for group in groups]
    return np.concatenate([*queries, *passages])


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Q queries with G passages each.

    Attributes:
        queries: The queries.
        passages: Q·G passages; the positive of query i is number i·G.
        group: G.
        teacher_scores: float32 ``[Q, G]`` or None; NaN in a row without scores, −inf for a passage sampled at random.
        teacher_vectors: float32 ``[Q + Q·G, T]`` of queries and passages or None; NaN for a text without one.
        keys: int64 ``[Q·G]``, equal for passages with equal tokens; None: not needed.
        answers: Keys of the passages that are labelled as positives of the queries; None: not needed.
    """

    queries: Packed
    passages: Packed
    group: int
    teacher_scores: Tensor | None = None
    teacher_vectors: Tensor | None = None
    keys: Tensor | None = None
    answers: Answers | None = None

    @classmethod
    def of(cls, ids: PairIds, *, keyed: bool = False) -> PairBatch:
        """Packs what a `Collator` returns, on the processor.

        Args:
            ids: Tokens of queries and passages.
            keyed: Whether `keys` and `answers` are needed.
        """
        scores = None if ids.teacher_scores is None else torch.from_numpy(ids.teacher_scores)
        vectors = None if ids.teacher_vectors is None else torch.from_numpy(ids.teacher_vectors)
        keys = answers = None
        if keyed:
            keys = torch.tensor([text_key(passage) for passage in ids.passages], dtype=torch.int64)
            pairs = [(key, query) for query, known in enumerate(ids.answers) for key in sorted(known)]
            answers = Answers(*torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1))
        prompts = tuple(ids.prompts) if any(prompt is not None for prompt in ids.prompts) else None
        queries = Packed.of(ids.queries, prompts=prompts)
        return cls(queries, Packed.of(ids.passages), ids.group, scores, vectors, keys, answers)

    def joint(self) -> Packed:
        """Queries and passages as one batch, queries first."""
        first, second = self.queries, self.passages
        offsets = torch.cat([first.offsets, second.offsets[1:] + first.offsets[-1]])
        lengths, prompts = first.lengths + second.lengths, None
        if first.prompts is not None:
            prompts = first.prompts + (None,) * len(second)
        return Packed(torch.cat([first.ids, second.ids]), offsets, lengths, prompts=prompts)
