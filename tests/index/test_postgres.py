"""What PostgreSQL alone needs: its addresses, rights, indexes, graph, hostile texts, and death on either side."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder, random_texts
from postgres_server import PASSWORD, PostgresServer

from triptych.errors import (
    IndexCorrupt,
    IndexExists,
    IndexFault,
    IndexMissing,
    InputError,
    StorageError,
)
from triptych.index import postgres as engine_module
from triptych.index.check import check
from triptych.index.documents import read_payloads
from triptych.index.filters import Filter
from triptych.index.index import Index
from triptych.index.postgres import PostgresEngine
from triptych.index.postgres_filters import escape, unescape, write_filter
from triptych.index.postgres_link import hide_password, read_address

ROUNDS = [pytest.param(2, id="two rounds"), pytest.param(20, id="campaign", marks=pytest.mark.campaign)]


@pytest.fixture
def place(postgres: PostgresServer) -> str:
    return postgres.place()


@pytest.fixture
def index(place: str, encoder: FakeEncoder) -> Iterator[Index]:
    with Index.create(place, encoder, multi="float32") as made:
        yield made


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://h/db",
        "postgresql://h/",
        "postgresql://h/db/",
        "postgresql://h//c",
        "postgresql://h/db/pg_c",
        f"postgresql://h/db/{'c' * 64}",
        "postgresql://h/db/c?nothing=1",
    ],
)
def test_an_address_without_database_and_collection_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="expected"):
        read_address(address)


def test_an_address_is_read_by_libpq_and_shown_without_passwords() -> None:
    address = "postgresql://me:p%40ss%2Fx@h1:1,h2:2/data/docs?sslmode=require&sslpassword=key"
    found = read_address(address)
    assert found.collection == "docs"
    assert {name: found.settings[name] for name in ("user", "password", "host", "dbname", "sslmode")} == {
        "user": "me", "password": "p@ss/x", "host": "h1,h2", "dbname": "data", "sslmode": "require"
    }  # fmt: skip
    assert found.shown == "postgresql://me:***@h1:1,h2:2/data/docs?sslmode=require&sslpassword=***"
    assert read_address("postgres:///data/docs", "other").settings["password"] == "other"
    with pytest.raises(InputError) as caught:
        read_address("postgresql://me:secret@h/db")
    assert "secret" not in str(caught.value)
    assert hide_password("postgresql://me:se/cr@et@h/db/c") == "postgresql://me:***@h/db/c"
    assert hide_password("/a/folder:x@y") == "/a/folder:x@y"


def test_a_server_that_is_not_there_and_a_wrong_password_are_faults_without_the_password(
    postgres: PostgresServer, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(IndexFault, match=r"me:\*\*\*@127.0.0.1:9.*refused") as caught:
        Index.open("postgresql://me:hidden@127.0.0.1:9/db/c", encoder)
    assert "hidden" not in str(caught.value)
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(IndexFault, match="password authentication failed") as caught:
        Index.open(postgres.address("c"), encoder, api_key="hidden")
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None
    with Index.create(postgres.place(), encoder, api_key=PASSWORD) as index:
        assert PASSWORD not in repr(index) + str(index.info())


def test_what_is_missing_or_taken_is_named(postgres: PostgresServer, encoder: FakeEncoder) -> None:
    with pytest.raises(IndexMissing, match="no collection of this name"):
        Index.open(postgres.address("nothing"), encoder)
    with pytest.raises(IndexFault, match='database "none" does not exist'):
        Index.open(postgres.address("c").replace("/postgres/c", "/none/c"), encoder)
    for taken in ("information_schema", "public"):
        postgres.execute("CREATE TABLE IF NOT EXISTS public.mine (a int)")
        with pytest.raises(IndexExists, match="something in a schema"):
            Index.create(postgres.address(taken), encoder)
    with pytest.raises(InputError, match="coarse='int8'"):
        Index.create(postgres.place(), encoder, coarse="int8")
    with pytest.raises(InputError, match=r"fde=.*compares with all documents"):
        Index.create(postgres.place(), encoder, fde=(0, 6, 1))
    with pytest.raises(InputError, match="expected an address postgresql"):
        Index.create("some/folder", encoder, engine="postgres")
    with pytest.raises(InputError, match="expected a folder"):
        Index.create(postgres.place(), encoder, engine="edge")


def test_a_user_without_rights_is_told_what_an_administrator_can_make(
    postgres: PostgresServer, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    postgres.execute("CREATE ROLE small LOGIN PASSWORD 'small'")
    monkeypatch.setenv("PGPASSWORD", "small")
    place = postgres.address("of small", "small").replace(" ", "%20")
    with pytest.raises(StorageError, match='CREATE SCHEMA "of small" AUTHORIZATION'):
        Index.create(place, encoder)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    postgres.execute('CREATE SCHEMA "of small" AUTHORIZATION small')
    monkeypatch.setenv("PGPASSWORD", "small")
    with Index.create(place, encoder) as index:
        index.add(["a"], ["w1"])
        assert index.search("w1")[0].id == "a"
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    postgres.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    postgres.execute('GRANT USAGE ON SCHEMA "of small" TO reader')
    postgres.execute('GRANT SELECT ON ALL TABLES IN SCHEMA "of small" TO reader')
    monkeypatch.setenv("PGPASSWORD", "reader")
    place = place.replace("small@", "reader@")
    with Index.open(place, encoder, read_only=True) as index:
        assert [hit.id for hit in index.search("w1", filter={"id": "a"})] == ["a"]


def test_an_extension_that_is_too_old_is_refused(index: Index) -> None:
    link = index._store.engine._link  # type: ignore[attr-defined]
    link._check_version("0.10.1")
    with pytest.raises(IndexFault, match=r"pgvector 0\.7\.4; expected 0\.8"):
        link._check_version("0.7.4")


HOSTILE = [
    "'; DROP TABLE documents; --",
    '"; DROP SCHEMA public CASCADE; --',
    "%(keys)s %s %b {where} {}",
    "\\'; SELECT pg_sleep(9); --",
    "$1",
    "a\0b",
    "\ufdd0",
    "\ufdd00",
    "\ufdd01\0",
    "NULL",
    "\\N",
    "\t\n\r",
    "🙂" * 300,
    "x" * 10_000,
]


def test_hostile_texts_are_texts_wherever_they_stand(index: Index) -> None:
    metadata: list[dict[str, Any]] = [{"v": text, text: 1, "list": [text, None]} for text in HOSTILE]
    assert index.add(HOSTILE, HOSTILE, metadata) == len(HOSTILE)
    assert index.get(HOSTILE) == [
        {"id": text, "text": text, "metadata": value} for text, value in zip(HOSTILE, metadata, strict=True)
    ]
    assert set(index.ids) == set(HOSTILE)
    for text in HOSTILE:
        assert [d["id"] for d in index.documents({"v": text})] == [text]
        assert [d["id"] for d in index.documents({"list": [text]})] == [text]
        assert [d["id"] for d in index.documents({"id": text})] == [text]
        assert text in [d["id"] for d in index.documents({"v": {"prefix": text}})]
        assert text in [d["id"] for d in index.documents({"id": {"prefix": text}})]
        if not set(text) & set('."\\[]'):
            assert [d["id"] for d in index.documents({text: 1})] == [text]
    assert index.count({"v": {"prefix": "x" * 9_999}}) == 1
    assert index.count({"v": {"prefix": "x" * 9_998 + "y"}}) == 0
    assert index.update(HOSTILE, [{"w": text} for text in HOSTILE]) == len(HOSTILE)
    assert index.count({"w": HOSTILE}) == len(HOSTILE)
    assert index.delete(HOSTILE) == len(HOSTILE)
    assert len(index) == 0


@pytest.mark.parametrize(
    "name", ['"; DROP TABLE documents; --', "a'b", "public.documents", "Ünï cödé", "x" * 63]
)
def test_hostile_names_of_collections_are_names(
    postgres: PostgresServer, encoder: FakeEncoder, name: str
) -> None:
    from urllib.parse import quote

    place = postgres.address(quote(name, safe=""))
    with Index.create(place, encoder) as index:
        index.add(["a"], ["w1"])
    with Index.open(place, encoder) as index:
        assert list(index.ids) == ["a"]
    assert postgres.execute("SELECT count(*) FROM pg_namespace WHERE nspname = %s", [name]) == [(1,)]


def test_escaped_texts_come_back_and_begin_as_they_began() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices("\0\ufdd001a", k=rng.randrange(8)))
        other = "".join(rng.choices("\0\ufdd001a", k=rng.randrange(3)))
        assert unescape(escape(text)) == text
        assert "\0" not in escape(text)
        assert escape(text).startswith(escape(other)) == text.startswith(other)


ASKED: list[dict[str, Any]] = [
    {"topic": "t7"},
    {"topic": ["t7", "t8"]},
    {"year": 1907},
    {"year": {"gte": 1907, "lt": 1909}},
    {"when": {"gte": "2024-01-02", "lt": "2024-01-03"}},
    {"path": {"prefix": "docs/7/"}},
    {"rare": {"exists": True}},
    {"id": "d7"},
    {"id": {"prefix": "d77"}},
    {"or": [{"topic": "t7"}, {"year": 1908}]},
    {"topic": "t7", "year": {"not": 1908}},
]


def test_a_filter_of_any_kind_is_answered_from_an_index(postgres: PostgresServer, index: Index) -> None:
    engine = index._store.engine
    assert isinstance(engine, PostgresEngine)
    n = 3000
    metadata = [
        {
            "topic": f"t{i % 300}",
            "year": 1800 + i % 200,
            "when": f"2024-{i % 12 + 1:02d}-{i % 25 + 1:02d}",
            "path": f"docs/{i % 500}/x.md",
        }
        | ({"rare": True} if i % 500 == 0 else {})
        for i in range(n)
    ]
    engine.add(
        index.encoder.encode_document(["w1"] * n),
        read_payloads([f"d{i}" for i in range(n)], ["w1"] * n, metadata),
    )
    index.optimize()
    for where in ASKED:
        found = Filter.of(where)
        condition, values = write_filter(found)
        plan = engine._link.run(
            lambda c, s=condition, v=values: c.execute(
                f"EXPLAIN SELECT d.key FROM documents d WHERE {s}", v
            ).fetchall()
        )
        text = "\n".join(line for (line,) in plan)
        assert "Seq Scan" not in text, (where, text)
        expected = {
            f"d{i}"
            for i in range(n)
            if found and found.matches({"id": f"d{i}", "text": "", "metadata": metadata[i]})
        }
        assert expected
        assert set(engine.ids(found)) == expected


def test_common_words_are_not_looked_for_once_rare_ones_found_enough(
    index: Index, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy import sparse

    rng = np.random.default_rng(0)
    n, k = 600, 5
    texts = random_texts(rng, n)
    vectors = encoder.encode_document(texts)
    # Column 0 is a word of every document with little weight; 1 to 40 are rare ones.
    lexical = sparse.lil_array((n, 1000), dtype=np.float32)
    for i in range(n):
        lexical[i, 0] = 0.01 + 0.01 * rng.random()
        for column in rng.integers(1, 41, 3):
            lexical[i, column] = 0.2 + rng.random()
    vectors = (
        vectors._replace(lexical=sparse.csr_array(lexical))
        if hasattr(vectors, "_replace")
        else type(vectors)(vectors.dense, sparse.csr_array(lexical), vectors.multi)
    )
    engine = index._store.engine
    assert isinstance(engine, PostgresEngine)
    engine.add(vectors, read_payloads([f"d{i}" for i in range(n)], texts, None))
    asked: list[list[int]] = []
    rows = engine._rows

    def spy(statement: str, where: Any = None, values: Any = None, **more: Any) -> list[Any]:
        if values and "some" in values:
            asked.append(values["some"])
        return rows(statement, where, values, **more)

    monkeypatch.setattr(engine, "_rows", spy)
    pruned = 0
    for turn in range(30):
        query = sparse.lil_array((1, 1000), dtype=np.float32)
        for column in (0, 999, *rng.integers(1, 41, 1 + turn % 4)):
            query[0, column] = 0.1 + rng.random()
        asked.clear()
        (found,) = engine.recall(type(vectors)(None, sparse.csr_array(query), None), "lexical", k)
        exact = np.sort((sparse.csr_array(query) @ vectors.lexical.T).toarray()[0])[::-1][:k]
        np.testing.assert_allclose(found.scores, exact, atol=1e-5)
        pruned += 0 not in asked[-1]
    assert pruned > 20
    (found,) = engine.recall(type(vectors)(None, sparse.csr_array(query), None), "lexical", n)
    assert len(found.keys) == n, "all have the common word"


def test_the_graph_finds_nearly_what_a_scan_finds_and_all_where_few_pass_the_filter(
    postgres: PostgresServer,
) -> None:
    encoder = FakeEncoder(dense=32, heads=("dense",))
    texts = random_texts(np.random.default_rng(2), 2000, words=2000)
    names = [f"{i}" for i in range(len(texts))]
    queries = [f"w7 {text}" for text in random_texts(np.random.default_rng(3), 20, words=2000)]
    place = postgres.place()
    with Index.create(place, encoder, exact_below=1000, dense="float16") as index:
        index.add(names, texts, [{"few": i % 400 == 0} for i in range(len(texts))], block=500)
        scan = index.search(queries, 10)
        index.optimize()
        index.optimize()
        graph = index.search(queries, 10)
        few = index.search(queries[0], 10, filter={"few": True})
        assert len(few) == 5
    with Index.open(place, encoder) as index:
        engine = index._store.engine
        assert isinstance(engine, PostgresEngine)
        assert engine._graph
        plan = engine._link.run(
            lambda c: c.execute(
                "EXPLAIN SELECT key FROM documents ORDER BY dense::halfvec(32) <#> %s::halfvec LIMIT 10",
                [str([0.1] * 32)],
            ).fetchall()
        )
        assert "documents_dense" in str(plan)
        index.add(["new"], ["w7 w8 w9"])
        assert index.search("w7 w8 w9", 1)[0].id == "new"
    shared = sum(len({h.score for h in a} & {h.score for h in b}) for a, b in zip(graph, scan, strict=True))
    assert shared >= 0.9 * sum(len({h.score for h in hits}) for hits in scan)


def test_a_filter_that_many_pass_is_asked_along_the_graph(postgres: PostgresServer) -> None:
    encoder = FakeEncoder(dense=32, heads=("dense",))
    n = 2000
    with Index.create(postgres.place(), encoder, exact_below=1000) as index:
        texts = random_texts(np.random.default_rng(2), n, words=2000)
        engine = index._store.engine
        assert isinstance(engine, PostgresEngine)
        metadata = [{"lang": ["en", "fr", "de"][i % 3], "year": i % 4} for i in range(n)]
        vectors = encoder.encode_document(texts, outputs=("dense",))
        engine.add(vectors, read_payloads([f"{i}" for i in range(n)], texts, metadata))
        index.optimize()
        for where in ({"lang": "fr"}, {"year": 2}):
            condition, values = write_filter(Filter.of(where))
            statement = (
                f"EXPLAIN SELECT d.key FROM documents d WHERE {condition} "
                "ORDER BY d.dense::halfvec(32) <#> %(query)s::halfvec LIMIT 10"
            )
            bound = values | {"query": str([0.1] * 32)}
            plan = engine._link.run(lambda c, s=statement, b=bound: c.execute(s, b).fetchall())
            assert "documents_dense" in str(plan)
            assert len(index.search("w1 w2", 10, filter=where)) == 10


def test_the_frame_that_one_process_finds_holds_for_all_that_have_the_index_open(
    postgres: PostgresServer, encoder: FakeEncoder
) -> None:
    place = postgres.place()
    with (
        Index.create(place, encoder, multi="4bit") as one,
        Index.open(place, encoder) as other,
        Index.open(place, encoder) as reader,
    ):
        one.add(["a"], ["w1 w2 w3"])
        other.add(["b"], ["w4 w5 w6 w7"])
        other.set_weights((1, 0, 0.5))
        hits = [each.search("w1 w4", 2, weights=(1, 1, 1)) for each in (one, other, reader)]
        assert hits[0] == hits[1] == hits[2]
        frames = [each._store.engine.layout.frame for each in (one, other, reader)]
        assert frames[0] is not None
        assert frames[0] == frames[1] == frames[2]
    with Index.open(place, encoder) as index:
        assert index._store.manifest.layout.frame == frames[0]
        assert tuple(index.weights) == (1, 0, 0.5)


def test_a_block_is_stored_whole_or_not_at_all(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    def fail(*_: object) -> None:
        raise psycopg.errors.DiskFull("no space")

    index.add(["a"], ["w1"], [{"n": 1}])
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "raise_terms", fail)  # the last step
        with pytest.raises(StorageError, match=r"no space.*Nothing that was acknowledged before is lost"):
            index.add(["a", "b"], ["w2", "w3"], [{"n": 2}, {"n": 2}])
    assert index.get(["a", "b"]) == [{"id": "a", "text": "w1", "metadata": {"n": 1}}, None]
    assert index.count({"n": 2}) == 0


def test_a_reader_reads_beside_a_writer_and_changes_nothing(
    place: str, index: Index, encoder: FakeEncoder
) -> None:
    with Index.open(place, encoder, read_only=True) as reader:
        index.add(["a"], ["w1"])
        assert [hit.id for hit in reader.search("w1")] == ["a"]
        with pytest.raises(IndexFault, match="reading alone"):
            reader.delete(["a"])
        with pytest.raises(StorageError, match="read-only transaction"):  # nor does the server let it
            reader._store.engine.delete([reader._store.engine.key("a")])


def test_weights_lie_in_the_manifest(place: str, index: Index, encoder: FakeEncoder) -> None:
    index.set_weights((1, 0.5, 0))
    with Index.open(place, encoder) as other:
        assert tuple(other.weights) == (1, 0.5, 0)
        other.set_weights(None)
    with Index.open(place, encoder) as other:
        assert "weights" not in other.info()


def test_a_check_reads_all_and_names_what_is_damaged(
    postgres: PostgresServer, place: str, index: Index
) -> None:
    index.add(["a", "b"], ["w1 w2", ""], [{"x": [1, "1", True, None, "2024-01-01"], "y": {"z": 1.5}}, {}])
    assert check(place).problems == ()
    assert check(place).documents == 2
    schema = read_address(place).collection
    postgres.execute(f"DELETE FROM \"{schema}\".fields WHERE text = '1'")
    assert "document 'a': its fields" in check(place).problems[0]
    postgres.execute(f"UPDATE \"{schema}\".documents SET multi = 'x' WHERE id = 'a'")
    assert "token vectors cannot be read" in check(place).problems[0]
    with pytest.raises(IndexCorrupt, match="cannot be read"):
        index.vectors(["a"])


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from fakes import FakeEncoder
from triptych.index.index import Index
name, turns = sys.argv[1:]
with Index.open({place!r}, FakeEncoder()) as index:
    for turn in range(int(turns)):
        ids = [f"{{name}}-{{turn}}-{{i}}" for i in range(8)] + [f"shared{{(turn + i) % 8}}" for i in range(8)]
        index.add(ids, [f"w1 {{name}} {{turn}}"] * 16, [{{"by": name, "turn": turn}}] * 16, block=16)
        print(turn, flush=True)
"""


