"""Real processes over gloo come to the bits of one process, whatever is asked of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("together_program.py")


@pytest.mark.parametrize(
    "size", [2, pytest.param(4, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)]
)
def test_everything_together(size: int, tmp_path: Path) -> None:
    paths = os.pathsep.join([str(PROGRAM.parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(rank), str(size), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        )
        for rank in range(size)
    ]
    try:
        said = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * size, "\n".join(e for _, e in said)
    found = json.loads(said[0][0])
    assert len(found["together"]) == size and len(found["alone"]) > 30
    for rank, (digests, failure) in enumerate(found["together"]):
        differing = [what for what, one in found["alone"].items() if digests[what] != one]
        assert not differing, f"rank {rank}: {differing}"
        assert failure.startswith("ScoreError: the loss of calibration batch 3 is nan")
