"""The probe: the largest batches that go through a real step of training."""

import pytest
import torch

from triptych.errors import InputError
from triptych.train import probe
from triptych.train.sampling import BatchTable
from triptych.train.settings import dump, read

from .made import tiny

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def recipe(*more: str):
    changes = ["data={table: probe, group: 2, query_length: 8, passage_length: 32, bounds: [8, 16]}"]
    return read(None, [*changes, "compute={device: cpu, dtype: float32}", *more])


@pytest.fixture
def model(tmp_path):
    return tiny(tmp_path, dropout=0.0).model


def short_of_memory(most: int):
    def trial(tokens: int, rows: int) -> None:
        if tokens * rows > most:
            raise torch.OutOfMemoryError("made up")

    return trial


def test_each_bucket_gets_nine_tenths_of_the_most_rows_that_go_through():
    found = probe.largest(short_of_memory(3200), (8, 16, 32))
    assert found == BatchTable((8, 16, 32), (360, 180, 90))


def test_where_not_even_one_row_fits_that_is_said():
    with pytest.raises(InputError, match="not even 1 rows of 32 tokens fit"):
        probe.largest(short_of_memory(31), (8, 32))


def test_other_errors_are_not_taken_for_too_little_memory():
    def broken(tokens: int, rows: int) -> None:
        raise RuntimeError("not memory")

    with pytest.raises(RuntimeError, match="not memory"):
        probe.largest(broken, (8,))


@pytest.mark.parametrize("more", [(), ("compute.sub_batch_tokens=40",), ("objective=dense",)])
def test_a_step_gives_the_objective_s_losses_and_leaves_weights_and_gradients_as_they_were(model, more):
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    found = probe.step(recipe(*more), model, CPU, 16, 3)
    assert found["loss"] > 0
    assert ("lexical" in found) == ("objective=dense" not in more)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.grad is None


def test_other_recipes_are_given_back_and_a_processor_is_refused(model):
    plain = recipe("data.table=null")
    assert probe.probed(plain, model, CPU) is plain
    with pytest.raises(InputError, match="expected a GPU"):
        probe.probed(recipe(), model, CPU)


def test_a_run_that_is_resumed_takes_what_was_found_before(model, tmp_path):
    before = tmp_path / "recipe.yaml"
    before.write_text(dump(read(None, ["data.table={8: 3, 32: 1}"])))
    assert probe.probed(recipe(), model, CUDA, before).data.table == {8: 3, 32: 1}


def test_pre_training_refuses_a_probe():
    with pytest.raises(InputError, match="probe: is for training on pairs"):
        recipe().data.batches(32)