def start_writer(place: str, name: str, turns: int) -> subprocess.Popen[str]:
    code = WRITER.format(tests=str(Path(__file__).parent), place=place)
    return subprocess.Popen([sys.executable, "-c", code, name, str(turns)], stdout=subprocess.PIPE, text=True)


def assert_whole(index: Index, place: str, name: str, acknowledged: int) -> None:
    """Whether all acknowledged turns of a writer are there, and no turn in part."""
    for turn in range(acknowledged):
        assert index.count({"by": name, "turn": turn, "id": {"prefix": f"{name}-"}}) == 8, (name, turn)
    assert index.count({"by": name, "id": {"prefix": f"{name}-"}}) in (
        8 * acknowledged,
        8 * (acknowledged + 1),
    )
    assert check(place).problems == ()


def test_processes_that_write_the_same_documents_at_once_lose_nothing(
    place: str, index: Index, encoder: FakeEncoder
) -> None:
    writers = [start_writer(place, name, 25) for name in ("one", "two")]
    for writer in writers:
        out, _ = writer.communicate(timeout=120)
        assert (len(out.split()), writer.returncode) == (25, 0)
    for name in ("one", "two"):
        assert_whole(index, place, name, 25)
    shared = index.get([f"shared{i}" for i in range(8)])
    for document in shared:
        assert document is not None
        by, turn = document["metadata"]["by"], document["metadata"]["turn"]
        assert document["text"] == f"w1 {by} {turn}", "a document is of one writer alone"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_client_killed_in_the_middle_of_writing_loses_nothing_acknowledged(
    place: str, index: Index, rounds: int
) -> None:
    rng = random.Random(0)
    for turn in range(rounds):
        writer = start_writer(place, f"p{turn}", 10_000)
        assert writer.stdout is not None
        for _ in range(rng.randint(1, 12)):
            writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.02))
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.stdout.close()
        writer.wait()
        with_rest = [int(line) for line in rest]
        acknowledged = (
            (with_rest[-1] + 1) if with_rest else index.count({"by": f"p{turn}", "id": {"prefix": "p"}}) // 8
        )
        assert_whole(index, place, f"p{turn}", acknowledged)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_server_killed_in_the_middle_of_writing_loses_nothing_and_its_clients_go_on(
    postgres: PostgresServer, place: str, index: Index, rounds: int
) -> None:
    rng = random.Random(1)
    done, stop, errors = [0], threading.Event(), list[BaseException]()

    def write() -> None:
        try:
            while not stop.is_set():
                turn = done[0]
                ids = [f"me-{turn}-{i}" for i in range(8)]
                index.add(ids, [f"w1 x{turn}"] * 8, [{"by": "me", "turn": turn}] * 8)
                done[0] = turn + 1
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(rounds):
            before = done[0]
            while done[0] < before + rng.randint(2, 10) and not errors:
                time.sleep(0.005)
            acknowledged = done[0]
            postgres.kill()
            postgres.start()
            assert len(index.search("w1", 3)) == 3
            for turn in range(acknowledged):
                assert index.count({"turn": turn}) == 8
    finally:
        stop.set()
        thread.join()
    assert errors == []
    assert_whole(index, place, "me", done[0])


