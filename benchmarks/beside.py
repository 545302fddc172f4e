"""Two checkouts of this project side by side: processor time of the same jobs, in turns.

    python benchmarks/beside.py --before TREE [--jobs encode search …] [--rounds 7] [--documents docs.jsonl.zst]

Each checkout has one process that has loaded everything, and the two take turns job by job (A B, then B A, …), so that
what else a busy machine does falls on both; `import`, `help` and `start` are a process of their own each time. One
thread. The first round warms up and is not counted. Prints the median of each and of the ratios of the rounds, and
writes benchmarks/results/beside.json. `--documents` (records s, k, l, t, p, see docs/data-pairs.md) is for `pairs`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib import import_module
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

RESULTS = Path(__file__).parent / "results" / "beside.json"
PROCESSES = {
    "import": ["-c", "import triptych"],
    "import Encoder": ["-c", "from triptych import Encoder"],
    "help": ["-m", "triptych", "--help"],
    "start": [
        "-c",
        "from triptych import Encoder; Encoder.from_pretrained('small', device='cpu').encode(['one'])",
    ],
}


LOADED = ("encode", "query", "search", "search_exact", "train_tiny", "train_small", "pairs")


def first(*names: str) -> Any:
    """What is first found of `module:name`: a checkout may have it elsewhere."""
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"none of {', '.join(names)}")


def corpus() -> list[str]:
    from triptych.demo import load_corpus

    return [document.text for document in load_corpus()]


def questions(count: int) -> list[str]:
    return [" ".join(text.split()[:9]) for text in corpus()[:count]]


def mixed(count: int) -> list[str]:
    """Texts of 4 to 400 words, most of them short."""
    words = " ".join(corpus()).split()
    lengths = [4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 200, 400]
    return [" ".join(words[17 * i : 17 * i + lengths[i % len(lengths)]]) for i in range(count)]


@contextmanager
def spent() -> Iterator[list[float]]:
    """Seconds of processor time of this process and its children."""

    def now() -> float:
        both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in both)

    seconds, begin = [0.0], now()
    yield seconds
    seconds[0] = now() - begin


class Jobs:
    """The jobs of one checkout: each method prepares one, and returns what is measured."""

    def __init__(self, folder: Path, documents: Path | None) -> None:
        import torch

        torch.set_num_threads(1)
        self.folder, self.documents = folder, documents
        self.runs = 0
        self.open = ExitStack()

    @cached_property
    def encoder(self) -> Any:
        from triptych import Encoder

        return Encoder.from_pretrained("small", device="cpu")

    def encode(self) -> Callable[[], object]:
        encoder, texts = self.encoder, mixed(96)
        return lambda: encoder.encode(texts)

    def query(self) -> Callable[[], object]:
        encoder, texts = self.encoder, questions(40)
        return lambda: [encoder.encode_query([text]) for text in texts]

    def search(self) -> Callable[[], object]:
        return self.search_in("edge")

    def search_exact(self) -> Callable[[], object]:
        return self.search_in("exact")

    def search_in(self, engine: str) -> Callable[[], object]:
        """200 documents and encoded queries, one at a time, with the same weights of the sum everywhere."""
        from triptych import Index

        encoder, texts = self.encoder, corpus()[:200]
        index = Index.create(self.folder / engine, encoder, engine=engine, multi="float16")
        self.open.enter_context(index)
        index.add([str(i) for i in range(len(texts))], texts)
        queries = [encoder.encode_query([text]) for text in questions(40)]
        return lambda: [index.search_encoded(query, 10, weights=(1, 0.3, 1)) for query in queries]

    def train_tiny(self) -> Callable[[], object]:
        from transformers import XLMRobertaConfig, XLMRobertaModel

        from triptych.model import hub

        folder = self.folder / "tiny"
        first("triptych.model.tokenizer:TextTokenizer").load(hub.resolve("small")).save(folder)
        config = XLMRobertaConfig(
            vocab_size=250_002, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=514, type_vocab_size=1,
            pad_token_id=1, bos_token_id=0, eos_token_id=2,
        )  # fmt: skip
        XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
        return self.train(str(folder), queries=8, new_heads=True)

    def train_small(self) -> Callable[[], object]:
        return self.train("small", queries=2)

    def train(self, model: str, queries: int, **options: Any) -> Callable[[], object]:
        """A step of a run with three heads, which waits in a thread between two of them.

        The table of words is not trained: AdamW on it would be all of the time.
        """
        from torch.optim.optimizer import register_optimizer_step_post_hook

        run = first("triptych.train.run:run")
        recipe = first("triptych.train.settings:Recipe")
        words = " ".join(corpus()).split()
        rows = [
            {"query": " ".join(words[90 * i : 90 * i + 9]), "pos": [" ".join(words[90 * i : 90 * i + 60])],
             "neg": [" ".join(words[90 * i + 60 + 5 * j : 90 * i + 100 + 5 * j]) for j in range(3)]}
            for i in range(queries)
        ]  # fmt: skip
        pairs = self.folder / f"pairs-{queries}.jsonl"
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        data = {"train": str(pairs), "batch_size": queries, "group": 4, "cache": str(self.folder / "cache")}
        values = {
            "model": model, "steps": 1000, "log_every": 1000, "data": data, "freeze": ["words"],
            "compute": {"device": "cpu", "dtype": "float32", "prefetch": 0},
        }  # fmt: skip
        turns: SimpleQueue[None] = SimpleQueue()
        done: SimpleQueue[None] = SimpleQueue()

        def go() -> None:
            turns.put(None)
            done.get()

        def wait(*_: object) -> None:
            if threading.current_thread() is thread:
                done.put(None)
                turns.get()

        arguments = ("train", recipe.model_validate(values | options), self.folder / f"run-{queries}")
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        register_optimizer_step_post_hook(wait)
        thread.start()
        done.get()
        return go

    def pairs(self) -> Callable[[], object]:
        mine = first("triptych.tools.pairs.pipeline:mine_pairs", "triptych.data.mined.pipeline:mine_pairs")
        places = first("triptych.records:places_of", "triptych.data.rows:places_of")
        file = self.folder / "documents.jsonl"
        if self.documents is None:
            raise SystemExit("the job 'pairs' wants --documents")
        with file.open("w", encoding="utf-8") as out:
            for _, raw in islice(places(self.documents), 0, 60_000, 40):
                record = json.loads(raw)
                named = {"source": record["s"], "key": record["k"], "lang": record["l"], "title": record["t"]}
                more = {"keywords": record.get("kw", []), "description": record.get("d", "")}
                out.write(json.dumps(named | more | {"blocks": record["p"]}) + "\n")

        def go() -> None:
            self.runs += 1
            mine(file, self.folder / f"pairs-{self.runs}")

        return go


def work(names: list[str], documents: Path | None) -> None:
    """Prepares the jobs, then measures one per line of standard input."""
    import warnings

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        jobs = Jobs(Path(folder), documents)
        prepared = {name: getattr(jobs, name)() for name in names}
        print("ready", flush=True)
        for line in sys.stdin:
            with spent() as seconds:
                prepared[line.strip()]()
            print(seconds[0], flush=True)
        jobs.open.close()
    os._exit(0)  # runs that wait in a thread


def measure_process(command: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-W", "ignore", *command], env=environment, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commit(tree: Path) -> str:
    words = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", nargs="+", choices=[*LOADED, *PROCESSES], default=[*LOADED, *PROCESSES])
    parser.add_argument("--documents", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    loaded = [name for name in options.jobs if name not in PROCESSES]
    if options.worker:
        work(loaded, options.documents)
        return
    if options.before is None:
        parser.error("--before: which other checkout?")
    trees = {"before": options.before.resolve(), "now": Path(__file__).resolve().parents[1]}
    around = {
        name: os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        for name, tree in trees.items()
    }
    again = [sys.executable, __file__, *sys.argv[1:], "--worker"]
    workers: dict[str, subprocess.Popen[str]] = {}
    for name in trees if loaded else ():
        workers[name] = subprocess.Popen(
            again, env=around[name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        said = workers[name].stdout.readline()  # pyright: ignore[reportOptionalMemberAccess]
        if said.strip() != "ready":
            raise SystemExit(f"{name}: the process ended while preparing")

    def measure(name: str, job: str) -> float:
        if job in PROCESSES:
            return measure_process(PROCESSES[job], around[name])
        worker = workers[name]
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(job + "\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())

    try:
        for job in options.jobs:
            rounds: dict[str, list[float]] = {name: [] for name in trees}
            for number in range(options.rounds + 1):
                for name in list(trees)[:: 1 if number % 2 else -1]:
                    seconds = measure(name, job)
                    if number:
                        rounds[name].append(round(seconds, 4))
            ratios = [now / before for before, now in zip(*rounds.values(), strict=True)]
            line = {f"{name}_s": statistics.median(found) for name, found in rounds.items()}
            line["ratio"] = round(statistics.median(ratios), 3)
            line["ratio_of_the_least"] = round(min(rounds["now"]) / min(rounds["before"]), 3)
            print(f"{job:16}", json.dumps(line), flush=True)
            line |= {"rounds": rounds, "commits": {name: commit(tree) for name, tree in trees.items()}}
            results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
            RESULTS.write_text(json.dumps(results | {job: line}, indent=1) + "\n", encoding="utf-8")
    finally:
        for worker in workers.values():
            worker.stdin.close()  # pyright: ignore[reportOptionalMemberAccess]
            worker.wait()


if __name__ == "__main__":
    main()
