"""What a start loads: counted in modules, since seconds differ from machine to machine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import checkpoints
import twin
from checkpoints import TEXTS
from triptych import Encoder
from triptych.model import checkpoint as layouts

HEAVY = ("transformers", "torch._dynamo", "sympy", "huggingface_hub", "pydantic")
"""What takes long to import and is for other things than encoding."""


def printed_by(code: str) -> Any:
    """The last line that a new process prints when it runs some code, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(done.stdout.splitlines()[-1])


def loaded_after(code: str, *names: str) -> list[str]:
    """Which of these modules a new process has loaded after running some code."""
    return printed_by(
        f"{code}\nimport json, sys; print(json.dumps([name for name in {names!r} if name in sys.modules]))"
    )


def encodes(place: str | Path) -> str:
    return (
        "from triptych import Encoder\n"
        f"encoder = Encoder.from_pretrained({str(place)!r}, device='cpu')\n"
        "assert len(encoder.encode(['one text'])) == 1 and encoder.fingerprint"
    )


def test_loading_the_small_model_and_encoding_a_text_needs_neither_transformers_nor_the_compiler() -> None:
    assert loaded_after(encodes("small"), *HEAVY, "torch") == ["torch"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and asks glibc")
def test_what_loading_has_freed_goes_back_to_the_system() -> None:
    kilobytes = printed_by(
        "import ctypes, re\nfrom triptych import Encoder\nencoder = Encoder.from_pretrained('small', device='cpu')\n"
        "held = lambda: int(re.search(r'RssAnon:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = held(); ctypes.CDLL(None).malloc_trim(0); print(before - held())"
    )
    assert kilobytes < 8 * 1024  # it was 32 MB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_that_were_only_read_to_be_packed_do_not_stay_in_memory() -> None:
    kilobytes = printed_by(
        "import re\nfrom triptych import Encoder\nencoder = Encoder.from_pretrained('small', device='cpu')\n"
        "maps = open('/proc/self/smaps').read()\n"
        "print(sum(map(int, re.findall(r'safetensors\\nSize.*?\\nRss: +(\\d+)', maps, re.S))))"
    )
    assert kilobytes < 2 * 1024  # it was 23 MB


@pytest.mark.skipif(sys.platform != "linux", reason="only there pages are given back")
def test_mapped_weights_that_were_changed_stay_changed_when_memory_is_given_back(tmp_path: Path) -> None:
    folder = checkpoints.make("xlm-roberta", tmp_path / "model")
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    stored = encoder._model.stored
    assert stored is not None
    name = next(name for name in stored if name.endswith("LayerNorm.weight"))
    weights = cast(torch.Tensor, stored[name])
    (start, end), *_ = [r for r in layouts._mapped_weights() if r[0] <= weights.data_ptr() < r[1]]
    assert not layouts._is_changed(start, end)
    weights += 1
    expected = weights.clone()
    layouts.release_memory()
    assert layouts._is_changed(start, end)
    assert torch.equal(weights, expected)


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert"])
@pytest.mark.parametrize("layout", ["published", "triptych", "sentence-transformers"])
def test_folders_of_every_layout_run_without_transformers(kind: str, layout: str, tmp_path: Path) -> None:
    folder = checkpoints.make(kind, tmp_path / "published")
    if layout != "published":
        Encoder.from_pretrained(folder, device="cpu").save_pretrained(tmp_path / layout, layout=layout)
    assert loaded_after(encodes(tmp_path / layout), *HEAVY) == []


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", [None, 4, 8])
def test_stored_weights_give_the_vectors_of_the_module_made_of_them(
    kind: str, dtype: str, bits: int | None, tmp_path: Path
) -> None:
    folder = checkpoints.make(kind, tmp_path / "published")
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    if bits is not None:
        named = encoder.release_model().backbone.named_parameters()
        compact = {name: bits for name, each in named if each.ndim == 2}
        encoder.save_pretrained(folder := tmp_path / "ours", bits=compact)
    stored = Encoder.from_pretrained(folder, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    assert stored._model.stored is not None
    before = stored.encode(TEXTS)
    print_before = stored.fingerprint
    assert stored.model.engine is not None
    assert stored._model.stored is None, "transformers' module has taken their place"
    twin.assert_same(stored.encode(TEXTS), before, 0)
    other = Encoder.from_pretrained(folder, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    assert stored.fingerprint == print_before == other.fingerprint
    plain = Encoder.from_pretrained(folder, device="cpu", dtype=dtype, inference_engine=False)  # type: ignore[arg-type]
    assert (plain.fingerprint, plain.parameters) == (print_before, other.parameters)
    if dtype == "float32":
        twin.assert_same(plain.encode(TEXTS), before, 1e-5)


@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "relu"}, {"dtype": "float16"}, {"is_decoder": True}, {"num_hidden_layers": 1}],
)
def test_what_the_engine_cannot_take_as_it_is_stored_is_left_to_transformers(
    change: dict[str, object], tmp_path: Path
) -> None:
    folder = checkpoints.make("bert", tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    assert encoder._model.stored is None
    assert np.isfinite(encoder.encode(TEXTS).dense).all()


def test_a_pickled_encoder_with_a_prefix_before_its_names_is_read_as_it_is_stored(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = checkpoints.make("xlm-roberta", tmp_path)
    expected = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    tensors = load_file(folder / "model.safetensors")
    torch.save({f"roberta.{name}": tensor for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    before = expected.encode(TEXTS)
    (folder / "model.safetensors").unlink()
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    assert encoder._model.stored is not None
    assert encoder.fingerprint == expected.fingerprint
    twin.assert_same(encoder.encode(TEXTS), before, 0)


def test_one_flipped_bit_in_the_weights_or_the_vocabulary_is_found_at_loading(tmp_path: Path) -> None:
    from triptych.errors import ModelError

    Encoder.from_pretrained(checkpoints.make("bert", tmp_path / "m"), device="cpu").save_pretrained(
        tmp_path / "o"
    )
    for name in ("model.safetensors", "tokenizer.json"):
        content = bytearray((tmp_path / "o" / name).read_bytes())
        content[-30] ^= 1
        good = (tmp_path / "o" / name).read_bytes()
        (tmp_path / "o" / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{name}: is damaged"):
            Encoder.from_pretrained(tmp_path / "o", device="cpu")
        (tmp_path / "o" / name).write_bytes(good)


def test_a_missing_file_of_examples_is_said_before_anything_large_is_loaded() -> None:
    code = """
import sys
sys.argv = ["triptych", "data", "check", "/no/such.jsonl"]
from triptych.cli.app import main
try:
    main()
except SystemExit as end:
    assert end.code == 2
"""
    assert loaded_after(code, "torch", "transformers", "tokenizers", "scipy") == []


def test_an_index_that_is_not_there_is_said_before_torch_is_loaded() -> None:
    code = """
import sys
sys.argv = ["triptych", "search", "/no/such.index", "words"]
from triptych.cli.app import main
try:
    main()
except SystemExit as end:
    assert end.code == 1
"""
    assert loaded_after(code, "torch", "transformers") == []
