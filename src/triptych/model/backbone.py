"""The backbone, a Hugging Face encoder: reading, writing and building it; device and arithmetic on it.

`padded_states` runs any architecture: pad, call the model, take the padding out again.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from triptych.errors import InputError, ModelError, show
from triptych.model.packed import Packed

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]


def device_of(device: str | torch.device | None) -> torch.device:
    """The device that is meant; None: a GPU if there is one.

    Raises:
        InputError: For what is no device, or none that this machine has.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device) if isinstance(device, str | torch.device) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    except RuntimeError:
        chosen = None
    if chosen is None:
        raise InputError(f"device: got {show(device)}; expected cpu, cuda, cuda:N or mps")
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    here += ["mps"] if torch.backends.mps.is_available() else []
    if str(chosen) not in here and f"{chosen.type}:{chosen.index or 0}" not in here:
        raise InputError(f"device: got {str(device)!r}; this machine has {', '.join(here)}")
    return chosen


def dtype_of(name: Dtype, device: torch.device) -> torch.dtype:
    """The type of the states; "auto": bfloat16 where the device computes in it, otherwise float32.

    With "int8" only the products of the layers are in 8 bits, the states are bfloat16.

    Raises:
        InputError: For what is no such type.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    known["int8"] = torch.bfloat16
    if not isinstance(name, str) or name not in (*known, "auto"):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"dtype: got {show(name)}; expected auto, {', '.join(known)}")
    if name != "auto":
        return known[name]
    if has_bfloat16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16; emulated, it would be slower than the alternative."""
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict[str, Any])()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def hidden_size(backbone: nn.Module) -> int:
    """Width H of the states."""
    return int(cast(Any, backbone).config.hidden_size)


