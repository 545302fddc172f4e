"""Connections to PostgreSQL: addresses, hidden passwords, retries, and errors in our words.

An address is ``postgresql://[user@]host[:port]/database/collection``, or ``postgresql:///database/collection`` for the
socket of this machine; what libpq knows may follow as ``?sslmode=verify-full``, and several hosts as ``a,b``. A
collection is a schema of that name in the database.
"""

from __future__ import annotations

import importlib
import re
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple, TypeVar

from triptych.errors import IndexFault, InputError, MissingExtra, StorageError

T = TypeVar("T")

_SCHEMES = ("postgresql://", "postgres://")
_LONGEST_NAME = 63
_SETTINGS = {
    "application_name": "triptych",
    "client_encoding": "utf8",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "tcp_user_timeout": 60_000,
}
"""What a connection has unless the address says otherwise."""

SET_UP = """
SELECT set_config('search_path', concat_ws(', ', quote_ident(%s), quote_ident(max(n.nspname))), false), max(extversion),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
        ELSE current_setting('synchronous_commit') END, false),
    set_config('statement_timeout', CASE current_setting('statement_timeout') WHEN '0' THEN '60s'
        ELSE current_setting('statement_timeout') END, false),
    set_config('random_page_cost', least(current_setting('random_page_cost')::float8, 1.1)::text, false),
    set_config('jit', 'off', false)
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'vector'
"""
"""Sets a connection up for a collection; its second column is pgvector's version, or NULL.

Pages are not read from a turning disk, which is what the server takes for granted and scans tables for; to compile a
statement costs more than ours do.
"""

_PAUSES = (0.1, 0.4, 1.0, 2.0, 4.0)
"""Seconds between attempts: a server that restarts after a crash is there again within some of them."""

_PASSING = ("08", "57P01", "57P02", "57P03", "40001", "40P01", "53300")
"""Beginnings of the codes of errors that may be gone at the next attempt."""

_MOST = 8
"""Connections at once."""


class PostgresAddress(NamedTuple):
    """Where a collection is.

    Attributes:
        settings: What libpq needs to connect.
        collection: Name of the schema.
        shown: The address without passwords.
    """

    settings: dict[str, Any]
    collection: str
    shown: str


def is_postgres(place: str) -> bool:
    """Whether a place is the address of a collection in PostgreSQL."""
    return place.startswith(_SCHEMES)


def hide_password(place: str) -> str:
    """An address for people to read; a folder or another address stays as it is."""
    if not is_postgres(place):
        return place
    plain = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", place)
    return re.sub(r"(password=)[^&]*", r"\1***", plain)


def read_address(place: str, password: str | None = None) -> PostgresAddress:
    """Reads an address.

    Args:
        place: See the module's text.
        password: Default: that of the address, or what libpq finds (PGPASSWORD, ~/.pgpass, a service file).

    Raises:
        InputError: For an address without a database and a collection.
        MissingExtra: If psycopg is not installed.
    """
    shown = hide_password(place)
    try:
        settings = dict(_psycopg().conninfo.conninfo_to_dict(place))
    except _psycopg().Error:  # its message would quote the address
        settings = {}
    database, _, collection = str(settings.get("dbname", "")).rpartition("/")
    if not database or not collection:
        raise InputError(
            f"index: got the address {shown!r}; expected postgresql://user@host[:port]/database/collection"
        )
    if len(collection.encode()) > _LONGEST_NAME or collection.startswith("pg_"):
        raise InputError(
            f"index: got the collection {collection!r}; expected a name of at most {_LONGEST_NAME} bytes that does "
            "not begin with pg_"
        )
    own = {} if password is None else {"password": password}
    return PostgresAddress({**_SETTINGS, **settings, "dbname": database, **own}, collection, shown)


class PostgresLink:
    """Some connections to one collection, for any number of threads.

    Args:
        address: Of the collection.
        read_only: Whether the server is to refuse changes.

    Attributes:
        address: Of the collection.
    """

    def __init__(self, address: PostgresAddress, *, read_only: bool = False) -> None:
        self.address = address
        self._read_only = read_only
        self._idle: list[Any] = []
        self._closed = self._reached = False
        self._places = threading.BoundedSemaphore(_MOST)

    def run(self, work: Callable[[Any], T], *, writing: bool = False, single: bool = False) -> T:
        """Does some work in one transaction; again, if the server or the connection was lost or others were in the way.

        Args:
            work: Gets a connection; doing it twice must be as doing it once.
            writing: Whether a failure is one of storing.
            single: Whether it is one statement, which is a transaction by itself.

        Raises:
            IndexFault: If it cannot be done, or after `close`.
            StorageError: The same when writing.
        """
        pauses = iter(_PAUSES)
        while True:
            try:
                with (
                    self._connection() as connection,
                    nullcontext() if single else connection.transaction(),
                ):
                    return work(connection)
            except _psycopg().Error as error:
                lost = isinstance(error, _psycopg().OperationalError) and error.sqlstate is None
                passing = (lost and self._reached) or str(error.sqlstate).startswith(_PASSING)
                pause = next(pauses, None) if passing else None
                if pause is None:
                    raise self.fault(error, writing=writing) from None  # libpq's text may have a password
                self._drop()  # the others are lost, too
                time.sleep(pause)

    def alone(self, work: Callable[[Any], None]) -> None:
        """Does some work once, on a connection of its own, in which every statement is a transaction.

        Raises:
            StorageError: If it cannot be done.
        """
        try:
            with self._connect() as connection:
                work(connection)
        except _psycopg().Error as error:
            raise self.fault(error, writing=True) from None

    def _connect(self) -> Any:
        connection = _psycopg().connect(**self.address.settings, autocommit=True, prepare_threshold=None)
        self._reached = True
        try:
            connection.read_only = self._read_only
            version = connection.execute(SET_UP, [self.address.collection]).fetchone()[1]
            if version is not None:
                self._check_version(version)
                importlib.import_module("pgvector.psycopg").register_vector(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_version(self, version: str) -> None:
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < (0, 8):
            raise IndexFault(
                f"{self.address.shown}: the database has pgvector {version}; expected 0.8 or later "
                "(ALTER EXTENSION vector UPDATE)"
            )

    @contextmanager
    def _connection(self) -> Generator[Any]:
        with self._places:
            if self._closed:
                raise IndexFault(f"{self.address.shown}: the index is closed")
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            if self._closed:
                self._drop()

    def fault(self, error: BaseException, *, writing: bool = False) -> IndexFault | StorageError:
        """An error of psycopg as ours, without the password."""
        code, text = getattr(error, "sqlstate", None), " ".join(str(error).split())
        if password := self.address.settings.get("password"):
            text = text.replace(password, "***")
        if code == "57014":
            text = f"it took longer than statement_timeout allows: {text}"
        if code == "42501":
            name = self.address.collection
            text += (
                ". An administrator of the database can make what is needed: CREATE EXTENSION vector SCHEMA public; "
                f'CREATE SCHEMA "{name}" AUTHORIZATION …'
            )
        where = f"{self.address.shown}: PostgreSQL"
        if writing or code == "53100":
            return StorageError(
                f"{where} did not store it: {text}. Nothing that was acknowledged before is lost"
            )
        return IndexFault(f"{where} did not answer as it should: {text}")

    def close(self) -> None:
        """Closes all connections. Twice is no error."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                self._idle.pop().close()


def _psycopg() -> Any:
    try:
        importlib.import_module("pgvector.psycopg")
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise MissingExtra("an index in PostgreSQL", "postgres") from error
