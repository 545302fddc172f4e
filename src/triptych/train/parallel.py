"""One model in many processes: data-parallel (DDP) or sharded (FSDP), behind the same few functions."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from triptych.train import distributed


class Replica:
    """A module as this process calls it.

    Args:
        module: On its device, with all that is not trained frozen.
        way: `ddp`: every process has all; `fsdp`: gradients and the optimiser's state are shared out.

    Attributes:
        module: The original; its parameters are those to give to the optimiser.
        call: What to call.
    """

    def __init__(self, module: nn.Module, way: Literal["ddp", "fsdp"]) -> None:
        self.module = module
        self._sharded = distributed.size() > 1 and way == "fsdp"
        self.call: nn.Module = module
        if self._sharded:
            from torch.distributed.fsdp import fully_shard

            # The packed forward reads the weights of inner modules directly, so that only the whole module can say
            # when they are needed.
            fully_shard(module, reshard_after_forward=False)
        elif distributed.size() > 1:
            self.call = DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)

    @contextmanager
    def synchronised(self, last: bool) -> Generator[None]:
        """The context of a backward pass; gradients are exchanged in the last one of a step."""
        if isinstance(self.call, DistributedDataParallel) and not last:
            with self.call.no_sync():
                yield
            return
        if self._sharded:
            cast(Any, self.module).set_requires_gradient_sync(last)
        yield

    @contextmanager
    def gathered(self) -> Generator[nn.Module]:
        """The module with all its weights in this process, and without dropout: for evaluation."""
        module = self.module
        if self._sharded:
            cast(Any, module).unshard()
        module.eval()
        try:
            yield module
        finally:
            module.train()
            if self._sharded:
                cast(Any, module).reshard()

    def clip(self, limit: float | None) -> float:
        """Scales the gradient down to a norm of at most `limit`; gives the norm before."""
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        norm: Any = nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit)
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
        return float(cast(Tensor, norm))
