r"""Judges models on the held-out sets, by all four modes, on a machine that has little more than a GPU.

    python recipes/small/make_eval_sets.py READY SETS --questions 300 --distractors 100000
    python recipes/small/judge.py pack SETS DATA              # sets, texts and judgements in a few files
    python recipes/small/judge.py score DATA OUT small=FOLDER e5=FOLDER:dense gemma=st:FOLDER         # on a GPU
    python recipes/small/judge.py score DATA OUT bm25-words=bm25:words bm25-pieces=bm25:pieces        # on processors
    python recipes/small/judge.py join SETS OUT benchmarks/results small previous e5 gemma \
        "bm25 (words)=bm25-words" "bm25 (pieces)=bm25-pieces"

`score` compares every query with every passage by exact scores, and keeps the nDCG@10 of every query: the figures are
those of `triptych eval` (protocol "exact") up to the rounding of 16-bit products. The passages of the usual pool come
first among those of the hard one, so that one pass judges both. `join` writes the results of each pool as `triptych
eval` would have written them, with the tests of significance; scripts/make_evaluation_docs.py reads them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from triptych.eval.systems import MODES as MODES_OF_ALL
from triptych.eval.systems import heads_of
from triptych.io import replacing
from triptych.scores.on_numpy import combine
from triptych.types import DefaultWeights, Encoded, Head, HeadWeights

POOLS = ("pooled", "hard", "long")
"""Folders of make_eval_sets.py; the passages of the first are the first of the second."""
MODES = ("dense", "lexical", "multi", "all")
BLOCK, LONG_BLOCK = 8192, 256  # documents that are encoded and compared at once
SIMILARITIES = 1 << 30  # that are held at once on a GPU
CHUNK = 512  # queries, or tests, whose scores with all documents are gone through at once
LONGEST = 8192  # tokens of a document
PER_PROCESS = 1200  # queries that BM25 ranks in one process


def main() -> None:
    """Runs one of the commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, places in (
        ("pack", ("sets", "data")),
        ("score", ("data", "out")),
        ("join", ("sets", "scores", "out")),
    ):
        command = commands.add_parser(name)
        for place in places:
            command.add_argument(place, type=Path)
    command = commands.choices["score"]
    command.add_argument(
        "models", nargs="+", help="NAME=FOLDER[@TOKENS][:MODE,…], NAME=st:FOLDER, NAME=bm25:words or …:pieces"
    )
    command.add_argument("--first", type=int, help="about so many tests and documents, for a rehearsal")
    command.add_argument("--dtype", default="auto")
    command.add_argument(
        "--sum", action="append", default=[], help="three weights of a further sum, as 1,0.3,1"
    )
    commands.choices["join"].add_argument("models", nargs="+", help="NAME or NAME=FILE; the first is ours")
    given = parser.parse_args()
    if given.command == "pack":
        pack(given.sets, given.data)
    elif given.command == "score":
        score(given.data, given.out, given.models, given)
    else:
        join(given.sets, given.scores, given.out, given.models)


def collections_of(folder: Path) -> list[Any]:
    """The test sets of a folder."""
    from triptych.collections.base import Wanted
    from triptych.collections.catalogue import read_collections

    return read_collections(folder, Wanted((), "test"))


# Here: what travels.


def pack(sets: Path, data: Path) -> None:
    """Writes, for the hard pool and the long documents, the texts and what is judged by row numbers."""
    from triptych.eval.groups import grouped
    from triptych.io import compressing, write_json

    data.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    for pool in POOLS[1:]:
        [group] = grouped(collections_of(sets / pool))
        tests = [(one, query) for one in group.collections for query in one.queries]
        rows = [
            [group.survey.row_of[name] for name, value in one.qrels[query].items() if value > 0]
            for one, query in tests
        ]
        np.savez_compressed(
            data / f"{pool}.npz",
            ranks=group.survey.ranks.astype(np.int32),
            query=np.array([group.place(*test) for test in tests], np.int32),
            relevant=_padded(rows),
            excluded=_padded([group.excluded(*test).tolist() for test in tests]),
        )
        for what, texts in (("documents", (one.text for one in group.corpus)), ("queries", group.texts)):
            with compressing(data / f"{pool}.{what}.jsonl.zst", 12) as file:
                for text in texts:
                    file.write(json.dumps(text, ensure_ascii=False).encode() + b"\n")
        facts[pool] = {
            "documents": len(group.survey),
            "queries": len(group.texts),
            "tests": len(tests),
            "ids": digest_of([f"{one.label}\t{one.split}\t{query}" for one, query in tests]),
            "languages": group.languages,
        }
    [usual] = grouped(collections_of(sets / "pooled"))
    facts["pooled"] = {"documents": len(usual.survey)}
    first = [name for name, _ in zip(_ids(sets / "hard"), usual.survey.ids, strict=False)]
    if first != list(usual.survey.ids):
        raise ValueError(f"{sets}: the passages of pooled/ are not the first of hard/")
    write_json(data / "facts.json", facts)


