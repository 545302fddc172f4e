"""Hard negatives for training data: search, drop possible false negatives, sample, write."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from triptych.config import check_types, check_value
from triptych.encode.encoder import Encoder
from triptych.errors import IndexMissing, InputError, StorageError
from triptych.index.index import Index
from triptych.io import compressing, write_json
from triptych.tools.negatives.options import MiningOptions, Scoring, scoring_of
from triptych.tools.negatives.passages import (
    ARTICLE,
    Passages,
    Training,
    own_passages,
    passages_of,
    read_corpus,
)
from triptych.tools.negatives.report import NegativesReport
from triptych.tools.negatives.search import ExactSearch, IndexSearch, Searcher, add_missing, passages_in
from triptych.tools.negatives.select import Mining, mine_block
from triptych.tools.rerank import CrossEncoder
from triptych.tools.resume import claim, put_part, read_json
from triptych.types import Progress, chunked

EngineName: TypeAlias = Literal["exact", "index"]
VERSION = 2
"""Of what is mined from the same input; parts of another version are not reused."""
ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")

_BLOCK = 1024  # passages that are encoded at once


@dataclass(frozen=True, slots=True)
class MiningInputs:
    """What is mined.

    Attributes:
        train: Training examples: JSON Lines, Parquet, folders of them, BEIR folders.
        corpus: Passages to search: files, folders or BEIR folders; without it and without `index` the examples' own.
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
        check_types(self)
        if self.index is not None and self.engine != "index":
            raise InputError(
                "index: got a place for it, but the engine is 'exact'; expected the engine 'index'"
            )
        if self.vectors is not None and self.engine != "exact":
            raise InputError("vectors: got a folder, but an index keeps its own; expected the engine 'exact'")
        if not self.train:
            raise InputError("train: got no file; expected one or more")


def mine(
    inputs: MiningInputs,
    out: Path | str,
    encoder: Encoder,
    options: MiningOptions | None = None,
    *,
    reranker: CrossEncoder | None = None,
    progress: Progress | None = None,
) -> NegativesReport:
    """Mines hard negatives, with scores, for every training example.

    Searches the corpus for each query, drops what may be a false negative, and draws from the rest. Examples are
    streamed; the corpus is held in memory. A run that was killed is resumed when it is started again, and its output
    is the same byte for byte.

    Args:
        inputs: Examples and corpus.
        out: File to write: .jsonl, .jsonl.gz or .jsonl.zst. Beside it stands its report, ``….report.json``, and
            while it is made the folder ``….parts``.
        encoder: The model that searches.
        options: How to mine.
        reranker: A second opinion on the candidates; its scores are what is written then.
        progress: Called with the stage: "reading", "indexing", "encoding" or "mining".

    Returns:
        What was done. If the file is there already, made from the same input in the same way, its report.

    Raises:
        DataError: For input that cannot be read, with file and line.
        InputError: For options that the model cannot follow, or a file `out` that was made otherwise.
        StorageError: If something cannot be written; what was finished is kept.
    """
    options = options or MiningOptions()
    check_value(inputs, MiningInputs, "mine: inputs")
    check_value(out, Path | str, "mine: out")
    check_value(options, MiningOptions, "mine: options")
    out = Path(out)
    if not out.name.endswith(ENDINGS):
        raise InputError(f"{out}: expected a name that ends in one of {', '.join(ENDINGS)}")
    scoring = scoring_of(options, encoder.heads)
    training = Training(inputs.train, inputs.split, inputs.positive_from)
    with _open_index(inputs, encoder) as index:
        passages = _passages(inputs, options, training, index, progress)
        facts = _facts(inputs, options, scoring, encoder, training, passages, reranker)
        parts = _Parts(out, facts)
        if (report := parts.finished()) is not None:
            return report
        mining = Mining(encoder, passages, options, reranker, inputs.article)

        # Only when it is needed: a run that only joins its parts encodes nothing.
        @cache
        def searcher() -> Searcher:
            return _searcher(inputs, options, scoring, encoder, passages, index, progress)

        count = done = 0
        for count, block in enumerate(chunked(training.read(), options.block), start=1):
            if not parts.has(count - 1):
                parts.put(count - 1, *mine_block(block, done, searcher(), mining))
            done += len(block)
            if progress:
                progress("mining", done, training.count)
        return parts.join(count)


