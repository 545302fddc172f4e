"""The whole run: the same result for any workers, after an interruption, and with every pair counted."""

import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from triptych.collections.training import read_examples
from triptych.errors import DataError, InputError, MissingExtra, WorkerError
from triptych.records import files_of, parse_raw, places_of
from triptych.tools.pairs import stages
from triptych.tools.pairs.base import Block, Link, StructuredDocument, Translations, to_line
from triptych.tools.pairs.filters import Consistency
from triptych.tools.pairs.pipeline import MinedPairs, mine_pairs, parallel
from triptych.tools.pairs.reading import Origin
from triptych.tools.pairs.report import FILTERS, PairCounts
from triptych.tools.pairs.settings import PairSettings
from triptych.tools.pairs.stages import split_title

VOCABULARIES = {
    "en": "the water coffee pot steam boils lower upper part filter ground cup morning kitchen slowly",
    "de": "das Wasser Kaffee Kanne Dampf kocht unten oben Teil Filter gemahlen Tasse Morgen Küche",
    "fr": "le eau café pot vapeur bout bas haut partie filtre moulu tasse matin cuisine lentement",
}
WORDS = {lang: words.split() for lang, words in VOCABULARIES.items()}
FOOTER = "All rights reserved by the makers of these pages, see the terms of use for more."
FAST = tuple(name for name in FILTERS if name not in ("language", "consistency"))
SETTINGS = PairSettings(filters=FAST, parts=4, recurring=5)


def text(drawing: random.Random, lang: str, count: int) -> str:
    return " ".join(
        drawing.choice(WORDS[lang]) + str(drawing.randrange(30)) * (i % 3 == 0) for i in range(count)
    )


def documents(seed: int = 0) -> list[StructuredDocument | Translations]:
    drawing = random.Random(seed)
    made: list[StructuredDocument | Translations] = []
    for number in range(12):
        for lang in ("en", "de", "fr"):
            blocks = [
                Block(0, "h1", f"Page {number} {lang} name"),
                Block(1, "", text(drawing, lang, 30)),
                Block(2, "h2", "Overview"),
                Block(3, "", text(drawing, lang, 30)),
                Block(4, "", text(drawing, lang, 25)),
                Block(5, "", FOOTER),
            ]
            links = (Link(f"see page {number}", f"page/{(number + 1) % 12}"), Link("gone", "nowhere"))
            title = f"Title {text(drawing, lang, 3)}"
            made.append(StructuredDocument("made", f"page/{number}", lang, title, tuple(blocks), links=links))
    made += [replace(made[0], key="page/copy"), made[1]]
    made.append(Translations("words", "w", "term", {"en": ("water",), "de": ("Wasser",), "fr": ("Wasser",)}))
    sentences = {"en": (text(drawing, "en", 9),), "de": (text(drawing, "de", 9),), "fr": ("a", "b")}
    made.append(Translations("words", "s", "sentence", sentences))
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    lines = [to_line(found) for found in documents()]
    (folder / "a.jsonl").write_text("".join(lines[:20]), encoding="utf-8")
    (folder / "b.jsonl").write_text("".join(lines[20:]), encoding="utf-8")
    return folder


def contents(mined: MinedPairs) -> dict[str, bytes]:
    files = [path for path in mined.folder.rglob("*") if path.is_file() and path.name != "plan.json"]
    return {path.relative_to(mined.folder).as_posix(): path.read_bytes() for path in files}


def records(mined: MinedPairs) -> list[dict[str, Any]]:
    return [
        parse_raw(raw, place) for path in files_of(mined.pairs, (".jsonl",)) for place, raw in places_of(path)
    ]


