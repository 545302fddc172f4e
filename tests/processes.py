"""Processes of tests that train: a server imports torch and the training once, and each process is a fork of it."""

import multiprocessing
import socket
from collections.abc import Callable

from torch import multiprocessing as torch_processes

# Some releases of Python do not look for these where the tests stand, so that they are packages alone.
multiprocessing.set_forkserver_preload(
    [
        "pytest",
        "triptych.train.run",
        "triptych.encode.encoder",
        "transformers.models.xlm_roberta.modeling_xlm_roberta",
    ]
)
FORKS = multiprocessing.get_context("forkserver")


def spawn(function: Callable[..., None], *arguments: object) -> None:
    """Two processes that call `function` with their number, a free port and the arguments."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch_processes.start_processes(function, args=(port, *arguments), nprocs=2, start_method="forkserver")
