"""Debian packages by name: downloaded by apt, unpacked by dpkg, installed nowhere."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from triptych.errors import DataError


def unpack(packages: Iterable[str], folder: Path) -> list[Path]:
    """Downloads and unpacks packages; what is there already is left as it is.

    Args:
        packages: Their names, as apt knows them.
        folder: Gets a folder of each package's name.

    Returns:
        These folders, in the order of the names.

    Raises:
        DataError: If apt or dpkg is missing, or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Path] = []
    for package in packages:
        target = folder / package
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=folder) as name:
                run(["apt-get", "-qq", "download", package], Path(name))
                archives = list(Path(name).glob("*.deb"))
                if len(archives) != 1:
                    raise DataError(f"apt-get brought {len(archives)} archives; expected one", package)
                run(["dpkg", "-x", str(archives[0]), f"{name}/files"], Path(name))
                (Path(name) / "files").rename(target)
        found.append(target)
    return found


def run(command: list[str], folder: Path) -> bytes:
    """What a command prints.

    Raises:
        DataError: If it is missing or fails, with what it said.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise DataError("is not installed; the corpus is rebuilt on Debian or Ubuntu", command[0]) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip()[-300:]
        raise DataError(f"failed: {said}", " ".join(command)) from error
    return done.stdout