def test_a_run_writes_training_data_and_counts_every_pair(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    mined = mine_pairs(source, tmp_path / "out", SETTINGS, progress=lambda *step: seen.append(step))
    tally = mined.counts
    found = records(mined)
    assert len(found) == tally.kept.total() == len({record["id"] for record in found}) > 100
    examples = [example for _, example in read_examples(mined.pairs)]
    assert [(e.query, e.pos[0], e.id) for e in examples] == [
        (r["query"], r["pos"][0], r["id"]) for r in found
    ]
    for cell, made in tally.made.items():
        assert made == tally.kept[cell] + sum(tally.dropped[name, cell] for name in tally.filters)
    assert set(tally.kept) | {cell for _, cell in tally.dropped.counts} <= set(tally.made)
    assert {"title-body", "heading-section", "neighbour", "link", "paragraph-translation"} <= {
        record["kind"] for record in found
    }
    assert json.loads((mined.folder / "report.json").read_text()) == tally.to_dict()
    assert not (mined.folder / ".work").exists()
    assert [step for step in seen if step[1] == step[2]][-1] == ("writing", 4, 4)
    assert sorted(seen) == sorted(set(seen))


def test_what_happened_to_the_texts_is_counted(source: Path, tmp_path: Path) -> None:
    texts = mine_pairs(source, tmp_path / "out", SETTINGS).counts.texts
    assert texts["documents", "en", "made"] == 13
    assert texts["documents", "de", "made"] == 13
    assert texts["documents repeated", "de", "made"] == 1
    assert texts["blocks", "fr", "made"] == 12 * 6
    assert texts["blocks recurring", "fr", "made"] == 12
    assert texts["links", "en", "made"] == 2 * 13
    assert texts["links to nothing", "en", "made"] == 13
    assert texts["translations", "", "words"] == 2
    assert texts["sentences without a partner", "", "words"] == 2


def test_boilerplate_is_taken_out_recurring_headings_get_their_title_and_copies_are_dropped(
    source: Path, tmp_path: Path
) -> None:
    mined = mine_pairs(source, tmp_path / "out", SETTINGS)
    found = records(mined)
    assert not any(FOOTER in record["pos"][0] or FOOTER in record["query"] for record in found)
    headings = [record["query"] for record in found if record["kind"] == "heading-section"]
    assert sum(query.startswith("Title ") and query.endswith(": Overview") for query in headings) == 36
    assert not any(query == "Overview" for query in headings)
    keys = {record["key"] for record in found if record["source"] == "made"}
    dropped = mined.counts.dropped_by("exact-duplicate")
    # The copied page is in one of the parts; which of the two is the later one decides which is dropped.
    assert dropped.total() > 0
    assert len(keys & {"page/0", "page/copy"}) >= 1
    pairs = [(record["query"], record["pos"][0]) for record in found]
    assert len(pairs) == len(set(pairs))
    assert all(
        example.because for (name, _), example in mined.counts.dropped.first.items() if "duplicate" in name
    )


def test_the_site_s_own_headings_and_its_name_in_titles_are_taken_out(tmp_path: Path) -> None:
    drawing = random.Random(5)
    for number in range(6):
        page = f"<title>Pot {number} | My kitchen</title><h1>My kitchen</h1><p>Skip to the text</p>"
        page += f"<h2>Menu</h2><h2>Pot {number}</h2>"
        page += f"<p>{text(drawing, 'en', 30)}</p><h2>Menu</h2><p>{text(drawing, 'en', 30)}</p>"
        (tmp_path / f"{number}.html").write_text(page, encoding="utf-8")
    mined = mine_pairs(tmp_path, tmp_path / "out", replace(SETTINGS, origin=Origin(source="site", lang="en")))
    found = records(mined)
    titles = {record["query"]: record["pos"][0] for record in found if record["kind"] == "title-body"}
    assert set(titles) == {f"Pot {number}" for number in range(6)}
    assert not any(passage.startswith(("My kitchen", "Menu")) for passage in titles.values())
    assert {record["query"] for record in found if record["kind"] == "heading-section"} == {
        f"Pot {number}: Menu" for number in range(6)
    }
    assert mined.counts.texts["titles shortened", "en", "site"] == 6
    assert mined.counts.texts["blocks recurring", "en", "site"] == 18
    assert split_title("Pot - Kitchen") == ("Pot", "Kitchen")
    assert split_title("Espresso-Kanne") == ("Espresso-Kanne", "")
    assert split_title("") == ("", "")


def test_links_lead_to_the_page_in_the_same_language(source: Path, tmp_path: Path) -> None:
    found = [r for r in records(mine_pairs(source, tmp_path / "out", SETTINGS)) if r["kind"] == "link"]
    assert len(found) == 36
    assert {record["query"] for record in found if record["key"] == "page/3"} == {"see page 2"}


def test_one_worker_and_three_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    one = mine_pairs(source, tmp_path / "one", SETTINGS)
    three = mine_pairs(source, tmp_path / "three", SETTINGS, workers=3)
    assert contents(one) == contents(three)
    assert one.counts.to_dict() == three.counts.to_dict()


def test_another_division_into_parts_gives_the_same_pairs(source: Path, tmp_path: Path) -> None:
    without_order = replace(SETTINGS, filters=tuple(n for n in FAST if "duplicate" not in n))
    first = mine_pairs(source, tmp_path / "a", without_order)
    second = mine_pairs(source, tmp_path / "b", replace(without_order, parts=1))
    assert sorted(r["id"] for r in records(first)) == sorted(r["id"] for r in records(second))
    assert first.counts.made == second.counts.made
    assert first.counts.dropped == second.counts.dropped


class Interruption(Exception):
    """Stands for the end of a process."""


def fail_after(items: int) -> Callable[[str, int, int | None], None]:
    """A progress callback that ends the run when so many items are done."""
    left = [items]

    def progress(_stage: str, _done: int, _total: int | None) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Interruption

    return progress


@pytest.mark.parametrize("items", [1, 2, 5, 8, 10, 14])
def test_an_interrupted_run_goes_on_and_gives_the_same(items: int, source: Path, tmp_path: Path) -> None:
    whole = mine_pairs(source, tmp_path / "whole", SETTINGS)
    with pytest.raises(Interruption):
        mine_pairs(source, tmp_path / "out", SETTINGS, progress=fail_after(items))
    assert contents(mine_pairs(source, tmp_path / "out", SETTINGS)) == contents(whole)


def test_what_was_finished_before_an_interruption_is_not_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interruption):
        mine_pairs(source, tmp_path / "out", SETTINGS, progress=fail_after(9))
    calls: list[int] = []
    real = stages.mine_group
    monkeypatch.setattr(stages, "mine_group", lambda *a, **k: calls.append(1) or real(*a, **k))
    mine_pairs(source, tmp_path / "out", SETTINGS)
    assert 0 < len(calls) < 13  # documents of the parts that were left
    calls.clear()
    mine_pairs(source, tmp_path / "out", SETTINGS)
    assert calls == []


