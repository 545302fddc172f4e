"""Checkpoint folders: round trips between the layouts, and clear errors for what is missing or broken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints
import triptych
import twin
from checkpoints import TEXTS, WIDTH
from triptych import Encoder
from triptych.errors import InputError, ModelError
from triptych.io import DIGESTS, verify_digests
from triptych.model.tensors import Quantized, read_stored


def load(folder: Path, **settings: object) -> Encoder:
    return Encoder.from_pretrained(folder, device="cpu", dtype="float32", **settings)  # type: ignore[arg-type]


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A published folder that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def ours(own_encoder: Encoder, tmp_path: Path) -> Path:
    """A folder in our layout that a test may spoil; without digests, which would find most of it first."""
    own_encoder.save_pretrained(tmp_path / "ours")
    (tmp_path / "ours" / DIGESTS).unlink()
    return tmp_path / "ours"


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["triptych"] |= values
    path.write_text(json.dumps(config))


def test_published_to_ours_and_back_keeps_fingerprint_and_vectors(
    any_own_encoder: Encoder, tmp_path: Path
) -> None:
    any_own_encoder.save_pretrained(tmp_path / "ours")
    first = load(tmp_path / "ours")
    first.save_pretrained(tmp_path / "published", layout="published")
    second = load(tmp_path / "published")
    assert first.fingerprint == second.fingerprint == any_own_encoder.fingerprint
    for again in (first, second):
        twin.assert_same(again.encode(TEXTS), any_own_encoder.encode(TEXTS))


def test_settings_survive_in_our_layout(folder: Path, tmp_path: Path) -> None:
    changes = {
        "pooling": "mean",
        "query_prefix": "query ",
        "max_length": 40,
        "multi_first": True,
        "multi_last": False,
    }
    changed = load(folder, **changes)
    changed.save_pretrained(tmp_path)
    assert load(tmp_path).config == changed.config
    assert load(tmp_path).fingerprint == Encoder.from_pretrained(tmp_path).fingerprint


@pytest.mark.parametrize(
    "settings", [{"lexical": False}, {"multi_dim": None}, {"lexical": False, "multi_dim": None}]
)
def test_a_model_without_some_heads_survives_in_our_layout(
    folder: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    plain = checkpoints.without_heads(folder, tmp_path / "plain")
    encoder = Encoder.from_backbone(plain, device="cpu", **settings)
    encoder.save_pretrained(tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert again.heads == encoder.heads
    twin.assert_same(again.encode(TEXTS), encoder.encode(TEXTS))


def test_new_heads_depend_on_the_seed_alone(folder: Path, tmp_path: Path) -> None:
    plain = checkpoints.without_heads(folder, tmp_path / "plain")
    state = torch.random.get_rng_state()
    prints = [Encoder.from_backbone(plain, device="cpu", seed=seed).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_fingerprint_depends_on_weights_configuration_and_tokenizer(folder: Path, copy: Path) -> None:
    plain = load(folder).fingerprint
    assert plain == Encoder.from_pretrained(folder, device="cpu", dtype="bfloat16").fingerprint
    assert plain != load(folder, query_prefix="q").fingerprint
    head = torch.load(copy / "sparse_linear.pt")
    torch.save(head | {"bias": head["bias"] + 1}, copy / "sparse_linear.pt")
    assert plain != load(copy).fingerprint
    shutil.copy(folder / "sparse_linear.pt", copy)
    assert plain == load(copy).fingerprint
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text.replace("defination", "definition"))
    assert plain != load(copy).fingerprint


@pytest.mark.parametrize(("bits", "cosine"), [(8, 0.999), (4, 0.9)])
def test_large_tables_can_be_stored_in_few_bits(
    folder: Path, tmp_path: Path, bits: int, cosine: float
) -> None:
    encoder = load(folder)
    parameters = load(folder).release_model().named_parameters()
    names = [name.removeprefix("backbone.") for name, p in parameters if p.ndim == 2]
    encoder.save_pretrained(tmp_path / "compact", bits=dict.fromkeys(names, bits))
    encoder.save_pretrained(tmp_path / "plain")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("compact", "plain")]
    assert sizes[0] < 0.6 * sizes[1]
    compact = load(tmp_path / "compact").encode(TEXTS, outputs="dense").dense
    assert (compact * encoder.encode(TEXTS, outputs="dense").dense).sum(axis=1).min() > cosine


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", None])
def test_matrices_of_few_bits_stay_as_they_are_when_a_model_is_saved_again(
    folder: Path, tmp_path: Path, dtype: Any
) -> None:
    words, other = "embeddings.word_embeddings.weight", "multi_head.weight"
    load(folder).save_pretrained(tmp_path / "compact", bits={words: 4, other: 8})
    again = Encoder.from_pretrained(tmp_path / "compact", device="cpu", dtype=dtype)
    again.save_pretrained(tmp_path / "again")
    again.save_pretrained(tmp_path / "again")  # in the place of itself
    first, second = (tmp_path / name / "model.safetensors" for name in ("compact", "again"))
    assert first.read_bytes() == second.read_bytes()
    # What was changed is not small any more; the rest is.
    changed = load(tmp_path / "compact")
    with torch.no_grad():
        changed.release_model().multi_head.weight.add_(1)
    changed.save_pretrained(tmp_path / "changed")
    stored = read_stored(tmp_path / "changed" / "model.safetensors")
    assert isinstance(stored[words], Quantized)
    assert not isinstance(stored[other], Quantized)


@pytest.mark.parametrize("layout", ["triptych", "published"])
def test_the_card_comes_along_with_the_weights_that_it_speaks_of(
    folder: Path, tmp_path: Path, layout: Any
) -> None:
    load(folder).save_pretrained(tmp_path / "model")
    card = tmp_path / "model" / "README.md"
    card.write_bytes(b"---\nlicense: mit\n---\n# A card\n")
    for dtype in ("float32", None):
        encoder = Encoder.from_pretrained(tmp_path / "model", device="cpu", dtype=dtype)
        encoder.save_pretrained(tmp_path / f"copy of {dtype}", layout=layout)
        assert (tmp_path / f"copy of {dtype}" / "README.md").read_bytes() == card.read_bytes()
    encoder.save_pretrained(tmp_path / "model")  # in the place of itself
    assert card.read_bytes().endswith(b"# A card\n")
    with torch.no_grad():
        encoder.release_model().multi_head.weight.add_(1)
    encoder.save_pretrained(tmp_path / "changed", layout=layout)
    assert not (tmp_path / "changed" / "README.md").exists()


def test_a_name_that_is_no_tensor_cannot_be_stored_in_few_bits(own_encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no_such_tensor"):
        own_encoder.save_pretrained(tmp_path, bits={"no_such_tensor": 4})


def test_weights_in_half_precision_are_read(encoder: Encoder, folder: Path, copy: Path) -> None:
    for kind in (torch.float16, torch.bfloat16):
        tensors = {name: tensor.to(kind) for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        rows = load(copy).encode(TEXTS, outputs="dense").dense
        assert (rows * encoder.encode(TEXTS, outputs="dense").dense).sum(axis=1).min() > 0.999


@pytest.mark.parametrize(
    "settings", [{"pooling": "mean"}, {"query_prefix": "query "}, {"multi_first": True}, {"pooling": "mcls"}]
)
def test_what_the_published_layout_cannot_hold_is_not_written(
    folder: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    with pytest.raises(InputError, match="layout 'published' holds"):
        load(folder, **settings).save_pretrained(tmp_path, layout="published")


def test_an_unknown_layout_is_an_error(own_encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layout: got 'onnx'"):
        own_encoder.save_pretrained(tmp_path, layout="onnx")


def test_setting_another_width_of_a_head_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="multi_dim"):
        load(folder, multi_dim=8)


def test_a_length_beyond_the_positions_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="max_length: got 65; the backbone has 64"):
        load(folder, max_length=65)


PUBLISHED: dict[str, tuple[Callable[[Path], object], str]] = {
    "sparse_linear.pt missing": (lambda f: (f / "sparse_linear.pt").unlink(), r"sparse_linear\.pt: missing"),
    "colbert_linear.pt missing": (
        lambda f: (f / "colbert_linear.pt").unlink(),
        r"colbert_linear\.pt: missing",
    ),
    "a head is junk": (
        lambda f: (f / "sparse_linear.pt").write_bytes(b"junk"),
        r"sparse_linear\.pt: cannot be read",
    ),
    "a head is empty": (
        lambda f: (f / "sparse_linear.pt").write_bytes(b""),
        r"sparse_linear\.pt: cannot be read",
    ),
    "a head holds code": (
        lambda f: torch.save(print, f / "sparse_linear.pt"),
        r"sparse_linear\.pt: cannot be read",
    ),
    "a head has no bias": (
        lambda f: torch.save({"weight": torch.ones(1, WIDTH)}, f / "sparse_linear.pt"),
        r"sparse_linear\.pt: expected the tensors weight and bias",
    ),
    "a head holds numbers": (
        lambda f: torch.save({"weight": 1, "bias": 2}, f / "colbert_linear.pt"),
        r"colbert_linear\.pt: expected the tensors weight and bias",
    ),
    "a head is too wide": (
        lambda f: torch.save(torch.nn.Linear(WIDTH + 1, 1).state_dict(), f / "sparse_linear.pt"),
        rf"sparse_linear\.pt: weight has shape \(1, {WIDTH + 1}\), expected \(1, {WIDTH}\)",
    ),
    "a head's bias is too long": (
        lambda f: torch.save(
            {"weight": torch.ones(8, WIDTH), "bias": torch.ones(9)}, f / "colbert_linear.pt"
        ),
        r"colbert_linear\.pt: bias has shape \(9,\), expected \(8,\)",
    ),
    "no encoder": (lambda f: (f / "model.safetensors").unlink(), "no encoder can be read"),
    "a broken encoder": (lambda f: (f / "model.safetensors").write_bytes(b"junk"), "no encoder can be read"),
    "no tokenizer": (
        lambda f: [path.unlink() for path in f.glob("tokenizer*")],
        "no tokenizer can be read",
    ),
    "no config.json": (lambda f: (f / "config.json").unlink(), r"config\.json"),
    "config.json is broken": (
        lambda f: (f / "config.json").write_text("{"),
        r"config\.json: cannot be read as JSON",
    ),
    "config.json is a list": (
        lambda f: (f / "config.json").write_text("[]"),
        r"config\.json: expected a JSON object",
    ),
    "an unknown architecture": (
        lambda f: (f / "config.json").write_text('{"model_type": "no such model"}'),
        "no such model",
    ),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_a_broken_published_folder_is_an_error_that_names_the_file(copy: Path, case: str) -> None:
    spoil, message = PUBLISHED[case]
    spoil(copy)
    with pytest.raises(ModelError, match=message):
        load(copy)


def drop_tensor(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_an_encoder_with_a_missing_weight_is_an_error_and_not_a_random_one(copy: Path) -> None:
    drop_tensor(copy, "encoder.layer.0.attention.self.query.weight")
    with pytest.raises(ModelError, match=r"missing or misshaped.*query\.weight"):
        load(copy)


OURS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"model\.safetensors: there is no such file",
    ),
    "broken weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"junk"),
        r"model\.safetensors: cannot be read",
    ),
    "half of the weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:20000]),
        r"model\.safetensors: cannot be read",
    ),
    "a head missing": (
        lambda f: drop_tensor(f, "lexical_head.weight"),
        r"model\.safetensors: the tensor lexical_head\.weight is missing",
    ),
    "a weight of the encoder missing": (
        lambda f: drop_tensor(f, "embeddings.word_embeddings.weight"),
        r"model\.safetensors: does not fit.*word_embeddings\.weight is missing",
    ),
    "a head that the configuration does not mention": (
        lambda f: change_config(f, lexical=False),
        r"model\.safetensors: has .*lexical_head",
    ),
    "a head of another width": (
        lambda f: change_config(f, multi_dim=8),
        r"multi_head\.weight has shape \(32, 32\), expected \(8, 32\)",
    ),
    "more tokens than positions": (
        lambda f: change_config(f, max_length=8192),
        "max_length 8192.*64 usable positions",
    ),
}


@pytest.mark.parametrize("case", OURS)
def test_a_broken_folder_of_ours_is_an_error_that_names_the_file(ours: Path, case: str) -> None:
    spoil, message = OURS[case]
    spoil(ours)
    with pytest.raises(ModelError, match=message):
        load(ours)


def test_an_unknown_key_in_the_configuration_is_an_error_that_names_the_nearest(ours: Path) -> None:
    change_config(ours, qurey_prefix="q")
    with pytest.raises(
        InputError, match=r"config\.json: triptych: unknown key 'qurey_prefix'.*'query_prefix'"
    ):
        load(ours)


def test_a_layout_of_the_future_is_an_error(ours: Path) -> None:
    change_config(ours, layout=2)
    with pytest.raises(InputError, match="layout 2; this version of triptych reads layout 1"):
        load(ours)


@pytest.mark.parametrize(
    "values",
    [
        {"pooling": "max"},
        {"mcls_every": 0},
        {"max_length": 3},
        {"multi_dim": 0},
        {"dense": False, "lexical": False, "multi_dim": None},
    ],
)
def test_values_out_of_range_are_errors(ours: Path, values: dict[str, object]) -> None:
    change_config(ours, **values)
    with pytest.raises(InputError, match="M3Config"):
        load(ours)


def test_a_folder_that_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a checkpoint folder"):
        load(tmp_path)


def test_saving_over_an_old_checkpoint_replaces_it(folder: Path, tmp_path: Path) -> None:
    load(folder).save_pretrained(tmp_path)
    other = load(checkpoints.make("xlm-roberta", tmp_path / "other", seed=5))
    other.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert again.fingerprint == other.fingerprint
    np.testing.assert_allclose(again.encode(TEXTS).dense, other.encode(TEXTS).dense, atol=1e-6)


@pytest.mark.parametrize("layout", ["triptych", "published", "sentence-transformers"])
def test_one_flipped_bit_of_weights_or_vocabulary_is_an_error_that_names_the_file(
    encoder: Encoder, tmp_path: Path, layout: str
) -> None:
    encoder.save_pretrained(tmp_path, layout=layout)
    files = [tmp_path / name for name in json.loads((tmp_path / DIGESTS).read_text())]
    assert {"model.safetensors", "tokenizer.json"} <= {path.name for path in files}
    assert verify_digests(tmp_path) == {}
    for path in files:
        whole = path.read_bytes()
        for place in (len(whole) // 3, len(whole) - 2):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            assert list(verify_digests(tmp_path)) == [path]
            with pytest.raises(ModelError, match=rf"{path.name}: is damaged or was changed"):
                load(tmp_path)
        path.write_bytes(whole)
    load(tmp_path)


def test_a_file_that_the_digests_name_must_be_there(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors: missing"):
        load(tmp_path)


def test_the_bundled_model_is_whole() -> None:
    folder = Path(triptych.__file__).parent / "models" / "small"
    assert "model.safetensors" in json.loads((folder / DIGESTS).read_text())
    assert verify_digests(folder) == {}


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "sparse_linear.pt"])
def test_a_git_lfs_pointer_in_place_of_a_file_says_what_it_is(copy: Path, name: str) -> None:
    (copy / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(ModelError, match=rf"{name}: is a Git LFS pointer.*git lfs pull"):
        load(copy)
