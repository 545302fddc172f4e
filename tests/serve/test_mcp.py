"""Agents' tools, with the client of the protocol's own SDK: in the process, over stdio and under /mcp of a server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from serve.conftest import DOCUMENTS, Running, make_index
from triptych import Encoder, Index
from triptych.serve.mcp import SHOWN, mcp_server
from triptych.serve.service import Service

Talk = Callable[[Client], Awaitable[Any]]


def talk(service: Service, conversation: Talk, *, writes: bool = False) -> Any:
    """Runs a conversation with a server in this process."""

    async def run() -> Any:
        await service.start()
        try:
            async with Client(mcp_server(service, may_write=(lambda _: True) if writes else None)) as client:
                return await conversation(client)
        finally:
            await service.close()

    return asyncio.run(run())


def over_http(url: str, conversation: Talk, key: str | None = None) -> Any:
    """Runs a conversation with a server on loopback."""

    async def run() -> Any:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
        ):
            return await conversation(client)

    return asyncio.run(run())


async def names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


def call(name: str, **arguments: Any) -> Talk:
    async def conversation(client: Client) -> Any:
        return await client.call_tool(name, arguments)

    return conversation


def refusal(result: Any) -> str:
    assert result.is_error
    return result.content[0].text


@pytest.fixture
def service(encoder: Encoder, tmp_path: Path) -> Service:
    return Service({"tiny": [encoder]}, {"my.index": make_index(tmp_path / "my.index", encoder)})


def test_a_search_finds_what_the_index_finds(service: Service, encoder: Encoder, tmp_path: Path) -> None:
    with make_index(tmp_path / "again.index", encoder) as index:
        hits = index.search("hello world", 2, weights=(1, 0.3, 1))
    found = talk(
        service, call("search", query="hello world", k=2, weights={"dense": 1, "lexical": 0.3, "multi": 1})
    )
    results = found.structured_content["results"]
    assert [each["id"] for each in results] == [hit.id for hit in hits]
    assert results[0]["scores"] == pytest.approx(hits[0].scores, abs=1e-6)
    assert results[0]["text"] == hits[0].text
    assert results[0]["metadata"] == hits[0].metadata
    assert json.loads(found.content[0].text) == found.structured_content


def test_a_filter_holds_and_a_wrong_one_is_explained(service: Service) -> None:
    async def conversation(client: Client) -> Any:
        good = await client.call_tool(
            "search", {"query": "world", "filter": {"lang": "fr", "year": {"lt": 2020}}}
        )
        return good, await client.call_tool("search", {"query": "world", "filter": {"lang": {"near": 1}}})

    good, bad = talk(service, conversation)
    assert [each["id"] for each in good.structured_content["results"]] == ["d/é"]
    assert "gte, gt, lte, lt" in refusal(bad)


@pytest.mark.filterwarnings("ignore:1 of 1 texts were cut")
def test_a_long_text_is_cut_in_a_search_and_whole_when_fetched(encoder: Encoder, tmp_path: Path) -> None:
    text = "world " * SHOWN
    with Index.create(tmp_path / "long.index", encoder, engine="exact") as index:
        index.add(["x"], [text], [{"title": "A long one"}])

        async def conversation(client: Client) -> Any:
            found = await client.call_tool("search", {"query": "world"})
            return found.structured_content["results"][0], (
                await client.call_tool("fetch", {"id": "x"})
            ).structured_content

        found, fetched = talk(Service({"tiny": [encoder]}, {"long.index": index}), conversation)
    assert (found["text"], found["is_cut"], found["title"]) == (text[:SHOWN], True, "A long one")
    assert fetched == {"id": "x", "title": "A long one", "text": text, "metadata": {"title": "A long one"}}


def test_what_is_not_there_or_no_argument_is_refused(service: Service) -> None:
    async def conversation(client: Client) -> list[Any]:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("fetch", {"id": "nothing"}),
            ("search", {"query": "world", "index": "../etc"}),
            ("search", {"query": "  "}),
            ("search", {"query": "world", "k": 0}),
            ("search", {"k": 1}),
            ("add", {"documents": [{"id": "n", "text": "new"}]}),
        ]
        return [await client.call_tool(*each) for each in calls]

    said = [refusal(result) for result in talk(service, conversation)]
    words = ["'nothing'", "expected one of my.index", "empty query", "k", "query", "add"]
    assert all(word in text for word, text in zip(words, said, strict=True)), said


def test_of_several_indexes_one_has_to_be_named(encoder: Encoder, tmp_path: Path) -> None:
    indexes = {name: make_index(tmp_path / name, encoder) for name in ("one", "two")}

    async def conversation(client: Client) -> Any:
        named = await client.call_tool("fetch", {"id": "a", "index": "two"})
        return named, await client.call_tool("fetch", {"id": "a"})

    named, unnamed = talk(Service({"tiny": [encoder]}, indexes), conversation)
    assert named.structured_content["text"] == DOCUMENTS[0]["text"]
    assert "one, two" in refusal(unnamed)


def test_documents_are_added_only_if_that_is_allowed(service: Service) -> None:
    async def conversation(client: Client) -> Any:
        added = await client.call_tool(
            "add", {"documents": [{"id": "n", "text": "new", "metadata": {"a": 1}}]}
        )
        return await names(client), added, await client.call_tool("fetch", {"id": "n"})

    tools, added, fetched = talk(service, conversation, writes=True)
    assert tools == ["search", "fetch", "add"]
    assert added.structured_content == {"added": 1, "index": "my.index"}
    assert fetched.structured_content["metadata"] == {"a": 1}


def test_without_that_there_is_no_tool_for_it(service: Service) -> None:
    assert talk(service, names) == ["search", "fetch"]


def test_reading_tools_say_that_they_only_read(service: Service) -> None:
    async def conversation(client: Client) -> dict[str, Any]:
        return {tool.name: tool.annotations for tool in (await client.list_tools()).tools}

    hints = talk(service, conversation, writes=True)
    assert {name: each.read_only_hint for name, each in hints.items()} == {
        "search": True,
        "fetch": True,
        "add": False,
    }


def test_making_a_server_leaves_logging_as_it_was(service: Service) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    mcp_server(service)
    assert (root.handlers, root.level) == (before, level)


def test_the_http_server_has_the_tools_under_mcp(shared_server: Running) -> None:
    found = over_http(shared_server.url, call("search", query="hello world", k=1))
    assert [each["id"] for each in found.structured_content["results"]] == ["c"]


def test_a_key_that_may_only_read_adds_nothing(start: Callable[..., Running], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("read look\nwrite change\n")
    server = start(keys=keys)
    new = call("add", documents=[{"id": "n", "text": "new"}])
    assert "reading only" in refusal(over_http(server.url, new, "look"))
    assert not over_http(server.url, new, "change").is_error
    assert not over_http(server.url, call("fetch", id="n"), "look").is_error
    assert httpx2.post(f"{server.url}/mcp", json={}).status_code == 401


def test_a_server_that_only_reads_has_no_tool_to_add(start: Callable[..., Running]) -> None:
    assert over_http(start(read_only=True).url, names) == ["search", "fetch"]


@pytest.mark.slow
def test_the_command_speaks_over_stdio(encoder: Encoder, tmp_path: Path) -> None:
    make_index(tmp_path / "my.index", encoder).close()

    def run(*options: str) -> Any:
        async def conversation() -> Any:
            arguments = ["-m", "triptych", "mcp", str(tmp_path / "my.index"), *options]
            parameters = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
            async with Client(stdio_client(parameters)) as client:
                found = await client.call_tool("search", {"query": "hello world", "k": 1})
                return await names(client), found.structured_content["results"][0]["id"]

        return asyncio.run(conversation())

    assert run() == (["search", "fetch"], "c")
    assert run("--allow-writes") == (["search", "fetch", "add"], "c")
