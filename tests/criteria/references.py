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

from secateur import trace
from secateur.cost.counted import cost
from secateur.criteria.curvature import PROBES
from secateur.criteria.matrices import generator_of
from secateur.criteria.next_layers import RIDGE
from secateur.criteria.sensitivity import DEPTHS

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
    """The same random signs as the criterion's: for each batch from its number, probe by probe."""
    shapes = {key: p.shape for key, p in made(name).named_parameters()}
    estimates = []
    for number in range(len(batches())):
        generator = generator_of(f"hessian_diagonal {number}", 0)
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


READERS = {
    ("conv", "conv1.weight[0]"): {"conv2": (0, 5), "depthwise": (0, 5), "fc": (0, 20)},
    ("conv", "conv2.weight[0]"): {"depthwise": (5, 9), "fc": (20, 36)},
    ("attention", "embed.weight[0]"): {"qkv": (0, 8), "head": (0, 8)},
    ("attention", "qkv.weight[0].1"): {"out": (0, 8)},
    ("attention", "qkv.weight[0].2"): {"out": (0, 8)},
}
"""By hand: the layers that read a group, and which of their input features are the group's."""


@cache
def inputs_of(name: str) -> dict[str, Tensor]:
    """What each layer is given over all batches: [features, positions]."""
    model, found = made(name), {}

    def keep(module: nn.Module, args: tuple[Tensor]) -> None:
        x = args[0]
        features = x.transpose(0, 1) if isinstance(module, nn.Conv2d) else x.movedim(-1, 0)
        found.setdefault(paths[module], []).append(features.flatten(1))

    paths = {module: path for path, module in model.named_modules()}
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(keep)
    with torch.no_grad():
        for x, _ in batches():
            model(x)
    return {path: torch.cat(parts, 1) for path, parts in found.items()}


def activations_of(name, group, unit) -> list[list[float]]:
    """For each layer that reads a unit: what it reads of it, at all positions."""
    found = []
    for layer, (start, stop) in READERS[name, group.id].items():
        features = inputs_of(name)[layer][start:stop]
        inner = group.id.endswith(".2")  # the second factor of (heads, width of a head)
        each = len(features) // group.size
        own = features[unit :: group.size] if inner else features[unit * each : (unit + 1) * each]
        found.append(own.flatten().tolist())
    return found


def activation_mean(name, graph, group, unit) -> float:
    means = [
        sum(abs(value) for value in read) / len(read) for read in activations_of(name, group, unit)
    ]
    return sum(means) / len(means)


def apoz(name, graph, group, unit) -> float:
    zeros = [
        sum(value == 0 for value in read) / len(read) for read in activations_of(name, group, unit)
    ]
    return 1 - sum(zeros) / len(zeros)


@cache
def input_norm(name: str) -> Weights:
    """The norm of what each weight of a layer multiplies, weight by weight."""
    model, found = made(name), {}
    for layer, features in inputs_of(name).items():
        weight = model.get_submodule(layer).weight
        norms = [math.sqrt(sum(value**2 for value in row)) for row in features.tolist()]
        spread = torch.zeros_like(weight)
        for o in range(weight.shape[0]):
            for i in range(weight.shape[1]):
                spread[o, i] = norms[o if layer == "depthwise" else i]
        found[f"{layer}.weight"] = spread
    return found


def wanda(name, graph, group, unit) -> float:
    weights = {key: p for key, p in made(name).named_parameters() if key in input_norm(name)}
    parts = zip(
        removed(graph, group, unit, weights),
        removed(graph, group, unit, input_norm(name)),
        strict=True,
    )
    return sum(float((w.abs() * x).sum()) for (_, w), (_, x) in parts)


def damped_rows(x: Tensor) -> Tensor:
    """Rows of a scaled identity below the data are the ridge, and a diagonal what is not trusted of
    the data."""
    ridge = RIDGE * float((x * x).sum()) / x.shape[1]
    trusted = len(x) / (len(x) + x.shape[1])
    return torch.cat(
        [
            math.sqrt(trusted) * x,
            torch.diag(((1 - trusted) * (x * x).sum(0)).sqrt()),
            math.sqrt(ridge) * torch.eye(x.shape[1]),
        ]
    )


