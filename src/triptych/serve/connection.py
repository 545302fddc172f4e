"""A connection that gives up on clients which send no whole head, or do not read their answer."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD = 64 * 1024  # bytes of a request's first line and headers


def connection_type(patience: float) -> type[HttpToolsProtocol]:
    """Uvicorn's protocol with limits that it lacks.

    Args:
        patience: Seconds for the head of a request, and without progress while an answer is read.
    """

    class Connection(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _head: int | None = 0  # bytes of the head that came; None: it is whole
        _unread = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait(self._give_up)

        def on_message_begin(self) -> None:
            self._head = 0
            self._wait(self._give_up)
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._head = None
            self._stop()
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._head is not None and not self.transport.is_closing():
                self._head += len(data)
                if self._head > _HEAD:
                    self.send_400_response(f"The head of a request may have {_HEAD} bytes.")

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch_reader()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _watch_reader(self) -> None:
            """Drops the connection if nothing of the answer is read for a while."""
            self._unread = self.transport.get_write_buffer_size()
            if self._unread:
                self._wait(self._check_reader)

        def _check_reader(self) -> None:
            if self.transport.get_write_buffer_size() >= self._unread:
                self._give_up()
            else:
                self._watch_reader()

        def _give_up(self) -> None:
            self.transport.abort()

        def _wait(self, then: Any) -> None:
            self._stop()
            self._timer = self.loop.call_later(patience, then)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Connection
