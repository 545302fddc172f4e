"""The server as a process: killed while it writes, stopped by a signal, started again."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

import checkpoints
from serve.conftest import make_index
from triptych import Encoder
from triptych.cli.app import app
from triptych.cli.options import Loading
from triptych.client import Client
from triptych.errors import EndpointError, IndexLocked
from triptych.index.alias import switch
from triptych.index.index import Index
from triptych.index.store import EngineName


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def process(*arguments: object) -> Generator[tuple[subprocess.Popen[str], str]]:
    """`triptych serve` and its address, when it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "triptych", "serve", *map(str, arguments), "--port", str(port)]
    options = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            assert running.poll() is None, running.stderr.read()
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            except httpx.ConnectError:
                assert time.monotonic() < end
                time.sleep(0.05)
        yield running, url
    finally:
        running.kill()
        running.communicate()


def _killed_while_writing(place: Path, rounds: int) -> None:
    acknowledged: dict[str, str] = {}
    chance = random.Random(0)
    for turn in range(rounds):
        with process(place) as (server, url):
            done = threading.Event()

            def write(number: int, url: str = url, turn: int = turn, done: threading.Event = done) -> None:
                with Client(url, retries=0) as client:
                    for i in range(10_000):
                        name, text = f"{turn}-{number}-{i}", f"text {i} of writer {number}"
                        try:
                            client.upsert("my.index", [{"id": name, "text": text}])
                        except EndpointError:
                            assert done.is_set()
                            return
                        acknowledged[name] = text

            threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
            before = len(acknowledged)
            for thread in threads:
                thread.start()
            end = time.monotonic() + 60
            while len(acknowledged) == before:  # a busy machine answers late
                assert time.monotonic() < end
                time.sleep(0.01)
            time.sleep(chance.random())
            done.set()
            server.kill()
            for thread in threads:
                thread.join()
        started = time.monotonic()
        with process(place) as (_, url), Client(url) as client:
            assert time.monotonic() - started < 120
            names = list(acknowledged)
            for start in range(0, len(names), 500):
                found = client.get("my.index", names[start : start + 500])
                assert [one and one["text"] for one in found] == [
                    acknowledged[n] for n in names[start : start + 500]
                ]


def _empty(place: Path, encoder: Encoder, engine: EngineName) -> Path:
    Index.create(place, encoder, engine=engine).close()
    return place


def test_killing_the_server_while_it_writes_loses_nothing_that_was_acknowledged(
    encoder: Encoder, tmp_path: Path
) -> None:
    _killed_while_writing(_empty(tmp_path / "my.index", encoder, "edge"), 1)


@pytest.mark.campaign
@pytest.mark.parametrize("engine", ["edge", "exact"])
def test_killing_the_server_twenty_times_loses_nothing_that_was_acknowledged(
    encoder: Encoder, tmp_path: Path, engine: EngineName
) -> None:
    _killed_while_writing(_empty(tmp_path / "my.index", encoder, engine), 20)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_and_closes_the_index(
    encoder: Encoder, tmp_path: Path, number: int
) -> None:
    make_index(tmp_path / "my.index", encoder).close()
    with process(tmp_path / "my.index") as (server, url):
        assert httpx.put(
            f"{url}/v1/indexes/my.index/documents", json={"documents": [{"id": "new", "text": "t"}]}
        ).json() == {"stored": 1}
        server.send_signal(number)
        assert server.wait(60) in (-number, 128 + number)
        said = server.stderr.read()
        assert "Traceback" not in said
        assert "PUT /v1/indexes/{name}/documents 200" in said
    with Index.open(tmp_path / "my.index", encoder) as index:
        assert len(index) == 5


@pytest.mark.slow
def test_a_model_is_served_without_an_index(folder: Path) -> None:
    with process("--model", folder, "--quiet") as (_, url):
        assert len(httpx.post(f"{url}/v1/embeddings", json={"input": "a"}).json()["data"]) == 1
        assert httpx.get(f"{url}/v1/indexes").json() == {"indexes": []}


def test_the_thread_that_loaded_the_model_has_ended_when_the_server_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    alive: list[bool] = []
    load = Loading.encoder

    def note(self: Loading, name: str) -> Encoder:
        threads.append(threading.current_thread())
        return load(self, name)

    def started(service: object) -> None:
        alive.extend(thread.is_alive() for thread in threads)

    monkeypatch.setattr(Loading, "encoder", note)
    monkeypatch.setattr("triptych.serve.app.run", started)
    done = CliRunner().invoke(app, ["serve", "--model", str(folder)])
    assert (done.exit_code, alive) == (0, [False])  # else its OpenMP helpers slow down the one that computes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to serve"),
        (["none.index"], "none.index"),
        (["--model", "none/such"], "none/such"),
        (["--model", "small", "--port", "-1"], "port"),
        (["--model", "small", "--certificate", "a.pem"], "private_key"),
        (["--model", "small", "--keys", "none.txt"], "none.txt"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_a_line(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["serve", *(str(tmp_path / a) if "none" in a else a for a in arguments)])
    assert done.exit_code in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_two_indexes_of_one_name_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    for part in ("a", "b"):
        make_index(tmp_path / part / "my.index", encoder).close()
    places = [str(tmp_path / part / "my.index") for part in ("a", "b")]
    done = CliRunner().invoke(app, ["serve", *places])
    assert done.exit_code == 2
    assert "two indexes with the name 'my.index'" in done.stderr


def test_queries_are_answered_while_a_name_is_switched_to_an_index_of_another_model(
    folder: Path, encoder: Encoder, tmp_path: Path
) -> None:
    other = Encoder.from_pretrained(
        checkpoints.make("bert", tmp_path / "bert"), device="cpu", dtype="float32"
    )
    for name, model in (("old", encoder), ("new", other)):
        with Index.create(tmp_path / f"{name}.index", model, engine="exact") as index:
            index.add(["x"], [f"the {name} text"])
    switch(tmp_path / "docs", tmp_path / "old.index")
    answers: list[list[tuple[int, str]]] = [[], [], []]
    stop = threading.Event()

    def wait_for(what: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, answers[0][-1:]
            time.sleep(0.05)

    def answered(text: str) -> bool:
        return all(mine and text in mine[-1][1] for mine in answers)

    def given_back() -> bool:
        """Whether the server has closed the old index: when the last request that asked it has ended."""
        with suppress(IndexLocked):
            Index.open(tmp_path / "old.index").close()
            return True
        return False

    with process(f"main={tmp_path / 'docs'}") as (running, url):

        def ask(mine: list[tuple[int, str]]) -> None:
            with httpx.Client() as client:
                while not stop.is_set():
                    done = client.post(f"{url}/v1/indexes/main/search", json={"query": "the text", "k": 1})
                    mine.append((done.status_code, done.text))

        asking = [threading.Thread(target=ask, args=(mine,), daemon=True) for mine in answers]
        for each in asking:
            each.start()
        wait_for(lambda: answered("the old text"), 60)
        switch(tmp_path / "docs", tmp_path / "new.index")
        running.send_signal(signal.SIGHUP)
        wait_for(lambda: answered("the new text"), 60)
        wait_for(given_back, 30)
        # A name that stands for nothing good stays as it was.
        (tmp_path / "docs").unlink()
        running.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        stop.set()
        for each in asking:
            each.join()
        assert httpx.post(f"{url}/v1/indexes/main/search", json={"query": "text"}).status_code == 200
    for mine in answers:
        assert {status for status, _ in mine} == {200}
        kinds = ["the new text" in text for _, text in mine]
        assert kinds == sorted(kinds)
