"""A million real passages, encoded by the bundled model, indexed and searched; other engines beside it.

    python benchmarks/million.py PASSAGES FOLDER --out benchmarks/results/million.jsonl --seconds 550

PASSAGES is a folder of `million_passages.py`: passages-*.jsonl.zst, and questions.jsonl with what is asked. FOLDER gets
the vectors and the indexes. Several processes encode on one device, pool the token vectors of each passage, and note
the ten best passages of their blocks by each score for every question; meanwhile the indexes of all sizes are built
from what is there, each by one process with processors of its own, by the steps of `index_scale.py`. Searching
processes have two processors. Each result is written as a line the moment it is there, so that a run that is ended
early has said what it knew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import index_scale
from index_scale import blocks, measure, memory, queries_of, run, shared, stored_best
from triptych.index.layout import DEFAULT_TOKENS, Layout
from triptych.index.storage import folder_size
from triptych.scores.packing import pack, unpack
from triptych.scores.tokens import Tokens, pool
from triptych.types import Encoded, HeadWeights, Ragged

PEERS = ("bm25s", "lancedb", "qdrant-client", "fast-plaid")
SEED = 7
TOKENS_AT_ONCE = 32_768  # of one pass, so that many processes fit on a device
PATIENCE = 15
"""Seconds that all searches of one kind may take of another engine."""


def read_passages(folder: Path) -> Iterator[tuple[str, str]]:
    """Ids and texts, equal texts once."""
    import io

    import zstandard

    seen = set[int]()
    for path in sorted(folder.glob("passages-*.jsonl.zst")):
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            for line in io.TextIOWrapper(stream, "utf-8"):
                row = json.loads(line)
                if (key := hash(row["text"])) not in seen:
                    seen.add(key)
                    yield row["id"], row["text"]


def cut(passages: Path, texts: Path, limit: int, block: int) -> int:
    """Writes blocks of ids and texts in an order by chance, so that a smaller collection is a sample of all."""
    rows = list(read_passages(passages))
    order = np.random.default_rng(SEED).permutation(len(rows))[:limit]
    for number, start in enumerate(range(0, len(order), block)):
        some = [rows[int(i)] for i in order[start : start + block]]
        write(
            texts / f"{number:08d}.json",
            json.dumps([[i for i, _ in some], [text for _, text in some]]).encode(),
        )
    write(texts / "end", b"")
    return len(order)


def write(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all; it need not outlive the machine."""
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(data)
    beside.rename(path)


def comes(path: Path, end: Path, until: float) -> bool:
    """Waits for a file; whether it is there."""
    while not path.exists():
        if end.exists() or time.time() > until:
            return path.exists()
        time.sleep(0.05)
    return True


