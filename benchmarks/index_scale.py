"""How an index behaves with its size: time, memory and disk of building it, opening, latency, recall, and after churn.

    python benchmarks/index_scale.py FOLDER --out benchmarks/results/index_scale.json --passages 10000 100000

FOLDER gets the indexes (removed in the end), or with --engine postgres is a database,
postgresql://user@host/database. Vectors are random with topics, in the shape of the bundled model: 384 columns, 100
lexical weights and 150 token vectors a passage. With --stream they come from a folder that `triptych encode` wrote
instead, or `benchmarks/million.py`, which takes the steps here with real passages. Every size is built in a process of
its own; so are opening and searching. Each size is written as soon as it is done. The recall is that of the ten best by
the weighted sum, against a comparison with all passages.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from triptych.index.layout import Layout, LayoutOptions, Payload, TokenPrecision
from triptych.index.postgres_link import is_postgres, read_address
from triptych.index.search import hybrid_search, make_plan
from triptych.index.storage import folder_size
from triptych.index.store import Store, create_store, open_store
from triptych.io import write_json
from triptych.scores.on_numpy import combine, dense_scores, lexical_scores, maxsim_scores, top_k
from triptych.scores.packing import unpack
from triptych.types import Encoded, Head, HeadWeights, Ragged

BLOCK = 256
VOCABULARY = 250_037
WIDTH, WEIGHTS, TOKENS, TOPICS = 384, 100, 150, 2000
QUERIES, QUERY_TOKENS = 40, 16
DEEP = 2000
"""Passages with the best sums of dense and lexical scores, whose token vectors the exact search looks at."""
CHURN = 0.3
AHEAD = 100
"""Blocks of a stream by which one that is missing is given up."""
TEXT = "Several words of a text that stands for a passage of about a hundred and fifty tokens. " * 8


class Corpus:
    """Blocks of passages and queries, the same at each call."""

    def __init__(self, tokens: int) -> None:
        rng = np.random.default_rng(0)
        self.tokens = tokens
        self.topics = rng.standard_normal((TOPICS, WIDTH)).astype(np.float32)
        self.mean = rng.standard_normal(WIDTH).astype(np.float32) / 3

    def block(self, number: int, count: int) -> Encoded:
        return self._make(np.random.default_rng((1, number)), count, self.tokens, WEIGHTS)

    def queries(self) -> Encoded:
        """Each asks for a passage of the first block: with some of its weights, and vectors near some of its own."""
        rng, block = np.random.default_rng(2), self.block(0, BLOCK)[:QUERIES]
        assert block.dense is not None
        assert block.lexical is not None
        assert block.multi is not None
        rows = [rows[rng.permutation(len(rows))[:QUERY_TOKENS]] for rows in block.multi]
        lexical = block.lexical.multiply(rng.random(block.lexical.shape[1]) < 0.15)
        near = [unit(each + 0.05 * rng.standard_normal(each.shape, dtype=np.float32)) for each in rows]
        dense = unit(block.dense + 0.05 * rng.standard_normal(block.dense.shape, dtype=np.float32))
        return Encoded(dense, sparse.csr_array(lexical), Ragged.of(near))

    def _make(self, rng: np.random.Generator, count: int, tokens: int, weights: int) -> Encoded:
        topic = rng.integers(0, TOPICS, count)
        dense = self.topics[topic] + rng.standard_normal((count, WIDTH), dtype=np.float32)
        # Every token follows its topic or another one of 50 near it, as words do.
        word = (topic[:, None] * 50 + rng.integers(0, 50, (count, tokens))) % TOPICS
        rows = self.mean + self.topics[word.ravel()]
        rows += 0.7 * rng.standard_normal(rows.shape, dtype=np.float32)
        own = np.where(rng.random((count, weights)) < 0.3, topic[:, None] * 97, 0)
        own = (own + np.minimum(rng.zipf(1.3, (count, weights)), VOCABULARY)) % VOCABULARY
        values = rng.gamma(2, 0.05, count * weights).astype(np.float32)
        lexical = sparse.csr_array(
            (values, (np.repeat(np.arange(count), weights), own.ravel())), shape=(count, VOCABULARY)
        )
        lexical.sum_duplicates()
        multi = Ragged(unit(rows), np.arange(count + 1, dtype=np.int64) * tokens)
        return Encoded(unit(dense), lexical, multi)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def blocks(job: dict[str, Any]) -> Iterator[tuple[list[str], list[str], Encoded]]:
    """Ids, texts and representations, block by block."""
    if job["stream"] is None:
        corpus = Corpus(job["tokens"])
        for number, start in enumerate(range(0, job["passages"], BLOCK)):
            count = min(BLOCK, job["passages"] - start)
            ids = [str(i) for i in range(start, start + count)]
            yield ids, [TEXT] * count, corpus.block(number, count)
        return
    from safetensors.numpy import load_file

    left = job["passages"]
    for path in files_of(job):
        block, ids = unpack(load_file(path)), json.loads(path.with_suffix(".ids.json").read_text())
        texts = path.with_suffix(".texts.json")
        texts = json.loads(texts.read_text()) if texts.exists() else [TEXT] * len(ids)
        for start in range(0, min(left, len(ids)), BLOCK):
            stop = min(start + BLOCK, left, len(ids))
            yield ids[start:stop], texts[start:stop], block[start:stop]
        left -= min(left, len(ids))
        if left <= 0:
            return


def files_of(job: dict[str, Any]) -> Iterator[Path]:
    """The files of a stream; with `until`, also those that others write before that time."""
    folder = Path(job["stream"])
    if not job.get("until"):
        yield from sorted(folder.glob("[0-9]*.safetensors"))
        return
    for number in count():
        path = folder / f"{number:08d}.safetensors"
        later = folder / f"{number + AHEAD:08d}.safetensors"  # then the one that would write this has died
        while not (path.exists() or later.exists()) and time.time() < job["until"]:
            time.sleep(0.05)
        if later.exists() and not path.exists():
            continue
        if not path.exists() or job["until"] < time.time():
            return
        yield path
        if number >= job.get("keep", number + 1):
            path.unlink()


def queries_of(job: dict[str, Any]) -> Encoded:
    """Random ones, those that lie beside the stream, or beginnings of its passages."""
    if job["stream"] is None:
        return Corpus(job["tokens"]).queries()
    if (path := Path(job["stream"]) / "queries").exists():
        from safetensors.numpy import load

        return unpack(load(path.read_bytes()))
    _, _, block = next(blocks(job))
    some = block[:QUERIES]
    assert some.multi is not None
    return Encoded(some.dense, some.lexical, Ragged.of([rows[:QUERY_TOKENS] for rows in some.multi]))


def memory() -> dict[str, float]:
    """Megabytes of this process: at most resident, and now without pages of mapped files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"resident_peak_mb": round(peak), "anonymous_mb": round(int(status["RssAnon"].split()[0]) / 1024)}


