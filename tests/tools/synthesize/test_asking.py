"""Asking a real server on a real socket, with every fault that servers have."""

import asyncio
import gzip
import random
import sqlite3
import time
import traceback
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from triptych.errors import DataError, EndpointError, InputError
from triptych.tools.synthesize.asking import (
    AnswerStore,
    Budget,
    Outcomes,
    Patience,
    Prices,
    QuestionRequest,
    ask_all,
    key_of,
)
from triptych.tools.synthesize.client import Answer, Endpoint, TokenCount, parse_answer, retry_after

from . import server as s
from .conftest import endpoint


def requests(count: int) -> list[QuestionRequest]:
    messages = [[{"role": "user", "content": f"passage {i}"}] for i in range(count)]
    return [QuestionRequest(key_of("tiny", each, {}), each, f"d{i}") for i, each in enumerate(messages)]


def ask(
    model: s.Model,
    wanted: list[QuestionRequest],
    answers: Path,
    patience: Patience,
    budget: Budget | None = None,
    **options: Any,
) -> tuple[Outcomes, list[Answer | None]]:
    with s.serving(model), AnswerStore(answers) as known:
        todo = (request for request in wanted if known.get(request.key) is None)
        tally = ask_all(todo, endpoint(model, **options), known, budget or Budget(), patience)
        return tally, [known.get(request.key) for request in wanted]


def echo(**options: Any) -> s.Model:
    return s.Model(s.answer(lambda asked: f"What is {asked}?", **options))


def test_every_request_is_answered_once_and_no_more_are_open_than_allowed(answers: Path) -> None:
    model = s.Model(lambda handler, body: (time.sleep(0.005), echo().reply(handler, body))[1])
    budget = Budget()
    tally, found = ask(model, requests(40), answers, Patience(concurrency=4), budget)
    assert [answer.text for answer in found if answer] == [f"What is passage {i}?" for i in range(40)]
    assert (tally.answered, len(model.requests)) == (40, 40)
    assert 2 <= model.most <= 4
    assert (budget.spent, budget.lost, budget.in_flight) == (
        TokenCount(4000, 400),
        TokenCount(),
        TokenCount(),
    )


def test_the_request_has_model_messages_key_and_parameters(answers: Path, hasty: Patience) -> None:
    model = echo()
    ask(model, requests(1), answers, hasty, api_key="secret", parameters={"temperature": 0.5, "seed": 3})
    assert model.requests == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "passage 0"}],
            "temperature": 0.5,
            "seed": 3,
            "max_tokens": 50,
        }
    ]
    assert model.headers["authorization"] == "Bearer secret"
    assert "secret" not in repr(Endpoint("http://x/v1", "m", "secret"))
    assert b"secret" not in answers.read_bytes()


@pytest.mark.parametrize(
    ("fault", "reason", "lost"),
    [
        (s.status(429, headers={"Retry-After": "0.02"}), "status 429", False),
        (s.status(429), "status 429", False),
        (s.status(500), "status 500", False),
        (s.raw("<html>Bad gateway</html>", 502), "status 502", False),
        (s.status(503, headers={"retry-after-ms": "20"}), "status 503", False),
        (s.status(408), "status 408", False),
        (s.slow(0.5), "no answer in time", True),
        (s.raw('{"choices": [{"mess'), "answer is not JSON", True),
        (s.raw(""), "answer is not JSON", True),
        (s.cut, "connection cut (RemoteProtocolError)", True),
        (s.raw("[]"), "answer without a choice", True),
        (s.raw('{"choices": []}'), "answer without a choice", True),
        (s.raw('{"choices": [{"message": null}]}'), "answer without a choice", True),
        (
            s.raw('{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}'),
            "answer without a choice",
            False,
        ),
    ],
)
def test_a_fault_that_may_pass_is_repeated_and_counted(
    fault: s.Reply, reason: str, lost: bool, answers: Path, hasty: Patience
) -> None:
    model, budget = echo(), Budget()
    model.faults = [fault, fault]
    tally, found = ask(model, requests(2), answers, hasty, budget, timeout=0.15)
    assert all(found)
    assert tally.repeated.counts == {reason: 2}
    assert (tally.answered, tally.failed.counts, len(model.requests)) == (2, {}, 4)
    most = endpoint(s.Model(s.cut, url="http://x")).upper_bound(requests(1)[0].messages)
    assert budget.lost == (most + most if lost else TokenCount())
    spent = TokenCount(200, 20)
    assert budget.spent == (spent + TokenCount(10, 4) if "usage" in reason or _counted(fault) else spent)


