"""Output that survives being killed: finished blocks of queries in a folder beside it, joined in the end.

Mining of one block of queries: search, drop what may be right, draw, count.

Hard negatives for training data: search, drop false negatives, draw, write (`mine`).
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import zstandard
from numpy.typing import NDArray

from triptych.collections.examples import Example
from triptych.encode.encoder import Encoder
from triptych.errors import IndexMissing, InputError, StorageError
from triptych.index.index import Index
from triptych.io import replacing, write_atomically, write_json
from triptych.tools.negatives.filters import Asked, drawn, reference_of, sieve
from triptych.tools.negatives.options import Options, Scoring, scoring_of
from triptych.tools.negatives.passages import (
    ARTICLE,
    UNKNOWN,
    Given,
    Passages,
    Training,
    own_passages,
    passages_of,
    read_corpus,
    record_of,
    rounded,
)
from triptych.tools.negatives.report import Report, shortened
from triptych.tools.negatives.search import NOTHING, ExactSearch, Searcher
from triptych.tools.negatives.through_index import IndexSearch, add_missing, passages_in
from triptych.tools.rerank import Reranker
from triptych.train.data import chunked
from triptych.types import Encoded, Floats

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_FACTS = "facts.json"


class Parts:
    """The blocks of an output file.

    Args:
        out: The file to be written; its ending is one of `ENDINGS`.
        facts: All that determines its content. A folder of other facts is refused, not reused.

    Raises:
        InputError: For another ending, or a file or parts that were made from something else.
        StorageError: If the folder cannot be written.
    """

    def __init__(self, out: Path, facts: Mapping[str, Any]) -> None:
        if not out.name.endswith(ENDINGS):
            raise InputError(f"{out}: expected a name that ends in one of {', '.join(ENDINGS)}")
        self.out, self.report_path = out, out.with_name(out.name + ".report.json")
        self._folder = out.with_name(out.name + ".parts")
        self._facts = json.loads(json.dumps(facts))
        if out.exists():
            if self._finished() is None:
                raise InputError(
                    f"{out}: exists, and was not made from this; remove it, or give another name"
                )
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(error.errno, f"{self._folder}: cannot be made: {error.strerror}") from error
        known = _read(self._folder / _FACTS)
        if known is None:
            write_json(self._folder / _FACTS, self._facts)
        elif known != self._facts:
            raise InputError(
                f"{self._folder}: holds the beginning of another run ({_difference(known, self._facts)}); give its "
                "options again, or remove it"
            )

    def _finished(self) -> Report | None:
        values = _read(self.report_path)
        return None if values is None or values.get("facts") != self._facts else Report.from_json(values)

    def done(self) -> Report | None:
        """The report if the file is whole already."""
        return self._finished() if self.out.exists() else None

    def get(self, number: int) -> Report | None:
        """The counts of a block if it is there."""
        values = _read(self._path(number, ".json"))
        return None if values is None else Report.from_json(values)

    def put(self, number: int, records: Sequence[Mapping[str, Any]], report: Report) -> None:
        """Writes a block; when this returns it is on the disk."""
        lines = [json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in records]
        write_atomically(self._path(number, ".jsonl"), "".join(lines).encode())
        write_json(self._path(number, ".json"), report.to_json())

    def join(self, count: int) -> Report:
        """Writes the file and its report from `count` blocks, and removes the folder."""
        total = Report(facts=self._facts)
        for number in range(count):
            total.add(Report.from_json(json.loads(self._path(number, ".json").read_bytes())))
        # The report first: a file is finished when both are there.
        write_json(self.report_path, total.to_json())
        with replacing(self.out) as temporary, _writer(temporary, self.out.name) as file:
            for number in range(count):
                file.write(self._path(number, ".jsonl").read_bytes())
        shutil.rmtree(self._folder)
        return total

    def _path(self, number: int, ending: str) -> Path:
        return self._folder / f"{number:08d}{ending}"


@contextmanager
def _writer(path: Path, name: str) -> Generator[Any]:
    """A file of a compression by its name, the same bytes every time: no date and no name within."""
    with path.open("wb") as plain:
        if name.endswith(".zst"):
            with zstandard.ZstdCompressor(level=9).stream_writer(plain, closefd=False) as file:
                yield file
        elif name.endswith(".gz"):
            with gzip.GzipFile("", "wb", mtime=0, fileobj=plain) as file:
                yield file
        else:
            yield plain


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it") from error


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} was {old.get(name)}, is {new.get(name)}" for name in names[:2])


class Mining(NamedTuple):
    """What the mining of every block needs.

    Attributes:
        encoder: Encodes queries.
        passages: What is searched.
        options: How.
        reranker: A second opinion, or None.
        article: Fields that name an example's article.
    """

    encoder: Encoder
    passages: Passages
    options: Options
    reranker: Reranker | None
    article: Sequence[str]


@dataclass(slots=True)
class _Drawn:
    """One query on its way: its candidates, why each is dropped ("" if not), and which are taken.

    Attributes:
        rows: int64 ``[K]``.
        scores: float32 ``[K]``.
        reasons: Strings ``[K]``.
        order: The candidates that are left, in the order in which they are taken.
        judged: Scores of its positives, then of its existing negatives.
    """

    rows: NDArray[np.int64]
    scores: Floats
    reasons: NDArray[np.str_]
    order: NDArray[np.int64]
    judged: Floats


def mine_block(
    block: Sequence[Given], first: int, searcher: Searcher, mining: Mining
) -> tuple[list[dict[str, Any]], Report]:
    """The records of a block of examples, of which the first has the number `first`."""
    encoder, passages, options, reranker, _ = mining
    asked = [given.example.passages if options.existing else given.example.pos for given in block]
    wanted = [[passages.row(text) for text in texts] for texts in asked]
    queries = _encoded([given.example for given in block], encoder, searcher, options)
    found = searcher.search(queries, wanted, options.ranks[1])
    drawn_all = [
        _sieved(given, first + i, found.rows[i], found.scores[i], found.wanted[i], mining)
        for i, given in enumerate(block)
    ]
    if reranker is not None:
        _rerank(block, drawn_all, reranker, mining)
    report = Report()
    return [
        _written(given, each, mining, report) for given, each in zip(block, drawn_all, strict=True)
    ], report


def _encoded(examples: Sequence[Example], encoder: Encoder, searcher: Searcher, options: Options) -> Encoded:
    """Queries as in training: with their own prompt, or else the model's prefix."""
    prefix = encoder.config.query_prefix
    texts = [(prefix if each.prompt is None else each.prompt) + each.query for each in examples]
    return encoder.encode(texts, outputs=searcher.heads, max_length=options.search.query_length)


