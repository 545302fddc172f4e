"""Texts to token ids: once, unpadded, with the prefix, the cut and the extra [CLS] of `mcls` in one place.

Needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triptych.config import M3Config
from triptych.errors import InputError, ModelError
from triptych.model.tokenizer_files import read_plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The files that hold a vocabulary, in the forms of BERT-like tokenizers; every tokenizer has one of them.
VOCABULARIES = ("tokenizer.json", "sentencepiece.bpe.model", "tokenizer.model", "vocab.txt", "vocab.json")


Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Token ids with a meaning of their own; None where a tokenizer has no such token.

    Attributes:
        cls: [CLS].
        eos: [EOS] or [SEP].
        pad: Padding.
        unk: Unknown token.
        prefixes: Token ids of the prefixes that the model puts before queries and documents, [CLS] included.
    """

    cls: int
    eos: int
    pad: int
    unk: int | None = None
    prefixes: tuple[tuple[int, ...], ...] = ()

    @property
    def never_lexical(self) -> tuple[int, ...]:
        """Ids that have no lexical weight: [CLS], [EOS], padding, unknown."""
        return tuple({self.cls, self.eos, self.pad} | ({self.unk} if self.unk is not None else set()))


class Tokenized(NamedTuple):
    """Token ids of N texts, special tokens included, and how many texts were cut."""

    ids: list[Ids]
    truncated: int


