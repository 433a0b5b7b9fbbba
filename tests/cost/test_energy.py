"""Energy: counters in a folder made up here, forwards that a counter counts, stated watts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from secateur.cost.energy import Energy, estimate_energy, measure_energy, needed_counter
from secateur.cost.energy_counters import Nvml, Powercap, find_counter
from secateur.cost.latency import Latency

CPU = torch.device("cpu")


def zone(folder: Path, number: str, name: str, now: int, *, range: int = 1_000_000) -> Path:
    path = folder / f"intel-rapl:{number}"
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{range}\n")
    (path / "energy_uj").write_text(f"{now}\n")
    return path


def test_packages_and_memory_add_up_and_come_round(tmp_path: Path):
    package = zone(tmp_path, "0", "package-0", 900_000)
    zone(tmp_path, "0:0", "core", 5)  # a part of the package
    memory = zone(tmp_path, "0:1", "dram", 0)
    zone(tmp_path, "1", "psys", 7)  # holds the package
    counter = find_counter(CPU, powercap=tmp_path)
    assert isinstance(counter, Powercap)
    assert counter.name == "RAPL package-0, dram"
    assert counter.joules() == 0.0
    (memory / "energy_uj").write_text("250000\n")
    assert counter.joules() == 0.25
    (package / "energy_uj").write_text("100000\n")  # past its range of 1 J: 0.2 J more
    assert counter.joules() == pytest.approx(0.45)
    (package / "energy_uj").write_text("50000\n")  # round once more: 0.95 J
    assert counter.joules() == pytest.approx(1.4)


def test_what_cannot_be_read_is_no_counter(tmp_path: Path):
    assert find_counter(CPU, powercap=tmp_path / "missing") is None
    (zone(tmp_path, "0", "package-0", 0) / "energy_uj").unlink()
    assert find_counter(CPU, powercap=tmp_path) is None
    assert find_counter(torch.device("meta"), powercap=tmp_path) is None


def test_a_card_counts_in_millijoules():
    class Driver:
        @staticmethod
        def nvmlDeviceGetTotalEnergyConsumption(handle: str) -> int:
            return {"card": 12_345}[handle]

    counter = Nvml(Driver, "card", "H100")
    assert counter.joules() == 12.345 and counter.name == "NVML H100"


class Counted(nn.Linear):
    """Two joules for each forward are added to a counter."""

    name = "counted by hand"

    def __init__(self, joules: float) -> None:
        super().__init__(2, 2)
        self.each = joules
        self.sum = [0.0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sum[0] += self.each
        return super().forward(x)


class Shared:
    name = "counted by hand"

    def __init__(self) -> None:
        self.sum = [0.0]

    def joules(self) -> float:
        return self.sum[0]


def test_joules_of_a_forward_are_counted():
    counter = Shared()
    dense, small = Counted(2.0), Counted(0.5)
    dense.sum = small.sum = counter.sum
    found = measure_energy(
        {"dense": dense, "small": small},
        torch.zeros(3, 2),
        batch_size=5,
        counter=counter,
        rounds=3,
        seconds=0.01,
    )
    assert found["dense"].joules == pytest.approx(2.0)
    assert found["small"].joules == pytest.approx(0.5)
    assert (found["dense"].batch, len(found["dense"].samples_j)) == (5, 3)
    assert not found["dense"].estimate and found["dense"].source == "counted by hand"
    assert dense.training


def test_watts_make_an_estimate():
    latency = Latency((20.0, 10.0, 30.0, 20.0, 20.0), 1, 8, 1, "cpu", "float32", "x")
    energy = estimate_energy(latency, 45.0)
    assert energy.joules == pytest.approx(0.9)
    assert energy.estimate and energy.source == "45 W as given x measured time"
    assert energy.to_json()["joules"] == energy.joules
    with pytest.raises(ValueError, match=r"watts=-1.0: must be greater than zero"):
        estimate_energy(latency, -1.0)


def test_watts_times_what_is_measured():
    found = measure_energy({"one": nn.Linear(2, 2)}, torch.zeros(1, 2), watts=10.0)["one"]
    assert found.estimate and 0.0 < found.joules < 1.0


def test_without_counter_and_watts_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("secateur.cost.energy.find_counter", lambda device: None)
    with pytest.raises(
        ValueError, match=r"no counter of energy for cpu .* watts=45 \(--watts 45\)"
    ):
        measure_energy({"one": nn.Linear(2, 2)}, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="pynvml"):
        needed_counter(torch.device("cuda"))
    assert Energy((1.0,), 1, "x", False).joules == 1.0