def test_a_server_that_stays_away_is_a_fault_in_bounded_time(
    postgres: PostgresServer, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triptych.index import postgres_link

    monkeypatch.setattr(postgres_link, "_PAUSES", (0.01, 0.02))
    index.add(["a"], ["w1"])
    postgres.kill()
    try:
        with pytest.raises(StorageError, match="did not store it"):
            index.add(["b"], ["w1"])
        with pytest.raises(IndexFault, match="did not answer"):
            index.search("w1")
    finally:
        postgres.start()
    assert [hit.id for hit in index.search("w1")] == ["a"]


def test_a_statement_that_takes_too_long_is_given_up(postgres: PostgresServer, index: Index) -> None:
    place = index._store.place + "?options=-c%20statement_timeout%3D50"
    with Index.open(place, index.encoder) as hurried:
        link = hurried._store.engine._link  # type: ignore[attr-defined]
        with pytest.raises(IndexFault, match="longer than statement_timeout"):
            link.run(lambda connection: connection.execute("SELECT pg_sleep(5)"))
        assert len(hurried) == 0


def test_commands_take_an_address_and_never_show_its_password(
    postgres: PostgresServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.parse import quote

    from typer.testing import CliRunner

    from triptych.cli.app import app
    from triptych.cli.serve import _names, _open

    monkeypatch.delenv("PGPASSWORD")
    secret = quote(PASSWORD, safe="")
    place = postgres.address("cli").replace("postgres@", f"postgres:{secret}@") + "?sslmode=prefer"

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, words, env={"TRIPTYCH_MODEL": str(folder), "COLUMNS": "200"})
        assert secret not in done.output
        assert PASSWORD not in done.output
        assert done.exit_code == 0, done.output
        return done.output

    (tmp_path / "a.txt").write_text("hello world")
    (tmp_path / "b.txt").write_text("a retrieval model")
    assert "2 documents" in run("index", str(tmp_path), "--into", place)
    assert "2 documents (2 unchanged" in run("index", str(tmp_path), "--into", place, "--optimize")
    assert "a.txt" in run("search", place, "hello world", "-k", "1")
    assert '"engine": "postgres"' in run("info", place, "--json")
    run("export", place, "--output", str(tmp_path / "out.jsonl"))
    assert "hello world" in (tmp_path / "out.jsonl").read_text()
    assert "every document is as it was written" in run("verify", place)
    for index in (opened := _open(_names([place]))).values():
        index.close()
    assert list(opened) == ["cli"]
    wrong = CliRunner().invoke(app, ["verify", place, "--repair"])
    assert (wrong.exit_code, PASSWORD in wrong.output, secret in wrong.output) == (2, False, False)
    assert "a server checks its own files" in wrong.output
