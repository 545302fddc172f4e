"""The collection: the same for both engines, exact where it must be, and limited where the server is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as qe
from fakes import FakeEncoder, random_texts

from triptych.errors import IndexFault, IndexForeign, InputError
from triptych.index import server
from triptych.index.filters import Filter
from triptych.index.index import Index
from triptych.index.layout import Layout, point_id
from triptych.index.store import EngineName
from triptych.types import Encoded, Ragged

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")


@pytest.mark.parametrize("multi", ["float32", "float16", "int8", "1bit", "binary", None])
@pytest.mark.parametrize("coarse", [None, "int8", "4bit"])
def test_the_embedded_engine_and_the_server_have_the_same_collection(
    new_index: Callable[..., Index], encoder: FakeEncoder, multi: Any, coarse: Any
) -> None:
    edge = new_index("edge", encoder, multi=multi, coarse=coarse, dense="float16")
    server = new_index("server", encoder, multi=multi, coarse=coarse, dense="float16")
    folder = Path(edge._store.place) / "data"
    here = json.loads((folder / "edge_config.json").read_text())
    there = server._store.engine.backend.client.get_collection("triptych").config.params  # type: ignore[attr-defined]
    assert set(here["vectors"]) == set(there.vectors)
    assert set(here["sparse_vectors"]) == set(there.sparse_vectors)
    for name, vector in here["vectors"].items():
        other = there.vectors[name].model_dump(mode="json", exclude_none=True)
        assert _shared(vector, other) == other


def _shared(ours: Any, theirs: Any) -> Any:
    """Our configuration without what the embedded engine alone can be told (such as a number of threads)."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {key: _shared(ours[key], theirs[key]) for key in theirs if key in ours}
    return ours


