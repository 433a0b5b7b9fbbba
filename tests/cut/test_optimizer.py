"""Masking and training on equals cutting and training on, by numbers, for every usual optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from secateur.core.errors import CutError
from secateur.criteria.score import score
from secateur.cut import cut_
from secateur.cut.optimizer import carry_optimizer_
from secateur.graph import trace
from secateur.select.plan import plan as make_plan

KEPT = torch.tensor([0, 2, 3, 6])
MakeOptimizer = Callable[..., torch.optim.Optimizer]
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1),
    "momentum": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.01),
    "foreach": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, foreach=True),
    "fused": lambda ps: torch.optim.AdamW(ps, lr=0.01, fused=True),
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.01),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.01, weight_decay=0.1),
    "amsgrad": lambda ps: torch.optim.AdamW(ps, lr=0.01, amsgrad=True),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.01, momentum=0.5, centered=True),
}


def network(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Linear(hidden, 3)).double()


def train_(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(16, 5, generator=generator, dtype=torch.float64)
        y = torch.randn(16, 3, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        if isinstance(model, Masked):
            model.mask_()


class Masked(nn.Sequential):
    """The network with the removed units held at zero after every step."""

    def mask_(self) -> None:
        gone = torch.tensor([u for u in range(8) if u not in KEPT])
        with torch.no_grad():
            self[0].weight[gone] = 0
            self[0].bias[gone] = 0
            self[2].weight[:, gone] = 0


def cut(model: nn.Sequential) -> tuple[nn.Sequential, dict[nn.Parameter, tuple]]:
    """The network without the removed units, and what replaced what."""
    small = network(len(KEPT))
    kept: list[tuple[Tensor | None, ...]] = [(KEPT, None), (KEPT,), (None, KEPT)]
    replaced = {}
    with torch.no_grad():
        small[2].bias.copy_(model[2].bias)
        for old, new, indices in zip(
            list(model.parameters())[:3], list(small.parameters())[:3], kept, strict=True
        ):
            value = old
            for dim, index in enumerate(indices):
                value = value if index is None else value.index_select(dim, index)
            new.copy_(value)
            replaced[old] = (new, indices)
    # the last bias is untouched by the cut: the same parameter goes on
    small[2].bias = model[2].bias
    return small, replaced


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_cut_and_go_on_equals_mask_and_go_on(name: str) -> None:
    dense = network(8)
    masked = Masked(*dense)
    optimizer = OPTIMIZERS[name](masked.parameters())
    train_(masked, optimizer, steps=5, seed=1)

    twin = Masked(*network(8))
    twin.load_state_dict(masked.state_dict())
    twin_optimizer = OPTIMIZERS[name](twin.parameters())
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    small, replaced = cut(twin)
    carry_optimizer_(twin_optimizer, replaced)
    assert twin_optimizer.param_groups[0]["params"] == list(small.parameters())

    masked.mask_()
    train_(masked, optimizer, steps=7, seed=2)
    train_(small, twin_optimizer, steps=7, seed=2)

    x = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(small(x), masked(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(small[0].weight, masked[0].weight[KEPT], rtol=0, atol=1e-12)


def test_fresh_state_gives_another_result() -> None:
    """The law above can fail: without the carried momentum the numbers differ."""
    masked = Masked(*network(8))
    optimizer = OPTIMIZERS["momentum"](masked.parameters())
    train_(masked, optimizer, steps=5, seed=1)
    small, _ = cut(masked)
    small[2].bias = nn.Parameter(small[2].bias.detach().clone())
    masked.mask_()
    train_(masked, optimizer, steps=1, seed=2)
    train_(small, OPTIMIZERS["momentum"](small.parameters()), steps=1, seed=2)
    assert (small[0].weight - masked[0].weight[KEPT]).abs().max() > 1e-4


def test_step_counts_and_groups_stay_and_a_scheduler_goes_on() -> None:
    model = network(8)
    optimizer = torch.optim.AdamW(
        [
            {"params": [model[0].weight, model[2].weight], "lr": 0.02},
            {"params": [model[0].bias], "lr": 0.5, "weight_decay": 0.0},
        ]
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    train_(model, optimizer, steps=3, seed=1)
    scheduler.step()
    before = optimizer.state[model[0].weight]["exp_avg"].clone()
    small, replaced = cut(model)
    carry_optimizer_(optimizer, replaced)

    state = optimizer.state[small[0].weight]
    assert float(state["step"]) == 3
    assert torch.equal(state["exp_avg"], before[KEPT])
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 1]
    assert len(optimizer.state) == 3
    train_(small, optimizer, steps=1, seed=2)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.005, 0.125]


def test_optimizer_without_state_and_parameters_it_does_not_hold() -> None:
    model = network(8)
    optimizer = torch.optim.Adam([model[0].weight], lr=0.1)
    small, replaced = cut(model)
    carry_optimizer_(optimizer, replaced)
    assert optimizer.param_groups[0]["params"] == [small[0].weight]
    assert not optimizer.state
    train_(small, optimizer, steps=1, seed=0)
    assert optimizer.state[small[0].weight]["exp_avg"].shape == (4, 5)


def test_adafactor_rows_and_columns_are_sliced() -> None:
    model = network(8).float()
    optimizer = torch.optim.Adafactor([model[0].weight], lr=0.1)
    model(torch.randn(2, 5)).sum().backward()
    optimizer.step()
    rows = optimizer.state[model[0].weight]["row_var"].clone()
    new = nn.Parameter(model[0].weight.detach()[KEPT])
    carry_optimizer_(optimizer, {model[0].weight: (new, (KEPT, None))})
    assert torch.equal(optimizer.state[new]["row_var"], rows[KEPT])
    assert optimizer.state[new]["col_var"].shape == (1, 5)


def test_wrong_shape_leaves_the_optimizer_whole() -> None:
    model = network(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_(model, optimizer, steps=1, seed=0)
    params = list(optimizer.param_groups[0]["params"])
    wrong = nn.Parameter(torch.ones(3, 5, dtype=torch.float64))
    with pytest.raises(CutError, match=r"\(8, 5\) was replaced by one of \(3, 5\).*\(4, 5\)"):
        carry_optimizer_(optimizer, {model[0].weight: (wrong, (KEPT, None))})
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], params, strict=True))
    assert set(optimizer.state) == set(params)


def test_state_of_another_shape_is_an_error() -> None:
    weight = nn.Parameter(torch.ones(8, 5))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    optimizer.state[weight]["sketch"] = torch.ones(7)
    new = nn.Parameter(torch.ones(4, 5))
    with pytest.raises(CutError, match=r"'sketch' has shape \(7,\)"):
        carry_optimizer_(optimizer, {weight: (new, (KEPT, None))})


def test_lbfgs_is_refused() -> None:
    weight = nn.Parameter(torch.ones(8))
    with pytest.raises(CutError, match="make a new LBFGS"):
        carry_optimizer_(torch.optim.LBFGS([weight]), {})


def test_channels_stay_last_in_memory() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(1, 1, 8, 8)).sum().backward()
    optimizer.step()
    graph = trace(model, torch.zeros(1, 1, 8, 8))
    plan = make_plan(graph, score(graph, model, criterion="l2"), keep=0.5)
    cut_(model, plan, optimizer=optimizer)
    for weight in (model[0].weight, model[2].weight):
        for tensor in (weight, optimizer.state[weight]["momentum_buffer"]):
            _, channels, height, width = tensor.shape
            assert tensor.stride() == (channels * height * width, 1, width * channels, channels)
