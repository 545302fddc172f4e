"""Mines weak pairs from files of any size on any number of processes: the work of ``triptych data pairs``.

Documents are divided into parts by a digest of source and key, so that all languages of a document and all links to
it meet. Every stage works on one part, or on one range of the keys by which recurring lines and duplicates are found:
cost grows linearly with the text, and a worker's memory does not grow. The result is the same for any number of
workers.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from triptych.config import check_value
from triptych.errors import InputError, StorageError, WorkerError
from triptych.files.listing import OnSkip
from triptych.io import write_digests, write_json
from triptych.tools.pairs import stages
from triptych.tools.pairs.duplicates import is_written, read_evaluation, write_evaluation
from triptych.tools.pairs.filters import Scorer
from triptych.tools.pairs.reading import MinedFile, mined_files
from triptych.tools.pairs.report import PairCounts
from triptych.tools.pairs.settings import PairSettings, fingerprint, part_count
from triptych.tools.pairs.stages import Batch, Job
from triptych.tools.resume import claim
from triptych.types import Progress

PAIRS_FOLDER, WORK_FOLDER = "pairs", ".work"
REPORT_FILE, PLAN_FILE, SETTINGS_FILE = "report.json", "plan.json", "settings.json"
_BATCH_BYTES = 32 << 20
_BATCH_FILES = 1000


@dataclass(frozen=True, slots=True)
class MinedPairs:
    """The result of a run.

    Attributes:
        folder: Where everything is.
        pairs: The folder of the pairs, which ``triptych train --data`` reads.
        counts: What was made, dropped and kept.
    """

    folder: Path
    pairs: Path
    counts: PairCounts


def mine_pairs(
    sources: Path | str | Iterable[Path | str],
    out: Path | str,
    settings: PairSettings | None = None,
    *,
    workers: int = 1,
    scorer: Scorer | None = None,
    scorer_name: str = "",
    on_skip: OnSkip | None = None,
    progress: Progress | None = None,
) -> MinedPairs:
    """Mines pairs from files and folders into a folder; the same call resumes an interrupted run.

    Writes ``pairs/pairs-NNNNN.jsonl.zst`` in the form of training data, ``report.json``
    (`triptych.tools.pairs.report`) and ``settings.json``. Intermediate files stand in ``.work`` until all is done:
    about half a kilobyte per pair, and the text once more.

    Args:
        sources: See `triptych.tools.pairs.reading.mined_files`.
        out: A folder; if it exists, it must be of a run with the same files and settings.
        settings: What decides which pairs come out.
        workers: Processes; 1: this one. The result does not depend on it.
        scorer: For the consistency filter; must be picklable for more than one worker.
        scorer_name: Which scorer it is: another one is another run.
        on_skip: Called with each file of a folder that is skipped, and why.
        progress: Called with each stage and its items.

    Raises:
        DataError: For a file that cannot be read, with its line.
        InputError: If the folder has the pairs of other files or settings.
        MissingExtra: If a filter needs a package that is not installed.
        StorageError: If the folder cannot be written.
        WorkerError: If a worker dies.
    """
    check_value(out, Path | str, "mine_pairs: out")
    check_value(settings, PairSettings | None, "mine_pairs: settings")
    check_value(workers, int, "mine_pairs: workers")
    settings, out = settings or PairSettings(), Path(out)
    if workers < 1:
        raise InputError(f"workers: got {workers}; expected at least 1")
    files = mined_files(sources, on_skip)
    _begin(out, fingerprint(settings, files, scorer_name), settings)
    pairs, report = out / PAIRS_FOLDER, out / REPORT_FILE
    if report.exists():
        return MinedPairs(out, pairs, PairCounts.from_dict(json.loads(report.read_text(encoding="utf-8"))))
    batches = _batches(files)
    job = Job(out / WORK_FOLDER, pairs, settings, len(batches), part_count(settings, files), scorer)
    _make_folders(job.work, pairs)
    if settings.against and not is_written(job.work / "evaluation"):
        _make_folders(job.work / "evaluation")
        write_evaluation(job.work / "evaluation", read_evaluation(settings.against), settings.words)
    steps: list[tuple[str, Callable[[Job, Any], None], Sequence[Any]]] = [
        ("reading", stages.read, batches),
        ("counting lines", stages.lines, range(job.parts)),
        ("finding boilerplate", stages.recurring, range(job.ranges)),
        ("mining", stages.mine, range(job.parts)),
        ("finding duplicates", stages.duplicates, range(job.ranges)),
        ("writing", stages.finish, range(job.parts)),
    ]
    with parallel(workers) as run:
        for name, stage, items in steps:
            for done, _ in enumerate(run(partial(stage, job), items), start=1):
                if progress:
                    progress(name, done, len(items))
    counts = PairCounts()
    # In a fixed order, so that the examples are the same every time.
    for stage_name, count in (("read", job.batches), ("made", job.parts), ("done", job.parts)):
        for path in job.files(stage_name, count, "json"):
            counts.add(PairCounts.from_dict(json.loads(path.read_text(encoding="utf-8"))))
    write_digests(out, sorted(pairs.iterdir()))
    write_json(report, counts.to_dict())
    shutil.rmtree(job.work, ignore_errors=True)
    return MinedPairs(out, pairs, counts)


Run = Callable[[Callable[[Any], None], Iterable[Any]], Iterable[None]]
"""Calls a function for each item, in any order; one result for each finished item."""


@contextmanager
def parallel(workers: int) -> Generator[Run]:
    """Runs functions in this process or, for more than one worker, in a pool of that many processes.

    Yields:
        See `Run`; functions and items must be picklable. The first error is raised, remaining items are cancelled.

    Raises:
        WorkerError: If a worker dies.
    """
    if workers == 1:
        yield map
        return
    # Not forked: a parent that has used torch or Arrow has threads, whose locks a fork copies locked.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))

    def run(function: Callable[[Any], None], items: Iterable[Any]) -> Iterable[None]:
        return (future.result() for future in as_completed([pool.submit(function, item) for item in items]))

    try:
        yield run
    except BrokenProcessPool as error:
        raise WorkerError("a worker process died; finished parts are kept: run again") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(out: Path, plan: str, settings: PairSettings) -> None:
    """Creates the folder, or checks that it is of the same run."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a new folder, or one of an earlier run")
    file = out / PLAN_FILE
    if not file.exists():
        if out.exists() and any(out.iterdir()):
            raise InputError(f"{out}: is not empty, and not of an earlier run; expected a new folder")
        _make_folders(out)
        write_json(out / SETTINGS_FILE, settings.to_dict())
    if claim(file, {"fingerprint": plan}):
        raise InputError(
            f"{out}: has pairs of other files or settings (see {SETTINGS_FILE} there); expected a new folder"
        )


def _make_folders(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(error.errno, f"{folder}: cannot be made: {error.strerror or error}") from error


def _batches(files: Sequence[MinedFile]) -> list[Batch]:
    """Files in their order, up to 32 MB or 1,000 of them together."""
    groups: list[list[MinedFile]] = [[]]
    size = 0
    for file in files:
        if groups[-1] and (size >= _BATCH_BYTES or len(groups[-1]) >= _BATCH_FILES):
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.path.stat().st_size
    return [Batch(number, tuple(group)) for number, group in enumerate(groups)]
