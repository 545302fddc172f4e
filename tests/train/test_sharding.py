"""FSDP in two processes over gloo, a transformer layer a unit, against one process that holds the joint batch."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import nn

from checkpoints import make
from processes import spawn
from triptych.model import checkpoint as layouts
from triptych.model.packed import Packed
from triptych.train import distributed, gradcache
from triptych.train.distributed import Replica
from triptych.train.objective import Objective, losses, take
from triptych.train.settings import LoraSettings
from triptych.train.start import Projected, add_lora

from .made import tokens

GROUP = 2
HEADS = ("dense", "lexical", "multi")
# Tokens of each process's queries and passages.
LENGTHS = (([5, 9], [4, 17, 6, 30]), ([8, 3], [12, 7, 21, 11]))


@dataclass(frozen=True)
class Case:
    kind: str = "xlm-roberta"
    budget: int | None = None
    change: str = ""
    limit: float | None = None

    @property
    def layers(self) -> int:
        return 3 if self.kind == "modernbert" else 2


CASES = {
    "unpadded": Case(),
    "unpadded, in sub-batches": Case(budget=30),
    "bert": Case("bert", budget=30),
    "padded": Case("modernbert"),
    "padded, in sub-batches": Case("modernbert", budget=30),
    "clipped": Case(limit=0.01),
    "layers computed again": Case(change="checkpointed", budget=30),
    "layers of unequal shapes": Case(change="unequal"),
    "a frozen layer, words and a frozen bias": Case(change="frozen", budget=30),
    "lora": Case(change="lora", budget=30),
    "vectors of a teacher, evaluated first": Case(change="projected"),
    "padded, vectors of a teacher, evaluated first": Case("modernbert", change="projected"),
}


def build(folder: Path, case: Case) -> nn.Module:
    torch.manual_seed(0)
    model = layouts.load(folder / case.kind).model.float().train()
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(1.0 if "orm" in name else 3.0)
    if case.change == "unequal":
        layer = model.backbone.encoder.layer[1]
        layer.intermediate.dense = nn.Linear(32, 56)
        layer.output.dense = nn.Linear(56, 32, bias=False)
        layer.output.LayerNorm = nn.Identity()
    if case.change == "frozen":
        model.backbone.embeddings.requires_grad_(False)
        model.backbone.encoder.layer[0].requires_grad_(False)
        model.backbone.encoder.layer[1].output.dense.bias.requires_grad_(False)
    if case.change == "lora":
        model.backbone.requires_grad_(False)
        add_lora(model.backbone, LoraSettings(rank=2), 0)
    if case.change == "checkpointed":
        backbone = model.backbone
        getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)()
    return Projected(model, 32, 5) if case.change == "projected" else model


def texts_of(rank: int) -> Packed:
    return tokens([*LENGTHS[rank][0], *LENGTHS[rank][1]], seed=rank)


def joint() -> Packed:
    """The queries of both processes, then their passages."""
    sides: list[list[torch.Tensor]] = [[], []]
    for rank, (queries, _) in enumerate(LENGTHS):
        texts = texts_of(rank).ids.split(texts_of(rank).lengths)
        sides[0] += texts[: len(queries)]
        sides[1] += texts[len(queries) :]
    return Packed.of([text.numpy() for side in sides for text in side])


def train(replica: Replica, case: Case, batch: Packed, queries: int):
    """Two steps: the loss, the norm and the gradient of each, and the weights at the end."""

    def loss(reps):
        sides = (take(reps, part) for part in torch.arange(len(batch)).tensor_split([queries]))
        found = losses(Objective(temperature=0.1), distributed.candidates(*sides, GROUP))
        projected = 0.0 if reps.projected is None else reps.projected.square().sum()
        return {"loss": found["loss"] + projected * distributed.size() / 4}

    weights = [weight for weight in replica.module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, 1e-2, eps=1e-2, fused=True)
    parts = gradcache.split(batch, case.budget)
    results = []
    for _ in range(2):
        _, passes = distributed.agree([], len(parts))
        found = gradcache.backward(
            lambda part: replica.call(part.batch, HEADS), parts, loss, replica.synchronized, passes
        )
        gradients = {n: p.grad for n, p in replica.module.named_parameters() if p.grad is not None}
        norm = replica.clip(case.limit)
        for harmful in (1.0, 0.0):  # the first time the weights stay as they are
            optimizer.found_inf = torch.tensor(harmful)
            optimizer.step()
        loss_of_all = distributed.mean(found)["loss"]
        results.append((loss_of_all, float(norm), {n: whole(g) for n, g in gradients.items()}))
        optimizer.zero_grad(set_to_none=True)
    return results, {name: whole(weight) for name, weight in replica.module.named_parameters()}


def whole(tensor):
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def evaluate(replica: Replica, batch):
    """As a run does it, by the model within what is trained."""
    with replica.gathered() as module, torch.no_grad():
        return getattr(module, "encoder", module)(batch, HEADS).multi.clone()


def in_process(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results = {}
    for name, case in CASES.items():
        replica = Replica(build(Path(folder), case), "fsdp")
        batch = texts_of(rank)
        before = evaluate(replica, batch)
        found = train(replica, case, batch, len(LENGTHS[rank][0]))
        own = sum(weight.to_local().numel() for weight in replica.module.parameters())
        results[name] = (*found, before, evaluate(replica, batch), len(replica._units), own)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    for kind in {case.kind for case in CASES.values()}:
        make(kind, folder / kind)
    return folder


@pytest.fixture(scope="module")
def both(folder) -> list[dict]:
    spawn(in_process, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_layers_shared_out_train_as_one_process_does_with_the_joint_batch(both, folder, name):
    case = CASES[name]
    replica = Replica(build(folder, case), "fsdp")
    before = evaluate(replica, texts_of(1))
    steps, weights = train(replica, case, joint(), sum(len(queries) for queries, _ in LENGTHS))
    total = sum(weight.numel() for weight in replica.module.parameters())
    if case.limit is not None:
        assert min(norm for _, norm, _ in steps) > 10 * case.limit
    for rank in range(2):
        got_steps, got_weights, *_ = both[rank][name]
        for (loss, norm, gradients), (got_loss, got_norm, got) in zip(steps, got_steps, strict=True):
            assert (got_loss, got_norm) == pytest.approx((loss, norm), rel=1e-4)
            assert got.keys() == gradients.keys()
            for key, expected in gradients.items():  # of the keys' biases there is none but for rounding
                assert float((got[key] - expected).norm()) < 1e-3 * float(expected.norm()) + 1e-5 * norm, key
        for key, expected in weights.items():
            torch.testing.assert_close(got_weights[key], expected, rtol=1e-4, atol=1e-5)
    *_, first, last, units, _ = both[1][name]
    torch.testing.assert_close(first, before)
    torch.testing.assert_close(last, evaluate(replica, texts_of(1)), rtol=1e-3, atol=1e-4)
    assert units == 1 + case.layers  # and all that is around them
    assert max(each[name][-1] for each in both) < 0.6 * total
