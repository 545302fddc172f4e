"""`triptych verify`: damaged files are named, and an index is repaired."""

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


def test_one_flipped_bit_of_a_model_or_of_encoded_texts_is_found(
    run: Run, folder: Path, corpus: Path, tmp_path: Path
) -> None:
    from triptych import Encoder

    model, blocks = tmp_path / "model", tmp_path / "blocks"
    Encoder.from_pretrained(folder).save_pretrained(model)
    assert run("encode", corpus, "-o", blocks).code == 0
    for place in (model, blocks):
        assert run("verify", place).code == 0
        victim = max(place.glob("*.safetensors"), key=lambda path: path.stat().st_size)
        data = bytearray(victim.read_bytes())
        data[-1] ^= 1
        victim.write_bytes(data)
        done = run("verify", place)
        assert done.code == 1
        assert victim.name in " ".join(done.out.split())
        assert run("verify", place, "--repair").code == 2
