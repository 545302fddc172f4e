"""Names that stand for indexes, and can be made to stand for others at once: links of folders, Qdrant's aliases.

A new index, of a new model say, is built beside the old one; then the name is switched. Whoever has the old one open
keeps it, since opening follows the name once.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from triptych.errors import IndexExists, InputError
from triptych.index import server
from triptych.index.documents import check_place
from triptych.index.postgres_link import is_postgres, read_address
from triptych.index.storage import read_manifest, storage_error
from triptych.io import sync_folder


def resolve(place: str | os.PathLike[str], api_key: str | None = None) -> str:
    """The place that a name stands for at this moment; any other place as `Index.info` gives it.

    Raises:
        IndexFault: If the server does not answer.
    """
    where = check_place(place)
    if is_postgres(where):
        return read_address(where, api_key).shown
    if not server.is_address(where):
        path = Path(where)
        return str(path.resolve() if path.is_symlink() else path.absolute())
    client, collection = server.connect(where, api_key)
    try:
        return server.place_of(where, server.resolve(client, collection))
    finally:
        client.close()


def switch(
    name: str | os.PathLike[str], target: str | os.PathLike[str], api_key: str | None = None
) -> str | None:
    """Makes a name stand for an index, at once: whoever opens it gets the old index or the new one.

    Args:
        name: A link, or a place for a new one; on a Qdrant server the address of an alias.
        target: The index; on the same server.
        api_key: For a server.

    Returns:
        The place that the name stood for before; None if it is new.

    Raises:
        IndexMissing: If there is no index at the target.
        IndexExists: If the name is an index or a file itself.
        InputError: If one is a folder and the other is not.
        StorageError: If the link cannot be made.
    """
    alias, index = check_place(name), check_place(target)
    if is_postgres(alias) or is_postgres(index):
        raise InputError(
            "switch: got an address of PostgreSQL, which has no aliases; expected a folder or Qdrant's server"
        )
    if server.is_address(alias):
        return server.switch(alias, index, api_key)
    if server.is_address(index):
        raise InputError(f"switch: got {alias} for {index}; expected a name on the same server")
    link, folder = Path(alias), Path(index).resolve()
    read_manifest(folder)
    if os.path.lexists(link) and not link.is_symlink():
        raise IndexExists(
            f"{link}: there is something of this name, which is no link; expected a new name, or a folder that was "
            "renamed before"
        )
    before = str(link.resolve()) if link.is_symlink() else None
    if str(folder) == str(link.absolute()):
        raise InputError(f"switch: got {link} for itself; expected an index")
    part = link.with_name(f".{link.name}.{uuid.uuid4().hex}.part")
    try:
        part.symlink_to(os.path.relpath(folder, link.parent.resolve()))
        part.replace(link)
        sync_folder(link.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise storage_error(f"{link}: cannot be made a link", error) from error
    return before
