"""Exact and near duplicates: the fast joins against slow, obvious ones."""

import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from triptych.text import units
from triptych.tools.pairs import duplicates
from triptych.tools.pairs.base import WeakPair
from triptych.tools.pairs.duplicates import (
    frequent,
    key_range,
    later_owners,
    near_duplicates,
    pair_ids,
    shingles,
    signatures,
    write_keys,
)
from triptych.tools.pairs.stages import is_shuffled, read_part, shuffling


def pair(query: str, passage: str) -> WeakPair:
    return WeakPair(query, passage, "title-body", "s", "k", "en", "en")


def jaccard(first: str, second: str) -> float:
    """Of the sets of two words in a row, borders included, by definition."""
    sets = []
    for text in (first, second):
        words = ["<", *units(text), ">"]
        sets.append({tuple(words[i : i + 2]) for i in range(len(words) - 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


KEYS = st.lists(st.tuples(st.sampled_from([0, 1, 2**63, 2**64 - 1, 77]), st.integers(0, 9)), max_size=30)


@given(KEYS, st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_joins_by_ranges_are_the_joins_of_all_keys(
    tmp_path_factory: object, entries: list[tuple[int, int]], ranges: int, files: int, least: int
) -> None:
    folder = Path(tmp_path_factory.mktemp("keys"))  # type: ignore[attr-defined]
    paths = [folder / f"{number}.npy" for number in range(files)]
    for number, path in enumerate(paths):
        mine = entries[number::files]
        write_keys(path, np.array([k for k, _ in mine], np.uint64), np.array([i for _, i in mine], np.uint64))
    tables = [key_range(paths, number, ranges) for number in range(ranges)]
    assert [tuple(row) for table in tables for row in table.tolist()] == sorted(entries)
    counts = Counter(key for key, _ in entries)
    assert [key for table in tables for key in frequent(table, least).tolist()] == sorted(
        key for key, count in counts.items() if count >= least
    )
    expected = {
        (owner, min(other for k, other in entries if k == key))
        for key, owner in entries
        if owner != min(other for k, other in entries if k == key)
    }
    assert {tuple(edge) for table in tables for edge in later_owners(table).tolist()} == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.text(" aü字\r\u2028", max_size=5)), max_size=20))
def test_every_line_comes_back_in_its_part_and_in_order(
    tmp_path_factory: object, lines: list[tuple[int, str]]
) -> None:
    path = Path(tmp_path_factory.mktemp("shuffle")) / "a.frames"  # type: ignore[attr-defined]
    assert not is_shuffled(path)
    with shuffling(path) as writer:
        for number, (part, line) in enumerate(lines):
            writer.add(part, line + "\n")
            if number % 7 == 6:
                writer.flush()
    assert is_shuffled(path)
    for part in range(4):
        assert list(read_part([path], part)) == [line for where, line in lines if where == part]


def test_a_shuffle_that_fails_leaves_nothing(tmp_path: Path) -> None:
    try:
        with shuffling(tmp_path / "a.frames") as writer:
            writer.add(0, "x\n")
            raise KeyError("stop")
    except KeyError:
        pass
    assert list(tmp_path.iterdir()) == []


@given(st.text("ab c", max_size=20))
def test_shingles_are_the_set_of_two_words_in_a_row(text: str) -> None:
    words = ["<", *units(text), ">"]
    assert len(shingles(text)) == len({tuple(words[i : i + 2]) for i in range(len(words) - 1)})


def test_agreement_of_signatures_estimates_the_jaccard_index() -> None:
    drawing = random.Random(0)
    words = [f"w{i}" for i in range(200)]
    for share in (0.0, 0.1, 0.3):
        first = [" ".join(drawing.sample(words, 80)) for _ in range(40)]
        second = [
            " ".join(w if drawing.random() > share else "new" + w for w in text.split()) for text in first
        ]
        one, two = signatures(first), signatures(second)
        estimate = (one == two).mean()
        truth = np.mean([jaccard(a, b) for a, b in zip(first, second, strict=True)])
        assert abs(estimate - truth) < 0.05
    assert signatures([]).shape == (0, duplicates.VALUES)
    assert (signatures(["a b", "a b", ""])[0] == signatures(["x", "a b"])[1]).all()


def test_duplicates_are_those_of_comparing_all_pairs(tmp_path: Path) -> None:
    drawing = random.Random(1)
    words = [f"word{i}" for i in range(300)]

    def variant(text: str, share: float) -> str:
        return " ".join(word if drawing.random() > share else drawing.choice(words) for word in text.split())

    pairs: list[WeakPair] = []
    for _ in range(30):
        query, passage = " ".join(drawing.sample(words, 12)), " ".join(drawing.sample(words, 100))
        pairs += [
            pair(query, passage),
            pair(query.upper(), passage + "!"),
            pair(query, variant(passage, 0.02)),
            pair(query, variant(passage, 0.6)),
            pair(" ".join(drawing.sample(words, 12)), passage),
        ]
    drawing.shuffle(pairs)
    parts = [pairs[:60], pairs[60:61], [], pairs[61:]]
    for part, some in enumerate(parts):
        duplicates.write_signs(tmp_path, part, some, near=True)
    numbered = {
        int(id_): found
        for part, some in enumerate(parts)
        for id_, found in zip(pair_ids(part, len(some)), some, strict=True)
    }
    exact: set[tuple[int, int]] = set()
    near: set[int] = set()
    for ranges in (1, 3):
        files = [duplicates.exact_file(tmp_path, part) for part in range(4)]
        tables = [later_owners(key_range(files, number, ranges)).tolist() for number in range(ranges)]
        exact = {tuple(edge) for table in tables for edge in table}
        edges = [near_duplicates(tmp_path, 4, number, ranges, 0.8).tolist() for number in range(ranges)]
        near = {edge[0] for table in edges for edge in table}
        assert all(edge[1] < edge[0] for table in edges for edge in table)
    words_of = {id_: (units(p.query), units(p.passage)) for id_, p in numbered.items()}
    firsts: dict[str, int] = {}
    for id_ in sorted(numbered):
        firsts.setdefault(repr(words_of[id_]), id_)
    assert exact == {(i, firsts[repr(w)]) for i, w in words_of.items() if firsts[repr(w)] != i}
    likeness = {
        (a, b): min(jaccard(p.query, q.query), jaccard(p.passage, q.passage))
        for (a, p), (b, q) in combinations(sorted(numbered.items()), 2)
    }
    # An estimate from 60 values is within 0.2 here; between, either answer is right.
    assert {b for (_, b), like in likeness.items() if like >= 0.95} <= near
    assert near <= {b for (_, b), like in likeness.items() if like >= 0.6}


def test_without_near_duplicates_nothing_is_written_for_them(tmp_path: Path) -> None:
    duplicates.write_signs(tmp_path, 0, [pair("a", "b")], near=False)
    assert [path.name for path in tmp_path.iterdir()] == ["exact-00000.npy"]