def _counted(fault: s.Reply) -> bool:
    """Whether a fault says how many tokens it took."""
    return any(
        "prompt_tokens" in str(cell.cell_contents) for cell in getattr(fault, "__closure__", None) or ()
    )


def test_after_the_last_attempt_a_request_is_given_up_and_the_others_go_on(
    answers: Path, hasty: Patience
) -> None:
    model = s.Model(
        lambda h, b: s.status(500)(h, b) if "passage 1" in s.passage_of(b) else echo().reply(h, b)
    )
    tally, found = ask(model, requests(3), answers, hasty)
    assert [answer is not None for answer in found] == [True, False, True]
    assert (tally.failed.counts, tally.failed.first) == ({"status 500": 1}, {"status 500": "d1"})
    assert len(model.requests) == 2 + hasty.attempts


def test_a_server_that_answers_nothing_ends_the_asking_and_keeps_what_was_answered(
    answers: Path, hasty: Patience
) -> None:
    model = s.Model(
        lambda h, b: echo().reply(h, b) if "passage 0" in s.passage_of(b) else s.status(500)(h, b)
    )
    with pytest.raises(
        EndpointError, match="no answer for 8 passages one after the other; the last: status 500"
    ):
        ask(model, requests(30), answers, hasty)
    assert len(model.requests) == 1 + 8 * hasty.attempts
    with AnswerStore(answers) as known:
        assert len(known) == 1


def test_a_server_that_is_not_there_is_an_error_that_names_it(answers: Path, hasty: Patience) -> None:
    with (
        AnswerStore(answers) as known,
        pytest.raises(EndpointError, match=r"127\.0\.0\.1:9.*no connection \(ConnectError"),
    ):
        ask_all(iter(requests(9)), Endpoint("http://127.0.0.1:9/v1", "m"), known, Budget(), hasty)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (s.status(401, "Incorrect API key"), "status 401: Incorrect API key"),
        (s.status(403, "no access"), "status 403: no access"),
        (s.raw("Not Found", 404), r"status 404 \(does the address end in /v1\?\): Not Found"),
        (s.status(429, "buy credit", code="insufficient_quota"), "no credit left: buy credit"),
        (s.status(429, headers={"Retry-After": "4000"}), "asks to wait 4000 seconds"),
        (s.raw("moved", 301), "status 301"),
    ],
)
def test_what_no_request_can_pass_ends_the_asking_at_once(
    fault: s.Reply, message: str, answers: Path, hasty: Patience
) -> None:
    model = s.Model(fault)
    with pytest.raises(EndpointError, match=message):
        ask(model, requests(20), answers, hasty)
    assert len(model.requests) == 1


def test_a_request_that_the_server_refuses_is_given_up_at_once(answers: Path, hasty: Patience) -> None:
    model = echo()
    model.faults = [s.status(400, "maximum context length is 4096", code="context_length_exceeded")]
    tally, found = ask(model, requests(2), answers, hasty)
    assert [answer is not None for answer in found] == [False, True]
    assert (
        tally.failed.first["the server refuses the request"]
        == "d0: status 400: maximum context length is 4096"
    )


@pytest.mark.parametrize(
    "fault",
    [
        s.status(400, "filtered", code="content_filter"),
        s.status(400, "filtered", innererror={"code": "ResponsibleAIPolicyViolation"}),
        s.raw(s.completion(None, refusal="I can't do that.")),
        s.raw(s.completion("", finish="content_filter")),
    ],
)
def test_a_refusal_is_an_answer_that_is_kept(fault: s.Reply, answers: Path, hasty: Patience) -> None:
    model = echo()
    model.faults = [fault]
    tally, found = ask(model, requests(1), answers, hasty)
    assert found[0] is not None
    assert found[0].refused
    ask(model, requests(1), answers, hasty)
    assert (tally.answered, len(model.requests)) == (1, 1)


