"""Linear layers, each way of computing them behind the same four functions; attention over texts of unequal length.

The weights are brought once into the form that the product wants; what is fused (bias, GELU, residual) saves
passes over the activations.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize, scaled_dot_product_attention

from triptych.model import native
from triptych.model.machine import problem_here
from triptych.model.packed import Shape

# oneDNN chooses the layout of the weights for a number of rows; other numbers run with it too.
_TYPICAL_ROWS = 1024
# The flash kernels' limit for the width of one attention head.
_WIDEST_HEAD = 256


class Weights(NamedTuple):
    """A packed layer ``[out, in]``.

    Attributes:
        matrix: In the form that the kernels want.
        bias: ``[out]``.
        scales: float32 ``[out]``, for 8-bit matrices.
    """

    matrix: Tensor
    bias: Tensor
    scales: Tensor | None = None


class Kernels(Protocol):
    """A way of computing linear layers."""

    @property
    def name(self) -> str:
        """For reports, such as "onednn-bfloat16"."""
        ...

    def pack(self, matrix: Tensor, bias: Tensor) -> Weights:
        """Prepares a layer ``[out, in]``."""
        ...

    def unpack(self, weights: Weights) -> Tensor:
        """The matrix as an ordinary tensor again, in the type of the activations."""
        ...

    def linear(self, x: Tensor, weights: Weights) -> Tensor:
        """``x Wᵀ + b``."""
        ...

    def linear_gelu(self, x: Tensor, weights: Weights) -> Tensor:
        """``GELU(x Wᵀ + b)``, the exact GELU."""
        ...

    def linear_add(self, x: Tensor, weights: Weights, residual: Tensor) -> Tensor:
        """``x Wᵀ + b + residual``."""
        ...


class TorchKernels:
    """torch's own layers: every device and type."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    @property
    def name(self) -> str:
        """See `Kernels`."""
        return f"torch-{str(self.dtype).removeprefix('torch.')}"

    def pack(self, matrix: Tensor, bias: Tensor) -> Weights:
        """See `Kernels`."""
        return Weights(matrix.to(self.dtype).contiguous(), bias.to(self.dtype))

    def unpack(self, weights: Weights) -> Tensor:
        """See `Kernels`."""
        return weights.matrix

    def linear(self, x: Tensor, weights: Weights) -> Tensor:
        """See `Kernels`."""
        return linear(x, weights.matrix, weights.bias)

    def linear_gelu(self, x: Tensor, weights: Weights) -> Tensor:
        """See `Kernels`."""
        return gelu(linear(x, weights.matrix, weights.bias))

    def linear_add(self, x: Tensor, weights: Weights, residual: Tensor) -> Tensor:
        """See `Kernels`."""
        return linear(x, weights.matrix, weights.bias) + residual


class FusedKernels(TorchKernels):
    """A GPU's: the GELU inside the product, and what stands between two products in one kernel.

    The GELU is the vendor's, in its form by tanh, on sums that were not rounded yet: with 1024 inputs it is nearer to
    the exact GELU of the exact product than the exact GELU of a product that was rounded to bfloat16.

    Raises:
        ImportError: Without Triton.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        from triptych.model import fused

        self.rows = fused
        self._product = cast(Any, torch)._addmm_activation

    @property
    def name(self) -> str:
        """See `Kernels`."""
        return f"fused-{str(self.dtype).removeprefix('torch.')}"

    def linear_gelu(self, x: Tensor, weights: Weights) -> Tensor:
        """See `Kernels`."""
        return self._product(weights.bias, x, weights.matrix.t(), use_gelu=True)


class OneDnnKernels:
    """oneDNN with prepacked weights and fused GELU and residual: processors, float32 and bfloat16.

    The operators are torch's, but not public: `usable` tries them on a small product and compares.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        operators = cast(Any, torch.ops.mkldnn)
        self._reorder = operators._reorder_linear_weight
        self._unary = operators._linear_pointwise.default
        self._binary = operators._linear_pointwise.binary

    @property
    def name(self) -> str:
        """See `Kernels`."""
        return f"onednn-{str(self.dtype).removeprefix('torch.')}"

    def pack(self, matrix: Tensor, bias: Tensor) -> Weights:
        """See `Kernels`."""
        plain = matrix.to(self.dtype).contiguous()
        return Weights(self._reorder(plain, _TYPICAL_ROWS), bias.to(self.dtype))

    def unpack(self, weights: Weights) -> Tensor:
        """See `Kernels`."""
        return weights.matrix.to_dense()

    def linear(self, x: Tensor, weights: Weights) -> Tensor:
        """See `Kernels`."""
        return self._unary(x, weights.matrix, weights.bias, "none", [], "")

    def linear_gelu(self, x: Tensor, weights: Weights) -> Tensor:
        """See `Kernels`."""
        return self._unary(x, weights.matrix, weights.bias, "gelu", [], "none")

    def linear_add(self, x: Tensor, weights: Weights, residual: Tensor) -> Tensor:
        """See `Kernels`."""
        return self._binary(x, residual, weights.matrix, weights.bias, "add")


