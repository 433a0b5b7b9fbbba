"""Runs of several ranks on which something strikes, and what they leave compared with one on which
nothing did. `test_faults.py` and `benchmarks/faults.py` use it.

`Workplace.typed` types the command as a person does: torchrun's agent starts the ranks.
`forked` starts them as such an agent does, from a process that has all imports, which takes a
fifth of the time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path

import blows
import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore

from secateur.cli import make_app
from secateur.cost import latency

HERE = Path(__file__).parent
SOURCE = HERE.parents[2] / "src"
LONGEST_S = 900
"""For one command; those that hang fail the test."""
GRACE_S = 10.0
MOST = 4
"""Times that a command is typed before there is no end in sight."""
MODELS = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.down = nn.Conv2d(4 * width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return x + self.norm(self.down(self.up(x).relu()))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.blocks = nn.ModuleList(Block(16) for _ in range(2))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def net():
    return Net(), torch.rand(4, 1, 8, 8)
"""
RECIPE = """
model: struck_models:net
data: digits
baseline: false
{engine}parallel: {parallel}
processes: {{timeout: {timeout}, restarts: {restarts}}}
stages:
  - prune: {{budget: macs=50%, criterion: taylor, calibration: 512}}
  - recover: {{epochs: 4, steps_per_epoch: {steps}, lr: 0.05, checkpoint_every: 2}}
"""
RANKS = 2
DURATIONS = ("seconds", "saving_s")
TORCHRUN = "engine: torchrun\nnproc: 2\n"


@dataclass(frozen=True)
class Ending:
    """How a command ended, and what it said."""

    code: int
    said: str


@dataclass(frozen=True)
class Blow:
    """What strikes: `signal` on `rank`, after so many seconds spent in `stage`."""

    stage: str
    rank: int
    after_s: float
    signal: str = "SIGKILL"

    def environment(self, mark: Path) -> dict[str, str]:
        """For `sitecustomize`."""
        return {
            "FAULT_STAGE": self.stage,
            "FAULT_RANK": str(self.rank),
            "FAULT_AFTER_S": str(self.after_s),
            "FAULT_SIGNAL": self.signal,
            "FAULT_MARK": str(mark),
        }


