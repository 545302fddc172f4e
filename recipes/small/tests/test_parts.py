"""The pieces of the corpus: overlap, drawing, splitting, passages, questions."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from corpus import clean, ready, split
from corpus.chunks import chunks
from corpus.draw import Draw
from corpus.languages import canonical, weight
from corpus.long import whole
from corpus.overlap import COMPACT, LATIN, Overlap, normal, stretches
from corpus.pairs import alike, mine, recurring, sections
from corpus.questions import as_chunks, derived, human
from corpus.records import Passage, Question, read, write
from triptych.errors import DataError
from triptych.tools.pairs.base import Block, StructuredDocument, Translations, WeakPair

WORDS = (
    "river",
    "stone",
    "window",
    "garden",
    "letter",
    "music",
    "winter",
    "silver",
    "forest",
    "harbour",
    "market",
)


def sentence(seed: int, words: int = 14) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)).capitalize() + "."


def document(lang: str, key: str = "page", *, seed: int = 0, **fields: object) -> StructuredDocument:
    """Three sections of two paragraphs; the same numbers in every language."""
    blocks: list[Block] = []
    for part in range(3):
        blocks.append(Block(10 * part, "h2", f"{lang} {key} heading number {part}"))
        for line in (1, 2):
            text = f"{lang} {sentence(hash_of(lang, key, part, line) + seed, 30)}"
            blocks.append(Block(10 * part + line, "", text))
    return StructuredDocument("lo", key, lang, f"{lang} title of {key}", tuple(blocks), **fields)  # type: ignore[arg-type]


def hash_of(*parts: object) -> int:
    return sum(ord(c) * (i + 1) for i, c in enumerate("/".join(map(str, parts))))


# --- overlap -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 16])
def test_two_stretches_have_the_same_hash_exactly_if_they_are_the_same_text(n: int) -> None:
    draw = random.Random(n)
    text = "".join(draw.choice("abcあ") for _ in range(400))
    hashes = stretches(text, n)
    assert len(hashes) == len(text) - n + 1
    by_hash: dict[int, set[str]] = {}
    by_text: dict[str, set[int]] = {}
    for place, value in enumerate(hashes.tolist()):
        by_hash.setdefault(value, set()).add(text[place : place + n])
        by_text.setdefault(text[place : place + n], set()).add(value)
    assert all(len(texts) == 1 for texts in by_hash.values())
    assert all(len(values) == 1 for values in by_text.values())


def shares(text: str, kept: Sequence[str], n: int) -> float:
    """Slow definition: the share of a text's stretches that any kept text has."""
    known = {normal(k)[i : i + n] for k in kept for i in range(len(normal(k)) - n + 1)}
    own = [normal(text)[i : i + n] for i in range(len(normal(text)) - n + 1)]
    return sum(each in known for each in own) / len(own) if own else 0.0


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_text_repeats_what_is_kept_if_it_shares_enough_stretches(language: str) -> None:
    n = COMPACT if language == "ja" else LATIN
    kept = [sentence(seed, 40) for seed in range(5)]
    overlap = Overlap(((text, language) for text in kept), least=0.2, most=None)
    for seed in range(40):
        draw = random.Random(seed)
        start = draw.randrange(100)
        text = sentence(100 + seed, 30) + kept[seed % 5][start : start + draw.randrange(150)]
        assert overlap.repeats(text, language) == (shares(text, kept, n) >= 0.2)


def test_case_blanks_and_signs_do_not_hide_an_overlap() -> None:
    overlap = Overlap([(sentence(1, 40), "en")])
    assert overlap.repeats(sentence(1, 40).upper().replace(" ", " — "), "en")
    assert overlap.repeats("intro " + sentence(1, 40) + " outro", "en")
    assert not overlap.repeats(sentence(2, 40), "en")
    assert not overlap.repeats("short", "en")


def test_many_shared_stretches_count_whatever_their_share() -> None:
    text = sentence(1, 40) + " " + " ".join(sentence(seed, 40) for seed in range(10, 30))
    assert Overlap([(sentence(1, 40), "en")], least=0.9, most=100).repeats(text, "en")
    assert not Overlap([(sentence(1, 40), "en")], least=0.9, most=None).repeats(text, "en")


# --- drawing -------------------------------------------------------------------------------------------------------


