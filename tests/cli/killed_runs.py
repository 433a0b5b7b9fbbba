"""Runs a recipe once undisturbed, and again and again in processes that are killed, until one of
them finishes; in the folders `undisturbed` and `killed`.

    python killed_runs.py RECIPE EVERY

Each of the latter is killed by SIGKILL in the middle of its EVERY-th write or soon after, when the
new file lies beside its place and is not renamed into it yet. Prints, for each of them, how it
ended and which stages were finished then.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from secateur.cli import make_app
from secateur.cost import latency

MOST = 60


def killed_at(number: int) -> None:
    """Let this process die at its write `number`."""
    writes = itertools.count(1)
    for name in ("replace", "rename"):
        rename = getattr(Path, name)

        def counted(self: Path, target: Any, rename: Any = rename) -> Any:
            if next(writes) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)

        setattr(Path, name, counted)


def run(recipe: str, every: int) -> int:
    """The exit status of one run in a process of its own."""
    child = os.fork()
    if child == 0:
        killed_at(every)
        try:
            type_run(recipe, "killed")
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def type_run(recipe: str, out: str) -> None:
    """`secateur run RECIPE --out OUT` in this process."""
    make_app()(["run", recipe, "--out", out, "--json"], standalone_mode=False)


def finished(out: str) -> list[str]:
    """The stages that a run finished."""
    return sorted(path.parent.name for path in Path(out).glob("stages/*/model"))


def main() -> None:
    recipe, every = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)  # threads do not come along into a child
    latency.ROUND_MS, latency.SETTLE_MS = 0.01, 0.0  # the figures are not looked at
    with redirect_stdout(sys.stderr):
        type_run(recipe, "undisturbed")  # here, so that children have all imports
        runs = []
        while not runs or runs[-1]["code"] == -signal.SIGKILL:
            assert len(runs) < MOST, f"no end in sight: {runs}"
            # later and later, for what is done anew in each run must not use it up
            code = run(recipe, every + len(runs) // 3)
            runs.append({"code": code, "stages": finished("killed")})
    print(json.dumps(runs))


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    main()
