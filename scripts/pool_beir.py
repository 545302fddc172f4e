"""Puts several BEIR folders into one, whose passages are searched together.

    python scripts/pool_beir.py dev/dev-qa dev/dev-cross dev/dev-help --into dev/all --split dev

Ids get the name of their folder in front, so that the sets can be told apart in what comes out. Equal texts are one
passage: of several, only one would be judged, and which of them comes first would be chance.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from triptych.data.beir import load_beir
from triptych.data.writing import json_lines
from triptych.files import write_atomically


def main() -> None:
    """Pools the folders."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    arguments = parser.parse_args()
    corpus: dict[str, str] = {}  # text to id
    queries: list[dict[str, Any]] = []
    qrels = ["query-id\tcorpus-id\tscore"]
    for folder in arguments.folders:
        found, name = load_beir(folder, arguments.split), folder.name
        kept = {id_: corpus.setdefault(text, f"{name}/{id_}") for id_, text in found.corpus.items()}
        queries += [{"_id": f"{name}/{id_}", "text": text} for id_, text in found.queries.items()]
        for query, judged in found.qrels.items():
            merged = {kept[document]: gain for document, gain in judged.items() if document in kept}
            qrels += [f"{name}/{query}\t{document}\t{gain}" for document, gain in merged.items()]
    (arguments.into / "qrels").mkdir(parents=True, exist_ok=True)
    passages = [{"_id": id_, "text": text} for text, id_ in corpus.items()]
    for file, rows in (("corpus", passages), ("queries", queries)):
        with json_lines(arguments.into / f"{file}.jsonl.zst") as write:
            for row in rows:
                write(row)
    write_atomically(arguments.into / "qrels" / f"{arguments.split}.tsv", "\n".join(qrels).encode() + b"\n")
    print(f"{arguments.into}: {len(queries)} queries, {len(corpus)} passages")


if __name__ == "__main__":
    main()