class Int8Kernels:
    """8-bit products of oneDNN: weights with a scale for each output, activations with one for each token.

    **Math** ``x ≈ s (q − 128)`` with ``s = max|x| / 127`` for each row, ``w ≈ c p`` with ``c = max|w| / 127`` for
    each output; ``x wᵀ ≈ s c (q − 128) pᵀ``, summed exactly in 32 bits.

    Args:
        rows: What quantises and rescales between the products.
    """

    name = "onednn-int8"
    dtype = torch.bfloat16

    def __init__(self, rows: native.Rows) -> None:
        self._rows = rows
        operators = cast(Any, torch.ops.onednn)
        self._prepack, self._product = operators.qlinear_prepack, operators.qlinear_pointwise.default

    def pack(self, matrix: Tensor, bias: Tensor) -> Weights:
        """See `Kernels`."""
        wide = matrix.float()
        scales = wide.abs().amax(1).clamp_min(1e-12) / 127
        codes = (wide / scales[:, None]).round().clamp(-127, 127).to(torch.int8)
        return Weights(self._prepack(codes, [_TYPICAL_ROWS, codes.shape[1]]), bias.float(), scales)

    def unpack(self, weights: Weights) -> Tensor:
        """See `Kernels`; the rounding to 8 bits stays."""
        codes = weights.matrix.to_dense().t()
        return (codes.float() * cast(Tensor, weights.scales)[:, None]).to(self.dtype)

    def linear(self, x: Tensor, weights: Weights) -> Tensor:
        """See `Kernels`."""
        products, steps = self._products(x, weights)
        return self._rows.finish(products, steps, weights.bias)

    def linear_gelu(self, x: Tensor, weights: Weights) -> Tensor:
        """See `Kernels`."""
        products, steps = self._products(x, weights)
        return self._rows.finish(products, steps, weights.bias, act=True)

    def linear_add(self, x: Tensor, weights: Weights, residual: Tensor) -> Tensor:
        """See `Kernels`."""
        products, steps = self._products(x, weights)
        return self._rows.finish(products, steps, weights.bias, residual)

    def _products(self, x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
        codes, steps = self._rows.quantize(x)
        scales, zeros = weights.scales, torch.zeros(len(weights.bias), dtype=torch.int64)
        kind = (None, 1.0, 0, self.dtype, "none", [], "")
        return self._product(codes, 1.0, 128, weights.matrix, scales, zeros, *kind), steps


def choose(device: torch.device, dtype: torch.dtype, *, int8: bool = False) -> tuple[Kernels, str]:
    """The fastest kernels that this machine runs, and in words why these.

    Args:
        device: Where the model is.
        dtype: float32, bfloat16 or float16.
        int8: Whether 8-bit products are wanted; without what they need, the usual ones are taken.
    """
    if int8:
        kernels, why = _eight_bits(device)
        if kernels is not None:
            return kernels, why
        usual, _ = choose(device, dtype)
        return usual, f"int8 was asked for, but {why}"
    plain = TorchKernels(dtype)
    if device.type != "cpu":
        fused, why = _fused(device, dtype)
        return (
            (fused, why)
            if fused
            else (plain, f"{device.type}: the vendor's matrix products by torch ({why})")
        )
    if dtype not in (torch.float32, torch.bfloat16):
        return plain, f"oneDNN's fused layers are not used for {plain.name.removeprefix('torch-')}"
    try:
        fused = OneDnnKernels(dtype)
        problem = problem_here(fused.name, partial(problem_of, fused, dtype))
    except (RuntimeError, AttributeError, TypeError) as error:
        problem = f"this torch has no fused oneDNN layers ({type(error).__name__})"
        return plain, problem
    return (
        (plain, problem)
        if problem
        else (fused, "prepacked oneDNN layers, tried and compared on this machine")
    )


def _fused(device: torch.device, dtype: torch.dtype) -> tuple[FusedKernels | None, str]:
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None, "fused kernels are for NVIDIA GPUs in 16 bits"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None, "fused kernels need compute capability 8.0"
    try:
        kernels = FusedKernels(dtype)
        with torch.cuda.device(device):
            problem = problem_of(kernels, dtype, device=device) or rows_problem(kernels.rows, dtype, device)
    except Exception as error:  # Triton's compiler fails in its own ways, such as without a C compiler
        return None, f"this machine has no fused kernels: {type(error).__name__}: {str(error)[:200]}"
    if problem:
        return None, problem
    return (
        kernels,
        f"{device.type}: the vendor's products, and Triton's kernels between them, tried at loading",
    )


@cache
def has_amx() -> bool:
    """Whether this processor has tiles of bfloat16 products (AMX)."""
    return bool(getattr(torch.cpu, "get_capabilities", dict[str, Any])().get("amx_bf16"))


def _eight_bits(device: torch.device) -> tuple[Kernels | None, str]:
    if device.type != "cpu":
        return None, "it is for processors"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    if not any(capabilities.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        return None, "this processor has no 8-bit products (VNNI, AMX)"
    rows, why = native.load()
    if rows is None:
        return None, why
    try:
        kernels = Int8Kernels(rows)
        problem = problem_here(kernels.name, partial(problem_of, kernels, kernels.dtype, tolerance=0.03))
    except (RuntimeError, AttributeError, TypeError) as error:
        return None, f"this torch has no 8-bit oneDNN layers ({type(error).__name__})"
    return (
        (None, problem) if problem else (kernels, "8-bit oneDNN layers, tried and compared on this machine")
    )


def problem_of(
    kernels: Kernels,
    dtype: torch.dtype,
    tolerance: float | None = None,
    device: torch.device | None = None,
) -> str | None:
    """Tries kernels on a small random product; says what is wrong with the result, None if nothing is.

    Args:
        kernels: What to try.
        dtype: Type of the activations.
        tolerance: Largest relative error; None: by type.
        device: Where; None: the processor.
    """
    generator = torch.Generator().manual_seed(0)
    x, matrix, residual = (
        torch.randn(shape, generator=generator) for shape in ((19, 64), (32, 64), (19, 32))
    )
    bias = torch.randn(32, generator=generator)
    small = [part.to(device, dtype) for part in (x, matrix, bias, residual)]
    with torch.inference_mode():
        weights = kernels.pack(small[1], small[2])
        exact = linear(small[0].double(), small[1].double(), small[2].double())
        pairs = {
            "linear": (kernels.linear(small[0], weights), exact),
            "linear_gelu": (kernels.linear_gelu(small[0], weights), gelu(exact)),
            "linear_add": (kernels.linear_add(small[0], weights, small[3]), exact + small[3].double()),
        }
    limit = tolerance or (1e-5 if dtype == torch.float32 else 1e-2)
    return _wrong(kernels.name, pairs, limit)


def rows_problem(rows: Any, dtype: torch.dtype, device: torch.device) -> str | None:
    """The same for what stands between the products.

    Args:
        rows: `triptych.model.fused`, or what has its functions.
        dtype: Type of the activations.
        device: Where.
    """
    draw = torch.Generator().manual_seed(0)
    lengths = (130, 64, 7, 1)
    x, y, qkv = (torch.randn(sum(lengths), width, generator=draw) for width in (96, 96, 192))
    weight, bias = torch.randn(96, generator=draw), torch.randn(96, generator=draw)
    x, y, qkv, weight, bias = (part.to(device, dtype) for part in (x, y, qkv, weight, bias))
    some = torch.tensor([5, 0, 5], device=device), torch.tensor([1, 2, 0], device=device)
    tiles = torch.from_numpy(rows.tiles_of(lengths)).to(device)
    total, shape = x.double() + y.double(), (96,)
    looked_up = x.double()[some[0]] + y.double()[some[1]]
    parts = qkv.double().view(-1, 3, 2, 32).split(lengths)
    mixed: list[Tensor] = []
    for part in parts:
        query, key, value = (side.transpose(0, 1)[None] for side in part.unbind(1))
        mixed.append(scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).flatten(1))
    with torch.inference_mode():
        pairs = {
            "add_norm": (
                rows.add_norm(x, y, weight, bias, 1e-5),
                layer_norm(total, shape, weight.double(), bias.double(), 1e-5),
            ),
            "add_norm of rows": (
                rows.add_norm(x, y, weight, bias, 1e-5, some),
                layer_norm(looked_up, shape, weight.double(), bias.double(), 1e-5),
            ),
            "unit_rows": (rows.unit_rows(x, dtype), normalize(x.double(), dim=-1)),
            "lexical_weights": (
                rows.lexical_weights(x, weight[None], bias[:1]),
                torch.relu(x.double() @ weight.double() + bias[0].double()),
            ),
            "attend": (rows.attend(qkv, 2, tiles, max(lengths)), torch.cat(mixed)),
        }
    return _wrong("fused kernels", pairs, 1e-2)


def _wrong(name: str, pairs: dict[str, tuple[Tensor, Tensor]], limit: float) -> str | None:
    """The first result that is further from what was expected than a relative error; not a number is."""
    for what, (got, expected) in pairs.items():
        error = float((got.double() - expected).norm() / expected.norm())
        if not error < limit:
            return f"{name}: {what} is wrong on this machine (relative error {error:.1e})"
    return None


def flash_usable(states: Tensor, width: int) -> bool:
    """Whether a kernel for texts of unequal length takes this device, type and head width."""
    return (
        states.is_cuda
        and (torch.is_autocast_enabled("cuda") or states.dtype in (torch.bfloat16, torch.float16))
        and width % 8 == 0
        and width <= _WIDEST_HEAD
        and _has_flash(states.device.index)
    )


@cache
def _has_flash(device: int | None) -> bool:
    """The kernel needs compute capability 8.0, and a torch that was built with it."""
    built = torch.backends.cuda.is_flash_attention_available()
    return built and torch.cuda.get_device_capability(device) >= (8, 0)


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    shape: Shape,
    drop: float = 0.0,
    query_shape: Shape | None = None,
) -> Tensor:
    """Attention within each text by the device's kernel for texts of unequal length; see `flash_usable`.

    Args:
        query: ``[T', heads, d]``.
        key: ``[T, heads, d]``.
        value: The same shape as `key`.
        shape: Bounds of the keys.
        drop: Probability in [0, 1).
        query_shape: Bounds of the queries; None: those of the keys.
    """
    query_shape = query_shape or shape
    bounds = (query_shape.bounds, shape.bounds, query_shape.longest, shape.longest)
    if not drop and _varlen() is not None:
        return _varlen()(query, key, value, *bounds)
    # The public function has no dropout, and torch before 2.10 has no public one; this is the operator under it.
    operator = cast(Any, torch.ops.aten)._flash_attention_forward
    return operator(query, key, value, *bounds, drop, False, False)[0]


@cache
def _varlen() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn
