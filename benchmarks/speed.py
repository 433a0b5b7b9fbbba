"""Trace to cut, secateur beside Torch-Pruning and torch-kirigami, each run in a process of its own.

    python benchmarks/speed.py [--rounds 3] [--only 'timm:*' ...] [--tools secateur] [--fresh]

Rounds alternate between the tools. Lines are kept in `runs/speed.jsonl` as they come, those of
secateur under a hash of its code, so a run that was stopped goes on where it was. The table has
medians; a model that a tool cannot do stands there with its error.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from environment import child_environment, environment
from speed_models import CAPTURED, NAMES
from speed_table import Lines, table

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results"
LINES = ROOT / "runs" / "speed.jsonl"
TOOLS = ("secateur", "torch-pruning", "torch-kirigami")
MEASURED = "core graph cost criteria select cut".split()
"""Packages whose code decides a line of secateur."""
LIMIT_S = {"secateur": 300, "torch-pruning": 300, "torch-kirigami": 150}
ONCE_ABOVE_S = 30
"""A run as slow as this is not repeated."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=["*"], help="glob patterns of models")
    parser.add_argument("--tools", nargs="*", default=TOOLS, choices=TOOLS)
    parser.add_argument("--fresh", action="store_true", help="forget earlier lines")
    arguments = parser.parse_args()
    LINES.parent.mkdir(exist_ok=True)
    if arguments.fresh:
        LINES.unlink(missing_ok=True)
    versions = {tool: version_of(tool) for tool in TOOLS}
    for number in range(arguments.rounds):
        for model in NAMES:
            if not any(fnmatch.fnmatch(model, pattern) for pattern in arguments.only):
                continue
            for tool in TOOLS if number % 2 == 0 else reversed(TOOLS):
                if tool not in arguments.tools:
                    continue
                have = read_lines(versions).get((tool, model), [])
                if len(have) <= number and asked(tool, model, have):
                    line = run_one(tool, model, arguments.threads)
                    write_line({"tool": tool, "model": model, "version": versions[tool], **line})
                    print(number + 1, model, tool, line, file=sys.stderr, flush=True)
    about = {**environment(ROOT), "threads": arguments.threads, "rounds": arguments.rounds}
    write_results(about, read_lines(versions))
    return 0


def asked(tool: str, model: str, have: Sequence[dict[str, Any]]) -> bool:
    """Whether one more run would tell something: not after an error, nor of what is slow."""
    if tool == "torch-kirigami" and (model not in CAPTURED or have):
        return False
    return not any("error" in run or run["total_cpu_s"] > ONCE_ABOVE_S for run in have)


def run_one(tool: str, model: str, threads: int) -> dict[str, Any]:
    """One measurement, or why there is none."""
    command = [sys.executable, str(HERE / "speed_run.py"), tool, model, "--threads", str(threads)]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=LIMIT_S[tool])
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return {"error": f"more than {LIMIT_S[tool]} s"}
    if child.returncode != 0:
        return {"error": (err.strip().splitlines() or [f"exit {child.returncode}"])[-1][:160]}
    result: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return result


def version_of(tool: str) -> str:
    """A peer's version, or a hash of our code that is measured."""
    if tool != "secateur":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(tool)
        except PackageNotFoundError:
            return "absent"
    digest = hashlib.sha256()
    for package in MEASURED:
        for path in sorted((ROOT / "src" / "secateur" / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def read_lines(versions: dict[str, str]) -> Lines:
    """Runs by tool and model, those of the present versions."""
    found: Lines = {}
    if LINES.is_file():
        for text in LINES.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if line["version"] == versions[line["tool"]]:
                found.setdefault((line["tool"], line["model"]), []).append(line)
    return found


def write_line(line: dict[str, Any]) -> None:
    with LINES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def write_results(about: dict[str, Any], lines: Lines) -> None:
    runs: dict[str, dict[str, Any]] = {}
    for model in NAMES:
        for tool in TOOLS:
            if own := lines.get((tool, model)):
                runs.setdefault(model, {})[tool] = own
    RESULTS.mkdir(exist_ok=True)
    body = {"about": about, "models": runs}
    (RESULTS / "speed.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "speed.md").write_text(table(about, lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
