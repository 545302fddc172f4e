"""What is kept for this machine between runs: compiled functions, and which kernels were found to compute rightly."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch

from triptych import __version__

# They choose among the instructions of a processor.
_SWITCHES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


def cache_folder() -> Path:
    """Where it is kept; it need not exist, nor be writable."""
    root = os.environ.get("TRIPTYCH_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return Path(root or Path.home() / ".cache") / "triptych"


def problem_here(name: str, find: Callable[[], str | None]) -> str | None:
    """Calls `find` unless it has found nothing wrong on this machine before.

    Args:
        name: What is tried, for the name of a file.
        find: Says what is wrong, None if nothing is.
    """
    mark = cache_folder() / f"{name}-{_machine()}.ok"
    with suppress(OSError):
        if mark.is_file():
            return None
    problem = find()
    if problem is None:
        with suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return problem


@cache
def _machine() -> str:
    """Digest of the processor and of what computes on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    model = [line for line in lines if line.startswith(("model", "stepping", "CPU"))][:6]
    capabilities = cast("dict[str, Any]", getattr(torch.cpu, "get_capabilities", dict)())
    facts = (platform.machine(), model, sorted(capabilities.items()), torch.__version__, __version__)
    switches = [os.environ.get(name) for name in _SWITCHES]
    return hashlib.blake2b(repr((facts, switches)).encode(), digest_size=8).hexdigest()