def test_the_name_of_the_limit_follows_what_the_server_knows(answers: Path, hasty: Patience) -> None:
    def picky(handler: s.Handler, body: dict[str, Any]) -> None:
        if "max_tokens" in body:
            s.status(400, "'max_tokens' is not supported. Use 'max_completion_tokens' instead.")(
                handler, body
            )
        else:
            echo().reply(handler, body)

    model = s.Model(picky)
    _, found = ask(model, requests(3), answers, hasty)
    assert all(found)
    assert [("max_tokens" in body, body.get("max_completion_tokens")) for body in model.requests] == [
        (True, None),
        (False, 50),
        (False, 50),
        (False, 50),
    ]


def test_when_the_server_asks_one_to_wait_all_wait(answers: Path) -> None:
    times: list[float] = []

    def timed(handler: s.Handler, body: dict[str, Any]) -> None:
        times.append(time.monotonic())
        echo().reply(handler, body)

    def busy(handler: s.Handler, body: dict[str, Any]) -> None:
        s.status(429, headers={"Retry-After": "0.3"})(handler, body)
        waiting.append(time.monotonic())

    waiting: list[float] = []
    model = s.Model(timed, faults=[busy])
    ask(model, requests(12), answers, Patience(base=0.001, concurrency=3))
    # what was on its way already may still come; nothing is sent before the time is over
    assert sum(moment < waiting[0] + 0.25 for moment in times) <= 4
    assert len(times) == 12


def test_the_back_off_doubles_up_to_its_cap_and_never_undercuts_the_server() -> None:
    patience, dice = Patience(base=1.0, cap=5.0), random.Random(0)
    for failures, most in [(1, 1), (2, 2), (3, 4), (4, 5), (9, 5)]:
        drawn = [patience.wait(failures, None, dice) for _ in range(300)]
        assert 0 <= min(drawn) < 0.1 * most
        assert 0.9 * most < max(drawn) <= most
    assert all(7 <= patience.wait(1, 7.0, dice) <= 8 for _ in range(50))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_a_wait_is_read_in_seconds_milliseconds_and_as_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds


def test_a_wait_until_a_date_lasts_until_then() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=90)
    found = retry_after({"retry-after": format_datetime(moment, usegmt=True)})
    assert found is not None
    assert 80 < found <= 91


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (s.completion("Why?"), Answer("Why?", "stop", False, 100, 10)),
        (s.completion("Why", finish="length"), Answer("Why", "length", False, 100, 10)),
        (s.completion("Why?", usage=None), Answer("Why?", "stop", False, 7, 8, counted=False)),
        (s.completion("<think>Hmm.</think>\n\nWhy?"), Answer("Why?", "stop", False, 100, 10)),
        (s.completion("<think>Hmm", finish="length"), Answer("", "length", False, 100, 10)),
        (s.completion(None), Answer("", "stop", False, 100, 10)),
        (
            '{"choices": [{"message": {"content": [{"type": "text", "text": "Why?"}]}}]}',
            Answer("Why?", "stop", False, 7, 8, counted=False),
        ),
    ],
)
def test_the_forms_of_an_answer(body: str, expected: Answer) -> None:
    assert parse_answer(body, TokenCount(7, 8)) == expected


# Limits of what a server may send, and secrets


