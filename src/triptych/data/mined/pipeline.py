"""Mines weak pairs from files, whatever their size, on whatever workers: the work of ``triptych data pairs``.

Documents are divided into parts by a digest of source and key, so that all languages of a document and all links to
it meet. Every stage works on one part, or on one range of the keys that recurring lines and duplicates are found by:
cost grows linearly with the text, and a worker's memory does not grow. The result is the same for any number of
workers and any engine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from triptych.data.mined import stages
from triptych.data.mined.consistency import Scorer
from triptych.data.mined.contamination import is_written, read_evaluation, write_evaluation
from triptych.data.mined.engine import Engine, Local, Runner
from triptych.data.mined.reading import MinedFile, mined_files
from triptych.data.mined.settings import Settings, fingerprint, part_count
from triptych.data.mined.stages import Batch, Job
from triptych.data.mined.tally import Tally
from triptych.errors import InputError, StorageError
from triptych.files import write_json

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, how many of its items are done, and how many there are."""

PAIRS_FOLDER, WORK_FOLDER = "pairs", ".work"
REPORT_FILE, PLAN_FILE, SETTINGS_FILE = "report.json", "plan.json", "settings.json"
_BATCH_BYTES = 32 << 20
_BATCH_FILES = 1000


@dataclass(frozen=True, slots=True)
class Mined:
    """What a run gave.

    Attributes:
        folder: Where everything is.
        pairs: The folder of the pairs, which ``triptych train --data`` reads.
        tally: What was made, dropped and kept.
    """

    folder: Path
    pairs: Path
    tally: Tally


def mine_pairs(
    sources: Path | str | Iterable[Path | str],
    out: Path | str,
    settings: Settings | None = None,
    *,
    engine: Engine | None = None,
    scorer: Scorer | None = None,
    scorer_name: str = "",
    on_skip: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> Mined:
    """Mines pairs from files and folders into a folder; a second call goes on where the first was interrupted.

    Writes ``pairs/pairs-NNNNN.jsonl.zst`` in the form of training data, ``report.json``
    (`triptych.data.mined.report`) and ``settings.json``. Intermediate files stand in ``.work`` until all is done:
    about half a kilobyte a pair, and the text once more.

    Args:
        sources: See `triptych.data.mined.reading.mined_files`.
        out: A folder; what is there must be of a run with the same files and settings.
        settings: What decides which pairs come out.
        engine: Where the work is done; by default this process.
        scorer: For the consistency filter; must be one that can be pickled if the engine has other processes.
        scorer_name: Which scorer it is: another one is another run.
        on_skip: Called with each file of a folder whose ending is not known.
        progress: Called after every item of a stage.

    Raises:
        DataError: For a file that cannot be read, with its line.
        InputError: If the folder has the pairs of other files or settings.
        MissingExtra: If a wanted filter needs a package that is not installed.
        StorageError: If the folder cannot be written.
        WorkerError: If a worker dies.
    """
    how, out = settings or Settings(), Path(out)
    files = mined_files(sources, on_skip)
    _begin(out, fingerprint(how, files, scorer_name), how)
    pairs = out / PAIRS_FOLDER
    if (out / REPORT_FILE).exists():
        return Mined(out, pairs, read_tally(out))
    batches = _batches(files)
    job = Job(out / WORK_FOLDER, pairs, how, len(batches), part_count(how, files), scorer)
    _make(job.work, pairs)
    if how.against and not is_written(job.work / "evaluation"):
        _make(job.work / "evaluation")
        write_evaluation(job.work / "evaluation", read_evaluation(how.against), how.words)
    with (engine or Local()).start() as run:
        _run_stages(run, job, batches, progress)
    tally = _gathered(job)
    write_json(out / REPORT_FILE, tally.to_dict())
    shutil.rmtree(job.work, ignore_errors=True)
    return Mined(out, pairs, tally)


def read_tally(out: Path) -> Tally:
    """The tally of a finished run."""
    return Tally.from_dict(json.loads((out / REPORT_FILE).read_text(encoding="utf-8")))


def _run_stages(run: Runner, job: Job, batches: Sequence[Batch], progress: Progress | None) -> None:
    steps: list[tuple[str, Callable[[Job, Any], None], Sequence[Any]]] = [
        ("reading", stages.read, batches),
        ("counting lines", stages.lines, range(job.parts)),
        ("finding boilerplate", stages.recurring, range(job.ranges)),
        ("mining", stages.mine, range(job.parts)),
        ("finding duplicates", stages.duplicates, range(job.ranges)),
        ("writing", stages.finish, range(job.parts)),
    ]
    for name, stage, items in steps:
        _run_stage(run, name, partial(stage, job), items, progress)


def _run_stage(
    run: Runner, name: str, stage: Callable[[Any], None], items: Sequence[Any], progress: Progress | None
) -> None:
    finished = 0

    def done() -> None:
        nonlocal finished
        finished += 1
        if progress:
            progress(name, finished, len(items))

    run(stage, items, done)


def _begin(out: Path, plan: str, settings: Settings) -> None:
    """Makes the folder, or sees that it is of the same run."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a new folder, or one of an earlier run")
    file = out / PLAN_FILE
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")).get("fingerprint") != plan:
            raise InputError(
                f"{out}: has pairs of other files or settings (see {SETTINGS_FILE} there); expected a new folder"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty, and not of an earlier run; expected a new folder")
    _make(out)
    write_json(out / SETTINGS_FILE, settings.to_dict())
    write_json(file, {"fingerprint": plan})


def _make(*folders: Path) -> None:
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


def _gathered(job: Job) -> Tally:
    """All tallies of a run, in a fixed order, so that the examples are the same every time."""
    whole = Tally()
    for stage, count in (("read", job.batches), ("made", job.parts), ("done", job.parts)):
        for path in job.files(stage, count, "json"):
            whole.add(Tally.from_dict(json.loads(path.read_text(encoding="utf-8"))))
    return whole
