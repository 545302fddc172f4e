"""Human questions in other languages: what is asked, and what is kept of the answers."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import translate
from corpus.records import read
from translate import Item, choose, examples, items, messages, numbers, problem_of, request_of, shares
from triptych.io import json_lines
from triptych.text import ranker
from triptych.tools.synthesize.asking import AnswerStore
from triptych.tools.synthesize.client import Answer

QUESTIONS = {
    "set/en/1#1": ("en", "Which painter was born in Leiden in 1606?"),
    "set/ja/2#2": ("ja", "1606年にライデンで生まれた画家は誰ですか？"),
    "set/ja/3#3": ("ja", "その橋の長さは何メートルですか？"),
    "set/th/4#4": ("th", "แม่น้ำสายนี้ยาวกี่กิโลเมตร"),
    "set/yo/5#5": ("yo", "Kí ni orúkọ olú ìlú Nàìjíríà?"),
}

SAID = {
    "cs": "Který malíř se narodil v roce 1606 v Leidenu?",
    "de": "Welcher Maler wurde 1606 in Leiden geboren?",
    "fr": "Quel peintre est né à Leyde en 1606 ?",
    "hi": "1606 में लीडेन में किस चित्रकार का जन्म हुआ था?",
    "it": "Quale pittore nacque a Leida nel 1606?",
    "th": "จิตรกรคนใดเกิดที่เมืองไลเดนในปี 1606",
}


@pytest.fixture
def human(tmp_path: Path) -> Path:
    folder = tmp_path / "stage-3"
    for id_, (lang, query) in QUESTIONS.items():
        row = {"query": query, "pos": [f"passage of {id_}"], "neg": [], "lang": lang, "id": id_}
        with json_lines(folder / f"human-{id_[-1]}.jsonl.zst") as write:
            write(row | {"pos_id": [id_.split("#")[0]], "article": f"set/{id_[-1]}"})
    return folder


@pytest.fixture
def questions(human: Path, tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl.zst"
    translate.inputs(human, path)
    return path


def test_languages_are_drawn_by_weight_without_the_questions_own() -> None:
    drawn = {id_: choose(id_, "en") for id_ in map(str, range(2000))}
    assert all(list(chosen.values()) == [0, 1, 2, 3] and "en" not in chosen for chosen in drawn.values())
    counts = Counter(to for chosen in drawn.values() for to in chosen)
    assert set(counts) == set(translate.TARGETS) - {"en"}
    assert counts["de"] > 2 * counts["sv"] > 0
    assert drawn == {id_: choose(id_, "en") for id_ in map(str, range(2000))}


def test_of_the_largest_language_each_round_has_half_of_the_questions() -> None:
    rounds = Counter(number for id_ in range(2000) for number in choose(str(id_), "ja").values())
    assert rounds.total() == 4000
    assert all(900 < rounds[number] < 1100 for number in range(4))


def test_languages_with_few_questions_go_into_strong_languages_alone() -> None:
    chosen = {to for id_ in range(500) for to in choose(str(id_), "fr")}
    assert chosen == {to for to, weight in translate.TARGETS.items() if weight >= translate.STRONG} - {"fr"}


def test_the_inputs_leave_out_languages_that_the_model_does_not_speak(questions: Path) -> None:
    assert [row["id"] for row in read(questions)] == [id_ for id_ in QUESTIONS if "yo" not in id_]
    found = items(questions)
    assert len(found) == 4 + 2 + 2 + 4
    assert [item.round for item in found] == sorted(item.round for item in found)


def test_shares_hold_everything_once_and_no_pair_of_languages_is_divided() -> None:
    found = [
        Item(f"{n}", f"question {n}", lang, to, n % 3)
        for n in range(60)
        for lang in ("en", "ja")
        for to in "abc"
    ]
    parts = shares(found, 4)
    assert sorted(item for part in parts for item in part) == sorted(found)
    homes = Counter(pair for part in parts for pair in {(item.lang, item.to) for item in part})
    assert set(homes.values()) == {1}
    assert all([item.round for item in part] == sorted(item.round for item in part) for part in parts)


def test_each_language_has_examples_that_pass_the_checks_of_translations() -> None:
    rank = ranker(normalize=False)
    assert set(examples()) == set(translate.TARGETS)
    for lang, asked in examples().items():
        assert len(asked) == 3
        assert numbers(asked[0]) == Counter(["1969"]), lang
        for number, text in enumerate(asked):
            item = Item("", "x" + examples()["en"][number], "en", lang, 0)
            assert problem_of(f"{text} ", item, rank) in (None, "an example"), (lang, text)


def test_a_request_has_examples_from_the_one_language_into_the_other() -> None:
    turns = messages("水は何度で沸騰しますか？", "ja", "de")
    assert [turn["role"] for turn in turns] == ["system", *("user", "assistant") * 3, "user"]
    assert "from Japanese into German" in turns[0]["content"]
    assert turns[3]["content"] == examples()["ja"][1]
    assert turns[4]["content"] == "Welcher Fluss fließt durch die Hauptstadt von Österreich?"
    assert turns[-1]["content"] == "水は何度で沸騰しますか？"
    assert turns[:-1] == messages("another", "ja", "de")[:-1]  # shared by the whole pair of languages


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Welcher Maler wurde 1606 in Leiden geboren?", None),
        ("", "empty"),
        ("Welcher Maler wurde 1606 in Leiden geboren?\nRembrandt.", "more than a question"),
        ("Which painter was born in Leiden in 1606?", "not translated"),
        ("Wie hoch ist der Mount Everest?", "an example"),
        ("Wer, 1606?", "length"),
        ("Welcher Maler wurde 1660 in Leiden geboren?", "numbers"),
        ("Welcher Maler wurde in der Stadt Leiden geboren?", "numbers"),
        ("Welcher 画家 wurde 1606 in Leiden geboren?", "other script"),
        ("Der Maler wurde 1606 in Leiden geboren.", "not a question"),
        ("Quel peintre est né à Leyde en 1606, aux Pays-Bas ?", "other language"),
    ],
)
def test_what_is_no_translation_is_named(text: str, problem: str | None) -> None:
    item = Item("1", "Which painter was born in Leiden in 1606?", "en", "de", 0)
    assert problem_of(text, item, ranker(normalize=False)) == problem


def test_numbers_are_compared_across_digits_and_marks_between_thousands() -> None:
    assert numbers("在 12,500 人中有 7 人") == numbers("从 ١٢٬٥٠٠ أشخاص 7") == Counter(["12500", "7"])
    assert numbers("07") == numbers("7")
    assert numbers("1969年7月20日に") == numbers("on July 20, 1969") == numbers("ngày 20 tháng 7 năm 1969")


def test_what_has_the_questions_meaning_is_kept_and_stands_on_the_questions_passage(
    human: Path, questions: Path, tmp_path: Path
) -> None:
    found, where = items(questions), translate.endpoint()
    alike = np.full((len(found), 2), np.nan, np.float16)
    with AnswerStore(tmp_path / "answers.sqlite") as known:
        for number, item in enumerate(found):
            text = {"set/en/1#1": SAID.get(item.to), "set/ja/2#2": SAID.get(item.to), "set/ja/3#3": ""}.get(
                item.id
            )
            if text is not None:
                known.put(request_of(item, where).key, where.model, Answer(text, "stop", False, 1, 1))
                alike[number] = (0.9, 0.3) if item.id == "set/en/1#1" else (0.9, 0.85)
    np.save(tmp_path / "alike.npy", alike)
    kept = tmp_path / "translations.jsonl.zst"
    translate.keep(questions, tmp_path / "answers.sqlite", tmp_path / "alike.npy", kept)
    facts = json.loads((tmp_path / "translations.json").read_text())
    said = [item.to for item in found if item.id == "set/en/1#1" and item.to not in translate.POOR]
    assert facts["answers"] == 8
    assert facts["dropped"] == {"empty": 2, "other meaning": 2, "poor language": 1}
    assert facts["languages"] == dict.fromkeys(said, 1)
    translate.rows(human, kept, tmp_path / "part")
    rows = list(read(tmp_path / "part" / "translated" / "rows.jsonl"))
    assert [(row["lang"], row["query"]) for row in rows] == [(to, SAID[to]) for to in said]
    for row in rows:
        assert (row["pos"], row["neg"]) == (["passage of set/en/1#1"], [])
        assert (row["pos_lang"], row["pos_id"], row["article"]) == ("en", ["set/en/1"], "set/1")


@pytest.mark.parametrize(
    ("lang", "to", "own", "others", "same"),
    [
        ("ja", "de", 0.75, 0.5, True),
        ("en", "de", 0.85, 0.5, True),
        ("en", "de", 0.75, 0.5, False),
        ("th", "ru", 0.75, 0.5, False),
        ("ja", "de", 0.75, 0.7, False),
        ("ja", "de", 0.6, 0.1, False),
        ("ja", "de", float("nan"), 0.1, False),
    ],
)
def test_meaning_is_judged_by_likeness_and_by_what_else_is_alike(
    lang: str, to: str, own: float, others: float, same: bool
) -> None:
    assert translate.means(Item("1", "", lang, to, 0), own, others) is same


class _Echo(BaseHTTPRequestHandler):
    """Answers each request with its last message."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": body["messages"][-1]["content"]}
        answer = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{http.server_port}/v1")
        yield
        http.shutdown()


@pytest.mark.usefixtures("server")
def test_shares_together_ask_for_everything_and_again_for_nothing(
    questions: Path, tmp_path: Path, capsys
) -> None:
    found, where = items(questions), translate.endpoint()
    got: dict[bytes, str] = {}
    for share in (0, 1, 1):
        path = tmp_path / f"answers-{share}.sqlite"
        translate.ask(questions, path, share, 2, concurrency=3)
        with AnswerStore(path) as known:
            answers = ((item, known.get(request_of(item, where).key)) for item in found)
            got |= {request_of(item, where).key: answer.text for item, answer in answers if answer}
    assert "answered 0 of" in capsys.readouterr().out.splitlines()[-1]
    assert got == {request_of(item, where).key: item.query for item in found}
