"""What is wrong with an answer."""

from pathlib import Path

import pytest

from triptych.errors import DataError, InputError
from triptych.text import fold, ranker
from triptych.tools.synthesize.questions import (
    PROBLEMS,
    QuestionLimits,
    _phrases,
    _prompts,
    asks_yes_or_no,
    clean,
    invents,
    languages,
    load_prompt,
    problem_of,
    repeats,
    speaks,
)
from triptych.tools.synthesize.synthesize import QuestionRecipe

RANK = ranker(normalize=False)
PASSAGE = (
    "In 1512 a fire that began in a bakery destroyed forty houses of Arvika, among them the workshop in which the "
    "weavers had stored their tools."
)
GOOD = {
    "en": "When did flames ruin the tools of the weavers in Arvika?",
    "de": "Wann zerstörte ein Feuer das Werkzeug der Weber in Arvika?",
    "fr": "En quelle année un incendie a-t-il détruit les outils des tisserands d'Arvika ?",
    "es": "¿En qué año destruyó el fuego las herramientas de los tejedores de Arvika?",
    "it": "In che anno un incendio distrusse gli attrezzi dei tessitori di Arvika?",
    "pt": "Em que ano o fogo destruiu as ferramentas dos tecelões de Arvika?",
    "nl": "In welk jaar verwoestte een brand het gereedschap van de wevers van Arvika?",
    "pl": "W którym roku pożar zniszczył narzędzia tkaczy w Arvice?",
    "ru": "В каком году пожар уничтожил инструменты ткачей Арвики?",
    "tr": "Arvika'daki dokumacıların aletleri hangi yıl yangında yok oldu?",
    "ar": "في أي عام دمر الحريق أدوات النساجين في مدينة أرفيكا؟",
    "hi": "अरविका के बुनकरों के औज़ार किस वर्ष आग में नष्ट हुए थे?",
    "th": "เครื่องมือของช่างทอผ้าแห่งเมืองอาร์วิกาถูกไฟไหม้ในปีใด",
    "zh": "阿尔维卡的织工们的工具是在哪一年被大火烧毁的？",
    "ja": "アルビカの織工たちの道具が火事で失われたのは何年ですか？",
    "ko": "아르비카 직조공들의 도구가 화재로 사라진 해는 언제입니까?",
    "id": "Pada tahun berapa api menghancurkan peralatan para penenun di Arvika?",
}
TEXT = {
    "en": "What does the passage say about the fire of Arvika?",
    "de": "Was steht im Text über das Feuer in Arvika?",
    "fr": "Que dit le texte sur l'incendie d'Arvika ?",
    "es": "¿Qué dice el texto sobre el incendio de Arvika?",
    "it": "Che cosa dice il brano sull'incendio di Arvika?",
    "pt": "O que diz o texto sobre o incêndio de Arvika?",
    "nl": "Wat zegt de tekst over de brand van Arvika?",
    "pl": "Co mówi się w tekście o pożarze w Arvice?",
    "ru": "Что говорится в тексте о пожаре в Арвике?",
    "tr": "Bu metinde Arvika yangını hakkında ne yazıyor?",
    "ar": "ماذا يقول هذا النص عن حريق أرفيكا؟",
    "hi": "इस पाठ में अरविका की आग के बारे में क्या लिखा है?",
    "th": "ข้อความนี้กล่าวถึงไฟไหม้เมืองอาร์วิกาว่าอย่างไร",
    "zh": "根据本文，阿尔维卡的大火是怎样的？",
    "ja": "この文章によると、アルビカの火事はどうでしたか？",
    "ko": "이 글에서 아르비카의 화재는 어떻게 설명됩니까?",
    "id": "Apa kata teks ini tentang kebakaran Arvika?",
}
REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "As an AI, I am unable to do this.",
    "Es tut mir leid, dabei kann ich nicht helfen.",
    "Je suis désolé, je ne peux pas répondre.",
    "Lo siento, no puedo ayudar con eso.",
    "Mi dispiace, non posso aiutarti.",
    "Desculpe, não posso ajudar.",
    "Извините, я не могу помочь.",
    "抱歉，我无法提供帮助。",
    "申し訳ありませんが、お答えできません。",
    "죄송하지만 도와 드릴 수 없습니다.",
    "عذراً، لا أستطيع المساعدة.",
    "क्षमा करें, मैं यह नहीं कर सकता।",
    "ขออภัย ไม่สามารถช่วยได้",
    "Maaf, saya tidak dapat membantu.",
]


