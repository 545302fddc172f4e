import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_losses as slow
from triptych.errors import InputError
from triptych.train import losses

TAU = 0.05
SMALL = settings(max_examples=40, deadline=None)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))


def drawn(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores [Q, Q·G], targets, and re-ranker scores [Q, G]."""
    queries, group, seed = shape
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.uniform(-1, 1, (queries, queries * group)), dtype=torch.float64)
    return scores, torch.arange(queries) * group, torch.tensor(rng.uniform(-3, 3, (queries, group)))


def close(left: torch.Tensor, right: list[float]) -> bool:
    return bool(np.allclose(left.tolist(), right, rtol=1e-5, atol=1e-5))


def test_info_nce_of_equal_scores_is_the_logarithm_of_the_number_of_candidates():
    loss = losses.info_nce(torch.full((3, 6), 0.7), torch.arange(3) * 2, 0.02)
    assert close(loss, [math.log(6)] * 3)


def test_info_nce_of_one_rival_is_the_softplus_of_the_gap():
    loss = losses.info_nce(torch.tensor([[0.5, 0.4]]), torch.tensor([0]), 0.1)
    assert close(loss, [math.log1p(math.exp(-1.0))])


def test_info_nce_of_a_lone_candidate_is_zero():
    assert close(losses.info_nce(torch.tensor([[0.3]]), torch.tensor([0]), 0.02), [0.0])


@SMALL
@given(shapes)
def test_info_nce_equals_the_slow_form(shape):
    scores, targets, _ = drawn(shape)
    assert close(losses.info_nce(scores, targets, TAU), slow.info_nce(scores.tolist(), targets.tolist(), TAU))


@SMALL
@given(shapes)
def test_a_dropped_candidate_counts_as_if_it_were_not_there(shape):
    scores, targets, _ = drawn(shape)
    dropped = torch.rand(scores.shape, generator=torch.Generator().manual_seed(shape[2])) < 0.4
    dropped.scatter_(1, targets[:, None], False)
    got = losses.info_nce(scores, targets, TAU, dropped)
    assert close(got, slow.info_nce(scores.tolist(), targets.tolist(), TAU, dropped.tolist()))
    harder = scores.masked_fill(dropped, 100.0)
    assert torch.equal(got, losses.info_nce(harder, targets, TAU, dropped))


def test_info_nce_is_unchanged_when_all_scores_of_a_query_move_together():
    scores, targets, _ = drawn((4, 3, 1))
    moved = scores + torch.tensor([[0.3], [-0.2], [0.9], [0.0]])
    torch.testing.assert_close(losses.info_nce(scores, targets, TAU), losses.info_nce(moved, targets, TAU))


def test_info_nce_does_not_overflow_at_a_very_small_temperature():
    loss = losses.info_nce(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.tensor([0, 0]), 1e-4)
    assert close(loss, [0.0, 20000.0])


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match="temperature: got 0"):
        losses.info_nce(torch.zeros(1, 2), torch.tensor([0]), 0.0)


def test_distillation_from_equal_scores_is_the_entropy_of_the_teacher():
    scores = torch.tensor([[0.1, 0.2, 0.3]])
    wanted = slow.softmax([0.1 / TAU, 0.2 / TAU, 0.3 / TAU])
    entropy = -sum(p * math.log(p) for p in wanted)
    assert close(losses.distillation(scores, scores, TAU), [entropy])


@SMALL
@given(shapes, st.floats(0.5, 4))
def test_distillation_equals_the_slow_form(shape, heat):
    student, _, _ = drawn(shape)
    teacher = student.flip(1) * 1.7
    got = losses.distillation(student, teacher, TAU, heat)
    assert close(got, slow.distillation(student.tolist(), teacher.tolist(), TAU, heat))


def test_distillation_gives_the_teacher_no_gradient_and_the_student_the_difference_of_the_shares():
    student, _, _ = drawn((3, 2, 5))
    student = student.float().requires_grad_()
    teacher = (torch.rand(3, 6) * 2).requires_grad_()
    losses.distillation(student, teacher, TAU).sum().backward()
    assert teacher.grad is None
    expected = ((student / TAU).softmax(1) - (teacher / TAU).softmax(1)) / TAU
    torch.testing.assert_close(student.grad, expected.detach())


def test_distillation_leaves_dropped_candidates_out_without_making_nan():
    student = torch.tensor([[0.5, 0.2, 0.9]], requires_grad=True)
    teacher = torch.tensor([[0.4, 0.1, 0.8]])
    dropped = torch.tensor([[False, False, True]])
    loss = losses.distillation(student, teacher, TAU, dropped=dropped)
    torch.testing.assert_close(loss, losses.distillation(student[:, :2], teacher[:, :2], TAU))
    loss.sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[0, 2] == 0


def test_the_examples_of_the_docstrings_give_what_they_say():
    found = doctest.testmod(losses)
    assert found.failed == 0
    assert found.attempted >= 7


@SMALL
@given(shapes)
def test_ranked_distillation_equals_the_slow_form(shape):
    scores, targets, teacher = drawn(shape)
    got = losses.ranked(scores, teacher, targets, TAU)
    assert close(got, slow.ranked(scores.tolist(), teacher.tolist(), targets.tolist(), TAU))


def test_ranked_distillation_does_not_depend_on_the_order_of_the_negatives():
    scores, targets, teacher = drawn((3, 4, 7))
    teacher[0, 1] = teacher[0, 2]
    order = torch.tensor([0, 3, 1, 2])
    columns = losses.own_columns(targets, 4)
    shuffled = scores.scatter(1, columns, scores.gather(1, columns)[:, order])
    got = losses.ranked(scores, teacher, targets, TAU)
    torch.testing.assert_close(got, losses.ranked(shuffled, teacher[:, order], targets, TAU))


def test_ranked_distillation_has_the_positive_first_whatever_the_teacher_says():
    scores, targets, teacher = drawn((3, 4, 5))
    teacher[:, 0] = teacher.min() - 1
    above = teacher.clone()
    above[:, 0] = teacher.max() + 1
    # The shares of the passages aside, only the order counts.
    flat = losses.ranked(scores, teacher, targets, TAU, teacher_temperature=1e6)
    torch.testing.assert_close(flat, losses.ranked(scores, above, targets, TAU, teacher_temperature=1e6))


def test_ranked_distillation_is_info_nce_where_the_re_ranker_is_sure_of_the_positive():
    scores, targets, teacher = drawn((3, 4, 2))
    teacher = teacher.fill_(-torch.inf)
    teacher[:, 0] = 0
    torch.testing.assert_close(
        losses.ranked(scores, teacher, targets, TAU), losses.info_nce(scores, targets, TAU)
    )


def test_listwise_distillation_is_over_a_query_s_own_passages_alone():
    scores, targets, teacher = drawn((3, 4, 3))
    got = losses.listwise(losses.own_group(scores, targets, 4), teacher, TAU, 1.0)
    own = [scores[i, i * 4 : i * 4 + 4].tolist() for i in range(3)]
    expected = []
    for row, t in zip(own, teacher.tolist(), strict=True):
        given_ = slow.softmax([value / TAU for value in row])
        expected.append(-sum(w * math.log(g) for w, g in zip(slow.softmax(t), given_, strict=True)))
    assert close(got, expected)


def test_false_negatives_are_those_above_the_positive_less_the_margin():
    scores = torch.tensor([[0.5, 0.45, 0.39, 0.6]])
    target = torch.tensor([0])
    assert losses.false_negatives(scores, target, 0.1).tolist() == [[False, True, False, True]]
    assert losses.false_negatives(scores, target, 0.0).tolist() == [[False, False, False, True]]
    assert losses.false_negatives(scores, target, -0.2).tolist() == [[False, False, False, False]]
    assert losses.false_negatives(scores, target, 0.25, relative=True).tolist() == [[False, True, True, True]]


def test_a_candidate_exactly_at_the_limit_stays():
    scores = torch.tensor([[0.75, 0.5, 0.5625]])
    assert losses.false_negatives(scores, torch.tensor([0]), 0.25).tolist() == [[False, False, True]]


def test_a_relative_margin_lowers_the_limit_for_a_negative_positive_score_too():
    scores = torch.tensor([[-0.5, -0.55, -0.7]])
    assert losses.false_negatives(scores, torch.tensor([0]), 0.2, relative=True).tolist() == [
        [False, True, False]
    ]


def test_known_answers_are_the_columns_with_a_labelled_text():
    keys, answers = torch.tensor([7, 1, 7, 2]), torch.tensor([7, 2, 9])
    assert losses.known_answers(keys, answers, torch.tensor([0, 1, 1]), 3).tolist() == [
        [True, False, True, False],
        [False, False, False, True],
        [False, False, False, False],
    ]


@pytest.mark.parametrize("places", [0, 1, 5, 8, 13])
@pytest.mark.parametrize("block", [None, 4])
def test_vocabulary_cross_entropy_in_blocks_equals_the_whole_and_so_do_its_gradients(places, block):
    torch.manual_seed(0)
    states = torch.randn(places, 6)
    table, bias, labels = torch.randn(11, 6), torch.randn(11), torch.randint(0, 11, (places,))
    grads = []
    for way in (
        lambda s, t, b: torch.nn.functional.cross_entropy(s @ t.T + b, labels, reduction="sum"),
        lambda s, t, b: losses.vocabulary_cross_entropy(s, t, b, labels, block=block),
    ):
        inputs = [each.clone().requires_grad_() for each in (states, table, bias)]
        value = way(*inputs)
        (3 * value).backward()
        grads.append([value.detach(), *(each.grad for each in inputs)])
    for left, right in zip(*grads, strict=True):
        torch.testing.assert_close(left, right)
    with torch.no_grad():
        torch.testing.assert_close(
            losses.vocabulary_cross_entropy(states, table, bias, labels, block=block), grads[0][0]
        )


def test_vocabulary_cross_entropy_of_a_frozen_table_gives_it_no_gradient():
    states, table, bias = torch.randn(3, 4, requires_grad=True), torch.randn(7, 4), torch.randn(7)
    losses.vocabulary_cross_entropy(states, table, bias, torch.tensor([0, 6, 2])).backward()
    assert table.grad is None
    assert bias.grad is None
    assert states.grad.abs().sum() > 0


def test_vocabulary_cross_entropy_is_finite_where_the_right_token_has_no_chance():
    states, table = torch.ones(1, 1, requires_grad=True), torch.tensor([[1000.0], [0.0]])
    loss = losses.vocabulary_cross_entropy(states, table, torch.zeros(2), torch.tensor([1]))
    assert loss.item() == 1000


def test_vocabulary_cross_entropy_under_autocast_multiplies_in_its_type_and_sums_in_float32():
    torch.manual_seed(0)
    states, table, bias = torch.randn(64, 8), torch.randn(32, 8), torch.randn(32)
    labels = torch.randint(0, 32, (64,))
    exact = losses.vocabulary_cross_entropy(states, table, bias, labels)
    states.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = losses.vocabulary_cross_entropy(states, table, bias, labels)
    rough.backward()
    assert rough.dtype == torch.float32
    assert states.grad.dtype == torch.float32
    assert rough != exact
    torch.testing.assert_close(rough, exact, rtol=0.01, atol=0)
