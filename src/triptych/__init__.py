"""Triptych: dense, lexical and multi-vector representations of a text from one encoder pass.

The names below are loaded when they are first used: ``import triptych`` loads neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triptych.encode.encoder import Encoder
    from triptych.eval.evaluate import evaluate
    from triptych.index.index import Index
    from triptych.types import Encoded, HeadWeights, Hit, Ragged

__version__ = "0.2.0"
__all__ = ["Encoded", "Encoder", "HeadWeights", "Hit", "Index", "Ragged", "__version__", "evaluate"]

_HOME = {
    "Encoded": "triptych.types",
    "Encoder": "triptych.encode.encoder",
    "evaluate": "triptych.eval.evaluate",
    "HeadWeights": "triptych.types",
    "Hit": "triptych.types",
    "Index": "triptych.index.index",
    "Ragged": "triptych.types",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'triptych' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
