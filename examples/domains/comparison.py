"""One comparison for every domain: the dense model, the pruned one, and one cut at random.

Both cuts get the same budget and the same recovery. Sizes are counted; latency is the median of
interleaved rounds on one thread, in that thread's processor time, so that other work on the machine
counts for little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import nn

import secateur as sc

ROUNDS, ROUND_S = 20, 0.05


@dataclass(frozen=True)
class Cut:
    """A cut model, what was counted of the dense one and of it, and the proof's largest error."""

    model: nn.Module
    before: sc.Cost
    after: sc.Cost
    proof: float | None


@dataclass(frozen=True)
class Domain:
    """model: trained, kept as it is. train: trains a cut model in place. measure: the metric on
    data that training never saw. options: of `secateur.prune`. cut: instead of `secateur.prune`,
    by a criterion and a seed."""

    name: str
    metric: str
    model: nn.Module
    example: Any
    train: Callable[[nn.Module], object]
    measure: Callable[[nn.Module], float]
    budget: str
    criterion: str
    options: Mapping[str, Any] = field(default_factory=dict)
    cut: Callable[[str, int], Cut] | None = None


def compare(domain: Domain, *, seed: int = 0) -> list[dict[str, Any]]:
    """A row for dense, pruned and random: metric just cut and recovered, sizes, latency."""
    torch.set_num_threads(1)
    models, rows = {"dense": domain.model.eval()}, []
    for name, criterion in {"pruned": domain.criterion, "random": "random"}.items():
        cut = domain.cut(criterion, seed) if domain.cut else pruned(domain, criterion, seed)
        if not rows:
            rows.append(row(domain, "dense", domain.model, cut.before))
        found = row(domain, name, cut.model, cut.after)
        found |= {"criterion": criterion, "proof": cut.proof}
        domain.train(cut.model)
        rows.append(found | {"recovered": domain.measure(cut.model.eval())})
        models[name] = cut.model
    times = latencies(models, domain.example)
    return [found | {"latency_ms": times[found["model"]]} for found in rows]


def pruned(domain: Domain, criterion: str, seed: int) -> Cut:
    """By `secateur.prune`."""
    result = sc.prune(
        domain.model, domain.example, budget=domain.budget, criterion=criterion, seed=seed,
        **domain.options,
    )  # fmt: skip
    error = result.proof.max_abs_error if result.proof else None
    return Cut(result.model, result.before, result.after, error)


@torch.no_grad()
def latencies(models: Mapping[str, nn.Module], example: Any) -> dict[str, float]:
    """Milliseconds of processor time for the example, the median of rounds by turns."""
    kwargs = example if isinstance(example, dict) else {}
    args = () if kwargs else example if isinstance(example, tuple) else (example,)
    samples: dict[str, list[float]] = {name: [] for name in models}
    for name in list(models) * (ROUNDS + 1):  # the first round warms up
        count, started = 0, time.thread_time()
        while count == 0 or time.thread_time() - started < ROUND_S:
            models[name](*args, **kwargs)
            count += 1
        samples[name].append(1e3 * (time.thread_time() - started) / count)
    return {name: median(found[1:]) for name, found in samples.items()}


def row(domain: Domain, name: str, model: nn.Module, cost: sc.Cost) -> dict[str, Any]:
    """What is known before recovery."""
    return {
        "domain": domain.name,
        "metric": domain.metric,
        "model": name,
        "cut": domain.measure(model),
        "params": cost.params,
        "macs": cost.macs,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """One line a model."""
    for found in rows:
        recovered = found.get("recovered", found["cut"])
        print(
            f"{found['model']:6}  {found['metric']} {recovered:.4f} (just cut {found['cut']:.4f})"
            f"  {found['params']:,} parameters  {found['macs']:,} MACs {found['latency_ms']:.2f} ms"
        )
