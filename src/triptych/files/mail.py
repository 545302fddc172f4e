"""E-mail: single messages and mailboxes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from triptych.errors import TooLarge
from triptych.io import MAX_TEXT, Source
from triptych.markup import Plain, plain_html, plain_text, squeeze

_HEADERS = {"from": "from", "to": "to", "cc": "cc", "message_id": "message-id"}


def read_mail(data: bytes, name: str) -> Plain:
    """A message: its subject as title, its text (of HTML what is seen), and from, to, cc, date and files attached.

    Any bytes are a message to the parser, at worst one without headers; `name` is not used.
    """
    message = message_from_bytes(data, policy=policy.default)
    said: dict[str, Any] = {key: _header(message, header) for key, header in _HEADERS.items()}
    try:
        date = message["date"].datetime if message["date"] is not None else None
    except (AttributeError, ValueError, IndexError, TypeError):
        date = None
    said["created"] = date.isoformat() if isinstance(date, datetime) else ""
    try:
        files = [file.get_filename() for file in message.iter_attachments()]
    except (AttributeError, ValueError, KeyError, TypeError):  # of a message that is not as it says
        files = []
    said["attachments"] = [squeeze(file) for file in files if file]
    body = _body(message)
    subject = _header(message, "subject")
    return Plain(
        body.text, subject or None, body.sections, {key: value for key, value in said.items() if value}
    )


def read_mailbox(source: Source) -> Iterator[tuple[int, Plain]]:
    """The messages of an mbox file with their numbers, from 1.

    Raises:
        TooLarge: For a message of more than `MAX_TEXT` bytes.
    """
    lines: list[bytes] = []
    number, size, is_blank = 0, 0, True
    for line in source.stream:
        if is_blank and line.startswith(b"From "):
            if lines:
                number += 1
                yield number, read_mail(b"".join(lines), source.name)
            lines, size = [], 0
            continue
        is_blank = not line.strip()
        # A line of the text that begins with "From " was quoted so by the program that wrote the box.
        lines.append(line[1:] if line.lstrip(b">").startswith(b"From ") and line[0:1] == b">" else line)
        size += len(line)
        if size > MAX_TEXT:
            raise TooLarge(f"a message of more than {MAX_TEXT >> 20} MiB, the limit", source.name)
    if lines:
        yield number + 1, read_mail(b"".join(lines), source.name)


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = message[name]
        text = "" if value is None else str(value)
    except (ValueError, IndexError, AttributeError, TypeError):  # a header that the parser cannot hold
        return ""
    return squeeze(text.encode("utf-8", "replace").decode())


def _body(message: EmailMessage) -> Plain:
    try:
        part = message.get_body(("plain", "html"))
        content = "" if part is None else part.get_content()
    except (
        AttributeError,
        LookupError,
        ValueError,
        TypeError,
        AssertionError,
    ):  # an unknown charset, a broken part
        part = None
        content = message.get_payload(decode=True) or b"" if not message.is_multipart() else b""
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
    text = text.encode("utf-8", "replace").decode().replace("\r\n", "\n")
    if part is not None and part.get_content_type() == "text/html":
        return plain_html(text)
    return plain_text(text)
