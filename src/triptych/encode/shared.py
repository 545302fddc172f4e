"""An `Encoded` from a worker process to its parent: large arrays in shared memory, the rest through the pipe.

A block's token vectors are hundreds of megabytes; through a pipe they would be copied four times by one thread, slower
than GPUs make them.
"""

from __future__ import annotations

import os
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from triptych.scores.packing import pack, unpack
from triptych.types import Encoded

_FOLDER = Path("/dev/shm")
# Bytes of an array from which on a file of its own is worth it.
_LARGE = 1 << 20
# Of what is free in shared memory, the part that one block may take; containers often have little of it.
_PART = 8


class SharedPlace(NamedTuple):
    """Where an array lies in shared memory."""

    name: str
    dtype: str
    shape: tuple[int, ...]


Sent = dict[str, NDArray[Any] | SharedPlace]


def send(encoded: Encoded) -> Sent:
    """What goes through the pipe; the other side must `receive` it, once."""
    arrays = pack(encoded)
    size = sum(array.nbytes for array in arrays.values())
    if not _FOLDER.is_dir() or size > _free() // _PART:
        return dict(arrays)
    return {name: _put(array) if array.nbytes >= _LARGE else array for name, array in arrays.items()}


def receive(sent: Sent) -> Encoded:
    """The inverse; the arrays' memory goes back when they are no longer used."""
    return unpack(
        {name: _get(part) if isinstance(part, SharedPlace) else part for name, part in sent.items()}
    )


def _free() -> int:
    found = os.statvfs(_FOLDER)
    return found.f_bavail * found.f_frsize


def _put(array: NDArray[Any]) -> SharedPlace:
    # Known to multiprocessing, which removes it if nobody receives it.
    memory = SharedMemory(create=True, size=array.nbytes)
    place = SharedPlace(memory.name, array.dtype.str, array.shape)
    # By torch, which copies with several threads.
    torch.from_numpy(_map(place)).copy_(torch.from_numpy(array))
    memory.close()
    return place


def _get(place: SharedPlace) -> NDArray[Any]:
    array = _map(place)
    memory = SharedMemory(place.name)
    memory.unlink()
    memory.close()
    return array


def _map(place: SharedPlace) -> NDArray[Any]:
    return np.asarray(np.memmap(_FOLDER / place.name, np.dtype(place.dtype), "r+", shape=place.shape))
