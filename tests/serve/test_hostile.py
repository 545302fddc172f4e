"""Requests as no client should send them: each a 4xx that names the field, never a traceback, a hang, or a change."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.conftest import DOCUMENTS, Running, make_index, serving
from triptych import Encoder

SEARCH, ENCODE, EMBED = "/v1/indexes/my.index/search", "/v1/encode", "/v1/embeddings"
STORE, DELETE, GET = (f"/v1/indexes/my.index/documents{part}" for part in ("", "/delete", "/get"))
RERANK = "/v1/rerank"
NESTED: Any = 0
for _ in range(70):
    NESTED = [NESTED]


def document(**changes: Any) -> dict[str, Any]:
    return {"documents": [{"id": "new", "text": "a text"} | changes]}


# Path, body as bytes, status, and what the message must name.
BROKEN: dict[str, tuple[str, bytes, int, str]] = {
    "no body": (SEARCH, b"", 422, "body"),
    "no JSON": (SEARCH, b"hello", 400, "body"),
    "half JSON": (SEARCH, b'{"query": "a', 400, "body"),
    "two objects": (SEARCH, b'{"query": "a"}{"query": "b"}', 400, "body"),
    "single quotes": (SEARCH, b"{'query': 'a'}", 400, "body"),
    "a comma too many": (SEARCH, b'{"query": "a",}', 400, "body"),
    "a comment": (SEARCH, b'{"query": "a" /* b */}', 400, "body"),
    "a byte order mark": (SEARCH, b'\xef\xbb\xbf{"query": "a"}', 400, "body"),
    "UTF-16": (SEARCH, '{"query": "a"}'.encode("utf-16"), 400, "body"),
    "broken UTF-8": (SEARCH, b'{"query": "\xff\xfe"}', 400, "body"),
    "overlong UTF-8": (SEARCH, b'{"query": "\xc0\xaf"}', 400, "body"),
    "half a surrogate pair": (SEARCH, b'{"query": "\\ud800"}', 400, "body"),
    "a control character": (SEARCH, b'{"query": "a\x01"}', 400, "body"),
    "NaN": (SEARCH, b'{"query": "a", "weights": {"dense": NaN}}', 400, "body"),
    "Infinity": (SEARCH, b'{"query": "a", "weights": [Infinity, 0, 0]}', 400, "body"),
    "a number beyond float64": (SEARCH, b'{"query": "a", "weights": [1e999, 0, 0]}', 400, "body"),
    "deep lists": (SEARCH, b"[" * 100_000, 400, "body"),
    "deep objects": (SEARCH, b'{"query":' * 50_000 + b"1" + b"}" * 50_000, 400, "body"),
    "a list": (SEARCH, b'["query"]', 422, "body"),
    "a number": (SEARCH, b"5", 422, "body"),
    "null": (SEARCH, b"null", 422, "body"),
    "a string": (SEARCH, b'"query"', 422, "body"),
    "a huge integer": (SEARCH, b'{"query": "a", "k": ' + b"9" * 30 + b"}", 422, "k"),
    "an integer beyond float64": (SEARCH, b'{"query": "a", "k": ' + b"9" * 400 + b"}", 400, "body"),
}
WRONG: dict[str, tuple[str, Any, int, str]] = {
    "no query": (SEARCH, {}, 422, "query"),
    "a null query": (SEARCH, {"query": None}, 422, "query"),
    "a number as query": (SEARCH, {"query": 5}, 422, "query"),
    "a mixed list of queries": (SEARCH, {"query": ["a", 5]}, 422, "query"),
    "an object as query": (SEARCH, {"query": {"text": "a"}}, 422, "query"),
    "an empty query": (SEARCH, {"query": " "}, 422, "query"),
    "an empty query among others": (SEARCH, {"query": ["a", ""]}, 422, "query[1]"),
    "a misspelt key": (SEARCH, {"query": "a", "weigths": {}}, 422, "weigths"),
    "k of 0": (SEARCH, {"query": "a", "k": 0}, 422, "k"),
    "a negative k": (SEARCH, {"query": "a", "k": -1}, 422, "k"),
    "k as text": (SEARCH, {"query": "a", "k": "5"}, 422, "k"),
    "k as a fraction": (SEARCH, {"query": "a", "k": 1.5}, 422, "k"),
    "k as a truth value": (SEARCH, {"query": "a", "k": True}, 422, "k"),
    "a huge k": (SEARCH, {"query": "a", "k": 10**12}, 422, "k"),
    "weights of two": (SEARCH, {"query": "a", "weights": [1, 2]}, 422, "weights"),
    "negative weights": (SEARCH, {"query": "a", "weights": {"dense": -1}}, 422, "weights"),
    "an unknown head": (SEARCH, {"query": "a", "weights": {"graph": 1}}, 422, "weights"),
    "only zero weights": (SEARCH, {"query": "a", "weights": [0, 0, 0]}, 422, "weights"),
    "weights as text": (SEARCH, {"query": "a", "weights": "1,1,1"}, 422, "weights"),
    "an unknown route": (SEARCH, {"query": "a", "routes": ["graph"]}, 422, "routes"),
    "candidates of 0": (SEARCH, {"query": "a", "candidates": 0}, 422, "candidates"),
    "a filter as text": (SEARCH, {"query": "a", "filter": "lang=fr"}, 422, "filter"),
    "a filter with an odd key": (SEARCH, {"query": "a", "filter": {'a"b': 1}}, 422, "filter"),
    "a filter with an unknown bound": (
        SEARCH,
        {"query": "a", "filter": {"year": {"above": 1}}},
        422,
        "filter",
    ),
    "a filter with an empty list": (SEARCH, {"query": "a", "filter": {"year": []}}, 422, "filter"),
    "a deep filter": (SEARCH, {"query": "a", "filter": {"year": NESTED}}, 422, "filter"),
    "explain as text": (SEARCH, {"query": "a", "explain": "yes"}, 422, "explain"),
    "an index that is not there": ("/v1/indexes/other/search", {"query": "a"}, 404, "other"),
    "no texts": (ENCODE, {}, 422, "texts"),
    "texts of numbers": (ENCODE, {"texts": [1, 2]}, 422, "texts"),
    "too many texts": (ENCODE, {"texts": ["a"] * 101}, 413, "texts"),
    "too many tokens": (ENCODE, {"texts": ["word " * 50] * 100}, 413, "tokens"),
    "unknown outputs": (ENCODE, {"texts": "a", "outputs": ["graph"]}, 422, "outputs"),
    "no outputs": (ENCODE, {"texts": "a", "outputs": []}, 422, "outputs"),
    "an unknown prompt": (ENCODE, {"texts": "a", "prompt": "passage"}, 422, "prompt"),
    "an unknown precision": (ENCODE, {"texts": "a", "precision": "int4"}, 422, "precision"),
    "a max_length of 0": (ENCODE, {"texts": "a", "max_length": 0}, 422, "max_length"),
    "a huge max_length": (ENCODE, {"texts": "a", "max_length": 10**9}, 422, "max_length"),
    "an unknown model": (ENCODE, {"texts": "a", "model": "../../etc/passwd"}, 404, "model"),
    "a negative token id": (EMBED, {"input": [-1]}, 422, "input"),
    "a huge token id": (EMBED, {"input": [[10**6]]}, 422, "input"),
    "an empty list of token ids": (EMBED, {"input": [[]]}, 422, "input"),
    "an unknown encoding": (EMBED, {"input": "a", "encoding_format": "hex"}, 422, "encoding_format"),
    "dimensions of 0": (EMBED, {"input": "a", "dimensions": 0}, 422, "dimensions"),
    "negative dimensions": (EMBED, {"input": "a", "dimensions": -3}, 422, "dimensions"),
    "no documents to rank": (RERANK, {"query": "a"}, 422, "documents"),
    "a ranking of numbers": (RERANK, {"query": "a", "documents": [1]}, 422, "documents"),
    "a negative top_n": (RERANK, {"query": "a", "documents": ["b"], "top_n": -1}, 422, "top_n"),
    "an unknown input_type": ("/v2/embed", {"texts": ["a"], "input_type": "x"}, 422, "input_type"),
    "pairs that do not fit": ("/score", {"text_1": ["a", "b"], "text_2": ["c"]}, 422, "text_1"),
    "inputs as an object": ("/embed", {"inputs": {"text": "a"}}, 422, "inputs"),
    "an unknown task": ("/pooling", {"input": "a", "task": "classify"}, 422, "task"),
    "no documents": (STORE, {}, 422, "documents"),
    "a document without a text": (STORE, {"documents": [{"id": "new"}]}, 422, "documents.0.text"),
    "a document without an id": (STORE, {"documents": [{"text": "a"}]}, 422, "documents.0.id"),
    "an id that is a number": (STORE, document(id=5), 422, "documents.0.id"),
    "an empty id": (STORE, document(id=""), 422, "id"),
    "an id twice": (STORE, {"documents": document()["documents"] * 2}, 422, "new"),
    "metadata that are no object": (STORE, document(metadata=[1]), 422, "metadata"),
    "deep metadata": (STORE, document(metadata={"a": NESTED}), 422, "metadata"),
    "a document with an unknown key": (STORE, document(title="t"), 422, "documents.0.title"),
    "nothing to delete": (DELETE, {}, 422, "ids"),
    "both to delete": (DELETE, {"ids": ["a"], "filter": {"lang": "fr"}}, 422, "ids"),
    "a filter of nothing to delete": (DELETE, {"filter": {}}, 422, "filter"),
    "ids as text": (DELETE, {"ids": "a"}, 422, "ids"),
    "an id of nothing": (GET, {"ids": [""]}, 422, "id"),
}
PATHS = [
    "/v1/indexes/../../etc/passwd",
    "/v1/indexes/..%2f..%2fetc%2fpasswd",
    "/v1/indexes/%2e%2e/search",
    "/v1/indexes/my.index%00",
    "/v1/indexes/my.index%0d%0aset-cookie:a=b",
    "/v1/indexes/~root",
    "/v1/indexes/" + "a" * 5000,
    "/v1/indexes/%ff%fe",
    "/v1/indexes/my.index/documents/%ff",
    "/../pyproject.toml",
    "/%2e%2e/%2e%2e/pyproject.toml",
    "/..%5c..%5csettings.py",
    "//etc/passwd",
    "/v1/../v1/../settings.py",
    "/static/..;/secret",
]
RAW = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/0.9": b"GET /v1/nothing\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "two lengths": b"POST /v1/encode HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "length and chunks": b"POST /v1/encode HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /v1/encode HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
    "a length of letters": b"POST /v1/encode HTTP/1.1\r\nhost: localhost\r\ncontent-length: ten\r\n\r\n",
    "a chunk of no size": b"POST /v1/encode HTTP/1.1\r\nhost: localhost\r\n"
    b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a length beyond everything": b"POST /v1/encode HTTP/1.1\r\nhost: localhost\r\n"
    b"content-length: 99999999999999999999\r\n\r\n",
    "a header without a colon": b"GET /health HTTP/1.1\r\nhost localhost\r\n\r\n",
    "a NUL in a header": b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: a\x00b\r\n\r\n",
}


@pytest.fixture(scope="module")
def server(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    index = make_index(tmp_path_factory.mktemp("hostile") / "my.index", encoder)
    with serving(
        {"tiny": [encoder]}, {"my.index": index}, max_texts=100, max_tokens=4000, client_timeout=5
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _unharmed(server: Running) -> Iterator[None]:
    yield
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert httpx.get(f"{server.url}/v1/indexes/my.index").json()["documents"] == len(DOCUMENTS)


def check(answer: httpx.Response, status: int, named: str) -> None:
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert named in found["message"]
    assert found["error"]["message"] == found["message"]
    assert found["error"]["code"] == status
    for word in ("Traceback", "pydantic", 'File "', "site-packages", "NoneType"):
        assert word not in answer.text


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_json_is_refused(server: Running, name: str) -> None:
    path, body, status, named = BROKEN[name]
    answer = httpx.post(
        server.url + path, content=body, headers={"content-type": "application/json"}, timeout=20
    )
    check(answer, status, named)


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_by_its_name(server: Running, name: str) -> None:
    path, body, status, named = WRONG[name]
    check(httpx.post(server.url + path, json=body, timeout=20), status, named)


def test_there_are_a_hundred_kinds_and_more() -> None:
    assert len(BROKEN) + len(WRONG) + len(PATHS) + len(RAW) >= 100


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_path_tricks_lead_nowhere(server: Running, path: str, method: str) -> None:
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".encode()
    body = b'{"query": "a"}'
    answer = talk(server, head + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 404, 405, 422), answer
    assert b"root:" not in answer
    assert b"[project]" not in answer
    assert b"set-cookie" not in answer.lower().partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_http_is_refused(server: Running, name: str) -> None:
    answer = talk(server, RAW[name])
    assert answer[:9] in (b"HTTP/1.1 ", b""), answer
    assert answer == b"" or 400 <= int(answer[9:12]) < 500, answer


def talk(server: Running, sent: bytes) -> bytes:
    """What the server answers, until it closes; b"" if it only closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(sent)
        with suppress(ConnectionResetError):
            while chunk := client.recv(65536):
                received += chunk
    return received


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_connection_that_is_cut_does_no_harm(server: Running, part: float) -> None:
    body = json.dumps(document()).encode()
    head = (
        b"PUT %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    whole = head % (STORE.encode(), len(body)) + body
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(whole[: int(len(whole) * part)])


READING = [SEARCH, ENCODE, EMBED, GET, RERANK]
READING += [
    "/v2/embed",
    "/embed",
    "/rerank",
    "/tokenize",
    "/score",
    "/pooling",
    "/v1/multi-vector",
    "/embed_sparse",
    "/embed_all",
]
KEYS = [
    "query",
    "k",
    "weights",
    "filter",
    "routes",
    "candidates",
    "texts",
    "input",
    "inputs",
    "documents",
    "model",
    "outputs",
    "ids",
    "text_1",
    "text_2",
]
KEYS += ["input_type", "task", "dimensions", "explain", "truncate"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_makes_the_server_fail(server: Running, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(READING))
    body = data.draw(
        st.dictionaries(st.sampled_from(KEYS), JSON | st.just("a text") | st.just(["a", "b"])) | JSON
    )
    try:
        content = json.dumps(body).encode()
    except UnicodeEncodeError:
        return
    answer = httpx.post(
        server.url + path, content=content, headers={"content-type": "application/json"}, timeout=20
    )
    assert answer.status_code < 500, (path, body, answer.text)
    if answer.status_code != 200:
        assert answer.json()["message"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200),
    kind=st.sampled_from(["application/json", "text/plain", "", "application/x-tar", "é"]),
)
def test_no_bytes_make_the_server_fail(server: Running, body: bytes, kind: str) -> None:
    answer = httpx.post(
        server.url + SEARCH, content=body, headers={"content-type": kind.encode()}, timeout=20
    )
    assert 400 <= answer.status_code < 500


def test_the_folder_of_the_index_is_not_served(server: Running, tmp_path: Path) -> None:
    for path in ("/manifest.json", "/my.index/manifest.json", "/data", "/v1/indexes/my.index/manifest.json"):
        assert httpx.get(server.url + path).status_code == 404


def test_a_thousand_clients_at_once_are_all_answered(server: Running, encoder: Encoder) -> None:
    body = json.dumps({"texts": "hello world", "outputs": ["dense"]}).encode()
    head = b"POST /v1/encode HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        answer = await reader.read()
        writer.close()
        return answer

    async def ask_all() -> list[bytes]:
        return await asyncio.gather(*(ask() for _ in range(1000)))

    expected = encoder.encode("hello world", outputs=["dense"]).dense
    for answer in asyncio.run(ask_all()):
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        found = np.array(json.loads(answer.partition(b"\r\n\r\n")[2])["dense"], np.float32)
        assert np.allclose(found, expected, atol=2e-6)
    assert server.metric("triptych_passes_total") < 1000