def _sieved(
    given: Given, number: int, rows: NDArray[np.int64], scores: Floats, judged: Floats, mining: Mining
) -> _Drawn:
    passages, options = mining.passages, mining.options
    example = given.example
    origins = {origin for text in example.pos for origin in passages.origins(text)}
    named = passages.article_number(given.article(mining.article))
    if named != UNKNOWN and named not in {article for article, _ in origins}:
        origins.add((named, UNKNOWN))
    asked = Asked(
        positives=_groups(example.pos, passages),
        query=passages.groups_of(example.query),
        existing=_groups(example.neg if options.existing else (), passages),
        origins=frozenset(origins),
        reference=reference_of(judged[: len(example.pos)], options.filters),
    )
    count = int((rows != NOTHING).sum())
    reasons = sieve(rows, scores, passages, asked, options)
    left = drawn(np.flatnonzero(reasons == ""), options, number)
    return _Drawn(rows[:count], scores[:count], reasons, left, judged)


def _groups(texts: Sequence[str], passages: Passages) -> frozenset[int]:
    return frozenset(group for text in texts for group in passages.groups_of(text))


def _rerank(block: Sequence[Given], all_drawn: Sequence[_Drawn], reranker: Reranker, mining: Mining) -> None:
    """Lets the re-ranker read a pool of each query's candidates; its scores replace the others."""
    passages, options = mining.passages, mining.options
    pool = max(options.filters.rerank_pool, options.keep)
    pairs: list[tuple[str, str]] = []
    for given, each in zip(block, all_drawn, strict=True):
        example = given.example
        each.reasons[each.order[pool:]] = "left over"
        each.order = each.order[:pool]
        texts = [
            *example.passages[: len(each.judged)],
            *(passages.texts[row] for row in each.rows[each.order]),
        ]
        pairs += [(example.query, text) for text in texts]
    scores = reranker.score(pairs)
    start = 0
    for given, each in zip(block, all_drawn, strict=True):
        middle = start + len(each.judged)
        each.judged = scores[start:middle]
        start = middle + len(each.order)
        each.scores = each.scores.copy()
        each.scores[each.order] = scores[middle:start]
        reference = reference_of(each.judged[: len(given.example.pos)], options.filters)
        near = each.scores[each.order] > options.filters.rerank_margin.limit(reference)
        each.reasons[each.order[near]] = "reranker"
        each.order = each.order[~near]


