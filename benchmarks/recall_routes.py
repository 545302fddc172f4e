"""What the routes of recall find of the exact hybrid's ten best of all documents, and what they cost.

    python recipes/small/make_eval_sets.py DATA sets --questions 100
    python benchmarks/recall_routes.py sets/pooled --cache build/routes

Passages and questions in 15 languages, half of the questions asked in the passage's language and half in another; all
scores by the bundled model. The hybrid's weights are the paper's (1, 0.3, 1).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans as KMeans

from triptych.encode.encoder import Encoder
from triptych.eval.significance import randomisation
from triptych.index.query_weights import QueryWeights
from triptych.io import write_json
from triptych.model.hub import resolve
from triptych.model.tokenizer import TextTokenizer
from triptych.scores.muvera import Muvera
from triptych.scores.on_numpy import combine, head_scores, lexical_scores, ndcg, top_k
from triptych.scores.packing import pack, unpack
from triptych.types import HEADS, Encoded, HeadWeights, Ragged

RESULTS = Path(__file__).parent / "results" / "recall_routes.json"

CANDIDATES = (20, 50, 100, 200)

ENCODINGS: list[tuple[int, int, int]] = [
    (0, 384, 1),
    (1, 384, 1),
    (3, 384, 1),
    (3, 384, 4),
    (3, 16, 8),
    (4, 16, 20),
    (5, 16, 20),
]
"""Bits, columns and repetitions."""


def sample(folder: Path, documents: int, queries: int, seed: int = 0) -> dict[str, Any]:
    """Questions spread over their sets, their passages, and others by chance.

    Of a passage that is there in twelve languages one is taken, half of the time that of its question: its
    translations would fill the ten best.
    """
    rng = np.random.default_rng(seed)
    texts = {row["_id"]: row["text"] for row in rows(folder / "corpus.jsonl")}
    questions = {row["_id"]: row["text"] for row in rows(folder / "queries.jsonl")}
    groups: dict[str, list[list[str]]] = {}
    relevant: dict[str, list[str]] = {}
    for entry in json.loads((folder / "sets.json").read_bytes())["sets"]:
        lines = (folder / "qrels" / f"{entry['qrels']}.tsv").read_text("utf-8").splitlines()[1:]
        names: dict[str, None] = {}
        for query, document, grade in (line.split("\t") for line in lines):
            if int(grade) > 0:
                names[query] = None
                relevant.setdefault(query, []).append(document)
        groups.setdefault(entry["group"], []).append(rng.permutation(list(names)).tolist())
    chosen: dict[str, None] = {}
    for _, sets in sorted(groups.items()):
        many, seen = queries // len(groups), dict[str, None]()
        order = rng.permutation(len(sets))
        for depth in range(max(map(len, sets))):
            seen |= dict.fromkeys(sets[i][depth] for i in order if depth < len(sets[i]))
            if len(seen) >= many:
                break
        chosen |= dict.fromkeys(list(seen)[:many])
    wanted = dict.fromkeys(name for query in chosen for name in relevant[query])
    order = [name for name in rng.permutation(list(texts)).tolist() if name not in wanted]
    kept: dict[str, None] = {}
    for query in chosen:
        found = relevant[query]
        if _is_parallel(query):
            others = [name for name in found if language(name) != language(query)]
            own = [name for name in found if name not in others]
            if not kept.keys() & found:
                kept[rng.choice(own if rng.random() < 0.5 else others)] = None
        else:
            kept |= dict.fromkeys(found)
    kept = dict.fromkeys([*kept, *(name for name in order if not _is_parallel(name))][:documents])
    judged = {query: [name for name in relevant[query] if name in kept] for query in chosen}
    return {
        "documents": {name: texts[name] for name in rng.permutation(list(kept)).tolist()},
        "queries": {name: questions[name] for name in chosen},
        "relevant": judged,
        "monolingual": [language(query) in map(language, found) for query, found in judged.items()],
    }


def _is_parallel(name: str) -> bool:
    return name.startswith("xquad-")


def language(name: str) -> str:
    """Of a question or a passage, by its id."""
    parts = name.split("-")
    return parts[-1] if len(parts) > 3 or not parts[-1].isdigit() else parts[1]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def encoded(texts: Sequence[str], cache: Path, *, queries: bool) -> Encoded:
    """Representations of texts by the bundled model, read again where they are there already."""
    if not cache.is_file():
        encoder = Encoder.from_pretrained("small")
        found = encoder.encode_query(list(texts)) if queries else encoder.encode_document(list(texts))
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, **pack(found))
    with np.load(cache) as file:
        return unpack(dict(file))


def first(scores: NDArray[Any], many: int) -> list[set[int]]:
    """The best documents of each question."""
    return [set(top_k(row, many).tolist()) for row in scores]


def recall(wanted: Sequence[set[int]], *routes: NDArray[Any]) -> dict[str, float]:
    """Which part of the wanted documents the routes find together, with so many candidates each."""
    found: dict[str, float] = {}
    for many in CANDIDATES:
        lists = [first(scores, many) for scores in routes]
        unions = [set[int]().union(*each) for each in zip(*lists, strict=True)]
        parts = [len(best & union) / len(best) for best, union in zip(wanted, unions, strict=True)]
        found[str(many)] = round(float(np.mean(parts)), 4)
    return found


def centroid_scores(queries: Ragged, documents: Ragged, clusters: int, probes: int) -> NDArray[Any]:
    """Inverted lists over token vectors: each query token visits its nearest centroids, whose products stand for the
    products with the tokens there; a document's score is the sum of the best of each query token."""
    means = KMeans(clusters, n_init=1, max_iter=2, batch_size=8192, random_state=0).fit(documents.values)
    own = np.repeat(np.arange(len(documents)), documents.lengths)
    there = np.zeros((len(documents), clusters), dtype=bool)
    there[own, means.predict(documents.values)] = True
    scores = np.zeros((len(queries), len(documents)), np.float32)
    for i, tokens in enumerate(queries):
        products = tokens @ means.cluster_centers_.T.astype(np.float32)
        for row in products:
            near = top_k(row, probes)
            best = np.where(there[:, near], row[near], row[near].min())
            scores[i] += best.max(1)
    return scores