@dataclass(frozen=True)
class Workplace:
    """A folder with a model and recipes, in which commands are typed."""

    folder: Path
    timeout: float = 30.0
    steps: int = 6
    spent: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    """Seconds in each stage by recipe and rank, of the runs on which nothing struck."""

    def recipe(self, parallel: str, *, restarts: int = 0, engine: str = TORCHRUN) -> str:
        """Write a recipe; its file's name."""
        (self.folder / "struck_models.py").write_text(MODELS, encoding="utf-8")
        body = RECIPE.format(
            engine=engine,
            parallel=parallel,
            timeout=self.timeout,
            restarts=restarts,
            steps=self.steps,
        )
        name = f"{parallel}-{restarts}{'' if engine else '-joined'}.yaml"
        (self.folder / name).write_text(body, encoding="utf-8")
        return name

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Of a command: the source tree, and one thread a rank."""
        places = [str(HERE), str(SOURCE), str(self.folder)]
        path = os.pathsep.join(places)
        return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}

    def typed(self, recipe: str, out: str | Path, **more: str) -> Ending:
        """`secateur run RECIPE --out OUT`."""
        command = [sys.executable, "-m", "secateur.cli", "run", recipe, "--out", str(out)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(more),
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        return Ending(done.returncode, done.stderr)

    def undisturbed(self, parallel: str) -> Path:
        """The folder of a run on which nothing strikes; made once."""
        out = self.folder / f"undisturbed-{parallel}"
        if parallel not in self.spent:
            record = self.folder / f"spent-{parallel}"
            record.mkdir()
            ending = self.forked(self.recipe(parallel), out, FAULT_RECORD=str(record))
            assert ending.code == 0, ending.said
            files = sorted(record.glob("*.json"))
            spent = {int(path.stem): json.loads(path.read_text("ascii")) for path in files}
            self.spent[parallel] = spent
        return out

    def struck(
        self, name: str, parallel: str, blow: Blow, *, restarts: int = 0, typed: bool = False
    ) -> list[Ending]:
        """Run until it ends well; `blow` strikes once. Where the stage was over before it came,
        once more from the start, earlier: a cut takes milliseconds, and not always as many."""
        recipe, mark = self.recipe(parallel, restarts=restarts), self.folder / f"{name}.struck"
        run = self.typed if typed else self.forked
        for _ in range(MOST):
            endings: list[Ending] = []
            while not endings or endings[-1].code:
                assert len(endings) < MOST, f"no end in sight: {endings[-1].said}"
                endings.append(run(recipe, self.folder / name, **blow.environment(mark)))
            if mark.exists():
                return endings
            shutil.rmtree(self.folder / name)
            blow = replace(blow, after_s=blow.after_s / 4)
        raise AssertionError(f"nothing struck: {blow}")

    def forked(self, recipe: str, out: str | Path, **more: str) -> Ending:
        """The same command on ranks that are forked from this process."""
        store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)}
        meeting |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": str(RANKS)}
        pids = []
        for rank in range(RANKS):
            pid = os.fork()
            if pid == 0:
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                os.environ.update({**meeting, **place, **more})
                self._run_forked(recipe, out, rank)
            pids.append(pid)
        codes = _ended(pids)
        said = [(self.folder / f"said-{rank}").read_text("utf-8") for rank in range(RANKS)]
        return Ending(next((code for code in codes if code), 0), "".join(said))

    def _run_forked(self, recipe: str, out: str | Path, rank: int) -> None:
        """What a rank does; it never returns."""
        code = 1
        try:
            signal.alarm(LONGEST_S)
            with (self.folder / f"said-{rank}").open("w", encoding="utf-8") as said:
                os.dup2(said.fileno(), 2)
                os.dup2(said.fileno(), 1)
            os.chdir(self.folder)
            blows.begin()
            code = make_app()(["run", recipe, "--out", str(out)], standalone_mode=False) or 0
        except SystemExit as ending:
            code = int(ending.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            blows.note()
            os._exit(code)

    def warm_(self) -> None:
        """Import all there is, by a run in this very process; ranks inherit it."""
        sys.path.insert(0, str(self.folder))
        torch.set_num_threads(1)  # threads do not come along into a child
        latency.ROUND_MS, latency.SETTLE_MS = 0.01, 0.0  # the figures are not looked at
        recipe, here = self.recipe("none", engine=""), os.getcwd()
        os.chdir(self.folder)
        try:
            with redirect_stdout(sys.stderr):
                make_app()(["run", recipe, "--out", "warm"], standalone_mode=False)
        finally:
            os.chdir(here)


def _ended(pids: list[int]) -> list[int]:
    """How processes end: when one has failed the others have `GRACE_S` to say so, as under an
    agent, and are ended then, stopped ones too."""
    codes: dict[int, int] = {}
    end = float("inf")
    while len(codes) < len(pids):
        for pid in [pid for pid in pids if pid not in codes]:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
        if any(codes.values()):
            end = min(end, time.monotonic() + GRACE_S)
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


def differences(one: Path, other: Path) -> list[str]:
    """In what two run folders differ: plans byte by byte, tensors bit by bit, the curve of the
    loss in every digit."""
    found = []
    for path in sorted(one.rglob("*")):
        name = path.relative_to(one)
        if "checkpoints" in name.parts or not path.is_file():
            continue
        if not (other / name).exists():
            found.append(f"{name} is missing")
        elif path.name in COMPARED and not COMPARED[path.name](path, other / name):
            found.append(str(name))
        elif path.suffix == ".safetensors":
            found += tensors_that_differ(path, other / name, str(name))
    return found


def tensors_that_differ(one: Path, other: Path, name: str) -> list[str]:
    """Names of the tensors whose bits are others."""
    ours, theirs = load_file(one), load_file(other)
    if ours.keys() != theirs.keys():
        return [f"{name}: other tensors"]
    return [f"{name}: {key}" for key, value in ours.items() if not value.equal(theirs[key])]


def curve(path: Path) -> list[dict[str, float]]:
    """What a log says of each epoch, without how long it took."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [{key: line[key] for key in line if key not in DURATIONS} for line in lines]


COMPARED: dict[str, Callable[[Path, Path], bool]] = {
    "plan.json": lambda one, other: one.read_bytes() == other.read_bytes(),
    "log.jsonl": lambda one, other: curve(one) == curve(other),
}
"""How files are compared, besides tensors."""