def _written(given: Given, each: _Drawn, mining: Mining, report: Report) -> dict[str, Any]:
    """The record of one example; counts what became of its candidates."""
    passages, options = mining.passages, mining.options
    example, existing = given.example, given.example.neg if options.existing else ()
    room = max(0, options.keep - len(existing))
    each.reasons[each.order[room:]] = "left over"
    taken = np.sort(each.order[:room])
    dropped = np.flatnonzero(each.reasons != "")
    report.candidates += len(each.rows)
    report.drop(
        each.reasons[dropped].tolist(),
        {str(each.reasons[i]): _shown(example, each, int(i), passages) for i in dropped[::-1]},
    )
    report.keep(len(taken), len(existing), options.keep, example.language)
    neg_scores = each.scores[taken]
    pos_scores = each.judged[: len(example.pos)]
    report.total(
        {
            "positive": float(pos_scores.sum()),
            "positives": len(example.pos),
            "negative": float(neg_scores.sum()),
            "rank": int((taken + 1).sum()),
        }
    )
    mined = [passages.texts[row] for row in each.rows[taken]]
    all_scores = (pos_scores, np.concatenate([each.judged[len(example.pos) :], neg_scores]))
    return record_of(given, [*existing, *mined], all_scores)


def _shown(example: Example, each: _Drawn, place: int, passages: Passages) -> dict[str, Any]:
    """A dropped candidate for the report."""
    return {
        "query": shortened(example.query),
        "positive": shortened(example.pos[0]),
        "passage": shortened(passages.texts[each.rows[place]]),
        "rank": place + 1,
        "score": rounded(each.scores[place]),
        "positive_score": rounded(each.judged[0]),
    }


EngineName: TypeAlias = Literal["exact", "index"]
Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with what is going on ("reading", "encoding", "mining"), how many are done, and of how many."""

VERSION = 1
"""Of what is mined from the same input; another one makes everything anew."""

_BLOCK = 1024  # passages that are encoded at once


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is mined.

    Attributes:
        train: Files and folders of training examples, see `triptych.collections.training.read_examples`.
        corpus: Files, folders or BEIR folders of passages. None, without `index`: the examples' own passages.
        index: Folder or address of an index to search. One that is there is the corpus, and passages of `corpus`
            that it lacks are added to it; one that is not there is made of them and kept.
        engine: "exact": everything in memory on the encoder's device; "index": through `index` or, without one,
            a temporary one.
        vectors: Folder for the passages' representations, to go on with after an interruption (exact engine).
        article: Fields that name the article of a passage or of an example's positives.
        split: The judgements of BEIR folders that are read.
        positive_from: The least label or score of a positive, in judged pairs.
    """

    train: Sequence[Path | str]
    corpus: Sequence[Path | str] | None = None
    index: str | None = None
    engine: EngineName = "exact"
    vectors: Path | str | None = None
    article: Sequence[str] = ARTICLE
    split: str = "train"
    positive_from: float = 0.5

    def __post_init__(self) -> None:
        if self.engine not in get_args(EngineName):
            raise InputError(f"engine: got {self.engine!r}; expected exact or index")
        if self.index is not None and self.engine != "index":
            raise InputError(
                "index: got a place for it, but the engine is 'exact'; expected the engine 'index'"
            )
        if self.vectors is not None and self.engine != "exact":
            raise InputError("vectors: got a folder, but an index keeps its own; expected the engine 'exact'")
        if not self.train:
            raise InputError("train: got no file; expected one or more")


