"""Pages of hits, hits above a score, and hits in groups, each compared with plain loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
from fakes import FakeEncoder, random_texts
from oracle import Document

from triptych.errors import InputError
from triptych.index.index import Index
from triptych.index.store import EngineName
from triptych.types import Hit

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

QUERY = "w1 w2 w3"
IDS = [f"p{i:03d}" for i in range(90)]
# One document has most of the passages, and the best ones; some passages stand alone.
PARENTS: list[Any] = (
    ["big"] * 55 + [f"doc {i % 9}" for i in range(25)] + [None, 7, 7.0, True, True] + [...] * 5
)
METADATA = [{} if parent is ... else {"doc": {"parent": parent}} for parent in PARENTS]
TEXTS = ["w1 w2 w3", "w2 w1 w3 w1"] * 27 + ["w1"] + random_texts(np.random.default_rng(1), 35)


@pytest.fixture
def index(engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index]) -> Index:
    made = new_index(engine, encoder, multi="float32")
    made.add(IDS, TEXTS, METADATA)
    return made


def ranked(
    encoder: FakeEncoder, parents: Callable[[Any], bool] = lambda parent: True
) -> list[tuple[str, float]]:
    documents = [
        Document(name, encoder.encode_document(text), {})
        for name, text, parent in zip(IDS, TEXTS, PARENTS, strict=True)
        if parents(parent)
    ]
    return [(row[0], row[1]) for row in oracle.search(encoder.encode_query(QUERY), documents, None)]


def group_of(name: str) -> Any:
    parent = PARENTS[IDS.index(name)]
    return ("alone", name) if parent in (None, ...) else (isinstance(parent, bool), parent)


def groups(rows: list[tuple[str, float]], k: int, size: int) -> list[list[float]]:
    """Scores of the best of each group: plain loops."""
    found: dict[Any, list[float]] = {}
    for name, score in rows:
        found.setdefault(group_of(name), []).append(score)
    return [scores[:size] for scores in list(found.values())[:k]]


def scores(hits: list[Hit]) -> list[list[float]]:
    return [[hit.score, *(further.score for further in hit.more)] for hit in hits]


def flat(lists: list[list[float]]) -> list[float]:
    return [score for each in lists for score in each]


def test_pages_follow_each_other(index: Index) -> None:
    everything = index.search(QUERY, 90)
    assert len(everything) == 90
    for size in (1, 7, 40):
        pages = [index.search(QUERY, size, offset=at) for at in range(0, 90, size)]
        assert [hit for page in pages for hit in page] == everything
    assert index.search(QUERY, 5, offset=90) == []
    # As many are recalled as the page needs, however few candidates are asked for.
    dense = {"weights": (1, 0, 0), "routes": ("dense",)}
    few = index.search(QUERY, 10, offset=60, candidates=1, **dense)  # type: ignore[call-overload]
    assert [hit.id for hit in few] == [hit.id for hit in index.search(QUERY, 90, **dense)][60:70]  # type: ignore[call-overload]


def test_hits_below_a_score_are_left_out(index: Index, encoder: FakeEncoder) -> None:
    everything = index.search(QUERY, 90)
    least = everything[60].score
    expected = [hit for hit in everything if hit.score >= least]
    assert index.search(QUERY, 90, min_score=least) == expected
    assert index.search(QUERY, 20, min_score=least, offset=50) == expected[50:70]
    assert index.search([QUERY], 5, min_score=1e9) == [[]]
    good = index.search(QUERY, 90, group_by="doc.parent", min_score=least, group_size=90)
    assert {hit.id for group in good for hit in (group, *group.more)} == {hit.id for hit in expected}


@pytest.mark.parametrize("k", [1, 4, 12, 50])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_groups_are_those_of_plain_loops_with_all_candidates(
    index: Index, encoder: FakeEncoder, k: int, size: int
) -> None:
    hits = index.search(QUERY, k, group_by="doc.parent", group_size=size)
    expected = groups(ranked(encoder), k, size)
    assert [len(group) for group in scores(hits)] == [len(group) for group in expected]
    np.testing.assert_allclose(flat(scores(hits)), flat(expected), atol=2e-5)
    for hit in hits:
        assert {group_of(further.id) for further in hit.more} <= {group_of(hit.id)}
    assert len({group_of(hit.id) for hit in hits}) == len(hits)
    assert (
        index.search(QUERY, k, group_by="doc.parent", group_size=size, offset=2)
        == (index.search(QUERY, k + 2, group_by="doc.parent", group_size=size)[2:])
    )


def test_one_document_that_crowds_the_candidates_leaves_room_for_others(
    index: Index, encoder: FakeEncoder
) -> None:
    """Its 55 passages are all better than any other passage by each head."""
    crowded = index.search(QUERY, 10, candidates=10)
    assert {group_of(hit.id) for hit in crowded} == {(False, "big")}
    for k in (2, 5, 12, 17):
        hits = index.search(QUERY, k, group_by="doc.parent", candidates=k, group_size=3)
        assert len({group_of(hit.id) for hit in hits}) == len(hits) == min(k, 18)
        assert group_of(hits[0].id) == (False, "big")
        assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id))
        for hit in hits:  # each has its fellows, even those that were no candidates at first
            fellows = sum(group_of(name) == group_of(hit.id) for name in IDS)
            assert len(hit.more) == min(3, fellows) - 1
    few = index.search(
        [QUERY, "w9"], 3, group_by="doc.parent", candidates=1, filter={"doc.parent": {"ne": "big"}}
    )
    assert [len(hits) for hits in few] == [3, 3]
    assert not any(group_of(hit.id) == (False, "big") for hits in few for hit in hits)


def test_a_group_is_by_one_value(index: Index) -> None:
    assert len(index.search(QUERY, 90, group_by="nothing")) == 90
    assert len(index.search(QUERY, 90, group_by="id")) == 90
    with pytest.raises(
        InputError, match=r"group_by='doc': document 'p.*' has {'parent': .*expected a string"
    ):
        index.search(QUERY, 90, group_by="doc")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": -1}, "got offset=-1; expected an integer ≥ 0"),
        ({"offset": 1.5}, "got offset=1.5"),
        ({"min_score": "a"}, "got min_score='a'; expected a finite number"),
        ({"min_score": float("nan")}, "got min_score=nan"),
        ({"group_by": 5}, "got group_by 5; expected a field's name"),
        ({"group_by": "a..b"}, "got group_by 'a..b'"),
        ({"group_size": 0}, "got group_size=0"),
    ],
    ids=str,
)
def test_wrong_options_are_errors_that_name_them(index: Index, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        index.search(QUERY, **options)
