"""The engine ray: what comes out of it, undisturbed and with a worker killed by SIGKILL.

    python benchmarks/ray_engine.py [--page]

A recipe (prune a small CNN on digits by Taylor scores, recover it) runs in one process, on two
workers of a Ray cluster of this machine, and there again with one worker killed in the middle of
the recovery; plans, weights and losses are compared. Then eight trials of a search run on two
workers, one of which is killed in the middle of a trial. What is finished lies in runs/ray_engine/
and is not done again; --page only writes benchmarks/results/ray_engine.md and .json anew.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from environment import environment

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "engines" / "faults"))

from striking import Workplace, curve, differences  # noqa: E402

from secateur.core.atomic import write_text  # noqa: E402
from secateur.search.study_found import read_found  # noqa: E402

FOLDER = ROOT / "runs" / "ray_engine"
RESULTS = ROOT / "benchmarks" / "results" / "ray_engine"
RAY = "engine: ray\nnproc: 2\n"
STEPS = 25
WORKER = b"ray::Worker.run"
LONGEST_S = 1500
SEARCH = """
model: struck_models:net
data: digits
costs: [macs]
trials: 8
line: 3
calibration: 256
recover: {epochs: 2, steps_per_epoch: 20, lr: 0.05, checkpoint_every: 5}
engine: ray
workers: 2
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "measured.json"
    measured = json.loads(path.read_text("utf-8")) if path.exists() else {}
    parts = {"searched": searched, "single": single, "ray": undisturbed, "killed": killed}
    for name, part in parts.items():
        if name not in measured and not arguments.page:
            measured[name] = part(Workplace(FOLDER, steps=STEPS))
            print(json.dumps({name: measured[name]}), flush=True)
            write_text(path, json.dumps(measured, indent=1) + "\n")
    body = {"about": environment(ROOT) | {"ray": _ray()}, **measured, **compared()}
    write_text(RESULTS.with_suffix(".json"), json.dumps(body, indent=1) + "\n")
    write_text(RESULTS.with_suffix(".md"), "\n".join(page(body)) + "\n")


def single(place: Workplace) -> dict[str, Any]:
    """The recipe in one process."""
    return command(place, "run", place.recipe("none", engine=""), "single")


def undisturbed(place: Workplace) -> dict[str, Any]:
    """The recipe on two workers."""
    return command(place, "run", place.recipe("ddp", engine=RAY), "ray")


def killed(place: Workplace) -> dict[str, Any]:
    """The same; a worker is killed when the recovery has written its second checkpoint."""

    def is_time() -> bool:
        return len(list(FOLDER.glob("killed/**/checkpoint-*"))) >= 2

    return command(place, "run", place.recipe("ddp", restarts=2, engine=RAY), "killed", is_time)


def searched(place: Workplace) -> dict[str, Any]:
    """Eight trials on two workers; one is killed when two trials ended and others recover."""
    place.recipe("ddp")  # writes the module of the model
    (FOLDER / "search.yaml").write_text(SEARCH, encoding="utf-8")
    starts: dict[str, int] = {}

    def is_time() -> bool:
        for path in FOLDER.glob("searched/work/*/starts"):
            starts[path.parent.name] = max(starts.get(path.parent.name, 0), _number(path))
        ended = len(list(FOLDER.glob("searched/trials/*.json")))
        return ended >= 2 and any(FOLDER.glob("searched/work/*/early.json"))

    told = command(place, "search", "search.yaml", "searched", is_time)
    found = read_found(FOLDER / "searched")
    return {
        **told,
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "metric": trial.metric,
                "macs": trial.costs.get("macs"),
                "starts": starts.get(f"{trial.number:04d}", 1),
                "how": trial.choice.words,
            }
            for trial in found.trials
        ],
    }