def disk_of(place: str) -> int:
    """Bytes of an index on the disk, in PostgreSQL those of its tables with all that belongs to them."""
    if not is_postgres(place):
        return folder_size(Path(place))
    sizes = (
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
        "WHERE relkind = 'r' AND relnamespace = %s::regnamespace"
    )
    return int(ask(place, sizes, [f'"{read_address(place).collection}"'])[0][0])


def ask(place: str, statement: str, values: list[Any] | None = None) -> list[Any]:
    import psycopg

    with psycopg.connect(**read_address(place).settings) as connection:
        cursor = connection.execute(statement, values)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def remove(place: str) -> None:
    if is_postgres(place):
        ask(place, f'DROP SCHEMA IF EXISTS "{read_address(place).collection}" CASCADE')
    else:
        shutil.rmtree(place, ignore_errors=True)


def build(place: str, job: dict[str, Any]) -> dict[str, Any]:
    """Adds all passages, and rearranges in the end."""
    before = memory()
    widths: dict[Head, int] = {"dense": WIDTH, "lexical": VOCABULARY, "multi": WIDTH}
    layout = Layout.from_json(job["layout"]) if "layout" in job else Layout.of(widths, job["options"])
    store = create_store(place, job["engine"], layout, ("bench", "0"))
    added = cpu = peak = 0.0
    passages = most = 0
    for number, (ids, texts, block) in enumerate(blocks(job)):
        payloads = [Payload(id=ids[i], text=texts[i], metadata={"number": i}) for i in range(len(ids))]
        began = time.perf_counter(), time.process_time()
        store.add(block, payloads, bulk=True)
        added += time.perf_counter() - began[0]
        cpu += time.process_time() - began[1]
        passages += len(ids)
        if number % 16 == 0:
            peak = max(peak, disk_of(place))
            most = max(most, int(memory()["anonymous_mb"]))
        if "log" in job and passages // 50_000 > (passages - len(ids)) // 50_000:
            grown = {
                "passages": passages,
                "seconds": round(added, 1),
                "disk_mb": round(peak / 1e6),
                **memory(),
            }
            with Path(job["log"]).open("a") as file:
                file.write(json.dumps({"kind": "growth", **grown}) + "\n")
    began = time.perf_counter()
    with Sampler(place) as sampler, store.changing() as engine:
        engine.optimize()
    optimized = time.perf_counter() - began
    began = time.perf_counter()
    store.close()
    end = disk_of(place)
    peak = max(peak, sampler.peak, end)
    return {
        "passages": passages,
        "add_seconds": round(added, 1),
        "optimize_seconds": round(optimized, 1),
        "close_seconds": round(time.perf_counter() - began, 2),
        "processor_seconds": round(cpu, 1),
        "passages_per_second": round(passages / (added + optimized)),
        "before": before,
        **memory(),
        "anonymous_peak_mb": max(most, int(memory()["anonymous_mb"])),
        "disk_mb": round(end / 1e6, 1),
        "disk_peak_mb": round(peak / 1e6, 1),
        "disk_peak_of_end": round(peak / end, 2),
        "bytes_per_passage": round(end / passages),
    }


