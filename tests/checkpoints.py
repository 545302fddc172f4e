"""Tiny checkpoints with random weights, made on the spot: one for each kind of backbone.

The layout is the published one: a Hugging Face encoder folder with `sparse_linear.pt` and `colbert_linear.pt`.
Weights are larger than a fresh model's, so that attention and positions matter in the results.
"""

import json
import string
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

WIDTH = 32
POSITIONS = 64
"""Tokens of the longest text that the XLM-R and BERT kinds read."""

WORDS = [
    "what",
    "is",
    "bge",
    "m3",
    "a",
    "model",
    "of",
    "text",
    "the",
    "bm",
    "25",
    "defination",
    "hello",
    "world",
]
WORDS += ["query", "passage", "retrieval"]
TEXTS = [
    "what is bge m3?",
    "bge m3 is a model of text.",
    "",
    "the the the world of the world",
    "hello 日本 world",
    "defination of bm25",
    "a retrieval model of a text is the text of a model " * 2,
    "x",
]
"""Repeats, an unknown script, the empty string, very different lengths."""


def make(kind: str, folder: Path, *, seed: int = 0, multi_dim: int = WIDTH) -> Path:
    """Writes a checkpoint of `kind` ("xlm-roberta", "bert" or "modernbert"); gives `folder`."""
    tokenizer = TOKENIZERS[kind]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ENCODERS[kind](tokenizer)
        for name, parameter in encoder.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        heads = {
            "sparse_linear.pt": torch.nn.Linear(WIDTH, 1),
            "colbert_linear.pt": torch.nn.Linear(WIDTH, multi_dim),
        }
        heads["sparse_linear.pt"].bias.data += 0.5
    tokenizer.save_pretrained(folder)
    encoder.eval().save_pretrained(folder)
    for name, head in heads.items():
        torch.save(head.state_dict(), folder / name)
    return folder


def without_heads(published: Path, folder: Path) -> Path:
    """A copy of a published folder without the heads' files: a plain Hugging Face encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in published.iterdir():
        if path.suffix != ".pt":
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def xlmr_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram pieces as XLM-R has them; "a" is a piece with and without the mark of a word's beginning."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [("▁" + word, -2.0 - i * 0.1) for i, word in enumerate(WORDS)]
    pieces += [(character, -6.0) for character in string.ascii_lowercase + string.digits + "?.:"]
    backend = Tokenizer(models.Unigram(pieces, unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = _template("<s>", "</s>", backend)
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    return _wrapped(backend, **names, pad_token="<pad>", unk_token="<unk>")


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece as BERT has it: lower-casing, "##" inside words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    characters = list(string.ascii_lowercase + string.digits + "?.:")
    vocabulary = special + WORDS + [c for c in characters if c not in WORDS] + ["##" + c for c in characters]
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = _template("[CLS]", "[SEP]", backend)
    return _wrapped(backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]")


def modernbert_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as ModernBERT has it."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = _template("[CLS]", "[SEP]", backend)
    return _wrapped(backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]")


def _template(first: str, last: str, backend: Tokenizer) -> processors.TemplateProcessing:
    ids = [(name, backend.token_to_id(name)) for name in (first, last)]
    return processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B {last}", special_tokens=ids
    )


def _wrapped(backend: Tokenizer, **names: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=POSITIONS, **names)


def _shape(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "initializer_range": 0.3,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _xlmr(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    shape = _shape(tokenizer) | {"num_hidden_layers": 2, "max_position_embeddings": POSITIONS + 2}
    return XLMRobertaModel(XLMRobertaConfig(**shape, type_vocab_size=1, bos_token_id=0, eos_token_id=2))


def _bert(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    shape = _shape(tokenizer) | {"num_hidden_layers": 2, "max_position_embeddings": POSITIONS}
    return BertModel(BertConfig(**shape))


def _modernbert(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    shape = _shape(tokenizer) | {"num_hidden_layers": 3, "max_position_embeddings": 2 * POSITIONS}
    ids = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    ids |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    # Two of the three layers look at 4 tokens to each side only, so that local attention matters.
    return ModernBertModel(ModernBertConfig(**shape, **ids, local_attention=8, global_attn_every_n_layers=3))


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "xlm-roberta": xlmr_tokenizer,
    "bert": bert_tokenizer,
    "modernbert": modernbert_tokenizer,
}
ENCODERS: dict[str, Callable[[PreTrainedTokenizerFast], PreTrainedModel]] = {
    "xlm-roberta": _xlmr,
    "bert": _bert,
    "modernbert": _modernbert,
}
KINDS = tuple(ENCODERS)


CODE = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast
class OwnConfig(BertConfig):
    model_type = "own-kind"
class OwnModel(BertModel):
    config_class = OwnConfig
class OwnRanker(BertForSequenceClassification):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def add_code(folder: Path, mark: Path) -> None:
    """Makes a checkpoint name Python of its own, which writes `mark` when it runs."""
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own-kind",
        "auto_map": {
            "AutoConfig": "own.OwnConfig",
            "AutoModel": "own.OwnModel",
            "AutoModelForSequenceClassification": "own.OwnRanker",
        },
        "architectures": ["OwnModel"],
        "num_labels": 1,  # as a re-ranker
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
