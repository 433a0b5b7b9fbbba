"""One model of a zoo, cut in five ways: traced, planned, cut, run, compared, counted.

`zoo.py` calls `measure` in a process of its own for each model; by hand:

    python benchmarks/zoo_run.py timm resnet18 [--cuts half random0] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src"), str(HERE.parent / "tests" / "zoo")]

from zoo_cuts import CUTS, Subject, measure_cut  # noqa: E402

from secateur.core import lookup  # noqa: E402
from secateur.core.graph import Graph  # noqa: E402
from secateur.core.modes import evaluating  # noqa: E402
from secateur.graph import call_arguments, tensors_in, trace  # noqa: E402

ZOOS = "zoos"
REASONS = 6
"""How many reasons for pinning a line holds; the rarer ones are added up."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo")
    parser.add_argument("model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cuts", nargs="+", choices=CUTS, default=list(CUTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    line = measure(arguments.zoo, arguments.model, seed=arguments.seed, cuts=arguments.cuts)
    print(json.dumps(line, indent=1))


def measure(zoo: str, name: str, *, seed: int, cuts: Sequence[str]) -> dict[str, Any]:
    """Everything about one model; what fails is recorded with its message."""
    line: dict[str, Any] = {"name": name}
    seconds: dict[str, float] = {}
    try:
        with timed(seconds, "build"):
            model, inputs = lookup.find(ZOOS, zoo, kind="zoo").build(name, seed)
            roughen_(model, seed)
            # before the trace: a model may fill its caches on the first call
            outputs = outputs_of(model, inputs)
    except Exception as error:  # a zoo's own errors may be of any kind
        return {**line, "error": f"not built: {said(error)}"}
    try:
        with timed(seconds, "trace"):
            graph = trace(model, inputs)
    except Exception as error:  # what makes a trace fail is what is asked here
        return {**line, "error": f"not traced: {said(error)}"}
    subject = Subject(model, inputs, graph, outputs, seed)
    line |= described(graph, model)
    line["cuts"] = {cut: measure_cut(subject, cut) for cut in cuts}
    line["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    # kibibytes on Linux
    line["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line["cpu_s"] = round(time.process_time(), 1)
    return line


def warm_up() -> None:
    """What the first trace, cut and proof of a process import and compile, for every fork."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    inputs = torch.randn(1, 3, 2, 2)
    subject = Subject(model.eval(), inputs, trace(model, inputs), outputs_of(model, inputs), 0)
    for cut in CUTS:
        assert "error" not in measure_cut(subject, cut)


def described(graph: Graph, model: nn.Module) -> dict[str, Any]:
    """What the trace found."""
    pinned = Counter(re.sub(r"\d+", "#", g.pinned) for g in graph.groups if g.pinned is not None)
    common = dict(pinned.most_common(REASONS))
    if len(pinned) > REASONS:
        common["others"] = pinned.total() - sum(common.values())
    return {
        "params": sum(p.numel() for p in model.parameters()),
        "groups": len(graph.groups),
        "free": sum(not group.structural for group in graph.free),
        "structural": sum(group.structural for group in graph.free),
        "exact": sum(group.exact for group in graph.free if not group.structural),
        "pinned": common,
        "unknown_ops": dict(graph.unknown_ops),
        "warnings": [warning[:200] for warning in graph.warnings],
    }


def outputs_of(model: nn.Module, inputs: Any) -> list[Tensor]:
    """Tensors that the model returns, in evaluation mode."""
    args, kwargs = call_arguments(inputs)
    with evaluating(model), torch.no_grad():
        return list(tensors_in(model(*args, **kwargs)))


def said(error: BaseException) -> str:
    """An error in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


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
    """Processor seconds of a block."""
    start = time.process_time()
    yield
    seconds[name] = time.process_time() - start


if __name__ == "__main__":
    main()