class Sampler:
    """Measures a folder meanwhile, in a process of its own: the engine holds Python's lock."""

    def __init__(self, place: str) -> None:
        self._place, self.peak = place, 0

    def __enter__(self) -> Sampler:
        code = (
            "import sys, time\nsys.path.insert(0, sys.argv[2])\nfrom index_scale import disk_of\npeak = 0\n"
            "while True:\n    try:\n        peak = max(peak, disk_of(sys.argv[1]))\n"
            "    except OSError:\n        pass\n    print(peak, flush=True)\n    time.sleep(0.2)\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, self._place, str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self.peak = max(map(int, self._process.communicate()[0].split()), default=0)


def search(place: str, job: dict[str, Any]) -> dict[str, Any]:
    """Opens, searches by each route and by both with exact scores of the union."""
    began = time.perf_counter()
    store = open_store(place)
    found: dict[str, Any] = {"open_seconds": round(time.perf_counter() - began, 3)}
    queries, best = queries_of(job), stored_best(job)
    for name, routes, candidates in (
        ("dense", ["dense"], 10),
        ("lexical", ["lexical"], 10),
        ("all, 200 candidates", ["dense", "lexical"], 200),
    ):
        if name != "all, 200 candidates":
            found[name], keys = recalled(store, queries, routes[0], candidates)
            if best:
                wanted = [[store.engine.key(id_) for id_ in each] for each in best[name]]
                found[name]["recall"] = shared(wanted, keys)
            continue
        found[name], hits = timed(store, queries, routes, candidates)
        if best:
            found["recall"] = shared(best["all"], hits)
            found["recall_of_exact_as_encoded"] = shared(best["all, as encoded"], hits)
        elif job.get("recall", True):
            found["recall"] = recall(job, queries, store.manifest.layout, hits)
    found |= memory()
    store.close()
    return found


def measure(ask: Callable[[int], None], number: int = QUERIES) -> dict[str, float]:
    """Milliseconds of each query after five others: by the clock, and of all processors together."""
    clock, cpu = list[float](), list[float]()
    for i in [*range(5), *range(number)]:
        began = time.perf_counter(), time.process_time()
        ask(i)
        clock.append((time.perf_counter() - began[0]) * 1e3)
        cpu.append((time.process_time() - began[1]) * 1e3)
    found = {f"p{p}_ms": round(float(np.percentile(clock[5:], p)), 2) for p in (50, 95)}
    return found | {"processor_p50_ms": round(float(np.median(cpu[5:])), 2)}


def recalled(
    store: Store, queries: Encoded, route: Head, k: int
) -> tuple[dict[str, float], list[Sequence[str]]]:
    found: list[Sequence[str]] = [[]] * len(queries)

    def ask(i: int) -> None:
        found[i] = store.engine.recall(queries[i : i + 1], route, k)[0].keys

    return measure(ask, len(queries)), found


def timed(
    store: Store, queries: Encoded, routes: list[str], candidates: int
) -> tuple[dict[str, float], list[list[str]]]:
    plan = make_plan(store.engine, 10, {"routes": routes, "candidates": candidates})  # type: ignore[typeddict-item]
    found: list[list[str]] = [[]] * len(queries)

    def ask(i: int) -> None:
        found[i] = [hit.id for hit in hybrid_search(store.engine, queries[i : i + 1], plan)[0]]

    return measure(ask, len(queries)), found


def stored_best(job: dict[str, Any]) -> dict[str, list[list[str]]]:
    """The ten best of a query by each score, from what lies beside the blocks of a stream; empty if nothing does."""
    merged: dict[str, list[list[tuple[float, str]]]] = {}
    best = (
        sorted(Path(job["stream"]).glob("*.best.json")) if job["stream"] and job.get("recall", True) else []
    )
    for path in best[: job.get("blocks")]:
        for name, lists in json.loads(path.read_text()).items():
            known = merged.setdefault(name, [[] for _ in lists])
            for mine, new in zip(known, lists, strict=True):
                mine[:] = sorted([*mine, *map(tuple, new)], key=lambda each: (-each[0], each[1]))[:10]
    return {name: [[id_ for _, id_ in each] for each in lists] for name, lists in merged.items()}


def shared(best: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """What of the best was found; of questions without any, nothing is asked."""
    parts = [len({*a} & {*b}) / len(a) for a, b in zip(best, found, strict=True) if a]
    return round(float(np.mean(parts)), 4)


def recall(job: dict[str, Any], queries: Encoded, layout: Layout, found: list[list[str]]) -> float:
    """What of the ten best by all scores was found; token vectors as the index holds them."""
    from triptych.scores.tokens import Tokens, pool

    weights = HeadWeights.default(layout.heads)
    names, sums = list[str](), list[np.ndarray]()
    for ids, _, block in blocks(job):
        parts = {
            "dense": dense_scores(queries.dense, block.dense),  # type: ignore[arg-type]
            "lexical": lexical_scores(queries.lexical, block.lexical),  # type: ignore[arg-type]
        }
        names += ids
        sums.append(combine(parts, HeadWeights.default(["dense", "lexical"]), queries))  # type: ignore[arg-type]
    first = np.concatenate(sums, axis=1)
    if "multi" not in layout.widths:
        total = first
    else:
        total = np.full_like(first, -np.inf)
        deep = [top_k(row, DEEP) for row in first]
        start = 0
        for ids, _, block in blocks(job):
            for i, rows in enumerate(deep):
                own = rows[(rows >= start) & (rows < start + len(ids))]
                if len(own):
                    multi = pool(block.multi.take(own - start), layout.pool_tokens)  # type: ignore[union-attr]
                    scores = maxsim_scores(queries.multi.take([i]), Tokens.pack(multi, layout.tokens))  # type: ignore[union-attr]
                    total[i, own] = first[i, own] + weights.multi * scores[0]
            start += len(ids)
    return shared([[names[int(row)] for row in top_k(row_scores, 10)] for row_scores in total], found)


def churn(place: str, job: dict[str, Any]) -> dict[str, Any]:
    """Removes some passages and replaces as many others, and rearranges."""
    store = open_store(place)
    rng = np.random.default_rng(3)
    changed = 0
    began = time.perf_counter()
    for ids, texts, block in blocks(job):
        chosen = rng.permutation(len(ids))[: int(CHURN * len(ids))]
        gone, again = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]
        with store.changing() as engine:
            engine.delete([engine.key(ids[int(i)]) for i in gone])
        some = Encoded(block.dense[again], block.lexical[again], block.multi.take(again))  # type: ignore[index, union-attr]
        payloads = [Payload(id=ids[int(i)], text=texts[int(i)], metadata={"number": -1}) for i in again]
        store.add(some, payloads)
        changed += len(chosen)
    seconds = time.perf_counter() - began
    before = disk_of(place)
    began = time.perf_counter()
    with store.changing() as engine:
        engine.optimize()
    optimized = time.perf_counter() - began
    count = store.engine.count()
    store.close()
    return {
        "changed": changed,
        "left": count,
        "seconds": round(seconds, 1),
        "optimize_seconds": round(optimized, 1),
        "disk_before_mb": round(before / 1e6, 1),
        "disk_mb": round(disk_of(place) / 1e6, 1),
    }


STEPS = {"build": build, "search": search, "churn": churn}


def run(step: str, place: str, job: dict[str, Any]) -> dict[str, Any]:
    """One step in a process of its own, on the processors of the job's `cores`."""
    command = ["taskset", "-c", job["cores"]] if "cores" in job else []
    command += [sys.executable, __file__, "--step", step, place, json.dumps(job)]
    threads = {"OMP_NUM_THREADS": str(job["cores"].count(",") + 1)} if "cores" in job else {}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | threads)
    return json.loads(done.stdout)