def confidence(values: NDArray[Any], seed: int = 0) -> list[float]:
    """Mean, and the 95 % interval of its bootstrap over questions."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (10_000, len(values)))].mean(1)
    return [round(float(x), 4) for x in (values.mean(), *np.quantile(means, (0.025, 0.975)))]


def study_routes(queries: Encoded, documents: Encoded) -> list[dict[str, Any]]:
    scores = {head: head_scores(queries, documents, head) for head in HEADS}
    hybrid = first(combine(scores, HeadWeights()), 10)
    by_tokens = first(scores["multi"], 10)
    found: list[dict[str, Any]] = []

    def add(route: str, *routes: NDArray[Any], **more: Any) -> None:
        line = {
            "route": route,
            **more,
            "recall": recall(hybrid, *routes),
            "of_multi": recall(by_tokens, *routes),
        }
        print(json.dumps(line), flush=True)
        found.append(line)

    dense, lexical = scores["dense"], scores["lexical"]
    add("dense", dense)
    add("lexical", lexical)
    add("multi, all compared", scores["multi"])
    add("dense+lexical", dense, lexical)
    tokens, asked = cast(Ragged, documents.multi), cast(Ragged, queries.multi)
    mean = tokens.values.mean(0)
    centred = [Ragged(each.values - mean, each.offsets) for each in (asked, tokens)]
    for bits, columns, repetitions in ENCODINGS:
        made = Muvera(tokens.width, bits, columns, repetitions)
        more = {"bits": bits, "columns": columns, "repetitions": repetitions, "size": made.size}
        started = time.process_time()
        vectors = made.documents(tokens)
        seconds = time.process_time() - started
        fde = made.queries(asked) @ vectors.T
        add("fde", fde, **more, ms_per_document=round(1000 * seconds / len(tokens), 2))
        if (bits, columns) != (0, tokens.width):  # which no mean changes
            add("fde, centred", made.queries(centred[0]) @ made.documents(centred[1]).T, **more)
        if bits in (0, 4):
            add("dense+lexical+fde", dense, lexical, fde, **more)
        if made.size == 5120:
            sketch = np.random.default_rng(0).integers(0, 1024, made.size)
            signs = np.random.default_rng(1).choice([-1, 1], made.size).astype(np.float32)
            few = sparse.csr_array((signs, (np.arange(made.size), sketch)), (made.size, 1024))
            add(
                "fde, final projection",
                (made.queries(asked) @ few) @ (vectors @ few).T,
                **more | {"size": 1024},
            )
    for clusters, probes in ((512, 16), (512, 512)):
        some = centroid_scores(asked, tokens, clusters, probes)
        add("centroids", some, clusters=clusters, probes=probes)
    return found


def study_queries(data: Mapping[str, Any], queries: Encoded, documents: Encoded) -> dict[str, Any]:
    """nDCG@10 of lexical search by the head's query weights, and by those of the documents' frequencies."""
    lexical = cast("sparse.csr_array", documents.lexical)
    width = int(cast(Any, lexical.shape)[1])
    counts = np.bincount(lexical.indices, minlength=width).astype(np.int32)
    tokenizer = TextTokenizer.load(resolve("small"))
    table = QueryWeights(len(documents), counts, "index")
    by_idf = table.encode(list(data["queries"].values()), tokenizer)
    place = {name: i for i, name in enumerate(data["documents"])}
    gains = [{place[name]: 1 for name in names} for names in data["relevant"].values()]
    own = np.asarray(data["monolingual"])
    head = cast("sparse.csr_array", queries.lexical)
    ways = {"head": head, "idf": by_idf, "head, 0 or 1": (by_idf > 0).astype(np.float32)}
    found: dict[str, Any] = {}
    for name, vectors in ways.items():
        values = ndcg(lexical_scores(sparse.csr_array(vectors), lexical), gains)
        found[name] = {"monolingual": values[own], "cross-lingual": values[~own]}
    dense, multi = (head_scores(queries, documents, name) for name in ("dense", "multi"))
    for name, vectors in (("head", head), ("idf", by_idf)):
        for weight in (0.03, 0.1, 0.3):
            total = dense + multi + np.float32(weight) * lexical_scores(vectors, lexical)
            values = ndcg(total, gains)
            found[f"hybrid, {weight} {name}"] = {"monolingual": values[own], "cross-lingual": values[~own]}
    report: dict[str, Any] = {}
    for name, parts in found.items():
        report[name] = {part: confidence(values) for part, values in parts.items()}
    for part in ("monolingual", "cross-lingual"):
        a, b = found["idf"][part], found["head"][part]
        report.setdefault("idf - head", {})[part] = [*confidence(a - b), round(randomisation(a, b), 5)]
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    a = parser.parse_args()
    data = sample(a.folder, a.documents, a.queries)
    queries = encoded(list(data["queries"].values()), a.cache / "queries.npz", queries=True)
    documents = encoded(list(data["documents"].values()), a.cache / "documents.npz", queries=False)
    tokens = cast(Ragged, documents.multi)
    report = {
        "documents": len(documents),
        "queries": len(queries),
        "monolingual": int(np.sum(data["monolingual"])),
        "tokens_per_document": round(float(tokens.lengths.mean()), 1),
        "lexical_queries": study_queries(data, queries, documents),
        "routes": study_routes(queries, documents),
    }
    write_json(a.out, report)


if __name__ == "__main__":
    main()
