"""One tool on one model, from trace to cut, in a process of its own: prints one JSON object.

Half of every group is removed by L2 norm and the classifier kept. A Llama shape on the meta device
has no weights, so it is planned to half its MACs with random scores. Times are wall clock, memory
is the peak of the resident set above what the loaded model takes.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import torch
from torch import nn

LLAMA = "llama-7b-shape"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=("secateur", "torch-pruning"))
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    from torchvision_ops import define_torchvision_ops  # only children have it on their path

    define_torchvision_ops()
    print(json.dumps(TOOLS[arguments.tool](arguments.model)))


def secateur(name: str) -> dict[str, Any]:
    """Seconds of each step and the peak memory; the model is new each time, so nothing is warm."""
    import secateur as sc

    model, inputs = build(name)
    before, seconds = peak_mib(), dict[str, float]()
    clock = Clock(seconds)
    graph = sc.trace(model, inputs)
    clock.lap("trace")
    criterion = "random" if name == LLAMA else "l2"
    scores = sc.score(graph, model, criterion=criterion)
    clock.lap("score")
    budget = {"budget": "macs=50%"} if name == LLAMA else {"keep": 0.5}
    plan = sc.plan(graph, scores, **budget)
    clock.lap("plan")
    small = sc.cut(model, plan)
    clock.lap("cut")
    peak = peak_mib() - before
    return summary(seconds, peak, parameters(model), parameters(small))


def torch_pruning(name: str) -> dict[str, Any]:
    """The same with Torch-Pruning's group magnitude pruner, as its documentation has it."""
    import torch_pruning as tp

    model, inputs = build(name)
    dense, before, seconds = parameters(model), peak_mib(), dict[str, float]()
    clock = Clock(seconds)
    classifier = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    heads = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    pruner = tp.pruner.BasePruner(
        model,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=classifier,
        num_heads=heads,
    )
    clock.lap("trace")
    pruner.step()
    clock.lap("plan and cut")
    return summary(seconds, peak_mib() - before, dense, parameters(model))


def build(name: str) -> tuple[nn.Module, Any]:
    """A model with random weights in evaluation mode, and its example inputs."""
    torch.manual_seed(0)
    if name == LLAMA:
        from transformers import LlamaConfig, LlamaForCausalLM

        with torch.device("meta"):
            llama = LlamaForCausalLM(LlamaConfig())
        return llama.eval(), {"input_ids": torch.ones(1, 128, dtype=torch.long), "use_cache": False}
    import torchvision

    return torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, 224, 224)


class Clock:
    """Writes the seconds since the last lap."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.start = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a step."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self.start, 4)
        self.start = now


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def parameters(model: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def summary(seconds: dict[str, float], peak: float, dense: int, pruned: int) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "total_s": round(sum(seconds.values()), 3),
        "extra_mib": round(peak, 1),
        "params": [dense, pruned],
    }


TOOLS = {"secateur": secateur, "torch-pruning": torch_pruning}

if __name__ == "__main__":
    main()
