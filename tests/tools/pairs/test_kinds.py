"""Every kind of pair, on documents made by hand."""

from collections.abc import Iterable

import pytest

from triptych.collections.examples import Example, parse_record
from triptych.errors import InputError
from triptych.records import Place
from triptych.tools.pairs import kinds
from triptych.tools.pairs.base import Block, Limits, StructuredDocument, Translations, WeakPair
from triptych.tools.pairs.base import pair_record as to_record
from triptych.tools.pairs.kinds import drop_untranslated, mine_group, mine_translations

from .made import LONG, OTHER, document

LIMITS = Limits()


def sides(pairs: Iterable[WeakPair]) -> list[tuple[str, str]]:
    return [(pair.query, pair.passage) for pair in pairs]


def test_the_title_leads_to_the_text_without_its_own_repetition() -> None:
    made = document(
        ("h1", "Moka pots"), ("", "one"), ("h2", "Moka POTS"), ("h2", "More"), ("", "two"), title="Moka Pots!"
    )
    assert sides(kinds.title_body(made, LIMITS)) == [("Moka Pots!", "one\nMore\ntwo")]


def test_a_body_ends_with_the_block_that_reaches_the_limit() -> None:
    made = document(("", "a" * 10), ("", "b" * 10), ("", "c" * 10), title="T")
    assert sides(kinds.title_body(made, Limits(passage_chars=15))) == [("T", "a" * 10 + "\n" + "b" * 10)]
    assert sides(kinds.title_body(made, Limits(passage_chars=8))) == [("T", "a" * 10)]


def test_one_very_long_paragraph_is_cut_after_a_sentence_or_a_word() -> None:
    made = document(("", "One two three. " * 50), title="T")
    passage = sides(kinds.title_body(made, Limits(passage_chars=100)))[0][1]
    assert len(passage) <= 100
    assert passage.endswith(".")
    made = document(("", "word " * 50), title="T")
    assert sides(kinds.title_body(made, Limits(passage_chars=23)))[0][1].endswith(" word")
    made = document(("", "字" * 500), title="T")
    assert sides(kinds.title_body(made, Limits(passage_chars=100)))[0][1] == "字" * 100


def test_only_headings_or_no_title_or_nothing_at_all_make_no_pair() -> None:
    assert not list(mine_group([document(("h1", "A"), ("h2", "B?"), title="T")], LIMITS))
    assert not list(mine_group([document(title="T", keywords=("k",), description="d")], LIMITS))
    assert not list(kinds.title_body(document(("", LONG)), LIMITS))
    assert not list(mine_group([document(("", " "), ("h1", " "), ("", ""), title=" ")], LIMITS))
    assert not list(mine_group([], LIMITS))


def test_a_heading_leads_to_its_section_with_sub_sections_and_without_its_number() -> None:
    made = document(
        ("h1", "1.2. Brewing"),
        ("", "a"),
        ("h2", "By steam"),
        ("", "b"),
        ("h2", "Empty"),
        ("h1", "Chapter 4. Cleaning"),
        ("", "c"),
    )
    assert sides(kinds.heading_section(made, LIMITS)) == [
        ("Brewing", "a\nBy steam\nb"),
        ("By steam", "b"),
        ("Cleaning", "c"),
    ]


@pytest.mark.parametrize("text", ["3D printing", "2001: a film", "Vitamin C", "I. ", "12. "])
def test_what_is_no_number_of_a_heading_stays(text: str) -> None:
    made = document(("h1", text), ("", "a"))
    assert sides(kinds.heading_section(made, LIMITS)) == [(text.strip(), "a")]


def test_a_recurring_heading_has_the_title_before_it_and_without_a_title_makes_no_pair() -> None:
    made = document(("h1", "Options"), ("", "a"), ("h1", "Rare"), ("", "b"), title="7.1. ls")

    def common(heading: str, _document: StructuredDocument) -> bool:
        return heading == "Options"

    assert sides(kinds.heading_section(made, LIMITS, common)) == [("ls: Options", "a"), ("Rare", "b")]
    untitled = document(("h1", "Options"), ("", "a"))
    assert not list(kinds.heading_section(untitled, LIMITS, common))


@pytest.mark.parametrize(
    "question",
    ["What is it?", "它是什么？", "ما هذا؟", "Τι είναι αυτό;", "Qu'est-ce que c'est ?", "(Really?)"],
)
def test_headings_that_are_questions_are_questions_and_nothing_else(question: str) -> None:
    made = document(("h2", question), ("", LONG))
    assert sides(kinds.question_answer(made, LIMITS)) == [(question, LONG)]
    assert not list(kinds.heading_section(made, LIMITS))


def test_a_semicolon_is_a_question_mark_in_greek_alone() -> None:
    assert not kinds.is_question("first;")


