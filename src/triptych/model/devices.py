"""Which device, and which arithmetic on it."""

from __future__ import annotations

from typing import Literal

import torch

from triptych.errors import InputError

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]


def device_of(device: str | torch.device | None) -> torch.device:
    """The device that is meant; None: a GPU if there is one.

    Raises:
        InputError: For what is no device.
    """
    if device is not None:
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise InputError(f"device: got {device!r}; expected cpu, cuda, cuda:N or mps") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def dtype_of(name: Dtype, device: torch.device) -> torch.dtype:
    """The type of the states; "auto": bfloat16 where the device computes in it, otherwise float32.

    With "int8" only the products of the layers are in 8 bits, the states are bfloat16.

    Raises:
        InputError: For what is no such type.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    known["int8"] = torch.bfloat16
    if name in known:
        return known[name]
    if name != "auto":
        raise InputError(f"dtype: got {name!r}; expected auto, {', '.join(known)}")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bfloat16() else torch.float32


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16; emulated, it would be slower than float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
