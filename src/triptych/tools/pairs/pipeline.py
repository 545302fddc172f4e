"""What a run of mining says of itself: totals, a table for each question, an example for each filter, a picture.

Mines weak pairs from files, whatever their size, on whatever workers: the work of ``triptych data pairs``.

Documents are divided into parts by a digest of source and key, so that all languages of a document and all links to
it meet. Every stage works on one part, or on one range of the keys that recurring lines and duplicates are found by:
cost grows linearly with the text, and a worker's memory does not grow. The result is the same for any number of
workers and any engine.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from triptych.errors import InputError, MissingExtra, StorageError
from triptych.io import replacing, write_json
from triptych.tools.pairs import stages
from triptych.tools.pairs.duplicates import is_written, read_evaluation, write_evaluation
from triptych.tools.pairs.engine import Engine, Local, Runner
from triptych.tools.pairs.filters import Scorer
from triptych.tools.pairs.reading import MinedFile, mined_files
from triptych.tools.pairs.settings import FILTERS, Settings, fingerprint, part_count
from triptych.tools.pairs.stages import Batch, Job
from triptych.tools.pairs.tally import Cell, Dropped, Tally

BY = {"source": "source", "kind": "kind", "language": "languages"}
"""By what the counts can be summed up, and the field of a cell that says it."""
OTHERS = "others"


class Row(NamedTuple):
    """Counts of the pairs of a source, kind or language: made = kept + all of `dropped`.

    Attributes:
        name: Which.
        made: How many were made.
        kept: How many are left.
        dropped: Those that each filter dropped, in the order of `filters`.
    """

    name: str
    made: int
    kept: int
    dropped: tuple[int, ...]


def filters(tally: Tally) -> list[str]:
    """The filters that dropped something, in the order in which they run."""
    return [name for name in FILTERS if tally.dropped.get(name, Counter()).total()]


def rows(tally: Tally, by: str, most: int | None = None) -> list[Row]:
    """The counts by source, kind or language, the greatest first.

    Args:
        tally: All counts.
        by: One of `BY`.
        most: So many rows at most, the last being all others.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in sorted(tally.made):
        groups.setdefault(getattr(cell, BY[by]), []).append(cell)
    whole = sorted((_row(tally, name, cells) for name, cells in groups.items()), key=lambda row: -row.made)
    if most is None or len(whole) <= most:
        return whole
    rest = [cell for row in whole[most - 1 :] for cell in groups[row.name]]
    return [*whole[: most - 1], _row(tally, OTHERS, rest)]


def total(tally: Tally) -> Row:
    """The counts of everything."""
    return _row(tally, "all", tally.made)


def examples(tally: Tally) -> list[tuple[str, Cell, Dropped]]:
    """One example of what each filter dropped: of the cell in which it dropped most."""
    found: list[tuple[str, Cell, Dropped]] = []
    for name in filters(tally):
        most = max(tally.dropped[name].values())
        cell = min(cell for cell, count in tally.dropped[name].items() if count == most)
        found.append((name, cell, tally.examples[name, cell]))
    return found


def language_pairs(tally: Tally) -> int:
    """How many ordered pairs of different languages have a pair that was kept."""
    return len({cell.languages for cell, count in tally.kept.items() if count and ">" in cell.languages})


def summary(tally: Tally) -> dict[str, Any]:
    """The totals as JSON."""
    whole = total(tally)
    texts: Counter[str] = Counter()
    for (what, _, _), count in tally.texts.items():
        texts[what] += count
    kept = [cell for cell, count in tally.kept.items() if count]
    return {
        "made": whole.made,
        "kept": whole.kept,
        "dropped": dict(zip(filters(tally), whole.dropped, strict=True)),
        "languages": len({cell.languages for cell in kept if ">" not in cell.languages}),
        "language_pairs": language_pairs(tally),
        "texts": dict(sorted(texts.items())),
    }


def draw(tally: Tally, path: Path) -> None:
    """Draws what was kept and dropped by each filter, for each source and kind, as bars of 100 %.

    Raises:
        MissingExtra: If matplotlib is not installed.
        StorageError: If the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing the report", "eval") from error
    parts = [rows(tally, "source", 15), rows(tally, "kind")]
    bars = sum(map(len, parts))
    figure = Figure(figsize=(9, 1.6 + 0.32 * bars), layout="constrained")
    FigureCanvasSVG(figure)
    axes: Any = figure.subplots(2, 1, height_ratios=[max(1, len(part)) for part in parts], squeeze=False)[
        :, 0
    ]
    for axis, part, by in zip(axes, parts, ("source", "kind"), strict=True):
        _bars(axis, part, filters(tally))
        axis.set_title(f"pairs by {by}", loc="left", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    with replacing(path) as temporary:
        # No date and no random ids: the same counts give the same file.
        import matplotlib

        with matplotlib.rc_context({"svg.hashsalt": "triptych", "svg.fonttype": "none"}):
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _bars(axis: Any, part: Sequence[Row], names: Sequence[str]) -> None:
    labels = [f"{row.name}  {row.made:,}" for row in part]
    start = [0.0] * len(part)
    for number, name in enumerate(["kept", *names]):
        counts = [row.kept if number == 0 else row.dropped[number - 1] for row in part]
        shares = [100 * count / max(1, row.made) for count, row in zip(counts, part, strict=True)]
        color = "#2a6f97" if number == 0 else f"C{number}"
        axis.barh(labels, shares, left=start, label=name, color=color, height=0.7)
        start = [left + share for left, share in zip(start, shares, strict=True)]
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("%", fontsize=8)
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _row(tally: Tally, name: str, cells: Iterable[Cell]) -> Row:
    held = list(cells)
    dropped = tuple(_sum(tally.dropped[each], held) for each in filters(tally))
    return Row(name, _sum(tally.made, held), _sum(tally.kept, held), dropped)


def _sum(counts: Counter[Cell], cells: Iterable[Cell]) -> int:
    return sum(counts[cell] for cell in cells)


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
    (`triptych.tools.pairs.pipeline`) and ``settings.json``. Intermediate files stand in ``.work`` until all is done:
    about half a kilobyte a pair, and the text once more.

    Args:
        sources: See `triptych.tools.pairs.reading.mined_files`.
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
