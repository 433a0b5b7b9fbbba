"""Where the time from trace to cut goes: processor time sampled by step and by part.

    python benchmarks/speed_profile.py [MODEL ...] [--repeats 20]

A timer of processor time interrupts every millisecond and looks whose Python code runs; what torch
does inside a call counts for the caller. Beside it stand two floors: the bare forward on the meta
device with torch's own kernels, and with the outputs made directly but nothing recorded.
"""

from __future__ import annotations

import argparse
import copy
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from environment import child_environment, environment

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MODELS = ("torchvision:resnet50", "torchvision:vit_l_16")
INTERVAL_S = 0.001
PARTS = (
    ("graph/meta_kernels", "outputs made on meta"),
    ("graph/rules/zeros", "what is zero at a zeroed unit"),
    ("graph/rules/", "rules and unification"),
    ("graph/types", "rules and unification"),
    ("graph/dispatch", "dispatch and recording"),
    ("graph/call", "dispatch and recording"),
    ("graph/arrivals", "sizes in the model's Python code"),
    ("graph/sized_ints", "sizes in the model's Python code"),
    ("graph/attributes", "sizes in the model's Python code"),
    ("graph/freeze", "the solved graph"),
    ("graph/metadata", "the solved graph"),
    ("graph/snapshot", "the model put aside and back"),
    ("graph/trace", "the model's own Python, and torch's modules"),
    ("criteria/marginals", "reading the weights"),
    ("criteria/", "scores from sums"),
    ("cost/", "cost model"),
    ("select/", "counts and choice"),
    ("core/copies", "copying the modules"),
    ("core/fingerprint", "fingerprint"),
    ("core/graph", "hash of the graph"),
    ("cut/apply", "slicing the weights"),
    ("cut/", "attributes"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(profile(arguments.models[0], arguments.repeats)))
        return 0
    found = {}
    for model in arguments.models:
        command = [sys.executable, __file__, model, "--child", "--repeats", str(arguments.repeats)]
        out = subprocess.run(
            command, check=True, capture_output=True, text=True, env=child_environment()
        ).stdout
        found[model] = json.loads(out.strip().splitlines()[-1])
    body = {"about": {**environment(HERE.parent), "repeats": arguments.repeats}, "models": found}
    (RESULTS / "speed_profile.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "speed_profile.md").write_text(page(body), encoding="utf-8")
    print(page(body))
    return 0


def profile(name: str, repeats: int) -> dict[str, Any]:
    """Milliseconds of one run: two floors, and each step in its parts."""
    import torch
    from speed_models import build
    from torchvision_ops import define_torchvision_ops

    import secateur as sc

    torch.set_num_threads(1)
    define_torchvision_ops()
    model, inputs = build(name)
    graph = sc.trace(model, inputs)
    scores = sc.score(graph, model)
    plan = sc.plan(graph, scores, keep=0.5)
    steps: dict[str, Callable[[], Any]] = {
        "trace": lambda: sc.trace(model, inputs),
        "score": lambda: sc.score(graph, model),
        "plan": lambda: sc.plan(graph, scores, keep=0.5),
        "cut": lambda: sc.cut(model, plan),
    }
    return {
        "floors_ms": floors(model, inputs, repeats),
        "operators": len(graph.ops),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps_ms": {step: sampled(run, repeats) for step, run in steps.items()},
    }


def floors(model: Any, inputs: Any, repeats: int) -> dict[str, float]:
    """The forward on meta alone, by torch's kernels and by direct outputs; the best of all runs."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from secateur.graph.meta_kernels import MetaKernels

    class Direct(TorchDispatchMode):
        kernels = MetaKernels()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
            return self.kernels.run(func, args, kwargs or {})

    meta = copy.deepcopy(model).to("meta")
    given = inputs.to("meta")

    def direct() -> None:
        with Direct():
            meta(given)

    with torch.no_grad():
        return {
            "torch's meta kernels": best(lambda: meta(given), repeats),
            "outputs made directly": best(direct, repeats),
        }


def best(run: Callable[[], Any], repeats: int) -> float:
    """Milliseconds of processor time of the fastest run."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return round(1e3 * min(times), 2)


def sampled(run: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Milliseconds by part; they add up to the fastest run, shared out as the samples say."""
    seen: Counter[str] = Counter()

    def look(number: int, frame: FrameType | None) -> None:
        seen[part_of(frame)] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    try:
        total = best(run, repeats)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    whole = max(sum(seen.values()), 1)
    return {part: round(total * count / whole, 2) for part, count in seen.most_common()}


def part_of(frame: FrameType | None) -> str:
    """The part that the innermost frame of our package belongs to."""
    while frame is not None:
        _, found, path = frame.f_code.co_filename.replace("\\", "/").partition("/secateur/")
        if found:
            return next((part for start, part in PARTS if path.startswith(start)), "other")
        frame = frame.f_back
    return "other"


def page(body: dict[str, Any]) -> str:
    """The results in Markdown."""
    about = body["about"]
    lines = [
        "# Where the time from trace to cut goes",
        "",
        "Generated by `python benchmarks/speed_profile.py`; do not edit. Milliseconds of processor "
        f"time, the best of {about['repeats']} warm runs, shared out by samples a millisecond "
        "apart. What torch does inside a call counts for its caller.",
        "",
        f"{about['cpu']}, 1 thread, Python {about['python']}, torch {about['torch']}, commit "
        f"{about['commit']}, {about['date']}.",
    ]
    for model, found in body["models"].items():
        total = sum(sum(parts.values()) for parts in found["steps_ms"].values())
        floor = ", ".join(f"{ms:.0f} ms with {how}" for how, ms in found["floors_ms"].items())
        lines += [
            "",
            f"## {model}",
            "",
            f"{found['operators']} operators, {found['parameters'] / 1e6:.0f} M parameters; "
            f"{total:.0f} ms in all. The bare forward on meta, nothing recorded: {floor}.",
            "",
            "| Step | Part | ms | share |",
            "|---|---|---|---|",
        ]
        for step, parts in found["steps_ms"].items():
            lines.append(f"| **{step}** | | **{sum(parts.values()):.1f}** | |")
            lines += [
                f"| | {part} | {ms:.1f} | {ms / total:.0%} |" for part, ms in parts.items() if ms
            ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
