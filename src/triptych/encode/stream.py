"""Encoding more texts than fit in memory, block by block, and going on after an interruption."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from triptych.encode.batching import Progress
from triptych.encode.workers import WorkerPool
from triptych.errors import InputError
from triptych.files import write_atomically
from triptych.ops.packing import pack, unpack
from triptych.types import Encoded


class Store:
    """A folder of encoded blocks, one safetensors file each.

    Args:
        folder: Made if needed.
        facts: What determines the vectors (model, options). A block of other facts is an error, not reused.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.facts = json.dumps(facts, sort_keys=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, number: int, texts: Sequence[str]) -> Encoded | None:
        """The block if it is there; None if it is not.

        Raises:
            InputError: If it holds other texts, or was made by another model or with other options.
        """
        path = self._path(number)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata != self._metadata(texts):
                    same = metadata.get("facts") == self.facts
                    differs = "other texts" if same else "another model or other options"
                    raise InputError(
                        f"{path}: was made with {differs}; give another folder, or remove this one"
                    )
                return unpack({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(
                f"{path}: cannot be read ({error}); remove it, and it will be made again"
            ) from error

    def put(self, number: int, texts: Sequence[str], encoded: Encoded) -> None:
        """Writes a block; when this returns it is on the disk.

        Raises:
            StorageError: If writing fails.
        """
        write_atomically(self._path(number), save(pack(encoded), self._metadata(texts)))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.safetensors"

    def _metadata(self, texts: Sequence[str]) -> dict[str, str]:
        digest = hashlib.blake2b(digest_size=16)
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return {"facts": self.facts, "texts": digest.hexdigest()}


def blocks_of(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cuts an iterable into lists of `size` strings; the last may be shorter."""
    if isinstance(texts, str) or size < 1:
        raise InputError(
            f"encode_stream: got block={size}, {type(texts).__name__}; expected ≥ 1, an iterable of strings"
        )
    source = iter(texts)
    return iter(lambda: list(islice(source, size)), [])


def encode_blocks(
    blocks: Iterable[list[str]], encode: Callable[[list[str]], Encoded], store: Store | None
) -> Iterator[Encoded]:
    """Encodes block after block here; what the store already holds is read."""
    for number, texts in enumerate(blocks):
        found = store.get(number, texts) if store else None
        yield found or _kept(number, texts, encode(texts), store)


def encode_blocks_prepared(
    blocks: Iterable[list[str]],
    prepare: Callable[[list[str]], Callable[[], Encoded]],
    store: Store | None,
) -> Iterator[Encoded]:
    """The same where the model does not keep the processor busy: a thread prepares the next block meanwhile.

    Args:
        blocks: Lists of texts; one more than was given out is read.
        prepare: Does of encoding a block what the processor does; what it gives does the rest.
        store: See `Store`.
    """
    numbered = enumerate(blocks)
    with ThreadPoolExecutor(1) as thread:

        def ahead() -> tuple[int, list[str], Encoded | Future[Callable[[], Encoded]]] | None:
            number, texts = next(numbered, (0, None))
            if texts is None:
                return None
            return (
                number,
                texts,
                (store.get(number, texts) if store else None) or thread.submit(prepare, texts),
            )

        current = ahead()
        while current is not None:
            number, texts, work = current
            current = ahead()
            yield work if isinstance(work, Encoded) else _kept(number, texts, work.result()(), store)


def encode_blocks_ahead(
    blocks: Iterable[list[str]], pool: WorkerPool, options: Mapping[str, Any], store: Store | None
) -> Iterator[Encoded]:
    """The same with workers: some blocks are on their way while earlier ones are given out, in order."""
    waiting: deque[tuple[int, list[str], Encoded | Future[Encoded]]] = deque()
    numbered = enumerate(blocks)
    while True:
        for number, texts in islice(numbered, 2 * pool.size - len(waiting)):
            waiting.append(
                (number, texts, (store.get(number, texts) if store else None) or pool.submit(texts, options))
            )
        if not waiting:
            return
        number, texts, work = waiting.popleft()
        yield work if isinstance(work, Encoded) else _kept(number, texts, pool.result(work), store)


def counted(parts: Iterable[Encoded], progress: Progress | None) -> Iterator[Encoded]:
    """Gives parts out as they come, and tells `progress` how many texts that makes."""
    done = 0
    for part in parts:
        done += len(part)
        if progress is not None:
            progress(done, None)
        yield part


def _kept(number: int, texts: list[str], encoded: Encoded, store: Store | None) -> Encoded:
    if store:
        store.put(number, texts, encoded)
    return encoded
