"""All torchvision classification models: half of every free group cut at once, cut == mask.

Each model runs in its own process (`zoo_run.py`). Results are appended to a JSON lines file in
`runs/` as they come, so a run that was stopped goes on where it was. When all are there, the JSON
and the table in `results/` are written from it:

    python benchmarks/torchvision_zoo.py [--only 'resnet*'] [--fresh]
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from environment import commit, environment

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LINES = HERE.parent / "runs" / "torchvision_zoo.jsonl"
TOLERANCE = 1e-9
TIMEOUT_S = 1800
LIST = """
from torchvision_ops import define_torchvision_ops
define_torchvision_ops()
import torchvision
print("\\n".join(torchvision.models.list_models(module=torchvision.models)))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="glob pattern of model names")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="forget earlier lines")
    arguments = parser.parse_args()
    LINES.parent.mkdir(exist_ok=True)
    if arguments.fresh:
        LINES.unlink(missing_ok=True)
    names = model_names()
    now = commit(HERE.parent)
    # lines of another commit or seed are another measurement
    done = {
        line["name"]: line
        for line in read_lines()
        if line.get("commit") == now and line.get("seed") == arguments.seed
    }
    wanted = [name for name in names if fnmatch.fnmatch(name, arguments.only)]
    for number, name in enumerate(wanted, start=1):
        if name not in done:
            measured = run_one(name, arguments.seed)
            done[name] = {**measured, "commit": now, "seed": arguments.seed}
            with LINES.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[name]) + "\n")
        print(f"[{number}/{len(wanted)}] {summary(done[name])}", file=sys.stderr, flush=True)
    finished = [done[name] for name in names if name in done]
    if len(finished) == len(names):
        write_results(finished, arguments.seed)
    bad = [line["name"] for line in finished if not passed(line)]
    print(f"{len(finished) - len(bad)} of {len(names)} passed; not passed: {bad}", file=sys.stderr)
    return 1 if bad or len(finished) < len(names) else 0


def model_names() -> list[str]:
    """The 80 classification models (quantized variants stand in their own module)."""
    command = [sys.executable, "-c", LIST]
    out = subprocess.run(
        command, check=True, capture_output=True, text=True, env=child_environment()
    ).stdout
    return out.split()


def read_lines() -> list[dict[str, Any]]:
    if not LINES.is_file():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def run_one(name: str, seed: int) -> dict[str, Any]:
    """One model in its own process; a failure is recorded with the last line of its error."""
    command = [sys.executable, str(HERE / "zoo_run.py"), f"torchvision:{name}", "--seed", str(seed)]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=child_environment(),
        )
    except subprocess.TimeoutExpired:
        return {"name": name, "error": f"more than {TIMEOUT_S} s"}
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"name": name, "error": said[-1]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**result, "wall_s": round(time.perf_counter() - start, 1)}


def child_environment() -> dict[str, str]:
    """One thread, and the source tree before an installed package."""
    root = HERE.parent
    places = [str(root / "src"), str(root / "tests" / "zoo"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}


def passed(line: dict[str, Any]) -> bool:
    """Whether every free group was cut or said, and the cut model equals the masked one."""
    return (
        "error" not in line
        and line["max_rel_error"] <= TOLERANCE
        and line["cut"] + len(line["kept_whole"]) == line["free"]
        and not line["unsaid"]
        and not line["unknown_ops"]
        and line["counted_params"] == line["params"][1]
    )


def summary(line: dict[str, Any]) -> str:
    if "error" in line:
        return f"{line['name']}: FAILED {line['error']}"
    verdict = "ok" if passed(line) else "NOT PASSED"
    return (
        f"{line['name']}: {verdict}, {line['cut']} of {line['free']} groups cut, "
        f"{line['checked']} checked, error {line['max_rel_error']:.1e}, {line['wall_s']} s"
    )


def write_results(lines: list[dict[str, Any]], seed: int) -> None:
    about = {**environment(HERE.parent), "seed": seed, "keep": 0.5, "tolerance": TOLERANCE}
    body = {"about": about, "models": lines}
    (RESULTS / "torchvision.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "torchvision.md").write_text(table(body), encoding="utf-8")


def table(body: dict[str, Any]) -> str:
    """The Markdown table of a results file."""
    about, lines = body["about"], body["models"]
    good = sum(passed(line) for line in lines)
    commits = ", ".join(sorted({line["commit"] for line in lines if "commit" in line}))
    errors = [line["max_rel_error"] for line in lines if "error" not in line]
    head = [
        "# torchvision classification models: half of every free group at once",
        "",
        "Generated by `python benchmarks/torchvision_zoo.py`; do not edit. Units are chosen at "
        "random (seed "
        f"{about['seed']}), weights are random, constants of a fresh model (batch norms, layer "
        "scales) are replaced by random values. *Error*: largest difference of cut and masked "
        "model in float64, relative to the largest output. *Effect*: how much the cut changed "
        "the outputs by the same measure. *Corrected*: groups for which zeroing cannot equal "
        "removing (a layer norm over the cut axis), compared with a reference that takes norms, "
        "means and scales over what is kept; *shape only*: compared by shapes.",
        "",
        f"**{good} of {len(lines)} models pass** (error at most {about['tolerance']:g}, every "
        f"free group cut or said, no unknown operator); largest error {max(errors):.1e}.",
        "",
        f"{about['cpu']}, {about['threads']} thread; Python {about['python']}, torch "
        f"{about['torch']}, torchvision {about['torchvision']}; commit {commits}; "
        f"{about['date']}.",
        "",
        "| Model | Params (M) | MACs (G) | Groups cut | Checked | of them corrected | Shape only "
        "| Kept whole | "
        "Error | Effect | Trace (s) | Plan (s) | Cut (s) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *map(row, lines)]) + "\n"


def row(line: dict[str, Any]) -> str:
    if "error" in line:
        return f"| {line['name']} | failed: {line['error']} |" + " |" * 11
    params, macs, seconds = line["params"], line["macs"], line["seconds"]
    cells = [
        line["name"],
        f"{params[0] / 1e6:.2f} → {params[1] / 1e6:.2f}",
        f"{macs[0] / 1e9:.2f} → {macs[1] / 1e9:.2f}",
        f"{line['cut']} of {line['free']}",
        str(line["checked"]),
        str(line["corrected"]),
        str(line["shape_only"]),
        str(len(line["kept_whole"])),
        f"{line['max_rel_error']:.1e}",
        f"{line['effect']:.2g}",
        *(f"{seconds[name]:.2f}" for name in ("trace", "plan", "cut")),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
