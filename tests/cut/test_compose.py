"""Steps as one plan: cutting once equals cutting step by step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.core.errors import CutError
from secateur.cut.compose import compose


class Fused(nn.Module):
    """Heads from one fused projection, a concatenation and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.left, self.right = nn.Linear(16, 8), nn.Linear(16, 12)
        self.head = nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 4, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, -1))
        return self.head(torch.cat([self.left(x).relu(), self.right(x).relu()], dim=-1))


MODELS = {
    "cnn": lambda: (
        nn.Sequential(
            *(nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3)),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10), nn.ReLU()),
            nn.Linear(10, 3),
        ),
        torch.randn(2, 1, 8, 8),
    ),
    "fused": lambda: (Fused(), torch.randn(2, 5, 6)),
}


def in_steps(model: nn.Module, example: torch.Tensor) -> tuple[list[sc.Plan], nn.Module]:
    plans = []
    for seed in range(3):
        result = sc.prune(model, example, budget="params=75%", criterion="random", seed=seed)
        plans.append(result.plan)
        model = result.model
    return plans, model


@pytest.mark.parametrize("name", MODELS)
def test_one_cut_equals_the_steps(name: str) -> None:
    model, example = MODELS[name]()
    plans, final = in_steps(model, example)
    assert all(plan.keep for plan in plans)
    plan = compose(sc.trace(model, example), plans, final=final, settings={"steps": 3})
    once = sc.cut(model, plan)
    ours, theirs = once.state_dict(), final.state_dict()
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=0)
    torch.testing.assert_close(once.eval()(example), final.eval()(example), rtol=0, atol=0)
    assert plan.after.params == plans[-1].after.params
    assert plan.after.macs == plans[-1].after.macs
    assert sc.Plan.from_json(plan.to_json()).hash == plan.hash


def test_units_are_those_of_the_dense_model() -> None:
    model, example = MODELS["cnn"]()
    plans, final = in_steps(model, example)
    plan = compose(sc.trace(model, example), plans, final=final, settings={})
    expected = list(range(12))
    for step in plans:
        expected = [expected[unit] for unit in step.keep.get("0.weight[0]", range(len(expected)))]
    assert list(plan.keep["0.weight[0]"]) == expected


def test_steps_that_do_not_follow_each_other_are_refused() -> None:
    model, example = MODELS["cnn"]()
    plans, final = in_steps(model, example)
    with pytest.raises(CutError, match="cannot be saved as one"):
        compose(sc.trace(model, example), [plans[0], plans[2]], final=final, settings={})
    with pytest.raises(CutError, match="after the last step"):
        compose(sc.trace(model, example), plans[:2], final=final, settings={})