def features_of(name: str, group, layer: str, units: list[int]) -> list[int]:
    """Which inputs of a layer are those units."""
    start, stop = READERS[name, group.id][layer]
    each = (stop - start) // group.size
    if group.id.endswith(".2"):  # the second factor of (heads, width of a head)
        return [k for unit in units for k in range(start, stop)[unit :: group.size]]
    return [k for unit in units for k in range(start + unit * each, start + (unit + 1) * each)]


def readers_of(name: str, group) -> list[str]:
    """A depthwise convolution's own outputs go with the unit."""
    return [layer for layer in READERS[name, group.id] if layer != "depthwise"]


def made_up(name: str, group, layer: str, units: list[int]) -> tuple[float, Tensor]:
    """The least relative error of a layer without units, and its weights then: the best that the
    other inputs can do, found by least squares over all positions."""
    x = inputs_of(name)[layer].T
    weight = made(name).get_submodule(layer).weight.detach().flatten(1).T.clone()
    rows, own = damped_rows(x), features_of(name, group, layer, units)
    rest = [k for k in range(x.shape[1]) if k not in own]
    gone = rows[:, own] @ weight[own]
    best = torch.linalg.lstsq(rows[:, rest], gone).solution
    error = float((gone - rows[:, rest] @ best).square().sum())
    size = float((x @ weight).square().sum())
    weight[rest] += best
    weight[own] = 0
    return error / size, weight


def reconstruction(name, graph, group, unit) -> float:
    return sum(made_up(name, group, layer, [unit])[0] for layer in readers_of(name, group))


def error_without(name: str, group, units: list[int]) -> float:
    """What the model returns with units taken out and made up for, against what it did."""
    model, whole, lost, size = made(name), made(name), 0.0, 0.0
    with torch.no_grad():
        for layer in readers_of(name, group):
            weight = model.get_submodule(layer).weight
            weight.copy_(made_up(name, group, layer, units)[1].T.reshape(weight.shape))
        for x, _ in batches():
            lost += float((model(x) - whole(x)).square().sum())
            size += float(whole(x).square().sum())
    return lost / size


@cache
def slopes(name: str, group) -> dict[int, float]:
    """Of each unit the slope of the lower convex hull of the error over what is saved."""

    def local(units: list[int]) -> float:
        return sum(made_up(name, group, layer, units)[0] for layer in readers_of(name, group))

    order: list[int] = []
    while len(order) < group.size:
        left = [unit for unit in range(group.size) if unit not in order]
        order.append(min(left, key=lambda unit: local([*order, unit])))
    errors, depths = [0.0], {0: 0.0}
    for share in DEPTHS:
        count = max(1, round(share * group.size))
        depths[count] = error_without(name, group, order[:count])
    marks = sorted(depths)
    for gone in range(1, group.size + 1):
        upper = min((m for m in marks if m >= gone), default=marks[-1])
        lower = max(m for m in marks if m < upper)
        a, b, here = (local(order[:n]) if n else 0.0 for n in (lower, upper, gone))
        errors.append(depths[lower] + (depths[upper] - depths[lower]) * (here - a) / (b - a))
    graph = trace(made(name), batches()[0][0])
    macs = [cost(graph, {group.axis.index: group.size - n}).macs for n in range(group.size + 1)]
    saved = [1 - left / macs[0] for left in macs]
    return {
        order[n - 1]: max(
            min((errors[j] - errors[i]) / (saved[j] - saved[i]) for j in range(n, group.size + 1))
            for i in range(n)
        )
        for n in range(1, group.size + 1)
    }


def output_error(name, graph, group, unit) -> float:
    return slopes(name, group)[unit]


REFERENCES = {
    "reconstruction": reconstruction,
    "output_error": output_error,
    "wanda": wanda,
    "activation_mean": activation_mean,
    "apoz": apoz,
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