class _Parts:
    """The finished blocks of an output file, in a folder beside it.

    Args:
        out: The output file.
        facts: All that determines its content. A folder or file of other facts is refused, not reused.

    Raises:
        InputError: For a file or parts that were made from something else.
        StorageError: If the folder cannot be written.
    """

    def __init__(self, out: Path, facts: Mapping[str, Any]) -> None:
        self._out, self._report = out, out.with_name(out.name + ".report.json")
        self._folder = out.with_name(out.name + ".parts")
        self._facts: dict[str, Any] = json.loads(json.dumps(facts))
        if out.exists():
            if self.finished() is None:
                raise InputError(
                    f"{out}: exists, and was not made from this; remove it, or give another name"
                )
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(error.errno, f"{self._folder}: cannot be made: {error.strerror}") from error
        if difference := claim(self._folder / "facts.json", facts):
            raise InputError(
                f"{self._folder}: holds the beginning of another run ({difference}); give its options again, or "
                "remove it"
            )

    def finished(self) -> NegativesReport | None:
        """The report if the file is whole."""
        values = read_json(self._report) if self._out.exists() else None
        return (
            None
            if values is None or values.get("facts") != self._facts
            else NegativesReport.from_json(values)
        )

    def has(self, number: int) -> bool:
        """Whether a block is finished."""
        return self._path(number, ".json").exists()

    def put(self, number: int, records: Sequence[Mapping[str, Any]], report: NegativesReport) -> None:
        """Writes a block; when this returns it is on the disk."""
        put_part(self._path(number, ".jsonl"), records, self._path(number, ".json"), report.to_json())

    def join(self, count: int) -> NegativesReport:
        """Writes the file and its report from `count` blocks, and removes the folder."""
        total = NegativesReport(facts=self._facts)
        for number in range(count):
            total.add(NegativesReport.from_json(read_json(self._path(number, ".json")) or {}))
        write_json(self._report, total.to_json())  # first: a file is finished when both exist
        with compressing(self._out) as file:
            for number in range(count):
                file.write(self._path(number, ".jsonl").read_bytes())
        shutil.rmtree(self._folder)
        return total

    def _path(self, number: int, ending: str) -> Path:
        return self._folder / f"{number:08d}{ending}"


@contextmanager
def _open_index(inputs: MiningInputs, encoder: Encoder) -> Generator[Index | None]:
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
            # Scores of few bits are not those of the exact engine.
            index = Index.create(place, encoder, multi="float16")
        with index:
            yield index


def _passages(
    inputs: MiningInputs,
    options: MiningOptions,
    training: Training,
    index: Index | None,
    progress: Progress | None,
) -> Passages:
    """The corpus and, after it, what has to be scored besides."""

    def judged() -> Iterator[str]:
        for number, given in enumerate(training.read(), start=1):
            yield from given.example.passages if options.existing else given.example.pos
            if progress and number % 1000 == 0:
                progress("reading", number, None)

    if inputs.corpus is not None:
        corpus = list(read_corpus(inputs.corpus, inputs.article))
    elif index is not None and len(index):
        corpus = []
    else:
        corpus = list(
            own_passages((given.example, given.article(inputs.article)) for given in training.read())
        )
    if index is not None:
        add_missing(index, corpus, progress)
        corpus = list(passages_in(index, inputs.article))
    return passages_of(corpus, judged())


def _searcher(
    inputs: MiningInputs,
    options: MiningOptions,
    scoring: Scoring,
    encoder: Encoder,
    passages: Passages,
    index: Index | None,
    progress: Progress | None,
) -> Searcher:
    if index is not None:
        return IndexSearch(index, encoder, passages, scoring, options.search.passage_length)
    total = len(passages.texts)

    def report(_stage: str, done: int, _total: int | None) -> None:
        if progress:
            progress("encoding", done, total)

    blocks = encoder.encode_stream(
        passages.texts,
        block=_BLOCK,
        folder=inputs.vectors,
        outputs=scoring.heads,
        max_length=options.search.passage_length,
        progress=report,
    )
    return ExactSearch(blocks, passages.searchable, scoring, encoder.device)


def _facts(
    inputs: MiningInputs,
    options: MiningOptions,
    scoring: Scoring,
    encoder: Encoder,
    training: Training,
    passages: Passages,
    reranker: CrossEncoder | None,
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
        "weights": list(scoring.weights),
        "reranker": None if reranker is None else reranker.name,
    }