def test_terms_and_questions_of_lists_head_their_answers() -> None:
    made = document(("h1", "FAQ"), ("h7", "Why?"), ("", "Because."), ("h7", "Term"), ("", "What it means."))
    assert sides(kinds.question_answer(made, LIMITS)) == [("Why?", "Because.")]
    assert ("Term", "What it means.") in sides(kinds.heading_section(made, LIMITS))


def test_paragraphs_marked_as_questions_and_answers_are_paired_without_their_marks() -> None:
    made = document(
        ("", "Q: How long?"), ("", "A: A day."), ("", "Or two."), ("", "Q: And then?"), ("", "Nothing.")
    )
    assert sides(kinds.question_answer(made, LIMITS)) == [("How long?", "A day.\nOr two.")]


def test_descriptions_and_keywords_lead_to_the_text() -> None:
    made = document(("", "text"), description="about it", keywords=("pots,for coffee", "steam", "steam"))
    assert sides(kinds.description_body(made, LIMITS)) == [("about it", "text")]
    assert sides(kinds.keyword_body(made, LIMITS)) == [("pots, for coffee", "text"), ("steam", "text")]


def test_words_of_links_lead_to_the_text_of_their_target_unless_they_are_its_title() -> None:
    made = document(("", "text"), title="Moka pot")
    assert sides(kinds.links(made, ["the pot", "moka pot", "the pot"], LIMITS)) == [("the pot", "text")]


def test_neighbours_are_long_paragraphs_with_no_heading_between() -> None:
    made = document(("", LONG), ("", OTHER), ("h2", "x"), ("", LONG), ("li", OTHER), ("", "short"))
    assert sides(kinds.neighbours(made, LIMITS)) == [(LONG, OTHER)]


def translated() -> list[StructuredDocument]:
    german = document(("h1", "Kanne"), ("", "eins"), ("li", "zwei"), title="Die Kanne", lang="de")
    english = document(("h1", "Pot"), ("", "one"), ("li", "two"), title="The pot")
    return [german, english]


def test_paragraphs_lead_to_their_translations_in_both_directions() -> None:
    pairs = list(kinds.paragraph_translation(translated(), LIMITS))
    assert sides(pairs) == [("eins", "one"), ("one", "eins"), ("zwei", "two"), ("two", "zwei")]
    assert [pair.languages for pair in pairs[:2]] == ["de>en", "en>de"]


def test_documents_lead_to_their_translations_with_their_titles() -> None:
    pairs = sides(kinds.document_translation(translated(), LIMITS))
    assert pairs[0] == ("Die Kanne\nKanne\neins\nzwei", "The pot\nPot\none\ntwo")
    one_block = [document(("", "eins"), lang="de"), document(("", "one"))]
    assert not list(kinds.document_translation(one_block, LIMITS))


def test_blocks_that_are_not_aligned_are_paired_in_documents_of_the_same_structure_alone() -> None:
    loose = [document(("", "eins"), ("", "zwei"), lang="de", aligned=False)]
    same = document(("", "one"), ("", "two"), aligned=False)
    other = document(("", "one"), ("li", "two"), aligned=False)
    assert len(list(kinds.paragraph_translation([*loose, same], LIMITS))) == 4
    assert not list(kinds.paragraph_translation([*loose, other], LIMITS))


def test_each_paragraph_draws_its_own_pairs_of_different_languages_and_no_more_than_the_limit() -> None:
    blocks = [("", f"text {i}") for i in range(50)]
    group = [document(*blocks, lang=lang) for lang in ("de", "en", "fr", "it", "ja")]
    pairs = list(kinds.paragraph_translation(group, Limits(language_pairs=3)))
    assert len(pairs) == 150
    assert len(set(pairs)) == 150
    assert {(p.lang, p.passage_lang) for p in pairs} == {
        (a.lang, b.lang) for a in group for b in group if a is not b
    }
    assert pairs == list(kinds.paragraph_translation(group, Limits(language_pairs=3)))
    assert pairs != list(kinds.paragraph_translation(group, Limits(language_pairs=3, seed=1)))


def test_sentences_are_paired_by_their_place_where_the_numbers_agree() -> None:
    texts = {"de": ("eins", "zwei"), "en": ("one", "two"), "fr": ("un",)}
    pairs = list(mine_translations(Translations("s", "k", "sentence", texts), LIMITS))
    assert sides(pairs) == [("eins", "one"), ("one", "eins"), ("zwei", "two"), ("two", "zwei")]
    assert {pair.kind for pair in pairs} == {"sentence-translation"}


def test_other_forms_of_a_term_lead_to_the_usual_translation() -> None:
    texts = {"de": ("Haus", "Heim"), "en": ("house",), "fr": ()}
    pairs = list(mine_translations(Translations("s", "k", "term", texts), LIMITS))
    assert sides(pairs) == [("Haus", "house"), ("house", "Haus"), ("Heim", "house")]
    assert not list(mine_translations(Translations("s", "k", "term", {}), LIMITS))
    assert not list(
        mine_translations(Translations("s", "k", "sentence", {"de": (" ",), "en": ("one",)}), LIMITS)
    )


