"""Makes XLM-R's tokenizer anew from the pieces, their scores and the table of normalised code points.

What the pieces do not tell is SentencePiece's `nmt_nfkc` normalisation, whose rules also join base letters
with combining marks. SentencePiece has those rules inside; a throw-away model that is trained with them
gives them out. They are of a newer Unicode than XLM-R's: the source's own table of single code points is put
in their place, and SentencePiece compiles the result.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from e5_source import Source
from triptych.errors import DataError
from triptych.io import write_atomically, write_json

_SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}


def write_tokenizer(source: Source, folder: Path) -> None:
    """Writes tokenizer.json (without indentation) and tokenizer_config.json."""
    tokenizer = build(source)
    text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    write_atomically(folder / "tokenizer.json", text.encode())
    config: dict[str, Any] = {
        "tokenizer_class": "XLMRobertaTokenizer",
        "model_max_length": source.sizes["positions"],
        **_SPECIAL,
    }
    write_json(folder / "tokenizer_config.json", config)


def build(source: Source) -> Tokenizer:
    """The tokenizer as XLM-R's is published: words stand apart, each begins with ▁, <s> and </s> around."""
    vocabulary = [(piece, float(score)) for piece, score in zip(source.pieces, source.scores, strict=True)]
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=source.special["unk"], byte_fallback=False))
    tokenizer.normalizer = normalizers.Precompiled(charsmap(source.normal))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", source.special["bos"]), ("</s>", source.special["eos"])],
    )
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    # As published: the space before a mask belongs to it.
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    return tokenizer


def charsmap(table: dict[str, str]) -> bytes:
    """Compiled normalisation rules: those of `table` for single code points, SentencePiece's for sequences.

    Raises:
        DataError: If the compiled rules are not those that were asked for.
    """
    native = rules(_compiled(normalization_rule_name="nmt_nfkc"))
    foreign = {key for key in native if len(key) == 1 and key not in table}
    sequences = {key: to for key, to in native.items() if len(key) > 1 and not foreign & set(key)}
    wanted = table | sequences
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.tsv"
        lines = [f"{_points(key)}\t{_points(to)}\n" for key, to in sorted(wanted.items())]
        path.write_text("".join(lines), encoding="ascii")
        compiled = _compiled(normalization_rule_tsv=str(path))
    if rules(compiled) != wanted:
        raise DataError("sentencepiece compiled other normalisation rules than were asked for")
    return compiled


def _points(text: str) -> str:
    return " ".join(f"{ord(letter):X}" for letter in text)


def _compiled(**rule: str) -> bytes:
    """The compiled rules in a model that is trained on next to nothing."""
    lines = [f"{i} {chr(97 + i % 26) * 3} {chr(97 + i % 7)}{chr(97 + i % 11)}" for i in range(200)]
    model = io.BytesIO()
    trainer: Any = sentencepiece.SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **rule,
    )
    # ModelProto.normalizer_spec is field 3, NormalizerSpec.precompiled_charsmap field 2.
    spec = next(value for number, value in _fields(model.getvalue()) if number == 3)
    return next(value for number, value in _fields(spec) if number == 2)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protocol-buffers message."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(message):
        key = varint()
        if key & 7 == 0:
            varint()
            continue
        length = {1: 8, 5: 4}.get(key & 7) or varint()
        if key & 7 == 2:
            yield key >> 3, message[place : place + length]
        place += length


def rules(compiled: bytes) -> dict[str, str]:
    """The rules (from, to) of a compiled charsmap.

    It is the size of a double-array trie, the trie (32-bit units), and the replacements, each ended by 0.
    A unit's low byte is its label, bit 8 says that a key ends here, the rest is the offset of its children.
    """
    (size,) = struct.unpack_from("<I", compiled)
    units: NDArray[np.uint32] = np.frombuffer(compiled, "<u4", size // 4, 4)
    targets = compiled[4 + size :]
    found: dict[str, str] = {}
    labels = np.arange(1, 256)
    open_nodes = [(b"", _offset(int(units[0])))]
    while open_nodes:
        key, base = open_nodes.pop()
        places = base ^ labels
        inside = places < len(units)
        children = places[inside][(units[places[inside]] & 0x800000FF) == labels[inside]]
        for place in children.tolist():
            unit = int(units[place])
            longer = key + bytes([unit & 0xFF])
            below = place ^ _offset(unit)
            if unit >> 8 & 1:
                start = int(units[below]) & 0x7FFFFFFF
                found[longer.decode()] = targets[start : targets.index(0, start)].decode()
            open_nodes.append((longer, below))
    return found


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


def charsmap_of(tokenizer_json: Path) -> bytes:
    """The compiled rules of a written tokenizer.json."""
    normalizer = json.loads(tokenizer_json.read_text(encoding="utf-8"))["normalizer"]
    return base64.b64decode(normalizer["precompiled_charsmap"])
