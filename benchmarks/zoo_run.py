"""One model of a zoo: trace, cut half of every free group with random units, run, compare.

Started as its own process for each model, so that memory is given back and a crash is one line of
the table. Prints one JSON object. `PYTHONPATH` must hold `src` and `tests/zoo`.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torchvision_ops import define_torchvision_ops

from secateur.core.plan import Plan
from secateur.criteria.score import score
from secateur.cut.apply import cut
from secateur.cut.verify import verify
from secateur.graph import trace
from secateur.select.plan import plan as make_plan
from secateur.zoo.models import load_model

KEEP = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=None)
    arguments = parser.parse_args()
    define_torchvision_ops()
    torch.set_num_threads(1)
    print(json.dumps(run(arguments.spec, arguments.seed, arguments.image_size)))


def run(spec: str, seed: int, image_size: int | None) -> dict[str, Any]:
    """Everything measured about one model; an error of the tool is left to the caller."""
    seconds: dict[str, float] = {}
    loaded = load_model(spec, seed=seed, image_size=image_size)
    model, inputs = loaded.model, loaded.example_inputs
    roughen_(model, seed)
    with timed(seconds, "trace"):
        graph = trace(model, inputs)
    scores = score(graph, model, criterion="random", seed=seed)
    with timed(seconds, "plan"):
        plan = make_plan(graph, scores, keep=KEEP)
    with timed(seconds, "cut"):
        small = cut(model, plan)
    with timed(seconds, "verify"):
        proof = verify(model, small, plan, inputs, graph=graph, dtype=torch.float64)
    with torch.no_grad():
        dense_out, small_out = model(inputs), small(inputs)
    candidates = [group for group in graph.free if not group.structural]
    whole = [group.id for group in candidates if group.id not in plan.keep]
    return {
        "name": loaded.name,
        "params": [plan.before.params, plan.after.params],
        "macs": [plan.before.macs, plan.after.macs],
        "counted_params": sum(p.numel() for p in small.parameters()),
        "groups": len(graph.groups),
        "free": len(candidates),
        "structural": sum(group.structural for group in graph.free),
        "cut": len(plan.keep),
        "kept_whole": whole,
        "unsaid": [id for id in whole if not any(id in note for note in plan.notes)],
        "kept_share": kept_share(plan),
        "notes": list(plan.notes),
        "unknown_ops": dict(graph.unknown_ops),
        "checked": proof.groups_checked,
        "corrected": len(proof.corrected),
        "shape_only": proof.groups_shape_only,
        "max_rel_error": proof.max_rel_error,
        "max_abs_error": proof.max_abs_error,
        # how much the cut changes the outputs: what the comparison would miss at worst
        "effect": float((dense_out - small_out).abs().max() / dense_out.abs().max()),
        "module_calls": proof.module_calls,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def kept_share(plan: Plan) -> list[float]:
    """Smallest and largest share of units that a cut group keeps."""
    shares = [len(units) / plan.axes[id].size for id, units in plan.keep.items()] or [1.0]
    return [round(min(shares), 4), round(max(shares), 4)]


@torch.no_grad()
def roughen_(model: nn.Module, seed: int) -> None:
    """Random values where initialisation puts constants, so that a wrong cut cannot hide.

    A fresh batch norm adds 0 and divides by 1, and layer scales of 1e-6 silence whole branches:
    outputs would agree whatever is cut there.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if not tensor.is_floating_point() or tensor.numel() < 2 or tensor.min() != tensor.max():
            continue
        noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float32)
        positive = tensor.max() > 0 or name.endswith("running_var")
        tensor.copy_(noise + 0.5 if positive else 0.2 * (noise - 0.5))


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


if __name__ == "__main__":
    main()
