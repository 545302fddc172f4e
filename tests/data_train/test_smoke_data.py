"""The small training set of the repository: what it holds, and that training and judging do not meet."""

from collections import Counter
from pathlib import Path

import triptych
from triptych.collections.beir import load_beir
from triptych.collections.training import read_examples
from triptych.tools.check import check

FOLDER = Path(triptych.__file__).parent / "demo" / "qa-small"


def test_the_training_part_has_hundreds_of_clean_examples_in_balanced_languages() -> None:
    report = check(FOLDER / "train.jsonl.zst")
    assert report.examples == 420
    assert not report.problems.counts
    examples = [example for _, example in read_examples(FOLDER / "train.jsonl.zst")]
    assert {len(example.neg) for example in examples} == {7}
    assert Counter(example.language for example in examples) == Counter(
        ar=60, en=120, fr=60, ja=60, th=60, zh=60
    )


def test_no_held_out_passage_or_question_is_in_the_training_part() -> None:
    examples = [example for _, example in read_examples(FOLDER / "train.jsonl.zst")]
    known = {text for example in examples for text in (example.query, *example.passages)}
    dev = load_beir(FOLDER / "dev", "dev")
    assert len(dev.queries) == 210
    assert len(dev.corpus) == 576
    assert not known & {*dev.queries.values(), *dev.corpus.values()}
    assert len(set(dev.corpus.values())) == len(dev.corpus)
    assert {len(relevant) for relevant in dev.qrels.values()} == {1}


def test_all_of_it_is_smaller_than_700_kilobytes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 700_000