def main() -> None:
    if sys.argv[1:2] == ["--step"]:
        print(json.dumps(STEPS[sys.argv[2]](sys.argv[3], json.loads(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--passages", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--engine", default="edge")
    parser.add_argument("--multi", choices=TokenPrecision.__args__)
    parser.add_argument("--pool-tokens", type=int)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--stream", help="folder of encoded passages")
    parser.add_argument("--no-churn", action="store_true")
    arguments = parser.parse_args()
    options: LayoutOptions = {}
    if arguments.multi is not None:
        options["multi"] = arguments.multi
    if arguments.pool_tokens is not None:
        options["pool_tokens"] = arguments.pool_tokens
    report: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    report["machine"] = f"{os.cpu_count()} processors, shared with other work unless said otherwise"
    for passages in arguments.passages:
        job = {"passages": passages, "engine": arguments.engine, "options": options}
        job |= {"tokens": arguments.tokens, "stream": arguments.stream}
        name = " ".join([str(passages), arguments.engine, *(f"{k}={v}" for k, v in options.items())])
        place = f"{arguments.folder}/{name.replace(' ', '_')}"
        if name in report:
            continue
        remove(place)
        found = {"build": run("build", place, job), "search": run("search", place, job)}
        print(name, json.dumps(found), flush=True)
        if not arguments.no_churn:
            found |= {"churn": run("churn", place, job)}
            found |= {"after churn": run("search", place, job | {"recall": False})}  # of other passages
        report[name] = {**job, **found}
        write_json(arguments.out, report)
        remove(place)


if __name__ == "__main__":
    main()
