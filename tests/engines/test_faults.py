"""Ranks that are killed, stopped or cut off, a full disk, a damaged checkpoint: nothing is lost.

One program a test, whose ranks are forked, because starting Python takes longer than the runs.
`benchmarks/faults.py` strikes twenty times, at random moments of every stage.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "tests" / "engines" / "faults"
LONGEST_S = 1200


def program(path: Path, *arguments: str, folder: Path) -> list[dict[str, Any]]:
    """The JSON lines that a program prints."""
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def scenario(name: str, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = program(FAULTS / "scenarios.py", str(folder), name, folder=folder)[-1]
    return found[name]  # type: ignore[no-any-return]


def needs_root() -> None:
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if os.geteuid() != 0 or tried.returncode != 0:
        pytest.skip("mounts and namespaces are not allowed here")


@pytest.mark.slow
def test_a_rank_killed_in_every_stage_ends_with_the_same_bits(tmp_path: Path) -> None:
    out = str(tmp_path / "faults")
    lines = program(
        ROOT / "benchmarks" / "faults.py", "--times", "8", "--out", out, folder=tmp_path
    )
    assert {line["blow"]["stage"] for line in lines} == {
        "scoring",
        "cutting",
        "recovery",
        "saving",
    }
    assert {line["parallel"] for line in lines} == {"ddp", "fsdp"}
    for line in lines:
        assert line["codes"][-1] == 0 and len(line["codes"]) == 2 and line["differ"] == [], line


@pytest.mark.slow
def test_a_stopped_rank_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    found = scenario("hung", tmp_path)
    assert found["codes"] == [1, 0] and found["differ"] == []
    assert "rank 0 is waiting for the others in" in found["said"]
    assert "rank 1 is at work" in found["said"] or "rank 1 has been silent" in found["said"]
    assert "Traceback" not in found["said"]


@pytest.mark.slow
def test_of_a_damaged_checkpoint_the_one_before_is_used(tmp_path: Path) -> None:
    for kind, found in scenario("damaged", tmp_path).items():
        assert found["codes"][1] == 0 and found["differ"] == [], kind
        assert "using the one before it" in found["said"], kind


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_run_goes_on_later(tmp_path: Path) -> None:
    needs_root()
    for kind, found in scenario("full_disk", tmp_path).items():
        assert found["codes"] == [1, 0] and found["differ"] == [], kind
        assert "space" in found["said"], kind


@pytest.mark.slow
def test_the_hosts_that_remain_go_on_without_one_that_is_cut_off(tmp_path: Path) -> None:
    needs_root()
    found = scenario("cut_off", tmp_path)
    assert found["code"] == 0
    assert found["voices"] == 1, "one rank speaks"
    assert "rank 2 has been silent" in found["said"][0]
    assert "rank 0 is waiting for the others" in found["said"][0]
    assert len(found["epochs"]) == 4
