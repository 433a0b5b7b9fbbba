"""A model on ranks against the same model in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from threads import ThreadWorld
from torch import Tensor, nn
from torch.optim import Optimizer

import secateur as sc
from secateur.core.copies import copied
from secateur.core.graph import Graph
from secateur.engines.tensor_parallel.choose import tensor_parallel_plan
from secateur.engines.tensor_parallel.local import parallelize_
from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.graph import call_arguments, tensors_in

MakeOptimizer = Callable[[nn.Module], Optimizer]
ABSOLUTE, RELATIVE = 1e-12, 1e-12


@dataclass(frozen=True)
class Case:
    """A model with its inputs, and how it is shared out."""

    model: nn.Module
    inputs: Any
    graph: Graph
    plan: TensorParallelPlan

    def local(self, world: ThreadWorld) -> nn.Module:
        """A rank's model."""
        return parallelize_(copied(self.model), self.plan, world)


def case_of(made: tuple[nn.Module, Any], *, size: int) -> Case:
    model, inputs = made
    graph = sc.trace(model, inputs)
    return Case(model, inputs, graph, tensor_parallel_plan(model, graph, inputs, size=size))


def outputs_and_loss(model: nn.Module, inputs: Any) -> tuple[list[Tensor], Tensor]:
    """The outputs, and a loss in which every element of them counts differently."""
    args, kwargs = call_arguments(inputs)
    outs = [out for out in tensors_in(model(*args, **kwargs)) if out.requires_grad]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(out.shape, generator=generator, dtype=out.dtype) for out in outs]
    terms = [(out * weight).sum() for out, weight in zip(outs, weights, strict=True)]
    return [out.detach() for out in outs], torch.stack(terms).sum()


def adamw(model: nn.Module) -> Optimizer:
    """With an epsilon that keeps gradients which are zero but for rounding from counting."""
    return torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-3)


def momentum(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)


def train_(model: nn.Module, inputs: Any, optimizer: Optimizer, *, steps: int) -> list[float]:
    """The losses of some steps."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        _, loss = outputs_and_loss(model, inputs)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def check_equal(found: Tensor, expected: Tensor, name: str) -> None:
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(
        found,
        expected,
        rtol=0,
        atol=ABSOLUTE + RELATIVE * scale,
        msg=lambda text: f"{name}: {text}",
    )
