"""Tokenizer files that are read without transformers give what transformers gives."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from checkpoints import TEXTS, bert_tokenizer, modernbert_tokenizer, xlmr_tokenizer
from triptych.model.hub import resolve
from triptych.model.tokenizer import TextTokenizer
from triptych.model.tokenizer_files import read_plain

HARD = [
    *TEXTS,
    "</s> <mask> a<pad>b",
    "  blanks \t\n and\u3000more  ",
    "ﬁ ½ Ⅳ é e\u0301 İ",
    "𝒳 👩‍👩‍👧 \u200b",
    "日本語とEnglish",
    "A" * 99,
]
HARD += ["what is <mask>?", "[CLS] [MASK] [SEP]", "NAÏVE café", "مرحبا بالعالم", "ภาษาไทย", "▁a ▁ b"]


def xlm_roberta(folder: Path) -> None:
    """A vocabulary of XLM-R's form under its own class, with the small model's normalizer."""
    small = Tokenizer.from_file(str(resolve("small") / "tokenizer.json"))
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ("▁what", -2.0)]
    pieces += [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz?"]
    backend = Tokenizer(models.Unigram([*pieces, ("<mask>", 0.0)], unk_id=3))
    backend.normalizer = small.normalizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"],
        pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    write(folder, backend, "XLMRobertaTokenizerFast", mask_token="<mask>", pad_token="<pad>")


def bert(folder: Path) -> None:
    """The same for BERT."""
    backend = bert_tokenizer().backend_tokenizer
    frame = {"single": "[CLS]:0 $A:0 [SEP]:0", "pair": "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"}
    backend.post_processor = processors.TemplateProcessing(
        **frame, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.add_special_tokens(["[MASK]"])
    write(folder, backend, "BertTokenizer", do_lower_case=True, mask_token="[MASK]")


def write(folder: Path, backend: Tokenizer, kind: str, **settings: Any) -> None:
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": kind, "model_max_length": 64, **settings})
    )


FOLDERS: dict[str, Callable[[Path], Any]] = {
    "xlm-roberta": xlm_roberta,
    "bert": bert,
    "saved-xlm-roberta": lambda folder: xlmr_tokenizer().save_pretrained(folder),
    "saved-bert": lambda folder: bert_tokenizer().save_pretrained(folder),
    "saved-modernbert": lambda folder: modernbert_tokenizer().save_pretrained(folder),
}


def assert_same_as_transformers(folder: Path) -> None:
    plain, whole = TextTokenizer.load(folder), AutoTokenizer.from_pretrained(str(folder))
    theirs = TextTokenizer.of(whole, "transformers'")
    assert (plain.special, plain.max_length) == (theirs.special, theirs.max_length)
    assert plain.digest == theirs.digest
    draw = random.Random(7)
    texts = [*HARD, *("".join(chr(draw.randrange(32, 0xD000)) for _ in range(30)) for _ in range(50))]
    for length in (5, 12, 64):
        mine, expected = (
            plain.encode(texts, max_length=length),
            whole(texts, truncation=True, max_length=length),
        )
        assert [ids.tolist() for ids in mine.ids] == expected["input_ids"]
    assert plain.pieces([0, 2, 5]) == theirs.pieces([0, 2, 5])


@pytest.mark.parametrize("kind", FOLDERS)
def test_ids_special_tokens_and_cuts_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    FOLDERS[kind](tmp_path)
    assert read_plain(tmp_path) is not None, "it is read without transformers"
    assert_same_as_transformers(tmp_path)


def test_the_small_models_tokenizer_is_that_of_transformers() -> None:
    assert read_plain(resolve("small")) is not None
    assert_same_as_transformers(resolve("small"))


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert"])
@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", normalizers.Lowercase()),
        ("pre_tokenizer", pre_tokenizers.WhitespaceSplit()),
        ("decoder", decoders.Fuse()),
        ("post_processor", processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])),
    ],
)
def test_parts_that_transformers_would_replace_are_left_to_it(
    kind: str, part: str, value: Any, tmp_path: Path
) -> None:
    FOLDERS[kind](tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    setattr(backend, part, value)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert read_plain(tmp_path) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "NllbTokenizer"},
        {"do_lower_case": False},
        {"strip_accents": True},
        {"mask_token": "<other>"},
        {"additional_special_tokens": ["<more>"]},
        {"added_tokens_decoder": {"4": {"content": "[MASK]", "lstrip": True}}},
        {"auto_map": {"AutoTokenizer": ["own.Own", None]}},
        {"split_special_tokens": True},
    ],
)
def test_settings_that_change_the_tokenizer_are_left_to_transformers(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    bert(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    assert read_plain(tmp_path) is None


def test_a_map_of_special_tokens_is_read_and_one_that_contradicts_the_settings_is_left_to_transformers(
    tmp_path: Path,
) -> None:
    bert(tmp_path)
    path = tmp_path / "special_tokens_map.json"
    path.write_text(json.dumps({"mask_token": {"content": "[MASK]", "lstrip": False}, "unk_token": "[UNK]"}))
    assert read_plain(tmp_path) is not None
    assert_same_as_transformers(tmp_path)
    path.write_text(json.dumps({"mask_token": "[UNK]"}))
    assert read_plain(tmp_path) is None