def _ids(folder: Path) -> Iterator[str]:
    return (one.id for one in collections_of(folder)[0].corpus)


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """int32 ``[T, most]``, -1 where there are fewer."""
    out = np.full((len(rows), max(1, *map(len, rows))), -1, np.int32)
    for place, own in enumerate(rows):
        out[place, : len(own)] = own
    return out


def digest_of(names: Sequence[str]) -> str:
    """Hex digest of names, in their order."""
    import hashlib

    return hashlib.blake2b("\n".join(names).encode(), digest_size=16).hexdigest()


class RememberedWords:
    """The terms of `triptych.eval.analyzers.Words`, for a corpus that is split once for every language of its queries.

    A text is cut into words once, and a word is stemmed once for a language.
    """

    def __init__(self) -> None:
        from triptych.eval.analyzers import Words, words

        self._own, self._cut = Words(), words
        self.name, self.facts, self.group = self._own.name, self._own.facts, self._own.group
        self._texts: dict[str, list[str]] = {}
        self._language, self._stems = "", dict[str, list[str]]()

    def split(self, texts: Sequence[str], group: str) -> list[list[str]]:
        """The stems of each text, without frequent words."""
        if self._language != group:
            self._language, self._stems = group, {}
        for text in texts:
            if text not in self._texts:
                self._texts[text] = [sys.intern(word) for word in self._cut(text)]
        known = self._stems
        new = list({word: None for text in texts for word in self._texts[text] if word not in known})
        known |= dict(zip(new, self._own.split(new, group), strict=True))
        return [[stem for word in self._texts[text] for stem in known[word]] for text in texts]


# On the other machine: BM25 on its processors.


def words(pool: Pool, kind: str) -> dict[str, np.ndarray]:
    """POOL/ to the nDCG@10 of every test by BM25; a process for some queries of a language."""
    found: dict[str, np.ndarray] = {}
    group_of = _splitter(kind).group
    for name, size in (
        (("pooled", pool.usual), ("hard", None)) if pool.name == "hard" else ((pool.name, None),)
    ):
        part = replace(pool, documents=pool.documents[:size], ranks=pool.ranks[:size])
        groups: dict[str, list[int]] = {}
        for row, language in enumerate(pool.languages):
            groups.setdefault(group_of(language), []).append(row)
        jobs = [
            rows[start : start + PER_PROCESS]
            for rows in groups.values()
            for start in range(0, len(rows), PER_PROCESS)
        ]
        places: list[dict[int, int]] = [{}] * len(pool.queries)
        with ProcessPoolExecutor(
            initializer=_begin, initargs=(part, kind), mp_context=get_context("fork")
        ) as processes:
            for rows, ranked in zip(jobs, processes.map(_ranked, jobs), strict=True):
                for row, documents in zip(rows, ranked, strict=True):
                    places[row] = documents
        tests = _Tests.of(pool)
        test, document = tests.test
        place = np.zeros(len(test), np.int64)
        for entry, (own, row) in enumerate(zip(test, document, strict=True)):
            order = places[pool.query[own]]
            if row in order:
                gone = sum(order.get(other, order[row]) < order[row] for other in pool.excluded[own])
                place[entry] = order[row] - gone + 1
        found[f"{name}/"] = tests.ndcg(place, pool)
    return found


def _splitter(kind: str) -> Any:
    from triptych.eval.baselines import open_baseline

    return RememberedWords() if kind == "words" else open_baseline("bm25:pieces").splitter


_mine: list[Any] = []  # of a process: the passages, BM25, how deep


