"""Runs zoos: every model of a zoo cut in five ways, cut == mask; writes JSON and tables.

    python benchmarks/zoo.py [ZOO ...] [--only 'resnet*' ...] [--cuts half macs] [--all]
                             [--shard 1/2] [--fresh] [--stale]

Each model runs in a process of its own, forked from this one, so that memory is given back and a
crash is one line. Lines are kept in `runs/zoo_ZOO.jsonl` as they come, under a hash of the code
that they measure, so a run that was stopped goes on where it was and an edited page of
documentation costs nothing. When all models of a zoo are there, `results/` is written from them.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import zoo_run
from environment import environment
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from zoo_cuts import CUTS
from zoo_table import failures, write_overview, write_zoo

from secateur.core import lookup

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results"
MEASURED = "core graph cost criteria select cut".split()
"""Packages whose code decides a line."""
LIMIT_S = 1800


@dataclass(frozen=True)
class Run:
    """What one invocation asks of one zoo. key: hash of the code measured."""

    zoo: str
    key: str
    seed: int
    cuts: tuple[str, ...]
    every: bool
    stale: bool

    @property
    def title(self) -> str:
        return f"{self.zoo}_all" if self.every else self.zoo

    @property
    def lines(self) -> Path:
        return ROOT / "runs" / f"zoo_{self.title}.jsonl"

    def names(self) -> list[str]:
        """Models of the zoo, the everyday list or all."""
        module = lookup.find(zoo_run.ZOOS, self.zoo, kind="zoo")
        found: list[str] = (module.all_names if self.every else module.names)()
        return found

    def done(self) -> dict[str, dict[str, Any]]:
        """The latest line of each model that answers this run."""
        if not self.lines.is_file():
            return {}
        lines = [json.loads(line) for line in self.lines.read_text("utf-8").splitlines()]
        return {line["name"]: line for line in lines if self._answers(line)}

    def _answers(self, line: dict[str, Any]) -> bool:
        if line["seed"] != self.seed or not set(self.cuts) <= set(line.get("cuts", self.cuts)):
            return False
        return line["key"] == self.key or (self.stale and not failures(line))


def main() -> int:
    arguments = _arguments()
    zoos = arguments.zoos or lookup.names(zoo_run.ZOOS)
    torch.set_num_threads(1)
    zoo_run.warm_up()
    good = True
    for zoo in zoos:
        run = Run(
            zoo,
            code_key(zoo),
            arguments.seed,
            tuple(arguments.cuts),
            arguments.all,
            arguments.stale,
        )
        run.lines.parent.mkdir(exist_ok=True)
        if arguments.fresh:
            run.lines.unlink(missing_ok=True)
        good &= run_zoo(run, arguments.only, arguments.shard)
    write_overview(RESULTS)
    return 0 if good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("zoos", nargs="*", help="files of benchmarks/zoos; all by default")
    parser.add_argument("--only", nargs="+", default=["*"], help="glob patterns of model names")
    parser.add_argument("--cuts", nargs="+", choices=CUTS, default=list(CUTS))
    parser.add_argument("--all", action="store_true", help="every model, not the everyday list")
    parser.add_argument("--shard", type=_shard, default=(1, 1), help="i/n: every n-th model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="forget earlier lines")
    parser.add_argument("--stale", action="store_true", help="accept passed lines of earlier code")
    return parser.parse_args()


def _shard(text: str) -> tuple[int, int]:
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1/2")
    return int(first), int(count)


def run_zoo(run: Run, only: Sequence[str], shard: tuple[int, int]) -> bool:
    """Measure what is missing, write the results when all is there; whether all passed."""
    names = run.names()
    wanted = [
        name
        for name in names[shard[0] - 1 :: shard[1]]
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in only)
    ]
    done = run.done()
    with progress(run.title, len(wanted)) as advance:
        for name in wanted:
            fresh = name not in done
            if fresh:
                done[name] = {**in_own_process(run, name), "key": run.key, "seed": run.seed}
                with run.lines.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[name]) + "\n")
            advance(summary(done[name]), fresh)
    finished = {**run.done(), **done}  # another shard may have written meanwhile
    missing = [name for name in names if name not in finished]
    bad = [name for name in wanted if failures(done[name])]
    say = f"{run.title}: {len(wanted) - len(bad)} of {len(wanted)} passed"
    print(say + (f"; not passed: {', '.join(bad)}" if bad else ""), file=sys.stderr)
    if missing:
        print(f"{len(missing)} of {len(names)} not measured yet; no results", file=sys.stderr)
    elif set(run.cuts) == set(CUTS):
        about = {**environment(ROOT), "seed": run.seed, "zoo": run.title}
        write_zoo(RESULTS, about, [finished[name] for name in names])
    return not bad


def in_own_process(run: Run, name: str) -> dict[str, Any]:
    """One model's line; a crash or a timeout is its error."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, run, name))
    child.start()
    theirs.close()
    try:
        if not ours.poll(LIMIT_S):
            return {"name": name, "error": f"not finished in {LIMIT_S} s"}
        line: dict[str, Any] = ours.recv()
        return line
    except EOFError:
        child.join()
        return {"name": name, "error": f"the process ended with status {child.exitcode}"}
    finally:
        if child.is_alive():
            child.join(5)
        child.kill()
        child.join()


def _child(pipe: Any, run: Run, name: str) -> None:
    with open(os.devnull, "w") as nowhere:  # models and builders print and warn
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    pipe.send(zoo_run.measure(run.zoo, name, seed=run.seed, cuts=run.cuts))


def summary(line: dict[str, Any]) -> str:
    """One line for the log."""
    bad = failures(line)
    if bad:
        return f"{line['name']}: NOT PASSED: " + "; ".join(f"{k}: {v}" for k, v in bad.items())
    errors = [cut["max_rel_error"] for cut in line["cuts"].values() if "max_rel_error" in cut]
    cut = next(iter(line["cuts"].values()))
    told = f"{cut.get('groups_cut', 0)} of {line['free']} groups cut"
    return f"{line['name']}: ok, {told}, error {max(errors, default=0.0):.1e}, {line['cpu_s']} s"


@contextmanager
def progress(title: str, total: int) -> Iterator[Any]:
    """A bar on a terminal, and the lines above it; no thread, since models run in forks."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task(title, total=total)

        def advance(said: str, fresh: bool) -> None:
            bar.advance(task)
            if fresh or "NOT PASSED" in said:
                console.print(said)
            bar.refresh()

        yield advance


def code_key(zoo: str) -> str:
    """A hash of the code that decides the zoo's lines."""
    digest = hashlib.sha256()
    measured: Sequence[Path] = [
        *(path for name in MEASURED for path in (ROOT / "src" / "secateur" / name).rglob("*.py")),
        HERE / "zoo_run.py",
        HERE / "zoo_cuts.py",
        HERE / "zoos" / f"{zoo}.py",
        *(HERE / "zoos").glob("_*.py"),  # what a zoo is made of
    ]
    for path in sorted(measured):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
