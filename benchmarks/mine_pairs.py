"""How the cost of mining pairs grows with the number of documents, and with workers.

Usage: python benchmarks/mine_pairs.py --documents 1000 10000 100000 [--source FILE] [--blocks N] [--workers 1]
           [--datatrove PYTHON] [--note TEXT] [--append benchmarks/results/mine_pairs.jsonl]

FILE holds structured documents (docs/data-pairs.md), or the records of `docs.jsonl.zst` (fields s, k, l, t, p); without
one the documents are made of random words. More documents than FILE has are made of it again under other keys and
with words of their own, so that they are no duplicates; each 50th comes again as it is under another key. `--blocks`
cuts each to its first paragraphs. With `--datatrove`, `datatrove_dedup.py` gets the same files. Every size runs in a
process of its own. Each line has wall time and processor time (of all workers), since a busy machine says little by
its wall time, and the greatest memory of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

from triptych.records import parse_raw, places_of
from triptych.tools.pairs.pipeline import mine_pairs
from triptych.tools.pairs.settings import PairSettings

LANGUAGES = ("en", "de", "fr", "es", "ja")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--blocks", type=int, help="paragraphs and headings of a document, at most")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--datatrove", type=Path, help="the interpreter of an environment with datatrove")
    parser.add_argument("--note", default="")
    parser.add_argument("--append", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options, options.one)))
        return
    for number in options.documents:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", str(number)]
        line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        print(line)
        if options.append:
            with options.append.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def measure(options: argparse.Namespace, number: int) -> dict[str, Any]:
    stages: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        records = islice(repeated(documents(options.source), options.blocks), number)
        characters = write([corpus / f"{i}.jsonl" for i in range(options.workers)], records)
        last = time.perf_counter()

        def progress(stage: str, done: int, total: int | None) -> None:
            nonlocal last
            if done == total:
                stages[stage] = round(time.perf_counter() - last, 2)
                last = time.perf_counter()

        before, started = processor_seconds(), time.perf_counter()
        mined = mine_pairs(
            corpus, Path(folder) / "out", PairSettings(), workers=options.workers, progress=progress
        )
        wall, processor = time.perf_counter() - started, processor_seconds() - before
        made, kept = mined.counts.made.total(), mined.counts.kept.total()
        peak = max(
            resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        peer = datatrove(options, corpus, Path(folder)) if options.datatrove else {}
    return {
        "documents": number,
        "characters": characters,
        "pairs_made": made,
        "pairs_kept": kept,
        "workers": options.workers,
        "wall_seconds": round(wall, 1),
        "processor_seconds": round(processor, 1),
        "documents_per_processor_second": round(number / processor, 1),
        "documents_per_wall_second": round(number / wall, 1),
        "stages_wall_seconds": stages,
        "peak_megabytes": peak // 1024,
        "load_average": round(os.getloadavg()[0], 1),
        "source": options.source.name if options.source else "random words",
        "note": options.note,
    } | peer


def datatrove(options: argparse.Namespace, corpus: Path, folder: Path) -> dict[str, Any]:
    tool = Path(__file__).with_name("datatrove_dedup.py")
    command = [options.datatrove, tool, corpus, folder / "datatrove", str(options.workers)]
    around = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    before, started = processor_seconds(), time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=around, cwd=folder)
    spent = {"processor_seconds": round(processor_seconds() - before, 1)}
    return {
        "datatrove": json.loads(done.stdout.splitlines()[-1])
        | spent
        | {"wall_seconds": round(time.perf_counter() - started, 1)}
    }


def processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def write(paths: list[Path], records: Iterator[dict[str, Any]]) -> int:
    """Writes documents into files in turns, since each file is read by one worker."""
    characters = 0
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("w", encoding="utf-8")) for path in paths]
        for file, record in zip(cycle(files), records, strict=False):
            characters += sum(len(text) for _, _, text in record["blocks"])
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return characters


def repeated(records: Iterator[dict[str, Any]], blocks: int | None) -> Iterator[dict[str, Any]]:
    """Cut documents, each 50th twice."""
    for number, whole in enumerate(records, start=1):
        record = whole | {"blocks": whole["blocks"][:blocks]}
        yield record
        if number % 50 == 0:
            yield record | {"key": f"{record['key']}-copy"}


def documents(source: Path | None) -> Iterator[dict[str, Any]]:
    """Documents without end."""
    if source is None:
        yield from made_up()
    for again in count():
        for place, raw in places_of(source):
            record = parse_raw(raw, place)
            if "p" in record:
                named = {"source": record["s"], "key": record["k"], "lang": record["l"], "title": record["t"]}
                more = {"keywords": record.get("kw", []), "description": record.get("d", "")}
                record = named | more | {"blocks": record["p"]}
            yield record if again == 0 else changed(record, again)


def changed(record: dict[str, Any], again: int) -> dict[str, Any]:
    """The same document under another key, with words of its own: no duplicate, but as long and as hard to read."""
    mark = f"{record['key']}-{again}"
    drawing = random.Random(mark)

    def other(text: str) -> str:
        words = text.split(" ")
        return " ".join(
            f"{word}{drawing.randrange(1000)}" if drawing.random() < 0.3 else word for word in words
        )

    blocks = [[number, kind, other(text)] for number, kind, text in record["blocks"]]
    return record | {"key": mark, "title": other(record["title"]), "blocks": blocks}


def made_up() -> Iterator[dict[str, Any]]:
    for number in count():
        drawing = random.Random(number // len(LANGUAGES))
        blocks: list[Any] = []
        for place in range(12):
            words = [
                f"w{int(drawing.paretovariate(0.6)) % 50_000}" for _ in range(4 if place % 4 == 0 else 60)
            ]
            blocks.append([place, "h2" if place % 4 == 0 else "", " ".join(words)])
        lang = LANGUAGES[number % len(LANGUAGES)]
        title = " ".join(f"t{drawing.randrange(10**6)}" for _ in range(3))
        yield {"source": "made", "key": f"d{number // 5}", "lang": lang, "title": title, "blocks": blocks}


if __name__ == "__main__":
    main()
