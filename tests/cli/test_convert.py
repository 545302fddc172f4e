"""`triptych data convert`."""

import json
from pathlib import Path

from readers import samples
from triptych.cli.command import fields_of
from triptych.cli.data import convert
from triptych.collections.catalogue import AUTO, CONVERTIBLE

from .conftest import Run


def test_data_convert_writes_examples_and_shows_what_was_left_out(run: Run, tmp_path: Path) -> None:
    samples.put(tmp_path / "t2", samples.T2RANKING)
    out = tmp_path / "new" / "t2.jsonl"
    done = run("data", "convert", "t2ranking", tmp_path / "t2", "--out", out, "--max-negatives", 1)
    assert done.code == 0, done.err
    for part in (
        "1 examples of t2ranking, train",
        "1 positives, 1 negatives",
        "zh 1",
        "Apache-2.0",
        "1 no positive",
    ):
        assert part in " ".join(done.out.split()), part
    assert "水深吗" in done.out
    assert run("data", "check", out, "--no-tokens", "--no-languages").code == 0


def test_data_convert_json_and_its_own_licence(run: Run, tmp_path: Path) -> None:
    samples.put(tmp_path / "b", samples.BEIR)
    out = tmp_path / "b.jsonl"
    done = run(
        "data", "convert", "auto", tmp_path / "b", "-o", out, "--split", "test", "--license", "CC0", "--json"
    )
    (report,) = done.lines
    assert (report["dataset"], report["examples"], report["license"]) == ("beir", 1, "CC0")
    assert json.loads(out.read_text())["source"]["license"] == "CC0"


def test_data_convert_of_an_unknown_name_lists_those_that_there_are(run: Run, tmp_path: Path) -> None:
    done = run("data", "convert", "marco", tmp_path, "--out", tmp_path / "x.jsonl")
    assert done.code == 2
    assert "did you mean 'msmarco'?" in done.err or "did you mean 'mmarco'?" in done.err
    assert "natural-questions" in done.err


def test_the_help_names_every_data_set() -> None:
    text = next(each.help for each in fields_of(convert.function) if each.path == ("name",))
    assert text.removesuffix(".").split(", or ") == [AUTO, ", ".join(sorted(CONVERTIBLE))]


def test_the_old_name_of_the_license_option_still_works(run: Run, tmp_path: Path) -> None:
    samples.put(tmp_path / "b", samples.BEIR)
    out = tmp_path / "b.jsonl"
    done = run(
        "data", "convert", "beir", tmp_path / "b", "-o", out, "--split", "test", "--licence", "CC0", "--json"
    )
    assert done.lines[0]["license"] == "CC0"