def encode(job: dict[str, Any], worker: int) -> dict[str, Any]:
    """Encodes blocks that no other process has; the first also the questions and the frame of the token vectors."""
    import torch
    from safetensors.numpy import load, save

    from triptych.encode.encoder import Encoder
    from triptych.scores.on_torch import device_scoring

    texts, stream = Path(job["texts"]), Path(job["stream"])
    encoder = Encoder.from_pretrained("small", device=job["device"])
    if worker == 0:
        asked = [json.loads(line)["text"] for line in Path(job["questions"]).read_text().splitlines()]
        write(stream / "queries", save(pack(encoder.encode_query(asked))))
        first = texts / f"{0:08d}.json"
        if not comes(first, texts / "end", job["until"]):
            raise SystemExit(f"{first}: there are no passages")
        multi = encoder.encode_document(json.loads(first.read_text())[1][:256]).multi
        assert multi is not None
        layout = Layout.of(encoder.widths, job["options"] | {"pool_tokens": 1})
        layout = layout.fit(pool(multi, job["pool"])) if layout.lacks_frame else layout
        write(stream / "layout.json", json.dumps(layout.to_json()).encode())
    while not (stream / "layout.json").exists():
        time.sleep(0.05)
    layout = Layout.from_json(json.loads((stream / "layout.json").read_text()))
    queries = unpack(load((stream / "queries").read_bytes()))
    scoring = device_scoring(encoder.device, torch.float32)(queries)
    spent, passages, tokens, cpu = (
        {"encode": 0.0, "pool": 0.0, "compare": 0.0, "write": 0.0},
        0,
        0,
        time.process_time(),
    )
    number = -1
    while comes(path := texts / f"{number + 1:08d}.json", texts / "end", job["until"]):
        number += 1
        if time.time() > job["until"] or not claim(stream / f"{number:08d}.claim"):
            continue
        ids, own = json.loads(path.read_text())
        clock = [time.perf_counter()]
        encoded = encoder.encode_document(own, token_budget=TOKENS_AT_ONCE)
        clock.append(time.perf_counter())
        assert encoded.multi is not None
        pooled = replace(encoded, multi=pool(encoded.multi, job["pool"]))
        clock.append(time.perf_counter())
        stored = replace(pooled, multi=Tokens.pack(pooled.multi, layout.tokens).unpack())  # type: ignore[arg-type]
        best = ten_best(ids, queries, scoring(encoded, ("dense", "lexical", "multi")))
        best = {
            name if name in ("dense", "lexical") else f"{name}, as encoded": rows
            for name, rows in best.items()
        }
        kept = ten_best(ids, queries, scoring(stored, ("dense", "lexical", "multi")))
        best |= {"all": kept["all"], "multi": kept["multi"]}
        clock.append(time.perf_counter())
        half = Ragged(pooled.multi.values.astype(np.float16), pooled.multi.offsets)  # type: ignore[union-attr]
        name = f"{number:08d}"
        write(stream / f"{name}.ids.json", json.dumps(ids).encode())
        write(stream / f"{name}.texts.json", json.dumps(own).encode())
        write(stream / f"{name}.best.json", json.dumps(best).encode())
        write(stream / f"{name}.safetensors", save(pack(replace(pooled, multi=half))))
        clock.append(time.perf_counter())
        for step, seconds in zip(spent, np.diff(clock), strict=True):
            spent[step] += float(seconds)
        passages, tokens = passages + len(ids), tokens + int(encoded.multi.lengths.sum())
    return {
        "passages": passages,
        "tokens": tokens,
        "seconds": spent,
        "processor_seconds": time.process_time() - cpu,
    }


def claim(path: Path) -> bool:
    """Whether no other process has it."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def ten_best(
    ids: list[str], queries: Encoded, scores: dict[str, Any]
) -> dict[str, list[list[tuple[float, str]]]]:
    """Of a block, by every score and by their sum."""
    from triptych.scores.on_numpy import combine, top_k

    scores = {**scores, "all": combine(scores, HeadWeights.default(list(scores)), queries)}
    found: dict[str, list[list[tuple[float, str]]]] = {}
    for name, values in scores.items():
        rows = [(row, [int(i) for i in top_k(row, 10) if name != "lexical" or row[i] > 0]) for row in values]
        found[name] = [[(round(float(row[i]), 6), ids[i]) for i in best] for row, best in rows]
    return found


def peer(name: str, place: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Another engine on the same vectors: what building takes, and the ten best of each question."""
    before = memory()
    began = time.perf_counter()
    ask = BUILD[name](place, job)
    found: dict[str, Any] = {
        "build_seconds": round(time.perf_counter() - began, 1),
        "before": before,
        **memory(),
    }
    found["disk_mb"] = round(folder_size(place) / 1e6, 1) if place.exists() else 0
    best, number = stored_best(job), len(queries_of(job))
    for route, search in ask.items():
        hits: list[list[str]] = [[]] * number

        def one(i: int, hits: list[list[str]] = hits, search: Callable[[int], list[str]] = search) -> None:
            hits[i] = search(i)

        began = time.perf_counter()
        one(0)
        some = min(number, max(10, int(PATIENCE / (time.perf_counter() - began))))
        found[route] = measure(one, some) | {"questions": some}
        if (head := route.split(",")[0]) in best:
            found[route]["recall"] = shared(best[head][:some], hits[:some])
    return found


def bm25s(place: Path, job: dict[str, Any]) -> dict[str, Callable[[int], list[str]]]:
    """Words of the texts; no vectors."""
    import bm25s as library

    ids, texts = list[str](), list[str]()
    for some, own, _ in blocks(job):
        ids += some
        texts += own
    index = library.BM25()
    index.index(library.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)
    index.save(place)
    asked = [json.loads(line)["text"] for line in Path(job["questions"]).read_text().splitlines()]

    def words(i: int) -> list[str]:
        tokens = library.tokenize([asked[i]], stopwords=None, show_progress=False)
        return [ids[int(row)] for row in index.retrieve(tokens, k=10, show_progress=False)[0][0]]

    return {"words": words}


