"""Results as pictures: SVG that stands in a page by itself."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from triptych.errors import require_extra
from triptych.eval.results import Evaluation, Subset
from triptych.eval.systems import TUNED
from triptych.eval.tables import MANY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {
    "dense": "#2a6fbb",
    "lexical": "#d98c00",
    "multi": "#2e8b57",
    "dense+lexical": "#8e5bb5",
    "all": "#c0392b",
}
"""Of the modes, the same in every picture."""

_OTHERS = ("#4d4d4d", "#7f7f7f", "#a65628", "#17a2b8", "#b0a000", "#e377c2")
_MARKERS = "osD^vPX*"
_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "triptych",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def languages(result: Evaluation, dataset: str) -> str:
    """The primary metric of every system on every subset: a column of points each; pairs of languages as a field."""
    subsets = result.of(dataset)
    if len(subsets) > MANY and all("-" in subset.subset for subset in subsets):
        return _pairs(result, subsets)
    systems = _main(result, dataset)
    with _drawing() as draw:
        figure, axes = draw(max(6.5, 2.5 + 0.42 * len(subsets)), 3.8)
        order = sorted(subsets, key=lambda one: -max(one.metrics[system][one.primary] for system in systems))
        for number, subset in enumerate(order):
            values = [100 * subset.metrics[system][subset.primary] for system in systems]
            axes.plot([number, number], [min(values), max(values)], color="#dddddd", lw=3, zorder=1)
        for system in systems:
            values = [100 * subset.metrics[system][subset.primary] for subset in order]
            axes.plot(
                range(len(order)), values, ls="", ms=6.5, label=system, zorder=2, **_look(result, system)
            )
        axes.set_xticks(range(len(order)), [subset.subset or subset.dataset for subset in order])
        if len(order) > 12:
            axes.tick_params(axis="x", labelrotation=60)
        axes.set_xlim(-0.6, len(order) - 0.4)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(f"{subsets[0].primary} × 100")
        _legend(axes)
        return _svg(figure)


def lengths(result: Evaluation, dataset: str, bins: int = 6) -> str | None:
    """The primary metric by the length of the relevant document; None if lengths hardly differ or are unknown."""
    subsets = result.of(dataset)
    characters = np.concatenate([subset.characters for subset in subsets])
    known = characters >= 0
    edges = np.unique(np.quantile(characters[known], np.linspace(0, 1, bins + 1))) if known.any() else []
    if len(edges) < 4:
        return None
    place = np.clip(np.searchsorted(edges, characters, side="right") - 1, 0, len(edges) - 2)
    every = [(pair, known & (place == number)) for number, pair in enumerate(pairwise(edges))]
    bounds, groups = zip(*((pair, group) for pair, group in every if group.any()), strict=True)
    with _drawing() as draw:
        figure, axes = draw(6.5, 3.6)
        for system in _main(result, dataset):
            values = np.concatenate([subset.per_query[system] for subset in subsets])
            line = [100 * values[group].mean() for group in groups]
            axes.plot(range(len(groups)), line, lw=1.4, ms=5, label=system, **_look(result, system))
        names = [
            f"{low:,.0f}–{high:,.0f}\n{int(group.sum())} queries"
            for (low, high), group in zip(bounds, groups, strict=True)
        ]
        axes.set_xticks(range(len(groups)), names, fontsize=8)
        axes.set_xlabel("characters of the (longest) relevant document")
        axes.set_ylabel(f"{subsets[0].primary} × 100")
        _legend(axes)
        return _svg(figure)


def latency(result: Evaluation, dataset: str) -> str | None:
    """The primary metric against the time for a query; None if no time was measured."""
    points: list[tuple[str, float, float]] = []
    for system, found in result.averages[dataset].items():
        seconds = seconds_of(result, system)
        if seconds is not None and not system.endswith(TUNED):
            points.append((system, 1000 * seconds, 100 * found[result.of(dataset)[0].primary]))
    if not points:
        return None
    with _drawing() as draw:
        figure, axes = draw(6.5, 3.8)
        for system, milliseconds, value in points:
            axes.plot([milliseconds], [value], ls="", ms=8, **_look(result, system))
            axes.annotate(system, (milliseconds, value), (6, 4), textcoords="offset points", fontsize=8)
        _logarithmic(axes)
        axes.margins(x=0.25, y=0.12)
        axes.set_xlabel("ms per query (encoding and comparing, in batches)")
        axes.set_ylabel(f"{result.of(dataset)[0].primary} × 100")
        return _svg(figure)


def seconds_of(result: Evaluation, system: str) -> float | None:
    """Seconds per query: encoding, as far as it was measured, and ranking."""
    one = result.systems[system]
    if one.seconds_per_query is None:
        return None
    return one.seconds_per_query + (result.contenders[one.contender].encode_seconds_per_query or 0)


def _pairs(result: Evaluation, subsets: Sequence[Subset]) -> str:
    """Language of the query by language of the document, for the system with the best mean."""
    dataset, metric = subsets[0].dataset, subsets[0].primary
    best = max(result.averages[dataset], key=lambda system: result.averages[dataset][system][metric])
    pairs = {tuple(subset.subset.split("-", 1)): 100 * subset.metrics[best][metric] for subset in subsets}
    rows = list(dict.fromkeys(first for first, _ in pairs))
    columns = sorted(dict.fromkeys(second for _, second in pairs), key=lambda name: (name not in rows, name))
    field = np.asarray([[pairs.get((row, column), np.nan) for column in columns] for row in rows])
    with _drawing() as draw:
        figure, axes = draw(1.6 + 0.52 * len(columns), 1.4 + 0.36 * len(rows))
        axes.grid(visible=False)
        image = axes.imshow(field, cmap="YlGnBu", aspect="auto", vmin=max(0.0, float(np.nanmin(field)) - 5))
        middle = (float(np.nanmin(field)) + float(np.nanmax(field))) / 2
        for (row, column), value in np.ndenumerate(field):
            if np.isfinite(value):
                color = "white" if value > middle else "#222222"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel("language of the document")
        axes.set_ylabel("language of the query")
        axes.set_title(f"{best}: {metric} × 100", fontsize=10)
        figure.colorbar(image, ax=axes, fraction=0.03)
        return _svg(figure)


def _main(result: Evaluation, dataset: str) -> list[str]:
    """Systems that are drawn: neither fusion by ranks nor tuned weights, which lie close to their neighbours."""
    every = list(result.averages[dataset])
    chosen = [name for name in every if not name.endswith((TUNED, " rrf"))]
    return chosen or every


def _look(result: Evaluation, system: str) -> dict[str, Any]:
    """Color by mode, marker by system; systems with their own scoring have gray tones."""
    one = result.systems[system]
    marker = _MARKERS[list(result.contenders).index(one.contender) % len(_MARKERS)]
    mode = one.mode.removesuffix(" rrf").removesuffix(TUNED)
    others = [name for name, other in result.systems.items() if other.mode not in COLORS]
    color = COLORS.get(mode) or _OTHERS[others.index(system) % len(_OTHERS)]
    hollow = {"markerfacecolor": "white"} if one.mode != mode else {}
    return {"color": color, "marker": marker, **hollow}


def _logarithmic(axes: Axes) -> None:
    """A logarithmic axis with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5, handletextpad=0.3)


class _drawing:
    """Our style for the time of one drawing; gives a function from width and height to figure and axes."""

    def __enter__(self) -> Any:
        with require_extra("the report", "eval"):
            import matplotlib
            from matplotlib.figure import Figure
        rc: Any = dict(_STYLE)
        self._style: Any = matplotlib.rc_context(rc)
        self._style.__enter__()

        def draw(width: float, height: float) -> tuple[Figure, Axes]:
            figure = Figure((width, height), layout="constrained")
            return figure, figure.subplots()

        return draw

    def __exit__(self, *error: Any) -> None:
        self._style.__exit__(*error)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
