"""A server on a real socket that speaks `/chat/completions`, with the faults that one asks it for."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler", dict[str, Any]], None]


@dataclass
class Model:
    """What the server does: `faults` are used up one a request, then `reply` answers.

    Attributes:
        requests: Bodies of all requests that came.
        answered: Passages for which a whole answer was sent, in order.
        headers: Headers of the last request.
        most: The most requests that were open at once.
    """

    reply: Reply
    faults: list[Reply] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    most: int = 0
    url: str = ""
    open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    """One request after the other of a connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written one after the other
    model: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = self.model
        with model.lock:
            assert self.path == "/v1/chat/completions"
            model.requests.append(body)
            model.headers = {name.lower(): value for name, value in self.headers.items()}
            model.open += 1
            model.most = max(model.most, model.open)
            reply = model.faults.pop(0) if model.faults else model.reply
        try:
            reply(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with model.lock:
                model.open -= 1

    def send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def passage_of(body: dict[str, Any]) -> str:
    """What a request is about."""
    return body["messages"][-1]["content"]


def completion(text: str | None, *, finish: str = "stop", usage: Any = (100, 10), **message: Any) -> str:
    """The body of a good answer."""
    body: dict[str, Any] = {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
    }
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return json.dumps(body)


def answer(make: Callable[[str], str], **options: Any) -> Reply:
    """Answers with what a function makes of the request."""

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        asked = passage_of(body)
        handler.send(200, completion(make(asked), **options))
        with handler.model.lock:
            handler.model.answered.append(asked)

    return reply


def status(number: int, message: str = "no", headers: dict[str, str] | None = None, **error: Any) -> Reply:
    """An error as OpenAI's servers form it."""
    text = json.dumps(
        {"error": {"message": message, "type": "some_error", "param": None, "code": None, **error}}
    )
    return lambda handler, body: handler.send(number, text, headers)


def raw(text: str, code: int = 200) -> Reply:
    """Any body."""
    return lambda handler, body: handler.send(code, text)


def cut(handler: Handler, body: dict[str, Any]) -> None:
    """Half of a body, and then nothing more."""
    text = completion("Where is the half of it?").encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text[: len(text) // 2])
    handler.wfile.flush()
    handler.close_connection = True


def slow(seconds: float) -> Reply:
    """Says nothing for a while, and then nothing useful."""

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return reply


@contextmanager
def serving(model: Model) -> Iterator[Model]:
    """Runs a server for a model, at `model.url`."""
    handler = type("Bound", (Handler,), {"model": model})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    model.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
