"""A small network and its graph, written down by hand: what the tracer would infer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from secateur.core.dims import Axis, Dim
from secateur.core.fingerprint import fingerprint
from secateur.core.graph import Graph, Group, Member, TensorType

sys.path.insert(0, str(Path(__file__).parent))  # references, small_models


class Net(nn.Module):
    """Two convolutions, a batch norm, a flatten, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1)
        self.fc = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn(self.conv1(x)).relu()
        return self.fc(self.conv2(h).relu().flatten(1))


class Case(NamedTuple):
    model: Net
    graph: Graph
    batches: list[tuple[Tensor, Tensor]]


@pytest.fixture
def case() -> Case:
    model = Net().eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_()
    batches = [(torch.randn(4, 3, 2, 2), torch.randint(5, (4,))) for _ in range(3)]
    return Case(model, graph_of(model), batches)


def graph_of(model: Net) -> Graph:
    rgb, c1, c2, space = Axis(0, 3), Axis(1, 8), Axis(2, 6), Axis(3, 4)
    classes, k = Axis(4, 5), Axis(5, 3)
    dims: dict[str, tuple[Dim, ...]] = {
        "conv1.weight": ((c1,), (rgb,), (k,), (k,)),
        "conv1.bias": ((c1,),),
        "bn.weight": ((c1,),),
        "bn.bias": ((c1,),),
        "conv2.weight": ((c2,), (c1,), (k,), (k,)),
        "conv2.bias": ((c2,),),
        "fc.weight": ((classes,), (c2, space)),  # flatten: channel outer, position inner
        "fc.bias": ((classes,),),
        "bn.running_mean": ((c1,),),
        "bn.running_var": ((c1,),),
        "bn.num_batches_tracked": (),
    }
    parameters = dict(model.named_parameters())

    def group(id: str, axis: Axis, pinned: str | None = None) -> Group:
        members = [
            Member(name, d)
            for name, tensor_dims in dims.items()
            for d, dim in enumerate(tensor_dims)
            if axis in dim
        ]
        return Group(id, axis, tuple(members), pinned=pinned)

    return Graph(
        groups=(group("conv1", c1), group("conv2", c2), group("fc", classes, "the model's output")),
        tensors={
            name: TensorType(d, 4, name in parameters, name in parameters)
            for name, d in dims.items()
        },
        ops=(),
        calls=(),
        relations=(),
        fields={},
        inputs=(),
        outputs=(),
        unknown_ops={},
        fingerprint=fingerprint(model),
    )
