from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.core.errors import TrainError
from secateur.masks import (
    DynamicSparsity,
    GradualMasking,
    Rewinding,
    erdos_renyi,
    fold_,
    mask_,
    sparsity,
)
from secateur.train import FinetuneSettings, TensorBatches, finetune
from secateur.train.masking import Masking

Batches = list[tuple[Tensor, Tensor]]


def train_(net: nn.Module, batches: Batches, schedule: Any, *, steps: int, lr: float = 0.1) -> None:
    """Anybody's own loop, one line of it ours."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    for step in range(steps):
        x, y = batches[step % len(batches)]
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        schedule.step_()


def total_sparsity(net: nn.Module) -> float:
    rows = sparsity(net)
    return sum(row.zeros for row in rows) / sum(row.weights for row in rows)


def test_gradual_masking_follows_the_cubic(net: nn.Module, batches: Batches) -> None:
    schedule = GradualMasking(net, sparsity=0.9, start=2, stop=12, interval=5, initial=0.2)
    seen = []
    for _ in range(13):
        train_(net, batches, schedule, steps=1)
        seen.append(round(total_sparsity(net), 2))
    middle = 0.9 - 0.7 * 0.5**3
    assert seen == [0, *[0.2] * 5, *[round(middle, 2)] * 5, 0.9, 0.9]
    assert schedule.plan.sparsity == pytest.approx(0.9, abs=0.01)


def test_masks_of_a_gradual_schedule_only_grow(net: nn.Module, batches: Batches) -> None:
    schedule = GradualMasking(net, sparsity=0.8, stop=6, interval=2, power=1.0, scope="layer")
    before = schedule.plan
    for _ in range(3):
        train_(net, batches, schedule, steps=2)
        assert not any(added for added, _ in schedule.plan.diff(before).values())
        before = schedule.plan
    for row in sparsity(net):
        assert row.sparsity == pytest.approx(0.8, abs=0.03)


def naive_move(
    weight: Tensor, kept: Tensor, wanted: Tensor, moving: int
) -> tuple[list[int], list[int]]:
    """Algorithm 1 of RigL by Python lists: what stays and what grows."""
    w, g, k = weight.flatten().tolist(), wanted.abs().flatten().tolist(), kept.flatten().tolist()
    active = sorted((i for i in range(len(w)) if k[i]), key=lambda i: abs(w[i]))
    staying = active[moving:]
    free = sorted((i for i in range(len(w)) if i not in staying), key=lambda i: g[i])
    return staying, free[len(free) - moving :]


def test_rigl_is_its_algorithm(net: nn.Module, batches: Batches) -> None:
    net.double()
    mask_(net, sparsity=erdos_renyi(net, sparsity=0.6), criterion="random")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    rigl = DynamicSparsity(net, stop=100, interval=3, fraction=0.5, optimizer=optimizer)
    masks = {name: mask.kept.clone() for name, (mask, _) in rigl.masks.items()}
    for step in range(1, 4):
        x, y = batches[step % 3][0].double(), batches[step % 3][1]
        optimizer.zero_grad()
        dense = fold_(copy.deepcopy(net))  # an independent way to the dense gradient
        F.cross_entropy(net(x), y).backward()
        F.cross_entropy(dense(x), y).backward()
        optimizer.step()
        weights = {name: w.detach().clone() for name, (_, w) in rigl.masks.items()}
        rigl.step_()
    share = 0.5 / 2 * (1 + math.cos(math.pi * 3 / 100))
    for name, (mask, weight) in rigl.masks.items():
        before = masks[name]
        number = int(before.sum())
        moving = min(round(share * number), before.numel() - number)  # one layer is dense
        gradient = dense.get_parameter(name).grad
        staying, growing = naive_move(weights[name], before, gradient, moving)
        expected = torch.zeros(before.numel(), dtype=torch.bool)
        expected[staying + growing] = True
        assert torch.equal(mask.kept, expected.view(before.shape))
        assert mask.kept.sum() == before.sum()
        new = mask.kept & ~before
        assert int(new.sum()) > 0 or moving == 0
        assert not weight[new].any()
        assert not optimizer.state[weight]["momentum_buffer"][new].any()
        old = mask.kept & before
        assert torch.equal(weight[old], weights[name][old])


def test_set_grows_at_random_and_from_its_seed(net: nn.Module, batches: Batches) -> None:
    def final(seed: int) -> list[Tensor]:
        own = copy.deepcopy(net)
        mask_(own, sparsity=0.5, scope="layer", criterion="random")
        how: dict[str, Any] = {"grow": "random", "decay": "constant", "seed": seed}
        schedule = DynamicSparsity(own, stop=100, interval=2, **how)
        assert schedule.fraction_at(99) == 0.3
        train_(own, batches, schedule, steps=4)
        return [mask.kept for mask, _ in schedule.masks.values()]

    first, same, other = final(0), final(0), final(1)
    assert all(map(torch.equal, first, same))
    assert not all(map(torch.equal, first, other))
    assert [int(kept.sum()) for kept in first] == [kept.numel() // 2 for kept in first]


def test_rigl_finds_the_inputs_that_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 64, generator=generator)
    y = x[:, [3, 17, 40]].sum(1, keepdim=True)
    torch.manual_seed(0)
    layer = nn.Linear(64, 1)
    first = mask_(layer, sparsity=1 - 6 / 64, criterion="random")
    assert not first.kept["weight"][0, [3, 17, 40]].all()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    rigl = DynamicSparsity(layer, stop=200, interval=10, fraction=0.4)
    for _ in range(200):
        optimizer.zero_grad()
        F.mse_loss(layer(x), y).backward()
        optimizer.step()
        rigl.step_()
    kept = rigl.masks["weight"][0].kept[0]
    assert kept[[3, 17, 40]].all() and kept.sum() == 6
    assert F.mse_loss(layer(x), y).item() < 1e-3


def test_a_copy_has_no_part_in_the_schedule(net: nn.Module, batches: Batches) -> None:
    mask_(net, sparsity=0.5)
    rigl = DynamicSparsity(net, stop=10, interval=1)
    twin = copy.deepcopy(net)
    F.cross_entropy(twin(batches[0][0]), batches[0][1]).backward()
    with pytest.raises(TrainError, match="no gradient"):
        rigl.step_()


def test_a_missing_gradient_is_said(net: nn.Module) -> None:
    mask_(net, sparsity=0.5)
    rigl = DynamicSparsity(net, stop=10, interval=2)
    rigl.step_()
    with pytest.raises(TrainError, match=r"no gradient of conv\.weight .* step 2"):
        rigl.step_()


def test_rewinding_puts_the_early_weights_back(net: nn.Module, batches: Batches) -> None:
    rewinding = Rewinding(net, at_step=2)
    with pytest.raises(TrainError, match="kept at step 2"):
        rewinding.rewind_()
    train_(net, batches, rewinding, steps=2)
    early = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    train_(net, batches, rewinding, steps=4)
    plan = mask_(net, sparsity=0.5)
    assert plan.kept["fc.weight"].shape == net.fc.weight.shape
    rewinding.rewind_()
    assert torch.equal(net.fc.weight, early["fc.weight"] * plan.kept["fc.weight"])
    assert torch.equal(net.bn.running_mean, early["bn.running_mean"])
    assert int(net.bn.num_batches_tracked) == int(early["bn.num_batches_tracked"])
    other = Rewinding(nn.Linear(3, 3))
    other.model = net
    with pytest.raises(TrainError, match="another model's"):
        other.rewind_()


def test_erdos_renyi_kernel_keeps_thin_layers_dense(net: nn.Module) -> None:
    found = erdos_renyi(net, sparsity=0.7)
    shapes = {"conv.weight": (8, 4, 3, 3), "first.weight": (8, 8), "fc.weight": (3, 8)}
    kept = {name: (1 - found[name]) * math.prod(shape) for name, shape in shapes.items()}
    assert sum(kept.values()) == pytest.approx(0.3 * 376)
    assert kept["conv.weight"] / kept["first.weight"] == pytest.approx(18 / 16)
    for share in (0.01, 0.3, 0.99):
        assert all(0 <= s < 1 for s in erdos_renyi(net, sparsity=share).values())


def test_wrong_schedules_are_refused(net: nn.Module) -> None:
    with pytest.raises(ValueError, match="no masks to move"):
        DynamicSparsity(net, stop=10)
    with pytest.raises(ValueError, match="sparsity rises"):
        GradualMasking(net, sparsity=0.3, initial=0.5, stop=10)
    with pytest.raises(ValueError, match="from start to stop"):
        GradualMasking(net, sparsity=0.3, start=10, stop=10)
    with pytest.raises(ValueError, match="at_step"):
        Rewinding(net, at_step=-1)
    mask_(net, sparsity=0.5)
    with pytest.raises(ValueError, match="grow is one of"):
        DynamicSparsity(net, stop=10, grow="magic")
    with pytest.raises(ValueError, match="fraction"):
        DynamicSparsity(net, stop=10, fraction=1.5)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("kind", ["gradual", "dynamic", "rewinding"])
def test_killed_and_resumed_they_end_the_same(
    net: nn.Module, batches: Batches, tmp_path: Path, kind: str
) -> None:
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    def run(folder: Path | None, *, stop_at: int | None = None) -> tuple[nn.Module, Any]:
        own = copy.deepcopy(net)
        schedule: Any
        if kind == "gradual":
            schedule = GradualMasking(own, sparsity=0.8, stop=16, interval=3)
        elif kind == "dynamic":
            mask_(own, sparsity=0.5, criterion="random")
            schedule = DynamicSparsity(own, stop=20, interval=4)
        else:
            schedule = Rewinding(own, at_step=2)

        class Killer(Masking):
            def after_step_(self, training: Any) -> None:
                super().after_step_(training)
                if training.step == stop_at:
                    raise Stopped

        finetune(
            own,
            TensorBatches(x, y, batch_size=12),
            settings=FinetuneSettings(epochs=4, lr=0.05, checkpoint_every=3, progress=False),
            loss_fn=F.cross_entropy,
            checkpoint_dir=folder,
            companions=[Killer(schedule)],
        )
        return own, schedule

    whole, schedule = run(None)
    with pytest.raises(Stopped):
        run(tmp_path, stop_at=8)
    resumed, other = run(tmp_path)
    assert schedule.step == other.step == 16
    if kind == "dynamic":
        assert type(schedule.optimizer).__name__ == "SGD"
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    if kind == "rewinding":
        assert all(torch.equal(schedule.saved[n], other.saved[n]) for n in schedule.saved)
    assert any(True for row in sparsity(whole) if row.zeros) is (kind != "rewinding")