def problem(answer: str, language: str = "en", **limits: int) -> str | None:
    return problem_of(clean(answer), PASSAGE, language, QuestionLimits(**limits), RANK, answer)


@pytest.mark.parametrize("language", GOOD)
def test_a_good_question_passes_in_every_language_with_a_prompt(language: str) -> None:
    assert problem(GOOD[language], language) is None


@pytest.mark.parametrize("language", TEXT)
def test_a_question_about_the_text_is_told_in_every_language(language: str) -> None:
    assert problem(TEXT[language], language) == "refers to the text"


@pytest.mark.parametrize("language", GOOD)
def test_a_question_in_english_about_a_document_in_another_language_is_told(language: str) -> None:
    expected = None if language == "en" else "other language"
    assert problem(GOOD["en"], language) == expected


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_told(text: str) -> None:
    assert problem(text) == "refused"


def test_a_question_that_holds_the_words_of_a_refusal_is_none() -> None:
    assert problem("Who said 'I cannot do otherwise' before the court of Worms?") is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ("NONE", "nothing to ask"),
        ("none.", "nothing to ask"),
        ("Who built it? And when was it built?", "not one question"),
        ("When did the guild hall of Arvika burn?\nIn 1512.", "not one question"),
        ("The tools of the weavers of Arvika burnt.", "not a question"),
        ("Why?", "too short"),
        ("Why " + "on earth " * 40 + "did it burn?", "too long"),
        (
            "Who destroyed forty houses of Arvika, among them the workshop in which the weavers had stored?",
            "copied",
        ),
        ("What did the author of this article write about weavers?", "refers to the text"),
    ],
)
def test_what_is_wrong_is_named(answer: str, expected: str) -> None:
    assert problem(answer) == expected
    assert expected in PROBLEMS


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("Who is the author of The Trial?", "en"),
        ("Which section of the railway opened first near Bled?", "en"),
        ("Wer ist der Autor des Romans Der Prozess?", "de"),
        ("Qui est l'auteur du roman Le Procès ?", "fr"),
        ("¿Quién es el autor de la novela El proceso?", "es"),
    ],
)
def test_a_question_about_an_author_does_not_speak_of_the_text(question: str, language: str) -> None:
    assert problem(question, language) is None


def test_a_copy_is_told_where_words_are_not_separated() -> None:
    passage = "一五一二年，始于面包房的大火烧毁了阿尔维卡的四十座房屋，其中包括织工们存放工具的作坊。"
    copied = "始于面包房的大火烧毁了阿尔维卡的四十座房屋吗？"
    assert problem_of(copied, passage, "zh", QuestionLimits(), None) == "copied"
    assert problem_of(GOOD["zh"], passage, "zh", QuestionLimits(), None) is None


@pytest.mark.parametrize(
    "answer",
    [
        "Question: When did it burn?",
        "**Question:** When did it burn?",
        "Q: When did it burn?",
        '"When did it burn?"',
        "“When did it burn?”",
        "1. When did it burn?",
        "- When did it burn?",
        "**When did it burn?**",
        "  When did it burn?\n",
    ],
)
def test_what_models_put_around_a_question_is_taken_off(answer: str) -> None:
    assert clean(answer) == "When did it burn?"


def test_quotation_marks_inside_stay() -> None:
    for text in ('"Faust" and "Egmont" are by whom?', "What is 'The Trial'?"):
        assert clean(text) == text


def test_questions_with_the_same_words_are_the_same() -> None:
    assert fold("When did it  burn?") == fold("when did it burn") != fold("When did it burn down?")


def test_a_language_that_nobody_can_identify_passes() -> None:
    assert speaks("Whatever it is", "tlh", RANK)
    assert speaks(GOOD["pt"], "pt-BR", RANK)
    assert not speaks(GOOD["de"], "ja", RANK)


