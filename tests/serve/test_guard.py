"""Keys, limits, clients that go or are slow, the end of a server, and what its log does not say."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.conftest import Running, make_index, serving
from serve.test_batching import Slow
from triptych import Encoder
from triptych.errors import DataError, InputError
from triptych.index.index import Index
from triptych.serve.service import Service
from triptych.serve.settings import Keys, ServeSettings

DOCUMENTS = "/v1/indexes/my.index/documents"
READS = [
    ("GET", "/v1/indexes", None),
    ("GET", "/v1/indexes/my.index", None),
    ("POST", "/v1/indexes/my.index/search", {"query": "hello"}),
    ("GET", f"{DOCUMENTS}/a", None),
    ("POST", f"{DOCUMENTS}/get", {"ids": ["a"]}),
    ("POST", "/v1/encode", {"texts": "a", "outputs": ["dense"]}),
    ("POST", "/v1/embeddings", {"input": "a"}),
    ("POST", "/v1/rerank", {"query": "a", "documents": ["b"]}),
    ("POST", "/v2/embed", {"texts": ["a"], "input_type": "search_query"}),
    ("POST", "/embed", {"inputs": "a"}),
    ("POST", "/", {"inputs": "a"}),
    ("POST", "/tokenize", {"inputs": "a"}),
    ("POST", "/pooling", {"input": "a"}),
    ("POST", "/score", {"text_1": "a", "text_2": "b"}),
    ("GET", "/v1/models", None),
    ("GET", "/info", None),
    ("GET", "/metrics", None),
]
WRITES = [
    ("POST", DOCUMENTS, {"documents": [{"id": "new", "text": "t"}]}),
    ("PUT", DOCUMENTS, {"documents": [{"id": "new", "text": "t"}]}),
    ("POST", f"{DOCUMENTS}/delete", {"ids": ["new"]}),
    ("PUT", DOCUMENTS, {"documents": [{"id": "new", "text": "t"}]}),
    ("DELETE", f"{DOCUMENTS}/new", None),
]


@pytest.fixture
def locked(start: Callable[..., Running], tmp_path: Path) -> Running:
    """A server with a key for reading and one for writing."""
    keys = tmp_path / "keys"
    keys.write_text("# keys\nread reader\n\nwrite writer\n")
    return start(keys=keys)


def ask(server: Running, method: str, path: str, body: Any, key: str | None = None, **headers: str) -> int:
    headers |= {"authorization": f"Bearer {key}"} if key else {}
    return httpx.request(method, server.url + path, json=body, headers=headers, timeout=30).status_code


def test_a_client_without_rights_reads_and_writes_nothing(locked: Running) -> None:
    for request in READS + WRITES:
        for key in (None, "wrong", "reader ", "read", "é"):
            headers = {} if key is None else {"authorization": f"Bearer {key}x".encode()}
            answer = httpx.request(request[0], locked.url + request[1], json=request[2], headers=headers)
            assert answer.status_code == 401, request
            assert set(answer.json()) == {"error", "message", "error_type"}
    assert len(locked.service.index("my.index")) == 4


def test_a_key_for_reading_reads_and_does_not_write(locked: Running) -> None:
    assert [ask(locked, *request, "reader") for request in READS] == [200] * len(READS)
    assert [ask(locked, *request, "reader") for request in WRITES] == [403] * len(WRITES)
    assert len(locked.service.index("my.index")) == 4


@pytest.mark.parametrize("name", ["x/search", "x/explain", "documents/get", "a/documents/get"])
def test_a_document_whose_id_looks_like_a_search_is_not_deleted_with_a_key_for_reading(
    locked: Running, name: str
) -> None:
    index = locked.service.index("my.index")
    index.add([name], ["a text"])
    assert ask(locked, "DELETE", f"/v1/indexes/my.index/documents/{name}", None, "reader") == 403
    assert index.get([name]) != [None]


def test_a_key_for_writing_does_both(locked: Running) -> None:
    assert [ask(locked, *request, "writer") for request in READS + WRITES] == [200] * len(READS + WRITES)
    assert ask(locked, *READS[0], None, **{"x-api-key": "writer"}) == 200


def test_health_and_readiness_need_no_key(locked: Running) -> None:
    assert [ask(locked, "GET", path, None) for path in ("/health", "/ready")] == [200, 200]


def test_a_server_for_reading_alone_refuses_all_writes(start: Callable[..., Running]) -> None:
    server = start(read_only=True)
    assert [ask(server, *request) for request in WRITES] == [403] * len(WRITES)
    assert not httpx.get(f"{server.url}/v1/indexes/my.index").json()["writable"]


def test_keys_come_from_a_file_and_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("read a\nwrite b\nread both\n")
    keys = Keys.load(path, {"TRIPTYCH_READ_KEYS": "c, d", "TRIPTYCH_WRITE_KEYS": "e,both"})
    rights = {key: keys.right_of(key) for key in ("a", "b", "c", "d", "e", "both")}
    assert rights == {"a": "read", "b": "write", "c": "read", "d": "read", "e": "write", "both": "write"}
    assert [keys.right_of(key) for key in ("f", "", None)] == [None] * 3
    assert not any(b"both" in digest for digest in keys.digests)
    path.write_text("read a\nadmin b\n")
    with pytest.raises(DataError, match="keys:2: expected 'read KEY'"):
        Keys.load(path, {})
    with pytest.raises(DataError, match="cannot be read"):
        Keys.load(tmp_path / "none", {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": -1}, "port"),
        ({"wait_ms": float("nan")}, "wait_ms"),
        ({"queue": 0}, "queue"),
        ({"certificate": Path("a")}, "both or none"),
        ({"cors": "https://a"}, "cors"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ServeSettings(**settings)


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden", "a b", "a" * 101, "ü"])
def test_an_index_needs_a_name_that_can_stand_in_an_address(
    encoder: Encoder, tmp_path: Path, name: str
) -> None:
    with make_index(tmp_path / "an.index", encoder) as index, pytest.raises(InputError, match="index name"):
        Service({"tiny": [encoder]}, {name: index})


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "evil.example:8080"])
def test_a_local_server_is_not_reached_by_another_name(shared_server: Running, host: str) -> None:
    assert ask(shared_server, *READS[0], None, host=host) == 421
    for name in ("localhost", f"127.0.0.1:{shared_server.port}", "[::1]:80", "LOCALHOST:1"):
        assert ask(shared_server, *READS[0], None, host=name) == 200


def test_pages_of_other_sites_are_let_in_only_if_they_are_named(start: Callable[..., Running]) -> None:
    page = "https://page.example"
    preflight = {
        "origin": page,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    for server, allowed in ((start(), None), (start(cors=(page,)), page)):
        answer = httpx.options(f"{server.url}/v1/encode", headers=preflight)
        assert answer.headers.get("access-control-allow-origin") == allowed
        other = httpx.options(
            f"{server.url}/v1/encode", headers=preflight | {"origin": "https://evil.example"}
        )
        assert "access-control-allow-origin" not in other.headers


def test_a_form_of_another_site_cannot_write(shared_server: Running) -> None:
    """Browsers send such bodies without asking; JSON they do not."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        body = b'{"ids": ["a"]}'
        answer = httpx.post(
            f"{shared_server.url}{DOCUMENTS}/delete", content=body, headers={"content-type": kind}
        )
        assert answer.status_code == 422
    assert len(shared_server.service.index("my.index")) == 4


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_refused(start: Callable[..., Running], announced: bool) -> None:
    server = start(max_body_mb=0.01)
    body = b'{"texts": "' + b"x" * 20_000 + b'"}'
    content: Any = body if announced else iter([body[:9000], body[9000:]])
    answer = httpx.post(
        f"{server.url}/v1/encode", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413
    assert "0.01 MB" in answer.json()["message"]
    assert server.metric("triptych_body_bytes_held") == 0


def test_a_full_queue_answers_429_with_retry_after(encoder: Encoder, tmp_path: Path) -> None:
    slow = Slow(encoder)
    with serving({"tiny": [slow]}, {}, queue=4) as server, ThreadPoolExecutor(12) as pool:  # type: ignore[list-item]
        asked = [
            pool.submit(httpx.post, f"{server.url}/v1/encode", json={"texts": "a"}, timeout=30)
            for _ in range(6)
        ]
        time.sleep(0.5)
        slow.gate.set()
        answers = [each.result() for each in asked]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 2
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert sum(answer.status_code == 200 for answer in answers) == 4


def test_a_request_that_takes_too_long_is_ended(encoder: Encoder) -> None:
    slow = Slow(encoder)
    with serving({"tiny": [slow]}, {}, timeout=0.5) as server:  # type: ignore[list-item]
        first = threading.Thread(
            target=httpx.post, args=(f"{server.url}/v1/encode",), kwargs={"json": {"texts": "a"}}
        )
        first.start()
        time.sleep(0.2)
        answer = httpx.post(f"{server.url}/v1/encode", json={"texts": "b"})
        assert answer.status_code == 504
        slow.gate.set()
        first.join()
        assert httpx.post(f"{server.url}/v1/encode", json={"texts": "c"}).status_code == 200
    assert slow.sizes == [1, 1]


def test_what_a_client_that_went_away_wanted_is_not_computed(encoder: Encoder) -> None:
    slow = Slow(encoder)
    with serving({"tiny": [slow]}, {}) as server:  # type: ignore[list-item]
        for _ in range(4):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{server.url}/v1/encode", json={"texts": "a"}, timeout=0.3)
        for _ in range(100):
            if server.metric("triptych_cancelled_total") == 4:
                break
            time.sleep(0.05)
        slow.gate.set()
        assert httpx.post(f"{server.url}/v1/encode", json={"texts": "b"}, timeout=30).status_code == 200
        assert server.metric("triptych_queued_tokens") == 0
    assert len(slow.sizes) == 2, "the pass that ran, and that of the last request"


def test_a_server_that_stops_finishes_what_it_accepted(encoder: Encoder, tmp_path: Path) -> None:
    slow, answers = Slow(encoder), list[httpx.Response]()
    index = make_index(tmp_path / "my.index", encoder)
    bodies: list[tuple[str, str, Any]] = [("POST", "/v1/encode", {"texts": "a"}), WRITES[1]]
    with serving({"tiny": [slow]}, {"my.index": index}) as server:  # type: ignore[list-item]

        def post(method: str, path: str, body: Any) -> None:
            answers.append(httpx.request(method, server.url + path, json=body, timeout=30))

        threads = [threading.Thread(target=post, args=request) for request in bodies]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        server.server.should_exit = True
        time.sleep(0.5)
        assert not answers
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")
        slow.gate.set()
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in answers] == [200, 200]
    with Index.open(tmp_path / "my.index", encoder) as again:
        assert again.get(["new"]) != [None]


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v1/enc", b"POST /v1/encode HTTP/1.1\r\nhost: localhost\r\n"],
    ids=["nothing", "half a line", "half a head"],
)
def test_a_client_that_sends_no_whole_head_is_dropped(start: Callable[..., Running], sent: bytes) -> None:
    server = start(client_timeout=0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(sent)
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""


def test_a_client_that_sends_its_body_too_slowly_is_answered_and_dropped(
    start: Callable[..., Running],
) -> None:
    server = start(client_timeout=0.3)
    head = b"POST /v1/encode HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += b"content-length: 999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(head + b'{"texts": ')
        received = b""
        while chunk := client.recv(1000):
            received += chunk
    assert received.startswith(b"HTTP/1.1 408")


def test_a_client_that_does_not_read_its_answer_is_dropped(start: Callable[..., Running]) -> None:
    server = start(client_timeout=0.5)
    body = b'{"texts": [' + b",".join([b'"hello world and more"'] * 3000) + b'], "outputs": ["multi"]}'
    head = (
        b"POST /v1/encode HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect(("127.0.0.1", server.port))
    try:
        client.sendall(head + body)
        for _ in range(200):
            if server.server.server_state.connections and server.metric("triptych_texts_total") >= 3000:
                break
            time.sleep(0.05)
        time.sleep(2)
        assert not any(
            each.transport.get_write_buffer_size() for each in server.server.server_state.connections
        )
    finally:
        client.close()


def test_a_head_without_end_is_refused(shared_server: Running) -> None:
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n")
        answer = b""
        with suppress(ConnectionError):
            for _ in range(100):
                client.sendall(b"x-more: " + b"x" * 4000 + b"\r\n")
            answer = client.recv(1000)
        assert answer[:12] in (b"HTTP/1.1 400", b"")
    assert httpx.get(f"{shared_server.url}/health").status_code == 200


def test_the_access_log_has_no_text_and_no_names(
    start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    with caplog.at_level(logging.DEBUG):
        ask(server, "POST", "/v1/indexes/my.index/search?secret=1", {"query": "secret"})
        ask(server, "GET", f"{DOCUMENTS}/secret", None)
        ask(server, "POST", "/v1/indexes/secret/search", {"query": 5})
        ask(
            server,
            "PUT",
            DOCUMENTS,
            {"documents": [{"id": "secret", "text": "secret", "metadata": {"secret": "secret"}}]},
        )
        ask(server, "GET", "/secret", None)
        httpx.post(
            f"{server.url}/v1/encode", content=b'{"secret', headers={"content-type": "application/json"}
        )
        metrics = httpx.get(f"{server.url}/metrics").text
    lines = [
        record.getMessage() for record in caplog.records if record.name.startswith(("triptych", "uvicorn"))
    ]
    assert any("POST /v1/indexes/{name}/search 200" in line for line in lines)
    assert not any("secret" in line for line in [*lines, metrics])


def test_a_failure_within_tells_nothing_to_the_client(
    encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow(encoder)
    slow.bad = encoder.tokenize("bad").ids[0]
    slow.gate.set()
    with serving({"tiny": [slow]}, {}) as server:  # type: ignore[list-item]
        answer = httpx.post(f"{server.url}/v1/encode", json={"texts": "bad"})
        assert answer.status_code == 500
        assert "breaks" not in answer.text
        assert "Traceback" not in answer.text
        assert httpx.post(f"{server.url}/v1/encode", json={"texts": "good"}).status_code == 200
    assert "breaks the model" in caplog.text