def _begin(pool: Pool, kind: str) -> None:
    from triptych.collections.base import MemoryCorpus
    from triptych.eval.baselines import BM25

    # Equal scores go by id: the ids here are the places of the ids.
    corpus = MemoryCorpus.of(
        {f"{rank:09d}": text for rank, text in zip(pool.ranks, pool.documents, strict=True)}
    )
    row_of = {f"{rank:09d}": row for row, rank in enumerate(pool.ranks)}
    _mine[:] = [pool, corpus, row_of, BM25(_splitter(kind))]


def _ranked(rows: list[int]) -> list[dict[int, int]]:
    """Of each query: the rows of the best documents with their places from 0."""
    pool, corpus, row_of, bm25 = _mine
    languages, deep = [pool.languages[row] for row in rows], 10 + pool.excluded.shape[1]
    ranked = bm25.rank(corpus, [pool.queries[row] for row in rows], languages, deep)
    return [{row_of[name]: place for place, name in enumerate(one.documents)} for one in ranked]


# On the GPU.


@dataclass(frozen=True)
class Pool:
    """What `pack` wrote of one pool.

    Attributes:
        name: "hard" or "long".
        documents: N texts.
        queries: Q texts.
        ranks: int64 ``[N]``: equal scores rank by it.
        query: ``[T]``, the query of each test.
        relevant: Rows ``[T, …]``, -1 where there are fewer.
        excluded: The same of documents that are left out of the test's ranking.
        usual: How many documents, from the first, are the usual pool.
        ids: Digest of the tests' names.
        languages: Of the queries.
    """

    name: str
    documents: list[str]
    queries: list[str]
    ranks: np.ndarray
    query: np.ndarray
    relevant: np.ndarray
    excluded: np.ndarray
    usual: int
    ids: str
    languages: list[str]

    @classmethod
    def read(cls, data: Path, name: str) -> Pool:
        """Reads a pool."""
        from triptych.io import open_source, read_lines

        texts: list[list[str]] = []
        for what in ("documents", "queries"):
            with open_source(data / f"{name}.{what}.jsonl.zst") as source:
                texts.append([json.loads(line.text) for line in read_lines(source)])
        facts = json.loads((data / "facts.json").read_text())
        with np.load(data / f"{name}.npz") as arrays:
            ranks, query, relevant, excluded = (
                arrays[key].astype(np.int64) for key in ("ranks", "query", "relevant", "excluded")
            )
        usual = facts["pooled"]["documents"] if name == "hard" else len(texts[0])
        return cls(
            name,
            *texts,
            ranks,
            query,
            relevant,
            excluded,
            usual,
            facts[name]["ids"],
            facts[name]["languages"],
        )

    def cut(self, most: int) -> Pool:
        """A part for a rehearsal: some tests, with their documents and as many others."""
        tests = np.arange(0, len(self.query), -(-len(self.query) // most))
        near = np.unique(np.r_[-1, self.relevant[tests].ravel(), self.excluded[tests].ravel()])[1:]
        far = np.arange(0, len(self.documents), -(-len(self.documents) // most))
        rows, asked = np.union1d(near, far), np.unique(self.query[tests])
        place = np.full(len(self.documents) + 1, -1)
        place[rows] = np.arange(len(rows))
        return replace(
            self,
            documents=[self.documents[row] for row in rows],
            queries=[self.queries[row] for row in asked],
            languages=[self.languages[row] for row in asked],
            ranks=self.ranks[rows],
            query=np.searchsorted(asked, self.query[tests]),
            relevant=place[self.relevant[tests]],
            excluded=place[self.excluded[tests]],
            usual=int((rows < self.usual).sum()),
            ids=f"{self.ids}, of which {most}",
        )


class Heads:
    """An encoder of this package.

    Args:
        folder: Of the model, or "small".
        length: Maximum tokens of a document; None: the model's.
        modes: Which.
        sums: Further modes.
        dtype: Of the arithmetic.
    """

    _known: ClassVar[dict[tuple[str, ...], list[np.ndarray]]] = {}  # token ids, which models share

    def __init__(
        self, folder: str, length: int | None, modes: Sequence[str], sums: Mapping[str, Any], dtype: str
    ) -> None:
        from triptych.encode.encoder import Encoder
        from triptych.eval.systems import EncoderSystem

        self.encoder = Encoder.from_pretrained(folder, dtype=cast(Any, dtype))
        self.length = length or self.encoder.config.max_length
        system = EncoderSystem.of(self.encoder, modes=modes, document_length=length)
        self.modes = {**system.modes, **sums}
        self.facts, self.fingerprint, self.device = system.facts, system.fingerprint, self.encoder.device
        self.heads = heads_of(self.modes)

    def queries(self, pool: Pool) -> Any:
        """The queries of a pool."""
        return self.encoder.encode_query(pool.queries, outputs=self.heads)

    def blocks(self, pool: Pool) -> Iterator[Any]:
        """The documents, the next ones being computed while one's scores are."""
        prefix = self.encoder.config.document_prefix
        ids = [self._cut(one) for one in self._ids(pool, prefix)]
        size = BLOCK if pool.name == "hard" else LONG_BLOCK
        with ThreadPoolExecutor(1) as thread:
            waiting: list[Any] = []
            for start in range(0, len(ids) + size, size):
                if part := ids[start : start + size]:
                    encode = self.encoder.encode_ids
                    waiting.append(thread.submit(encode, part, outputs=self.heads, prefix=prefix))
                if len(waiting) > 1 or (waiting and not part):
                    yield waiting.pop(0).result()

    def _ids(self, pool: Pool, prefix: str) -> list[np.ndarray]:
        tokenizer = self.encoder.tokenizer
        key = (tokenizer.digest, pool.ids, prefix)
        if key not in self._known:
            self._known[key] = [
                one
                for start in range(0, len(pool.documents), BLOCK)
                for one in tokenizer.encode(
                    pool.documents[start : start + BLOCK], prefix=prefix, max_length=LONGEST
                ).ids
            ]
        return self._known[key]

    def _cut(self, ids: np.ndarray) -> np.ndarray:
        after = len(self.encoder.tokenizer.after)
        return ids if len(ids) <= self.length else np.r_[ids[: self.length - after], ids[-after:]]


class Sentences:
    """A dense model of sentence-transformers, in bfloat16 on a GPU.

    Args:
        folder: Of the model.
    """

    def __init__(self, folder: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        from triptych.eval.baselines import SentenceModel
        from triptych.eval.systems import folder_fingerprint

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        kind = "bfloat16" if self.device.type == "cuda" else "float32"
        model = SentenceTransformer(folder, device=str(self.device), model_kwargs={"dtype": kind})
        self._own = SentenceModel(model, Path(folder).name, folder_fingerprint(Path(folder), {}))
        self.modes = {mode: weights for mode, weights in MODES_OF_ALL.items() if mode == "dense"}
        self.heads = heads_of(self.modes)
        self.facts, self.fingerprint = {**self._own.facts, "dtype": kind}, self._own.fingerprint

    def queries(self, pool: Pool) -> Any:
        """The queries of a pool."""
        return self._encode(self._own.model.encode_query, pool.queries)

    def blocks(self, pool: Pool) -> Iterator[Any]:
        """The documents, all at once, since the library puts them in the order of their lengths."""
        yield self._encode(
            self._own.model.encode_document, pool.documents, 64 if pool.name == "long" else 256
        )

    def _encode(self, method: Any, texts: Sequence[str], batch: int = 256) -> Encoded:
        vectors = np.asarray(method(texts, batch_size=batch, show_progress_bar=False), dtype=np.float32)
        # Here, since in bfloat16 lengths would differ by a quarter of a percent.
        return Encoded(dense=vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def score(data: Path, out: Path, models: Sequence[str], options: argparse.Namespace) -> None:
    """Writes NAME.npz for each model: nDCG@10 of every test, by pool and mode."""
    began, limit = time.monotonic(), float(os.environ.get("SECONDS_LEFT", "inf"))
    pools = [Pool.read(data, name) for name in POOLS[1:]]
    if options.first:
        pools = [pool.cut(options.first) for pool in pools]
    out.mkdir(parents=True, exist_ok=True)
    for given in models:
        name, _, source = given.partition("=")
        started = time.monotonic()
        measure, facts = _open(source, options)
        values: dict[str, np.ndarray] = {}
        # What is cut short is long documents alone.
        for pool in pools[1:] if "@" in source else pools:
            if time.monotonic() - began > limit:
                print(f"{name}: no time left for {pool.name}", flush=True)
                continue
            values |= measure(pool)
            facts["ids"][pool.name] = pool.ids
            facts["seconds"][pool.name] = round(time.monotonic() - started, 1)
            started = time.monotonic()
            with replacing(out / f"{name}.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, facts=np.array(json.dumps(facts)), **cast(Any, values))
            means = {key: round(100 * float(own.mean()), 2) for key, own in values.items()}
            print(name, facts["seconds"], means, flush=True)


def _open(
    source: str, options: argparse.Namespace
) -> tuple[Callable[[Pool], dict[str, np.ndarray]], dict[str, Any]]:
    """What measures a pool, and what is to be known of it."""
    kind, _, rest = source.partition(":")
    facts: dict[str, Any] = {"ids": {}, "seconds": {}, "modes": {}}
    if kind == "bm25":
        from triptych.eval.baselines import BM25

        system = BM25(_splitter(rest))
        return partial(words, kind=rest), facts | {
            "facts": dict(system.facts),
            "fingerprint": system.fingerprint,
        }
    if kind == "st":
        model: Any = Sentences(rest)
    else:
        folder, _, length = kind.partition("@")
        sums = {} if rest else dict(map(_sum, options.sum))
        model = Heads(
            folder, int(length) if length else None, rest.split(",") if rest else MODES, sums, options.dtype
        )
    facts["modes"] = {mode: [type(weights).__name__, *weights] for mode, weights in model.modes.items()}
    return partial(judge, model), facts | {"facts": dict(model.facts), "fingerprint": model.fingerprint}


def _sum(given: str) -> tuple[str, HeadWeights]:
    weights = HeadWeights.of([float(part) for part in given.split(",")])
    return ", ".join(f"{part:g}" for part in weights), weights


def judge(model: Any, pool: Pool) -> dict[str, np.ndarray]:
    """POOL/MODE to the nDCG@10 of every test, float32 ``[T]``."""
    import torch

    tests = _Tests.of(pool)
    found: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        queries = model.queries(pool)
        scores = _scores(model, pool, queries)
        own = None
        if queries.lexical is not None:
            own = np.asarray(queries.lexical.multiply(queries.lexical).sum(axis=1), np.float32).reshape(-1)
            own = torch.from_numpy(own).to(model.device)[:, None]
        for mode, weights in model.modes.items():
            places = [
                tests.places(start, _total(scores, weights, own, queries, start), mode)
                for start in tests.starts
            ]
            usual, whole = torch.cat(places).T.cpu().numpy()
            found[f"{pool.name}/{mode}"] = tests.ndcg(whole, pool)
            if pool.name == "hard":
                found[f"pooled/{mode}"] = tests.ndcg(usual, pool)
    return found


def _scores(model: Any, pool: Pool, queries: Any) -> dict[Head, Any]:
    """The score of every head, float32 ``[Q, N]`` on the device."""
    import torch

    device = model.device
    scores = {head: torch.zeros(len(queries), len(pool.documents), device=device) for head in model.heads}
    words = right = tokens = None
    if "lexical" in scores:
        words = np.unique(queries.lexical.indices)
        right = torch.from_numpy(queries.lexical[:, words].toarray().T.astype(np.float32)).to(device)
    if "multi" in scores:
        tokens = _Tokens(queries.multi, device)
    dense = torch.from_numpy(queries.dense).to(device) if "dense" in scores else None
    start = 0
    for block in model.blocks(pool):
        columns = slice(start, start + len(block))
        if dense is not None:
            scores["dense"][:, columns] = dense @ torch.from_numpy(block.dense).to(device).T
        if words is not None:
            part = block.lexical[:, words].tocsr()
            part.sort_indices()
            places = np.stack([np.repeat(np.arange(len(block)), np.diff(part.indptr)), part.indices])
            arrays = [torch.from_numpy(one).to(device) for one in (places.astype(np.int64), part.data)]
            left = torch.sparse_coo_tensor(*arrays, part.shape, check_invariants=False, is_coalesced=True)
            scores["lexical"][:, columns] = (left @ right).T
        if tokens is not None:
            scores["multi"][:, columns] = tokens.scores(block.multi)
        start += len(block)
    return scores


class _Tokens:
    """Queries' token vectors on a device, as `triptych.scores.on_torch.DeviceQueries`, whose scores stay there."""

    def __init__(self, queries: Any, device: Any) -> None:
        import torch

        self._dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._values = self._on(queries.values, device)
        lengths = torch.from_numpy(queries.lengths).to(device)
        self._rows = torch.arange(len(lengths), device=device).repeat_interleave(lengths)
        self._share = (1 / lengths[self._rows].float())[:, None]
        self._count = len(lengths)

    def _on(self, values: np.ndarray, device: Any) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(values)).to(device).to(self._dtype)

    def scores(self, documents: Any) -> Any:
        """MaxSim, float32 ``[Q, N]``: documents of about the same length go through together."""
        import torch

        device = self._values.device
        values = self._on(documents.values, device)
        first, last = (
            torch.from_numpy(documents.offsets[cut]).to(device) for cut in (slice(-1), slice(1, None))
        )
        total = torch.zeros(self._count, len(documents), device=device)
        order = np.argsort(-documents.lengths, kind="stable")
        start = 0
        while start < len(order) and (tall := int(documents.lengths[order[start]])):
            many = max(
                1, (SIMILARITIES >> (0 if device.type == "cuda" else 6)) // (tall * max(1, len(self._values)))
            )
            chosen = order[start : start + many]
            chosen = torch.from_numpy(chosen[documents.lengths[chosen] > 0]).to(device)
            # Beyond the end of a document its last vector again, which changes no maximum.
            grid = torch.minimum(
                first[chosen, None] + torch.arange(tall, device=device), last[chosen, None] - 1
            )
            similar = (values[grid.flatten()] @ self._values.T).view(len(chosen), tall, -1).amax(1)
            means = torch.zeros(self._count, len(chosen), device=device)
            means.index_add_(0, self._rows, similar.T.float() * self._share)
            total[:, chosen] = means
            start += many
        return total


def _total(scores: Mapping[Head, Any], weights: HeadWeights, own: Any, queries: Any, start: int) -> Any:
    """The weighted sum ``[q, N]`` of some queries, which has to be the package's."""
    parts = {head: scores[head][start : start + CHUNK] for head in weights.heads}
    total = 0
    for head, part in parts.items():
        if head == "lexical" and isinstance(weights, DefaultWeights):
            part = (part / own[start : start + CHUNK].clamp(min=1e-12)) ** 3
        total = total + getattr(weights, head) * part
    if start == 0:
        plain = {head: part[:2].cpu().numpy() for head, part in parts.items()}
        wanted = combine(plain, weights, queries[0:2])
        np.testing.assert_allclose(cast(Any, total)[:2].cpu().numpy(), wanted, rtol=1e-3, atol=1e-5)
    return total


@dataclass(frozen=True)
class _Tests:
    """Each relevant document of each test, in the order of the queries."""

    pool: Pool
    test: np.ndarray

    @classmethod
    def of(cls, pool: Pool) -> _Tests:
        """The tests of a pool."""
        test, column = np.nonzero(pool.relevant >= 0)
        order = np.argsort(pool.query[test], kind="stable")
        test = np.stack([test[order], pool.relevant[test[order], column[order]]])
        return cls(pool, test)

    @property
    def starts(self) -> range:
        return range(0, len(self.pool.queries), CHUNK)

    def places(self, start: int, total: Any, mode: str) -> Any:
        """int64 ``[e, 2]``: the places in the usual and in the whole pool; 0 where a document is not found."""
        import torch

        asked = self.pool.query[self.test[0]]
        a, b = np.searchsorted(asked, (start, start + CHUNK))
        ranks, excluded = (
            torch.from_numpy(one).to(total.device) for one in (self.pool.ranks, self.pool.excluded)
        )
        found = []
        for at in range(a, b, CHUNK):
            test, row = (
                torch.from_numpy(one).to(total.device) for one in self.test[:, at : min(b, at + CHUNK)]
            )
            query = torch.from_numpy(asked[at : min(b, at + CHUNK)] - start).to(total.device)
            every = total[query]
            score = every.gather(1, row[:, None])
            higher = (every > score) | ((every == score) & (ranks < ranks[row][:, None]))
            left_out = excluded[test]
            gone = (higher.gather(1, left_out.clamp(min=0)) & (left_out >= 0)).sum(1)
            place = torch.stack([higher[:, : self.pool.usual].sum(1), higher.sum(1)], 1) - gone[:, None] + 1
            # A search by words alone does not find what has none of them.
            found.append(place * (score > 0) if mode == "lexical" else place)
        return torch.cat(found) if found else torch.zeros(0, 2, dtype=torch.int64, device=total.device)

    def ndcg(self, place: np.ndarray, pool: Pool) -> np.ndarray:
        """float32 ``[T]``."""
        gain = np.where((place > 0) & (place <= 10), 1 / np.log2(1 + np.maximum(place, 1)), 0)
        ideal = np.cumsum(1 / np.log2(np.arange(2, 12)))[np.minimum((pool.relevant >= 0).sum(1), 10) - 1]
        return (np.bincount(self.test[0], gain, len(pool.query)) / ideal).astype(np.float32)


# Here again: results as `triptych eval` writes them.


def join(sets: Path, scores: Path, out: Path, models: Sequence[str]) -> None:
    """Writes eval-POOL.json.zst for each pool.

    Args:
        sets: What `pack` has read.
        scores: Folder of NAME.npz.
        out: Folder of the results.
        models: NAME, or NAME=FILE where the file has another name; the first is what the others are compared with.

    Raises:
        ValueError: For scores of other tests.
    """
    from triptych.eval.results import SCHEMA, Evaluation, ModeFacts, SystemFacts, averages, versions
    from triptych.eval.significance import differences

    for pool in POOLS:
        subsets = _subsets(sets / pool)
        names = digest_of([f"{one.label}\t{one.split}\t{query}" for one in subsets for query in one.ids])
        contenders: dict[str, SystemFacts] = {}
        systems: dict[str, ModeFacts] = {}
        for given in models:
            name, _, file = given.partition("=")
            with np.load(scores / f"{file or name}.npz") as arrays:
                facts = json.loads(str(arrays["facts"]))
                found = {
                    key.partition("/")[2]: arrays[key] for key in arrays.files if key.startswith(f"{pool}/")
                }
            if not found:
                continue
            if facts["ids"]["long" if pool == "long" else "hard"] != names:
                raise ValueError(
                    f"{scores / (file or name)}.npz: scores of other tests than those of {sets / pool}"
                )
            contenders[name] = SystemFacts(facts["fingerprint"], facts["facts"])
            for mode, values in found.items():
                system = f"{name}/{mode}" if mode else name
                weights = tuple(facts["modes"][mode][1:]) if mode else None
                systems[system] = ModeFacts(name, mode, cast(Any, weights))
                parts = np.split(values.astype(np.float64), np.cumsum([len(one.ids) for one in subsets])[:-1])
                for one, own in zip(subsets, parts, strict=True):
                    one.per_query[system], one.metrics[system] = own.tolist(), {"nDCG@10": float(own.mean())}
        first = next(iter(contenders))
        reference = next(name for name in (f"{first}/all", *systems) if name in systems)
        options = {"protocol": "exact", "metrics": ["nDCG@10"], "test": "t", "reference": reference}
        result = Evaluation(
            SCHEMA,
            datetime.now(UTC).isoformat(timespec="seconds"),
            versions(),
            options,
            contenders,
            systems,
            subsets,
            averages(subsets),
            differences(subsets, reference),
        )
        result.write(out / f"eval-{pool}.json.zst")
        print(f"{out}/eval-{pool}.json.zst: {', '.join(systems)}")


def _subsets(folder: Path) -> list[Any]:
    """The sets of a folder, without any system's results."""
    from triptych.eval.groups import grouped
    from triptych.eval.results import Subset
    from triptych.eval.significance import clusters_of

    [group] = grouped(collections_of(folder))
    found: list[Subset] = []
    for one, clusters in zip(group.collections, clusters_of(group.collections), strict=True):
        relevant = [[name for name, value in one.qrels[query].items() if value > 0] for query in one.queries]
        longest = [
            max(int(group.survey.characters[group.survey.row_of[name]]) for name in own) for own in relevant
        ]
        found.append(
            Subset(
                one.name,
                one.subset,
                one.split,
                one.corpus.digest,
                len(group.survey),
                len(one.queries),
                sum(map(len, relevant)),
                {},
                "nDCG@10",
                list(one.queries),
                {},
                longest,
                clusters=clusters,
            )
        )
    return found


if __name__ == "__main__":
    main()
