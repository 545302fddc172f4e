import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

import checkpoints
from triptych.errors import InputError, ModelError
from triptych.tools import rerank
from triptych.tools.rerank import CrossEncoder

AUTO = {"AutoConfig": "Config", "AutoModelForSequenceClassification": "Model"}
PAIRS = [(query, passage) for query in ("what is m3?", "hello") for passage in checkpoints.TEXTS]


def make(folder: Path, outputs: int) -> Path:
    """A tiny classifier with random weights."""
    tokenizer = checkpoints.xlmr_tokenizer()
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=66,
        initializer_range=0.3,
        pad_token_id=1,
        num_labels=outputs,
    )
    XLMRobertaForSequenceClassification(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("reranker"), 1)


def test_scores_are_those_of_sentence_transformers_without_its_sigmoid(folder):
    package = pytest.importorskip("sentence_transformers", reason="the group 'parity' is not installed")
    theirs = package.CrossEncoder(str(folder), device="cpu", max_length=64)
    expected = theirs.predict(PAIRS, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(
        CrossEncoder(folder, device="cpu", max_length=64).score(PAIRS), expected, atol=1e-5
    )


def test_scores_do_not_depend_on_the_batch(folder, monkeypatch):
    reranker = CrossEncoder(folder, device="cpu", max_length=32)
    whole = reranker.score(PAIRS)
    monkeypatch.setattr(rerank, "_BATCH_TOKENS", {"cpu": 1})
    np.testing.assert_allclose(reranker.score(PAIRS), whole, atol=1e-5)
    assert reranker.score([]).shape == (0,)


def test_a_folder_that_is_no_reranker_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="no re-ranker can be read"):
        CrossEncoder(tmp_path, device="cpu")
    with pytest.raises(ModelError, match="3 outputs; expected one"):
        CrossEncoder(make(tmp_path / "three", 3), device="cpu")


def test_a_folder_s_own_code_never_runs(folder, tmp_path, monkeypatch):
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    (own / "evil.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: pass\nclass Config: pass\n"
    )
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {name: f"evil.{kind}" for name, kind in AUTO.items()}}
    (own / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    with pytest.raises(ModelError, match="no re-ranker can be read"):
        CrossEncoder(own, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("arguments", [{"max_length": "5"}, {"max_length": 0}, {"max_length": 5.5}])
def test_a_length_that_is_none_is_refused(folder, arguments):
    with pytest.raises(InputError, match=r"max_length: got .*; expected"):
        CrossEncoder(folder, device="cpu", **arguments)