def lancedb(place: Path, job: dict[str, Any]) -> dict[str, Callable[[int], list[str]]]:
    """Dense vectors, compared with all and through its index (IVF_HNSW_SQ)."""
    import lancedb as library
    import pyarrow as pa

    database, table = library.connect(place), None
    for ids, texts, block in blocks(job):
        flat = pa.array(block.dense.ravel())  # type: ignore[union-attr]
        columns = {
            "id": ids,
            "text": texts,
            "vector": pa.FixedSizeListArray.from_arrays(flat, index_scale.WIDTH),
        }
        batch = pa.table(columns)
        table = database.create_table("passages", batch) if table is None else (table.add(batch), table)[1]
    assert table is not None
    queries = queries_of(job)
    if job["passages"] >= 10_000:
        table.create_index("vector", config=library.index.HnswSq(distance_type="dot"))

    def ask(i: int, *, everything: bool) -> list[str]:
        query = table.search(queries.dense[i]).distance_type("dot").limit(10)  # type: ignore[index]
        query = query.bypass_vector_index() if everything else query
        return query.select(["id", "_distance"]).to_arrow()["id"].to_pylist()

    return {
        "dense, index": lambda i: ask(i, everything=False),
        "dense, all": lambda i: ask(i, everything=True),
    }


def qdrant_client(place: Path, job: dict[str, Any]) -> dict[str, Callable[[int], list[str]]]:
    """The local mode: NumPy in the process, everything compared."""
    import warnings

    from qdrant_client import QdrantClient, models

    warnings.simplefilter("ignore")
    client = QdrantClient(path=str(place))
    dense = models.VectorParams(size=index_scale.WIDTH, distance=models.Distance.DOT)
    client.create_collection("passages", {"dense": dense}, {"lexical": models.SparseVectorParams()})
    names = list[str]()
    for ids, texts, block in blocks(job):
        points = [
            models.PointStruct(
                id=len(names) + i,
                vector={"dense": block.dense[i].tolist(), "lexical": _sparse(block, i)},  # type: ignore[index]
                payload={"id": ids[i], "text": texts[i]},
            )
            for i in range(len(ids))
        ]
        client.upsert("passages", points)
        names += ids
    queries = queries_of(job)

    def search(i: int, head: str) -> list[str]:
        vector: Any = queries.dense[i].tolist() if head == "dense" else _sparse(queries, i)  # type: ignore[index]
        answer = client.query_points("passages", vector, using=head, limit=10, with_payload=False)
        return [names[int(point.id)] for point in answer.points]

    return {"dense": lambda i: search(i, "dense"), "lexical": lambda i: search(i, "lexical")}


def _sparse(block: Encoded, i: int) -> Any:
    from qdrant_client import models

    row = block.lexical[[i]]  # type: ignore[index]
    return models.SparseVector(indices=row.indices.tolist(), values=row.data.tolist())


def fast_plaid(place: Path, job: dict[str, Any]) -> dict[str, Callable[[int], list[str]]]:
    """Pooled token vectors in two bits of a residual, on the processor."""
    import torch
    from fast_plaid import search

    ids, documents = list[str](), list[torch.Tensor]()
    for some, _, block in blocks(job):
        ids += some
        documents += [torch.from_numpy(rows.astype(np.float32)) for rows in block.multi]  # type: ignore[union-attr]
    index = search.FastPlaid(index=str(place), device="cpu")
    index.create(documents_embeddings=documents, nbits=2)
    queries = [torch.from_numpy(np.array(rows, np.float32)) for rows in queries_of(job).multi]  # type: ignore[union-attr]

    def ask(i: int) -> list[str]:
        answer = index.search(queries_embeddings=queries[i][None], top_k=10)[0]
        return [ids[int(row)] for row, _ in answer]

    return {"multi": ask}


