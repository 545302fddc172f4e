"""The evaluation that a GPU makes in one go, beside the package's own and BM25's."""

import random
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import eval_folder
import judge
from eval_folder import Text, write_folder
from triptych.encode.encoder import Encoder, TruncationWarning
from triptych.eval.baselines import open_baseline
from triptych.eval.evaluate import evaluate_systems
from triptych.eval.results import Evaluation
from triptych.eval.running import EvalOptions
from triptych.eval.systems import EncoderSystem

WORDS = tuple(f"word{number}" for number in range(16))
SCORE = Namespace(first=None, sum=["1,0.3,1"], dtype="float32")


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty passages in two languages, twelve more in the hard pool, and long documents."""
    rng, root = random.Random(1), tmp_path_factory.mktemp("sets")
    passages = [
        Text(f"xquad-{language}-{number:04d}", f"{language} {text(rng, 12)}", {"lang": language})
        for language in ("en", "de")
        for number in range(10)
    ]
    questions = [
        Text(f"xquad-{language}-{number:04d}-0-{language}", text(rng, 4), {"lang": language})
        for language in ("en", "de")
        for number in range(10)
    ]
    # One question has two right passages; another shares no word with its own.
    questions[3] = Text(questions[3].id, "zzz", questions[3].facts)
    own = {one.id: [one.id[:13]] for one in questions}
    own[questions[5].id] += ["xquad-en-0002"]
    twins = {one.id: [f"xquad-en-{one.id[9:13]}", f"xquad-de-{one.id[9:13]}"] for one in questions}
    tests = [
        eval_folder.TestSet(
            "xquad",
            language,
            "test",
            "monolingual",
            {q: d for q, d in own.items() if f"-{language}-" in q},
            "twins",
        )
        for language in ("en", "de")
    ]
    across = {one.id: [f"xquad-de-{one.id[9:13]}"] for one in questions[:10]}
    tests.append(eval_folder.TestSet("xquad-cross", "en-de", "test", "cross-lingual", across, "twins"))
    more = [Text(f"distractor/{number}", text(rng, 9), {"lang": "fr"}) for number in range(12)]
    write_folder(root / "pooled", passages, questions, tests, {"twins": twins})
    write_folder(root / "hard", [*passages, *more], questions, tests, {"twins": twins})
    long = [Text(f"doc/{number}/en", text(rng, 700 + number), {"lang": "en"}) for number in range(6)]
    asked = [Text(f"doc/{number}/en/0", text(rng, 3), {"lang": "en"}) for number in range(6)]
    found = {f"doc/{number}/en/0": [f"doc/{number}/en"] for number in range(6)}
    whole = eval_folder.TestSet("long", "en", "test", "long", found)
    write_folder(root / "long", long, asked, [whole], {})
    judge.pack(root, root / "data")
    return root


def test_every_figure_is_that_of_the_packages_own_evaluation(sets: Path, tmp_path: Path) -> None:
    judge.score(sets / "data", tmp_path, ["small=small", "words=bm25:words", "pieces=bm25:pieces"], SCORE)
    judge.join(sets, tmp_path, tmp_path / "results", ["small", "bm25 (words)=words", "bm25 (pieces)=pieces"])
    system = EncoderSystem.of(Encoder.from_pretrained("small", dtype="float32"), modes=judge.MODES)
    systems = [system, open_baseline("bm25"), open_baseline("bm25:pieces")]
    for pool in judge.POOLS:
        joined = Evaluation.read(tmp_path / "results" / f"eval-{pool}.json.zst")
        options = EvalOptions(metrics=("nDCG@10",), depth=10, rrf=False)
        wanted = evaluate_systems(judge.collections_of(sets / pool), systems, options)
        for ours, theirs in zip(joined.subsets, wanted.subsets, strict=True):
            assert (ours.label, ours.split, ours.ids) == (theirs.label, theirs.split, theirs.ids)
            assert ours.clusters == theirs.clusters
            assert ours.characters == theirs.characters
            for name in ("bm25 (words)", "bm25 (pieces)", *(f"small/{mode}" for mode in judge.MODES)):
                np.testing.assert_allclose(ours.per_query[name], theirs.per_query[name], atol=1e-5)
                assert ours.metrics[name]["nDCG@10"] == pytest.approx(
                    theirs.metrics[name]["nDCG@10"], abs=1e-5
                )
            assert "small/1, 0.3, 1" in ours.per_query
        tested = {(one.a, one.b) for one in joined.significance}
        assert ("small/all", "bm25 (words)") in tested | {(b, a) for a, b in tested}


def test_a_length_cuts_long_documents_alone(sets: Path, tmp_path: Path) -> None:
    judge.score(sets / "data", tmp_path, ["short=small@64:dense", "whole=small:dense"], SCORE)
    with np.load(tmp_path / "short.npz") as short:
        assert {name for name in short.files if name != "facts"} >= {"long/dense"}
        assert not [name for name in short.files if name.startswith(("pooled", "hard"))]
    judge.join(sets, tmp_path, tmp_path / "results", ["whole", "small-64=short"])
    joined = Evaluation.read(tmp_path / "results" / "eval-long.json.zst")
    assert {"whole/dense", "small-64/dense"} <= joined.systems.keys()
    system = EncoderSystem.of(
        Encoder.from_pretrained("small", dtype="float32"), modes=["dense"], document_length=64
    )
    options = EvalOptions(metrics=("nDCG@10",), depth=10, rrf=False)
    with pytest.warns(TruncationWarning):
        wanted = evaluate_systems(judge.collections_of(sets / "long"), [system], options)
    for ours, theirs in zip(joined.subsets, wanted.subsets, strict=True):
        np.testing.assert_allclose(
            ours.per_query["small-64/dense"], theirs.per_query["small/dense"], atol=1e-5
        )


def test_a_model_for_which_no_time_is_left_is_left_out(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDS_LEFT", "0")
    judge.score(sets / "data", tmp_path, ["small=small:dense"], SCORE)
    assert not list(tmp_path.glob("*.npz"))


def test_scores_of_other_tests_are_refused(sets: Path, tmp_path: Path) -> None:
    judge.score(sets / "data", tmp_path, ["small=small:dense"], Namespace(first=3, sum=[], dtype="float32"))
    with pytest.raises(ValueError, match="of other tests"):
        judge.join(sets, tmp_path, tmp_path / "results", ["small"])


def test_the_words_of_many_languages_are_those_of_bm25_on_words() -> None:
    from triptych.eval.analyzers import Words

    texts = ["The houses of the Straße, 東京都", "Die Häuser der Straßen", "evlerin kapıları", ""]
    ours, theirs = judge.RememberedWords(), Words()
    for group in ("en", "de", "tr", "", "en"):
        assert ours.split(texts, group) == theirs.split(texts, group)
