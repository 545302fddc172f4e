"""Texts and names of strangers do not steer the terminal; one process of torchrun's speaks; nothing asks."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.cli import terminal
from triptych.cli.terminal import printable

from .conftest import Run

STEERING = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "link": "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "title": "\x1b]0;owned\x07",
    "colours": "\x1b[31mred\x1b[2J\x1b[H",
    "c1": "\x9b31m\x9d0;t\x9c\x90q\x9c",
    "bidi": "abc\u202egpj.exe\u2066x\u2069\u200f",
    "controls": "a\x00b\x08c\x7fd\re\x0bf\x0c",
}
ALL = "".join(STEERING.values())
FORBIDDEN = set("\x1b\x07\x08\x00\x7f\r\x0b\x0c\x9b\x9d\x9c\x90\u202e\u2066\u2069\u200f")


def is_clean(*texts: str) -> bool:
    return not FORBIDDEN & set("".join(texts))


@pytest.mark.parametrize("name", STEERING)
def test_nothing_that_a_terminal_obeys_is_printable(name: str) -> None:
    assert is_clean(printable(f"x{STEERING[name]}y"))


@given(st.text())
def test_printable_keeps_the_length_and_all_that_is_seen(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert printable(shown) == shown
    assert is_clean(shown)
    kept = [pair for pair in zip(text, shown, strict=True) if pair[0].isprintable() or pair[0] in "\t\n"]
    assert all(a == b for a, b in kept)


@pytest.mark.parametrize(
    "text", ["moka, Kaffee", "日本語の本文", "العربية", "👩‍👩‍👧 ❤️", "ক্ষ", "نمی\u200cخواهم"]
)
def test_letters_of_all_scripts_and_their_joiners_stay(text: str) -> None:
    assert printable(text) == text


def test_a_console_prints_no_escape_sequence_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.table import Table
    from rich.text import Text

    for stream, make in (("stdout", terminal.stdout), ("stderr", terminal.stderr)):
        written = io.StringIO()
        monkeypatch.setattr(sys, stream, written)
        console = make()
        table = Table(ALL, title=ALL)
        table.add_row(ALL)
        table.add_row(Text(ALL, style="bold"))
        for each in (ALL, Text(ALL), table):
            console.print(each)
        assert is_clean(written.getvalue())
        assert "red" in written.getvalue()


def test_colours_of_our_own_still_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.text import Text

    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    terminal.stdout().print(Text(ALL, style="bold red"))
    ours = written.getvalue()
    assert ours.startswith("\x1b[1;31m")
    assert "\x1b]" not in ours
    assert "\x1b[2J" not in ours


@pytest.mark.parametrize("flag", [(), ("--json",), ("--explain",), ("--full",), ("--explain", "--json")])
def test_search_and_score_show_no_escape_sequence(flag: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    source = tmp_path / "x.jsonl"
    text = f"hello {ALL.replace(chr(0), '')} world"
    record = {"id": f"a{text}", "text": text, "title": text, "lang": text, "more": text}
    source.write_text(json.dumps(record) + "\n", encoding="utf-8")
    place = tmp_path / "i.index"
    made = run("index", source, "-o", place, "--engine", "exact")
    assert made.code == 0, made.err
    found = run("search", place, text, *flag)
    scored = run("score", "-q", text, "-d", text, *flag)
    for done in (found, scored):
        assert done.code == 0, done.err
        assert is_clean(done.out, done.err)
        assert "hello" in done.out
    if "--json" in flag:
        assert found.lines[0]["text"].endswith(text)  # the value itself is whole
        assert scored.lines[0]["query"] == text


@pytest.mark.parametrize("debug", [(), ("--debug",)])
@pytest.mark.parametrize(
    "arguments",
    [
        ("index", "{}", "-o", "x"),
        ("search", "{}", "hello"),
        ("info", "{}"),
        ("data", "check", "{}"),
        ("{}",),
        ("demo", "--top", "{}"),
        ("demo", "--{}"),
        ("index", "--delete", "a", "-o", "{}"),
        ("compare", "{}"),
        ("train", "--data", "{}", "-o", "{}"),
    ],
)
def test_messages_show_no_escape_sequence(
    arguments: tuple[str, ...],
    debug: tuple[str, ...],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*debug, *(part.format(ALL.replace("\x00", "")) for part in arguments))
    assert done.code in (1, 2)
    assert is_clean(done.out, done.err)
    assert done.err


def test_names_of_files_in_messages_are_printable(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a\x1b]0;owned\x07.png").write_text("x")
    (folder / "b\x1b[2J.jsonl").write_text("{}\n")
    (folder / "good.txt").write_text("hello world")
    done = run("index", folder, "-o", tmp_path / "i")
    assert done.code == 0
    assert is_clean(done.err)
    assert "jsonl:1: no field" in done.err, "left out, and said"


def test_files_that_are_no_files_are_skipped_with_a_count_and_the_rest_is_indexed(
    run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "good.txt").write_text("hello world")
    (folder / "endless.jsonl").symlink_to("/dev/zero")
    (folder / "broken.txt").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.txt")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("latin name")
    (folder / "x.png").write_text("x")
    done = run("index", folder, "-o", tmp_path / "i", "--engine", "exact")
    assert done.code == 0, done.err
    assert "1 documents" in done.out
    for note in (
        "3 files: no regular file (broken.txt, ",
        "1 files: no UTF-8 name (",
        "1 files: unknown kind (x.png)",
    ):
        assert f"skipped {note}" in done.err
    mined = run("data", "pairs", folder, "-o", tmp_path / "pairs", "--no-plot")
    assert mined.code == 0, mined.err
    assert "skipped 3 files: no regular file" in mined.err


def test_a_file_whose_name_is_not_utf8_has_an_id_that_can_be_shown(run: Run, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    path.write_text("latin name")
    done = run("index", path, "-o", tmp_path / "i", "--engine", "exact")
    assert done.code == 0, done.err
    shown = "".join(run("search", tmp_path / "i", "latin").out.split())
    assert "caf\\xe9.txt" in shown


def test_an_endless_line_is_an_error_with_a_limit(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triptych.io.MAX_LINE", 1000)
    monkeypatch.setattr("triptych.io.MAX_TEXT", 1000)
    for name in ("x.jsonl", "x.txt", "x.html", "x.tsv", "x.csv"):
        path = tmp_path / name
        path.write_bytes(b"a" * 1001)
        done = run("index", path, "-o", tmp_path / "i")
        assert done.code == 2
        assert f"{path}:1: a line of more than" in done.err
    many = tmp_path / "many.txt"
    many.write_bytes(b"a\n" * 501)
    assert "a text of more than" in run("index", many, "-o", tmp_path / "i").err


def test_only_the_first_process_of_torchrun_prints(run: Run, corpus: Path) -> None:
    first = run("data", "check", corpus, "--json", "--no-tokens", env={"RANK": "0"})
    second = run("data", "check", corpus, "--json", "--no-tokens", env={"RANK": "1"})
    assert first.code == second.code
    assert first.out
    assert second.out == ""
    drawn = run("data", "check", corpus, "--no-tokens", env={"RANK": "1"})
    assert drawn.out == ""


def test_an_error_is_said_by_every_process_of_torchrun(run: Run, tmp_path: Path) -> None:
    assert "error: " in run("info", tmp_path / "none", env={"RANK": "1"}).err


def test_standard_input_that_begins_with_y_answers_no_question(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, **__: object) -> None:
        assert input("Run the model's own code? [y/N] ") != "y"

    monkeypatch.setattr("triptych.cli.options.Loading.encoder", ask)
    for arguments in (("encode", "-", "--jsonl"), ("score", "-q", "a", "-d", "b")):
        done = run(*arguments, stdin="y\ny\n")
        assert done.code == 2
        assert "expected no question" in done.err
        assert "Run the model's own code?" in done.err


def test_no_memory_and_files_that_cannot_be_read_are_no_internal_errors(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, said in (
        (MemoryError(), "error: out of memory"),
        (PermissionError(13, "Permission denied", "/x/y"), "error: /x/y: Permission denied"),
        (ZeroDivisionError("a"), "internal error: ZeroDivisionError: a"),
    ):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("triptych.cli.options.Loading.encoder", fail)
        done = run("score", "-q", "a", "-d", "b")
        assert done.code == 1
        assert said in done.err
        assert len(done.err.splitlines()) == 1


def test_a_closed_standard_error_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m triptych.cli info nowhere 2>&-"], capture_output=True, check=False
    )
    assert done.returncode in (1, 2)
