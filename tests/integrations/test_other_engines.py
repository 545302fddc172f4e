"""The loaders of docs/other-engines.md, where the engines' packages are installed: no extra of ours has them."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from triptych import Encoder, Index
from triptych.index.tables import export
from triptych.scores.on_numpy import head_scores
from triptych.types import Encoded

# What the engines' packages warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = ["hello", "world", "model", "of", "text", "bm25", "retrieval"]
TEXTS = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS[:2]]
IDS = [f"it's {i}" for i in range(len(TEXTS))]
QUERY = "a retrieval model"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def file(tmp_path: Path, encoder: Encoder) -> Path:
    with Index.create(tmp_path / "an.index", encoder, engine="exact", multi="float32") as index:
        index.add(IDS, TEXTS, [{"n": i} for i in range(len(IDS))])
        export(index, tmp_path / "vectors.parquet")
    return tmp_path / "vectors.parquet"


def scores(encoder: Encoder, head: Any) -> dict[str, float]:
    """By our own functions, by id."""
    sides = encoder.encode_query([QUERY]), encoder.encode_document(TEXTS)
    return dict(zip(IDS, head_scores(*sides, head)[0].tolist(), strict=True))


def test_lancedb_finds_what_our_scores_rank_first(tmp_path: Path, file: Path, encoder: Encoder) -> None:
    pytest.importorskip("lancedb")
    loader = example("to_lancedb")
    table = loader.load(str(file), str(tmp_path / "lance"))
    assert table.count_rows() == len(IDS)
    vectors = Encoded.from_arrow(table.to_arrow())
    names = table.to_arrow().column("id").to_pylist()
    expected = encoder.encode_document([TEXTS[IDS.index(name)] for name in names])
    assert expected.dense is not None
    assert vectors.dense is not None
    np.testing.assert_allclose(vectors.dense, expected.dense, atol=1e-6)
    found = loader.search(table, encoder, QUERY, k=10)
    multi, dense = scores(encoder, "multi"), scores(encoder, "dense")
    recalled = sorted(IDS, key=lambda name: -dense[name])[:100]
    best = sorted((multi[name] for name in recalled), reverse=True)[:10]
    np.testing.assert_allclose([multi[name] for name, _ in found], best, atol=1e-3)


def test_milvus_scores_as_we_do_by_both_heads(tmp_path: Path, file: Path, encoder: Encoder) -> None:
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    loader = example("to_milvus")
    client = loader.load(str(file), str(tmp_path / "milvus.db"))
    try:
        vectors = encoder.encode_query([QUERY])
        assert vectors.dense is not None
        assert vectors.lexical is not None
        start, end = vectors.lexical.indptr[:2]
        weights = dict(
            zip(
                vectors.lexical.indices[start:end].tolist(),
                vectors.lexical.data[start:end].tolist(),
                strict=True,
            )
        )
        for head, query in (("dense", vectors.dense[0].tolist()), ("lexical", weights)):
            (hits,) = client.search(
                loader.NAME, [query], anns_field=head, limit=10, search_params={"metric_type": "IP"}
            )
            ours = scores(encoder, head)
            best = sorted(ours.values(), reverse=True)[:10]
            np.testing.assert_allclose([hit["distance"] for hit in hits], best, atol=1e-4)
            np.testing.assert_allclose([ours[hit["id"]] for hit in hits], best, atol=1e-4)
        (stored,) = client.query(loader.NAME, filter='metadata["n"] == 7', output_fields=["text", "metadata"])
        assert stored["text"] == TEXTS[7]
        assert stored["metadata"] in ({"n": 7}, json.dumps({"n": 7}))
        assert len(loader.search(client, encoder, QUERY, k=5)) == 5
    finally:
        client.close()


def test_the_forms_of_the_page_hold_what_the_file_has(file: Path, encoder: Encoder) -> None:
    page = (EXAMPLES.parent / "docs" / "other-engines.md").read_text("utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, "other-engines.md", "exec"), names)
    for block in re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        json.loads(block)
    row = next(row for row in pq.read_table(file).to_pylist() if row["lexical_indices"] and row["multi"])
    vectors = encoder.encode_document([row["text"]])
    assert vectors.lexical is not None
    assert vectors.multi is not None
    weights = {
        str(i): pytest.approx(w) for i, w in zip(vectors.lexical.indices, vectors.lexical.data, strict=True)
    }
    action, source = map(json.loads, names["bulk_lines"](row))
    assert action["index"]["_id"] == row["id"]
    assert source["lexical"] == weights
    assert source["metadata"] == json.loads(row["metadata"])
    np.testing.assert_allclose(source["multi"], vectors.multi[0], atol=1e-6)
    put = json.loads(json.dumps(names["vespa_put"](row)))
    assert put["fields"]["lexical"]["cells"] == weights
    np.testing.assert_allclose(list(put["fields"]["multi"]["blocks"].values()), vectors.multi[0], atol=1e-6)
    assert all(isinstance(weight, int) and weight > 0 for weight in put["fields"]["terms"].values())
    made = names["weaviate_object"](row)
    assert made["vector"]["dense"] == row["dense"]
    assert made["properties"]["key"] == row["id"]
    assert "multi" not in names["weaviate_object"](row | {"multi": []})["vector"]
