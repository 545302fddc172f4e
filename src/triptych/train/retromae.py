"""RetroMAE (arXiv 2205.12035): pre-training that makes one vector hold a whole text.

The encoder reads a text with some tokens masked and predicts them. A decoder of one layer has to predict every
token from the text's vector and a few other tokens, which it can only if the vector says most of what is in the
text. Afterwards the decoder is thrown away.

What is hidden is sampled in NumPy on whole arrays; the ``[L, L]`` visibility of a text never exists there, only its K
patterns and the pattern that each position uses (section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from triptych.errors import InputError
from triptych.model.backbone import hidden_size
from triptych.model.forward import embed, last_states, position_ids, supported
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed, positions, to_device
from triptych.train.losses import vocabulary_cross_entropy

Bools = NDArray[np.bool_]
# Fractions of the tokens to predict that are replaced by [MASK], and by a random token.
_MASKED, _REPLACED = 0.8, 0.1
_PARTS = ("weight", "bias", "norm", "shift", "output")


@dataclass(frozen=True, slots=True)
class Masking:
    """How much is hidden.

    Attributes:
        encoder: Share of the tokens that the encoder has to predict; 0.15 to 0.3 in the paper.
        decoder: Share of the tokens that a position of the decoder does not see; 0.5 to 0.7 in the paper.
        patterns: K, different views that are drawn for a text.
        whole_words: Whether the pieces of a word are hidden together.
    """

    encoder: float = 0.3
    decoder: float = 0.5
    patterns: int = 256
    whole_words: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.encoder < 1 and 0 < self.decoder < 1 and self.patterns >= 1):
            raise InputError(
                f"masking: got encoder {self.encoder}, decoder {self.decoder}, patterns {self.patterns}; "
                "expected shares between 0 and 1, and 1 pattern or more"
            )


@dataclass(frozen=True, slots=True)
class Alphabet:
    """What masking knows of the vocabulary.

    Attributes:
        mask: Id of [MASK].
        special: bool ``[V]``: ids that are never hidden nor put in the place of others.
        starts: bool ``[V]``: pieces that begin a word; None: unknown.
    """

    mask: int
    special: Bools
    starts: Bools | None = None


@dataclass(frozen=True, slots=True)
class MaskedBatch:
    """N texts with T tokens, as the two halves of RetroMAE see them.

    Attributes:
        texts: The original texts.
        masked: int64 ``[T]``, what the encoder reads.
        encoder_positions: int64 ``[M]``, positions whose token the encoder predicts.
        decoder_positions: int64 ``[P]``, positions whose token the decoder predicts: all but the special ones.
        visible: bool ``[K, T]``, pattern k of the text that a column belongs to.
        pattern: int64 ``[T]``, the pattern that each position uses.
    """

    texts: Packed
    masked: Tensor
    encoder_positions: Tensor
    decoder_positions: Tensor
    visible: Tensor
    pattern: Tensor

    def to(self, device: torch.device) -> MaskedBatch:
        """The same on another device."""
        rest = (self.masked, self.encoder_positions, self.decoder_positions, self.visible, self.pattern)
        return MaskedBatch(self.texts.to(device), *(to_device(each, device) for each in rest))


def hide(
    texts: Sequence[NDArray[np.integer]],
    alphabet: Alphabet,
    masking: Masking,
    rng: np.random.Generator,
) -> MaskedBatch:
    """Draws what is hidden of each text.

    Args:
        texts: Token ids, special ones included.
        alphabet: Of the tokenizer.
        masking: How much.
        rng: Its state alone decides the draw.
    """
    ids = np.concatenate(texts).astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    ordinary = ~alphabet.special[ids]
    predicted = np.zeros(len(ids), dtype=np.bool_)
    visible = np.ones((masking.patterns, len(ids)), dtype=np.bool_)
    for first, last in pairwise(bounds):
        here = np.flatnonzero(ordinary[first:last]) + first
        words = _words(ids[here], alphabet) if masking.whole_words else None
        predicted[here] = draw(len(here), 1, masking.encoder, rng, words)[0]
        visible[:, here] = ~draw(len(here), masking.patterns, masking.decoder, rng, words)
    return MaskedBatch(
        texts=Packed.of(texts),
        masked=torch.from_numpy(_corrupt(ids, predicted, alphabet, rng)),
        encoder_positions=torch.from_numpy(np.flatnonzero(predicted)),
        decoder_positions=torch.from_numpy(np.flatnonzero(ordinary)),
        visible=torch.from_numpy(visible),
        pattern=torch.from_numpy(rng.integers(0, masking.patterns, len(ids))),
    )


def draw(
    count: int, times: int, share: float, rng: np.random.Generator, words: NDArray[np.int64] | None = None
) -> Bools:
    """Chooses a share of `count` places, `times` times.

    Args:
        count: Places.
        times: Rows of the result.
        share: Of the places; rounded to a whole number of them, 1 at least.
        rng: Generator.
        words: Number of the word to which each place belongs, ascending from 0: then as many whole words as do not
            go beyond the share, and one at least. None: single places.

    Returns:
        bool ``[times, count]``.
    """
    if not count:
        return np.zeros((times, 0), dtype=np.bool_)
    wanted = max(1, round(share * count))
    if words is None:
        draws = rng.random((times, count), dtype=np.float32)
        limit = np.partition(draws, wanted - 1, axis=1)[:, wanted - 1 : wanted]
        return draws <= limit
    sizes = np.bincount(words)
    order = np.argsort(rng.random((times, len(sizes)), dtype=np.float32), axis=1)
    taken = np.cumsum(sizes[order], axis=1) <= wanted
    taken[:, 0] = True
    chosen = np.zeros_like(taken)
    np.put_along_axis(chosen, order, taken, axis=1)
    return chosen[:, words]


def _words(ids: NDArray[np.int64], alphabet: Alphabet) -> NDArray[np.int64]:
    if alphabet.starts is None:
        raise InputError("masking.whole_words: this tokenizer does not tell where words begin")
    starts = alphabet.starts[ids]
    starts[:1] = True
    return np.cumsum(starts) - 1


def _corrupt(
    ids: NDArray[np.int64], predicted: Bools, alphabet: Alphabet, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Of the tokens to predict most become [MASK], some another token, and the rest stays (as in BERT)."""
    places = np.flatnonzero(predicted)
    luck = rng.random(len(places))
    ordinary = np.flatnonzero(~alphabet.special)
    others = ordinary[rng.integers(0, len(ordinary), len(places))]
    result = ids.copy()
    result[places] = np.where(
        luck < _MASKED, alphabet.mask, np.where(luck < _MASKED + _REPLACED, others, ids[places])
    )
    return result


