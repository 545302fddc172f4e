import pytest
import torch

from triptych.train import gradcache
from triptych.train.objective import Candidates, Objective, losses, take

from .made import tiny, tokens

LENGTHS = [5, 9, 4, 17, 6, 30, 8, 12, 3, 21, 7, 11]
QUERIES = 3


def gradients(model, parts, heads=("dense", "lexical", "multi")):
    model.zero_grad(set_to_none=True)

    def objective(everything):
        queries = take(everything, torch.arange(QUERIES))
        passages = take(everything, torch.arange(QUERIES, len(LENGTHS)))
        return losses(Objective(heads=heads, temperature=0.1), Candidates.of(queries, passages, 3))

    torch.manual_seed(3)
    found = gradcache.backward(lambda part: model(part.batch, heads), parts, objective)
    return found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert", "modernbert"])
@pytest.mark.parametrize("budget", [1, 25, 40, 60])
def test_sub_batches_of_any_size_give_the_gradient_of_the_whole_batch(tmp_path, kind, budget):
    model = tiny(tmp_path, kind, dropout=0.0).model.train()
    batch = tokens(LENGTHS)
    parts = gradcache.split(batch, budget)
    assert len(parts) > 1
    plain_losses, plain = gradients(model, gradcache.split(batch, None))
    cached_losses, cached = gradients(model, parts)
    assert set(plain) == set(cached)
    assert len(plain) > 10
    for name in plain_losses:
        torch.testing.assert_close(cached_losses[name], plain_losses[name])
    for name, gradient in plain.items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-4, atol=1e-5)


def test_with_dropout_the_gradient_is_that_of_a_plain_backward_over_the_same_sub_batches(tmp_path):
    model = tiny(tmp_path, dropout=0.3).model.train()
    parts = gradcache.split(tokens(LENGTHS), 40)
    cached_losses, cached = gradients(model, parts)

    def all_at_once(batch):
        del batch
        return gradcache.concat_reps([model(part.batch) for part in parts])

    model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    everything = take(all_at_once(None), gradcache.original_order(parts))
    queries = take(everything, torch.arange(QUERIES))
    passages = take(everything, torch.arange(QUERIES, len(LENGTHS)))
    found = losses(Objective(temperature=0.1), Candidates.of(queries, passages, 3))
    found["loss"].backward()
    torch.testing.assert_close(cached_losses["loss"], found["loss"].detach())
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(cached[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_dropout_is_really_at_work_in_that_test(tmp_path):
    model = tiny(tmp_path, dropout=0.3).model.train()
    parts = gradcache.split(tokens(LENGTHS), None)
    trained, _ = gradients(model, parts)
    still, _ = gradients(model.eval(), parts)
    assert trained["loss"] != still["loss"]


def test_the_generator_goes_on_after_a_step_as_if_each_text_were_encoded_once(tmp_path):
    model = tiny(tmp_path, dropout=0.3).model.train()
    parts = gradcache.split(tokens(LENGTHS), 40)
    gradients(model, parts)
    after = torch.rand(1)
    torch.manual_seed(3)
    for part in parts:
        model(part.batch)
    assert torch.equal(torch.rand(1), after)


def test_a_dense_only_objective_leaves_the_other_heads_without_gradient(tmp_path):
    model = tiny(tmp_path).model.train()
    _, found = gradients(model, gradcache.split(tokens(LENGTHS), 40), heads=("dense",))
    assert not any("head" in name for name in found)


def test_split_holds_each_text_once_and_no_sub_batch_is_over_the_budget_but_single_texts():
    batch = tokens(LENGTHS)
    parts = gradcache.split(batch, 20)
    assert sorted(text for part in parts for text in part.texts) == list(range(len(LENGTHS)))
    for part in parts:
        assert sum(part.batch.lengths) <= 20 or len(part.texts) == 1
        assert part.batch.lengths == tuple(LENGTHS[i] for i in part.texts)
        for row, text in enumerate(part.texts):
            start, end = batch.offsets[text], batch.offsets[text + 1]
            own = part.batch.ids[part.batch.offsets[row] : part.batch.offsets[row + 1]]
            assert torch.equal(own, batch.ids[start:end])
