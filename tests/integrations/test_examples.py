"""The examples of the frameworks run as they are, alone and with an index of a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = {
    "langchain_retriever": "langchain_core",
    "llama_index_retriever": "llama_index.core",
    "haystack_pipeline": "haystack",
}


def run(name: str, *arguments: str) -> str:
    pytest.importorskip(NAMES[name])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HAYSTACK_TELEMETRY_ENABLED": "false"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_example_finds_the_moka_pot_first(name: str, address: str) -> None:
    alone, served = run(name), run(name, address)
    for said in (alone, served):
        assert "moka" in said
        assert "volcan" not in said.partition("moka")[0]
