"""One tool on one model, from trace to cut, in a process of its own: prints one JSON object.

    python benchmarks/speed_run.py TOOL MODEL [--threads 1]

Half of every group is removed by L2 norm and the classifier kept. Seconds are wall clock and
processor time; memory is the peak of the resident set above what the loaded model takes. After the
clock has stopped the cut model must run.
"""

from __future__ import annotations

import argparse
import gc
import json
import mmap
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from speed_models import META, build, declared_heads, heads_rewritten_, ignored_layers
from torch import nn

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=tuple(TOOLS))
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    from torchvision_ops import define_torchvision_ops  # only children have it on their path

    define_torchvision_ops()
    model, inputs = build(arguments.model)
    dense = parameters(model)
    steps, prepare = Steps(), TOOLS[arguments.tool]
    run = prepare(arguments.model, model, inputs)
    gc.collect()
    touch_memory(2 * sum(p.nbytes for p in model.parameters() if not p.is_meta) + (256 << 20))
    before = resident_mib()
    small = run(steps)
    extra = peak_mib() - before
    if arguments.model != META:
        call(small, inputs)
    print(
        json.dumps(
            {
                "wall_s": steps.wall,
                "cpu_s": steps.cpu,
                "total_wall_s": round(sum(steps.wall.values()), 4),
                "total_cpu_s": round(sum(steps.cpu.values()), 4),
                "extra_mib": round(extra, 1),
                "params": [dense, parameters(small)],
            }
        )
    )


class Steps:
    """Writes wall and processor seconds since the last lap; starts when the first step does."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.last = (0.0, 0.0)

    def start(self) -> None:
        """Set the clock."""
        self.last = (time.perf_counter(), time.process_time())

    def lap(self, name: str) -> None:
        """End a step."""
        now = (time.perf_counter(), time.process_time())
        self.wall[name] = round(now[0] - self.last[0], 4)
        self.cpu[name] = round(now[1] - self.last[1], 4)
        self.last = now


Run = Callable[[Steps], nn.Module]


def secateur(name: str, model: nn.Module, inputs: Any) -> Run:
    """A new module; the dense one stays."""
    import secateur as sc

    def run(steps: Steps) -> nn.Module:
        steps.start()
        graph = sc.trace(model, inputs)
        steps.lap("trace")
        scores = sc.score(graph, model, criterion="random" if name == META else "l2")
        steps.lap("score")
        how: dict[str, Any] = {"budget": "macs=50%"} if name == META else {"keep": 0.5}
        plan = sc.plan(graph, scores, **how)
        steps.lap("plan")
        small = sc.cut(model, plan)
        steps.lap("cut")
        return small

    return run


def torch_pruning(name: str, model: nn.Module, inputs: Any) -> Run:
    """Its group magnitude pruner, as its documentation has it; the model itself becomes small."""
    import torch_pruning as tp

    ignored, heads = ignored_layers(model), declared_heads(model)
    options: dict[str, Any] = {}
    if name.startswith("shape:llama"):  # rotary positions need whole heads, as in its own example
        options = {"prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": 0.5}

    def run(steps: Steps) -> nn.Module:
        steps.start()
        pruner = tp.pruner.BasePruner(
            model,
            inputs,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=ignored,
            num_heads=heads,
            **options,
        )
        steps.lap("trace")
        pruner.step()
        heads_rewritten_(model)
        steps.lap("plan and cut")
        return model

    return run


def torch_kirigami(name: str, model: nn.Module, inputs: Any) -> Run:
    """Half of every channel domain by group magnitude, as its quick start has it."""
    from torch_kirigami import DependencyGraph
    from torch_kirigami.pruning import ChannelRatio, Greedy, GroupMagnitude, Pruner

    def run(steps: Steps) -> nn.Module:
        steps.start()
        graph = DependencyGraph.build(model, args=(inputs,))
        pruner = Pruner(model, graph=graph)
        steps.lap("trace")
        candidates = pruner.discover_candidates()
        small, _ = pruner.prune(
            candidates, budget=ChannelRatio(0.5), strategy=Greedy(GroupMagnitude(p=2))
        )
        steps.lap("plan and cut")
        return small

    return run


def touch_memory(size: int) -> None:
    """Write to as much memory as a run may want, and give it back to the system.

    The host of a virtual machine takes free memory away; to get a page of it back takes ten times
    what a page fault does, and whether it comes to that is chance.
    """
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for start in range(0, size, mmap.PAGESIZE):
            memory[start] = 1


def resident_mib() -> float:
    """Resident memory now, from which the peak counts afterwards."""
    with suppress(OSError):
        PEAK.write_text("5", encoding="ascii")  # resets VmHWM
        return _status_mib("VmRSS")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_mib() -> float:
    """Peak of the resident memory."""
    with suppress(OSError):
        return _status_mib("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _status_mib(field: str) -> float:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {field} in {STATUS}")


def parameters(model: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def call(model: nn.Module, inputs: Any) -> None:
    """One forward of the cut model: an error here is a cut that is not one."""
    with torch.no_grad():
        if isinstance(inputs, Mapping):
            model(**inputs)
        else:
            model(inputs)


TOOLS = {"secateur": secateur, "torch-pruning": torch_pruning, "torch-kirigami": torch_kirigami}

if __name__ == "__main__":
    main()
