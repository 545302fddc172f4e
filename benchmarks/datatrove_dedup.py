"""What datatrove has of `data pairs`: reads documents, filters them, and drops copies and near copies.

`benchmarks/mine_pairs.py --datatrove PYTHON` runs it in an environment of its own with datatrove[processing] 0.10,
orjson, spacy and py3langid: `PYTHON datatrove_dedup.py FOLDER OUT WORKERS`. FOLDER holds JSON Lines (data-pairs.md); a
document's text is that of its title and blocks. Filters: Gopher's rules that know no language (symbols, bullets,
ellipses), and the identifier of languages that ours asks. Then exact copies and MinHash with the defaults (5-grams of
spaCy's English words, 14 buckets of 8). Prints JSON: processor seconds and documents by stage, and the greatest memory
of a process.
"""

from __future__ import annotations

import json
import resource
import sys
from functools import cache
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline import dedup
from datatrove.pipeline.filters import GopherQualityFilter, LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


@cache
def rank() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).rank


def adapt(_: Any, data: dict[str, Any], path: str, number: int) -> dict[str, Any]:
    text = "\n".join([data["title"], *(block[2] for block in data["blocks"])])
    return {"text": text, "id": f"{path}/{number}", "metadata": {"lang": data["lang"]}}


def in_its_language(document: Document) -> bool:
    (best, sure), *_ = rank()(document.text[:1000])
    return sure < 0.9 or best == document.metadata["lang"]


def text_of(document: Document) -> str:
    return document.text


def main() -> None:
    source, out, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    exact = dedup.ExactDedupConfig(content_getter=text_of)
    near = dedup.MinhashConfig()
    folder = {
        name: str(out / name) for name in ("filtered", "exact", "copies", "alone", "signs", "buckets", "near")
    }
    quality = GopherQualityFilter(
        min_doc_words=None, max_doc_words=None, min_avg_word_length=None, max_avg_word_length=None,
        max_non_alpha_words_ratio=None, min_stop_words=0,
    )  # fmt: skip
    stages: dict[str, tuple[int, list[Any]]] = {
        "read, filter": (workers, [
            JsonlReader(str(source), adapter=adapt), quality, LambdaFilter(in_its_language),
            JsonlWriter(folder["filtered"]),
        ]),
        "exact: digests": (workers, [
            JsonlReader(folder["filtered"]), dedup.ExactDedupSignature(folder["exact"], exact, workers)
        ]),
        "exact: find": (workers, [dedup.ExactFindDedups(folder["exact"], folder["copies"], exact)]),
        "exact: drop": (workers, [
            JsonlReader(folder["filtered"]), dedup.ExactDedupFilter(folder["copies"], exact),
            JsonlWriter(folder["alone"]),
        ]),
        "near: signatures": (workers, [
            JsonlReader(folder["alone"]), dedup.MinhashDedupSignature(folder["signs"], near)
        ]),
        "near: buckets": (near.num_buckets, [
            dedup.MinhashDedupBuckets(folder["signs"], folder["buckets"], config=near)
        ]),
        "near: clusters": (1, [dedup.MinhashDedupCluster(folder["buckets"], folder["near"], config=near)]),
        "near: drop": (workers, [
            JsonlReader(folder["alone"]), dedup.MinhashDedupFilter(folder["near"]), JsonlWriter(str(out / "kept"))
        ]),
    }  # fmt: skip
    seconds: dict[str, float] = {}
    for number, (name, (tasks, steps)) in enumerate(stages.items()):
        before = processor_seconds()
        logs = str(out / f"logs-{number}")  # forked, so that their time counts as that of children
        LocalPipelineExecutor(
            steps, tasks=tasks, workers=workers, logging_dir=logs, start_method="fork"
        ).run()
        seconds[name] = round(processor_seconds() - before, 1)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    kept = {
        name: sum(1 for _ in JsonlReader(str(out / name)).run()) for name in ("filtered", "alone", "kept")
    }
    print(
        json.dumps({"processor_seconds_by_stage": seconds, "documents": kept, "peak_megabytes": peak // 1024})
    )


def processor_seconds() -> float:
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


if __name__ == "__main__":
    main()
