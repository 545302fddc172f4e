"""What fine-tuning on a few hundred pairs does to each head: settings beside each other, on several sets and seeds.

A set is a folder with ``train.jsonl`` (a query and its positive a line) and ``dev``, a BEIR folder whose query ids are
``cluster|language``; translations of a question share the cluster. Each run is one of `triptych train` without a
recipe, in float32, but that nothing is written; nDCG@10 of every dev query before and after goes into one JSON file.

    python benchmarks/finetune_defaults.py SETS --make CORPUS      # from the corpus's docs and qa-eval, .jsonl.zst
    python benchmarks/finetune_defaults.py SETS --out runs.jsonl [--workers 12] [--device cuda]
    python benchmarks/finetune_defaults.py --summarize runs.jsonl --out benchmarks/results/finetune_defaults.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHARED: Mapping[str, Any] = {"freeze": ["words"], "data": {"group": 4, "batch_size": 16}}
NEW: Mapping[str, Any] = {
    "objective": {"temperature": 0.05, "loss_weights": [1, 1, 1]},
    "optimizer": {"lr": 2e-5},
}
OLD: Mapping[str, Any] = {
    "objective": {"temperature": 0.02, "loss_weights": [1, 0.1, 1]},
    "optimizer": {"lr": 5e-5},
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "old": OLD,
    "new": NEW,
    "new, temperature .1": {**NEW, "objective": {"temperature": 0.1, "loss_weights": [1, 1, 1]}},
    "new, lr 1e-5": {**NEW, "optimizer": {"lr": 1e-5}},
    "new, lr 5e-5": {**NEW, "optimizer": {"lr": 5e-5}},
    "old, 3 epochs": {**OLD, "epochs": 3},
    "new, 3 epochs": {**NEW, "epochs": 3},
}
HEADS = ("dense", "lexical", "multi", "integrated")
LANGUAGES: Mapping[str, tuple[str, ...]] = {
    "gnome-a": ("de", "es", "fr", "ru", "ko"),
    "gnome-b": ("sv", "cs", "pt-BR", "uk", "hu"),
    "lo": ("de", "it", "ja", "ru", "es"),
    "ddtp": ("da", "sk", "pl", "it", "zh-CN"),
    "xquad": ("ar", "de", "es", "hi", "zh"),
    "asia": ("ja", "th", "id", "zh", "vi"),
}
Pair = tuple[str, str, str, str, str]
"""Key (what translations share), language, query, passage, cluster."""


def pairs_of(corpus: Path) -> Iterator[tuple[str, Pair]]:
    """Titles and descriptions or first paragraphs of pages, and questions with their passages; by set."""
    for row in _rows(corpus / "docs.jsonl.zst"):
        source, language, key, title = row["s"], row["l"], str(row["k"]), row.get("t")
        paragraphs = [text for _, kind, text in row["p"] if not kind and len(text) > 60]
        if source == "gnome" and title and row.get("d"):
            for name in ("gnome-a", "gnome-b"):
                yield name, (key, language, title, row["d"], key)
        elif source in ("lo", "ddtp") and title and paragraphs:
            yield source, (key, language, title, paragraphs[0][:600], key)
    for row in _rows(corpus / "qa-eval.jsonl.zst"):
        if not row["q"]:
            continue
        question, text = row["q"][0], row["t"][:900]
        question = question if isinstance(question, str) else question[-1]
        if row["s"] == "xquad":
            yield "xquad", (str(row["a"]), row["l"], question, text, str(row["a"]))
        elif row["s"] in ("jaquad", "iapp", "facqa", "cmrc", "viquad"):
            key = hashlib.md5(text.encode()).hexdigest()
            yield "asia", (key, row["l"], question, text, str(row["a"]) or text[:30])


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    from triptych.io import open_source, read_lines

    with open_source(path) as source:
        yield from (json.loads(line.text) for line in read_lines(source))


def make(corpus: Path, folder: Path) -> None:
    """Writes the sets: 300 pairs to train on and 300 queries on 600 passages, of other pages or articles."""
    parts: dict[tuple[str, bool], list[Pair]] = {
        (name, dev): [] for name in LANGUAGES for dev in (False, True)
    }
    for name, pair in pairs_of(corpus):
        if pair[1] in LANGUAGES[name]:
            parts[name, int(hashlib.md5(pair[0].encode()).hexdigest(), 16) % 2 == 0].append(pair)
    for name in LANGUAGES:
        rng = random.Random(0)
        training, held_out = (
            _evenly(parts[name, dev], count, rng) for dev, count in ((False, 300), (True, 600))
        )
        ids = {text: f"d{number}" for number, text in enumerate(dict.fromkeys(pair[3] for pair in held_out))}
        queries: dict[str, Pair] = {}
        for pair in held_out[:300]:
            stem = f"{hashlib.md5(pair[4].encode()).hexdigest()[:8]}|{pair[1]}"
            again = sum(query.startswith(stem) for query in queries)
            queries[f"{stem}{again or ''}"] = pair
        judged = [f"{query}\t{ids[pair[3]]}\t1" for query, pair in queries.items()]
        dev = folder / name / "dev"
        (dev / "qrels").mkdir(parents=True, exist_ok=True)
        _write(folder / name / "train.jsonl", [{"query": pair[2], "pos": [pair[3]]} for pair in training])
        _write(dev / "corpus.jsonl", [{"_id": id_, "text": text} for text, id_ in ids.items()])
        _write(dev / "queries.jsonl", [{"_id": query, "text": pair[2]} for query, pair in queries.items()])
        lines = "\n".join(["query-id\tcorpus-id\tscore", *judged, ""])
        (dev / "qrels" / "dev.tsv").write_text(lines, encoding="utf-8")


def _evenly(pairs: Sequence[Pair], count: int, rng: random.Random) -> list[Pair]:
    """Up to `count` pairs in random order, the languages in turn."""
    by_language: dict[str, list[Pair]] = {name: [] for name in sorted({pair[1] for pair in pairs})}
    for pair in pairs:
        by_language[pair[1]].append(pair)
    for each in by_language.values():
        rng.shuffle(each)
    turns = [each.pop() for _ in range(count) for each in by_language.values() if each]
    return turns[:count]


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def run(job: tuple[Path, str, int, str, str]) -> dict[str, Any]:
    """One training run: per query nDCG@10 before (first seed only) and after, by head."""
    folder, variant, seed, model, device_name = job
    import torch

    from triptych.collections.beir import load_beir
    from triptych.model.packed import TOKEN_BUDGET
    from triptych.train.checkpoint import State
    from triptych.train.distributed import Replica, autocast
    from triptych.train.loop import Callbacks, train
    from triptych.train.optim import make_optimizer
    from triptych.train.settings import Recipe, overlay, validate
    from triptych.train.start import freeze, prepare
    from triptych.train.tasks import Pairs, Runner, pair_limits
    from triptych.train.validate import Validation

    torch.set_num_threads(1)
    begin = time.perf_counter()
    own = {"model": model, "seed": seed, "data": {"train": str(folder / "train.jsonl")}}
    values = overlay(overlay(SHARED, VARIANTS[variant]), own)
    recipe = validate(Recipe, overlay(values, {"log_every": 1, "evaluation": {"every": 1_000_000}}), "recipe")
    device, heads = torch.device(device_name), recipe.objective.heads
    start = prepare(recipe)
    freeze(start.model, recipe, heads)
    task = Pairs(recipe, start.model, start.tokenizer, lambda *_: None)
    limits = pair_limits(recipe, start.model)
    validation = Validation(
        load_beir(folder / "dev", "dev"),
        start.tokenizer,
        (limits.query_max, limits.query_prefix),
        (limits.passage_max, limits.document_prefix),
    )
    start.model.to(device)
    runner = Runner(Replica(start.model, "ddp"), device, lambda: autocast("float32", device))
    found: dict[int, dict[str, list[float]]] = {}
    active: list[float] = []

    def evaluate(state: State) -> bool:
        if state.step or not seed:
            weights, budget = recipe.objective.score_weights, TOKEN_BUDGET[device.type]
            with runner.replica.gathered():
                each = validation(
                    lambda b: start.model(b, heads), heads, weights, device=device, budget=budget
                )
            found[state.step] = {head: [round(float(x), 4) for x in each[head]] for head in HEADS}
        return False

    def log(record: Mapping[str, Any]) -> None:
        active.extend([record["lexical_active"]] if "lexical_active" in record else [])

    steps = round(recipe.epochs * task.steps_per_epoch)
    callbacks = Callbacks(log, evaluate, lambda _: None, lambda _: False)
    train(task, runner, make_optimizer(start.model, recipe.optimizer), recipe, State(total=steps), callbacks)
    return {
        "set": folder.name,
        "variant": variant,
        "seed": seed,
        "steps": steps,
        "queries": validation.ids,
        "before": found.get(0),
        "after": found[max(found)],
        "lexical_active": [round(float(np.mean(part)), 4) for part in (active[:3], active[-3:])],
        "seconds": round(time.perf_counter() - begin, 1),
    }


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means by set, variant and head; the test is over clusters of queries, averaged over the seeds first."""
    from triptych.eval.significance import cluster_means, paired_t

    result: dict[str, Any] = {}
    for name in sorted({run["set"] for run in runs}):
        before = next(run["before"] for run in runs if run["set"] == name and run["before"])
        rows: dict[str, Any] = {}
        for variant in VARIANTS:
            own = sorted(
                (r for r in runs if (r["set"], r["variant"]) == (name, variant)), key=lambda r: r["seed"]
            )
            if not own:
                continue
            rows[variant] = {
                "lexical_active": [round(float(x), 3) for x in np.mean([r["lexical_active"] for r in own], 0)]
            }
            clusters = [query.partition("|")[0] for query in own[0]["queries"]]
            for head in HEADS:
                start, each = np.array(before[head]), np.array([r["after"][head] for r in own])
                change = cluster_means(each.mean(0) - start, clusters)
                rows[variant][head] = {
                    "before": round(float(start.mean()), 4),
                    "change": round(float(each.mean() - start.mean()), 4),
                    "by_seed": [round(float(x), 4) for x in each.mean(1) - start.mean()],
                    "error": round(float(change.std(ddof=1) / np.sqrt(len(change))), 4),
                    "p": float(f"{paired_t(each.mean(0), start, clusters):.2g}"),
                }
        queries = next(run["queries"] for run in runs if run["set"] == name)
        clusters = {query.partition("|")[0] for query in queries}
        result[name] = {"queries": len(queries), "clusters": len(clusters), "variants": rows}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--make", type=Path, metavar="CORPUS")
    parser.add_argument("--summarize", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args()
    if options.make is not None:
        make(options.make, options.sets)
        return
    if options.summarize is not None:
        runs = [json.loads(line) for line in options.summarize.read_text(encoding="utf-8").splitlines()]
        options.out.write_text(json.dumps(summarize(runs), indent=1) + "\n", encoding="utf-8")
        return
    folders = sorted(path for path in options.sets.iterdir() if (path / "train.jsonl").is_file())
    jobs = [
        (folder, variant, seed, options.model, options.device)
        for variant in options.variants
        for seed in range(options.seeds)
        for folder in folders
    ]
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool, options.out.open("w") as file:
        for found in pool.imap_unordered(run, jobs):
            file.write(json.dumps(found) + "\n")
            file.flush()
            means = {h: round(float(np.mean(found["after"][h])), 3) for h in HEADS}
            print(found["set"], found["variant"], found["seed"], means, found["seconds"], flush=True)


if __name__ == "__main__":
    main()
