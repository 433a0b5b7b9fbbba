"""A program run by several processes, each of which writes what it saw."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def seen_by_ranks(
    program: Path, folder: Path, ranks: int, *, timeout_s: float
) -> list[dict[str, Any]]:
    """What each rank of a program saw; it is called with rank, ranks, store and where to write."""
    where = [str(folder / "store"), str(folder / "out")]
    running = [
        subprocess.Popen(
            [sys.executable, str(program), str(rank), str(ranks), *where],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        said = [process.communicate(timeout=timeout_s)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * ranks, "\n".join(said)
    return [json.loads((folder / f"out.{rank}").read_text("utf-8")) for rank in range(ranks)]
