"""Writing sentence-transformers folders, without that library; `triptych.model.st_layout` says what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from torch import nn

from triptych.errors import InputError
from triptych.files import write_json
from triptych.model import backbone as backbones
from triptych.model import compact
from triptych.model.m3 import M3Model
from triptych.model.st_layout import IDENTITY, POOLINGS, TASKS, TOKENS, Values
from triptych.model.tokenizer import TextTokenizer

Part = Literal["dense", "multi"]

# The dense modules go under the names that every version of the library and the servers that read its folders
# know; the multi-vector ones exist since version 6.
_TYPES = {
    "Transformer": "sentence_transformers.models.Transformer",
    "Pooling": "sentence_transformers.models.Pooling",
    "Normalize": "sentence_transformers.models.Normalize",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "MultiVectorMask": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
}


def save(model: M3Model, tokenizer: TextTokenizer, folder: Path, part: Part) -> None:
    """Writes one part of a model; the caller adds the tokenizer's files.

    Args:
        model: What to write.
        tokenizer: Names the special tokens.
        folder: An existing folder.
        part: The representation that the folder gives: "dense" for SentenceTransformer, "multi" for
            MultiVectorEncoder.

    Raises:
        InputError: If the model lacks the part, or modules cannot express it.
        StorageError: If writing fails.
    """
    _check_expressible(model, part)
    special = {"max_seq_length": model.config.max_length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", special)
    backbones.write(model.backbone, folder)
    steps = _dense_steps(model) if part == "dense" else _multi_steps(model, tokenizer)
    modules = [{"idx": 0, "name": "0", "path": "", "type": _TYPES["Transformer"]}]
    for i, (kind, settings) in enumerate(steps, start=1):
        place = folder / f"{i}_{kind}"
        place.mkdir(exist_ok=True)
        write_json(place / "config.json", settings)
        if kind == "Dense":
            _write_projection(cast(nn.Linear, model.multi_head), place)
        modules.append({"idx": i, "name": str(i), "path": place.name, "type": _TYPES[kind]})
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer" if part == "dense" else "MultiVectorEncoder",
            "prompts": {"query": model.config.query_prefix, "document": model.config.document_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if part == "dense" else "meanmaxsim",
        },
    )
    write_json(folder / "modules.json", modules)


def _check_expressible(model: M3Model, part: Part) -> None:
    if part not in ("dense", "multi"):
        raise InputError(f"part: got {part!r}; expected dense or multi")
    if part not in model.heads:
        raise InputError(f"part: got {part!r}; this model has {', '.join(model.heads)}")
    if model.config.pooling == "mcls":
        raise InputError(
            "layout 'sentence-transformers': pooling 'mcls' puts tokens into the text, which its modules cannot; "
            "change the pooling to 'cls' or 'mean' first"
        )
    config, special = model.config, model.special
    if part == "multi" and special.cls == special.eos and config.multi_first != config.multi_last:
        raise InputError(
            "layout 'sentence-transformers': leaves out tokens by name, but [CLS] and [EOS] are one"
        )


def _dense_steps(model: M3Model) -> list[tuple[str, Values]]:
    flags = {key: name == model.config.pooling for key, name in POOLINGS.items()}
    width = {"word_embedding_dimension": backbones.hidden_size(model.backbone)}
    return [("Pooling", {**width, **flags, "include_prompt": True}), ("Normalize", {})]


def _multi_steps(model: M3Model, tokenizer: TextTokenizer) -> list[tuple[str, Values]]:
    config, special = model.config, model.special
    dense = {
        "in_features": backbones.hidden_size(model.backbone),
        "out_features": config.multi_dim,
        "bias": True,
        "activation_function": IDENTITY,
        "module_input_name": TOKENS,
        "module_output_name": TOKENS,
    }
    kept = ((special.cls, config.multi_first), (special.eos, config.multi_last))
    skipped = [number for number, is_kept in kept if not is_kept]
    words = cast(Any, tokenizer.tokenizer).convert_ids_to_tokens([int(number) for number in skipped])
    mask = {"skiplist_words": words, "skiplist_tasks": list(TASKS), "keep_only_token_ids": None}
    normalize = {"module_input_name": TOKENS, "module_output_name": TOKENS}
    return [("Dense", dense), ("MultiVectorMask", mask), ("Normalize", normalize)]


def _write_projection(head: nn.Linear, folder: Path) -> None:
    tensors = {"linear.weight": head.weight, "linear.bias": head.bias}
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
    compact.write_tensors(folder / "model.safetensors", arrays)
