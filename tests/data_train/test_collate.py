"""From rows to tokens: which passages are chosen, and that the choice depends on seed, step and row alone."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.errors import InputError
from triptych.train.collate import Collator, PairIds
from triptych.train.data import Datasets, PairLimits, PairRow, open_pairs

from .words import WordTokenizer, ids_of, text_of

LIMITS = PairLimits(query_max=8, passage_max=8, query_prefix="query: ", document_prefix="doc: ", prompts=True)
RICH: list[dict[str, Any]] = [
    {"query": f"q{i}", "pos": [f"p{i}a", f"p{i}b"], "neg": [f"n{i}{letter}" for letter in "vwxyz"]}
    for i in range(6)
]
POOR: list[dict[str, Any]] = [{"query": f"r{i}", "pos": [f"s{i}"]} for i in range(4)]
UNEVEN: list[dict[str, Any]] = [
    {"query": f"u{i}", "pos": [f"v{i}"], "neg": [f"w{i}{k}" for k in range(i)]} for i in range(5)
]
SCORED: list[dict[str, Any]] = [
    row | {"pos_scores": [float(i)], "neg_scores": [k / 10 for k in range(i)]} for i, row in enumerate(UNEVEN)
]


def datasets(folder: Path, *parts: list[dict[str, Any]]) -> Datasets[PairRow]:
    opened = []
    for number, rows in enumerate(parts):
        file = folder / f"{number}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        opened.append(open_pairs(file, WordTokenizer(), LIMITS, cache=folder / "cache"))
    return Datasets(opened)


def collator(data: Datasets[PairRow], **options: Any) -> Collator:
    return Collator(data, **options)


def texts_of(ids: PairIds) -> list[list[str]]:
    """The passages of each query as words, undoing the tokenizer."""
    words = [text_of(passage) for passage in ids.passages]
    assert all(word.startswith("doc: ") for word in words)
    plain = [word.removeprefix("doc: ") for word in words]
    return [plain[i : i + ids.group] for i in range(0, len(plain), ids.group)]


def test_the_positive_of_query_i_is_column_i_g_and_its_negatives_follow(tmp_path: Path) -> None:
    ids = collator(datasets(tmp_path, RICH), group=4)([4, 0, 2], step=9)
    assert (len(ids.queries), len(ids.passages), ids.group) == (3, 12, 4)
    assert [query.tolist() for query in ids.queries] == [ids_of(f"query: q{row}") for row in (4, 0, 2)]
    for row, passages in zip((4, 0, 2), texts_of(ids), strict=True):
        assert passages[0] in RICH[row]["pos"]
        assert len(set(passages[1:])) == 3
        assert set(passages[1:]) <= set(RICH[row]["neg"])
    assert ids.teacher_scores is None


def test_a_prompt_stands_in_place_of_the_prefix_and_limits_cut(tmp_path: Path) -> None:
    rows = [{"query": "a b c d e f g h", "prompt": "find: ", "pos": ["x " * 20]}]
    ids = collator(datasets(tmp_path, rows))([0], 0)
    assert ids.queries[0].tolist() == [*ids_of("find: a b c d e")[:7], 2]
    assert len(ids.passages[0]) == 8
    opened = open_pairs(
        tmp_path / "0.jsonl", WordTokenizer(), replace(LIMITS, prompts=False), cache=tmp_path / "other"
    )
    assert text_of(opened[0].query) == "query: a b c d e"


def test_choices_depend_on_seed_step_and_row_and_not_on_the_others_in_the_batch(tmp_path: Path) -> None:
    data = datasets(tmp_path, RICH, UNEVEN)
    make = collator(data, group=3, seed=5)
    for rows in (range(6), range(6, 11)):
        whole = texts_of(make(list(rows), 3))
        halves = texts_of(make(list(rows)[:2], 3)) + texts_of(make(list(rows)[2:], 3))
        assert whole == halves
        assert whole == texts_of(collator(data, group=3, seed=5)(list(rows), 3))
        assert whole != texts_of(make(list(rows), 4))
        assert whole != texts_of(collator(data, group=3, seed=6)(list(rows), 3))


def test_every_positive_and_negative_is_chosen_equally_often(tmp_path: Path) -> None:
    make = collator(datasets(tmp_path, RICH), group=3)
    seen = Counter(text for step in range(1500) for text in texts_of(make([1], step))[0])
    for text in RICH[1]["pos"]:
        assert 650 < seen[text] < 850  # 750 ± 5 standard deviations
    for text in RICH[1]["neg"]:
        assert 500 < seen[text] < 700  # 600


def test_without_negatives_only_the_positives_are_taken(tmp_path: Path) -> None:
    ids = collator(datasets(tmp_path, RICH, POOR), group=8)([6, 9], 0)
    assert ids.group == 1
    assert texts_of(ids) == [["s0"], ["s3"]]


def test_the_group_is_not_larger_than_the_richest_row_can_fill(tmp_path: Path) -> None:
    data = datasets(tmp_path, RICH, UNEVEN)
    make = collator(data, group=8)
    assert make.group_size([0, 1]) == 6
    assert make.group_size([7]) == 5
    mixed = collator(data, group=8, mixed=True)
    assert mixed.group_size([7]) == mixed.group_size([0]) == 6


def test_a_row_with_fewer_negatives_borrows_positives_of_other_rows(tmp_path: Path) -> None:
    make = collator(datasets(tmp_path, RICH, UNEVEN), group=5)
    for step in range(40):
        for row, passages in enumerate(texts_of(make(list(range(6, 11)), step))):
            own = {f"w{row}{k}" for k in range(row)}
            assert passages[0] == f"v{row}"
            assert set(passages[1 : 1 + row]) == own
            borrowed = passages[1 + row :]
            assert set(borrowed) <= {f"v{other}" for other in range(5) if other != row}
            assert len(set(borrowed)) == len(borrowed)


def test_the_published_filling_repeats_a_rows_own_negatives(tmp_path: Path) -> None:
    make = collator(datasets(tmp_path, UNEVEN), group=5, fill="repeat")
    for row, passages in enumerate(texts_of(make([1, 2, 3], 0)), start=1):
        counts = Counter(passages[1:])
        assert set(counts) == {f"w{row}{k}" for k in range(row)}
        assert max(counts.values()) - min(counts.values()) <= 1


def test_teacher_scores_follow_their_passages(tmp_path: Path) -> None:
    ids = collator(datasets(tmp_path, SCORED), group=5)([0, 2, 4], 1)
    assert ids.teacher_scores is not None
    assert ids.teacher_scores.dtype == np.float32
    assert ids.teacher_scores.shape == (3, 5)
    for row, passages, scores in zip((0, 2, 4), texts_of(ids), ids.teacher_scores, strict=True):
        known = {f"v{row}": float(row)} | {f"w{row}{k}": k / 10 for k in range(row)}
        assert scores.tolist() == pytest.approx([known.get(text, -np.inf) for text in passages])
    assert np.isinf(ids.teacher_scores).sum(axis=1).tolist() == [4, 0, 0]  # row 2 repeats its two


def test_a_row_without_scores_among_scored_ones_is_nan(tmp_path: Path) -> None:
    ids = collator(datasets(tmp_path, RICH, SCORED), group=3, mixed=True)([0, 8], 0)
    assert ids.teacher_scores is not None
    assert np.isnan(ids.teacher_scores).all(axis=1).tolist() == [True, False]


def test_rows_that_all_share_their_passages_cannot_lend(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"query": "a", "pos": ["same"]},
        {"query": "b", "pos": ["same"], "neg": ["n"]},
    ]
    with pytest.raises(InputError, match="no passage of another row"):
        collator(datasets(tmp_path, rows))([0], 0)
    assert texts_of(collator(datasets(tmp_path, rows))([1], 0)) == [["same", "n"]]


def test_one_process_and_two_make_the_same_step(tmp_path: Path) -> None:
    from triptych.train.sampling import BatchTable, Sampler

    data = datasets(tmp_path, RICH, UNEVEN)
    make = collator(data, group=3)
    sampler = Sampler(data.sources(), BatchTable((8,), (2,)), world_size=2)
    for n in range(2 * sampler.steps_per_epoch):
        step = sampler.step(n)
        parts = [make(step.shard(rank, 2), n) for rank in range(2)]
        whole = make(step.rows, n)
        assert {part.group for part in parts} == {whole.group}
        assert [p.tolist() for part in parts for p in part.passages] == [p.tolist() for p in whole.passages]


@pytest.mark.parametrize("options", [{"group": 0}, {"seed": -1}, {"fill": "zeros"}])
def test_values_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Collator"):
        collator(datasets(tmp_path, RICH), **options)


def test_a_batch_of_tensors_is_the_same_packed(tmp_path: Path) -> None:

    from triptych.train.collate import PairBatch

    ids = collator(datasets(tmp_path, SCORED), group=5)([0, 2], 1)
    batch = PairBatch.of(ids)
    assert batch.passages.ids.tolist() == np.concatenate(ids.passages).tolist()
    assert batch.queries.lengths == tuple(map(len, ids.queries))
    assert batch.teacher_scores is not None
    assert batch.teacher_scores.shape == (2, 5)
