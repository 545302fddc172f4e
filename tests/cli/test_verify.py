"""`triptych verify`: damaged files are named, and an index is repaired."""

import json
from pathlib import Path

import pytest

from .conftest import Run


def damage(index: Path) -> Path:
    victim = max((index / "data").glob("*.safetensors"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    return victim


def test_a_whole_index_is_verified(run: Run, index: Path) -> None:
    done = run("verify", index)
    assert done.code == 0, done.err
    assert "every file is as it was written" in done.out


def test_one_flipped_bit_of_an_index_is_found_named_and_repaired(run: Run, index: Path) -> None:
    victim = damage(index)
    done = run("verify", index)
    assert done.code == 1
    assert victim.name in " ".join(done.out.split())
    (facts,) = run("verify", index, "--json").lines
    assert any(victim.name in problem for problem in facts["problems"])
    assert run("verify", index, "--repair").code == 0
    assert run("verify", index).code == 0
    assert run("search", index, "hello").code == 0


@pytest.mark.parametrize("place", ["nowhere", "file.txt"])
def test_what_is_no_folder_is_refused(run: Run, tmp_path: Path, place: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    done = run("verify", tmp_path / place)
    assert done.code == 2
    assert "is no folder" in done.err


@pytest.mark.parametrize(
    ("flag", "trusted"), [((), {}), (("--trust-remote-code",), {"trust_remote_code": True})]
)
def test_a_models_own_code_runs_only_on_request(
    flag: tuple[str, ...], trusted: dict[str, bool], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, object]] = []

    def load(*_: object, **given: object) -> None:
        seen.append(given)
        raise ZeroDivisionError

    monkeypatch.setattr("triptych.encode.encoder.Encoder.from_pretrained", load)
    run("score", "-q", "a", "-d", "b", *flag)
    assert seen == [{"device": None, "dtype": "auto", **trusted}]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _made(run: Run, folder: Path, corpus: Path, tmp_path: Path) -> dict[str, tuple[Path, list[Path]]]:
    """One folder of each kind, and files in it that a flipped bit changes."""
    from triptych import Encoder

    model, blocks, pairs, cache = (tmp_path / name for name in ("model", "blocks", "pairs", "cache"))
    Encoder.from_pretrained(folder).save_pretrained(model)
    assert run("encode", corpus, "-o", blocks).code == 0
    text = "A moka pot brews coffee on a stove. Water boils in the lower part and rises through the ground coffee."
    (tmp_path / "page.jsonl").write_text(
        json.dumps({"id": "p", "title": "How it brews", "text": text}) + "\n"
    )
    assert run("data", "pairs", tmp_path / "page.jsonl", "-o", pairs).code == 0
    rows, dev = tmp_path / "rows.jsonl", tmp_path / "dev"
    rows.write_text(
        "".join(json.dumps({"query": f"hello {n}", "pos": [f"world {n}"]}) + "\n" for n in range(4))
    )
    (dev / "qrels").mkdir(parents=True)
    (dev / "corpus.jsonl").write_text('{"_id": "d", "text": "hello"}\n')
    (dev / "queries.jsonl").write_text('{"_id": "q", "text": "hello"}\n')
    (dev / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    settings = ("steps=1", "data.batch_size=2", f"data.cache={tmp_path / 'prepared'}")
    options = [part for setting in settings for part in ("--set", setting)]
    assert run("train", "-d", rows, "-m", folder, "-o", tmp_path / "run", *options).code == 0
    assert run("eval", dev, "--cache", cache).code == 0
    return {
        "model": (model, [model / "model.safetensors"]),
        "encoded texts": (blocks, [next(blocks.glob("*.safetensors")), next(blocks.glob("*.ids.json"))]),
        "mined pairs": (pairs, list((pairs / "pairs").iterdir())),
        "a run": (tmp_path / "run", sorted((tmp_path / "run").rglob("*.safetensors"))),
        "prepared data": (tmp_path / "prepared", list((tmp_path / "prepared").rglob("rows.arrow"))),
        "cached vectors": (cache, list(cache.rglob("*.safetensors"))),
    }


def test_one_flipped_bit_is_found_in_everything_that_is_written(
    run: Run, folder: Path, corpus: Path, tmp_path: Path
) -> None:
    for kind, (place, victims) in _made(run, folder, corpus, tmp_path).items():
        assert run("verify", place).code == 0, kind
        assert victims, kind
        for victim in victims:
            whole = victim.read_bytes()
            _flip(victim)
            done = run("verify", place)
            assert done.code == 1, (kind, victim)
            assert victim.name in "".join(done.out.split())
            victim.write_bytes(whole)
        assert run("verify", place, "--repair").code == 2


def test_a_folder_without_digests_is_not_called_whole(run: Run, folder: Path, tmp_path: Path) -> None:
    for place in (folder, tmp_path):  # a published checkpoint; an empty folder
        done = run("verify", place)
        assert done.code == 2
        assert "no file with a digest" in " ".join(done.err.split())