BUILD: dict[str, Callable[[Path, dict[str, Any]], dict[str, Callable[[int], list[str]]]]] = {
    "bm25s": bm25s,
    "lancedb": lancedb,
    "qdrant-client": qdrant_client,
    "fast-plaid": fast_plaid,
}


class Run:
    """One run: what is started, and where its results go."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.began, self.lock = arguments, time.time(), threading.Lock()
        self.until = self.began + arguments.seconds
        self.cores = sorted(os.sched_getaffinity(0))
        self.out: Path = arguments.out
        self.out.parent.mkdir(parents=True, exist_ok=True)

    def say(self, kind: str, **facts: Any) -> None:
        line = json.dumps({"kind": kind, "at": round(time.time() - self.began, 1), **facts})
        with self.lock, self.out.open("a") as file:
            file.write(line + "\n")
        print(line[:400], flush=True)

    def share(self, first: int, count: int) -> str:
        """Names of some processors, as taskset wants them."""
        return ",".join(str(self.cores[i % len(self.cores)]) for i in range(first, first + count))

    def attempt(self, name: str, work: Callable[[], None]) -> None:
        """One that fails leaves the others alone."""
        try:
            work()
        except Exception as error:
            code = getattr(error, "returncode", None)  # its own message is in the log
            why = f"{type(error).__name__}: {error}" if code is None else f"ended with {code}"
            self.say("failed", name=name, error=why[:500])

    def child(self, step: str, cores: str, *words: str) -> dict[str, Any]:
        command = ["taskset", "-c", cores, sys.executable, __file__, "--step", step, *words]
        left = max(5.0, self.until + 15 - time.time())
        environment = os.environ | {"OMP_NUM_THREADS": "2"}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=left, env=environment, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    def ours(self, job: dict[str, Any], builders: str, searchers: str, *, churn: bool) -> None:
        """Builds, searches, and for a small one changes a part of it and searches again."""
        name, place = f"{job['passages']} {job['engine']}", job["place"]
        where = {
            "engine": job["engine"],
            "builder_cores": builders.count(",") + 1 if builders else len(self.cores),
        }
        built = run("build", place, job | ({"cores": builders} if builders else {}))
        passages = built["passages"]
        job = job | {
            "passages": passages,
            "until": 0,
            "blocks": -(-passages // self.arguments.block),
            "cores": searchers,
        }
        self.say("build", wanted=name, **where, **built)
        self.say("search", wanted=name, passages=passages, engine=job["engine"], **run("search", place, job))
        if churn and time.time() < self.until - 20:
            self.say(
                "churn", wanted=name, passages=passages, engine=job["engine"], **run("churn", place, job)
            )
            again = run("search", place, job | {"recall": False})
            self.say("search after churn", wanted=name, passages=passages, engine=job["engine"], **again)

    def main(self) -> None:
        a = self.arguments
        folder: Path = a.folder
        texts, stream = folder / "texts", folder / "stream"
        for each in (texts, stream):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir(parents=True)
        multi, pooled = DEFAULT_TOKENS.get("multi"), DEFAULT_TOKENS.get("pool_tokens", 1)
        multi, pooled = a.multi or multi, a.pool or pooled
        options = {"multi": multi}
        facts = {"options": options, "pool": pooled, "processors": len(self.cores), "device": a.device}
        job: dict[str, Any] = {
            "texts": str(texts), "stream": str(stream), "questions": str(a.passages / "questions.jsonl"),
            "device": a.device, "until": self.until - a.reserve, "encoders": a.encoders, "tokens": 0, **facts,
        }  # fmt: skip
        command = ["nice", "-n", "19", sys.executable, __file__, "--step", "encode"]
        workers = [
            subprocess.Popen(
                [*command, json.dumps(job), str(i)],
                stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"},
            )
            for i in range(a.encoders)
        ]  # fmt: skip
        began = time.time()
        count = cut(a.passages, texts, max(a.sizes), a.block)
        self.say("passages", passages=count, seconds=round(time.time() - began, 1), **facts)
        sizes = sorted({min(size, count) for size in a.sizes}, reverse=True)
        while not (stream / "layout.json").exists() and time.time() < self.until:
            if any(worker.poll() for worker in workers):
                raise SystemExit("a process that encodes has died; its message is above")
            time.sleep(0.1)
        # A process that dies leaves holes among the blocks, for which those that follow stand in.
        keep = (sizes[1] if len(sizes) > 1 else sizes[0]) // a.block + a.encoders
        job |= {
            "layout": json.loads((stream / "layout.json").read_text()),
            "engine": "edge",
            "log": str(self.out),
        }
        with ThreadPoolExecutor(16) as pool_:
            work = [pool_.submit(self.encoded, workers)]
            for i, size in enumerate(sizes):
                # The largest has the whole machine, before those that encode; others have two processors each.
                searchers = self.share(2 * i, 2)
                builders = searchers if i else ""
                mine = job | {"passages": size, "place": str(folder / f"index {size}")}
                mine |= {"keep": keep} if i == 0 else {}

                def work_on(
                    mine: dict[str, Any] = mine, b: str = builders, s: str = searchers, i: int = i
                ) -> None:
                    self.ours(mine, b, s, churn=i == 1)

                work.append(pool_.submit(self.attempt, str(size), work_on))
            for i, name in enumerate(a.peers, len(sizes)):
                work.append(pool_.submit(self.peer, name, job, sizes[1:], self.share(2 * i, 2)))
            for each in work:
                each.result()
        self.say("end")

    def encoded(self, workers: list[subprocess.Popen[str]]) -> None:
        began = time.time()
        found = [
            json.loads(out.splitlines()[-1]) for out in (w.communicate()[0] for w in workers) if out.strip()
        ]
        self.say(
            "encode", processes=len(found), seconds=round(time.time() - began, 1),
            passages=sum(each["passages"] for each in found), tokens=sum(each["tokens"] for each in found),
            processor_seconds=round(sum(each["processor_seconds"] for each in found)),
            steps={step: round(sum(each["seconds"][step] for each in found)) for step in found[0]["seconds"]},
        )  # fmt: skip

    def peer(self, name: str, job: dict[str, Any], sizes: list[int], cores: str) -> None:
        """One of the others, on two processors: the smaller collections first."""
        for size in sorted(sizes):
            mine = job | {"passages": size, "blocks": -(-size // self.arguments.block)}
            last = Path(job["stream"]) / f"{mine['blocks'] - 1:08d}.safetensors"
            while not last.exists() and time.time() < self.until - 60:
                time.sleep(0.2)
            if time.time() > self.until - 60:
                self.say("left out", name=name, passages=size)
                continue
            place = Path(self.arguments.folder) / f"{name} {size}"
            shutil.rmtree(place, ignore_errors=True)

            def work(size: int = size, mine: dict[str, Any] = mine, place: Path = place) -> None:
                if name == "postgres":
                    self.postgres(mine, cores)
                else:
                    found = self.child("peer", cores, json.dumps(mine), name, str(place))
                    self.say("peer", name=name, passages=size, **found)

            self.attempt(f"{name} {size}", work)
            shutil.rmtree(place, ignore_errors=True)

    def postgres(self, job: dict[str, Any], cores: str) -> None:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "index"))
        from postgres_server import PASSWORD, PostgresServer

        os.environ["PGPASSWORD"] = PASSWORD
        server = PostgresServer()
        try:
            self.ours(job | {"engine": "postgres", "place": server.place()}, cores, cores, churn=False)
        finally:
            server.close()


def main() -> None:
    if sys.argv[1:2] == ["--step"]:
        step, job, *rest = sys.argv[2], json.loads(sys.argv[3]), *sys.argv[4:]
        print(
            json.dumps(encode(job, int(rest[0])) if step == "encode" else peer(rest[0], Path(rest[1]), job))
        )
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("passages", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 150_000, 10_000])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--block", type=int, default=1000, help="passages that are encoded at once")
    parser.add_argument("--encoders", type=int, default=16, help="processes that encode")
    parser.add_argument("--seconds", type=float, default=550)
    parser.add_argument(
        "--reserve", type=float, default=150, help="seconds at the end in which nothing is added"
    )
    parser.add_argument("--multi", help="form of the token vectors; by default the index's own")
    parser.add_argument("--pool", type=int, help="tokens that become one; by default the index's own")
    parser.add_argument("--peers", nargs="*", choices=[*PEERS, "postgres"], default=[*PEERS, "postgres"])
    Run(parser.parse_args()).main()


if __name__ == "__main__":
    main()
