"""Whatever is wrong: one clear line on standard error, the right exit code, nothing on standard output."""

import json
from pathlib import Path

import pytest

from triptych import Index

from .conftest import Run

GOOD = '{"id": "1", "text": "hello"}\n'


def refused(run: Run, code: int, *arguments: object, stdin: str | bytes = "") -> str:
    """Runs a command that has to fail; gives its one line."""
    done = run(*arguments, stdin=stdin)
    assert done.code == code, (done.out, done.err)
    assert done.out == ""
    assert "Traceback" not in done.err
    lines = [line for line in done.err.splitlines() if "error:" in line]
    assert len(lines) == 1, done.err
    return lines[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (GOOD + '{"id": "2", "text": "x"\n', ":2: broken JSON"),
        (GOOD + "[1]\n", ":2: got an array"),
        (GOOD + '{"id": "2", "txt": "x"}\n', ":2: no field 'text'"),
        (GOOD + '{"id": "2", "text": 5}\n', ":2: field 'text' is the number 5"),
        (GOOD + GOOD, ":2: duplicate id '1'"),
        (GOOD.encode() + b'{"id": "2", "text": "\xff"}\n', "not UTF-8"),
    ],
)
@pytest.mark.parametrize("command", ["index", "encode"])
def test_a_bad_line_is_named_by_file_and_number_before_anything_is_made(
    run: Run, tmp_path: Path, command: str, content: str | bytes, expected: str
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refused(run, 2, command, file, "--into", tmp_path / "out")
    assert f"{file}:2" in message
    assert expected in message
    assert not (tmp_path / "out").exists()


def test_a_bad_line_on_standard_input_keeps_the_blocks_before_it(run: Run, tmp_path: Path) -> None:
    lines = "".join(f'{{"id": "{i}", "text": "hello"}}\n' for i in range(5)) + "broken\n"
    place = tmp_path / "x.index"
    done = run("index", "-", "-o", place, "--engine", "exact", "--block-tokens", 3, stdin=lines)
    assert done.code == 2
    assert "-:6: broken JSON" in done.err
    assert "stopped after 5 documents, which are kept" in done.err
    with Index.open(place) as opened:
        assert sorted(opened.ids) == ["0", "1", "2", "3", "4"]


def test_files_that_are_missing_or_of_unknown_kind(run: Run, tmp_path: Path) -> None:
    assert "nothing.jsonl" in refused(run, 2, "index", tmp_path / "nothing.jsonl", "-o", tmp_path / "i")
    odd = tmp_path / "x.xyz"
    odd.write_bytes(b"PK")
    assert "unknown ending" in refused(run, 2, "encode", odd, "--jsonl")
    assert refused(run, 2, "search", tmp_path, "--queries", tmp_path / "no.txt")


def test_a_model_that_is_missing_is_named_with_advice(run: Run, corpus: Path, made: Path) -> None:
    arguments = (("encode", corpus, "--jsonl"), ("score", "-q", "x", "-d", "y"), ("search", made, "hello"))
    for command in arguments:
        assert "./no/such/model" in refused(run, 1, *command, "--model", "./no/such/model")


def test_a_folder_without_heads_is_no_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert "encoder without heads" in refused(run, 1, "info", tmp_path)


@pytest.mark.parametrize("weights", ["1,2", "a,b,c", "0,0,0", "-1,1,1", "1,inf,1", ""])
def test_weights_have_to_be_three_numbers(run: Run, made: Path, weights: str) -> None:
    assert "--weights" in refused(run, 2, "search", made, "hello", f"--weights={weights}")
    assert "--weights" in refused(run, 2, "score", "-q", "x", "-d", "y", f"--weights={weights}")


def test_unknown_heads_are_refused(run: Run, made: Path, corpus: Path) -> None:
    assert "spares" in refused(run, 2, "search", made, "hello", "--routes", "spares")
    assert "colbart" in refused(run, 2, "encode", corpus, "--jsonl", "--outputs", "dense,colbart")


@pytest.mark.parametrize(
    "options", [["-k", "0"], ["--candidates", "0"], ["--filter", "lang"], ["--filter", "=fr"]]
)
def test_search_options_out_of_range_are_refused(run: Run, made: Path, options: list[str]) -> None:
    refused(run, 2, "search", made, "hello", *options)


def test_a_value_and_a_range_must_both_hold(run: Run, made: Path) -> None:
    assert not run("search", made, "hello", "-f", "year=2020", "-f", "year>2020", "--json").lines


def test_a_query_is_needed_once(run: Run, made: Path, tmp_path: Path) -> None:
    assert "one query" in refused(run, 2, "search", made)
    assert "one query" in refused(run, 2, "search", made, "hello", "--queries", tmp_path / "q.txt")
    assert "empty" in refused(run, 2, "search", made, " ")
    assert "--query" in refused(run, 2, "score", "-d", "x")
    assert "--document" in refused(run, 2, "score", "-q", "x")
    assert "standard input" in refused(run, 2, "score", "--queries", "-", "--documents", "-")


def test_a_place_that_is_no_index_is_told_apart(run: Run, corpus: Path, tmp_path: Path) -> None:
    assert "nothing" in refused(run, 1, "search", tmp_path / "no.index", "hello")
    assert "a file" in refused(run, 1, "search", corpus, "hello")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    assert "a folder without an index" in refused(run, 1, "index", corpus, "-o", tmp_path)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "x"
    assert refused(run, 1, "index", "-o", tmp_path / "no.index", "--delete", "a")


def test_an_open_index_is_locked(run: Run, index: Path, corpus: Path) -> None:
    with Index.open(index):
        assert "open elsewhere" in refused(run, 1, "index", corpus, "-o", index)
        assert run("search", index, "hello").code == 0, "the exact engine can be read beside its writer"


def test_a_corrupt_index_is_not_touched(run: Run, index: Path) -> None:
    (index / "manifest.json").write_text("{broken", encoding="utf-8")
    assert "manifest.json" in refused(run, 1, "search", index, "hello")
    assert (index / "manifest.json").read_text(encoding="utf-8") == "{broken"


def test_an_index_refuses_another_model(
    run: Run, made: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import checkpoints

    other = checkpoints.make("xlm-roberta", tmp_path_factory.mktemp("other"), seed=7)
    assert "expected the same model" in refused(run, 1, "search", made, "hello", "--model", other)
    assert "expected the same model" in refused(run, 1, "index", corpus, "-o", made, "--model", other)


def test_how_token_vectors_are_stored_is_chosen_once(run: Run, index: Path, corpus: Path) -> None:
    assert "2bit" in refused(run, 2, "index", corpus, "-o", index, "--multi", "int8")
    assert run("index", corpus, "-o", index, "--multi", "2bit").code == 0


def test_index_and_encode_need_something_to_do(run: Run, corpus: Path, tmp_path: Path) -> None:
    assert "nothing to do" in refused(run, 2, "index", "-o", tmp_path / "x.index")
    assert "--into" in refused(run, 2, "encode", corpus)
    assert "--into" in refused(run, 2, "encode", corpus, "--into", tmp_path / "v", "--jsonl")
    assert "block_tokens" in refused(run, 2, "index", corpus, "-o", tmp_path / "x.index", "--block-tokens", 0)
    assert "--metadata" in refused(run, 2, "index", corpus, "-o", tmp_path / "x.index", "--metadata", "x")


def test_wrong_usage_is_one_line_with_code_2(run: Run, corpus: Path) -> None:
    for arguments in (
        ["index", corpus],
        ["encode", corpus, "--dtype", "int3"],
        ["serach"],
        ["search", "--x"],
    ):
        done = run(*arguments)
        assert done.code == 2
        assert done.out == ""
        assert len(done.err.splitlines()) == 1, arguments
        assert done.err.startswith("triptych: error: ")
        assert "--help" in done.err


def test_lengths_devices_and_models_out_of_range(run: Run, corpus: Path) -> None:
    assert "max_length" in refused(run, 2, "encode", corpus, "--jsonl", "--max-length", 100000)
    assert "device" in refused(run, 2, "encode", corpus, "--jsonl", "--device", "abacus")


def test_texts_that_were_cut_give_one_warning_line(run: Run, tmp_path: Path) -> None:
    long = "".join(json.dumps({"id": str(i), "text": "world " * 90}) + "\n" for i in range(4))
    done = run(
        "index",
        "-",
        "-o",
        tmp_path / "l.index",
        "--engine",
        "exact",
        "--passages",
        "none",
        "--block-tokens",
        1,
        stdin=long,
    )
    assert done.code == 0
    assert "warning: 1 of 1 texts were cut to 64 tokens" in done.err
    assert "3 more of the kind TruncationWarning" in done.err
    assert len(done.err.splitlines()) == 2


def test_a_bug_is_one_line_too_and_debug_shows_where(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(Index, "search", broken)
    done = run("search", made, "hello")
    assert done.code == 1
    assert "internal error: KeyError" in done.err
    assert "--debug" in done.err
    shown = run("--debug", "search", made, "hello")
    assert shown.code == 1
    assert "in broken" in shown.err
    assert "KeyError: 'lost'" in shown.err


def test_results_are_the_only_thing_on_standard_output(run: Run, made: Path) -> None:
    done = run("search", made, "hello", "--json")
    assert all(isinstance(json.loads(line), dict) for line in done.out.splitlines())
    assert done.err == ""