class TextTokenizer:
    """A tokenizer as the model uses it.

    Args:
        backend: Turns texts into ids; its truncation and padding are switched off.
        where: What it came from, for the messages.
        pad: Padding id; None: the last special token after a text.
        unk: Id of the unknown token.
        max_length: Maximum tokens per text according to the tokenizer's own settings, special ones counted.
        make: Makes transformers' tokenizer of the same files, for what asks for `tokenizer`.

    Attributes:
        backend: See above.
        max_length: See above.
        special: Ids of the special tokens.

    Raises:
        ModelError: If the special tokens do not stand around the text.
    """

    def __init__(
        self,
        backend: Tokenizer,
        where: str,
        *,
        pad: int | None,
        unk: int | None,
        max_length: int,
        make: Callable[[], PreTrainedTokenizerBase],
    ) -> None:
        self.backend, self.max_length, self._make = backend, max_length, make
        backend.no_truncation()
        backend.no_padding()
        self.before, self.after = self._find_frame(where)
        cls, eos = int(self.before[0]), int(self.after[-1])
        self.special = SpecialIds(cls=cls, eos=eos, pad=eos if pad is None else pad, unk=unk)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, where: str) -> TextTokenizer:
        """Takes a tokenizer of transformers.

        Raises:
            ModelError: If it has no Rust backend; every XLM-R, BERT and ModernBERT has one.
        """
        given: Any = tokenizer
        if getattr(given, "backend_tokenizer", None) is None:
            raise ModelError(
                f"{where}: {type(tokenizer).__name__} has no Rust backend (tokenizer.json); one is needed"
            )
        # A copy, since truncation and padding are settings inside the object and others may hold it too.
        return cls(
            Tokenizer.from_str(given.backend_tokenizer.to_str()),
            where,
            pad=given.pad_token_id,
            unk=given.unk_token_id,
            max_length=given.model_max_length,
            make=partial(_itself, tokenizer),
        )

    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool = False) -> TextTokenizer:
        """Reads the tokenizer files of a checkpoint folder.

        Args:
            folder: The folder.
            trust_remote_code: Whether Python files of the folder may run.

        Raises:
            ModelError: If there are none that can be read.
        """
        # transformers makes an empty tokenizer of a folder that has only the encoder's configuration.
        if not any((folder / name).is_file() for name in VOCABULARIES):
            raise ModelError(f"{folder}: no tokenizer can be read from this folder: no {VOCABULARIES[0]}")
        make = partial(_load_whole, folder, trust_remote_code)
        plain = read_plain(folder)
        if plain is None:
            return cls.of(make(), str(folder))
        return cls(
            plain.backend, str(folder), pad=plain.pad, unk=plain.unk, max_length=plain.max_length, make=make
        )

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The same as a tokenizer of transformers."""
        return self._make()

    def save(self, folder: Path) -> None:
        """Writes the tokenizer files."""
        self.tokenizer.save_pretrained(str(folder))

    @property
    def digest(self) -> str:
        """Hex digest of the tokenizer's whole definition."""
        return hashlib.blake2b(self.backend.to_str().encode(), digest_size=16).hexdigest()

    def encode(
        self,
        texts: Sequence[str],
        *,
        prefix: str = "",
        max_length: int,
        mcls_every: int | None = None,
        keep_end: bool = False,
    ) -> Tokenized:
        """Tokenises texts.

        Args:
            texts: Any strings; the empty one gives the special tokens alone.
            prefix: Put before every text.
            max_length: Maximum tokens per text, special ones counted; the rest is cut off.
            mcls_every: Put a [CLS] before every so many tokens of the text (the first one is there anyway).
            keep_end: Whether what is too long loses its beginning, prefix included, instead of its end.

        Raises:
            InputError: For a string that is no text (it holds half of a surrogate pair), or no room.
        """
        room = self._room(max_length, mcls_every)
        try:
            encodings = self.backend.encode_batch_fast(
                [prefix + text for text in texts], add_special_tokens=False
            )
        except TypeError as error:
            raise _no_text(texts) from error
        ids = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        kept = [text[-room:] if keep_end else text[:room] for text in ids]
        return Tokenized(
            [self._frame_text(text, mcls_every) for text in kept], sum(len(text) > room for text in ids)
        )

    def spans(self, texts: Sequence[str], prefix: str = "") -> list[tuple[Ids, Ids]]:
        """Token ids of texts and where they stand, uncut and without special tokens.

        Args:
            texts: Any strings.
            prefix: Put before every text; its tokens are left out.

        Returns:
            For each text int64 ``[T]`` and int64 ``[T, 2]``, the first character of each token and the one after it.

        Raises:
            InputError: For a string that is no text (it holds half of a surrogate pair).
        """
        try:
            encodings = self.backend.encode_batch([prefix + text for text in texts], add_special_tokens=False)
        except TypeError as error:
            raise _no_text(texts) from error
        found: list[tuple[Ids, Ids]] = []
        for encoding in encodings:
            places = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) - len(prefix)
            own = places[:, 1] > 0
            found.append((np.array(encoding.ids, dtype=np.int64)[own], np.maximum(places[own], 0)))
        return found

    def prefix_ids(self, prefix: str, mcls_every: int | None = None) -> tuple[int, ...]:
        """The token ids of a prefix, with the [CLS] before it; () for no prefix.

        A text that has this prefix begins with them, but for the last ones: what follows decides whether a blank at
        the end of the prefix is a token or becomes part of the text's first one.
        """
        return self._begin(self._tokens(prefix), mcls_every) if prefix else ()

    def special_ids(self, config: M3Config) -> SpecialIds:
        """The special tokens of a model, and how its prefixes may be tokenised before a text."""
        every = config.mcls_every if config.pooling == "mcls" else None
        prefixes: set[tuple[int, ...]] = set()
        for prefix in filter(None, (config.query_prefix, config.document_prefix)):
            alone = self._tokens(prefix)
            columns = zip(alone, *(self._tokens(prefix + text) for text in ("a", "1", "日")), strict=False)
            before_any = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
            prefixes |= {self._begin(alone, every), self._begin(before_any, every)}
        return replace(self.special, prefixes=tuple(sorted(prefixes)))

    def _tokens(self, text: str) -> list[int]:
        try:
            return self.backend.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise InputError("prefix: holds half of a surrogate pair; expected Unicode text") from error

    def _begin(self, tokens: Sequence[int], mcls_every: int | None) -> tuple[int, ...]:
        framed = self._frame_text(np.array(tokens, dtype=np.int64), mcls_every)
        return tuple(framed[: -len(self.after)].tolist())

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The tokens as a reader knows them, without the mark of a word's beginning."""
        names = [cast(str, self.backend.id_to_token(int(i))) for i in ids]
        return [name.replace("▁", " ").strip() or name for name in names]

    def _room(self, max_length: int, mcls_every: int | None) -> int:
        """Tokens of the text itself that fit into `max_length`."""
        room = max_length - len(self.before) - len(self.after)
        if mcls_every is not None:
            # With the [CLS] that is there anyway, every mcls_every + 1 positions begin with one.
            room -= -(-(room + 1) // (mcls_every + 1)) - 1
        if room < 1:
            raise InputError(
                f"max_length: got {max_length}; expected room for the special tokens and one more"
            )
        return room

    def _frame_text(self, text: Ids, mcls_every: int | None) -> Ids:
        if mcls_every is not None:
            text = np.insert(text, np.arange(mcls_every, len(text), mcls_every), self.special.cls)
        return np.concatenate([self.before, text, self.after])

    def _find_frame(self, where: str) -> tuple[Ids, Ids]:
        """The special tokens before and after a text, as the tokenizer's own template puts them."""
        bare = self.backend.encode("a", add_special_tokens=False).ids
        whole = self.backend.encode("a", add_special_tokens=True).ids
        starts = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
        if not bare or not starts or starts[0] == 0 or starts[0] + len(bare) == len(whole):
            raise ModelError(
                f"{where}: the tokenizer gives {whole} for 'a'; expected [CLS] before it and [EOS] after it"
            )
        first = starts[0]
        return np.array(whole[:first], dtype=np.int64), np.array(whole[first + len(bare) :], dtype=np.int64)


def _itself(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    return tokenizer


def _load_whole(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: no tokenizer can be read from this folder: {error}") from error


def _no_text(texts: Sequence[str]) -> InputError:
    """Finds the first string that has no UTF-8 form: Rust, unlike Python, has no such strings."""
    for i, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return InputError(f"texts[{i}]: {error.reason} at character {error.start}; expected Unicode text")
    return InputError("prefix: holds half of a surrogate pair; expected Unicode text")
