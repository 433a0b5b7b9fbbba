"""A real small result: an MLP trained on handwritten digits, narrowed by norm and at random.

The cut is done here by hand (rows of one layer, columns of the next), so that these tests need no
other part of the library than values, latency and report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from secateur.core.cost import Cost
from secateur.core.dims import Axis, Dim
from secateur.core.graph import Call, Graph, Group, Member, TensorType
from secateur.core.plan import Plan
from secateur.core.proof import Proof
from secateur.cost.latency import measure_latency
from secateur.report.evaluate import evaluate
from secateur.report.explain import explain
from secateur.report.machine import this_machine
from secateur.report.result import Curve, Result

PIXELS, FIRST, SECOND, CLASSES = (Axis(i, n) for i, n in enumerate((64, 256, 128, 10)))
Widths = tuple[int, int]


class Data(NamedTuple):
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


class Mlp(nn.Module):
    def __init__(self, widths: Widths = (256, 128)) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, widths[0])
        self.fc2 = nn.Linear(widths[0], widths[1])
        self.norm = nn.LayerNorm(widths[1])
        self.head = nn.Linear(widths[1], 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.fc1(x))
        return self.head(torch.relu(self.norm(self.fc2(hidden))))


def load_digits() -> Data:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32) / 16
    y = torch.tensor(bunch.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    test, train = order[:360], order[360:]
    return Data(x[train], y[train], x[test], y[test])


def accuracy(model: nn.Module, data: Data) -> float:
    with torch.no_grad():
        return float((model(data.x_test).argmax(1) == data.y_test).double().mean())


def train(model: nn.Module, data: Data, *, epochs: int, name: str) -> Curve:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses, accuracies = [], []
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(data.y_train), generator=generator).split(128):
            loss = nn.functional.cross_entropy(model(data.x_train[batch]), data.y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(data.y_train))
        accuracies.append(accuracy(model, data))
    return Curve(name, tuple(losses), tuple(accuracies))


def graph_of_mlp() -> Graph:
    dims: dict[str, tuple[Dim, ...]] = {
        "fc1.weight": ((FIRST,), (PIXELS,)),
        "fc1.bias": ((FIRST,),),
        "fc2.weight": ((SECOND,), (FIRST,)),
        "fc2.bias": ((SECOND,),),
        "norm.weight": ((SECOND,),),
        "norm.bias": ((SECOND,),),
        "head.weight": ((CLASSES,), (SECOND,)),
        "head.bias": ((CLASSES,),),
    }

    def members(axis: Axis) -> tuple[Member, ...]:
        return tuple(
            Member(name, place)
            for name, each in dims.items()
            for place, dim in enumerate(each)
            if axis in dim
        )

    calls = (("fc1", "Linear", FIRST), ("fc2", "Linear", SECOND), ("head", "Linear", CLASSES))
    return Graph(
        groups=(
            Group("fc1.weight:1", PIXELS, members(PIXELS), pinned="the caller's input decides it"),
            Group("fc1", FIRST, members(FIRST)),
            Group(
                "fc2",
                SECOND,
                members(SECOND),
                flags=frozenset({"renormalised"}),
                notes=("norm (LayerNorm) averages over this axis",),
            ),
            Group("head", CLASSES, members(CLASSES), pinned="the caller reads these outputs"),
        ),
        tensors={name: TensorType(each, 4, True, True) for name, each in dims.items()},
        ops=(),
        calls=tuple(Call(name, kind, (((), (axis,)),)) for name, kind, axis in calls),
        relations=(),
        fields={},
        inputs=(((), (PIXELS,)),),
        outputs=(((), (CLASSES,)),),
        unknown_ops={},
        fingerprint="of the test's MLP",
    )


def cut_mlp(model: Mlp, keep: Mapping[str, tuple[int, ...]]) -> Mlp:
    first, second = torch.tensor(keep["fc1"]), torch.tensor(keep["fc2"])
    small = Mlp((len(first), len(second)))
    dense = model.state_dict()
    small.load_state_dict(
        {
            "fc1.weight": dense["fc1.weight"][first],
            "fc1.bias": dense["fc1.bias"][first],
            "fc2.weight": dense["fc2.weight"][second][:, first],
            "fc2.bias": dense["fc2.bias"][second],
            "norm.weight": dense["norm.weight"][second],
            "norm.bias": dense["norm.bias"][second],
            "head.weight": dense["head.weight"][:, second],
            "head.bias": dense["head.bias"],
        }
    )
    return small


def prove_first_group(model: Mlp, keep: Mapping[str, tuple[int, ...]], x: Tensor) -> Proof:
    """The exact group alone, cut and masked; the other group's cut has another LayerNorm."""
    every = {**keep, "fc2": tuple(range(SECOND.size))}
    masked = Mlp()
    masked.load_state_dict(model.state_dict())
    gone = [unit for unit in range(FIRST.size) if unit not in keep["fc1"]]
    with torch.no_grad():
        masked.fc1.weight[gone] = 0.0
        masked.fc1.bias[gone] = 0.0
        expected = masked(x)
        error = float((cut_mlp(model, every)(x) - expected).abs().max())
    reason = "norm (LayerNorm) averages over this axis"
    relative = error / float(expected.abs().max())
    return Proof(error, relative, 1, 1, "float32", 4, {"fc2": reason})


