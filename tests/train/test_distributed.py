"""Two processes, exchanging over gloo, against one process that holds the joint batch."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from processes import spawn
from triptych.train import distributed
from triptych.train.objective import OBJECTIVES, Candidates, Objective, concat_reps, leaves, losses, take

from .made import reps

GROUP = 2
# Of each process: queries and passages of unequal number and length; the third case has a process without any.
SIZES = {
    "equal": [([3, 4], [5, 9, 4, 6]), ([5, 3], [7, 6, 4, 8])],
    "unequal": [([3, 4, 6], [5, 9, 4, 6, 7, 5]), ([5], [7, 12])],
    "empty": [([3, 4], [5, 9, 4, 6]), ([], [])],
}
CASES = {
    "dense": OBJECTIVES["dense"],
    "lexical": Objective(heads=("lexical",)),
    "multi": Objective(heads=("multi",)),
    "unified": Objective(),
    "contrastive": OBJECTIVES["contrastive"],
    "bidirectional": Objective(bidirectional=True),
    "matryoshka": Objective(dense_widths=(4,), multi_widths=(2, 4)),
    "own passages": Objective(in_batch=False),
    "false negatives": Objective(false_negative_margin=0.1),
    "re-ranker": Objective(reranker="ranked"),
    "re-ranker listwise": Objective(reranker="listwise"),
}


def side(size: str, rank: int, which: int):
    lengths = SIZES[size][rank][which]
    made = reps(lengths, 10 * rank + which) if lengths else empty()
    heads = ("dense", "lexical", "multi")
    return leaves(replace(made, **{head: getattr(made, head) * 0.5 for head in heads}))


def empty():
    return take(reps([3], 0), torch.zeros(0, dtype=torch.int64))


def extras(size: str, rank: int) -> dict[str, torch.Tensor]:
    count = len(SIZES[size][rank][1])
    draw = torch.Generator().manual_seed(rank)
    keys = torch.arange(count) + 100 * rank
    if rank == 0:
        keys[0] = 100  # the first passage of the other process
    return {"teacher": torch.randn(count // GROUP, GROUP, generator=draw), "keys": keys}


def gradients(*sides) -> list[torch.Tensor]:
    return [getattr(each, name).grad for each in sides for name in ("dense", "lexical", "multi")]


def one_process(size: str, objective: Objective):
    queries, passages = ([side(size, rank, which) for rank in range(2)] for which in range(2))
    more = [extras(size, rank) for rank in range(2)]
    joint = {name: torch.cat([each[name] for each in more]) for name in more[0]}
    found = losses(objective, Candidates.of(concat_reps(queries), concat_reps(passages), GROUP, **joint))
    found["loss"].backward()
    values = {name: value.item() for name, value in found.items()}
    return values, [gradients(queries[rank], passages[rank]) for rank in range(2)]


def in_process(rank: int, port: int, out: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results = {}
    for size in SIZES:
        for name, objective in CASES.items():
            queries, passages = side(size, rank, 0), side(size, rank, 1)
            batch = distributed.candidates(
                queries, passages, GROUP, bidirectional=objective.bidirectional, **extras(size, rank)
            )
            found = losses(objective, batch)
            found["loss"].backward()
            values = distributed.mean(found)
            results[f"{size} {name}"] = (values, gradients(queries, passages))
    torch.save(results, f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("gloo")
    spawn(in_process, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_loss_and_the_gradient_of_the_joint_batch(both, name, size):
    values, expected = one_process(size, CASES[name])
    for rank in range(2):
        got_values, got = both[rank][f"{size} {name}"]
        assert got_values == pytest.approx(values, rel=1e-5, abs=1e-6)
        for left, right in zip(got, expected[rank], strict=True):
            if right is None or not right.numel():
                assert left is None or not left.any()
            else:
                # Data-parallel training takes the mean over the processes.
                torch.testing.assert_close(torch.zeros_like(right) if left is None else left / 2, right)


def test_fsdp_finds_the_tensors_of_a_models_output():
    """Before torch 2.13 it looks only into what this function looks into, and exchanged no gradient."""
    from torch.utils._pytree import tree_leaves

    distributed._show_reps()
    made = reps([3, 4], 0)
    found = [leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
    for name in ("dense", "lexical", "multi"):
        assert any(leaf is getattr(made, name) for leaf in found), name
