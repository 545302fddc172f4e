import unicodedata
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from triptych.collections.base import Ranked
from triptych.eval.metrics import answer_recall, spaced, tokens


def has_answer(text: str, answers: Sequence[str]) -> bool:
    run = {"q": Ranked.of({"d": 1.0})}
    return bool(answer_recall(run, {"q": answers}, ["q"], {"d": spaced(text)}, [1])[1][0])


def slow_tokens(text: str) -> list[str]:
    """DPR's rule, a character at a time."""
    found: list[str] = []
    inside = False
    for char in unicodedata.normalize("NFD", text):
        kind = unicodedata.category(char)[0]
        if kind in "LNM":
            found[-1:] = [found[-1] + char] if inside else [*found[-1:], char]
        elif kind not in "ZC":
            found.append(char)
        inside = kind in "LNM"
    return [token.lower() for token in found]


def slow_has_answer(text: str, answers: list[str]) -> bool:
    held = slow_tokens(text)
    for answer in map(slow_tokens, answers):
        for start in range(len(held) - len(answer) + 1):
            if answer and held[start : start + len(answer)] == answer:
                return True
    return False


ODD = st.text(st.sampled_from("abÄé́ -'.,1٣वि日\t\n\x00\u200bİΣ"), max_size=12)


@given(ODD)
def test_tokens_are_runs_of_letters_digits_and_marks_and_single_other_characters(text: str) -> None:
    assert tokens(text) == slow_tokens(text)


@given(ODD, st.lists(ODD, max_size=3))
def test_an_answer_is_found_where_its_tokens_follow_each_other(text: str, answers: list[str]) -> None:
    assert has_answer(text, answers) == slow_has_answer(text, answers)


def test_case_and_the_form_of_accents_do_not_matter_but_accents_do() -> None:
    assert has_answer("IN SÃO PAULO", ["são paulo"])
    assert has_answer(
        spaced(unicodedata.normalize("NFD", "são paulo")), [unicodedata.normalize("NFC", "São Paulo")]
    )
    assert not has_answer("Sao Paulo", ["São Paulo"])


def test_an_answer_inside_a_longer_word_is_not_held() -> None:
    assert not has_answer("the artist", ["art"])
    assert not has_answer("in 1955", ["195"])


def test_an_answer_without_a_token_is_in_no_text() -> None:
    assert not has_answer("anything", ["", " ", "\x00"])
    assert not has_answer("", ["a"])
