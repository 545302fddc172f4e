"""Hard negatives for training data: search, drop false negatives, draw, write (`mine`)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from triptych.data.cache import chunked
from triptych.encode.encoder import Encoder
from triptych.errors import IndexMissing, InputError
from triptych.mine.block import Mining, mine_block
from triptych.mine.exact import ExactSearch
from triptych.mine.given import Training
from triptych.mine.options import Options, Scoring, scoring_of
from triptych.mine.parts import Parts
from triptych.mine.passages import ARTICLE, Passages, own_passages, passages_of, read_corpus
from triptych.mine.report import Report
from triptych.mine.rerank import Reranker
from triptych.mine.search import Searcher
from triptych.mine.through_index import IndexSearch, add_missing, passages_in
from triptych.retrieval import Index

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
        train: Files and folders of training examples, see `triptych.data.training.read_examples`.
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
