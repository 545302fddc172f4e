"""Checkpoint folders: which layouts there are, how each is read and written.

- **ours**: `config.json` (the backbone's Hugging Face configuration with a part `triptych`), one
  `model.safetensors` (backbone tensors under their Hugging Face names, `lexical_head.*`, `multi_head.*`; large
  tables may be stored in 4 or 8 bits) and the tokenizer's files;
- **published**: as BGE-M3 is published: a Hugging Face encoder folder with `sparse_linear.pt` and
  `colbert_linear.pt`;
- **sentence-transformers**: see `triptych.model.sentence_transformers`, which reads and writes it.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from triptych.config import M3Config
from triptych.errors import InputError, ModelError, StorageError, show
from triptych.io import DIGESTS, verify_digests, write_atomically, write_digests, write_json
from triptych.model import backbone as backbones
from triptych.model import sentence_transformers as st_layout
from triptych.model import tensors as compact
from triptych.model.m3 import M3Model
from triptych.model.stored import StoredBackbone, expand, open_backbone, read_backbone, read_weights
from triptych.model.tensors import Quantized, read_object
from triptych.model.tokenizer import VOCABULARIES, TextTokenizer
from triptych.types import check_path

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Layout = Literal["triptych", "published", "sentence-transformers"]
WEIGHTS = "model.safetensors"
CARD = "README.md"
_DATA = (".safetensors", ".pt", ".bin")
_DONTNEED = 4  # MADV_DONTNEED of Linux
_LFS = b"version https://git-lfs"
_HEADS = {"lexical_head": "sparse_linear.pt", "multi_head": "colbert_linear.pt"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model with its tokenizer."""

    model: M3Model
    tokenizer: TextTokenizer

    @property
    def fingerprint(self) -> str:
        """Digest of all that determines the vectors."""
        return self.model.fingerprint({"tokenizer": self.tokenizer.digest})


def layout_of(folder: Path) -> Layout:
    """The layout of a folder.

    Raises:
        ModelError: If the checkpoint has no M3 heads; the message says what is missing.
    """
    config = folder / "config.json"
    if config.is_file() and "triptych" in read_object(config):
        return "triptych"
    found = [name for name in _HEADS.values() if (folder / name).is_file()]
    if len(found) == len(_HEADS):
        return "published"
    if found:
        missing = next(name for name in _HEADS.values() if name not in found)
        raise ModelError(
            f"{folder / missing}: missing; the folder has {found[0]}, so it should hold both heads"
        )
    if (folder / "modules.json").is_file():
        return "sentence-transformers"
    if not folder.is_dir() or not config.is_file():
        raise ModelError(f"{folder}: not a checkpoint folder (no config.json)")
    raise ModelError(
        f"{folder}: an encoder without heads (no {' and '.join(_HEADS.values())}, no 'triptych' in config.json); "
        "Encoder.from_backbone gives it new, untrained ones"
    )


def load(folder: Path, *, trust_remote_code: bool = False, for_engine: bool = False) -> Checkpoint:
    """Reads a checkpoint folder of any layout, and checks its files against the digests in `DIGESTS`, if it is there.

    Args:
        folder: The folder.
        trust_remote_code: Whether Python files of the folder may run.
        for_engine: Whether the model is for the inference engine: if that runs it, its backbone is not made until
            `M3Model.make_backbone`, and transformers is not needed.

    Raises:
        ModelError: If a file is missing, damaged or does not fit; the message names it.
    """
    _check_lfs(folder)
    with ThreadPoolExecutor(1) as thread:
        problems = thread.submit(verify_digests, folder)  # while the weights are read
        try:
            loaded: Checkpoint | ModelError = _load(folder, trust_remote_code, for_engine)
        except ModelError as error:
            loaded = error
    # A file that is damaged is the cause of whatever reading it led to.
    for path, problem in problems.result().items():
        raise ModelError(f"{path}: {problem}") from (loaded if isinstance(loaded, ModelError) else None)
    if isinstance(loaded, ModelError):
        raise loaded
    return loaded


