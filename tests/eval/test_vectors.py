"""Blocks of vectors on disk: what was damaged is found, and the file named."""

from pathlib import Path

import numpy as np
import pytest

from eval import made
from triptych.errors import DataError
from triptych.eval.evaluate import evaluate_systems
from triptych.eval.running import EvalOptions
from triptych.eval.scan import read_block, write_block
from triptych.types import HEADS, Encoded


@pytest.fixture
def encoded() -> Encoded:
    return made.Toy().encode(["w1 w2", "", "w3 w3 w5", "w7"])


def test_a_block_reads_back_as_it_was_whole_or_by_head(encoded: Encoded, tmp_path: Path) -> None:
    write_block(tmp_path / "x.safetensors", encoded)
    again = read_block(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(again.dense, encoded.dense)
    np.testing.assert_array_equal(again.lexical.toarray(), encoded.lexical.toarray())
    np.testing.assert_array_equal(again.multi.values, encoded.multi.values)
    for head in HEADS:
        assert read_block(tmp_path / "x.safetensors", (head,)).heads == (head,)


def test_every_flipped_bit_of_a_block_is_an_error_that_names_the_file(
    encoded: Encoded, tmp_path: Path
) -> None:
    path = tmp_path / "000003.safetensors"
    write_block(path, encoded)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << (place % 8))]) + whole[place + 1 :])
        again, message = attempt(path)
        assert again is not None or ("000003.safetensors" in message and "remove the file" in message)
        if again is not None:  # white space of the header: nothing that was written is lost
            np.testing.assert_array_equal(again.dense, encoded.dense)
            np.testing.assert_array_equal(again.lexical.toarray(), encoded.lexical.toarray())
            np.testing.assert_array_equal(again.multi.values, encoded.multi.values)


def attempt(path: Path) -> tuple[Encoded | None, str]:
    try:
        return read_block(path), ""
    except DataError as error:
        return None, str(error)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_block_that_is_cut_off_is_an_error(encoded: Encoded, cut: int, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_block(path, encoded)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"x\.safetensors"):
        read_block(path)


@pytest.mark.parametrize("pattern", ["*/000001.safetensors", "queries-*.safetensors"])
def test_an_evaluation_stops_at_damaged_vectors(pattern: str, tmp_path: Path) -> None:
    one, options = made.collection(), EvalOptions(block=16, cache=tmp_path)
    whole = evaluate_systems([one], [made.Toy()], options)
    [path] = tmp_path.glob(pattern)
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged") as raised:
        evaluate_systems([one], [made.Toy()], options)
    assert path.name in str(raised.value)
    path.unlink()
    assert evaluate_systems([one], [made.Toy()], options).averages == whole.averages
