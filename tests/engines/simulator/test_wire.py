"""What is predicted is what goes over the wire: processes in a network namespace of their own.

`benchmarks/simulator.py` does the same with models of a usual size and up to 8 ranks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
CASES = [{"model": "small", "mesh": mesh} for mesh in ("dp=2", "fsdp=2", "tp=2")]
MORE = [
    {"model": "small", "mesh": mesh}
    for mesh in ("dp=4", "fsdp=4", "dp=2,fsdp=2", "fsdp=2,tp=2", "dp=2,tp=2", "fsdp=8")
]


@cache
def namespaces_allowed() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    tried = subprocess.run(
        ["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True, check=False
    )
    return tried.returncode == 0


def run(cases: list[dict[str, str]], folder: Path) -> list[dict[str, Any]]:
    if not namespaces_allowed():
        pytest.skip("network namespaces are not allowed here")
    path = folder / "cases.json"
    path.write_text(json.dumps(cases), encoding="utf-8")
    places = [str(ROOT / "src"), str(ROOT / "tests" / "zoo")]
    done = subprocess.run(
        ["unshare", "--net", sys.executable, str(ROOT / "benchmarks" / "simulator_runs.py"), path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        timeout=60 * len(cases),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(found: dict[str, Any]) -> None:
    assert found["bytes"] > 5e3
    assert found["predicted"] == pytest.approx(found["bytes"], rel=0.05), found["mesh"]
    for held, predicted in zip(found["state"], found["predicted_state"], strict=True):
        assert held["gradients"] == predicted["gradients"]
        assert held["optimizer"] == predicted["optimizer"]
        # what is predicted is what is allocated: rows filled up to equal chunks
        assert held["weights"] <= predicted["weights"]


def test_two_ranks_send_what_is_predicted(tmp_path: Path) -> None:
    found = run(CASES, tmp_path)
    assert [len(each["state"]) for each in found] == [2, 2, 2]
    for each in found:
        check(each)


@pytest.mark.slow
def test_more_ranks_send_what_is_predicted(tmp_path: Path) -> None:
    for each in run(MORE, tmp_path):
        check(each)
