"""The ONNX graph gives the three representations that torch gives."""

import json
from pathlib import Path

import numpy as np
import pytest

import checkpoints
from checkpoints import TEXTS
from triptych import Encoder
from triptych.errors import InputError, StorageError
from triptych.model.packed import lexical_rows

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def padded(encoder: Encoder, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """What a caller of the graph has to make."""
    every = encoder.config.mcls_every if encoder.config.pooling == "mcls" else None
    ids = encoder.tokenizer.encode(texts, max_length=encoder.config.max_length, mcls_every=every).ids
    width = max(len(text) for text in ids)
    mask = np.array([[i < len(text) for i in range(width)] for text in ids], dtype=np.int64)
    filled = [
        np.pad(text, (0, width - len(text)), constant_values=encoder.tokenizer.special.pad) for text in ids
    ]
    return np.array(filled), mask


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("xlm-roberta", {}),
        ("bert", {"pooling": "mean", "multi_first": True, "multi_last": False}),
        ("xlm-roberta", {"pooling": "mcls", "mcls_every": 4}),
        ("modernbert", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.get("pooling", "cls")),
)
def test_all_heads_of_one_graph_equal_torch(tmp_path: Path, kind: str, settings: dict[str, object]) -> None:
    folder = checkpoints.make(kind, tmp_path / "model")
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32", **settings)
    encoder.export_onnx(tmp_path / "m3.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m3.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["dense", "lexical", "multi"]
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["triptych"]) == encoder.config.to_dict()
    assert facts["fingerprint"] == encoder.fingerprint
    # Numbers of texts and tokens other than those of the export, one text alone among them.
    for texts in (TEXTS, TEXTS[:1], TEXTS[3:6]):
        ids, mask = padded(encoder, texts)
        dense, lexical, multi = session.run(None, {"input_ids": ids, "attention_mask": mask})
        expected = encoder.encode(texts)
        np.testing.assert_allclose(dense, expected.dense, atol=1e-5)
        flat = lexical_rows(
            ids.ravel(), lexical.ravel(), np.arange(len(texts) + 1) * ids.shape[1], encoder.widths["lexical"]
        )
        np.testing.assert_allclose(flat.toarray(), expected.lexical.toarray(), atol=1e-5)
        for i in range(len(texts)):
            kept = multi[i][np.abs(multi[i]).sum(1) > 0]
            np.testing.assert_allclose(kept, expected.multi[i], atol=1e-5)


def test_a_file_of_another_kind_or_in_no_folder_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.make("bert", tmp_path / "model")
    encoder = Encoder.from_pretrained(folder, device="cpu")
    with pytest.raises(InputError, match=r"\.onnx"):
        encoder.export_onnx(tmp_path / "model.bin")
    with pytest.raises(StorageError, match="absent"):
        encoder.export_onnx(tmp_path / "absent" / "m3.onnx")
    assert encoder.describe()["engine"] == "packed", "the export leaves the encoder's own engine alone"
    assert encoder.describe()["kernels"] != "transformers"
