from dataclasses import replace

import pytest
import torch

import reference_losses as slow
from triptych.errors import InputError
from triptych.train.objective import OBJECTIVES, Candidates, Objective, losses, score, take

from .made import reps

QUERIES, GROUP = 4, 3


def batch(seed: int = 0, **options) -> Candidates:
    queries = reps([3, 5, 4, 6], seed)
    passages = reps([7, 4, 9, 5, 8, 6, 7, 7, 5, 9, 4, 6], seed + 1)
    return Candidates.of(queries, passages, GROUP, **options)


def of(objective: Objective, candidates: Candidates, step: int = 0) -> dict[str, float]:
    return {name: value.item() for name, value in losses(objective, candidates, step).items()}


def matrices(candidates: Candidates) -> dict[str, list[list[float]]]:
    return {
        head: score(head, candidates.queries, candidates.passages).tolist()
        for head in ("dense", "lexical", "multi")
    }


@pytest.mark.parametrize("distils", [True, False])
def test_the_unified_loss_is_that_of_the_paper(distils):
    candidates = batch()
    expected = slow.unified(matrices(candidates), [0, 3, 6, 9], 0.02, distils=distils)
    got = of(OBJECTIVES["unified" if distils else "contrastive"], candidates)
    assert got["loss"] == pytest.approx(expected, rel=1e-5)


def test_with_one_head_the_loss_is_its_contrastive_loss_alone():
    candidates = batch()
    expected = slow.info_nce(matrices(candidates)["dense"], [0, 3, 6, 9], 0.02)
    got = of(OBJECTIVES["dense"], candidates)
    assert got["loss"] == pytest.approx(sum(expected) / 4, rel=1e-5)
    assert set(got) == {"loss", "dense", "negatives"}
    assert got["negatives"] == QUERIES * GROUP - 1


def test_a_head_that_does_not_learn_is_left_out():
    candidates = batch()
    without = batch()
    for side in (without.queries, without.passages):
        object.__setattr__(side, "lexical", None)
    objective = Objective(heads=("dense", "multi"))
    assert of(objective, candidates) == of(objective, without)


def test_self_distillation_begins_at_its_first_step():
    objective = Objective(distill_from=10)
    candidates = batch()
    assert of(objective, candidates, 9)["loss"] == of(OBJECTIVES["contrastive"], candidates)["loss"]
    assert of(objective, candidates, 10)["loss"] == of(Objective(), candidates)["loss"]


