"""Small functions in C between the matrix products, compiled on the machine where they run.

Nothing needs them: without a C compiler, with ``TRIPTYCH_NO_JIT=1``, or where what was compiled does not give
torch's results, `load` says so and slower ways are taken. The compiled library (a few kilobytes) is kept in the
user's cache folder, under a name made of the source, the compiler, the processor and its own content.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import gelu, scaled_dot_product_attention

from triptych.model.machine import cache_folder, problem_here

NO_JIT = "TRIPTYCH_NO_JIT"
"""Environment variable: if it is set to anything but 0, nothing is compiled or loaded."""

MOST_TOKENS, MOST_COLUMNS = 16, 128
"""Of a text and of a head that `Rows.attend` takes; the same in the C source."""

_FLAGS = ("-O3", "-march=native", "-ffast-math", "-fPIC", "-fopenmp", "-c")


class Native(NamedTuple):
    """The functions, or why there are none."""

    rows: Rows | None
    why: str


class Rows:
    """The C functions on bfloat16 matrices, which must be contiguous and on the processor.

    Args:
        library: The compiled source.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of ``[T, N]`` in 8 bits: ``round(x / s) + 128`` as uint8, and s, float32 ``[T]``."""
        codes = torch.empty(x.shape, dtype=torch.uint8)
        scales = torch.empty(len(x), dtype=torch.float32)
        self._call("tt_quantize", x, codes, scales, *x.shape)
        return codes, scales

    def finish(
        self, y: Tensor, scales: Tensor, bias: Tensor, residual: Tensor | None = None, *, act: bool = False
    ) -> Tensor:
        """``act(y · s + bias) + residual``, in the place of `y`; scales by row, the exact GELU if `act`."""
        self._call("tt_finish", y, scales, bias, residual, int(act), y, *y.shape)
        return y

    def softmax(self, scores: Tensor, scale: float) -> Tensor:
        """``exp(scale (x − max))`` in place over the last axis, and 1 / its sums, float32."""
        sums = torch.empty(scores.shape[:-1], dtype=torch.float32)
        self._call("tt_softmax", scores, sums, ctypes.c_float(scale), sums.numel(), scores.shape[-1])
        return sums

    def merge_heads(self, x: Tensor, factors: Tensor, out: Tensor) -> None:
        """``out[t, h] = x[h, t] · factors[h, t]``; `out` is ``[rows, heads, d]`` with heads side by side."""
        heads, rows, width = x.shape
        assert x.is_contiguous() and factors.is_contiguous() and out.stride()[1:] == (width, 1)  # noqa: PT018
        self._call("tt_merge_heads", x, factors, out, out.stride(0), heads, rows, width)

    def takes(self, tokens: int, columns: int) -> bool:
        """Whether `attend` computes texts of so many tokens with heads of so many columns."""
        return tokens <= MOST_TOKENS and columns <= MOST_COLUMNS and columns % MOST_TOKENS == 0

    def attend(self, parts: Tensor, out: Tensor, tokens: int) -> None:
        """Attention within texts of equally many tokens: ``[T, 3, heads, d]`` into ``[T, heads, d]``; see `takes`."""
        _, _, heads, columns = parts.shape
        assert parts.is_contiguous() and out.is_contiguous() and self.takes(tokens, columns)  # noqa: PT018
        self._call("tt_attend", parts, out, len(parts) // tokens, tokens, heads, columns)

    def _call(self, name: str, *values: Any) -> None:
        getattr(self._library, name)(*(_argument(value) for value in values))


def _argument(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_ssize_t(value) if isinstance(value, int) else value


@cache
def load() -> Native:
    """Compiles (at the first time on a machine), loads and tries the functions."""
    if os.environ.get(NO_JIT, "0") not in ("", "0"):
        return Native(None, f"{NO_JIT} is set: nothing is compiled")
    if sys.platform != "linux":
        return Native(None, f"the C functions are for Linux, not {sys.platform}")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return Native(None, "no C compiler (cc, gcc, clang) on the path")
    try:
        path = _build(compiler)
        rows = Rows(ctypes.CDLL(str(path)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Native(None, f"the C functions cannot be compiled or loaded: {str(error).splitlines()[0]}")
    problem = problem_here(path.stem, partial(problem_of, rows))
    return Native(None, problem) if problem else Native(rows, "compiled, tried and compared on this machine")


def _build(compiler: str) -> Path:
    source = files("triptych").joinpath("native/rows.c").read_bytes()
    folder, stem = cache_folder(), f"rows-{_digest(source, compiler)}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{stem}-*.so"):
        if path.name == _name(stem, path.read_bytes()):
            return path
        path.unlink()  # damaged
    with TemporaryDirectory(dir=folder) as temporary:
        where = Path(temporary)
        (where / "rows.c").write_bytes(source)
        # Linked without an OpenMP library of its own, so that it uses torch's threads and does not fight them.
        for command in (
            [compiler, *_FLAGS, "rows.c", "-o", "rows.o"],
            [compiler, "-shared", "rows.o", "-o", "rows.so", "-lm"],
        ):
            subprocess.run(command, cwd=where, check=True, capture_output=True, timeout=120)
        path = folder / _name(stem, (where / "rows.so").read_bytes())
        return (where / "rows.so").replace(path)


def _name(stem: str, content: bytes) -> str:
    return f"{stem}-{hashlib.blake2b(content, digest_size=12).hexdigest()}.so"


def _digest(source: bytes, compiler: str) -> str:
    # Where the compiler is and when it was installed, since asking for its version starts a process.
    program = Path(compiler).resolve()
    version = (str(program), program.stat().st_size, program.stat().st_mtime_ns)
    capabilities = cast("dict[str, Any]", getattr(torch.cpu, "get_capabilities", dict)())
    facts = (version, *_FLAGS, platform.machine(), torch.__version__, sorted(capabilities.items()))
    return hashlib.blake2b(source + repr(facts).encode(), digest_size=12).hexdigest()


def problem_of(rows: Rows) -> str | None:
    """Compares the functions with torch's; says which one is wrong, None if none is."""
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(7, 77, generator=generator).mul(3).bfloat16() for _ in range(2))
    bias, scales = torch.randn(77, generator=generator), torch.rand(7, generator=generator)
    codes, steps = rows.quantize(x)
    back = (codes.float() - 128) * steps[:, None]
    whole = x.float() * scales[:, None] + bias
    weights = x.clone()
    sums = rows.softmax(weights, 0.5)
    heads = torch.randn(3, 7, 16, generator=generator).bfloat16()
    factors, merged = torch.rand(3, 7, generator=generator), torch.zeros(7, 48, dtype=torch.bfloat16)
    rows.merge_heads(heads, factors, merged.view(7, 3, 16))
    qkv, mixed = torch.randn(14, 3, 2, 32, generator=generator).bfloat16(), torch.zeros(14, 2, 32).bfloat16()
    rows.attend(qkv, mixed, 7)
    query, key, value = (part.view(2, 7, 2, 32).transpose(1, 2) for part in qkv.float().unbind(1))
    whole_heads = scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(14, 2, 32)
    pairs = {
        "attend": (mixed, whole_heads, 0.005),
        "quantize": (back, x.float(), 0.02),
        "finish": (rows.finish(x.clone(), scales, bias, residual), whole + residual.float(), 0.005),
        "finish with GELU": (rows.finish(x.clone(), scales, bias, act=True), gelu(whole), 0.005),
        "softmax": (weights.float() * sums[:, None], torch.softmax(x.float() * 0.5, -1), 0.005),
        "merge_heads": (merged.view(7, 3, 16), (heads.float() * factors[..., None]).transpose(0, 1), 0.005),
    }
    for name, (got, expected, limit) in pairs.items():
        error = float((got.float() - expected).norm() / expected.norm())
        if not error < limit:
            return f"the compiled {name} is wrong on this machine (relative error {error:.1e})"
    return None
