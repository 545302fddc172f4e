"""Reading and writing sentence-transformers folders: the dense or the multi-vector part of a model as native modules.

What can be read, and what is written here, are pipelines of that library's own modules, named
in `modules.json`:

- dense: Transformer, Pooling (cls or mean), Normalize;
- multi: Transformer, Dense (on tokens), MultiVectorMask (which positions are scored), Normalize (of tokens);
- lexical, written alone: Transformer, and our `triptych.model.lexical_pooling`, since no native module can express it.

A setting that our model cannot reproduce is an error, never ignored. The library itself is not needed.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from triptych.config import M3Config
from triptych.errors import InputError, ModelError
from triptych.io import write_atomically, write_json
from triptych.model import backbone as backbones
from triptych.model import tensors as compact
from triptych.model.m3 import M3Model
from triptych.model.tensors import read_list, read_object
from triptych.model.tokenizer import TextTokenizer

Values = dict[str, Any]

IDENTITY = "torch.nn.modules.linear.Identity"
TOKENS = "token_embeddings"
TASKS = ("query", "document")

POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class Module(NamedTuple):
    """One entry of `modules.json`: the class's own name, its folder and its settings' file (may be absent)."""

    kind: str
    folder: Path
    path: Path

    @property
    def settings(self) -> Values:
        """What the settings' file holds; nothing if there is none."""
        return read_object(self.path) if self.path.is_file() else {}


class Parts(NamedTuple):
    """What a folder holds besides the encoder and the tokenizer: a configuration, the heads' tensors by name."""

    config: M3Config
    heads: dict[str, Tensor]


def encoder_folder(folder: Path) -> Path:
    """Where the encoder and the tokenizer are: the folder itself, or a part of it in old ones.

    Raises:
        ModelError: If `modules.json` cannot be read or does not begin with a Transformer.
    """
    modules = _modules(folder)
    if not modules or modules[0].kind != "Transformer":
        raise ModelError(f"{folder / 'modules.json'}: got {_names(modules)}; expected a Transformer first")
    return modules[0].folder


def read(folder: Path, encoder: nn.Module, tokenizer: TextTokenizer) -> Parts:
    """Reads the modules after the encoder.

    Args:
        folder: One with `modules.json`.
        encoder: The backbone from `encoder_folder`.
        tokenizer: The tokenizer from there.

    Raises:
        ModelError: For a module or a setting that cannot be expressed; the message names it.
    """
    path = folder / "config_sentence_transformers.json"
    settings = read_object(path) if path.is_file() else {}
    kind = settings.get("model_type", "SentenceTransformer")
    first, *rest = _modules(folder)
    length = _max_length(first, encoder, tokenizer)
    query, document = _prefixes(settings, path)
    config = M3Config(
        max_length=length, query_prefix=query, document_prefix=document, lexical=False, multi_dim=None
    )
    if kind == "SentenceTransformer":
        return Parts(_read_dense(folder, rest, settings, config), {})
    if kind == "MultiVectorEncoder":
        return _read_multi(folder, rest, config, (backbones.hidden_size(encoder), tokenizer))
    raise ModelError(f"{path}: model_type {kind!r}; expected SentenceTransformer or MultiVectorEncoder")


def _modules(folder: Path) -> list[Module]:
    listed = read_list(folder / "modules.json")
    try:
        return [_module(folder, entry["type"], entry.get("path", "")) for entry in listed]
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder / 'modules.json'}: expected entries with type and path: {error!r}"
        ) from error


def _module(folder: Path, kind: str, place: str) -> Module:
    if not kind.startswith("sentence_transformers."):
        raise ModelError(f"{folder / 'modules.json'}: module {kind} is code of its own; triptych runs none")
    inside = folder / place
    if not inside.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{folder / 'modules.json'}: path {place!r} leads out of the folder")
    name = kind.rsplit(".", 1)[-1]
    if name != "Transformer":
        return Module(name, inside, inside / "config.json")
    # Old versions named the file after the architecture (sentence_roberta_config.json).
    files = sorted(inside.glob("sentence_*_config.json"))
    return Module(name, inside, files[0] if files else inside / "sentence_bert_config.json")


def _names(modules: list[Module]) -> str:
    return ", ".join(module.kind for module in modules) or "no modules"


def _only(module: Module, allowed: dict[str, tuple[Any, ...]]) -> Values:
    """The module's settings, if each of those in `allowed` is absent or has one of the values there."""
    settings = module.settings
    for key, values in allowed.items():
        if key in settings and settings[key] not in values:
            expected = " or ".join(repr(value) for value in values)
            raise ModelError(f"{module.path}: {key} is {settings[key]!r}; triptych can express {expected}")
    return settings


