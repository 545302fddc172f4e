"""Tokenizer files whose meaning is plain are read by the `tokenizers` library alone.

transformers builds the tokenizers of XLM-R and BERT anew from the vocabulary and the settings, in seconds. `read_plain`
takes ``tokenizer.json`` as it is wherever that is the same tokenizer, and leaves every other folder to transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors

Values = Mapping[str, Any]

_NAMES = {
    "XLMRobertaTokenizer": {
        "bos": "<s>",
        "eos": "</s>",
        "sep": "</s>",
        "cls": "<s>",
        "unk": "<unk>",
        "pad": "<pad>",
    },
    "BertTokenizer": {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]"},
    "PreTrainedTokenizer": {},
}
"""The classes that are read here, without a "Fast" at the end, and their special tokens where none are named."""
# What transformers takes for a tokenizer without a limit.
_NO_LIMIT = int(1e30)


class PlainTokenizer(NamedTuple):
    """A tokenizer that was read without transformers; see `TextTokenizer`."""

    backend: Tokenizer
    pad: int | None
    unk: int | None
    max_length: int


def read_plain(folder: Path) -> PlainTokenizer | None:
    """Reads ``tokenizer.json``; None where transformers might make another tokenizer of the folder."""
    settings = _object(folder / "tokenizer_config.json")
    kind = (
        str((settings or {}).get("tokenizer_class"))
        .removesuffix("Fast")
        .replace("TokenizersBackend", "PreTrainedTokenizer")
    )
    if settings is None or kind not in _NAMES or {"auto_map", "split_special_tokens"} & settings.keys():
        return None
    try:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # the library raises Exception itself; transformers says what is wrong
        return None
    named = _named_tokens(folder, settings)
    if named is None or not _has_added(backend, settings, named):
        return None
    names: dict[str, str] = {**_NAMES[kind], **named}
    if (kind == "XLMRobertaTokenizer" and not _as_xlm_roberta(backend, settings, names)) or (
        kind == "BertTokenizer" and not _as_bert(backend, settings, names)
    ):
        return None
    pad, unk = (backend.token_to_id(names[name]) if name in names else None for name in ("pad", "unk"))
    return PlainTokenizer(backend, pad, unk, int(settings.get("model_max_length") or _NO_LIMIT))


def _object(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", values) if isinstance(values, dict) else None


def _named_tokens(folder: Path, settings: Values) -> dict[str, str] | None:
    """The special tokens by their names without "_token"; None where files contradict each other."""
    given = {key: value for key, value in settings.items() if key.endswith("_token") and value}
    if (folder / "special_tokens_map.json").is_file():
        others = _object(folder / "special_tokens_map.json")
        if others is None or any(
            _content(value) != _content(given.setdefault(key, value)) for key, value in others.items()
        ):
            return None
    if (folder / "added_tokens.json").is_file() or any(_content(value) is None for value in given.values()):
        return None
    return {key.removesuffix("_token"): cast(str, _content(value)) for key, value in given.items()}


def _content(token: Any) -> str | None:
    token = cast("Values", token).get("content") if isinstance(token, Mapping) else token
    return token if isinstance(token, str) else None


def _has_added(backend: Tokenizer, settings: Values, named: Mapping[str, str]) -> bool:
    """Whether the file itself has all tokens that the settings add, with the same properties."""
    added = backend.get_added_tokens_decoder()
    contents = {token.content for token in added.values()}
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    if not isinstance(extra, list) or not {*named.values(), *map(str, cast("list[Any]", extra))} <= contents:
        return False
    given = settings.get("added_tokens_decoder")
    return given is None or {int(k): repr(AddedToken(**v)) for k, v in given.items()} == {
        k: repr(v) for k, v in added.items()
    }


def _as_xlm_roberta(backend: Tokenizer, settings: Values, names: Mapping[str, str]) -> bool:
    """Whether the parts are those that transformers gives an XLM-R tokenizer."""
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    first, last = names["bos"], names["eos"]
    frame = processors.TemplateProcessing(
        single=[first, "$A", last],
        pair=[first, "$A", last, last, "$B", last],
        special_tokens=[(name, backend.token_to_id(name)) for name in (first, last)],
    )
    return (
        settings.get("add_prefix_space", True) is True
        and type(backend.model).__name__ == "Unigram"
        and backend.token_to_id(names["unk"]) == 3
        and isinstance(backend.normalizer, normalizers.Precompiled)
        and _same(backend, split, decoders.Metaspace(), frame)
    )


def _as_bert(backend: Tokenizer, settings: Values, names: Mapping[str, str]) -> bool:
    """Whether the parts are those that transformers gives a BERT tokenizer."""
    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    first, last = names["cls"], names["sep"]
    frame = processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(name, backend.token_to_id(name)) for name in (first, last)],
    )
    return (
        type(backend.model).__name__ == "WordPiece"
        and _state(backend.normalizer) == _state(normalizer)
        and _same(backend, pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(prefix="##"), frame)
    )


def _same(backend: Tokenizer, split: Any, decoder: Any, frame: Any) -> bool:
    mine = (backend.pre_tokenizer, backend.decoder, backend.post_processor)
    return [_state(part) for part in mine] == [_state(part) for part in (split, decoder, frame)]


def _state(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())