def test_all_kinds_together_are_the_kinds_one_by_one() -> None:
    group = translated()
    together = list(mine_group(group, LIMITS))
    single = [pair for kind in kinds.KINDS for pair in mine_group(group, LIMITS, [kind])]
    assert sorted(together) == sorted(single)


def test_limits_and_kinds_that_mean_nothing_are_errors() -> None:
    with pytest.raises(InputError, match="neighbours: got 0"):
        Limits(neighbours=0)
    with pytest.raises(InputError, match="got 'titles'; expected some of title-body"):
        kinds.check_kinds(["titles"])
    with pytest.raises(InputError, match="got 'none'"):
        kinds.check_kinds([])
    assert kinds.check_kinds(["neighbour", "title-body", "neighbour"]) == ("title-body", "neighbour")


def test_a_pair_is_a_training_example_with_its_provenance() -> None:
    pair = WeakPair("eins", "one", "paragraph-translation", "s", "k", "de", "en", "MIT")
    record = to_record(pair)
    made = parse_record(record, Place("x"))
    assert isinstance(made, Example)
    assert (made.query, made.pos, made.neg, made.language, made.id) == ("eins", ("one",), (), "de", pair.id)
    assert {k: record[k] for k in ("pos_lang", "kind", "source", "key", "license")} == {
        "pos_lang": "en",
        "kind": "paragraph-translation",
        "source": "s",
        "key": "k",
        "license": "MIT",
    }
    assert "pos_lang" not in to_record(pair._replace(passage_lang="de"))


def test_right_to_left_and_unspaced_text_is_mined_as_any_other() -> None:
    arabic = document(("h1", "فصل 12. الإدارة"), ("", "نص"), title="عنوان", lang="ar")
    assert ("الإدارة", "نص") in sides(mine_group([arabic], LIMITS))
    japanese = document(("h1", "見出し"), ("", "本文"), lang="ja")
    assert sides(mine_group([japanese], LIMITS)) == [("見出し", "本文")]


def test_block_numbers_may_repeat_for_headings_and_their_text() -> None:
    def made(lang: str, heading: str, text: str) -> StructuredDocument:
        return StructuredDocument("s", "k", lang, "", (Block(0, "h1", heading), Block(0, "", text)))

    pairs = kinds.paragraph_translation([made("de", "H", "eins"), made("en", "H", "one")], LIMITS)
    assert sides(pairs) == [("eins", "one"), ("one", "eins")]


def test_entries_of_an_enumeration_are_no_neighbours() -> None:
    first, second = f"Here is an example: {LONG}", f"Here is another one: {OTHER}"
    assert not list(kinds.neighbours(document(("", first), ("", second)), LIMITS))
    assert len(list(kinds.neighbours(document(("", first), ("", OTHER)), LIMITS))) == 1
    japanese = ("これはコーヒーの例です。" * 5, "これはコーヒーの別の例です。" * 5)
    assert not list(kinds.neighbours(document(*(("", text) for text in japanese)), LIMITS))


@pytest.mark.parametrize("text", ["README.md", "https://x.org/y", "docs/cli.md", "x.org", "Chapter 18"])
def test_addresses_are_no_words_of_a_link(text: str) -> None:
    assert not list(kinds.links(document(("", LONG)), [text], LIMITS))
    assert (
        len(list(kinds.links(document(("", LONG)), ["chapter 2.0 of it", "Dr. X", "a/b test"], LIMITS))) == 3
    )


def test_colons_of_headings_and_numbers_of_senses_are_left_out() -> None:
    made = document(("h1", "To copy a slide:"), ("", LONG))
    assert [pair.query for pair in kinds.heading_section(made, LIMITS)] == ["To copy a slide"]
    terms = Translations("s", "k", "term", {"pl": ("2. wy",), "en": ("you",)})
    assert sides(mine_translations(terms, LIMITS)) == [("you", "wy"), ("wy", "you")]


def test_what_a_translation_left_in_english_is_taken_out_of_it() -> None:
    paragraph = "This paragraph was never translated by anybody who worked on it."
    english = document(
        ("h1", "Starting up"), ("", paragraph), ("", "apt install x"), title="Name", keywords=("a pot", "pot")
    )
    german = document(
        ("h1", "Starting up"),
        ("h2", "Mehr"),
        ("", paragraph + "!"),
        ("", "apt install x"),
        title="Name",
        lang="de",
        keywords=("A pot", "pot", "Kanne"),
        description="Starting up",
    )
    own, cleaned = drop_untranslated([english, german])
    assert own == (english, 0, 0)
    assert [block.text for block in cleaned.document.blocks] == ["Mehr", "apt install x"]
    assert (cleaned.document.keywords, cleaned.document.description) == (("pot", "Kanne"), "")
    assert (cleaned.blocks, cleaned.keywords) == (2, 1)
    assert cleaned.document.title == "Name"
    assert drop_untranslated([german]) == [(german, 0, 0)]