def mine(
    inputs: Inputs,
    out: Path | str,
    encoder: Encoder,
    options: Options | None = None,
    *,
    reranker: Reranker | None = None,
    progress: Progress | None = None,
) -> Report:
    """Gives every training example hard negatives, with scores.

    Searches the corpus for each query, drops what may be a false negative, and draws from the rest. Examples are
    streamed; the corpus is held in memory. A run that was killed goes on when it is started again, and its output is
    the same byte for byte.

    Args:
        inputs: Examples and corpus.
        out: File to write: .jsonl, .jsonl.gz or .jsonl.zst. Beside it stands its report, ``….report.json``, and
            while it is made the folder ``….parts``.
        encoder: The model that searches.
        options: How to mine.
        reranker: A second opinion on the candidates; its scores are what is written then.
        progress: See `Progress`.

    Returns:
        What was done. If the file is there already, made from the same input in the same way, its report.

    Raises:
        DataError: For input that cannot be read, with file and line.
        InputError: For options that the model cannot follow, or a file `out` that was made otherwise.
        StorageError: If something cannot be written; what was finished is kept.
    """
    how, tell = options or Options(), progress or _silent
    scoring = scoring_of(how, encoder.heads)
    training = Training(inputs.train, inputs.split, inputs.positive_from)
    with _opened(inputs, encoder) as index:
        passages = _passages(inputs, how, training, index, tell)
        parts = Parts(Path(out), _facts(inputs, how, scoring, encoder, training, passages, reranker))
        if (report := parts.done()) is not None:
            return report
        mining = Mining(encoder, passages, how, reranker, inputs.article)
        search = _Lazy(lambda: _searcher(inputs, how, scoring, encoder, passages, index, tell))
        count = 0
        done = 0
        for count, block in enumerate(chunked(training.read(), how.block), start=1):
            if parts.get(count - 1) is None:
                records, counted = mine_block(block, done, search.get(), mining)
                parts.put(count - 1, records, counted)
            done += len(block)
            tell("mining", done, training.count)
        return parts.join(count)


class _Lazy:
    """Something that is made when it is first needed: a run that only joins its parts encodes nothing."""

    def __init__(self, make: Callable[[], Searcher]) -> None:
        self._make, self._made = make, None

    def get(self) -> Searcher:
        if self._made is None:
            self._made = self._make()
        return self._made


@contextmanager
def _opened(inputs: Inputs, encoder: Encoder) -> Generator[Index | None]:
    """The index to search, if that is the engine."""
    if inputs.engine == "exact":
        yield None
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = inputs.index or f"{temporary}/index"
        try:
            index = Index.open(place, encoder)
        except IndexMissing:
            if inputs.index is not None and inputs.corpus is None:
                raise
            index = Index.create(place, encoder)
        with index:
            yield index


def _passages(
    inputs: Inputs, options: Options, training: Training, index: Index | None, tell: Progress
) -> Passages:
    """The corpus and, after it, what has to be scored besides."""

    def judged() -> Iterator[str]:
        for number, given in enumerate(training.read(), start=1):
            yield from given.example.passages if options.existing else given.example.pos
            if number % 1000 == 0:
                tell("reading", number, None)

    if inputs.corpus is not None:
        corpus = list(read_corpus(inputs.corpus, inputs.article))
    elif index is not None and len(index):
        corpus = []
    else:
        corpus = list(
            own_passages((given.example, given.article(inputs.article)) for given in training.read())
        )
    if index is not None:
        add_missing(index, corpus, lambda done, total: tell("indexing", done, total))
        corpus = list(passages_in(index, inputs.article))
    return passages_of(corpus, judged())


def _searcher(
    inputs: Inputs,
    options: Options,
    scoring: Scoring,
    encoder: Encoder,
    passages: Passages,
    index: Index | None,
    tell: Progress,
) -> Searcher:
    if index is not None:
        return IndexSearch(index, encoder, passages, scoring, options.search.passage_length)
    total = len(passages.texts)
    blocks = encoder.encode_stream(
        passages.texts,
        block=_BLOCK,
        folder=inputs.vectors,
        outputs=scoring.heads,
        max_length=options.search.passage_length,
        progress=lambda done, _total: tell("encoding", done, total),
    )
    return ExactSearch(blocks, passages.searchable, scoring, encoder.device)


def _facts(
    inputs: Inputs,
    options: Options,
    scoring: Scoring,
    encoder: Encoder,
    training: Training,
    passages: Passages,
    reranker: Reranker | None,
) -> dict[str, Any]:
    """All that determines the output: numbers differ between devices and types in their last digits."""
    return {
        "version": VERSION,
        "train": training.digest,
        "queries": training.count,
        "corpus": passages.digest,
        "passages": passages.searchable,
        "blank": passages.blank,
        "model": encoder.fingerprint,
        "device": encoder.device.type,
        "dtype": encoder.describe()["dtype"],
        "engine": inputs.engine,
        "article": list(inputs.article),
        "options": options.to_json(),
        "routes": list(scoring.routes),
        "weights": {"ranking": list(scoring.rank), "judge": list(scoring.judge)},
        "reranker": None if reranker is None else reranker.name,
    }


def _silent(stage: str, done: int, total: int | None) -> None:
    """Nobody watches."""