def test_a_draw_keeps_the_smallest_of_each_group_in_any_order() -> None:
    items = [(f"g{i % 3}", random.Random(i).randrange(10**6), i) for i in range(200)]
    expected = {
        group: [item for _, item in sorted((n, i) for g, n, i in items if g == group)[:7]]
        for group in ("g0", "g1", "g2")
    }
    for seed in range(4):
        random.Random(seed).shuffle(items)
        draw: Draw[str, int] = Draw(lambda _group: 7)
        for group, number, item in items:
            draw.offer(group, number, item)
        kept: dict[str, list[int]] = {}
        for group, item in draw.items():
            kept.setdefault(group, []).append(item)
        assert kept == expected
        assert sum(count for _, count in draw.counts().values()) == 200


def test_a_cap_of_nothing_keeps_nothing() -> None:
    draw: Draw[str, int] = Draw(lambda _group: 0)
    draw.offer("g", 1, 1)
    assert list(draw.items()) == []
    assert draw.counts() == {"g": (0, 1)}


# --- cleaning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "plain"),
    [
        ("Kapitel 11. Netzwerkdienste", "Netzwerkdienste"),
        ("11.3. FTP-Dateiserver", "FTP-Dateiserver"),
        ("A.1. Preliminars", "Preliminars"),
        ("第 6 章 网络应用", "网络应用"),
        ("فصل 12. الإدارة المتقدمة", "الإدارة المتقدمة"),
        ("C. S. Lewis", "S. Lewis"),  # cannot be told from an appendix
        ("Debian 12 installieren", "Debian 12 installieren"),
        ("3D charts", "3D charts"),
    ],
)
def test_numbers_of_chapters_go_and_other_numbers_stay(heading: str, plain: str) -> None:
    assert clean.unnumbered(heading) == plain


@pytest.mark.parametrize(
    ("text", "lang", "latin", "heading", "english"),
    [
        ("The pinning priorities are shown and you can change them in this file.", "de", True, False, True),
        (
            "Die Prioritäten werden angezeigt und lassen sich in dieser Datei ändern.",
            "de",
            True,
            False,
            False,
        ),
        ("Kies in het menu de knop om het venster te openen.", "nl", True, False, False),
        ("The same text in English.", "en", True, False, False),
        ("apt-get install debian-handbook xterm", "ru", False, False, False),
        ("Delete Page Break", "ko", False, True, True),
        ("This option is only available for the current document.", "ja", False, False, True),
        ("このオプションは現在のドキュメントでのみ使用できます。", "ja", False, False, False),
    ],
)
def test_a_paragraph_that_was_left_in_english_is_told(
    text: str, lang: str, latin: bool, heading: bool, english: bool
) -> None:
    assert clean.is_english(text, lang, latin, heading) is english


def test_codes_of_languages_are_brought_to_one_form() -> None:
    codes = ["zh_CN", "zh-TW", "jpn", "no", "pt_BR", "pt-PT", "swh", "en-US"]
    assert [canonical(code) for code in codes] == ["zh", "zh-TW", "ja", "nb", "pt-BR", "pt", "sw", "en"]
    assert weight("漢字漢字", "ja") > weight("abcd", "en")


# --- reading the ready folder --------------------------------------------------------------------------------------


def folder(path: Path, **files: list[dict[str, object]]) -> Path:
    for name, records in files.items():
        write(path / f"{name.replace('_', '-')}.jsonl.zst", records)
    return path


def test_ready_documents_lose_what_is_no_translation(tmp_path: Path) -> None:
    both = [0, "", "This paragraph was left in English by the translators of the page."]
    records: list[dict[str, object]] = [
        {
            "s": "lo",
            "k": "a",
            "l": "en",
            "t": "Insert Table",
            "kw": ["tables,insert"],
            "p": [both, [1, "", "Choose it."]],
        },
        {
            "s": "lo",
            "k": "a",
            "l": "de",
            "t": "Tabelle einfügen",
            "kw": ["Tabellen,einfügen", "Tabellen, siehe auch Felder"],
            "p": [both, [1, "", "Wählen Sie sie aus."]],
        },
        {"s": "lo", "k": "b", "l": "de", "t": "Leer", "p": [[0, "h1", "Leer"]]},
    ]
    found = list(ready.documents(folder(tmp_path, docs=records)))
    assert [(d.key, d.lang, d.title) for d in found] == [
        ("a", "en", "Insert Table"),
        ("a", "de", "Tabelle einfügen"),
    ]
    assert [block.text for block in found[1].blocks] == ["Wählen Sie sie aus."]
    assert found[1].keywords == ("Tabellen,einfügen", "Tabellen")
    assert found[1].license == "MPL-2.0"