def test_a_folder_of_another_run_or_with_other_things_is_refused(source: Path, tmp_path: Path) -> None:
    mine_pairs(source, tmp_path / "out", SETTINGS)
    with pytest.raises(InputError, match="other files or settings"):
        mine_pairs(source, tmp_path / "out", replace(SETTINGS, near=0.9))
    (source / "c.jsonl").write_text(to_line(documents()[0]))
    with pytest.raises(InputError, match="other files or settings"):
        mine_pairs(source, tmp_path / "out", SETTINGS)
    with pytest.raises(InputError, match="is not empty"):
        mine_pairs(source, source, SETTINGS)
    with pytest.raises(InputError, match="is a file"):
        mine_pairs(source, source / "a.jsonl", SETTINGS)


def test_contaminated_pairs_are_dropped_and_the_evaluation_files_are_part_of_the_run(
    source: Path, tmp_path: Path
) -> None:
    document = documents()[0]
    assert isinstance(document, StructuredDocument)
    held = tmp_path / "eval.jsonl"
    held.write_text(json.dumps({"query": document.title, "text": document.blocks[3].text}) + "\n")
    settings = replace(SETTINGS, against=(str(held),))
    mined = mine_pairs(source, tmp_path / "out", settings)
    dropped = mined.counts.dropped_by("contamination")
    assert {cell.kind for cell in dropped} >= {"title-body", "neighbour", "paragraph-translation"}
    sides = [text for record in records(mined) for text in (record["query"], *record["pos"])]
    assert not any(document.blocks[3].text in text or text == document.title for text in sides)
    held.write_text(json.dumps({"query": "something else"}) + "\n")
    with pytest.raises(InputError, match="other files or settings"):
        mine_pairs(source, tmp_path / "out", settings)


