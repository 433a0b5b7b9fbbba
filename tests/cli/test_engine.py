"""`secateur run --engine torchrun`: the files of a run in one process, and its errors."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from secateur.cli.engine import settings_in, starts_processes
from secateur.cli.recipe import read_recipe
from secateur.cli.settings import RunSettings

SOURCE = str(Path(__file__).parents[2] / "src")
RECIPE = {
    "data": "digits",
    "budget": "macs=60%",
    "criterion": "taylor",
    "calibration": 128,
    "baseline": False,
    "recover": {"epochs": 2, "lr": 0.02, "steps_per_epoch": 4},
}
MODULE = """
import torch
from torch import nn


def cnn():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )
    return model, torch.rand(4, 1, 8, 8)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "engine_model.py").write_text(MODULE)
    return tmp_path


def command(place: Path, out: str, **recipe: object) -> list[str]:
    path = place / f"{out}.yaml"
    said = {"model": "engine_model:cnn", "out": str(place / out), **RECIPE, **recipe}
    path.write_text(yaml.safe_dump(said))
    return [sys.executable, "-m", "secateur.cli", "run", str(path)]


def start(place: Path, arguments: list[str]) -> subprocess.Popen[str]:
    paths = os.pathsep.join([SOURCE, str(place)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(arguments, cwd=place, env=environment, text=True, **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_ranks_leave_the_files_of_one_and_speak_once(place: Path) -> None:
    alone = start(place, command(place, "one"))
    assert ended(alone)[0] == 0
    two = command(place, "two", engine="torchrun", nproc=2, parallel="ddp")
    code, out, err = ended(start(place, two))
    assert code == 0, err
    assert out.count("report: ") == 1 and err.count("scoring by taylor") == 1
    for name in ("plan.json", "scores.safetensors"):
        assert sha(place / "two" / name) == sha(place / "one" / name)
    assert losses(place / "two") == pytest.approx(losses(place / "one"), rel=1e-5)
    # the same directory in one process: finished, whatever the engine
    assert "finished" not in err
    code, _, err = ended(start(place, command(place, "two")))
    assert code == 0 and "is finished already" in err


def test_an_error_of_the_ranks_is_one_paragraph(place: Path) -> None:
    arguments = command(place, "bad", budget="params=0.01%", engine="torchrun", nproc=2)
    code, out, err = ended(start(place, arguments))
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 1 and out == "" and "Traceback" not in err
    assert len(said) == 1 and "params=0.01% cannot be met" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp", "tp"])
def test_a_killed_rank_costs_the_work_since_the_last_checkpoint(place: Path, kind: str) -> None:
    long = {"epochs": 6, "lr": 0.02, "checkpoint_every": 3}
    assert ended(start(place, command(place, "one", recover=long)))[0] == 0
    engine = {"engine": "torchrun", "nproc": 2, "parallel": kind}
    again = {"processes": {"restarts": 1, "timeout": 60.0}}
    running = start(place, command(place, "two", recover=long, **engine, **again))
    end = time.monotonic() + 120
    while not list((place / "two" / "checkpoints").glob("checkpoint-*2")):
        assert time.monotonic() < end and running.poll() is None
        time.sleep(0.1)
    os.kill(_rank(1, of=running.pid), signal.SIGKILL)
    code, _, err = ended(running)
    assert code == 0, err
    assert losses(place / "two") == pytest.approx(losses(place / "one"), rel=1e-3)


def _rank(rank: int, *, of: int) -> int:
    """The process of a rank among the children of one."""
    children = Path(f"/proc/{of}/task/{of}/children").read_text().split()
    for child in children:
        words = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in words:
            return int(child)
    raise AssertionError(f"rank {rank} is not among {children}")


def test_settings_come_to_the_workers_as_they_are(tmp_path: Path) -> None:
    from dataclasses import asdict

    settings = read_recipe(
        None,
        RunSettings,
        overrides={
            "model": "m:f",
            "data": "digits",
            "stages": [{"prune": {"budget": "macs=50%"}}, {"recover": {"epochs": 2}}],
            "engine": "torchrun",
        },
    )
    body = {"module": RunSettings.__module__, "class": "RunSettings", "settings": asdict(settings)}
    (tmp_path / "settings.json").write_text(json.dumps(body, default=str))
    assert settings_in(tmp_path) == settings


def test_ranks_join_and_do_not_start_others(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RunSettings(model="m:f", engine="torchrun")
    for name in ("RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert starts_processes(settings) and not starts_processes(RunSettings(model="m:f"))
    assert not starts_processes(settings, {"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"engine": "mpi"}, "torchrun"),
        ({"engine": "torchrun", "parallel": "dpp"}, "ddp"),
        ({"nproc": 2}, "engine: torchrun"),
        ({"engine": "torchrun", "nproc": 4, "parallel": "dp=2,tp=4"}, "make the product"),
        ({"engine": "torchrun", "parallel": "dp=2,fsdp=2"}, "fsdp=4"),
        ({"engine": "torchrun", "nproc": 0}, "at least 1"),
    ],
)
def test_what_is_no_engine_is_refused_with_what_to_type(
    wrong: dict[str, object], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        RunSettings(model="m:f", **wrong)
