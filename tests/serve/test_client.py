"""Our own client, and the command line as a client of the server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from serve.conftest import DOCUMENTS, Running
from triptych import Encoder, client
from triptych.client import AsyncClient, Client, split_address
from triptych.errors import EndpointError, InputError
from triptych.explain import explain
from triptych.types import HeadWeights

TEXTS = ["bge m3 is a model", "", "hello world"]


def answers(monkeypatch: pytest.MonkeyPatch, *answers: httpx.Response | Exception) -> list[httpx.Request]:
    """Lets clients get these answers, one after the other; gives the requests that came."""
    came: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        came.append(request)
        answer = answers[len(came) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    class Module:
        HTTPError, ConnectError, ConnectTimeout, PoolTimeout = (
            httpx.HTTPError,
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
        )

        @staticmethod
        def Client(**options: Any) -> httpx.Client:
            return httpx.Client(transport=httpx.MockTransport(handle), **options)

    monkeypatch.setattr(client, "_httpx", lambda: Module)
    monkeypatch.setattr(client, "_pause", lambda attempt, wanted: float(wanted or 0) / 1000)
    return came


def test_the_client_gives_the_encoders_representations(shared_server: Running, encoder: Encoder) -> None:
    expected = encoder.encode_document(TEXTS)
    with Client(shared_server.url) as ours:
        found = ours.encode(TEXTS, prompt="document")
        half = ours.encode(TEXTS, prompt="document", half=True)
        dense = ours.encode(TEXTS, outputs=["dense"])
    assert np.array_equal(found.dense, expected.dense)
    assert (found.lexical != expected.lexical).nnz == 0
    assert np.array_equal(found.multi.values, expected.multi.values)
    assert np.array_equal(half.dense, expected.dense.astype(np.float16).astype(np.float32))
    assert dense.heads == ("dense",)


def test_the_client_searches_as_the_index_does(shared_server: Running, encoder: Encoder) -> None:
    index = shared_server.service.index("my.index")
    options: dict[str, Any] = {
        "weights": HeadWeights(1, 0.5, 0),
        "filter": {"lang": ["fr", "en"]},
        "routes": ("dense",),
    }
    with Client(shared_server.url) as ours:
        found = ours.search("my.index", "hello world", 2, explain=True, **options)
        several = ours.search("my.index", ["hello", "world"], 2, **options)
    expected = index.search("hello world", 2, **options)
    assert [each.hit.to_json() for each in found] == [hit.to_json() for hit in expected]
    assert [each.explanation for each in found] == [
        each.to_json() for each in explain(encoder, "hello world", [hit.text for hit in expected])
    ]
    assert [[each.hit.id for each in hits] for hits in several] == [
        [hit.id for hit in hits] for hits in index.search(["hello", "world"], 2, **options)
    ]


def test_the_client_changes_and_reads_documents(start: Callable[..., Running]) -> None:
    with Client(start().url) as ours:
        assert ours.upsert("my.index", [{"id": "new", "text": "a new text"}]) == 1
        with pytest.raises(InputError, match="new"):
            ours.add("my.index", [{"id": "new", "text": "again"}])
        assert ours.get("my.index", ["new", "none"]) == [
            {"id": "new", "text": "a new text", "metadata": {}},
            None,
        ]
        assert ours.delete("my.index", filter={"lang": "fr"}) == 2
        assert ours.delete("my.index", ["new", "none"]) == 1
        assert ours.info("my.index")["documents"] == 2
        assert [each["name"] for each in ours.indexes()] == ["my.index"]
        ranked = ours.rerank("hello world", TEXTS, weights=[1, 0, 0], top_n=2)
        assert ranked[0].position == 2
        assert ranked[0].score == pytest.approx(ranked[0].scores["dense"])


def test_the_asynchronous_client_does_the_same(start: Callable[..., Running], encoder: Encoder) -> None:
    server = start()

    async def work() -> None:
        async with AsyncClient(server.url) as ours:
            found = await asyncio.gather(*(ours.encode(text) for text in TEXTS))
            for text, each in zip(TEXTS, found, strict=True):
                assert np.allclose(each.dense, encoder.encode(text).dense, atol=2e-6)
            assert await ours.upsert("my.index", [{"id": "new", "text": "a new text"}]) == 1
            with pytest.raises(InputError, match="new"):
                await ours.add("my.index", [{"id": "new", "text": "again"}])
            hits = await ours.search("my.index", "a new text", 1)
            assert hits[0].hit.id == "new"
            assert (await ours.rerank("a", ["a", "b"]))[0].position == 0
            assert await ours.delete("my.index", ["new"]) == 1
            assert await ours.get("my.index", ["new"]) == [None]
            assert (await ours.indexes())[0] == await ours.info("my.index")

    asyncio.run(work())


def test_an_overloaded_server_is_asked_again_after_the_pause_that_it_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = httpx.Response(429, headers={"retry-after": "7"}, json={"message": "busy"})
    came = answers(monkeypatch, busy, busy, httpx.Response(200, json={"stored": 1}))
    with Client("http://server") as ours:
        assert ours.add("i", [{"id": "a", "text": "b"}]) == 1
    assert len(came) == 3


def test_adding_is_not_tried_again_when_the_server_may_have_taken_it(monkeypatch: pytest.MonkeyPatch) -> None:
    came = answers(monkeypatch, httpx.ReadError("cut"), httpx.Response(200, json={"stored": 1}))
    with Client("http://server") as ours:
        with pytest.raises(EndpointError, match="cut"):
            ours.add("i", [{"id": "a", "text": "b"}])
        assert len(came) == 1
        assert ours.upsert("i", [{"id": "a", "text": "b"}]) == 1


def test_adding_is_tried_again_when_the_server_was_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    came = answers(monkeypatch, httpx.ConnectError("refused"), httpx.Response(200, json={"stored": 1}))
    with Client("http://server") as ours:
        assert ours.add("i", [{"id": "a", "text": "b"}]) == 1
    assert len(came) == 2


def test_upserting_is_tried_again_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    came = answers(monkeypatch, *[httpx.ReadError("cut")] * 9)
    with Client("http://server", retries=2) as ours, pytest.raises(EndpointError, match="cut"):
        ours.upsert("i", [{"id": "a", "text": "b"}])
    assert len(came) == 3


def test_the_pause_grows_and_obeys_the_server() -> None:
    assert 0.1 <= client._pause(0, None) <= 0.3
    assert 1.6 <= client._pause(4, None) <= 4.8
    assert 7 <= client._pause(0, "7") <= 7.25
    assert client._pause(99, None) <= 45


def test_errors_tell_what_the_server_says(shared_server: Running) -> None:
    with Client(shared_server.url) as ours:
        with pytest.raises(InputError, match=r"404.*other.*my\.index"):
            ours.search("other", "a")
        with pytest.raises(InputError, match=r"422.*outputs"):
            ours.encode("a", outputs=["wrong"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="ftp"):
        Client("ftp://server")
    with Client("http://127.0.0.1:9", retries=0) as none, pytest.raises(EndpointError, match="no answer"):
        none.indexes()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://host:8080/my.index", ("http://host:8080", "my.index")),
        ("https://host/my.index/", ("https://host", "my.index")),
        ("http://host:6333/prefix/collection", None),
        ("local:folder", None),
        ("folder/my.index", None),
        ("http://host", None),
    ],
)
def test_addresses_of_an_index(address: str, expected: tuple[str, str] | None) -> None:
    assert split_address(address) == expected


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = """
import sys
from triptych.cli.app import app
try:
    app()
finally:
    assert "torch" not in sys.modules
"""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_line_searches_a_server_without_loading_torch(shared_server: Running) -> None:
    index = shared_server.service.index("my.index")
    options = ("-k", "2", "--filter", "lang=fr", "--weights", "1,0.5,1", "--explain")
    done = command("search", f"{shared_server.url}/my.index", "hello world", *options, "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    expected = index.search("hello world", 2, weights=HeadWeights(1, 0.5, 1), filter={"lang": "fr"})
    for rank, (line, hit) in enumerate(zip(lines, expected, strict=True), 1):
        assert set(line.pop("explanation")) == {"words", "tokens", "left_out"}
        assert line == {"query_id": "query", "query": "hello world", "rank": rank, **hit.to_json()}
    shown = command("search", f"{shared_server.url}/my.index", "hello world", *options)
    assert shown.returncode == 0, shown.stderr
    assert DOCUMENTS[2]["text"] in shown.stdout
    assert "query token → nearest document token" in shown.stdout
    usual = command("search", f"{shared_server.url}/my.index", "hello world")
    assert "score = 1 × ■ dense + 0.3 × ■ lexical coverage³ + 3 × ■ multi" in usual.stdout