def _max_length(module: Module, encoder: nn.Module, tokenizer: TextTokenizer) -> int:
    """Tokens a text: what the folder says, but never more than the encoder has positions."""
    settings = _only(
        module,
        {
            "transformer_task": ("feature-extraction",),
            "module_output_name": (TOKENS,),
            "query_expansion": (None,),
            "processing_kwargs": (None, {}),
        },
    )
    folder, normalizer = module.folder, tokenizer.backend.normalizer
    if settings.get("do_lower_case") and (normalizer is None or normalizer.normalize_str("A") != "a"):
        raise ModelError(f"{module.path}: do_lower_case, but the tokenizer in {folder} keeps capitals")
    of_query, of_document = (settings.get(f"{task}_length") for task in TASKS)
    if of_query != of_document:
        raise ModelError(
            f"{module.path}: query_length {of_query}, document_length {of_document}; triptych has one length for both"
        )
    said = of_document or settings.get("max_seq_length") or tokenizer.max_length
    return min(int(said), backbones.usable_positions(encoder))


def _prefixes(settings: Values, path: Path) -> tuple[str, str]:
    """The prompts of queries and documents as prefixes; the latter have had several names."""
    prompts = settings.get("prompts") or {}
    found = {key: value for key, value in prompts.items() if value}
    if any(not isinstance(value, str) for value in found.values()):
        raise ModelError(f"{path}: prompts: got {prompts!r}; expected strings")
    document = next((found[name] for name in ("document", "passage", "corpus") if name in found), "")
    return found.get("query", ""), document


def _read_dense(folder: Path, rest: list[Module], settings: Values, config: M3Config) -> M3Config:
    kinds = [module.kind for module in rest]
    if kinds not in (["Pooling"], ["Pooling", "Normalize"]):
        odd = [kind for kind in kinds if kind not in ("Pooling", "Normalize")]
        hint = "; a projection of the sentence vector cannot be expressed" if "Dense" in odd else ""
        raise ModelError(
            f"{folder / 'modules.json'}: got {', '.join(odd) or _names(rest)} after the Transformer; "
            f"expected Pooling, and Normalize or nothing{hint}"
        )
    pooling = rest[0]
    values = _only(pooling, {"include_prompt": (True,)})
    legacy = [name for key, name in POOLINGS.items() if values.get(key)]
    mode = values.get("pooling_mode") or (legacy[0] if len(legacy) == 1 else legacy or "mean")
    if mode not in ("cls", "mean"):
        raise ModelError(f"{pooling.path}: pooling {mode!r}; triptych can express 'cls' or 'mean'")
    if len(rest) > 1:
        _only(rest[1], {"module_input_name": ("sentence_embedding",)})
    elif (similarity := settings.get("similarity_fn_name")) not in (None, "cosine"):
        raise ModelError(
            f"{folder}: no Normalize and similarity {similarity!r}, which depends on the vectors' lengths; "
            "triptych's dense vectors have length 1"
        )
    return config.with_(pooling=mode)


def _read_multi(
    folder: Path, rest: list[Module], config: M3Config, around: tuple[int, TextTokenizer]
) -> Parts:
    """A multi-vector folder says nothing of a sentence vector, so the model has no dense head."""
    width, tokenizer = around
    kinds = [module.kind for module in rest]
    modules = dict(zip(kinds, rest, strict=True))
    expected = ("Dense", "MultiVectorMask", "Normalize")
    # Where a mask stands among the others changes nothing; the projection comes before its normalisation.
    unmasked = [kind for kind in kinds if kind != "MultiVectorMask"]
    if len(modules) < len(kinds) or unmasked not in (["Dense", "Normalize"], ["Normalize"]):
        raise ModelError(f"{folder / 'modules.json'}: got {_names(rest)}; expected {', '.join(expected)}")
    _only(modules["Normalize"], {"module_input_name": (TOKENS,), "module_output_name": (TOKENS,)})
    weight, bias = (
        _projection(modules["Dense"]) if "Dense" in modules else (torch.eye(width), torch.zeros(width))
    )
    first, last = (
        _scored(modules["MultiVectorMask"], tokenizer) if "MultiVectorMask" in modules else (True, True)
    )
    changed = config.with_(dense=False, multi_dim=len(weight), multi_first=first, multi_last=last)
    return Parts(changed, {"multi_head.weight": weight, "multi_head.bias": bias})