def test_the_embedded_engine_and_the_server_store_the_same_points(
    new_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    edge, server = new_index("edge", encoder, multi="float32"), new_index("server", encoder, multi="float32")
    for index in (edge, server):
        index.add(["a", "b"], ["w1 w2", ""], [{"x": [1, {"y": "ü"}]}, None])
    keys = [point_id("a"), point_id("b")]
    client = server._store.engine.backend.client  # type: ignore[attr-defined]
    shard: qe.EdgeShard = edge._store.engine.backend.shard  # type: ignore[attr-defined]
    theirs = {r.id: r for r in client.retrieve("triptych", keys, with_payload=True, with_vectors=True)}
    ours = {str(r.id): r for r in shard.retrieve(keys, with_payload=True, with_vector=True)}
    assert set(ours) == set(theirs) == set(keys)
    for key in keys:
        assert ours[key].payload == theirs[key].payload
        assert set(ours[key].vector) == set(theirs[key].vector)
        for head, value in ours[key].vector.items():
            other = theirs[key].vector[head]
            if head == "lexical":
                assert value.indices == other.indices
                value, other = value.values, other.values
            np.testing.assert_allclose(value, other, atol=1e-6)
    assert ours[keys[1]].payload == {"id": "b", "text": "", "metadata": {}}
    assert set(ours[keys[0]].vector) == {"dense", "lexical", "multi"}
    assert set(ours[keys[1]].vector) == {"dense"}


def test_the_multi_vector_score_is_the_mean_where_the_engine_gives_the_sum(
    new_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    index = new_index("edge", encoder, multi="float32")
    index.add(["a"], ["w1 w2 w3 w4"])
    query = encoder.encode_query(["w1 w2 w3 w4"])
    shard: qe.EdgeShard = index._store.engine.backend.shard  # type: ignore[attr-defined]
    nearest = qe.Query.Nearest(query.multi[0].tolist(), using="multi")  # type: ignore[index]
    assert shard.query(qe.QueryRequest(limit=1, query=nearest))[0].score == pytest.approx(4, abs=1e-5)
    assert index.search("w1 w2 w3 w4", 1)[0].scores["multi"] == pytest.approx(1, abs=1e-5)
    assert index._store.engine.recall(query, "multi", 1)[0].scores[0] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("coarse", ["int8", "4bit"])
@pytest.mark.parametrize("exact_below", [0, 100_000])
def test_scores_never_come_from_the_coarse_form_of_the_dense_vectors(
    new_index: Callable[..., Index], coarse: Any, exact_below: int
) -> None:
    encoder = FakeEncoder(dense=64)
    texts = random_texts(np.random.default_rng(1), 400, words=300)
    names = [f"{i}" for i in range(len(texts))]
    index = new_index("edge", encoder, multi=None, coarse=coarse, exact_below=exact_below)
    index.add(names, texts)
    index.optimize()
    dense = dict(zip(names, encoder.encode_document(texts).dense, strict=True))  # type: ignore[arg-type]
    query = encoder.encode_query("w1 w2 w3")
    hits = index.search("w1 w2 w3", 100, candidates=100)
    assert len(hits) == 100
    for hit in hits:
        assert hit.scores["dense"] == pytest.approx(float(dense[hit.id] @ query.dense[0]), abs=1e-5)  # type: ignore[index]
    exact = sorted(names, key=lambda name: -float(dense[name] @ query.dense[0]))[:10]  # type: ignore[index]
    found = {
        hit.id for hit in index.search("w1 w2 w3", 100, weights=(1, 0, 0), routes=("dense",), candidates=100)
    }
    assert len(found & set(exact)) >= 9
    # The trap: without the two parameters the engine scores by the coarse form, even points given by their ids.
    shard: qe.EdgeShard = index._store.engine.backend.shard  # type: ignore[attr-defined]
    only = qe.Filter(must=[qe.HasIdCondition({point_id(name) for name in names})])
    nearest = qe.Query.Nearest(query.dense[0].tolist(), using="dense")  # type: ignore[index]
    no_rescore = qe.SearchParams(quantization=qe.QuantizationSearchParams(rescore=False))
    naive = shard.query(qe.QueryRequest(limit=400, query=nearest, filter=only, params=no_rescore))
    if exact_below == 0:  # else the engine does not make a coarse form of so few
        by_key = {point_id(name): float(dense[name] @ query.dense[0]) for name in names}  # type: ignore[index]
        assert max(abs(point.score - by_key[str(point.id)]) for point in naive) > 1e-4


def test_the_graph_finds_nearly_what_a_scan_finds(new_index: Callable[..., Index]) -> None:
    encoder = FakeEncoder(dense=32, heads=("dense",))
    texts = random_texts(np.random.default_rng(2), 3000, words=2000)
    names = [f"{i}" for i in range(len(texts))]
    graph, scan = (new_index("edge", encoder, exact_below=limit) for limit in (0, 100_000))
    for index in (graph, scan):
        index.add(names, texts, block=1000)
        index.optimize()
    info = graph._store.engine.backend.shard.info()  # type: ignore[attr-defined]
    assert info.indexed_vectors_count == 3000
    queries = random_texts(np.random.default_rng(3), 20, words=2000)
    queries = [f"w7 {query}" for query in queries]
    found = shared = 0
    for a, b in zip(graph.search(queries, 10), scan.search(queries, 10), strict=True):
        found += len(b)
        shared += len({hit.score for hit in a} & {hit.score for hit in b})
    assert shared >= 0.9 * min(found, sum(len({h.score for h in hits}) for hits in scan.search(queries, 10)))


def test_a_layout_survives_its_json() -> None:
    layout = Layout.of({"dense": 8, "lexical": 9, "multi": 4}, {"multi": "int8", "coarse": "4bit", "ef": 10})
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert "frame" not in layout.to_json()
    assert layout.version == 2, "older versions of the package read it"
    with pytest.raises(IndexForeign):
        Layout.from_json([])


def test_the_default_is_taken_where_nothing_is_said_of_token_vectors() -> None:
    both: dict[Any, int] = {"dense": 8, "multi": 4}
    assert (Layout.of(both).multi, Layout.of(both).pool_tokens) == ("2bit", 3)
    assert Layout.of(both, {"ef": 9, "multi_width": None}).pool_tokens == 1
    assert (Layout.of(both, {"pool_tokens": 2}).multi, Layout.of(both, {"pool_tokens": 2}).pool_tokens) == (
        "2bit",
        2,
    )
    for options in ({"multi": "float16"}, {"multi": None}, {"pool_tokens": 1}):
        assert Layout.of(both, options).pool_tokens == 1  # type: ignore[arg-type]
    assert Layout.of({"multi": 4}).multi == "float16", "packed vectors would not recall"
    assert Layout.of({"dense": 4}).multi == "none"
    assert Layout.of(both, {"coarse": None}).coarse == "none"


@pytest.mark.parametrize(
    "options", [{"multi": "1bit"}, {"pool_tokens": 2}, {"multi": "int8", "multi_width": 3}]
)
def test_a_layout_with_a_frame_or_pooling_survives_its_json_and_older_versions_refuse_it(
    options: Any,
) -> None:
    layout = Layout.of({"dense": 8, "multi": 4}, options)
    framed = layout.fit(Ragged(np.eye(4, dtype=np.float32), np.asarray([0, 4])))
    for each in (layout, framed if layout.lacks_frame else layout):
        assert Layout.from_json(json.loads(json.dumps(each.to_json()))) == each
        assert each.version == 3
    if layout.lacks_frame:
        assert not framed.lacks_frame
        broken = framed.to_json() | {"frame": {"mean": "?"}}
        with pytest.raises(IndexForeign):
            Layout.from_json(broken)


def test_a_point_id_is_the_same_everywhere_and_for_ever() -> None:
    assert point_id("a") == "6261451c-2915-500d-8abd-76ed091997fe"
    assert point_id("A") != point_id("a")


@pytest.mark.parametrize("head", ["dense", "lexical", "multi"])
def test_vectors_that_do_not_fit_are_refused_before_anything_is_stored(
    engine: EngineName, encoder: FakeEncoder, new_index: Callable[..., Index], head: str
) -> None:
    store = new_index(engine, encoder, multi="float32")._store.engine
    good = encoder.encode_document(["w1", "w2"])
    payloads: list[Any] = [{"id": name, "text": "", "metadata": {}} for name in "ab"]
    parts = {"dense": good.dense, "lexical": good.lexical, "multi": good.multi}
    broken = good[:]
    array = {"dense": broken.dense, "lexical": broken.lexical.data, "multi": broken.multi.values}[head]  # type: ignore[union-attr]
    wide = {
        "dense": np.ones((2, 9), np.float32),
        "lexical": good.lexical[:, :5],  # type: ignore[index]
        "multi": Ragged.of([np.ones((1, 2), np.float32)] * 2),
    }
    cases = [
        (Encoded(**(parts | {head: None})), "expected also"),
        (Encoded(**(parts | {head: wide[head]})), "columns"),
    ]
    for vectors, text in cases:
        with pytest.raises(InputError, match=text):
            store.add(vectors, payloads)
        with pytest.raises(InputError, match=text):
            store.score(vectors, [[], []], ["dense", "lexical", "multi"])
    array[0] = np.nan
    with pytest.raises(InputError, match="finite"):
        store.add(broken, payloads)
    with pytest.raises(InputError, match="2 texts for 1 payloads"):
        store.add(good, payloads[:1])
    with pytest.raises(InputError, match="twice"):
        store.add(good, [payloads[0]] * 2)
    good.lexical.data[0] = -1  # type: ignore[union-attr]
    with pytest.raises(InputError, match="negative"):
        store.add(good, payloads)
    assert store.count() == 0


class Recorder(ThreadingHTTPServer):
    """Stands in for a server: notes the requests and gives the answers that a Qdrant server documents."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str, str | None, Any]] = []
        self.metadata: Any = None
        self.failures: list[int] = []


class _Handler(BaseHTTPRequestHandler):
    server: Recorder

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        value = json.loads(body) if body else None
        path = self.path.split("?")[0]
        self.server.requests.append((self.command, self.path, self.headers.get("api-key"), value))
        if self.server.failures:
            if status := self.server.failures.pop():
                self.send_error(status)
            return  # without one the connection ends without an answer
        result: Any = True
        if path.endswith("/exists"):
            result = {"exists": self.server.metadata is not None}
        elif (self.command, path) == ("PUT", "/pre/fix/collections/docs"):
            self.server.metadata = value["metadata"]
        elif path.endswith("/aliases"):
            result = {"aliases": []}
        elif self.command == "GET":
            result = _collection_info(self.server.metadata)
        elif path.endswith("/points/count"):
            result = {"count": 1}
        elif path.endswith("/points/query/batch"):
            result = [
                {"points": [{"id": point_id("a"), "version": 0, "score": 0.5}]} for _ in value["searches"]
            ]
        elif path.endswith("/points") and self.command == "POST":
            payload = {"id": "a", "text": "w1 w2", "metadata": {"lang": "fr"}}
            result = [{"id": key, "payload": payload} for key in value["ids"]]
        elif path.endswith(("/points", "/delete", "/index")):
            result = {"operation_id": 1, "status": "completed"}
        data = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _collection_info(metadata: Any) -> dict[str, Any]:
    return {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "points_count": 1,
        "payload_schema": {},
        "config": {
            "params": {},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
            "metadata": metadata,
        },
    }


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    server = Recorder()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_what_goes_to_a_server_is_the_layout_with_exact_and_unquantised_scoring(
    recorder: Recorder, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPTYCH_API_KEY", "secret")
    place = f"http://127.0.0.1:{recorder.server_port}/pre/fix/docs"
    with Index.create(place, encoder, multi="float16", coarse="int8") as index:
        index.add(["a"], ["w1 w2"], [{"lang": "fr"}])
        hit = index.search("w1 w2", 1, filter={"lang": "fr", "open": True})[0]
        assert (hit.id, hit.text, dict(hit.metadata)) == ("a", "w1 w2", {"lang": "fr"})
        assert hit.scores == pytest.approx({"dense": 0.5, "lexical": 0.5, "multi": 0.25})
        assert index.delete(["a"]) == 1
    with Index.open(place, encoder) as index:
        assert index.info()["layout"]["coarse"] == "int8"
    assert {key for *_, key, _ in recorder.requests} == {"secret"}
    asked = [path for _, path, *_ in recorder.requests if path != "/pre/fix/aliases"]
    assert all(path.startswith("/pre/fix/collections/docs") for path in asked)

    made = next(
        v
        for method, path, _, v in recorder.requests
        if (method, path) == ("PUT", "/pre/fix/collections/docs")
    )
    assert made["vectors"]["multi"]["hnsw_config"]["m"] == 0
    assert made["vectors"]["multi"]["datatype"] == "float16"
    assert made["vectors"]["dense"]["quantization_config"] == {"scalar": {"type": "int8"}}
    assert made["metadata"]["model"]["fingerprint"] == encoder.fingerprint

    point = next(v for _, path, _, v in recorder.requests if path.endswith("/points?wait=true"))["points"][0]
    assert point["id"] == point_id("a")
    assert point["payload"] == {"id": "a", "text": "w1 w2", "metadata": {"lang": "fr"}}
    assert set(point["vector"]) == {"dense", "lexical", "multi"}

    batches = [
        v["searches"] for _, path, _, v in recorder.requests if path.split("?")[0].endswith("/query/batch")
    ]
    searches = [search for batch in batches for search in batch]
    assert [search["using"] for search in searches] == ["dense", "lexical", "dense", "lexical", "multi"]
    assert all(s["params"] == {"exact": True, "quantization": {"ignore": True}} for s in _plain(searches))
    conditions = searches[0]["filter"]["must"]
    assert conditions[0]["should"][0] == {"key": '"metadata"."lang"', "match": {"value": "fr"}}
    assert conditions[1]["should"][0]["match"] == {"value": True}
    assert all(search["filter"]["must"] == [{"has_id": [point_id("a")]}] for search in searches[2:])


def test_the_fields_of_a_filter_are_indexed_once_and_of_the_kind_that_it_needs(
    recorder: Recorder, encoder: FakeEncoder
) -> None:
    place = f"http://127.0.0.1:{recorder.server_port}/pre/fix/docs"
    where = {
        "lang": ["fr", "de"],
        "or": [{"open": True}, {"not": {"year": {"gte": 2020}}}],
        "part.no": 5,
        "when": {"lt": "2024-01-01"},
        "path": {"prefix": "a/"},
        "seen": datetime(2024, 1, 1),
        "id": "a",
        "author": {"exists": True},
    }
    with Index.create(place, encoder, multi="float16") as index:
        index.add(["a"], ["w1"])
        engine, query = index._store.engine, encoder.encode_query("w1")
        for _ in range(2):
            engine.recall(query, "dense", 1, Filter.of(where))
            engine.count(Filter.of(where))
        engine.recall(query, "lexical", 1, Filter.of({"lang": 7, "new": 1}))
    made = [
        v
        for method, path, _, v in recorder.requests
        if (method, path.split("?")[0][-6:]) == ("PUT", "/index")
    ]
    assert [(v["field_name"], v["field_schema"]) for v in made] == [
        ('"metadata"."lang"', "keyword"),
        ('"metadata"."open"', "bool"),
        ('"metadata"."year"', "float"),
        ('"metadata"."part"."no"', "float"),
        ('"metadata"."when"', "datetime"),
        ('"metadata"."path"', "keyword"),
        ('"metadata"."seen"', "datetime"),
        ('"metadata"."author"', "keyword"),
        ('"metadata"."new"', "float"),
    ]


def test_an_address_says_how_a_collection_is_spread_over_a_cluster(
    recorder: Recorder, encoder: FakeEncoder
) -> None:
    address = f"http://127.0.0.1:{recorder.server_port}/pre/fix/docs"
    Index.create(f"{address}?shards=6&replicas=3&write_consistency=2&timeout=7", encoder).close()
    made = next(
        v for method, path, _, v in recorder.requests if (method, path.split("?")[0][-5:]) == ("PUT", "/docs")
    )
    assert (made["shard_number"], made["replication_factor"], made["write_consistency_factor"]) == (6, 3, 2)
    assert any("timeout=7" in path for _, path, *_ in recorder.requests)
    for wrong in ("shards=0", "shards=many", "shard=1", "replicas"):
        with pytest.raises(InputError, match=r"expected http.*shards, replicas"):
            Index.create(f"{address}?{wrong}", encoder)


def test_requests_that_are_lost_or_refused_for_a_while_are_sent_again(
    recorder: Recorder, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PAUSES", (0.01, 0.01, 0.01))
    with Index.create(
        f"http://127.0.0.1:{recorder.server_port}/pre/fix/docs", encoder, multi="float16"
    ) as index:
        for failures in ([503], [429, 0], [0, 502, 504]):
            recorder.failures = list(failures)
            before = len(recorder.requests)
            index.add(["a"], ["w1"])
            sent = [path for _, path, *_ in recorder.requests[before:]]
            assert len(sent) >= len(failures) + 1
            assert recorder.failures == []
        for failures, status in (([503] * 4, "503"), ([500], "500")):
            recorder.failures = list(failures)
            with pytest.raises(IndexFault, match=status):
                index.search("w1", 1)
            assert recorder.failures == []
        assert index.search("w1", 1)[0].id == "a"


def _plain(value: Any) -> Any:
    """JSON without the nulls and the defaults that the client may or may not send."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None and v is not False}
    return [_plain(item) for item in value] if isinstance(value, list) else value
