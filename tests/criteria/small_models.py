"""Small real networks whose groups have every kind of member, and what a unit's removal takes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from secateur.core.dims import kept_indices
from secateur.core.graph import Graph, Group


class ConvNet(nn.Module):
    """Convolutions, a batch norm, a concatenation, a depthwise convolution, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, padding=1)
        self.bn = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 4, 1, bias=False)
        self.depthwise = nn.Conv2d(9, 9, 3, groups=9)
        self.fc = nn.Linear(9 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        first = self.bn(self.conv1(x)).relu()
        both = torch.cat([first, self.conv2(first).relu()], 1)
        return self.fc(self.depthwise(both).relu().flatten(1))


class Attention(nn.Module):
    """Tokens through layer norm, a fused qkv projection of four heads, and a residual stream."""

    def __init__(self, width: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(3, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.embed(x.flatten(2).transpose(1, 2))
        b, t, w = stream.shape
        qkv = self.qkv(self.norm(stream)).reshape(b, t, 3, self.heads, w // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        stream = stream + self.out(mixed.transpose(1, 2).reshape(b, t, w))
        return self.head(stream.mean(1))


MODELS = {"conv": ConvNet, "attention": Attention}


def made(name: str) -> nn.Module:
    """A model with random weights and statistics, in float64, evaluating."""
    torch.manual_seed(3)
    model = MODELS[name]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_()
            elif key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return model


def batches() -> list[tuple[Tensor, Tensor]]:
    """Three batches of four labelled images."""
    torch.manual_seed(4)
    return [
        (torch.randn(4, 3, 4, 4, dtype=torch.float64), torch.randint(5, (4,))) for _ in range(3)
    ]


def removed(
    graph: Graph, group: Group, unit: int, tensors: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """For each member of a group what goes with one unit, taken out of `tensors` by index."""
    for member in group.members:
        if member.tensor in tensors:
            dim = graph.tensors[member.tensor].dims[member.dim]
            with_it, without = (
                kept_indices(dim, {group.axis.index: torch.tensor(units, dtype=torch.int64)})
                for units in ([unit], [])
            )
            indices = with_it[~torch.isin(with_it, without)]  # the other parts of a concatenation
            yield member.tensor, tensors[member.tensor].detach().index_select(member.dim, indices)
