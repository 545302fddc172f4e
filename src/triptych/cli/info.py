"""`triptych info`."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o

if TYPE_CHECKING:
    from triptych.encode.encoder import Encoder


def info(
    place: Annotated[
        str | None,
        typer.Argument(
            help="An index (folder or address), or a model ('small', a folder, a Hub name); none: the machine alone.",
            metavar="INDEX|MODEL",
        ),
    ] = None,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = o.Dtype.auto,
    as_json: o.JsonOption = False,
) -> None:
    """Show the machine, the device and arithmetic that would be used and why, and facts of an index or a model.

    Example: triptych info my.index
    """
    facts: dict[str, Any] = {"machine": machine(), "device": arithmetic(device, dtype)}
    if place is not None:
        if is_index(place):
            facts["index"] = _index(place)
        else:
            facts["model"] = _model(place, device, dtype)
    if as_json:
        from triptych.cli.console import emit

        emit(facts)
        return
    _draw(facts)


def machine() -> dict[str, Any]:
    """Versions, processor, memory."""
    from importlib.metadata import version

    import torch

    from triptych import __version__

    packages = ("torch", "transformers", "tokenizers", "numpy", "scipy", "qdrant-edge-py")
    return {
        "triptych": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory(),
        "packages": {name: version(name) for name in packages},
    }


def arithmetic(device: str | None, dtype: o.Dtype) -> dict[str, Any]:
    """The device and the type of the backbone's arithmetic that an encoder would get, and why."""
    import torch

    from triptych.model import devices

    chosen = devices.device_of(device)
    kind = devices.dtype_of(dtype.value, chosen)
    return {
        "device": str(chosen),
        "device_why": _why_device(device, chosen),
        "dtype": str(kind).removeprefix("torch."),
        "dtype_why": _why_dtype(dtype, chosen, kind is torch.float32),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def is_index(place: str) -> bool:
    """Whether a place is (meant as) an index and not a model."""
    from triptych.index.server import is_address
    from triptych.index.storage import MANIFEST

    return is_address(place) or (Path(place) / MANIFEST).is_file()


def _why_device(wanted: str | None, chosen: Any) -> str:
    if wanted is not None:
        return "as asked for"
    return (
        "there is no GPU that torch can use" if chosen.type == "cpu" else "the first GPU that torch can use"
    )


def _why_dtype(wanted: o.Dtype, device: Any, is_float32: bool) -> str:
    if wanted is not o.Dtype.auto:
        return "as asked for"
    if device.type == "cpu":
        found = "no bfloat16 instructions (AMX or AVX512-BF16)" if is_float32 else "bfloat16 instructions"
        return f"the processor has {found}"
    return (
        "the device's fastest exact enough type" if not is_float32 else "bfloat16 is not used on this device"
    )


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _index(place: str) -> dict[str, Any]:
    from triptych.index.server import is_address
    from triptych.index.storage import folder_size
    from triptych.retrieval import Index

    with Index.open(place) as index:
        facts = index.info()
    if not is_address(place):
        facts["megabytes"] = round(folder_size(Path(place)) / 1e6, 1)
    return facts


def _model(name: str, device: str | None, dtype: o.Dtype) -> dict[str, Any]:
    from triptych.encode.encoder import Encoder
    from triptych.model import hub, layouts

    encoder: Encoder = Encoder.from_pretrained(name, device=device, dtype=dtype.value)
    folder = hub.resolve(name)
    return {
        "name": name,
        "folder": str(folder),
        "layout": layouts.layout_of(folder),
        "fingerprint": encoder.fingerprint,
        "parameters": sum(parameter.numel() for parameter in encoder.model.parameters()),
        "megabytes": round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6, 1),
        "widths": dict(encoder.widths),
        "config": encoder.config.to_dict(),
    }


def _draw(facts: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from triptych.cli.console import stdout

    console = stdout()
    for name, part in facts.items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for key, value in part.items():
            table.add_row(key.replace("_", " "), Text(_plain(value)))
        console.print(Text(name, style="bold"))
        console.print(table)
        console.print()


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return '""' if value == "" else str(value)