def _load(folder: Path, trust_remote_code: bool, for_engine: bool) -> Checkpoint:
    layout = layout_of(folder)
    inner = st_layout.encoder_folder(folder) if layout == "sentence-transformers" else folder
    tokenizer = TextTokenizer.load(inner, trust_remote_code=trust_remote_code)
    if layout == "triptych":
        return Checkpoint(_load_ours(folder, tokenizer, trust_remote_code, for_engine), tokenizer)
    stored = read_backbone(inner) if for_engine else None
    encoder = stored or backbones.read(inner, trust_remote_code=trust_remote_code)
    if layout == "published":
        return Checkpoint(_load_published(folder, encoder, tokenizer), tokenizer)
    config, heads = st_layout.read(folder, encoder, tokenizer)
    return Checkpoint(_with_heads(encoder, config, tokenizer, heads, str(folder)), tokenizer)


def _check_lfs(folder: Path) -> None:
    """Raises for a weight or vocabulary file of which Git LFS has left the pointer alone."""
    for path in _data_files(folder):
        with path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise ModelError(
                    f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository, or "
                    "download the file"
                )


def _data_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that are no settings, which people may edit."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and (path.suffix in _DATA or path.name in VOCABULARIES)
    )


def reconfigured(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> Checkpoint:
    """The same weights under a changed configuration.

    Args:
        checkpoint: A model with its tokenizer.
        settings: Fields of `M3Config`.

    Raises:
        InputError: For an unknown field, or one that needs other weights.
    """
    model = checkpoint.model
    config = M3Config.of({**model.config.to_dict(), **settings}, "settings")
    room = backbones.usable_positions(model.backbone)
    if config.max_length > room:
        raise InputError(f"max_length: got {config.max_length}; the backbone has {room} usable positions")
    if (config.lexical, config.multi_dim) != (model.config.lexical, model.config.multi_dim):
        raise InputError(
            "lexical, multi_dim: say which heads the weights have; they cannot be changed by a setting"
        )
    model.config, model.special = config, checkpoint.tokenizer.special_ids(config)
    return checkpoint


def from_backbone(folder: Path, *, trust_remote_code: bool = False, **settings: Any) -> Checkpoint:
    """A plain Hugging Face encoder with new, untrained heads: where training starts.

    Args:
        folder: Encoder folder.
        trust_remote_code: Whether Python files of the folder may run.
        settings: Fields of `M3Config`; `max_length` defaults to what the backbone can read, `multi_dim` to
            its width.
    """
    _check_lfs(folder)
    tokenizer = TextTokenizer.load(folder, trust_remote_code=trust_remote_code)
    encoder = backbones.read(folder, trust_remote_code=trust_remote_code)
    room = backbones.usable_positions(encoder)
    config = M3Config.of(
        {"max_length": room, "multi_dim": backbones.hidden_size(encoder), **settings}, "from_backbone"
    )
    return Checkpoint(_with_heads(encoder, config, tokenizer, None, str(folder)), tokenizer)


def _load_ours(folder: Path, tokenizer: TextTokenizer, trust_remote_code: bool, for_engine: bool) -> M3Model:
    values = read_object(folder / "config.json")
    config = M3Config.of(values["triptych"], f"{folder / 'config.json'}: triptych")
    path = folder / WEIGHTS
    tensors = {
        name: tensor if isinstance(tensor, Quantized) else tensor.float()
        for name, tensor in read_weights(path).items()
    }
    heads = {name: expand(tensors.pop(name)) for name in list(tensors) if name.split(".")[0] in _HEADS}
    encoder = open_backbone(values, tensors) if for_engine else None
    if encoder is None:
        hf_config = _hf_config(folder, trust_remote_code)
        weights = {name: expand(tensor) for name, tensor in tensors.items()}
        encoder = backbones.build(hf_config, weights, str(path), trust_remote_code=trust_remote_code)
    return _with_heads(encoder, config, tokenizer, heads, str(path))


def _load_published(folder: Path, encoder: nn.Module, tokenizer: TextTokenizer) -> M3Model:
    heads: dict[str, Tensor] = {}
    for head, name in _HEADS.items():
        tensors = _read_pickle(folder / name)
        width = backbones.hidden_size(encoder)
        rows = 1 if head == "lexical_head" else len(tensors["weight"])
        for part, shape in (("weight", (rows, width)), ("bias", (rows,))):
            if tuple(tensors[part].shape) != shape:
                raise ModelError(
                    f"{folder / name}: {part} has shape {tuple(tensors[part].shape)}, expected {shape}"
                )
            heads[f"{head}.{part}"] = tensors[part]
    config = M3Config(
        max_length=backbones.usable_positions(encoder), multi_dim=len(heads["multi_head.weight"])
    )
    return _with_heads(encoder, config, tokenizer, heads, str(folder))


def _with_heads(
    encoder: nn.Module,
    config: M3Config,
    tokenizer: TextTokenizer,
    heads: Mapping[str, Tensor] | None,
    where: str,
) -> M3Model:
    """Attaches the heads; with `heads` None they stay random."""
    room = backbones.usable_positions(encoder)
    if config.max_length > room:
        raise ModelError(
            f"{where}: max_length {config.max_length}, but the backbone has {room} usable positions"
        )
    model = M3Model(encoder, config, tokenizer.special_ids(config))
    if heads is not None:
        own = {name: p for name, p in model.named_parameters() if not name.startswith("backbone.")}
        for name, parameter in own.items():
            if name not in heads:
                raise ModelError(f"{where}: the tensor {name} is missing")
            if heads[name].shape != parameter.shape:
                got, expected = tuple(heads[name].shape), tuple(parameter.shape)
                raise ModelError(f"{where}: {name} has shape {got}, expected {expected}")
            parameter.data = heads[name].clone()
        if extra := set(heads) - set(own):
            raise ModelError(f"{where}: has {sorted(extra)}, which the configuration does not mention")
    if isinstance(encoder, StoredBackbone):
        of_backbone = {f"backbone.{name}": tensor for name, tensor in encoder.tensors.items()}
        model.stored = {**(heads or {}), **of_backbone}
    return model.eval()


def release_memory() -> None:
    """Gives back to the system what loading leaves behind: for `small` 32 MB of the C library and 22 MB of pages.

    These are of weights that are mapped and were read to be packed. The system reads them again where they are needed.
    """
    with suppress(OSError, AttributeError, TypeError):  # Linux and glibc have this, others need not
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        for start, end in _mapped_weights():
            if not _is_changed(start, end):
                library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)