def test_without_in_batch_negatives_each_query_sees_its_own_passages_alone():
    candidates = batch()
    own = {
        head: [row[i * GROUP : (i + 1) * GROUP] for i, row in enumerate(rows)]
        for head, rows in matrices(candidates).items()
    }
    expected = slow.unified(own, [0] * QUERIES, 0.02)
    assert of(Objective(in_batch=False), candidates)["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_bidirectional_loss_is_the_mean_of_both_directions():
    candidates = batch()
    dense = matrices(candidates)["dense"]
    forth = slow.info_nce(dense, [0, 3, 6, 9], 0.02)
    back = slow.info_nce([[row[i * GROUP] for row in dense] for i in range(QUERIES)], [0, 1, 2, 3], 0.02)
    got = of(replace(OBJECTIVES["dense"], bidirectional=True), candidates)
    assert got["loss"] == pytest.approx((sum(forth) + sum(back)) / (2 * QUERIES), rel=1e-5)


def test_a_passage_that_equals_the_positive_is_no_negative():
    keys = torch.arange(QUERIES * GROUP)
    keys[GROUP] = 0  # the second query's positive is the first one's
    marked = batch(keys=keys)
    rows = matrices(marked)["dense"]
    dropped = [[False] * 12 for _ in range(QUERIES)]
    dropped[0][GROUP] = dropped[1][0] = True
    expected = sum(slow.info_nce(rows, [0, 3, 6, 9], 0.02, dropped)) / QUERIES
    assert of(OBJECTIVES["dense"], marked)["loss"] == pytest.approx(expected, rel=1e-5)
    kept = replace(OBJECTIVES["dense"], drop_duplicates=False)
    assert of(kept, marked)["loss"] == of(OBJECTIVES["dense"], batch())["loss"]


def test_false_negatives_are_judged_by_the_integrated_score_for_every_head():
    candidates = batch()
    rows = matrices(candidates)
    inter = [
        [d + 0.3 * s + m for d, s, m in zip(*each, strict=True)]
        for each in zip(rows["dense"], rows["lexical"], rows["multi"], strict=True)
    ]
    dropped = [
        [j != i * GROUP and value > row[i * GROUP] - 0.2 for j, value in enumerate(row)]
        for i, row in enumerate(inter)
    ]
    assert any(map(any, dropped))
    expected = sum(slow.info_nce(rows["lexical"], [0, 3, 6, 9], 0.02, dropped)) / QUERIES
    got = of(Objective(false_negative_margin=0.2), candidates)
    assert got["lexical"] == pytest.approx(expected, rel=1e-5)


def test_equal_passages_and_those_above_the_margin_are_both_left_out():
    rows = matrices(batch())["dense"]
    limit = rows[0][0] + 0.2
    same = max(
        (j for j in range(QUERIES * GROUP) if j % GROUP and rows[0][j] < limit), key=lambda j: rows[0][j]
    )
    keys = torch.arange(QUERIES * GROUP)
    keys[same] = keys[0]
    candidates = batch(keys=keys)
    dropped = [
        [
            j != i * GROUP and (value > row[i * GROUP] + 0.2 or (i, j) == (0, same))
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(rows)
    ]
    assert sum(map(sum, dropped)) > 1
    expected = sum(slow.info_nce(rows, [0, 3, 6, 9], 0.02, dropped)) / QUERIES
    got = of(replace(OBJECTIVES["dense"], false_negative_margin=-0.2), candidates)
    assert got["loss"] == pytest.approx(expected, rel=1e-5)


def test_ranked_re_ranker_distillation_equals_the_slow_form():
    teacher = torch.randn(QUERIES, GROUP, generator=torch.Generator().manual_seed(4))
    candidates = batch(teacher=teacher)
    rows = matrices(candidates)["dense"]
    expected = sum(slow.ranked(rows, teacher.tolist(), [0, 3, 6, 9], 0.02)) / QUERIES
    got = of(replace(OBJECTIVES["dense"], reranker="ranked"), candidates)
    assert got["loss"] == pytest.approx(expected, rel=1e-4)


def test_steps_are_counted_from_0_where_none_is_given():
    assert "dense_distilled" not in losses(Objective(distill_from=1), batch())


def test_matryoshka_is_the_mean_over_widths_normalised_anew():
    candidates = batch()
    short = [
        replace_dense(side, torch.nn.functional.normalize(side.dense[:, :4], dim=-1))
        for side in (candidates.queries, candidates.passages)
    ]
    narrow = Candidates.of(*short, GROUP)
    whole, cut = of(OBJECTIVES["dense"], candidates)["loss"], of(OBJECTIVES["dense"], narrow)["loss"]
    both = of(replace(OBJECTIVES["dense"], dense_widths=(4,)), candidates)["loss"]
    assert both == pytest.approx((whole + cut) / 2, rel=1e-5)


def replace_dense(side, dense):
    return replace(side, dense=dense)


def test_re_ranker_scores_replace_the_contrastive_losses_but_not_where_a_row_has_none():
    teacher = torch.randn(QUERIES, GROUP)
    teacher[2] = torch.nan
    candidates = batch(teacher=teacher)
    rows = matrices(candidates)["dense"]
    ranked = slow.ranked(rows, teacher.nan_to_num().tolist(), [0, 3, 6, 9], 0.02)
    ranked[2] = slow.info_nce(rows, [0, 3, 6, 9], 0.02)[2]
    got = of(replace(OBJECTIVES["dense"], reranker="ranked"), candidates)
    assert got["loss"] == pytest.approx(sum(ranked) / QUERIES, rel=1e-5)
    assert of(OBJECTIVES["dense"], candidates)["loss"] != got["loss"]


def test_listwise_re_ranker_distillation_is_added_to_the_contrastive_loss():
    teacher = torch.randn(QUERIES, GROUP)
    candidates = batch(teacher=teacher)
    plain = of(OBJECTIVES["dense"], candidates)["loss"]
    assert of(replace(OBJECTIVES["dense"], reranker="listwise"), candidates)["loss"] > plain


def test_every_head_gets_a_gradient_from_its_own_losses_and_the_integrated_one():
    candidates = batch()
    losses(Objective(loss_weights=(0.0, 0.0, 1.0)), candidates)["loss"].backward()
    for side in (candidates.queries, candidates.passages):
        for name in ("dense", "lexical", "multi"):
            assert getattr(side, name).grad.abs().sum() > 0


def test_permuting_the_queries_with_their_passages_does_not_change_the_loss():
    candidates = batch()
    order = torch.tensor([2, 0, 3, 1])
    columns = (order[:, None] * GROUP + torch.arange(GROUP)).flatten()
    moved = Candidates.of(take(candidates.queries, order), take(candidates.passages, columns), GROUP)
    assert of(Objective(), moved) == pytest.approx(of(Objective(), candidates), rel=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0},
        {"heads": ("dens",)},
        {"score_weights": (0, 0, 0)},
        {"loss_weights": (1, -1, 1)},
        {"in_batch": False, "bidirectional": True},
        {"dense_widths": (0,)},
    ],
)
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(InputError):
        Objective(**wrong)
