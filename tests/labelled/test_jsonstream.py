"""Large JSON values as streams, against json.loads."""

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from triptych.collections import files as jsonstream
from triptych.collections.files import entries, first_keys, rows
from triptych.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def made(random_: random.Random, depth: int = 0) -> Any:
    kind = random_.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [made(random_, depth + 1) for _ in range(random_.randrange(4))]
    if kind == 6:
        return {f'k{i} "\\ü': made(random_, depth + 1) for i in range(random_.randrange(4))}
    return [
        None,
        True,
        random_.choice([0, -1.5, 123456789, 2e-7]),
        "",
        'é"\\\n\u2028 ' * random_.randrange(9),
    ][kind]


def flat(value: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """What `entries` should give, from the value as a whole."""
    if isinstance(value, list):
        return [((i,), each) for i, each in enumerate(value)]
    found: list[tuple[tuple[Any, ...], Any]] = []
    for name, member in value.items():
        if isinstance(member, list):
            found += [((name, i), each) for i, each in enumerate(member)]
        elif isinstance(member, dict):
            found += [((name, key), each) for key, each in member.items()]
        else:
            found.append(((name,), member))
    return found


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_the_entries_are_those_of_the_whole_value_however_it_is_read(
    seed: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_ = random.Random(seed)
    value = [made(random_) for _ in range(5)] if seed % 2 else {f"m{i}": made(random_) for i in range(5)}
    text = json.dumps(value, ensure_ascii=bool(seed % 3), indent=seed % 4 or None)
    path = write(tmp_path / "a.json", text)
    monkeypatch.setattr(
        jsonstream, "read_chunks", lambda _: iter([text[i : i + chunk] for i in range(0, len(text), chunk)])
    )
    assert [(entry.keys, entry.value) for entry in entries(path)] == flat(value)


def test_an_entry_names_the_line_on_which_it_begins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"version": 1,\n "data": [\n\n {"a": 1},\n {"a":\n 2}, {"a": 3}]}')
    assert [entry.place.line for entry in entries(path)] == [1, 4, 5, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "the file ends"),
        ("[1 2]", "got '2'; expected ','"),
        ('{"a" 1}', "expected ':'"),
        ("{a: 1}", "a name in double quotes"),
        ('[{"a": tru}]', "broken JSON"),
        ("[NaN]", "NaN is not JSON"),
        ("[1]\n\n[2]", r"a\.json:3: got '\[' after the end"),
        ('["ab', "broken JSON: Unterminated string"),
        ('"text"', "expected a JSON array or object"),
        ("", "expected a JSON array or object"),
        ("[" * 100_000, "broken JSON"),
    ],
)
def test_broken_json_is_an_error_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list(entries(write(tmp_path / "a.json", text)))


def test_a_mistake_in_the_middle_does_not_make_the_rest_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = iter(["[1, {'x': 1}, " + "2, " * 50, *["3, "] * 1000])
    monkeypatch.setattr(jsonstream, "read_chunks", lambda _: chunks)
    with pytest.raises(DataError, match="property name enclosed in double quotes"):
        list(entries(write(tmp_path / "a.json", "")))
    assert len(list(chunks)) == 1000


def test_a_long_line_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[")
        file.write(", ".join(json.dumps({"i": i, "text": "x" * 200}) for i in range(60_000)))
        file.write("]")
    few = tmp_path / "few.json"
    few.write_text('[{"i": 1}]')
    assert len(list(entries(few))) == 1  # what is imported at the first use is not counted
    tracemalloc.start()
    total = sum(entry.value["i"] for entry in entries(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 60_000 * 59_999 // 2
    assert peak < path.stat().st_size / 4


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n\n{"a": 2}\n',
        '[{"a": 1}, {"a": 2}]',
        '{"v": [7], "data": [{"a": 1}, {"a": 2}], "w": {"a": 3}}',
    ],
)
def test_records_are_read_from_lines_from_an_array_and_from_a_field(text: str, tmp_path: Path) -> None:
    found = [record for _, record in rows(write(tmp_path / "a.json", text), "data")]
    assert found == [{"a": 1}, {"a": 2}]


def test_a_record_that_is_no_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a JSON object in the list"):
        list(rows(write(tmp_path / "a.json", "[1]")))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('{"a": {"b": 1}, "c": []}\n{"d": 1}', {"a", "c"}),
        ('[{"a": 1, "e": 2}, {"z": 1}]', {"a", "e"}),
        ("x", set()),
    ],
)
def test_the_first_record_tells_the_fields(text: str, keys: set[str], tmp_path: Path) -> None:
    assert first_keys(write(tmp_path / "a.json", text)) == keys
