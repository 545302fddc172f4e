"""Runs command lines that depend on each other, several at a time, and goes on where it was interrupted.

    python recipes/small/run_jobs.py recipes/small/jobs.yaml --set data=DATA --set out=RUNS --slots 2 --seconds 560

The file says what there is to do::

    jobs:
      stage2: {run: "train recipes/small/2-contrastive.yaml -o {out}/stage2", after: [stage1], slots: 2}

`run` is a command line, of `triptych` unless it begins with `python`, with names in braces. A job begins when all of
`after` are done, in the order of the file as far as `slots` allow (a job may ask for several), with `--gpus` on the GPU
that has most of them free. A job that has left ``{out}/.jobs/NAME.done`` is not repeated; one that was interrupted is
started anew, with --resume where the command has that. After `--seconds` all jobs get SIGTERM, which training answers
with a checkpoint. A job that fails stops what depends on it, and no more.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_RESUMABLE = ("train", "pretrain")
_PATIENCE = 20.0  # seconds from SIGTERM to SIGKILL


@dataclass(frozen=True, slots=True)
class Job:
    """One command line.

    Attributes:
        name: Also of its log and its mark.
        command: Words after `triptych`, or `python` and what follows.
        after: Names of the jobs that have to be done before.
        slots: How many places it takes, all on one GPU.
    """

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Running:
    """A job at work, since when, and on which GPU."""

    job: Job
    process: subprocess.Popen[bytes]
    begin: float
    gpu: int


@dataclass(slots=True)
class Progress:
    """What has become of the jobs so far."""

    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    running: dict[str, Running] = field(default_factory=dict)

    def place(self, job: Job, slots: int, gpus: int) -> int | None:
        """The GPU with the most free places, if they are enough for the job or all there are."""
        used = [
            sum(each.job.slots for each in self.running.values() if each.gpu == gpu) for gpu in range(gpus)
        ]
        gpu = used.index(min(used))
        return gpu if used[gpu] + job.slots <= slots or not used[gpu] else None


def main() -> None:
    """Runs the jobs; the exit status is 0 if all are done, 1 if one failed, 3 if time ran out."""
    arguments = _arguments()
    names = dict(each.split("=", 1) for each in arguments.set)
    jobs = read(arguments.jobs, names)
    marks = Path(names["out"]) / ".jobs"
    marks.mkdir(parents=True, exist_ok=True)
    wanted = [job for job in jobs if not arguments.only or job.name in arguments.only]
    progress = Progress()
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        _collect(progress, marks)
        progress.done |= {path.stem for path in marks.glob("*.done")}  # another runner may share the folder
        ready = [job for job in wanted if _ready(job, progress)]
        for job in ready:
            gpu = progress.place(job, arguments.slots, arguments.gpus)
            if gpu is not None:
                _start(job, progress, marks, gpu, arguments.gpus)
        if not progress.running:
            break
        time.sleep(0.2)
    _stop(progress, marks)
    left = [job.name for job in wanted if job.name not in progress.done]
    _say(f"done {len(wanted) - len(left)} of {len(wanted)}; left: {' '.join(left) or 'nothing'}")
    sys.exit(1 if progress.failed else 3 if left else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="for the braces")
    parser.add_argument("--only", nargs="*", default=[], help="names of jobs; the others are taken as done")
    parser.add_argument("--slots", type=int, default=1, help="places; with --gpus, of each")
    parser.add_argument("--gpus", type=int, default=1, help="spread the jobs over so many")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    return parser.parse_args()


def read(path: Path, names: dict[str, str]) -> list[Job]:
    """The jobs of a file, in its order.

    Raises:
        ValueError: For a job that waits for one that is not there.
    """
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = {**{key: str(value) for key, value in content.get("names", {}).items()}, **names}
    for key, value in names.items():
        names[key] = value.format_map(names)
    jobs = [
        Job(
            name,
            tuple(shlex.split(entry["run"].format_map(names))),
            tuple(entry.get("after", ())),
            int(entry.get("slots", 1)),
        )
        for name, entry in content["jobs"].items()
    ]
    for job in jobs:
        if unknown := set(job.after) - {each.name for each in jobs}:
            raise ValueError(f"{path}: {job.name} waits for {sorted(unknown)}, which are no jobs")
    return jobs


def _ready(job: Job, progress: Progress) -> bool:
    begun = job.name in progress.done | progress.failed or job.name in progress.running
    return not begun and set(job.after) <= progress.done


def _start(job: Job, progress: Progress, marks: Path, gpu: int, gpus: int) -> None:
    script = job.command[0] == "python"
    tool = () if script else ("-m", "triptych")
    resume = ("--resume",) if job.command[0] in _RESUMABLE else ()
    _say(f"begin {job.name}: {shlex.join(job.command)}")
    with (marks / f"{job.name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *tool, *job.command[script:], *resume],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)} if gpus > 1 else None,
        )
    progress.running[job.name] = Running(job, process, time.monotonic(), gpu)


def _collect(progress: Progress, marks: Path) -> None:
    for name, each in list(progress.running.items()):
        if each.process.poll() is None:
            continue
        del progress.running[name]
        seconds = time.monotonic() - each.begin
        if each.process.returncode == 0:
            progress.done.add(name)
            (marks / f"{name}.done").write_text(f"{seconds:.1f}\n", encoding="utf-8")
            _say(f"done {name} in {seconds:.0f} s")
        else:
            progress.failed.add(name)
            _say(
                f"FAILED {name} ({each.process.returncode}) after {seconds:.0f} s:\n{_tail(marks / f'{name}.log')}"
            )


def _stop(progress: Progress, marks: Path) -> None:
    for each in progress.running.values():
        each.process.send_signal(signal.SIGTERM)
    for name, each in progress.running.items():
        try:
            each.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            each.process.kill()
            each.process.wait()
        _say(f"stopped {name}: {_tail(marks / f'{name}.log', 1)}")
    _collect(progress, marks)


def _tail(path: Path, lines: int = 12) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


if __name__ == "__main__":
    main()
