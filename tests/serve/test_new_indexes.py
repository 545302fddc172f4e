"""Indexes that clients make and delete."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.conftest import Running, make_index, serving
from triptych import Encoder
from triptych.client import AsyncClient, Client
from triptych.errors import EndpointError, InputError
from triptych.index.index import Index


@pytest.fixture
def server(encoder: Encoder, tmp_path: Path) -> Iterator[Running]:
    """A server that makes indexes, with one that lies elsewhere."""
    (tmp_path / "made").mkdir()
    index = make_index(tmp_path / "my.index", encoder)
    with serving({"tiny": [encoder]}, {"my.index": index}, new_indexes=tmp_path / "made") as running:
        yield running


def test_a_client_makes_fills_searches_and_deletes_an_index(server: Running, tmp_path: Path) -> None:
    with Client(server.url) as client:
        made = client.create_index("notes", engine="exact", multi="int8")
        assert (made["name"], made["documents"], made["engine"], made["model"]) == (
            "notes",
            0,
            "exact",
            client.info("my.index")["model"],
        )
        assert client.add("notes", [{"id": "a", "text": "hello world"}]) == 1
        assert [hit.hit.id for hit in client.search("notes", "hello")] == ["a"]
        assert [each["name"] for each in client.indexes()] == ["my.index", "notes"]
        with pytest.raises(InputError, match="409"):
            client.create_index("notes")
        assert client.delete_index("notes") == "notes"
        assert list((tmp_path / "made").iterdir()) == []
        with pytest.raises(InputError, match="404"):
            client.search("notes", "hello")
        assert client.create_index("notes", multi=None)["heads"] == ["dense", "lexical"]


def test_the_asynchronous_client_does_the_same(server: Running) -> None:
    async def use() -> str:
        async with AsyncClient(server.url) as client:
            await client.create_index("notes", engine="exact")
            return await client.delete_index("notes")

    assert asyncio.run(use()) == "notes"


def test_what_a_client_made_outlives_the_server(encoder: Encoder, tmp_path: Path) -> None:
    with serving({"tiny": [encoder]}, {}, new_indexes=tmp_path) as running, Client(running.url) as client:
        client.create_index("notes", engine="exact")
        client.add("notes", [{"id": "a", "text": "hello world"}])
    with Index.open(tmp_path / "notes", encoder) as index:
        assert index.get(["a"])[0]["text"] == "hello world"


@pytest.mark.parametrize(
    "name",
    ["..", "%2e%2e", "..%2fx", "%2e%2e%2f%2e%2e%2fetc", "a%2fb", "a%5cb", ".hidden", "-x", "a%00", "a%0a", "%20",
     "a" * 101, "%c3%a9", "~", "..;", "C:"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_name_that_leads_elsewhere_is_refused(
    server: Running, tmp_path: Path, name: str, method: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    # httpx would make the path simple before it is sent
    url = httpx.URL(server.url).copy_with(raw_path=f"/v1/indexes/{name}".encode())
    answer = httpx.request(method, url, json={} if method == "PUT" else None)
    assert answer.status_code in (404, 405, 422), answer.text
    assert "Traceback" not in answer.text
    assert str(tmp_path) not in answer.text
    assert sorted(tmp_path.rglob("*")) == before


def test_what_lies_in_the_way_is_left_alone(server: Running, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "made" / "link").symlink_to(outside)
    (tmp_path / "made" / "dead").symlink_to(tmp_path / "nowhere")
    (tmp_path / "made" / "file").write_text("x")
    for name in ("dead", "file", "link"):
        answer = httpx.put(f"{server.url}/v1/indexes/{name}", json={})
        assert answer.status_code == 409, answer.text
        assert str(tmp_path) not in answer.text
    assert list(outside.iterdir()) == []
    assert (tmp_path / "made" / "file").read_text() == "x"
    assert not (tmp_path / "nowhere").exists()


def test_an_index_that_lies_elsewhere_is_not_deleted(server: Running, tmp_path: Path) -> None:
    answer = httpx.delete(f"{server.url}/v1/indexes/my.index")
    assert answer.status_code == 403
    assert (tmp_path / "my.index" / "manifest.json").is_file()


@pytest.mark.parametrize(
    "body", [{"engine": "server"}, {"multi": "float8"}, {"place": "/tmp/x"}, {"model": 3}, []]
)
def test_a_body_that_is_wrong_makes_nothing(server: Running, tmp_path: Path, body: Any) -> None:
    assert httpx.put(f"{server.url}/v1/indexes/notes", json=body).status_code == 422
    assert list((tmp_path / "made").iterdir()) == []


def test_a_server_without_a_folder_and_one_for_reading_alone_make_none(
    encoder: Encoder, tmp_path: Path, shared_server: Running
) -> None:
    assert httpx.put(f"{shared_server.url}/v1/indexes/notes", json={}).status_code == 403
    with (
        serving({"tiny": [encoder]}, {}, new_indexes=tmp_path, read_only=True) as running,
        Client(running.url) as client,
        pytest.raises(EndpointError, match="403"),
    ):
        client.create_index("notes")
    assert list(tmp_path.iterdir()) == []


def test_a_key_for_reading_makes_and_deletes_none(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPTYCH_READ_KEYS", "r")
    monkeypatch.setenv("TRIPTYCH_WRITE_KEYS", "w")
    with serving({"tiny": [encoder]}, {}, new_indexes=tmp_path) as running:
        url = f"{running.url}/v1/indexes/notes"
        reading, writing = ({"authorization": f"Bearer {key}"} for key in "rw")
        assert httpx.put(url, json={}).status_code == 401
        assert httpx.put(url, json={}, headers=reading).status_code == 403
        assert httpx.put(url, json={"engine": "exact"}, headers=writing).status_code == 201
        assert httpx.delete(url, headers=reading).status_code == 403
        assert httpx.delete(url, headers=writing).status_code == 200
    assert list(tmp_path.iterdir()) == []
