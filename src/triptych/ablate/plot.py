"""The study as a picture: how far each variant is from the base, in every mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triptych.ablate.plan import BASE
from triptych.ablate.tables import Table
from triptych.errors import MissingExtra
from triptych.eval.plots import COLOURS
from triptych.files import replacing

_STYLE: dict[str, Any] = {"svg.hashsalt": "triptych", "svg.fonttype": "none", "font.size": 9}


def draw(tables: Sequence[Table], path: Path) -> None:
    """Writes an SVG: a panel for each data set, a row for each variant, a point for each mode.

    Raises:
        MissingExtra: Without matplotlib.
        StorageError: If the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("the plot of ablations", "eval") from error
    variants = [name for name in tables[0].rows if name != BASE]
    style: Any = _STYLE
    with matplotlib.rc_context(style):
        size = (2.2 + 3.6 * len(tables), 1.4 + 0.45 * max(1, len(variants)))
        figure = Figure(size, layout="constrained")
        panels: Any = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for axes, table in zip(panels, tables, strict=True):
            _panel(axes, table, variants)
        panels[0].set_yticks(range(len(variants)), variants)
        panels[0].invert_yaxis()
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _panel(axes: Any, table: Table, variants: Sequence[str]) -> None:
    axes.axvline(0, color="#888888", lw=1)
    for number, mode in enumerate(table.modes):
        shift = 0.5 * ((number + 0.5) / len(table.modes) - 0.5)
        cells = [(i, table.rows[name][mode]) for i, name in enumerate(variants) if mode in table.rows[name]]
        cells = [(i, cell) for i, cell in cells if cell.difference is not None]
        axes.errorbar(
            [100 * (cell.difference or 0) for _, cell in cells],
            [i + shift for i, _ in cells],
            xerr=[100 * cell.deviation for _, cell in cells],
            ls="",
            marker="o",
            ms=5,
            elinewidth=1,
            color=COLOURS.get(mode, "#4d4d4d"),
            label=mode,
        )
        for i, cell in cells:  # an open point: it may be chance
            if not cell.significant:
                at = (100 * (cell.difference or 0), i + shift)
                axes.plot(*at, marker="o", ms=2.5, color="white", zorder=5)
    axes.set_title(table.dataset, fontsize=10)
    axes.set_xlabel(f"difference from the base, {table.metric} × 100\n(open: not significant)")
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