def _projection(module: Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer on the tokens."""
    tokens = (TOKENS,)
    identity = (IDENTITY, "torch.nn.Identity")
    _only(
        module,
        {
            "activation_function": identity,
            "module_input_name": tokens,
            "module_output_name": (*tokens, None),
            "use_residual": (False,),
        },
    )
    # Absent, these two would mean a tanh on the sentence vector.
    if not {"activation_function", "module_input_name"} <= set(module.settings):
        raise ModelError(f"{module.path}: expected module_input_name {TOKENS!r}, activation {identity[0]}")
    path = module.folder / "model.safetensors"
    tensors = compact.read_tensors(path)
    if "linear.weight" not in tensors:
        raise ModelError(f"{path}: got {sorted(tensors)}; expected linear.weight")
    weight = torch.from_numpy(tensors["linear.weight"]).float()
    if "linear.bias" not in tensors:
        return weight, torch.zeros(len(weight))
    return weight, torch.from_numpy(tensors["linear.bias"]).float()


def _scored(module: Module, tokenizer: TextTokenizer) -> tuple[bool, bool]:
    """Whether the first and the last position ([CLS] and [EOS]) are scored."""
    settings = _only(module, {"keep_only_token_ids": (None, [])})
    words = settings.get("skiplist_words") or []
    if not words:
        return True, True
    if sorted(settings.get("skiplist_tasks") or ["document"]) != sorted(TASKS):
        raise ModelError(
            f"{module.path}: skiplist_tasks {settings.get('skiplist_tasks')}; triptych can express {list(TASKS)}"
        )
    special = tokenizer.special
    ids = {word: tokenizer.backend.token_to_id(word) for word in words}
    if odd := [word for word, number in ids.items() if number not in (special.cls, special.eos)]:
        raise ModelError(f"{module.path}: skiplist_words {odd}; triptych can leave out [CLS] and [EOS] only")
    return special.cls not in ids.values(), special.eos not in ids.values()


Part = Literal["dense", "multi", "lexical"]
PARTS: tuple[Part, ...] = ("dense", "multi", "lexical")
_POOLING = "lexical_pooling"

# The dense modules go under the names that every version of the library and the servers that read its folders
# know; the multi-vector ones exist since version 6.
_TYPES = {
    "Transformer": "sentence_transformers.models.Transformer",
    "Pooling": "sentence_transformers.models.Pooling",
    "Normalize": "sentence_transformers.models.Normalize",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "MultiVectorMask": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
    "LexicalPooling": f"{_POOLING}.LexicalPooling",
}
# What the folder is loaded with, and how two representations are compared.
_CLASSES: dict[Part, tuple[str, str]] = {
    "dense": ("SentenceTransformer", "cosine"),
    "multi": ("MultiVectorEncoder", "meanmaxsim"),
    "lexical": ("SparseEncoder", "dot"),
}


def save(model: M3Model, tokenizer: TextTokenizer, folder: Path, part: Part) -> None:
    """Writes one part of a model; the caller adds the tokenizer's files.

    Args:
        model: What to write.
        tokenizer: Names the special tokens.
        folder: An existing folder.
        part: The representation that the folder gives: "dense" for SentenceTransformer, "multi" for
            MultiVectorEncoder, "lexical" for SparseEncoder, which has to be allowed to run the module that comes with
            the folder (``trust_remote_code=True``).

    Raises:
        InputError: If the model lacks the part, or modules cannot express it.
        StorageError: If writing fails.
    """
    _check_expressible(model, part)
    settings: Values = {"max_seq_length": model.config.max_length, "do_lower_case": False}
    if options := backbones.options_without_pooler(model.backbone):
        settings["model_args"] = options  # the name that every version reads
    write_json(folder / "sentence_bert_config.json", settings)
    backbones.write(model.backbone, folder)
    steps = {"dense": _dense_steps, "multi": _multi_steps, "lexical": _lexical_steps}[part](model, tokenizer)
    modules = [{"idx": 0, "name": "0", "path": "", "type": _TYPES["Transformer"]}]
    for i, (kind, settings) in enumerate(steps, start=1):
        place = folder / f"{i}_{kind}"
        place.mkdir(exist_ok=True)
        write_json(place / "config.json", settings)
        if kind in ("Dense", "LexicalPooling"):
            _write_projection(
                cast(nn.Linear, model.multi_head if part == "multi" else model.lexical_head), place
            )
        modules.append({"idx": i, "name": str(i), "path": place.name, "type": _TYPES[kind]})
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": _CLASSES[part][0],
            "prompts": {"query": model.config.query_prefix, "document": model.config.document_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": _CLASSES[part][1],
        },
    )
    if part == "lexical":
        code = resources.files("triptych.model").joinpath(f"{_POOLING}.py").read_bytes()
        write_atomically(folder / f"{_POOLING}.py", code)
    write_json(folder / "modules.json", modules)


def _check_expressible(model: M3Model, part: Part) -> None:
    if part not in PARTS:
        raise InputError(f"part: got {part!r}; expected {', '.join(PARTS)}")
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


def _dense_steps(model: M3Model, _: TextTokenizer) -> list[tuple[str, Values]]:
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
    words = [tokenizer.backend.id_to_token(number) for number in skipped]
    mask = {"skiplist_words": words, "skiplist_tasks": list(TASKS), "keep_only_token_ids": None}
    normalize = {"module_input_name": TOKENS, "module_output_name": TOKENS}
    return [("Dense", dense), ("MultiVectorMask", mask), ("Normalize", normalize)]


def _lexical_steps(model: M3Model, _: TextTokenizer) -> list[tuple[str, Values]]:
    own = () if model.config.prefix_in_lexical else model.special.prefixes
    settings = {
        "hidden_size": backbones.hidden_size(model.backbone),
        "vocabulary": model.widths["lexical"],
        "weightless": list(model.special.never_lexical),
        "prefixes": [list(prefix) for prefix in own if len(prefix) > 1],
    }
    return [("LexicalPooling", settings)]


def _write_projection(head: nn.Linear, folder: Path) -> None:
    tensors = {"linear.weight": head.weight, "linear.bias": head.bias}
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
    compact.write_tensors(folder / "model.safetensors", arrays)