def test_paragraphs_of_a_book_meet_only_if_their_sections_have_as_many(tmp_path: Path) -> None:
    def book(lang: str, lines: str) -> dict[str, object]:
        return {
            "s": "dref",
            "k": "c",
            "l": lang,
            "t": "T",
            "p": [[0, "h1", "T"], [0, "", lines], [1, "", "z z z"]],
        }

    records = [book("en", "a a\nb b"), book("de", "c c\nd d"), book("fr", "e e\nf f\ng g")]
    numbers = {d.lang: [b.number for b in d.blocks] for d in ready.documents(folder(tmp_path, docs=records))}
    assert numbers["en"] == numbers["de"]
    assert not set(numbers["en"][:2]) & set(numbers["fr"])
    assert len(set(numbers["fr"])) == len(numbers["fr"])


def test_evaluation_records_are_refused_as_training_passages(tmp_path: Path) -> None:
    record: dict[str, object] = {"s": "arcd", "u": "eval", "l": "ar", "a": "x", "t": "text", "q": []}
    with pytest.raises(DataError, match="an evaluation record"):
        list(ready.passages(folder(tmp_path, qa_train=[record])))


def test_a_question_in_another_language_comes_with_its_translation(tmp_path: Path) -> None:
    record: dict[str, object] = {
        "s": "afriqa",
        "u": "train",
        "l": "en",
        "a": " Lagos ",
        "t": "Lagos is a city.",
        "q": [["yor", "Kí ni Èkó?", "What is Lagos?"]],
    }
    (found,) = ready.passages(folder(tmp_path, qa_train=[record]))
    assert found.article == "Lagos"
    assert found.questions == (Question("Kí ni Èkó?", "yo"), Question("What is Lagos?", "en"))


def test_a_folder_may_lack_files(tmp_path: Path) -> None:
    assert [*ready.documents(tmp_path), *ready.passages(tmp_path), *ready.translations(tmp_path)] == []


# --- the split -----------------------------------------------------------------------------------------------------


def passage(number: int, **fields: object) -> Passage:
    values: dict[str, object] = {
        "source": "arcd",
        "lang": "en",
        "article": f"a{number}",
        "text": sentence(number, 40),
    }
    return Passage(**values | fields)  # type: ignore[arg-type]


def test_an_article_is_on_one_side_in_all_its_languages() -> None:
    documents = [document(lang, f"k{i}") for i in range(60) for lang in ("de", "en", "ja")]
    parts = split.cut(documents, [passage(i) for i in range(60)], [])
    train, dev = ({d.key for d in side} for side in (parts.train, parts.dev))
    assert train
    assert dev
    assert not train & dev
    assert len(parts.train) + len(parts.dev) == 180
    assert all(split.is_development("lo", key) for key in dev)
    articles = {p.article for p in parts.train_passages} & {p.article for p in parts.dev_passages}
    assert parts.dev_passages
    assert not articles


def test_what_repeats_an_evaluation_set_is_left_out_and_counted() -> None:
    judged = [passage(1000, questions=(Question("Where is the silver harbour?", "en"),))]
    given = [
        passage(1, text="Before. " + sentence(1000, 40) + " After."),
        passage(2, questions=(Question("where is the SILVER harbour", "en"),)),
        passage(3),
    ]
    parts = split.cut([], given, judged)
    assert [p.article for p in (*parts.train_passages, *parts.dev_passages)] == ["a3"]
    assert sum(parts.dropped.values()) == 2


def test_training_never_repeats_a_development_passage() -> None:
    kept = next(i for i in range(100) if split.is_development("arcd", f"a{i}"))
    other = next(i for i in range(100) if not split.is_development("arcd", f"a{i}"))
    parts = split.cut([], [passage(kept), passage(other, text="So. " + sentence(kept, 40))], [])
    assert [p.article for p in parts.dev_passages] == [f"a{kept}"]
    assert parts.train_passages == []


def test_the_same_passage_twice_is_one_with_all_questions() -> None:
    given = [
        passage(3, questions=(Question("First one?", "en"),)),
        passage(3, questions=(Question("Second?", "en"),)),
    ]
    parts = split.cut([], given, [])
    (found,) = (*parts.train_passages, *parts.dev_passages)
    assert [question.text for question in found.questions] == ["First one?", "Second?"]


# --- passages and questions ----------------------------------------------------------------------------------------


def test_passages_hold_all_text_once_and_no_heading_they_are_found_by() -> None:
    given = document("en")
    found = chunks(given)
    lines = [line for chunk in found for line in chunk.text.split("\n") if line != given.title]
    assert set(lines) >= {block.text for block in given.blocks if not block.kind}
    assert len(lines) == len(set(lines))
    assert all(chunk.heading not in chunk.text.split("\n") for chunk in found if chunk.heading)
    assert len({chunk.id for chunk in found}) == len(found)