def _mapped_weights() -> list[tuple[int, int]]:
    """First address of each file of weights in memory, and the one after its last."""
    maps = Path("/proc/self/maps").read_text("utf-8", "replace")
    found = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ [1-9]\d* .*\.safetensors$", maps, re.MULTILINE)
    return [(int(start, 16), int(end, 16)) for start, end in found]


def _is_changed(start: int, end: int) -> bool:
    """Whether some page is no longer the file's, since something was written to it: that would be lost."""
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        file.seek(8 * (start // mmap.PAGESIZE))
        pages = np.frombuffer(file.read(8 * ((end - start) // mmap.PAGESIZE)), np.uint64)
    in_use, of_file = pages >> np.uint64(62) > 0, pages >> np.uint64(61) & np.uint64(1) > 0
    return bool((in_use & ~of_file).any())


def copy_card(source: Path | None, folder: Path) -> None:
    """Copies the card of the model in a folder, if there is one."""
    if source is not None and (source / CARD).is_file():
        write_atomically(folder / CARD, (source / CARD).read_bytes())


def save(
    checkpoint: Checkpoint,
    folder: Path,
    layout: Layout = "triptych",
    *,
    part: st_layout.Part = "dense",
    bits: Mapping[str, int] | None = None,
    start: str | Path | None = None,
) -> None:
    """Writes a checkpoint folder.

    Args:
        checkpoint: What to write.
        folder: Made if needed; files of the same names are replaced.
        layout: Ours, the published one (which FlagEmbedding and vLLM load), or sentence-transformers'.
        part: Which representation a sentence-transformers folder gives.
        bits: Our layout only: tensor name to 4 or 8, to store it in as many bits.
        start: A folder that the model came from. If both are in our layout, matrices that are compact there and
            have not changed since are stored as they are there: what was frozen in training stays as small.

    Raises:
        InputError: If the layout cannot hold this model.
        StorageError: If writing fails.
    """
    check_save_options(layout=layout, part=part, bits=bits, start=start)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(error.errno, f"{folder}: cannot be made: {error.strerror}") from error
    (folder / DIGESTS).unlink(missing_ok=True)  # of files that are about to be replaced
    if layout == "triptych":
        _save_ours(checkpoint, folder, bits or {}, None if start is None else Path(start))
    elif layout == "published":
        _save_published(checkpoint.model, folder)
    else:
        st_layout.save(checkpoint.model, checkpoint.tokenizer, folder, part)
    checkpoint.tokenizer.save(folder)
    write_digests(folder, _data_files(folder))


def check_save_options(
    *, layout: object = "triptych", part: object = "dense", bits: object = None, start: object = None
) -> None:
    """Checks the options of `save`.

    Raises:
        InputError: Names the option, what came and what was expected.
    """
    if not isinstance(layout, str) or layout not in get_args(Layout):
        raise InputError(f"layout: got {show(layout)}; expected {', '.join(get_args(Layout))}")
    if not isinstance(part, str) or part not in st_layout.PARTS:
        raise InputError(f"part: got {show(part)}; expected {', '.join(st_layout.PARTS)}")
    if bits is not None and not isinstance(bits, Mapping):
        raise InputError(f"bits: got {show(bits)}; expected a mapping of tensor names to 4 or 8")
    if start is not None:
        check_path(start, "start")


def _save_ours(checkpoint: Checkpoint, folder: Path, bits: Mapping[str, int], start: Path | None) -> None:
    model = checkpoint.model
    state = {name.removeprefix("backbone."): tensor for name, tensor in model.state_dict().items()}
    tensors: dict[str, Any] = {name: _to_numpy(tensor) for name, tensor in state.items()}
    if start is not None and layout_of(start) == "triptych":
        tensors |= _unchanged(compact.read_stored(start / WEIGHTS), tensors, except_for=bits)
    compact.write_tensors(folder / WEIGHTS, tensors, bits)
    values = cast(Any, model.backbone).config.to_dict() | {"triptych": model.config.to_dict()}
    write_json(folder / "config.json", values)


def _unchanged(
    stored: Mapping[str, Any], tensors: Mapping[str, Any], except_for: Collection[str]
) -> dict[str, Quantized]:
    """The compact matrices of a file whose values are exactly those of the tensors of the same names."""
    return {
        name: matrix
        for name, matrix in stored.items()
        if isinstance(matrix, Quantized)
        and name in tensors
        and name not in except_for
        and matrix.shape == tensors[name].shape
        and np.array_equal(matrix.dequantize(), tensors[name])
    }


def _to_numpy(tensor: Tensor) -> Any:
    """NumPy has no bfloat16; float32 holds it exactly."""
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _save_published(model: M3Model, folder: Path) -> None:
    plain = M3Config(max_length=model.config.max_length, multi_dim=model.config.multi_dim)
    if model.heads != ("dense", "lexical", "multi") or model.config != plain:
        raise InputError(
            "layout 'published' holds models with [CLS] pooling, both heads and no prefixes; "
            f"this one has {model.config} (a sentence-transformers folder can hold its dense part)"
        )
    backbones.write(model.backbone, folder, pooler=True)
    for head, name in _HEADS.items():
        torch.save(cast(nn.Module, getattr(model, head)).state_dict(), folder / name)


def _hf_config(folder: Path, trust_remote_code: bool) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / 'config.json'}: not a Hugging Face configuration: {error}") from error
    # transformers keeps keys that it does not know, and would write ours into folders of other layouts.
    vars(config).pop("triptych", None)
    return config


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Reads a torch pickle of a linear layer; `weights_only` lets it hold tensors and nothing else."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle raises whatever its bytes lead to
        raise ModelError(f"{path}: cannot be read as a torch file of tensors: {error}") from error
    found = cast("dict[str, Any]", tensors) if isinstance(tensors, dict) else {}
    if not all(isinstance(found.get(name), Tensor) for name in ("weight", "bias")):
        raise ModelError(f"{path}: expected the tensors weight and bias")
    return found
