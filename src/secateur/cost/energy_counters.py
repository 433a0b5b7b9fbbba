"""Counters of energy that hardware keeps: the processor's own (RAPL) and NVIDIA's (NVML).

A counter gives joules since some moment; only differences mean anything. It counts the whole
processor or the whole card, with what it draws at rest and what other processes make it do.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

POWERCAP = Path("/sys/class/powercap")
_COUNTED = ("package", "dram")
"""Zones that add up: a processor's, and its memory's where that is counted apart."""


@runtime_checkable
class Counter(Protocol):
    """name: what is counted, for people."""

    name: str

    def joules(self) -> float:
        """Joules counted so far; never less than before."""


class Powercap:
    """The processors' counters in the kernel's powercap folder.

    Each counts microjoules up to its range and begins again at zero; it must be read more often
    than it comes round (some minutes at full load).
    """

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._ranges = [int(_read(zone / "max_energy_range_uj")) for zone in zones]
        self._last = [self._now(zone) for zone in zones]
        self._sum = 0
        self.name = "RAPL " + ", ".join(_read(zone / "name") for zone in zones)

    def joules(self) -> float:
        """Joules since this counter was made."""
        for index, zone in enumerate(self._zones):
            now = self._now(zone)
            gone = now - self._last[index]
            self._sum += gone if gone >= 0 else gone + self._ranges[index]
            self._last[index] = now
        return self._sum / 1e6

    @staticmethod
    def _now(zone: Path) -> int:
        return int(_read(zone / "energy_uj"))


class Nvml:
    """The counter of one NVIDIA card, Volta or later. nvml: the module pynvml."""

    def __init__(self, nvml: Any, handle: Any, name: str) -> None:
        self._nvml, self._handle = nvml, handle
        self.name = f"NVML {name}"

    def joules(self) -> float:
        """Joules since the driver was loaded."""
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3


def find_counter(device: torch.device, *, powercap: Path = POWERCAP) -> Counter | None:
    """The counter of the device that a model runs on; None where there is none to read."""
    if device.type == "cuda":
        return _nvidia(device)
    zones = sorted(zone for zone in powercap.glob("intel-rapl:*") if _is_counted(zone))
    return Powercap(zones) if device.type == "cpu" and zones else None


def _is_counted(zone: Path) -> bool:
    try:
        int(_read(zone / "energy_uj"))  # only root may, on most systems
        return _read(zone / "name").startswith(_COUNTED)
    except (OSError, ValueError):
        return False


def _read(file: Path) -> str:
    return file.read_text(encoding="ascii").strip()


def _nvidia(device: torch.device) -> Counter | None:
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    about = torch.cuda.get_device_properties(device)
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{about.uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError:
        return None
    return Nvml(nvml, handle, about.name)
