"""Trace to cut, secateur beside Torch-Pruning 1.6.1 in the same run, each in its own process.

    python benchmarks/speed.py [--rounds 3]

Rounds alternate between the tools; the table has medians. A model that a tool cannot do stands
there with its error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from environment import child_environment, environment
from speed_run import LLAMA

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MODELS = ("resnet50", "densenet201", "vit_l_16", LLAMA)
TOOLS = ("secateur", "torch-pruning")
TIMEOUT_S = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {m: {t: [] for t in TOOLS} for m in MODELS}
    for number in range(arguments.rounds):
        for model in MODELS:
            for tool in TOOLS if number % 2 == 0 else reversed(TOOLS):
                runs[model][tool].append(run_one(tool, model, arguments.threads))
                print(number + 1, model, tool, runs[model][tool][-1], file=sys.stderr, flush=True)
    about = {**environment(HERE.parent), "threads": arguments.threads, "rounds": arguments.rounds}
    body = {"about": about, "models": runs}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "speed.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "speed.md").write_text(table(body), encoding="utf-8")
    print(table(body))
    return 0


def run_one(tool: str, model: str, threads: int) -> dict[str, Any]:
    """One measurement, or why there is none."""
    command = [sys.executable, str(HERE / "speed_run.py"), tool, model, "--threads", str(threads)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, env=child_environment()
        )
    except subprocess.TimeoutExpired:
        return {"error": f"more than {TIMEOUT_S} s"}
    if done.returncode != 0:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def table(body: dict[str, Any]) -> str:
    """The Markdown table of a results file."""
    about = body["about"]
    lines = [
        "# From trace to cut",
        "",
        f"{about['cpu']}, {about['threads']} thread, Python {about['python']}, torch "
        f"{about['torch']}, commit {about['commit']}, {about['date']}; medians of "
        f"{about['rounds']} rounds, each run in a new process. Half of every group by L2 norm; "
        "the Llama shape has its weights on the meta device and is planned to half its MACs.",
        "",
        "| Model | secateur, s | trace / score / plan / cut | extra MiB | Torch-Pruning, s "
        "| extra MiB | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [row(name, runs) for name, runs in body["models"].items()]
    return "\n".join(lines) + "\n"


def row(name: str, runs: dict[str, list[dict[str, Any]]]) -> str:
    ours, theirs = median(runs["secateur"]), median(runs["torch-pruning"])
    if "error" in ours:
        return f"| {name} | {ours['error']} | | | | | |"
    steps = " / ".join(f"{seconds:.2f}" for seconds in ours["seconds"].values())
    start = f"| {name} | {ours['total_s']:.2f} | {steps} | {ours['extra_mib']:.0f} "
    if "error" in theirs:
        return f"{start}| {theirs['error']} | | |"
    ratio = theirs["total_s"] / ours["total_s"]
    return f"{start}| {theirs['total_s']:.2f} | {theirs['extra_mib']:.0f} | {ratio:.1f} |"


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median time, or the first error."""
    failed = [run for run in runs if "error" in run]
    if failed:
        return failed[0]
    middle = statistics.median_low(run["total_s"] for run in runs)
    return next(run for run in runs if run["total_s"] == middle)


if __name__ == "__main__":
    sys.exit(main())