# Elements of the largest [texts, L, L] visibility: one text of 8192 tokens.
_AREA = 64 * 1024 * 1024


class RetroMAE(nn.Module):
    """An encoder with what its pre-training needs.

    Args:
        encoder: The model.
        head: The backbone's own head for masked tokens, from `load_mlm_head`; None: a random one.

    Attributes:
        encoder: The model that is kept; its heads are not trained here.
        transform: From a state to the space of the word vectors.
        bias: float32 ``[V]`` of the predictions, whose matrix is the table of the word vectors.
        decoder: The one layer.
        own_positions: Positions for the decoder where the backbone has no learned ones, otherwise None.
    """

    def __init__(self, encoder: M3Model, head: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        config = cast(Any, encoder.backbone).config
        width = hidden_size(encoder.backbone)
        self.encoder = encoder
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(self._table.num_embeddings))
        self.decoder = EnhancedDecoder(width, int(config.num_attention_heads), int(config.intermediate_size))
        learned = supported(encoder.backbone) is None
        self.own_positions = None if learned else nn.Embedding(int(config.max_position_embeddings), width)
        deviation = float(getattr(config, "initializer_range", 0.02))
        for part in (self.transform, self.decoder, self.own_positions):
            for module in part.modules() if part is not None else ():
                if isinstance(module, nn.Linear | nn.Embedding):
                    nn.init.normal_(module.weight, std=deviation)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)
        if head is not None:
            self._start_from(head)

    @torch.no_grad()
    def _start_from(self, head: Mapping[str, Tensor]) -> None:
        dense, _, norm = cast("tuple[nn.Linear, nn.Module, nn.LayerNorm]", tuple(self.transform))
        norm.eps = float(getattr(cast(Any, self.encoder.backbone).config, "layer_norm_eps", norm.eps))
        targets = {"weight": dense.weight, "bias": dense.bias, "norm": norm.weight, "shift": norm.bias}
        for name, target in (targets | {"output": self.bias}).items():
            if name in head:
                target.copy_(head[name])

    @property
    def _table(self) -> nn.Embedding:
        return cast(nn.Embedding, cast(Any, self.encoder.backbone).get_input_embeddings())

    def forward(self, batch: MaskedBatch, shares: Sequence[float] | None = None) -> dict[str, Tensor]:
        """The losses of a batch.

        **Math** ``L = L_enc + L_dec``: the mean cross-entropy of the masked tokens in the encoder, and that of all
        tokens in the decoder (equations 3 and 8).

        Args:
            batch: From `masking.hide`.
            shares: What one predicted token of the encoder and one of the decoder count, if the batch is a part of
                a larger one; None: 1 / their number.

        Returns:
            ``loss`` with its graph; ``encoder`` and ``decoder`` for the log.
        """
        places = (batch.encoder_positions, batch.decoder_positions)
        each = [1 / max(1, len(place)) for place in places] if shares is None else shares
        texts = batch.texts
        masked = Packed(batch.masked, texts.offsets, texts.lengths)
        states = last_states(self.encoder.backbone, masked, self.encoder.special.pad, self.encoder.run_layer)
        decoded = self.decoder(*self._inputs(texts, self._sentence(states, masked)), batch)
        encoder, decoder = (
            self._predict(found[place], texts.ids[place]) * share
            for found, place, share in zip((states, decoded), places, each, strict=True)
        )
        return {"loss": encoder + decoder, "encoder": encoder.detach(), "decoder": decoder.detach()}

    def _predict(self, states: Tensor, labels: Tensor) -> Tensor:
        return vocabulary_cross_entropy(self.transform(states), self._table.weight, self.bias, labels)

    def _sentence(self, states: Tensor, batch: Packed) -> Tensor:
        """The dense vector before its normalisation, by the model's own pooling, ``[N, H]``."""
        if self.encoder.config.pooling == "cls":
            return states[batch.offsets[:-1]]
        chosen = positions(batch, "dense", self.encoder.config, self.encoder.special).nonzero().squeeze(1)
        rows = batch.rows[chosen]
        total = states.new_zeros(len(batch), states.shape[1]).index_add(0, rows, states[chosen])
        return total / rows.bincount(minlength=len(batch))[:, None]

    def _inputs(self, texts: Packed, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's two streams (section 3.3): query stream and context stream, each ``[T, H]``."""
        embeddings = cast(Any, self.encoder.backbone).embeddings
        if self.own_positions is None:
            table = embeddings.position_embeddings
            places = position_ids(texts, table.padding_idx)
            place = table(places)
            words = embed(embeddings, texts.ids, places)
        else:
            within = torch.arange(len(texts.ids), device=texts.ids.device) - texts.offsets[:-1][texts.rows]
            place = self.own_positions(within)
            words = embeddings(texts.ids[None])[0] + place
        query_stream = place + sentence[texts.rows]
        context_stream = words.index_copy(0, texts.offsets[:-1], sentence.to(words.dtype))
        return query_stream, context_stream


# Names of the head for masked tokens in checkpoints: XLM-R and RoBERTa, BERT, ModernBERT.
_MLM_HEADS = (
    (
        "lm_head.dense.weight",
        "lm_head.dense.bias",
        "lm_head.layer_norm.weight",
        "lm_head.layer_norm.bias",
        "lm_head.bias",
    ),
    (
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.LayerNorm.bias",
        "cls.predictions.bias",
    ),
    ("head.dense.weight", "head.dense.bias", "head.norm.weight", "head.norm.bias", "decoder.bias"),
)


def load_mlm_head(folder: Path, width: int, vocabulary: int) -> dict[str, Tensor] | None:
    """The head for masked tokens that a backbone's checkpoint brings along: transform, normalization, output bias.

    Args:
        folder: Of the checkpoint, with ``*.safetensors`` or ``pytorch_model.bin``.
        width: H; a head of another width is not taken.
        vocabulary: V.

    Returns:
        ``weight``, ``bias``, ``norm``, ``shift`` and ``output``, as far as they are there; None: there is no head.
    """
    for names in _MLM_HEADS:
        found = _read_tensors(folder, names)
        head = {
            short: found[name].float() for short, name in zip(_PARTS, names, strict=True) if name in found
        }
        if "weight" not in head or "norm" not in head:
            continue
        shapes = {"weight": (width, width), "output": (vocabulary,)}
        if all(tuple(head[name].shape) == shapes.get(name, (width,)) for name in head):
            return head
    return None


def _read_tensors(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            present = set(tensors.keys())
            found |= {name: tensors.get_tensor(name) for name in names if name in present}
    pickled = folder / "pytorch_model.bin"
    if not found and pickled.is_file() and not any(folder.glob("*.safetensors")):
        values = torch.load(pickled, map_location="cpu", weights_only=True, mmap=True)
        found = {name: values[name] for name in names if name in values}
    return found


class EnhancedDecoder(nn.Module):
    """One transformer layer in which every position has its own view of the text."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def forward(self, query_stream: Tensor, context_stream: Tensor, batch: MaskedBatch) -> Tensor:
        """States ``[T, H]`` from which the tokens are predicted.

        **Math** ``A = softmax(Q Kᵀ/√d + M) V``, M_ij = 0 where position i sees position j: j = 0 always, i itself
        never, and the others by the pattern of i (equations 5 to 7).

        Args:
            query_stream: ``[T, H]``: the sentence vector plus the position, for each position.
            context_stream: ``[T, H]``: the sentence vector at each text's first position, word vectors at the others.
            batch: The patterns.
        """
        query, key, value = self.query(query_stream), self.key(context_stream), self.value(context_stream)
        context = torch.zeros_like(query)
        for texts in _chunks(batch.texts.lengths):
            where, real = _grid(batch.texts, texts)
            padded = [
                part.index_select(0, where.flatten()).view(*where.shape, -1) for part in (query, key, value)
            ]
            mixed = cast(Tensor, checkpoint(self._attend, *padded, batch, where, use_reentrant=False))
            places = where.flatten().index_select(0, real)
            context = context.index_copy(0, places, mixed.flatten(0, 1).index_select(0, real))
        states = self.norm(self.output(context) + query_stream)
        return self.last_norm(self.wide(states) + states)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, batch: MaskedBatch, where: Tensor) -> Tensor:
        """Attention of B padded texts ``[B, L, H]``; what comes out of padding is thrown away."""
        split = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        mixed = scaled_dot_product_attention(*split, attn_mask=visibility(batch, where)[:, None])
        return mixed.transpose(1, 2).flatten(2)


def visibility(batch: MaskedBatch, where: Tensor) -> Tensor:
    """Which positions each position sees: bool ``[B, L, L]``.

    Args:
        batch: The patterns.
        where: int64 ``[B, L]``: the flat place of each position of B padded texts; padding repeats the last one.
    """
    height = where.shape[1]
    patterns = batch.visible[:, where].transpose(0, 1)
    rows = batch.pattern[where][:, :, None].expand(-1, -1, height)
    seen = patterns.gather(1, rows)
    seen &= where[:, None, :] != where[:, :, None]  # itself never, nor the padding that repeats it
    padding = torch.zeros_like(where, dtype=torch.bool)
    padding[:, 1:] = where[:, 1:] == where[:, :-1]
    seen &= ~padding[:, None, :]
    seen[:, :, 0] = True
    return seen


def _chunks(lengths: tuple[int, ...]) -> list[list[int]]:
    """Texts of like length together, so many that their visibility stays small."""
    chunks: list[list[int]] = []
    for text in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if chunks and lengths[chunks[-1][0]] ** 2 * (len(chunks[-1]) + 1) <= _AREA:
            chunks[-1].append(text)
        else:
            chunks.append([text])
    return chunks


def _grid(batch: Packed, texts: list[int]) -> tuple[Tensor, Tensor]:
    """Flat places ``[B, L]`` of some texts, padded by their last place; and which of them, flat, are not padding."""
    offsets = (batch.host or batch).offsets
    chosen = torch.tensor(texts, device=offsets.device)
    first, last = offsets[:-1][chosen, None], offsets[1:][chosen, None] - 1
    where = first + torch.arange(batch.lengths[texts[0]], device=offsets.device)
    real = (where <= last).flatten().nonzero().squeeze(1)
    return to_device(where.clamp(max=last), batch.ids.device), to_device(real, batch.ids.device)
