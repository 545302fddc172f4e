"""Records of JSON files as streams, against json.loads."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.collections.files import Files, columns, first_keys, rows
from triptych.errors import DataError

values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
records = st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=5)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@given(records, st.booleans(), st.sampled_from([None, 1]))
def test_the_records_are_those_of_the_whole_value(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[dict[str, Any]], ascii_: bool, indent: int | None
) -> None:
    folder = tmp_path_factory.mktemp("json")
    array = write(folder / "a.json", json.dumps(wanted, ensure_ascii=ascii_, indent=indent))
    assert [record for _, record in rows(array)] == wanted
    whole = {"version": [{"data": 1}], "data": wanted, "rest": {"data": [3]}}
    inside = write(folder / "b.json", json.dumps(whole, ensure_ascii=ascii_, indent=indent))
    assert [record for _, record in rows(inside, "data")] == wanted
    lines = write(folder / "c.json", "".join(json.dumps(record) + "\n\n" for record in wanted))
    assert [record for _, record in rows(lines, "none of them")] == wanted


def test_a_record_is_named_by_its_number_in_the_list(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"version": 1,\n "data": [\n\n {"a": 1},\n {"a":\n 2}, {"a": 3}]}')
    assert [place.record for place, _ in rows(path, "data")] == [1, 2, 3]
    with pytest.raises(DataError, match=r"a\.json: record 2: expected a JSON object"):
        list(rows(write(tmp_path / "a.json", '[{"a": 1}, 2]')))


@pytest.mark.parametrize(
    "text",
    ["[1, 2", "[{} {}]", '[{"a" 1}]', "[{a: 1}]", '[{"a": tru}]', "[NaN]", "[{}]\n\n[2]", '["ab', "[{}]x"],
)
def test_broken_json_is_an_error_that_names_the_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: (broken JSON|record 1: expected)"):
        list(rows(write(tmp_path / "a.json", text)))


@pytest.mark.parametrize(
    "text",
    ["[" * 300_000, '[{"a": ' * 200_000 + "1" + "}]" * 200_000, "[" + "[" * 20_000 + "]" * 20_000 + "]"],
)
def test_json_nested_too_deeply_is_refused_at_once(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: JSON nested more than 900 deep"):
        list(rows(write(tmp_path / "a.json", text)))


@pytest.mark.parametrize("text", ['{"a": "[[[[\\\\"}, ', '{"a\\"[": "[\\"{{"}, ', "[[[[]]]], "])
def test_brackets_in_strings_are_no_nesting(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", f'[{text * 20_000}{{"b": 1}}]'.replace("[[[[]]]]", '{"x": [[[]]]}'))
    assert len(list(rows(path))) == 20_001


def test_the_message_shows_what_is_around_the_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"broken JSON: .*nonsense"):
        list(rows(write(tmp_path / "a.json", '[{"a": 1}, {"b": nonsense}]')))


def test_a_long_line_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[")
        file.write(", ".join(json.dumps({"i": i, "text": "x" * 200}) for i in range(60_000)))
        file.write("]")
    assert (
        len(list(rows(write(tmp_path / "few.json", '[{"i": 1}]')))) == 1
    )  # what is imported at the first use
    tracemalloc.start()
    total = sum(record["i"] for _, record in rows(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 60_000 * 59_999 // 2
    assert peak < path.stat().st_size / 4


def test_columns_are_joined_by_their_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"b": {"0": [1], "1": 2}, "c": {"x": 1}, "a": {"0": "p", "1": null}}')
    assert [record for _, record in columns(path, ["a", "b"])] == [{"a": "p", "b": [1]}, {"a": None, "b": 2}]
    for text in ('{"a": {"0": 1}, "b": {"1": 1}}', '{"a": {"0": 1}, "b": {}}', '{"a": {}, "b": {"0": 1}}'):
        with pytest.raises(DataError, match="record 1: the columns a, b have the rows"):
            list(columns(write(tmp_path / "a.json", text), ["a", "b"]))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('{"a": {"b": 1}, "c": []}\n{"d": 1}', {"a", "c"}),
        ('[{"a": 1, "e": 2}, {"z": 1}]', {"a", "e"}),
        ('\ufeff{"a": 1}', {"a"}),
        ("x", set()),
        ("", set()),
    ],
)
def test_the_first_record_tells_the_fields(text: str, keys: set[str], tmp_path: Path) -> None:
    assert first_keys(write(tmp_path / "a.json", text)) == keys


def test_a_folder_with_a_file_that_may_not_be_looked_at_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("")

    def refuse(self: Path) -> bool:
        if self == tmp_path:
            return False
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(DataError, match=r"secret: cannot be read: Permission denied"):
        Files([tmp_path])
