"""Where and with what a result was made."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from secateur.cost.latency import hardware_name

_PACKAGES = ("secateur", "torch", "numpy", "torchvision", "timm", "transformers")


@dataclass(frozen=True, slots=True)
class Machine:
    """hardware: the processor's or accelerator's name. cores: processors this process may use.
    versions: of Python and the packages that decide the figures. finished: UTC, ISO 8601."""

    hardware: str
    device: str
    cores: int
    system: str
    versions: Mapping[str, str]
    finished: str

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Machine:
        """Inverse of `to_json`."""
        return cls(**body)


def this_machine(device: torch.device | str = "cpu") -> Machine:
    """The machine that runs this process, now."""
    device = torch.device(device)
    affinity = getattr(os, "sched_getaffinity", None)  # absent outside Linux
    return Machine(
        hardware=hardware_name(device),
        device=str(device),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        versions={"python": platform.python_version(), **_versions()},
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
