"""What a benchmark ran on: hardware, versions, commit. Stands in every results file."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "torchvision", "timm", "transformers")


def environment(repository: Path) -> dict[str, Any]:
    """Hardware, versions and commit as JSON values; None where something is not known."""
    return {
        "cpu": _cpu(),
        "cores": _cores(),
        "threads": 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "commit": commit(repository),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown CPU"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown CPU"


def _cores() -> int | None:
    return os.cpu_count()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def child_environment() -> dict[str, str]:
    """For a process of a benchmark: one thread, the source tree before an installed package."""
    root = Path(__file__).parents[1]
    places = [str(root / "src"), str(root / "tests" / "zoo"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}


def commit(repository: Path) -> str | None:
    """The short hash of the repository's last commit."""
    found = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
    )
    return found.stdout.strip() or None
