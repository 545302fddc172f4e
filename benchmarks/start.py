"""From `python` to the first vector, and the commands at a cold start: processor time and memory, side by side.

    python benchmarks/start.py [--rounds 5] [--threads 1] [--folder build/small] [--before TREE] [--systems ...]

Each measurement is a process of its own, and the systems take turns (A B C A B C …). Ours runs the bundled model, and
the folder of random weights in the published layout that all others run, too; `--before` adds another checkout of this
project. A first round, which is not counted, fills a cache of compiled Python, as an installation has it. What is not
installed is left out, and said. Every run appends JSON lines to benchmarks/results/start.jsonl:
`scripts/make_performance_docs.py` makes a table of the newest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from encode import machine

RESULTS = Path(__file__).parent / "results" / "start.jsonl"
TEXT = "A first sentence."
RESIDENT = "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmRSS')))"
OURS = "from triptych import Encoder\nEncoder.from_pretrained({place!r}, device='cpu').encode([{text!r}])"
CODE = {
    "import torch": "import torch",
    "triptych": OURS.replace("{place!r}", "'small'"),
    "triptych, same folder": OURS.replace("{place!r}", "{folder!r}"),
    "FlagEmbedding": (
        "from systems import _published_class\n"
        "_published_class()({folder!r}, use_fp16=False, devices='cpu').encode([{text!r}], return_dense=True, "
        "return_sparse=True, return_colbert_vecs=True)"
    ),
    "sentence-transformers": (
        "from sentence_transformers import SentenceTransformer\n"
        "SentenceTransformer({folder!r}, device='cpu').encode([{text!r}])"
    ),
    "fastembed": "import peers\nfrom pathlib import Path\npeers.fastembed(Path({folder!r}))([{text!r}])",
}
COMMANDS = {
    "triptych search INDEX words": ["search", "{index}", "a", "sentence"],
    "triptych --help": ["--help"],
    "triptych data check, of a missing file": ["data", "check", "/no/such/file.jsonl"],
}
NEEDS = {
    "FlagEmbedding": "FlagEmbedding",
    "sentence-transformers": "sentence_transformers",
    "fastembed": "fastembed",
}


def commands(folder: Path, index: Path, names: list[str]) -> dict[str, list[str]]:
    """What is run, by the name of the system."""
    found: dict[str, list[str]] = {}
    for name, code in CODE.items():
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            print(f"{name}: not installed, left out")
            continue
        filled = code.format(folder=str(folder), text=TEXT)
        found[name] = [sys.executable, "-W", "ignore", "-c", f"{filled}\n{RESIDENT}"]
    for name, words in COMMANDS.items():
        found[name] = [sys.executable, "-m", "triptych", *(word.format(index=index) for word in words)]
    return {name: command for name, command in found.items() if not names or name in names}


def measure(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """One process: seconds of processor time and by the clock, and megabytes: at the end, and at most."""
    with tempfile.TemporaryFile("w+") as out:
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begin
        out.seek(0)
        last = (out.read().strip().splitlines() or [""])[-1]
    if process.returncode not in (0, 2):  # 2: the missing file
        raise SystemExit(f"{' '.join(command[:3])} … failed with {process.returncode}")
    found = {
        "processor_s": usage.ru_utime + usage.ru_stime,
        "wall_s": seconds,
        "peak_mb": usage.ru_maxrss / 1024,
    }
    return found | ({"resident_mb": int(last) / 1024} if last.isdigit() else {})


def environment(source: Path, cache: Path, threads: int) -> dict[str, str]:
    """Of a process that runs a checkout, with compiled Python from a cache of its own."""
    path = [str(source), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONPYCACHEPREFIX": str(cache),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
    }


def main() -> None:
    """Measures, prints and appends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "triptych-bench" / "small"
    )
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--systems", nargs="*", default=[])
    options = parser.parse_args()
    import peers
    from workloads import SHAPES, make_checkpoint

    folder = make_checkpoint(SHAPES["small"], options.folder)
    if find_spec("fastembed") is not None:
        peers.prepare(folder, ["fastembed"])
    trees = {"": Path(__file__).parents[1] / "src"}
    if options.before:
        trees[" (before)"] = options.before / "src"
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        index, texts = place / "index", place / "texts.txt"
        texts.write_text("A sentence.\nEin Satz.\nUne phrase.\n", encoding="utf-8")
        plan: dict[str, tuple[list[str], dict[str, str]]] = {}
        for mark, source in trees.items():
            around = environment(source, place / f"cache{len(mark)}", options.threads)
            if not index.exists():
                make = [sys.executable, "-m", "triptych", "index", str(texts), "--into", str(index)]
                subprocess.run(make, env=around, check=True, capture_output=True)
            for name, command in commands(folder, index, options.systems).items():
                if not mark or name.startswith("triptych"):
                    plan[name + mark] = (command, around)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in plan}
        for number in range(options.rounds + 1):
            for name, (command, around) in plan.items():
                found = measure(command, around)
                if number:
                    rounds[name].append(found)
    facts = {"run": time.strftime("%Y-%m-%dT%H:%M:%S"), "machine": machine() | {"threads": options.threads}}
    with RESULTS.open("a", encoding="utf-8") as file:
        for name, found in rounds.items():
            line: dict[str, Any] = {**facts, "system": name, "rounds": options.rounds}
            for key in found[0]:
                line[key] = round(statistics.median(each[key] for each in found), 3)
            line["processor_all_s"] = [round(each["processor_s"], 3) for each in found]
            print(
                f"{name:44} {line['processor_s']:7.2f} s {line.get('resident_mb', line['peak_mb']):7.0f} MB"
            )
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
