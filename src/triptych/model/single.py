"""One short text from token ids to arrays by one CUDA graph, heads included.

For one query a GPU waits for the processor, which launches kernel after kernel: here it launches one graph, copies the
ids in and the values out through pinned memory, and waits once. What depends on the ids alone is found on the processor
while the graph runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from triptych.model.inference import SIZES, Engine, first_place, record, two_texts
from triptych.model.packed import Ids, Packed, lexical_rows, positions
from triptych.types import Encoded, Head, Ragged

if TYPE_CHECKING:
    from triptych.model.m3 import M3Model


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph with all the memory that it reads and writes, and the pinned memory beside it.

    Attributes:
        input: int64 ``[size + 1]``: token ids, and the number of those that are the text's.
        places: int64 ``[size]``, rows of the position table.
        output: By head, float32 or float16.
    """

    graph: Any
    input: Tensor
    places: Tensor
    output: dict[Head, Tensor]
    pinned_input: Tensor
    pinned_output: dict[Head, Tensor]


class OneText:
    """Encodes one text at a time.

    Args:
        model: With an inference engine on a GPU.
        engine: That engine.
    """

    def __init__(self, model: M3Model, engine: Engine) -> None:
        self._model, self._engine = model, engine
        self._recorded: dict[int, _Recorded] = {}
        self._lock = Lock()

    @classmethod
    def of(cls, model: M3Model) -> OneText | None:
        """For a model whose texts it takes; otherwise None."""
        engine = model.engine
        usable = engine is not None and engine.graphs is not None and engine.rows is not None
        takes = usable and model.config.pooling == "cls" and model.config.normalize
        return cls(model, engine) if engine and takes else None

    def takes(self, ids: Ids) -> bool:
        """Whether a text is short enough, and its positions simply count up."""
        padding = self._engine.padding
        return len(ids) <= SIZES[-1] and (padding is None or not (ids == padding).any())

    def __call__(self, ids: Ids, heads: Sequence[Head], prefix: tuple[int, ...]) -> Encoded:
        """The representations of one text; `prefix` as in `Packed`."""
        length = len(ids)
        size = next(size for size in SIZES if size >= length)
        device = self._engine.device
        with self._lock, torch.inference_mode(), torch.cuda.device(device):
            if size not in self._recorded:
                self._recorded[size] = self._record(size)
            recorded = self._recorded[size]
            recorded.pinned_input[:length] = torch.from_numpy(ids)
            recorded.pinned_input[size] = length
            recorded.input.copy_(recorded.pinned_input, non_blocking=True)
            recorded.graph.replay()
            for head in heads:
                recorded.pinned_output[head].copy_(recorded.output[head], non_blocking=True)
            batch = Packed.of([ids], prefix=prefix)
            counted = {
                head: positions(batch, head, self._model.config, self._model.special).numpy()
                for head in heads
                if head != "dense"
            }
            torch.cuda.current_stream(device).synchronize()
            found = {head: recorded.pinned_output[head].numpy() for head in heads}
            dense = found["dense"].copy() if "dense" in heads else None
            lexical = multi = None
            if "lexical" in heads:
                weights = found["lexical"][:length] * counted["lexical"]
                bounds = np.array([0, length], np.int64)
                lexical = lexical_rows(ids, weights, bounds, self._model.widths["lexical"])
            if "multi" in heads:
                vectors = found["multi"][:length][counted["multi"]].astype(np.float32)
                multi = Ragged(vectors, np.array([0, len(vectors)], np.int64))
        return Encoded(dense, lexical, multi)

    def _record(self, size: int) -> _Recorded:
        device = self._engine.device
        given = torch.zeros(size + 1, dtype=torch.int64, device=device)
        given[size] = size // 2
        start = first_place(self._engine.padding)
        places = torch.arange(start, start + size, device=device)
        graph, output = record(lambda: self._values(given, places), device)
        pinned: dict[Head, Tensor] = {
            head: torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for head, part in output.items()
        }
        pinned_input = torch.zeros(size + 1, dtype=torch.int64, pin_memory=True)
        return _Recorded(graph, given, places, output, pinned_input, pinned)

    def _values(self, given: Tensor, places: Tensor) -> dict[Head, Tensor]:
        """All heads at all positions, whether they count or not: nothing here depends on the values of the ids."""
        model, rows = self._model, self._engine.rows
        states = self._engine.graphed(given[:-1], places, two_texts(given[-1:], len(places)))
        values: dict[Head, Tensor] = {"dense": normalize(states[:1].float(), dim=-1)}
        if model.lexical_head is not None:
            values["lexical"] = rows.lexical_weights(
                states, model.lexical_head.weight, model.lexical_head.bias
            )
        if model.multi_head is not None:
            values["multi"] = rows.unit_rows(model.multi_head(states), torch.float16)
        return values