def command(
    place: Workplace,
    verb: str,
    recipe: str,
    out: str,
    is_time: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Type a command and wait for its end; kill one of its workers when it is time."""
    started, struck = time.monotonic(), list[int]()
    line = [sys.executable, "-m", "secateur.cli", verb, recipe, "--out", out]
    with (FOLDER / f"{out}.txt").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            line, cwd=FOLDER, env=place.environment({}), stdout=said, stderr=said
        )
        while process.poll() is None and time.monotonic() - started < LONGEST_S:
            time.sleep(0.02)
            if is_time is not None and is_time() and not struck:
                struck = workers_of(process.pid)[-1:]
                for pid in struck:
                    os.kill(pid, signal.SIGKILL)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    words = (FOLDER / f"{out}.txt").read_text("utf-8").strip().splitlines()
    return {
        "command": " ".join(["secateur", *line[3:]]),
        "code": process.wait(),
        "killed": len(struck),
        "seconds": round(time.monotonic() - started, 1),
        "said": [each for each in words if each.startswith(("trial ", "error", "warning: "))],
    }


def workers_of(pid: int) -> list[int]:
    """Processes of Ray's workers that are at work under a process."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = path.read_text("ascii", errors="replace").rpartition(") ")[2]
            if WORKER in (path.parent / "cmdline").read_bytes():
                parents[int(path.parent.name)] = int(after.split()[1])
        except OSError:  # it has just ended
            continue
    return sorted(each for each in parents if _is_under(each, pid))


def _is_under(child: int, ancestor: int) -> bool:
    while child > 1 and child != ancestor:
        try:
            stat = Path(f"/proc/{child}/stat").read_text("ascii", errors="replace")
        except OSError:
            return False
        child = int(stat.rpartition(") ")[2].split()[1])
    return child == ancestor


def compared() -> dict[str, Any]:
    """What the folders of the runs differ in."""
    if not (FOLDER / "killed" / "result.json").exists():
        return {}
    one, ray, struck = (FOLDER / name for name in ("single", "ray", "killed"))
    logs = sorted(one.glob("stages/*/log.jsonl"))
    curves = {
        place.name: [row["loss"] for log in logs for row in curve(place / log.relative_to(one))]
        for place in (one, ray, struck)
    }
    return {
        "plan_equal_to_single": _plan(ray) == _plan(one),
        "killed_plan_equal_to_single": _plan(struck) == _plan(one),
        "killed_differs_from_undisturbed": differences(ray, struck),
        "losses": curves,
        "largest_difference_to_single": max(
            abs(a - b) for a, b in zip(curves["single"], curves["ray"], strict=True)
        ),
    }


def page(body: Mapping[str, Any]) -> Iterator[str]:
    """The whole page."""
    about = body["about"]
    yield "# The engine ray"
    yield ""
    yield (
        "Generated by `python benchmarks/ray_engine.py`; do not edit. A small CNN on digits, one "
        "thread a process, a Ray cluster that the command starts on this machine. Workers are "
        "killed from outside by SIGKILL; nothing else is done to the commands. Seconds are by the "
        "clock of a machine that was busy with other work, and hold the start of the cluster."
    )
    yield ""
    yield (
        f"{about['cpu']}, Python {about['python']}, torch {about['torch']}, Ray {about['ray']}, "
        f"commit {about['commit']}, {about['date']}."
    )
    if "killed" in body:
        yield from _of_runs(body)
    if "searched" in body:
        yield from _of_search(body["searched"])


def _of_runs(body: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## A run on two workers"
    yield ""
    yield "| | command | workers killed | exit code | seconds | loss by epoch |"
    yield "|---|---|---:|---:|---:|---|"
    names = {"single": "one process", "ray": "two workers", "killed": "two workers, one killed"}
    for name, title in names.items():
        one = body[name]
        losses = ", ".join(f"{loss:.6f}" for loss in body["losses"][name])
        figures = f"{one['killed']} | {one['code']} | {one['seconds']:.0f} | {losses}"
        yield f"| {title} | `{one['command']}` | {figures} |"
    yield ""
    yield (
        f"plan.json of the two workers is byte for byte that of one process: "
        f"**{_word(body['plan_equal_to_single'])}**; with one killed: "
        f"**{_word(body['killed_plan_equal_to_single'])}**. The largest difference of an epoch's "
        f"loss between one process and two workers is {body['largest_difference_to_single']:.1e}."
    )
    differ = body["killed_differs_from_undisturbed"]
    yield ""
    yield (
        "Plans, weights and losses of the run with a killed worker, against the undisturbed one on "
        f"two workers: **{'the same bits' if not differ else 'different: ' + ', '.join(differ)}**."
    )


def _of_search(body: Mapping[str, Any]) -> Iterator[str]:
    trials: Sequence[Mapping[str, Any]] = body["trials"]
    ended = sum(trial["state"] in ("complete", "pruned") for trial in trials)
    again = [str(trial["number"]) for trial in trials if trial["starts"] > 1]
    yield ""
    yield "## Eight trials of a search on two workers, one killed"
    yield ""
    yield (
        f"`{body['command']}`: exit code {body['code']}, {body['killed']} worker killed in the "
        f"middle of a trial, {body['seconds']:.0f} s. **{ended} of {len(trials)} trials ended**; "
        f"begun a second time, from its checkpoint: trial {', '.join(again) or 'none'}."
    )
    yield ""
    yield "| trial | ended | accuracy | MACs left | starts | how |"
    yield "|---:|---|---:|---:|---:|---|"
    for trial in trials:
        metric = "" if trial["metric"] is None else f"{trial['metric']:.2%}"
        macs = "" if trial["macs"] is None else f"{trial['macs']:.1%}"
        figures = f"{metric} | {macs} | {trial['starts']} | {trial['how']}"
        yield f"| {trial['number']} | {trial['state']} | {figures} |"


def _word(same: bool) -> str:
    return "yes" if same else "no"


def _plan(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.rglob("plan.json"))]


def _number(path: Path) -> int:
    try:
        return int(path.read_text("utf-8"))
    except (OSError, ValueError):  # gone, or not yet written
        return 0


def _ray() -> str:
    from importlib import metadata

    return metadata.version("ray")


if __name__ == "__main__":
    main()
