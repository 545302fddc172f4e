"""Draws the pictures of the pages: python docs/pictures.py [NAME ...].

`panels` and `search-page` need the bundled model, the latter Chromium, too; the others are made of committed results
(benchmarks/results).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import matplotlib as mpl

mpl.use("svg")
from matplotlib.figure import Figure

from triptych.eval.results import Evaluation

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MILLION = RESULTS / "million.jsonl"
PICTURES = ROOT / "docs" / "pictures"
QUERY = "How does a moka pot brew?"
DOCUMENT = "A moka pot brews coffee by steam pressure."
PAGE, QUESTION = "search-page", "how do I make coffee without burning it?"
DENSE, LEXICAL, MULTI, OTHERS = "#3b6fb6", "#c8772a", "#3c8d5a", "#9a9a9a"
HEADS = {"dense": DENSE, "lexical": LEXICAL, "multi": MULTI, "integrated": "#444444"}


def panels() -> Figure:
    """The three scores of one pair, taken apart."""
    from triptych import Encoder
    from triptych.explain import explain
    from triptych.types import HeadWeights

    encoder = Encoder.from_pretrained("small", dtype="float32")
    [why] = explain(encoder, QUERY, [DOCUMENT])
    dense, lexical, multi = (
        float(encoder.score(QUERY, [DOCUMENT], HeadWeights(*weights)).ravel()[0])
        for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    )
    figure = Figure((10, 3.2), layout="constrained")
    one, words, tokens = figure.subplots(1, 3, width_ratios=[0.7, 1.1, 2])
    one.bar(["cosine"], [dense], color=DENSE, width=0.5)
    one.set(title=f"dense: {dense:.3f}", ylim=(0, 1))
    names = [match.document_token.word for match in why.lexical]
    words.barh(names, [match.contribution for match in why.lexical], color=LEXICAL)
    words.invert_yaxis()
    words.set(title=f"lexical: {lexical:.3f}", xlabel="weight × weight")
    labels = [f"{each.query_token.piece} → {each.document_token.piece}" for each in why.tokens]
    tokens.barh(labels, [each.similarity for each in why.tokens], color=MULTI)
    tokens.invert_yaxis()
    tokens.set(
        title=f"multi-vector: {multi:.3f}", xlabel="similarity of the token that each one met", xlim=(0, 1)
    )
    figure.suptitle(f"“{QUERY}”  ↔  “{DOCUMENT}”")
    return figure


def training() -> Figure:
    """The loss of the first stage, and what held-out questions gain by the third."""
    runs = json.loads((RESULTS / "training.json").read_text("utf-8"))["runs"]
    figure = Figure((10, 3.2), layout="constrained")
    loss, quality = figure.subplots(1, 2)
    log, sets = runs["retromae"]["log"], runs["equal-weights"]["sets"]
    loss.plot([line["step"] for line in log], [line["loss"] for line in log], color=DENSE, marker=".")
    loss.set(title="stage 1, RetroMAE: loss", xlabel="step")
    first, last = sorted(sets, key=int)
    for place, (step, shade) in enumerate(((first, 0.45), (last, 1.0))):
        values = [sets[step]["all"][head] for head in HEADS]
        places = [n + 0.4 * place for n in range(len(HEADS))]
        bars = quality.bar(places, values, 0.38, alpha=shade, color=list(HEADS.values()))
        quality.bar_label(bars, fmt="%.3f", fontsize=7)
    questions = sets[last]["all"]["queries"]
    quality.set(
        title=f"stage 3: nDCG@10 on {questions:,} held-out questions, steps {first} and {last}",
        ylim=(0, 0.95),
    )
    quality.set_xticks([n + 0.2 for n in range(len(HEADS))], list(HEADS))
    return figure


def speed() -> Figure:
    """Processor time of other packages in units of ours, each beside ours in its own run."""
    runs: dict[str, dict[str, float]] = {}
    for line in map(json.loads, (RESULTS / "encode.jsonl").read_text("utf-8").splitlines()):
        if (line.get("shape"), line.get("workload")) == ("m3", "mix") and "tokens_per_processor_s" in line:
            runs.setdefault(line["run"], {})[line["system"]] = line["tokens_per_processor_s"]
    ratios: dict[str, float] = {}
    for run in sorted(runs):
        if run >= "2026-11-24":  # before, two systems were measured with other types than their names say
            ratios |= {name: runs[run]["triptych"] / rate for name, rate in runs[run].items()}
    names = {
        "triptych": "triptych, all heads, bfloat16",
        "triptych-int8": "triptych, all heads, 8 bits",
        "sentence-transformers": "sentence-transformers, dense alone, bfloat16",
        "flagembedding-bfloat16": "FlagEmbedding, bfloat16",
        "flagembedding": "FlagEmbedding as it is, float32",
        "openvino": "OpenVINO on our graph, bfloat16",
        "openvino-int8": "OpenVINO on our graph, 8 bits",
        "bge-m3-lite": "bge-m3-lite, float32",
        "onnxruntime": "onnxruntime on our graph, float32",
    }
    return _bars(
        {
            names[name]: ratio
            for name, ratio in sorted(ratios.items(), key=lambda pair: pair[1])
            if name in names
        },
        "processor time, BGE-M3's shape, one core (1: ours in bfloat16)",
        "%.2f",
    )


def quality() -> Figure:
    """The bundled model by mode beside BM25 and dense models: the mean of the monolingual sets' nDCG@10."""
    averages = Evaluation.read(RESULTS / "eval-pooled.json.zst").averages
    sets = [found for name, found in averages.items() if name not in ("afriqa", "xquad-cross")]
    names = {
        "bm25 (words)": "BM25 on words",
        "e5/dense": "multilingual-e5-small, 4 bits",
        "gemma/dense": "EmbeddingGemma-300M",
        **{f"small/{mode}": f"small, {mode}" for mode in ("dense", "lexical", "multi", "all")},
    }
    values = {
        title: sum(found[system]["nDCG@10"] for found in sets) / len(sets)
        for system, title in names.items()
        if all(system in found for found in sets)
    }
    return _bars(values, f"nDCG@10, mean of {len(sets)} monolingual data sets", "%.3f")


