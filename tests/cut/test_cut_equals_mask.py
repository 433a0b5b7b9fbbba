"""The main law: a cut model's outputs equal those of the original with the same units zeroed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import MODELS
from torch import Tensor, nn

from secateur import cut, plan, score, trace, verify
from secateur.core.lookup import names


def built(name: str) -> tuple[nn.Module, Tensor]:
    make, inputs = MODELS[name]
    return make().eval(), inputs()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("keep", [0.5, 0.3])
def test_half_of_everything(name: str, keep: float) -> None:
    model, inputs = built(name)
    before = [tensor.clone() for tensor in model.state_dict().values()]
    graph = trace(model, inputs)
    chosen = plan(graph, score(graph, model, criterion="random"), keep=keep)
    small = cut(model, chosen)
    proof = verify(model, small, chosen, inputs, dtype=torch.float64)
    assert proof.max_rel_error <= 1e-9
    assert proof.groups_checked == len(chosen.keep) > 0
    assert proof.groups_shape_only == 0
    assert proof.module_calls > 0
    assert not graph.unknown_ops
    after = list(model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_predicted_cost_is_counted_cost(name: str) -> None:
    model, inputs = built(name)
    graph = trace(model, inputs)
    chosen = plan(graph, score(graph, model, criterion="l2"), keep=0.5)
    small = cut(model, chosen)
    assert sum(p.numel() for p in small.parameters()) == chosen.after.params < chosen.before.params
    again = plan(trace(small, inputs), {}, keep=1.0)
    assert again.before.macs == chosen.after.macs < chosen.before.macs


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("criterion", [n for n in names("secateur.criteria") if n[:6] != "block_"])
def test_every_criterion_on_every_model(name: str, criterion: str) -> None:
    model, inputs = built(name)
    graph = trace(model, inputs)
    classes = model(inputs).shape[-1]
    labels = torch.randint(0, classes, model(inputs).shape[:-1])
    loss = nn.CrossEntropyLoss()
    scores = score(
        graph,
        model,
        criterion=criterion,
        data=[(inputs, labels)],
        loss_fn=lambda out, y: loss(out.flatten(0, -2), y.flatten()),
    )
    chosen = plan(graph, scores, keep=0.5, selector="global")
    verify(model, cut(model, chosen), chosen, inputs, dtype=torch.float64)


def test_keeping_everything_is_the_identity() -> None:
    model, inputs = built("residual")
    graph = trace(model, inputs)
    same = cut(model, plan(graph, score(graph, model, criterion="l1"), keep=1.0))
    torch.testing.assert_close(same(inputs), model(inputs), rtol=0, atol=0)


class Program(nn.Module):
    """A random network: each step reads earlier feature maps and writes a new one."""

    def __init__(self, steps: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.steps: list[tuple[str, int, int]] = []
        self.layers = nn.ModuleList()
        widths = [4]
        self.stem = nn.Conv2d(3, 4, 1)
        for kind, pick, width in steps:
            source = pick % len(widths)
            c = widths[source]
            layer: nn.Module = nn.Identity()
            if kind == "conv":
                layer, c = nn.Conv2d(c, width, 3, padding=1), width
            elif kind == "depthwise":
                layer = nn.Conv2d(c, c, 3, padding=1, groups=c)
            elif kind == "grouped" and c % 2 == 0:
                layer, c = nn.Conv2d(c, 2 * width, 1, groups=2), 2 * width
            elif kind == "norm":
                layer = nn.BatchNorm2d(c)
            elif kind == "gate" and c % 2 == 0:
                c = c // 2
            elif kind == "cat":
                c = c + widths[-1]
            elif kind == "project":
                layer = nn.Conv2d(widths[-1], c, 1)
            elif kind == "shuffle" and c % 2 == 0:
                pass
            else:
                kind = "relu"
            self.steps.append((kind, source, c))
            self.layers.append(layer)
            widths.append(c)
        self.head = nn.Linear(widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for (kind, source, _), layer in zip(self.steps, self.layers, strict=True):
            y = maps[source]
            if kind == "gate":
                a, b = y.chunk(2, 1)
                y = a * b.sigmoid()
            elif kind == "cat":
                y = torch.cat([y, maps[-1]], 1)
            elif kind == "project":
                y = y + layer(maps[-1])
            elif kind == "shuffle":
                n, c, h, w = y.shape
                y = y.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            elif kind == "relu":
                y = y.relu()
            else:
                y = layer(y)
            maps.append(y)
        return self.head(maps[-1].mean((2, 3)))


KINDS = ("conv", "depthwise", "grouped", "norm", "gate", "cat", "project", "shuffle", "relu")
STEP = st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.sampled_from([3, 4, 6, 8]))


@given(st.lists(STEP, min_size=1, max_size=8), st.integers(0, 3), st.sampled_from([0.2, 0.5, 0.8]))
def test_random_networks(steps: list[tuple[str, int, int]], seed: int, keep: float) -> None:
    torch.manual_seed(seed)
    model, inputs = Program(steps).eval(), torch.randn(1, 3, 4, 4)
    graph = trace(model, inputs)
    chosen = plan(graph, score(graph, model, criterion="random", seed=seed), keep=keep)
    small = cut(model, chosen)
    proof = verify(model, small, chosen, inputs, dtype=torch.float64)
    assert proof.max_rel_error <= 1e-9
    assert proof.groups_checked == len(chosen.keep)
