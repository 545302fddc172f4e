"""Shared set-up: shapes and types of the formulae are checked while the tests run; tiny checkpoints."""

import os
import signal

# A shell's background jobs ignore Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

install_import_hook(["triptych.scores", "triptych.train.losses"], "beartype.beartype")

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

import checkpoints  # noqa: E402
from triptych import Encoder  # noqa: E402


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny XLM-R checkpoint in the published layout. Read only."""
    return checkpoints.make("xlm-roberta", tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session", params=checkpoints.KINDS)
def any_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for each kind of backbone."""
    return checkpoints.make(request.param, tmp_path_factory.mktemp(request.param))


def shared(encoder: Encoder) -> Iterator[Encoder]:
    """Taking the model out of an encoder ends its inference engine: no test may do so to a shared one."""
    engine = encoder._model.engine
    yield encoder
    assert encoder._model.engine is engine, (
        "a test took the model out of a shared encoder; use own_encoder there"
    )


@pytest.fixture(scope="session")
def encoder(folder: Path) -> Iterator[Encoder]:
    """An encoder of `folder` in float32 on the processor. Read only."""
    yield from shared(Encoder.from_pretrained(folder, device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def any_encoder(any_folder: Path) -> Iterator[Encoder]:
    """An encoder of `any_folder` in float32 on the processor. Read only."""
    yield from shared(Encoder.from_pretrained(any_folder, device="cpu", dtype="float32"))


@pytest.fixture
def own_encoder(folder: Path) -> Encoder:
    """Like `encoder`, for one test alone, which may take it apart."""
    return Encoder.from_pretrained(folder, device="cpu", dtype="float32")


@pytest.fixture
def any_own_encoder(any_folder: Path) -> Encoder:
    """Like `any_encoder`, for one test alone."""
    return Encoder.from_pretrained(any_folder, device="cpu", dtype="float32")
