"""Writes docs/evaluation-results.md from the results of `triptych eval` in benchmarks/results/eval-*.json.

python scripts/make_evaluation_docs.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.files import write_atomically

ROOT = Path(__file__).parents[1]
HEADER = """# The bundled model on held-out sets

nDCG@10 × 100, the mean of each data set's languages or pairs of languages; the whole corpus of each table is searched,
passages of all languages and sets together. How the sets are made: [evaluation-data.md](evaluation-data.md). The
results, with every query's figure and the tests of significance, are the files named below; the tables are made of
them by `python scripts/make_evaluation_docs.py`.

The dense vectors of this `small` are multilingual-e5-small's (from the same 4-bit weights, equal to what
sentence-transformers makes of them within 2e-7): `small/dense` is that baseline. Texts are cut to 512 tokens.
"""


def main() -> None:
    """Writes the page."""
    files = sorted((ROOT / "benchmarks" / "results").glob("eval-*.json"))
    parts = [HEADER, *(_table(path) for path in files)]
    write_atomically(ROOT / "docs" / "evaluation-results.md", "\n".join(parts).encode())


def _table(path: Path) -> str:
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    averages: Mapping[str, Mapping[str, Mapping[str, float]]] = result["averages"]
    systems = [name for name in result["systems"] if not name.endswith("rrf")]
    sizes = {name: [s for s in result["subsets"] if s["dataset"] == name] for name in averages}
    options = result["options"]
    documents = max(subset["documents"] for subset in result["subsets"])
    rows = [
        _row(["data set", "subsets", "queries", *systems]),
        _row(["---", *["---:"] * (len(systems) + 2)]),
    ]
    for name, found in averages.items():
        values = [f"{100 * found[system]['nDCG@10']:.1f}" for system in systems]
        best = max(values, key=float)
        marked = [f"**{value}**" if value == best else value for value in values]
        queries = sum(subset["queries"] for subset in sizes[name])
        rows.append(_row([name, str(len(sizes[name])), str(queries), *marked]))
    limit = options.get("candidates")
    how = f"{documents:,} documents, protocol `{options['protocol']}`."
    if limit is not None:
        how += f" Modes with token vectors rank the best {limit} by dense, lexical and dense+lexical score."
    return f"## {path.name}\n\n{how}\n\n" + "\n".join(rows) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
