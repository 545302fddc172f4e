"""Requests that meet changes of the same index: none of them is a fault of the server's."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.conftest import serving
from triptych import Encoder
from triptych.index.alias import switch
from triptych.index.index import Index
from triptych.serve.reload import Reloader

DOCUMENTS: list[dict[str, Any]] = [
    {"id": str(i), "text": f"{word} {i} of the world", "metadata": {"year": 2000 + i}}
    for i, word in enumerate(["hello", "model", "text", "retrieval", "bm25"] * 4)
]
URL = "/v1/indexes/notes"
SEARCH: dict[str, Any] = {"query": ["hello world", "a model"], "k": 5}
REQUESTS: dict[str, tuple[str, str, Any]] = {
    "search": ("POST", f"{URL}/search", SEARCH),
    "explained": ("POST", f"{URL}/search", SEARCH | {"explain": True}),
    "filtered": ("POST", f"{URL}/search", SEARCH | {"filter": {"year": {"gte": 2003}}}),
    "grouped": ("POST", f"{URL}/search", SEARCH | {"group_by": "year"}),
    "idf": ("POST", f"{URL}/search", SEARCH | {"lexical_queries": "idf", "explain": True}),
    "explain": ("POST", f"{URL}/explain", {"query": "hello", "ids": ["0", "1", "2"]}),
    "get": ("POST", f"{URL}/documents/get", {"ids": [str(i) for i in range(20)]}),
    "one": ("GET", f"{URL}/documents/3", None),
    "describe": ("GET", URL, None),
    "list": ("GET", "/v1/indexes", None),
    "put": ("PUT", f"{URL}/documents", {"documents": DOCUMENTS}),
    "add": ("POST", f"{URL}/documents", {"documents": DOCUMENTS[:3]}),
    "remove": ("POST", f"{URL}/documents/delete", {"ids": ["0", "1", "2", "7"]}),
    "remove by filter": ("POST", f"{URL}/documents/delete", {"filter": {"year": {"lt": 2004}}}),
}


async def storm(
    url: str, change: Callable[[httpx.AsyncClient], Awaitable[None]], rounds: int
) -> dict[str, Counter[int]]:
    """Statuses of each kind of request, of two clients each, while something changes so many times."""
    statuses: dict[str, Counter[int]] = {name: Counter() for name in REQUESTS}
    done = asyncio.Event()
    async with httpx.AsyncClient(
        base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)
    ) as client:

        async def ask(name: str) -> None:
            method, path, body = REQUESTS[name]
            while not done.is_set():
                answer = await client.request(method, path, json=body)
                statuses[name][answer.status_code] += 1
                assert answer.status_code in (200, 404, 409), (name, answer.text)

        async def alter() -> None:
            try:
                for _ in range(rounds):
                    await change(client)
            finally:
                done.set()

        await asyncio.gather(alter(), *(ask(name) for name in REQUESTS for _ in range(2)))
    return statuses


@pytest.mark.parametrize("engine", ["exact", "edge"])
def test_requests_meet_the_deletion_of_their_index(encoder: Encoder, tmp_path: Path, engine: str) -> None:
    async def make_and_delete(client: httpx.AsyncClient) -> None:
        assert (await client.put(URL, json={"engine": engine})).status_code == 201
        stored = await client.put(f"{URL}/documents", json={"documents": DOCUMENTS})
        assert stored.status_code == 200, stored.text
        await asyncio.sleep(0.05)
        assert (await client.delete(URL)).status_code == 200

    with serving({"tiny": [encoder]}, {}, new_indexes=tmp_path) as running:
        found = asyncio.run(storm(running.url, make_and_delete, 8))
    for name, statuses in found.items():
        allowed = {200} if name == "list" else {200, 404, 409} if name == "add" else {200, 404}
        # Without documents there is no rarity of words.
        assert set(statuses) <= allowed | ({422} if name == "idf" else set()), name
    assert found["search"][200]
    assert found["search"][404]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", ["exact", "edge"])
def test_reads_meet_writes(encoder: Encoder, tmp_path: Path, engine: str) -> None:
    async def wait(_: httpx.AsyncClient) -> None:
        await asyncio.sleep(0.1)

    with serving({"tiny": [encoder]}, {}, new_indexes=tmp_path) as running:
        httpx.put(running.url + URL, json={"engine": engine}).raise_for_status()
        httpx.put(f"{running.url}{URL}/documents", json={"documents": DOCUMENTS}).raise_for_status()
        found = asyncio.run(storm(running.url, wait, 20))
    for name, statuses in found.items():
        assert set(statuses) <= {200} | ({404} if name == "one" else {409} if name == "add" else set()), name


def test_requests_meet_a_switch_to_another_index(encoder: Encoder, tmp_path: Path) -> None:
    for name in ("1", "2"):
        with Index.create(tmp_path / f"{name}.index", encoder, engine="exact") as index:
            index.add(
                [d["id"] for d in DOCUMENTS],
                [d["text"] for d in DOCUMENTS],
                [d["metadata"] for d in DOCUMENTS],
            )
    link = tmp_path / "notes"
    switch(link, tmp_path / "1.index")
    seen: set[str] = set()

    async def change(_: httpx.AsyncClient) -> None:
        here = place_of_notes()
        switch(link, tmp_path / f"{3 - int(Path(here).stem)}.index")
        end = time.monotonic() + 60
        while place_of_notes() == here:  # the other one may still be at work for those who had begun
            assert time.monotonic() < end
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(reload(), loop))
            await asyncio.sleep(0.05)
        seen.add(place_of_notes())

    indexes = {"notes": Index.open(link)}
    with serving({"tiny": [encoder]}, indexes) as running:
        indexes.clear()  # one that the service no longer has is to close itself
        service = running.service
        loop = service.model()._tasks[0].get_loop()
        reload = Reloader(service, {"notes": str(link)}, lambda _: [encoder])

        def place_of_notes() -> str:
            return str(service.index("notes").info()["place"])

        found = asyncio.run(storm(running.url, change, 6))
    assert seen == {str(tmp_path / "1.index"), str(tmp_path / "2.index")}
    for name, statuses in found.items():
        assert set(statuses) <= {200} | ({404} if name == "one" else {409} if name == "add" else set()), name
