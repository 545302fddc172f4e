"""Puts several BEIR folders into one, whose passages are searched together.

    python recipes/small/pool_beir.py dev/dev-qa dev/dev-cross dev/dev-help --into dev/all --split dev

Ids get the name of their folder in front, so that the sets can be told apart in what comes out. Equal texts are one
passage: of several, only one would be judged, and which of them comes first would be chance.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from triptych.collections.beir import load_beir
from triptych.io import json_lines, write_atomically


def main() -> None:
    """Pools the folders."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    arguments = parser.parse_args()
    pool(arguments.folders, arguments.into, arguments.split)


def pool(
    folders: Sequence[Path], into: Path, split: str, leave_out: Callable[[str], bool] = lambda document: False
) -> None:
    """Writes the folder `into`; queries of which a judged document is to be left out are not in it."""
    corpus: dict[str, str] = {}  # text to id
    queries: list[dict[str, Any]] = []
    qrels = ["query-id\tcorpus-id\tscore"]
    for folder in folders:
        found, name = load_beir(folder, split), folder.name
        kept = {id_: corpus.setdefault(text, f"{name}/{id_}") for id_, text in found.corpus.items()}
        asked = {query: judged for query, judged in found.qrels.items() if not any(map(leave_out, judged))}
        queries += [{"_id": f"{name}/{query}", "text": found.queries[query]} for query in asked]
        for query, judged in asked.items():
            merged = {kept[document]: gain for document, gain in judged.items() if document in kept}
            qrels += [f"{name}/{query}\t{document}\t{gain}" for document, gain in merged.items()]
    (into / "qrels").mkdir(parents=True, exist_ok=True)
    passages = [{"_id": id_, "text": text} for text, id_ in corpus.items()]
    for file, rows in (("corpus", passages), ("queries", queries)):
        with json_lines(into / f"{file}.jsonl.zst") as write:
            for row in rows:
                write(row)
    write_atomically(into / "qrels" / f"{split}.tsv", "\n".join(qrels).encode() + b"\n")
    print(f"{into}: {len(queries)} queries, {len(corpus)} passages")


if __name__ == "__main__":
    main()