def padded_states(backbone: nn.Module, batch: Packed, pad_id: int) -> Tensor:
    """The backbone's last states of a packed batch.

    Args:
        backbone: A Hugging Face encoder.
        batch: N texts, T tokens.
        pad_id: Fills the padding; it changes nothing since it is masked.

    Returns:
        ``[T, H]`` in the backbone's type.
    """
    height = max(batch.lengths, default=0)
    if not height:
        return torch.zeros(0, hidden_size(backbone), device=batch.ids.device)
    columns = torch.arange(height, device=batch.ids.device)
    mask = columns < batch.offsets.diff()[:, None]
    ids = torch.full(mask.shape, pad_id, dtype=torch.int64, device=batch.ids.device)
    ids[mask] = batch.ids
    states: Tensor = backbone(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return states[mask]


def read(folder: Path, *, trust_remote_code: bool = False) -> nn.Module:
    """Reads a Hugging Face encoder folder (safetensors or torch files, one or many).

    Args:
        folder: The folder.
        trust_remote_code: Whether Python files of the folder may run.

    Raises:
        ModelError: If it cannot be read, or a weight of the encoder is missing or of another shape.
    """
    from transformers import AutoModel

    try:
        with _quiet():
            loaded: Any = AutoModel.from_pretrained(
                str(folder), dtype="auto", output_loading_info=True, trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: no encoder can be read from this folder: {error}") from error
    encoder, report = loaded
    missing = [name for name in report["missing_keys"] if not name.startswith("pooler.")]
    if missing or report["mismatched_keys"]:
        raise ModelError(
            f"{folder}: weights are missing or misshaped: {[*missing, *report['mismatched_keys']][:5]}"
        )
    return without_pooler(encoder)


def write(backbone: nn.Module, folder: Path, *, pooler: bool = False) -> None:
    """Writes a Hugging Face encoder folder.

    Args:
        backbone: The encoder.
        folder: Where to.
        pooler: Whether the layer after [CLS] that the class has is written too, as zeros: nothing uses it, but
            programs that load the class without an option would make it up and warn of it.
    """
    kind: Any = type(backbone)
    state = backbone.state_dict()
    if pooler:
        with torch.device("meta"):
            whole: nn.Module = kind(cast(Any, backbone).config)
        shapes = {name: tensor.shape for name, tensor in whole.state_dict().items() if name not in state}
        state |= {name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith("pooler.")}
    with _quiet():
        cast(Any, backbone).save_pretrained(str(folder), state_dict=state)


def options_without_pooler(backbone: nn.Module) -> dict[str, bool]:
    """What `from_pretrained` has to be called with so that it neither misses nor invents a pooler."""
    has_option = "add_pooling_layer" in inspect.signature(type(backbone)).parameters
    return {"add_pooling_layer": False} if has_option else {}


def build(
    config: PretrainedConfig, tensors: dict[str, Tensor], where: str, *, trust_remote_code: bool = False
) -> nn.Module:
    """Makes the backbone of a Hugging Face configuration with given weights.

    Args:
        config: Its configuration.
        tensors: Weights by their Hugging Face names.
        where: What the weights came from, for the message.
        trust_remote_code: Whether Python files that the configuration names may run.

    Raises:
        ModelError: If a tensor is missing, unknown or of another shape.
    """
    from transformers import AutoModel

    with torch.device("meta"):
        expected = without_pooler(AutoModel.from_config(config, trust_remote_code=trust_remote_code))
    if problems := _differences(expected, tensors):
        raise ModelError(f"{where}: does not fit a {config.model_type} encoder: {'; '.join(problems[:5])}")
    kind: Any = type(expected)
    with _quiet():
        return without_pooler(kind.from_pretrained(None, config=config, state_dict=tensors)).eval()


@contextmanager
def _quiet() -> Generator[None]:
    """Keeps transformers from drawing bars and tables; we check ourselves what they would report."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def without_pooler(backbone: nn.Module) -> nn.Module:
    """Removes the layer after [CLS] that BERT-like classes add and M3 does not use."""
    if getattr(backbone, "pooler", None) is not None:
        cast(Any, backbone).pooler = None
    return backbone


def _differences(expected: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    missing = [f"{name} is missing" for name in shapes if name not in given]
    unknown = [f"{name} is not part of it" for name in given if name not in shapes]
    misfits = [
        f"{name} has shape {given[name]}, expected {shape}"
        for name, shape in shapes.items()
        if name in given and given[name] != shape
    ]
    return missing + misfits + unknown


def usable_positions(backbone: nn.Module) -> int:
    """Tokens of the longest text that the backbone can read.

    RoBERTa-like models number positions from ``padding_idx + 1``, so that many of their table are not usable.
    """
    config = cast(Any, backbone).config
    table = _position_table(backbone)
    offset = 0 if table is None or table.padding_idx is None else table.padding_idx + 1
    return int(config.max_position_embeddings) - offset


def _position_table(backbone: nn.Module) -> nn.Embedding | None:
    return getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)


def extend_positions(
    backbone: nn.Module, length: int, method: Literal["tile", "interpolate"] = "tile"
) -> None:
    """Gives a backbone with learned positions room for texts of `length` tokens, in place.

    The new rows are a start for further training (BGE-M3 was extended from 512 to 8192 in its RetroMAE
    stage, arXiv 2402.03216v4, section 3.2); without training they serve only as well as the method does.

    Args:
        backbone: An encoder with a learned table of absolute positions.
        length: Tokens of the longest text.
        method: `tile` repeats the table, so that the first positions keep their vectors; `interpolate`
            stretches it linearly.

    Raises:
        InputError: If the backbone has no such table, or already has as many positions or more.
    """
    table, have = _position_table(backbone), usable_positions(backbone)
    if table is None:
        raise InputError(
            "extend_positions: this backbone has no learned positions; its configuration sets the limit"
        )
    if length <= have:
        raise InputError(f"extend_positions: got length {length}; expected more than the {have} it has")
    offset = table.num_embeddings - have
    old = table.weight.data[offset:]
    if method == "tile":
        new = old.repeat(-(-length // have), 1)[:length]
    else:
        new = nn.functional.interpolate(old.T[None].float(), size=length, mode="linear", align_corners=True)[
            0
        ].T
    weight = torch.cat([table.weight.data[:offset], new.to(old.dtype)])
    embeddings = cast(Any, backbone).embeddings
    embeddings.position_embeddings = nn.Embedding.from_pretrained(
        weight, freeze=False, padding_idx=table.padding_idx
    )
    cast(Any, backbone).config.max_position_embeddings = len(weight)
    _resize_buffers(embeddings, len(weight))


def _resize_buffers(embeddings: nn.Module, positions: int) -> None:
    """BERT-like classes keep the numbers of the positions, and zeros for token types, in buffers."""
    for name, buffer in list(embeddings.named_buffers(recurse=False)):
        numbers = torch.arange(positions, device=buffer.device)[None]
        fresh = numbers if name == "position_ids" else torch.zeros_like(numbers)
        embeddings.register_buffer(name, fresh, persistent=False)