def keep_of(scores: Mapping[str, Tensor], widths: Widths) -> dict[str, tuple[int, ...]]:
    return {
        id: tuple(scores[id].topk(count).indices.sort().values.tolist())
        for id, count in zip(("fc1", "fc2"), widths, strict=True)
    }


def macs(widths: Widths) -> int:
    return 64 * widths[0] + widths[0] * widths[1] + widths[1] * 10


def params(widths: Widths) -> int:
    return macs(widths) + widths[0] + 3 * widths[1] + 10


def cost(widths: Widths) -> Cost:
    return Cost(params(widths), macs(widths), 4 * params(widths))


@pytest.fixture(scope="session")
def result() -> Result:
    torch.manual_seed(0)
    data, full, narrow, modest = load_digits(), (256, 128), (72, 48), (200, 104)
    dense = Mlp()
    train(dense, data, epochs=12, name="dense")
    scores = {
        "fc1": dense.fc1.weight.detach().double().norm(dim=1),
        "fc2": dense.fc2.weight.detach().double().norm(dim=1) ** 6,  # spread for a log axis
    }
    lots = {id: torch.rand(len(each)) for id, each in scores.items()}
    keep, graph = keep_of(scores, narrow), graph_of_mlp()
    plan = Plan(
        fingerprint=graph.fingerprint,
        graph_hash=graph.hash,
        axes={"fc1": FIRST, "fc2": SECOND},
        keep=keep,
        tensors={name: each.dims for name, each in graph.tensors.items() if name != "head.bias"},
        changes=(),
        before=cost(full),
        after=cost(narrow),
        settings={"criterion": "l2", "budget": "params=18%", "selector": "uniform", "seed": 0},
        exact=("fc1",),
        inexact={"fc2": "norm (LayerNorm) averages over this axis"},
    )
    models = {
        "dense": dense,
        "pruned": cut_mlp(dense, keep),
        "random": cut_mlp(dense, keep_of(lots, narrow)),
        "30% fewer": cut_mlp(dense, keep_of(scores, modest)),
    }
    curves = tuple(train(models[n], data, epochs=8, name=n) for n in ("pruned", "random"))
    train(models["30% fewer"], data, epochs=2, name="30% fewer")
    measured = measure_latency(models, data.x_test[:1], batch_size=64, rounds=15)
    widths = {"dense": full, "pruned": narrow, "random": narrow, "30% fewer": modest}
    rows = {
        name: evaluate(
            model,
            name,
            macs=64 * macs(widths[name]),
            metric=lambda model: accuracy(model, data),
            latency=measured[name],
        )
        for name, model in models.items()
    }
    return Result(
        title="MLP on scikit-learn's handwritten digits",
        dense=rows["dense"],
        pruned=rows["pruned"],
        random=rows["random"],
        proof=prove_first_group(dense, keep, data.x_test),
        plan_hash=plan.hash,
        machine=this_machine(),
        extra=(rows["30% fewer"],),
        curves=curves,
        explanation=explain(plan, graph=graph, scores=scores),
        settings=plan.settings,
        seed=0,
    )