def stream(chunk: bytes, headers: dict[str, str], pause: float = 0.0, chunks: int = 10_000) -> s.Reply:
    """Sends the same chunk again and again, as a body whose length is not known."""

    def reply(handler: s.Handler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        for _ in range(chunks):
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            handler.wfile.flush()
            time.sleep(pause)
        handler.close_connection = True

    return reply


BOMB = gzip.compress(bytes(400 << 20), 9)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (stream(b" " * (1 << 20), {}), "answer of more than 8 MB"),
        (stream(BOMB, {"Content-Encoding": "gzip"}, chunks=1), "answer of more than 8 MB"),
        (stream(b" ", {}, pause=0.02), "no answer in time"),
        (
            stream(b"x", {"Content-Encoding": "zstd"}, chunks=1),
            "answer in the encoding 'zstd', which was not asked for",
        ),
        (
            stream(b"no gzip at all", {"Content-Encoding": "gzip"}, chunks=1),
            "answer that cannot be decompressed",
        ),
    ],
    ids=["endless", "compressed bomb", "slow drip", "unknown encoding", "broken compression"],
)
def test_an_answer_without_end_is_cut_off_in_time_and_memory(
    fault: s.Reply, reason: str, answers: Path, hasty: Patience
) -> None:
    model = echo()
    model.faults = [fault]
    tracemalloc.start()
    started = time.monotonic()
    outcomes, found = ask(model, requests(1), answers, hasty, timeout=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcomes.repeated.counts == {reason: 1}
    assert found[0] is not None
    assert time.monotonic() - started < 8
    assert peak < 64 << 20


def test_a_compressed_answer_of_a_proxy_is_read(answers: Path, hasty: Patience) -> None:
    body = gzip.compress(s.completion("Why?").encode())
    model = s.Model(stream(body, {"Content-Encoding": "gzip", "Connection": "close"}, chunks=1))
    model.reply = _finished(model.reply)
    _, found = ask(model, requests(1), answers, hasty)
    assert found[0] == Answer("Why?", "stop", False, 100, 10)


def _finished(reply: s.Reply) -> s.Reply:
    """The same with the last, empty chunk."""

    def whole(handler: s.Handler, body: dict[str, Any]) -> None:
        reply(handler, body)
        handler.wfile.write(b"0\r\n\r\n")

    return whole


KEY = "sk-secret-0123456789"


@pytest.mark.parametrize(
    "fault",
    [
        s.status(401, f"Incorrect API key provided: {KEY}"),
        s.raw(f"no such page, {KEY}", 404),
        s.status(400, f"your key {KEY} is too short"),
        s.raw(s.completion(f"Is {KEY} your key?")),
        s.raw(s.completion("Why?", finish=KEY)),
    ],
)
def test_a_server_that_repeats_the_key_does_not_get_it_into_messages_or_the_file(
    fault: s.Reply, answers: Path, hasty: Patience, caplog: pytest.LogCaptureFixture
) -> None:
    model = s.Model(fault)
    shown = ""
    with caplog.at_level("DEBUG"):
        try:
            outcomes, found = ask(model, requests(1), answers, hasty, api_key=KEY)
            shown = f"{outcomes} {found}"
        except EndpointError as error:
            shown = "".join(traceback.format_exception(error))
    files = b"".join(path.read_bytes() for path in answers.parent.iterdir() if path.is_file())
    assert KEY not in shown
    assert KEY not in caplog.text
    assert KEY.encode() not in files


def test_a_password_in_the_address_is_not_shown(answers: Path, hasty: Patience) -> None:
    place = Endpoint("http://me:pass-word@127.0.0.1:9/v1?token=abc", "m", KEY)
    with AnswerStore(answers) as known, pytest.raises(EndpointError) as caught:
        ask_all(iter(requests(9)), place, known, Budget(), hasty)
    assert "http://127.0.0.1:9/v1" in str(caught.value)
    for text in (str(caught.value), repr(place)):
        assert not any(secret in text for secret in ("pass-word", "abc", KEY))


# The budget


@pytest.mark.parametrize("concurrency", [1, 5])
def test_the_budget_is_never_exceeded_and_used_as_far_as_it_can_be(concurrency: int, answers: Path) -> None:
    model = echo(usage=(40, 10))
    budget = Budget(tokens=1000)
    patience = Patience(base=0.001, concurrency=concurrency)
    tally, found = ask(model, requests(60), answers, patience, budget)
    most = endpoint(model).upper_bound(requests(1)[0].messages).total
    assert tally.stopped
    assert budget.spent.total <= 1000
    assert budget.spent.total + most > 1000
    assert tally.answered == len(model.requests) == sum(answer is not None for answer in found)


def test_a_budget_in_money_counts_prices_of_a_million_tokens(answers: Path, hasty: Patience) -> None:
    model = echo(usage=(200, 50))
    budget = Budget(Prices(input=2.0, output=10.0), money=0.0037)  # a request costs 0.0009, at most 0.00103
    tally, _ = ask(model, requests(60), answers, hasty, budget)
    assert budget.cost == pytest.approx(tally.answered * 0.0009)
    assert tally.stopped
    assert tally.answered == 3


def test_what_may_have_been_paid_and_never_came_counts(answers: Path, hasty: Patience) -> None:
    model = echo(usage=(40, 10))
    model.faults = [s.cut] * 2
    budget = Budget(tokens=1000)
    tally, _ = ask(model, requests(60), answers, hasty, budget)
    most = endpoint(model).upper_bound(requests(1)[0].messages).total
    assert budget.lost.total == 2 * most
    assert budget.lost.total + budget.spent.total <= 1000
    assert tally.answered * 50 == budget.spent.total


def test_a_request_waits_for_those_on_their_way_before_the_budget_is_said_to_be_used_up() -> None:
    async def run() -> list[bool]:
        budget = Budget(tokens=100)
        assert await budget.reserve(TokenCount(60, 30))
        second = asyncio.create_task(budget.reserve(TokenCount(30, 10)))
        await asyncio.sleep(0)
        waited = not second.done()
        await budget.settle(TokenCount(60, 30), TokenCount(20, 5))
        found = [waited, await second]
        await budget.settle(TokenCount(30, 10), TokenCount(30, 10))
        return [*found, await budget.reserve(TokenCount(30, 10)), budget.spent == TokenCount(50, 15)]

    assert asyncio.run(run()) == [True, True, False, True]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Budget(money=1.0),
        lambda: Budget(tokens=0),
        lambda: Prices(-1.0),
        lambda: Patience(attempts=0),
        lambda: Endpoint("localhost:8000", "m"),
        lambda: Endpoint("http://x", "m", timeout=0),
        lambda: Endpoint("http://x", "m", "schlüssel"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="expected"):
        make()


# The file of answers


def test_an_answer_is_found_under_all_that_it_depends_on(answers: Path) -> None:
    messages = [{"role": "user", "content": "p"}]
    base = key_of("m", messages, {"temperature": 0.5, "max_tokens": 9})
    assert base == key_of("m", messages, {"max_tokens": 9, "temperature": 0.5})
    others = [
        key_of("n", messages, {"temperature": 0.5, "max_tokens": 9}),
        key_of("m", [{"role": "user", "content": "q"}], {"temperature": 0.5, "max_tokens": 9}),
        key_of("m", messages, {"temperature": 0.6, "max_tokens": 9}),
    ]
    assert len({base, *others}) == 4
    with AnswerStore(answers) as known:
        known.put(base, "m", Answer("Ä?", "stop", False, 1, 2, counted=False))
        assert [known.get(key) is None for key in others] == [True] * 3
    with AnswerStore(answers) as known:
        assert known.get(base) == Answer("Ä?", "stop", False, 1, 2, counted=False)


def test_a_torn_end_of_the_log_costs_the_last_answer_alone(answers: Path) -> None:
    known = AnswerStore(answers)
    for i in range(20):
        known.put(bytes([i]), "m", Answer(f"{i}?" * 200, "stop", False, 1, 1))
    log = answers.with_name(answers.name + "-wal")
    main, tail = answers.read_bytes(), log.read_bytes()
    torn = answers.with_name("torn.sqlite")
    torn.write_bytes(main)
    torn.with_name("torn.sqlite-wal").write_bytes(tail[:-1000])
    known.close()
    with AnswerStore(torn) as left:
        assert [left.get(bytes([i])) is not None for i in range(20)] == [True] * 19 + [False]
        left.put(b"new", "m", Answer("x", "stop", False, 1, 1))


def test_a_file_that_is_something_else_is_refused_and_left_alone(answers: Path) -> None:
    answers.write_text('{"query": "not a file of answers"}\n' * 100)
    with pytest.raises(DataError, match="no file of answers"):
        AnswerStore(answers)
    assert answers.read_text().startswith('{"query"')


def test_two_processes_may_use_one_file(answers: Path) -> None:
    with AnswerStore(answers) as first, AnswerStore(answers) as second:
        first.put(b"a", "m", Answer("a", "stop", False, 1, 1))
        second.put(b"b", "m", Answer("b", "stop", False, 1, 1))
        assert second.get(b"a") is not None
        assert first.get(b"b") is not None
    base = sqlite3.connect(answers)
    assert base.execute("SELECT COUNT(*) FROM answers").fetchone() == (2,)
    base.close()


def test_a_damaged_file_of_answers_is_named(answers: Path) -> None:
    with AnswerStore(answers) as known:
        for i in range(400):
            known.put(i.to_bytes(4, "big"), "m", Answer("x" * 300, "stop", False, 1, 1))
    content = bytearray(answers.read_bytes())
    content[8192:-8192] = bytes(len(content) - 16384)
    answers.write_bytes(content)
    with AnswerStore(answers) as known:

        def read_all() -> None:
            for i in range(400):
                known.get(i.to_bytes(4, "big"))

        with pytest.raises(DataError, match=r"answers\.sqlite: damaged file of answers"):
            read_all()
