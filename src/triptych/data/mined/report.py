"""What a run of mining says of itself: totals, a table for each question, an example for each filter, a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from triptych.data.mined.settings import FILTERS
from triptych.data.mined.tally import Cell, Dropped, Tally
from triptych.errors import MissingExtra
from triptych.files import replacing

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
