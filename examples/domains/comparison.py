"""One comparison for every domain: the dense model, the pruned one, and one cut at random.

Both cuts get the same budget and the same recovery. Sizes are counted; latency is the median of
interleaved rounds on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import secateur as sc
from secateur.cost.latency import measure_latency


@dataclass(frozen=True)
class Domain:
    """model: trained, kept as it is. train: trains a cut model in place. measure: the metric on
    data that training never saw. options: of `secateur.prune`."""

    name: str
    metric: str
    model: nn.Module
    example: Any
    train: Callable[[nn.Module], object]
    measure: Callable[[nn.Module], float]
    budget: str
    criterion: str
    options: Mapping[str, Any] = field(default_factory=dict)


def compare(domain: Domain, *, seed: int = 0) -> list[dict[str, Any]]:
    """A row for dense, pruned and random: metric just cut and recovered, sizes, latency."""
    torch.set_num_threads(1)
    models, rows = {"dense": domain.model.eval()}, []
    for name, criterion in {"pruned": domain.criterion, "random": "random"}.items():
        result = sc.prune(
            domain.model, domain.example, budget=domain.budget, criterion=criterion, seed=seed,
            **domain.options,
        )  # fmt: skip
        if not rows:
            rows.append(row(domain, "dense", domain.model, result.before))
        found = row(domain, name, result.model, result.after) | {"criterion": criterion}
        found["proof"] = result.proof.max_abs_error if result.proof else None
        domain.train(result.model)
        rows.append(found | {"recovered": domain.measure(result.model.eval())})
        models[name] = result.model
    inputs = domain.example if isinstance(domain.example, tuple) else (domain.example,)
    times = measure_latency(models, inputs, batch_size=len(inputs[0]), rounds=30)
    return [found | {"latency_ms": times[found["model"]].median_ms} for found in rows]


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
