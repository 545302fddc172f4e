"""Training on raw texts: RetroMAE."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from triptych.data.joined import Datasets
from triptych.data.texts import open_texts
from triptych.errors import ModelError
from triptych.model.m3 import M3Model
from triptych.model.tokenizer import TextTokenizer
from triptych.train import distributed
from triptych.train.masking import Alphabet, MaskedBatch, hide
from triptych.train.settings import Recipe
from triptych.train.tasks import Progress, Runner, cache, digest, opened, sampler, within


class Texts:
    """Raw texts: RetroMAE. Arguments as of `Pairs`."""

    def __init__(
        self, recipe: Recipe, model: M3Model, tokenizer: TextTokenizer, progress: Progress | None = None
    ) -> None:
        self.recipe = recipe
        self.alphabet = alphabet(tokenizer)
        length = recipe.data.passage_length or model.config.max_length
        within(length, model, "data.passage_length")
        parts = opened(
            recipe,
            lambda source: open_texts(
                source.path,
                tokenizer,
                length,
                lines=recipe.data.lines,
                cache=cache(recipe),
                progress=progress,
            ),
        )
        self.datasets: Datasets[Any] = Datasets(parts)
        self.sampler = sampler(recipe, self.datasets, length)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.left_over = dict(self.sampler.left_over)
        self.digest = digest(recipe, self.datasets.lengths, [part.name for part in parts])

    def batch(self, step: int) -> list[MaskedBatch]:
        """See `Task`; what is too large for one forward pass comes in parts."""
        rows = self.sampler.step(step).shard(distributed.rank(), distributed.size())
        texts = sorted((self.datasets[int(row)] for row in rows), key=len, reverse=True)
        rng = np.random.default_rng([self.recipe.seed, step, distributed.rank()])
        groups: list[list[Any]] = [[]]
        budget = self.recipe.compute.sub_batch_tokens
        for text in texts:
            if groups[-1] and budget is not None and sum(map(len, groups[-1])) + len(text) > budget:
                groups.append([])
            groups[-1].append(text)
        return [hide(group, self.alphabet, self.recipe.masking, rng) for group in groups]

    def tokens(self, batch: list[MaskedBatch]) -> int:
        """See `Task`."""
        return sum(sum(part.texts.lengths) for part in batch)

    def backward(self, batch: list[MaskedBatch], step: int, runner: Runner) -> dict[str, Tensor]:
        """See `Task`: the losses are means over all predicted tokens of all parts and processes."""
        del step
        counts = torch.tensor(
            [
                sum(len(getattr(part, name)) for part in batch)
                for name in ("encoder_places", "decoder_places")
            ],
            device=runner.device if distributed.size() > 1 else None,
        )
        shares = [distributed.size() / max(1, count) for count in distributed.total(counts)]
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(batch):
            with runner.replica.synchronised(number == len(batch) - 1):
                with runner.autocast():
                    found = runner.replica.call(part.to(runner.device), shares)
                found["loss"].backward()
            for name, value in found.items():
                sums[name] = sums.get(name, torch.zeros_like(value.detach())) + value.detach()
        return sums


def alphabet(tokenizer: TextTokenizer) -> Alphabet:
    """What masking needs of a tokenizer.

    Raises:
        ModelError: If it has no [MASK].
    """
    inner: Any = tokenizer.tokenizer
    if inner.mask_token_id is None:
        raise ModelError("pretrain: the tokenizer has no mask token; expected one, such as <mask> or [MASK]")
    size = len(inner)
    special = np.zeros(size, dtype=np.bool_)
    special[list(inner.all_special_ids)] = True
    pieces = cast("list[str]", inner.convert_ids_to_tokens(list(range(size))))
    starts: Any = None
    if any(piece.startswith("▁") for piece in pieces):
        starts = np.array([piece.startswith("▁") for piece in pieces])
    elif any(piece.startswith("##") for piece in pieces):
        starts = np.array([not piece.startswith("##") for piece in pieces])
    elif any(piece.startswith("Ġ") for piece in pieces):
        starts = np.array([piece.startswith("Ġ") for piece in pieces])
    return Alphabet(int(inner.mask_token_id), special, starts)
