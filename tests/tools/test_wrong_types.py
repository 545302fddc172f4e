"""Public functions of the tools refuse what they cannot use with an error of ours, whatever comes."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triptych.errors import DataError, InputError, TriptychError
from triptych.tools.check import check
from triptych.tools.convert import convert
from triptych.tools.negatives.mine import MiningInputs
from triptych.tools.negatives.options import FilterOptions, Margin, MiningOptions, RankingOptions
from triptych.tools.pairs.base import Limits
from triptych.tools.pairs.duplicates import read_evaluation
from triptych.tools.pairs.filters import Consistency, Thresholds
from triptych.tools.pairs.pipeline import mine_pairs
from triptych.tools.pairs.reading import Origin, mined_files
from triptych.tools.pairs.settings import PairSettings, with_changes
from triptych.tools.synthesize.asking import Budget, Patience, Prices
from triptych.tools.synthesize.client import Endpoint
from triptych.tools.synthesize.passages import Sampling
from triptych.tools.synthesize.questions import QuestionLimits
from triptych.tools.synthesize.synthesize import QuestionRecipe, Synthesis, synthesize

CLASSES: list[tuple[type[Any], dict[str, Any]]] = [
    (MiningInputs, {"train": ["a.jsonl"]}),
    *((cls, {}) for cls in (FilterOptions, Margin, MiningOptions, RankingOptions, Limits, Consistency)),
    *(
        (cls, {})
        for cls in (Thresholds, Origin, PairSettings, Budget, Patience, Prices, Sampling, QuestionLimits)
    ),
    (QuestionRecipe, {}),
    (Endpoint, {"base_url": "http://x", "model": "m"}),
]


def no_place(text: str) -> bool:
    """Whether a text names no folder that is there: one that does would be read, however large."""
    return "/" not in text and text not in {".", ".."}


STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=3).filter(no_place),
    st.binary(max_size=3),
    st.sampled_from(["\udcff", object(), Path("x"), {"a": 1}, {1, 2}, (), (1, "x"), ("\udcff",), [None]]),
    st.lists(st.one_of(st.integers(), st.text(max_size=2).filter(no_place), st.none()), max_size=3),
)


@pytest.mark.parametrize(("cls", "given_"), CLASSES, ids=[cls.__name__ for cls, _ in CLASSES])
@settings(deadline=None)
@given(data=st.data())
def test_a_setting_of_another_type_is_refused_by_its_name(
    cls: type[Any], given_: dict[str, Any], data: st.DataObject
) -> None:
    name = data.draw(
        st.sampled_from([field for field in cls.__dataclass_fields__ if not field.startswith("_")])
    )
    with contextlib.suppress(InputError):
        cls(**{**given_, name: data.draw(STRANGE)})


NAMES = [
    "mine_pairs sources",
    "mine_pairs out",
    "mine_pairs settings",
    "mine_pairs workers",
    "mined_files",
    "with_changes",
    "check",
    "with_changes value",
    "convert name",
    "convert paths",
    "convert out",
    "Margin.parse",
    "synthesize read",
    "synthesize out",
    "synthesize answers",
]


def calls(tmp_path: Path) -> dict[str, Callable[[Any], object]]:
    text = tmp_path / "a.md"
    text.write_text("# A\n\nb\n")
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m")
    return {
        "mine_pairs sources": lambda value: mine_pairs(value, tmp_path / "none" / "x"),
        "mine_pairs out": lambda value: mine_pairs(tmp_path / "nowhere.md", value),
        "mine_pairs settings": lambda value: mine_pairs(tmp_path / "nowhere.md", tmp_path / "o", value),
        "mine_pairs workers": lambda value: mine_pairs(
            tmp_path / "nowhere.md", tmp_path / "o", workers=value
        ),
        "mined_files": mined_files,
        "with_changes": lambda value: with_changes(PairSettings(), value),
        "with_changes value": lambda value: with_changes(PairSettings(), {"near": value}),
        "check": check,
        "convert name": lambda value: convert(value, [tmp_path / "nowhere"], tmp_path / "c.jsonl"),
        "convert paths": lambda value: convert("auto", value, tmp_path / "c.jsonl"),
        "convert out": lambda value: convert("auto", [tmp_path / "nowhere"], value),
        "Margin.parse": Margin.parse,
        "synthesize read": lambda value: synthesize(
            Synthesis(value, endpoint), tmp_path / "q.jsonl", tmp_path / "a.sqlite"
        ),
        "synthesize out": lambda value: synthesize(
            Synthesis(lambda: iter(()), endpoint), value, tmp_path / "a.sqlite"
        ),
        "synthesize answers": lambda value: synthesize(
            Synthesis(lambda: iter(()), endpoint), tmp_path / "q.jsonl", value
        ),
    }


@pytest.mark.parametrize("name", [*NAMES])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=STRANGE)
def test_an_argument_of_another_type_is_refused(
    name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    with contextlib.suppress(TriptychError):
        calls(tmp_path)[name](value)


def write_strange(folder: Path) -> None:
    """A good file, one whose name is not UTF-8, and a pipe."""
    folder.mkdir()
    text = "# A title\n\n" + "Water is heated in the lower part of the pot and rises through the coffee. " * 3
    (folder / "good.md").write_text(text)
    (folder / os.fsdecode(b"caf\xe9.md")).write_text(text)
    os.mkfifo(folder / "pipe.md")


def test_files_without_a_name_in_unicode_and_pipes_are_skipped_and_the_others_mined(tmp_path: Path) -> None:
    write_strange(tmp_path / "folder")
    skipped: list[Path] = []
    settings = PairSettings(filters=(), kinds=("title-body",))
    mined = mine_pairs(
        tmp_path / "folder", tmp_path / "out", settings, on_skip=lambda path, _: skipped.append(path)
    )
    assert sorted(map(os.fsencode, (path.name for path in skipped))) == [b"caf\xe9.md", b"pipe.md"]
    assert mined.counts.kept.total() == 1


def test_a_file_or_folder_without_a_name_in_unicode_that_is_given_is_refused(tmp_path: Path) -> None:
    write_strange(tmp_path / "folder")
    (tmp_path / os.fsdecode(b"\xe9")).mkdir()
    for path, message in (
        (tmp_path / "folder" / os.fsdecode(b"caf\xe9.md"), r"caf\\xe9\.md: the name is not UTF-8"),
        (tmp_path / os.fsdecode(b"\xe9"), "the name is not UTF-8"),
        ("\ud800.md", r"\\ud800\.md: the name is not UTF-8"),
        (tmp_path / "folder" / "pipe.md", "is a pipe or device"),
    ):
        with pytest.raises(DataError, match=message):
            mined_files(path)
    with pytest.raises(InputError, match="expected a name in UTF-8"):
        PairSettings(origin=Origin(source="\udce9"))


def test_an_evaluation_file_that_is_nested_deeply_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": ' + "[" * 900 + '"deep"' + "]" * 900 + "}\n")
    assert list(read_evaluation([tmp_path / "a.jsonl"])) == [("deep", True)]
