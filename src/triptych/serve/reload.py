"""Following names that stand for other indexes than before, while requests go on being answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from triptych.encode.encoder import Encoder
from triptych.errors import TriptychError
from triptych.index.alias import resolve
from triptych.index.index import Index
from triptych.serve.service import Service

log = logging.getLogger("triptych.serve")


class Renewed(NamedTuple):
    """What a name stands for now, if it is something else.

    Attributes:
        opened: The index.
        source: From where its model was loaded.
        encoders: The model, once per device; none if the server has it.
    """

    opened: Index
    source: str
    encoders: Sequence[Encoder]


class Reloader:
    """Opens again what has changed under the names of a server; what cannot be opened stays as it was.

    Args:
        service: The server's.
        places: Places by name, as they were given.
        load: Loads a model, once per device.
    """

    def __init__(
        self, service: Service, places: Mapping[str, str], load: Callable[[str], Sequence[Encoder]]
    ) -> None:
        self._service, self._places, self._load = service, places, load
        self._lock = asyncio.Lock()

    async def __call__(self) -> None:
        """Looks at every name, one after the other."""
        async with self._lock:
            for name, place in self._places.items():
                try:
                    found = await asyncio.to_thread(partial(self._open, name, place))
                except (TriptychError, OSError) as error:
                    log.warning("%s: stays as it was: %s", name, error)
                    continue
                if found is not None:
                    self._service.switch(name, *found)
                    log.info("%s: serves %s", name, found.opened.info()["place"])

    def _open(self, name: str, place: str) -> Renewed | None:
        if resolve(place) == self._service.index(name).info()["place"]:
            return None
        index = Index.open(place)
        model = index.info()["model"]
        known = self._service.fingerprints
        return Renewed(
            index, model["source"], [] if model["fingerprint"] in known else self._load(model["source"])
        )