def test_a_question_on_two_passages_is_left_out() -> None:
    asked = (Question("What is it called?", "en"),)
    given = as_chunks(
        [passage(1, questions=asked), passage(2, questions=(*asked, Question("And when was it?", "en")))]
    )
    assert [each.query for each in human(given)] == ["And when was it?"]


def test_derived_queries_are_marked_and_their_passage_is_of_the_same_article() -> None:
    documents = [
        document(lang, f"k{i}", keywords=(f"{lang} entry number {i}", f"{lang} everywhere"))
        for i in range(4)
        for lang in ("de", "en", "fr")
    ]
    found = derived(documents)
    kinds = {each.kind for each in found}
    assert {"heading", "keyword", "heading-cross", "keyword-cross", "title-cross"} <= kinds
    for each in found:
        assert each.kind.endswith("-cross") == (each.lang != each.passage.lang)
        assert f" k{each.passage.article[-1]} " in f"{each.query} " or "entry number" in each.query
        assert each.query not in each.passage.text.split("\n")
        assert "everywhere" not in each.query  # four documents have it
    assert [a.row(0) for a in found] == [a.row(0) for a in derived(documents)]
    assert json.dumps(found[0].row(3))


def test_headings_that_recur_ask_for_nothing() -> None:
    documents = [document("en", f"k{i}") for i in range(3)]
    same = [
        StructuredDocument(
            "lo", d.key, "en", d.title, (Block(0, "h2", "See also these pages"), *d.blocks[1:])
        )
        for d in documents
    ]
    assert recurring(same)
    assert all("See also" not in each.query for each in derived(same))


# --- weak pairs ----------------------------------------------------------------------------------------------------


def test_weak_pairs_keep_the_caps_and_count_everything() -> None:
    documents = [document(lang, f"k{i}") for i in range(12) for lang in ("de", "en", "fr", "it")]
    words = [
        Translations("iso", f"t{i}", "term", {"de": (f"Wort{i}",), "en": (f"word{i}",)}) for i in range(9)
    ]
    mined = mine(documents, words, seed=1)
    again = mine(documents, words, seed=1)
    assert mined.pairs == again.pairs
    kinds = {pair.kind for pair in mined.pairs}
    assert {"title-body", "heading-section", "title-body-cross", "heading-section-cross"} <= kinds
    assert {"paragraph-translation", "term-translation"} <= kinds
    assert len(set(mined.pairs)) == len(mined.pairs)
    for pair in mined.pairs:
        assert (pair.lang == pair.passage_lang) != pair.kind.endswith(("-cross", "translation"))
    made, kept = sum(mined.tally.made.values()), sum(mined.tally.kept.values())
    assert made == kept + mined.tally.dropped.counts.total()
    assert kept == len(mined.pairs)


def test_a_cross_lingual_heading_leads_to_the_section_of_the_same_number() -> None:
    documents = [document("de"), document("en")]
    here, there = (sections(each) for each in documents)
    for pair in mine(documents, [], ("heading-section-cross",)).pairs:
        own, other = (here, there) if pair.lang == "de" else (there, here)
        (name,) = (name for name, (heading, _) in own.items() if heading == pair.query)
        assert other[name][1] == pair.passage


def test_paragraphs_of_different_lengths_are_no_translations() -> None:
    def pair(query: str, passage: str, lang: str = "de") -> WeakPair:
        return WeakPair(query, passage, "paragraph-translation", "lo", "k", lang, "en")

    assert alike(pair("a" * 60, "b" * 80))
    assert not alike(pair("a" * 60, "b" * 300))
    assert not alike(pair("short", "short"))
    assert alike(pair("漢" * 30, "b" * 80, "ja"))


def test_files_are_the_same_every_time_and_read_as_they_were(tmp_path: Path) -> None:
    rows = [{"text": sentence(i), "lang": "en"} for i in range(50)]
    for name in ("a", "b"):
        assert write(tmp_path / f"{name}.jsonl.zst", rows) == 50
    assert (tmp_path / "a.jsonl.zst").read_bytes() == (tmp_path / "b.jsonl.zst").read_bytes()
    assert list(read(tmp_path / "a.jsonl.zst")) == rows


def test_a_whole_document_has_title_headings_and_text_in_order() -> None:
    given = document("en")
    assert whole(given).split("\n") == [given.title, *(block.text for block in given.blocks)]
