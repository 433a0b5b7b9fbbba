"""Each criterion written out from its paper's equation, in loops: unit by unit, weight by weight.

`unit_score` is what is expected of one unit. What it needs beside the weights is made by plain
backward passes and differences of gradients, not by the code under test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from small_models import batches, made, removed
from torch import Tensor, nn

from secateur.criteria.curvature import PROBES
from secateur.criteria.matrices import generator_of

Weights = dict[str, Tensor]
LOSS = nn.functional.cross_entropy


def gradients_at(model: nn.Module, x: Tensor, y: Tensor) -> Weights:
    """Gradients of one loss by a backward pass."""
    model.zero_grad()
    LOSS(model(x), y).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def mean_of(all_gradients: list[Weights]) -> Weights:
    return {
        name: sum(one[name] for one in all_gradients) / len(all_gradients)
        for name in all_gradients[0]
    }


@cache
def by_batch(name: str) -> list[Weights]:
    model = made(name)
    return [gradients_at(model, x, y) for x, y in batches()]


@cache
def by_sample(name: str) -> list[Weights]:
    model = made(name)
    return [
        gradients_at(model, x[k : k + 1], y[k : k + 1]) for x, y in batches() for k in range(len(x))
    ]


def hessian_times(name: str, vector: Weights, *, step: float = 1e-5) -> list[Weights]:
    """``H v`` of each batch: the central difference of the gradients along v."""
    found: list[list[Weights]] = []
    for sign in (1, -1):
        model = made(name)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter += sign * step * vector[key]
        found.append([gradients_at(model, x, y) for x, y in batches()])
    return [
        {key: (plus[key] - minus[key]) / (2 * step) for key in plus}
        for plus, minus in zip(*found, strict=True)
    ]


@cache
def hessian_gradient(name: str) -> Weights:
    return mean_of(hessian_times(name, mean_of(by_batch(name))))


@cache
def hessian_diagonal(name: str) -> Weights:
    """The same random signs as the criterion's: batch by batch, probe by probe."""
    generator = generator_of("hessian_diagonal", 0)
    shapes = {key: p.shape for key, p in made(name).named_parameters()}
    estimates = []
    for number in range(len(batches())):
        for _ in range(PROBES):
            signs = {
                key: torch.where(torch.rand(shape, generator=generator) < 0.5, 1.0, -1.0).double()
                for key, shape in shapes.items()
            }
            product = hessian_times(name, signs)[number]
            estimates.append({key: signs[key] * product[key] for key in signs})
    return mean_of(estimates)


@cache
def synaptic_gradient(name: str) -> Weights:
    model = made(name)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.abs_()
    model(torch.ones(4, 3, 4, 4, dtype=torch.float64)).sum().backward()
    return {key: p.grad for key, p in model.named_parameters()}


def summed(term: Callable[[float, float], float], evidence: Callable[[str], list[Weights]]):
    """The mean over rounds of evidence of a sum of terms over the weights that go."""

    def reference(name, graph, group, unit) -> float:
        weights = dict(made(name).named_parameters())
        rounds = evidence(name)
        total = 0.0
        for one in rounds:
            parts = zip(
                removed(graph, group, unit, weights), removed(graph, group, unit, one), strict=True
            )
            for (_, w), (_, e) in parts:
                pairs = zip(w.flatten().tolist(), e.flatten().tolist(), strict=True)
                total += sum(term(a, b) for a, b in pairs)
        return total / len(rounds)

    return reference


def entries(name, graph, group, unit) -> list[float]:
    weights = dict(made(name).named_parameters())
    return [
        value
        for _, part in removed(graph, group, unit, weights)
        for value in part.flatten().tolist()
    ]


def squared_norm(name, graph, group, unit) -> float:
    return sum(value**2 for value in entries(name, graph, group, unit))


def lamp(name, graph, group, unit) -> float:
    squares = [squared_norm(name, graph, group, other) for other in range(group.size)]
    return squares[unit] / sum(value for value in squares if value >= squares[unit])


def geometric_median(name, graph, group, unit) -> float:
    own = entries(name, graph, group, unit)
    return sum(math.dist(own, entries(name, graph, group, other)) for other in range(group.size))


def gradient(name, graph, group, unit) -> float:
    norms = [
        math.sqrt(sum(float(g.square().sum()) for _, g in removed(graph, group, unit, one)))
        for one in by_batch(name)
    ]
    return sum(norms) / len(norms)


def taylor(name, graph, group, unit) -> float:
    """Every member is a gate of its own."""
    weights = dict(made(name).named_parameters())
    total = 0.0
    for one in by_batch(name):
        parts = zip(
            removed(graph, group, unit, weights), removed(graph, group, unit, one), strict=True
        )
        total += sum(abs(float((w * g).sum())) for (_, w), (_, g) in parts)
    return total / len(by_batch(name))


def norm_scale(name, graph, group, unit) -> float | None:
    weights = {
        key: p for key, p in made(name).named_parameters() if key in ("bn.weight", "norm.weight")
    }
    parts = [abs(float(g)) for _, part in removed(graph, group, unit, weights) for g in part]
    return sum(parts) if parts else None


REFERENCES = {
    "l1": lambda *unit: sum(abs(value) for value in entries(*unit)),
    "l2": lambda *unit: math.sqrt(squared_norm(*unit)),
    "linf": lambda *unit: max(abs(value) for value in entries(*unit)),
    "lamp": lamp,
    "geometric_median": geometric_median,
    "norm_scale": norm_scale,
    "gradient": gradient,
    "taylor": taylor,
    "taylor_weight": summed(lambda w, g: (w * g) ** 2, by_batch),
    "fisher": summed(lambda w, g: w * w * g * g / 2, by_sample),
    "obd": summed(lambda w, h: h * w * w / 2, lambda name: [hessian_diagonal(name)]),
    "snip": summed(lambda w, g: abs(w * g), lambda name: [mean_of(by_batch(name))]),
    "movement": summed(lambda w, g: -w * g, lambda name: [mean_of(by_batch(name))]),
    "grasp": summed(lambda w, hg: w * hg, lambda name: [hessian_gradient(name)]),
    "synflow": summed(lambda w, r: abs(abs(w) * r), lambda name: [synaptic_gradient(name)]),
}
"""None of a unit where the criterion has nothing to say of its group."""
