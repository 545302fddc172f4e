"""Runs an ablation study: trains, evaluates, and puts the results side by side (`ablate`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from triptych.ablate.plan import Plan, Trial, trials_of
from triptych.ablate.plot import draw
from triptych.ablate.tables import SCHEMA, Study, markdown, tables_of
from triptych.ablate.training import Digests, Watcher, folder_of, train
from triptych.contenders.ours import Ours
from triptych.encode.encoder import Encoder
from triptych.errors import InputError
from triptych.eval.collection import Collection
from triptych.eval.evaluate import evaluate
from triptych.eval.modes import MODES
from triptych.eval.readers.base import Wanted
from triptych.eval.readers.catalogue import read_collections
from triptych.eval.results import Evaluation
from triptych.eval.running import Options, Tools
from triptych.eval.scan import numpy_scoring
from triptych.files import write_atomically, write_json
from triptych.model.devices import device_of, dtype_of
from triptych.ops.device_scores import device_scoring

RESULT, TABLES, PLOT = "ablation.json", "ablation.md", "ablation.svg"


def ablate(plan: Plan, folder: Path, watcher: Watcher | None = None) -> Study | None:
    """Trains and evaluates every variant with every seed, and compares them with the base.

    Stages that several variants share are trained once; what is there from an earlier, interrupted run is used.

    Args:
        plan: What to compare.
        folder: Gets ``stages/``, ``evaluations/``, and the result as JSON, Markdown and SVG.
        watcher: Who watches.

    Returns:
        The study, or None if `watcher.stop` ended it: the same call goes on.

    Raises:
        TriptychError: For all that can be wrong with data, models and settings; what is done is kept.
    """
    watch, digests = watcher or Watcher(), Digests()
    trials = trials_of(plan)
    keys = [digests.steps(trial) for trial in trials]
    collections = read_sets(plan)
    for part in ("stages", "evaluations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    results: dict[str, list[Evaluation]] = {}
    files: dict[str, list[str]] = {}
    for trial, steps in zip(trials, keys, strict=True):
        start = steps[-1] if steps else digests.start(trial)
        path = folder / "evaluations" / f"{_key(trial, start, plan, collections)}.json"
        if not path.is_file():
            model = train(trial, steps, folder / "stages", watch)
            if model is None:
                return None
            watch.begin(f"{trial.variant}, seed {trial.seed}: evaluating")
            _evaluated(trial, model, plan, collections, watch).write(path)
        results.setdefault(trial.variant, []).append(Evaluation.read(path))
        files.setdefault(trial.variant, []).append(path.relative_to(folder).as_posix())
    modes, test = plan.evaluation.modes, plan.evaluation.test
    study = Study(
        SCHEMA, list(plan.seeds), tables_of(results, modes, test), _shared(trials, keys), files, test
    )
    draw(study.tables, folder / PLOT)
    write_atomically(folder / TABLES, markdown(study, PLOT).encode())
    write_json(folder / RESULT, study.to_json())
    return study


def read_sets(plan: Plan) -> list[Collection]:
    """The collections of a plan.

    Raises:
        DataError: For what cannot be read.
        InputError: If two sets have the same name, so that one table would mix them.
    """
    found: list[Collection] = []
    for each in plan.evaluation.sets:
        wanted = Wanted(() if each.subset is None else (each.subset,), each.split)
        some = read_collections(each.path, wanted)
        if clash := {one.label for one in some} & {one.label for one in found}:
            raise InputError(
                f"evaluation.sets: {each.path}: got {min(clash)!r} twice; expected different data sets"
            )
        found += some
    return found


def _evaluated(
    trial: Trial, model: Path, plan: Plan, collections: Sequence[Collection], watch: Watcher
) -> Evaluation:
    """One trained model on all sets, in the modes whose heads its last stage trains."""
    judging = plan.evaluation
    encoder = Encoder.from_pretrained(model, device=plan.device, dtype=plan.dtype, **trial.inference)
    heads = set(trial.heads) & set(encoder.heads)
    modes = [mode for mode in judging.modes if set(MODES[mode].heads) <= heads]
    if not modes:
        raise InputError(
            f"{trial.variant}: trains {', '.join(trial.heads)}; expected the heads of one of the modes "
            f"{', '.join(judging.modes)}"
        )
    contender = Ours.of(
        encoder,
        trial.variant,
        modes=modes,
        query_length=judging.query_length,
        document_length=judging.document_length,
    )
    options = Options(candidates=judging.candidates, metrics=judging.metrics, rrf=False, test=judging.test)
    device = device_of(plan.device)
    scoring = numpy_scoring if device.type == "cpu" else device_scoring(device, dtype_of(plan.dtype, device))
    return evaluate(collections, [contender], options, Tools(scoring, watch=watch.progress))


def _key(trial: Trial, model: str, plan: Plan, collections: Sequence[Collection]) -> str:
    """A digest of all that determines an evaluation."""
    judging = plan.evaluation.model_dump(mode="json", exclude={"sets"})
    sets = [
        [
            one.label,
            one.split,
            one.corpus.digest,
            dict(one.queries),
            {q: dict(d) for q, d in one.qrels.items()},
        ]
        for one in collections
    ]
    facts = [model, trial.variant, trial.heads, dict(trial.inference), judging, plan.dtype, sets]
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _shared(trials: Sequence[Trial], keys: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Folder of each stage to the variants that use it."""
    found: dict[str, list[str]] = {}
    for trial, steps in zip(trials, keys, strict=True):
        for step, digest in zip(trial.steps, steps, strict=True):
            users = found.setdefault(folder_of(step, digest), [])
            users += [] if trial.variant in users else [trial.variant]
    return found
