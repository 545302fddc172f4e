"""What was found right on a machine is not tried again there."""

from pathlib import Path

import pytest

from triptych.model import machine
from triptych.model.machine import problem_here


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache."""
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    return tmp_path


def outcomes(*answers: str | None) -> tuple[list[str | None], list[str | None]]:
    """What `problem_here` says in turn, and which of the answers it asked for."""
    asked: list[str | None] = []

    def find(answer: str | None) -> str | None:
        asked.append(answer)
        return answer

    return [problem_here("some-kernels", lambda answer=answer: find(answer)) for answer in answers], asked


def test_what_is_right_is_tried_once_and_what_is_wrong_every_time() -> None:
    assert outcomes("wrong", "wrong", None, "not asked") == (
        ["wrong", "wrong", None, None],
        ["wrong", "wrong", None],
    )


def test_another_processor_torch_or_release_is_tried_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcomes(None) == ([None], [None])
    for name, value in (("torch.__version__", "0.0"), ("triptych.model.machine.__version__", "0.0")):
        monkeypatch.setattr(name, value)
        machine._machine.cache_clear()
        assert outcomes("wrong") == (["wrong"], ["wrong"])
    monkeypatch.undo()
    machine._machine.cache_clear()


def test_a_cache_that_cannot_be_written_is_no_error(folder: Path) -> None:
    (folder / "triptych").write_text("a file in the folder's place")
    assert outcomes(None, None) == ([None, None], [None, None])