def test_there_are_a_prompt_and_phrases_for_every_language_of_mldr_and_some_more() -> None:
    mldr = {"ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "pt", "ru", "th", "zh"}
    assert set(languages()) == set(GOOD) == set(TEXT) == set(_phrases()["reference"])
    assert mldr < set(languages())


@pytest.mark.parametrize("language", [*GOOD, "sw"])
def test_a_prompt_has_title_and_passage_and_leaves_what_is_in_them_alone(language: str) -> None:
    prompt = load_prompt(language)
    system, user = prompt.messages("A {passage} title", "Braces {title} and {language} stay", language)
    assert (system["role"], user["role"]) == ("system", "user")
    assert "A {passage} title" in user["content"]
    assert "Braces {title} and {language} stay" in user["content"]
    assert "NONE" in system["content"]
    assert ('"sw"' in system["content"]) == (language == "sw")
    assert RANK(system["content"])[0][0] == (language if language != "sw" else "en")


@pytest.mark.parametrize("language", [*languages(_prompts().joinpath("small")), "sw"])
def test_a_prompt_for_small_models_shows_examples_that_pass_the_checks(language: str) -> None:
    prompt = load_prompt(language, style="small")
    system, *turns, last = prompt.messages("A title", "Braces {title} stay", language)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    assert last == {"role": "user", "content": "A title\n\nBraces {title} stay"}
    assert RANK(system["content"])[0][0] == (language if language != "sw" else "en")
    shown = "en" if language == "sw" else language
    for asked, answer in zip(turns[::2], turns[1::2], strict=True):
        assert problem_of(answer["content"], asked["content"], shown, QuestionLimits(), RANK) is None, answer


@pytest.mark.parametrize(
    ("question", "language", "expected"),
    [
        ("Is Lake Baikal deep?", "en", True),
        ("How deep is Lake Baikal?", "en", False),
        ("Ist der Baikalsee tief?", "de", True),
        ("Worin liegt der Baikalsee?", "de", False),
        ("¿Es profundo el lago Baikal?", "es", True),
        ("Baykal Gölü derin mi?", "tr", True),
        ("Глубоко ли озеро Байкал?", "ru", True),
        ("贝加尔湖深吗？", "zh", True),
        ("バイカル湖は深いですか？", "ja", True),
        ("هل بحيرة بايكال عميقة؟", "ar", True),
        ("Ko dziļš ir Baikāla ezers?", "lv", False),  # no list of words
    ],
)
def test_a_question_for_yes_or_no_is_told(question: str, language: str, expected: bool) -> None:
    assert asks_yes_or_no(question, language) is expected


@pytest.mark.parametrize(
    ("question", "language", "expected"),
    [
        ("How deep is Lake Baikal in Siberia?", "en", False),
        ("How deep is Lake Baikal in Mongolia?", "en", True),
        ("How deep was Lake Baikal in 1920?", "en", True),
        ("What of the 1,642 metres of Lake Baikal?", "en", False),
        ("Wie tief ist der See mit Namen Baikal?", "de", False),  # nouns are no names there
        ("Wie tief war der Baikal 1920?", "de", True),
        ("Насколько глубок Байкал в Сибири?", "ru", False),  # no word in common: another script
    ],
)
def test_a_question_with_a_name_or_number_of_its_own_is_told(
    question: str, language: str, expected: bool
) -> None:
    source = "Lake Baikal lies in southern Siberia. It is 1,642 metres deep."
    assert invents(question, source, language) is expected


def test_half_an_example_in_a_prompt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "de.txt").write_text("Sei kurz.\n---\nBeispiel\n---\n{passage}", "utf-8")
    with pytest.raises(DataError, match=r"de\.txt: expected instructions"):
        load_prompt("de", tmp_path)


def test_own_prompts_come_before_those_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "de.txt").write_text("Sei kurz.\n---\n{passage}", "utf-8")
    assert load_prompt("de-AT", tmp_path).messages(None, "x", "de")[0]["content"] == "Sei kurz."
    assert load_prompt("fr", tmp_path) == load_prompt("fr")
    (tmp_path / "fr.txt").write_text("{passage}", "utf-8")
    with pytest.raises(DataError, match=r"fr\.txt: expected instructions, a line '---'"):
        load_prompt("fr", tmp_path)


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="expected 0 < least"):
        QuestionLimits(min_size=10, max_size=9)


def test_prompts_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "de.txt").write_bytes(b"K\xfcrze\n---\n{passage}")
    with pytest.raises(DataError, match=r"de\.txt: cannot be read as UTF-8 text"):
        load_prompt("de", tmp_path)
    with pytest.raises(InputError, match="expected a folder"):
        QuestionRecipe(prompts=tmp_path / "nowhere")


def test_a_question_that_falls_back_on_an_example_is_told() -> None:
    example = "How do I get back an older version of a file from the .snapshots folder?"
    assert repeats("How do I get back an older version of a Dalek?", [example])
    assert repeats(
        "बिलुबी के तीन बच्चे को किसी फ़ाइल का पुराना संस्करण कैसे वापस पाएँ?",
        [".snapshots फ़ोल्डर से किसी फ़ाइल का पुराना संस्करण कैसे वापस पाएँ?"],
    )
    assert not repeats("How do I lock the screen of a Dalek?", [example])