def growth(rows: Sequence[Mapping[str, Any]] | None = None) -> Figure:
    """What 10,000, 100,000 and 1,000,000 passages take, and other engines' searches beside ours."""
    rows = rows or [json.loads(line) for line in MILLION.read_text("utf-8").splitlines()]
    of = [row for row in rows if row.get("engine") == "edge"]
    built = sorted((row for row in of if row["kind"] == "build"), key=lambda row: row["passages"])
    searched = sorted((row for row in of if row["kind"] == "search"), key=lambda row: row["passages"])
    grown = [row for row in rows if row["kind"] == "growth"]
    figure = Figure((12, 3.2), layout="constrained")
    seconds, room, times = figure.subplots(1, 3)
    counts = [row["passages"] for row in built]
    seconds.plot(counts, [row["add_seconds"] + row["optimize_seconds"] for row in built], "o-", color=DENSE)
    seconds.plot(
        [row["passages"] for row in grown], [row["seconds"] for row in grown], ".", color=OTHERS, ms=3
    )
    seconds.set(title="built in seconds, after the encoding")
    room.plot(counts, [row["disk_mb"] / 1e3 for row in built], "o-", color=LEXICAL, label="disk")
    memory = [(row["anonymous_peak_mb"] - row["before"]["anonymous_mb"]) / 1e3 for row in built]
    room.plot(counts, memory, "o-", color=MULTI, label="memory while building")
    room.set(title="gigabytes")
    for step, color in (("dense", DENSE), ("lexical", LEXICAL), ("all, 200 candidates", HEADS["integrated"])):
        found = [row[step]["p50_ms"] for row in searched]
        times.plot([row["passages"] for row in searched], found, "o-", color=color, label=step)
    peers: dict[str, dict[int, float]] = {}
    for row in rows:
        for step, search in row.items() if row["kind"] == "peer" else ():
            if isinstance(search, dict) and "p50_ms" in search:
                peers.setdefault(f"{row['name']}: {step}", {})[row["passages"]] = search["p50_ms"]
    for (name, found), mark in zip(sorted(peers.items()), "sv^Dx+*<>", strict=False):
        times.plot(list(found), list(found.values()), mark + "--", color=OTHERS, lw=0.7, ms=4, label=name)
    times.set(title="a search, ms (median, 2 processors)")
    times.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
    room.legend(fontsize=6)
    for axes in (seconds, room, times):
        axes.set(xscale="log", yscale="log", xlabel="passages")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _bars(values: Mapping[str, float], title: str, form: str) -> Figure:
    figure = Figure((8, 0.36 * len(values) + 0.9), layout="constrained")
    axes = figure.subplots()
    colors = [DENSE if name.startswith(("triptych", "small")) else OTHERS for name in values]
    axes.bar_label(axes.barh(list(values), list(values.values()), color=colors), fmt=form, padding=3)
    axes.invert_yaxis()
    axes.set(title=title, xlim=(0, 1.15 * max(values.values())))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def photograph(path: Path) -> None:
    """The search page with the documents of its tests."""
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT / "tests"))
    from page.conftest import DOCUMENTS, make
    from serve.conftest import serving
    from triptych import Encoder

    small = Encoder.from_pretrained("small", device="cpu")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        indexes = {"kitchen": make(Path(folder, "kitchen"), small, DOCUMENTS)}
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with serving({"small": [small]}, indexes) as site:
            page = browser.new_page(viewport={"width": 1100, "height": 850})
            page.goto(f"{site.url}/?q={quote(QUESTION)}")
            page.wait_for_selector(".hit:not([data-waiting])", timeout=60_000)
            page.evaluate("document.activeElement.blur()")
            page.get_by_role("button", name="coffee").first.hover()
            page.screenshot(path=path)
        browser.close()


DRAWN: Mapping[str, Callable[[], Figure]] = {
    "panels": panels,
    "training": training,
    "speed": speed,
    "quality": quality,
    "growth": growth,
}


def main(names: list[str], folder: Path = PICTURES) -> None:
    """Writes the pictures."""
    for name in names or [*(each for each in DRAWN if each != "growth" or MILLION.is_file()), PAGE]:
        if name == PAGE:
            photograph(folder.parent / f"{PAGE}.png")
            continue
        with mpl.rc_context({"svg.hashsalt": "triptych", "svg.fonttype": "none", "font.size": 9}):
            DRAWN[name]().savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1:])
