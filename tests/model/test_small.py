"""The bundled model `small`: its files are what the published model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, BertConfig, BertModel

import triptych
from triptych.encode.encoder import Encoder
from triptych.model import tensors as compact

FOLDER = Path(triptych.__file__).parent / "models" / "small"

# XLM-R's ids; the first is a published example of its tokenizer.
GOLDEN_IDS = {
    "Hello World!": [0, 35378, 6661, 38, 2],
    "Où est la bibliothèque ?": [0, 180, 8612, 437, 21, 215852, 705, 2],
    "Straßenbahn fährt über die Brücke.": [0, 93240, 64658, 213272, 1659, 68, 217009, 5, 2],
    "東京は日本の首都です。": [0, 6, 22888, 342, 44554, 84206, 1453, 30, 2],
    "ภาษาไทยไม่มีช่องว่าง": [0, 6, 175832, 22138, 35272, 93176, 2],
    "Москва — столица России": [0, 25611, 292, 187656, 8568, 2],
    "القاهرة عاصمة مصر": [0, 73267, 6, 167792, 10102, 2],
    "नई दिल्ली भारत की राजधानी है": [0, 30124, 14420, 3946, 471, 48886, 460, 2],
    "Hà Nội là thủ đô của Việt Nam": [0, 8548, 9435, 580, 14515, 29349, 550, 3763, 2096, 2],
    "한국의 수도는 서울이다": [0, 152510, 49259, 769, 20899, 5769, 2],
    # Spaces are joined and trimmed; compatibility forms and half-width letters are made plain.
    "  spaces\t and\nlines  ": [0, 32628, 7, 136, 124519, 2],
    "ﬁne ① ｶﾞ … ½": [0, 5885, 106, 6, 10045, 246514, 153, 78660, 2],
    "query: what is BM25?": [0, 41, 1294, 12, 2367, 83, 90017, 2588, 32, 2],
    "<mask> x": [0, 250001, 1022, 2],
    "": [0, 2],
}

TEXTS = [
    "query: how much protein should a woman eat",
    "query: 東京の人口は?",
    "passage: Women should eat about 46 grams of protein a day.",
    "passage: 東京都の人口は約1400万人である。",
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(str(FOLDER))


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return compact.read_tensors(FOLDER / "model.safetensors")


@pytest.fixture(scope="module")
def small() -> Encoder:
    return Encoder.from_pretrained("small", device="cpu", dtype="float32")


@pytest.mark.parametrize("text", GOLDEN_IDS)
def test_the_tokenizer_gives_the_ids_of_xlm_r(tokenizer: Any, text: str) -> None:
    assert tokenizer(text)["input_ids"] == GOLDEN_IDS[text]


def test_auto_tokenizer_knows_the_special_tokens(tokenizer: Any) -> None:
    ids = {
        name: getattr(tokenizer, f"{name}_token_id")
        for name in ("bos", "cls", "pad", "eos", "sep", "unk", "mask")
    }
    assert ids == {"bos": 0, "cls": 0, "pad": 1, "eos": 2, "sep": 2, "unk": 3, "mask": 250001}
    assert len(tokenizer) == 250002
    assert tokenizer.model_max_length == 8192


def test_all_files_together_are_under_100_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 100e6


def test_the_word_vectors_are_stored_in_four_bits_and_the_layers_in_eight(
    tensors: dict[str, np.ndarray],
) -> None:
    with safe_open(FOLDER / "model.safetensors", framework="np") as file:
        described = json.loads(file.metadata()[compact.METADATA_KEY])
    bits = {name: entry["bits"] for name, entry in described.items()}
    assert len(bits) == 1 + 12 * 6 + 2  # words; matrices; positions and the multi-vector head
    assert bits.pop("embeddings.word_embeddings.weight") == 4
    assert set(bits.values()) == {8}
    for name, of in (
        ("embeddings.word_embeddings.weight", 4),
        ("encoder.layer.3.attention.self.key.weight", 8),
    ):
        rows = tensors[name][::8]  # each row is stored by itself
        again = compact.Quantized.of(rows, of).dequantize()
        np.testing.assert_allclose(again, rows, atol=1e-6 * np.abs(rows).max())


def plain_states(tensors: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """Last states of one text by transformers alone."""
    config = BertConfig(
        vocab_size=250037, hidden_size=384, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=1536, max_position_embeddings=8192, layer_norm_eps=1e-12,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    state = {n: torch.from_numpy(t) for n, t in tensors.items() if not n.startswith(("lexical_", "multi_"))}
    model.load_state_dict(state)
    with torch.inference_mode():
        return model(torch.tensor([ids])).last_hidden_state[0].numpy()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_three_outputs_are_those_of_a_plain_computation(
    small: Encoder, tensors: dict[str, np.ndarray], tokenizer: Any
) -> None:
    text = TEXTS[0]
    ids = tokenizer(text)["input_ids"]
    states = plain_states(tensors, ids)
    encoded = small.encode([text])
    assert encoded.dense is not None
    assert encoded.multi is not None
    assert encoded.lexical is not None
    np.testing.assert_allclose(encoded.dense[0], unit(states.mean(axis=0)), atol=1e-5)
    vectors = states[1:] @ tensors["multi_head.weight"].T + tensors["multi_head.bias"]
    np.testing.assert_allclose(encoded.multi[0], unit(vectors), atol=1e-5)
    weights = np.maximum(states @ tensors["lexical_head.weight"][0] + tensors["lexical_head.bias"][0], 0)
    expected = np.zeros(250037)
    for token, weight in zip(ids[1:-1], weights[1:-1], strict=True):
        expected[token] = max(expected[token], weight)
    np.testing.assert_allclose(encoded.lexical.toarray()[0], expected, atol=1e-5)


def test_the_prefixes_are_put_by_the_encoder(small: Encoder) -> None:
    query = small.encode_query([TEXTS[0].removeprefix("query: ")], outputs=("dense",)).dense
    passage = small.encode_document([TEXTS[2].removeprefix("passage: ")], outputs=("dense",)).dense
    whole = small.encode([TEXTS[0], TEXTS[2]], outputs=("dense",)).dense
    assert query is not None
    assert passage is not None
    assert whole is not None
    np.testing.assert_allclose(np.concatenate([query, passage]), whole, atol=1e-5)


def test_what_stands_behind_the_first_512_tokens_counts(small: Encoder) -> None:
    filler = " ".join(["This paragraph is about nothing in particular."] * 150)
    answer = "Women should eat about 46 grams of protein a day."
    assert len(small.encode_document([filler], outputs=("multi",)).multi[0]) > 1000  # type: ignore[index]
    scores = small.score(
        [TEXTS[0].removeprefix("query: ")], [f"{filler} {answer}", filler], weights=(1, 0.3, 1)
    )
    assert scores[0, 0] > scores[0, 1]


def test_every_language_finds_its_answer_by_every_head(small: Encoder) -> None:
    queries = [text.removeprefix("query: ") for text in TEXTS[:2]]
    passages = [text.removeprefix("passage: ") for text in TEXTS[2:]]
    for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        scores = small.score(queries, passages, weights=weights)
        assert scores.argmax(axis=1).tolist() == [0, 1]