def words_in_common(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
    """A scorer that can be pickled: shared words."""
    return np.array([[len({*q.split()} & {*p.split()}) for p in passages] for q in queries], np.float32)


def test_a_scorer_drops_pairs_that_it_does_not_find_consistent(source: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, filters=(*FAST, "consistency"), consistency=Consistency(1, 16))
    mined = mine_pairs(source, tmp_path / "a", settings, scorer=words_in_common, scorer_name="words")
    assert mined.counts.dropped_by("consistency").total() > 0
    again = mine_pairs(
        source, tmp_path / "b", settings, scorer=words_in_common, scorer_name="words", workers=2
    )
    assert contents(again) == contents(mined)
    with pytest.raises(InputError, match="other files or settings"):
        mine_pairs(source, tmp_path / "a", settings, scorer=words_in_common, scorer_name="another")


def test_languages_that_nobody_said_are_identified_and_wrong_ones_are_dropped(tmp_path: Path) -> None:
    german = "Das Wasser wird im unteren Teil der Kanne erhitzt und steigt durch das Kaffeepulver nach oben."
    english = "The water is heated in the lower part of the pot and rises through the ground coffee."
    for name, lines in (("a", german), ("b", english)):
        (tmp_path / f"{name}.md").write_text(f"# Kaffee und Kanne {name}\n\n{lines}\n", encoding="utf-8")
    mined = mine_pairs(tmp_path, tmp_path / "out", PairSettings(filters=("language",), kinds=("title-body",)))
    assert sorted(record["lang"] for record in records(mined)) == ["de", "en"]
    claimed = PairSettings(filters=("language",), kinds=("title-body",), origin=Origin(lang="de"))
    sources = [tmp_path / "a.md", tmp_path / "b.md"]
    mined = mine_pairs(sources, tmp_path / "out2", claimed)
    assert [record["lang"] for record in records(mined)] == ["de"]
    assert mined.counts.dropped_by("language").total() == 1


def test_sources_without_any_text_give_no_pair(tmp_path: Path) -> None:
    (tmp_path / "empty.md").write_text("")
    (tmp_path / "empty.jsonl").write_text("")
    mined = mine_pairs(tmp_path, tmp_path / "out", SETTINGS)
    assert records(mined) == []
    assert mined.counts.texts["documents without text", "", mined.folder.parent.name] == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_line_stops_the_run_with_its_place(workers: int, source: Path, tmp_path: Path) -> None:
    (source / "c.jsonl").write_text('{"source": "s"}\n')
    with pytest.raises(DataError, match=r"c\.jsonl:1: "):
        mine_pairs(source, tmp_path / "out", SETTINGS, workers=workers)


def dies(_item: int) -> None:
    os._exit(3)


def lacks(_item: int) -> None:
    raise MissingExtra("this", "tools")


def test_an_error_of_a_worker_arrives_as_it_was_raised() -> None:
    with pytest.raises(MissingExtra, match=r"triptych\[tools\]"), parallel(2) as run:
        list(run(lacks, [1, 2]))


def doubles(folder: Path, item: int) -> None:
    (folder / str(item)).write_text(str(2 * item))


def test_a_worker_that_dies_is_an_error() -> None:
    with pytest.raises(WorkerError, match="a worker process died"), parallel(2) as run:
        list(run(dies, [1, 2]))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_function_is_called_once_for_each_item(workers: int, tmp_path: Path) -> None:
    with parallel(workers) as run:
        assert len(list(run(partial(doubles, tmp_path), range(7)))) == 7
        assert list(run(partial(doubles, tmp_path), [])) == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        str(i): str(2 * i) for i in range(7)
    }


def test_less_than_one_worker_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers: got 0; expected at least 1"):
        mine_pairs(source, tmp_path / "out", workers=0)


def test_settings_that_mean_nothing_are_errors() -> None:
    for change, message in (
        ({"filters": ("nothing",)}, "got 'nothing'; expected some of length"),
        ({"kinds": ("nothing",)}, "got 'nothing'"),
        ({"near": 0.0}, "near: got 0.0"),
        ({"recurring": 1}, "recurring: got 1; expected a number at least 2"),
        ({"parts": 0}, "parts: got 0"),
        ({"words": 2}, "words: got 2"),
    ):
        with pytest.raises(InputError, match=message):
            PairSettings(**change)  # type: ignore[arg-type]


def test_the_tally_of_a_run_says_nothing_of_workers_or_time(source: Path, tmp_path: Path) -> None:
    mined = mine_pairs(source, tmp_path / "out", SETTINGS)
    report = json.loads((mined.folder / "report.json").read_text())
    assert set(report) == {"cells", "examples", "texts"}
    assert PairCounts.from_dict(report).to_dict() == report


def test_a_run_is_told_by_the_contents_of_its_files_and_not_by_their_times(
    source: Path, tmp_path: Path
) -> None:
    mined = mine_pairs(source, tmp_path / "out", SETTINGS)
    file = source / "a.jsonl"
    before, times = file.read_bytes(), file.stat()
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    assert mine_pairs(source, tmp_path / "out", SETTINGS).counts == mined.counts
    file.write_bytes(before.replace(b"kitchen", b"nehctik"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    with pytest.raises(InputError, match="other files or settings"):
        mine_pairs(source, tmp_path / "out", SETTINGS)
