"""Latency: conditions stated and restored, order fair, inputs resized, verdict honest."""

from __future__ import annotations

import gc
import json
import time
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.cost.batch import resize_batch
from secateur.cost.latency import Latency, _order, measure_latency
from secateur.cost.speedup import speedup


def latency(*samples_ms: float, batch: int = 64) -> Latency:
    return Latency(samples_ms, 1, batch, 2, "cpu", "float32", "a processor")


class Recorder(nn.Module):
    """Notes under which conditions it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.seen: list[tuple[bool, bool, int, int, bool]] = []

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        self.seen.append(
            (
                self.training,
                torch.is_inference_mode_enabled(),
                torch.get_num_threads(),
                x.shape[0],
                gc.isenabled(),
            )
        )
        time.sleep(0.002)
        return x * self.weight


def test_conditions_hold_during_and_are_restored_after() -> None:
    model = nn.Sequential(Recorder(), nn.Dropout())
    model[1].eval()
    threads = torch.get_num_threads()
    other = threads + 1
    measured = measure_latency(
        {"a": model}, torch.ones(2, 3), batch_size=5, threads=other, rounds=5, warmup=1
    )["a"]
    assert set(model[0].seen) == {(False, True, other, 5, False)}
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    assert torch.get_num_threads() == threads
    assert gc.isenabled()
    assert (measured.batch, measured.threads, measured.device) == (5, other, "cpu")
    assert measured.dtype == "float64"
    assert measured.hardware
    assert len(measured.samples_ms) == 5


def test_restored_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError):
        measure_latency({"a": model}, torch.ones(2, 4), threads=threads + 1, rounds=5)
    assert model.training
    assert torch.get_num_threads() == threads
    assert gc.isenabled()


def test_fast_models_are_repeated_within_a_round() -> None:
    model = Recorder()  # about 2 ms a forward, so about ten of them make 20 ms
    measured = measure_latency({"a": model}, torch.ones(1), rounds=5, warmup=1)["a"]
    assert 2 <= measured.repeats <= 10
    assert len(model.seen) >= 1 + 5 * measured.repeats


def test_every_model_comes_first_equally_often() -> None:
    names = ("dense", "pruned", "random")
    orders = [_order(names, turn) for turn in range(6)]
    assert all(sorted(order) == list(names) for order in orders)
    for place in range(3):
        assert Counter(order[place] for order in orders) == dict.fromkeys(names, 2)


@pytest.mark.parametrize(
    "inputs",
    [
        torch.ones(2, 3),
        (torch.ones(2, 3), torch.tensor(2.0)),
        {"x": torch.ones(2, 3), "scale": torch.tensor(2.0)},
    ],
    ids=["tensor", "tuple", "dict"],
)
def test_tensor_tuple_and_dict_inputs(inputs: Any) -> None:
    model = Recorder()
    measured = measure_latency({"a": model}, inputs, batch_size=4, rounds=5, warmup=1)
    assert measured["a"].batch == 4
    assert {seen[3] for seen in model.seen} == {4}


def test_resize_repeats_trims_and_leaves_other_tensors() -> None:
    ids = torch.tensor([[1, 2], [3, 4]])
    positions = torch.arange(3)
    (repeated, same), batch = resize_batch((ids, positions), 3)
    assert batch == 3
    assert repeated.tolist() == [[1, 2], [3, 4], [1, 2]]
    assert same is positions
    assert resize_batch(ids, 1)[0].tolist() == [[1, 2]]
    assert resize_batch(ids, None) == (ids, 2)
    with pytest.raises(ValueError, match="no tensor with a batch"):
        resize_batch({"flag": True}, 4)


def test_wrong_arguments_say_what_to_write() -> None:
    with pytest.raises(ValueError, match="rounds=30"):
        measure_latency({"a": nn.Linear(1, 1)}, torch.ones(1, 1), rounds=2)
    with pytest.raises(ValueError, match=r"model\.to\(device\)"):
        models = {"a": nn.Linear(1, 1), "b": nn.Linear(1, 1, device="meta")}
        measure_latency(models, torch.ones(1, 1))
    with pytest.raises(ValueError, match="no models"):
        measure_latency({}, torch.ones(1, 1))


def test_figures_of_a_latency_by_hand() -> None:
    measured = latency(1.0, 2.0, 3.0, 4.0, 10.0)
    assert measured.median_ms == 3.0
    assert measured.mad_ms == 1.0  # deviations 2 1 0 1 7
    assert measured.p10_ms == pytest.approx(1.4)
    assert measured.p90_ms == pytest.approx(7.6)
    assert measured.throughput_per_s == pytest.approx(64 / 3.0e-3)
    assert Latency.from_json(json.loads(json.dumps(measured.to_json()))) == measured


def test_speedup_is_claimed_only_beyond_noise() -> None:
    dense = latency(10.0, 10.1, 9.9, 10.2, 9.8, 10.0)
    twice = speedup(dense, latency(5.0, 5.1, 4.9, 5.2, 4.8, 5.0))
    assert twice.verdict == "faster"
    assert twice.ratio == pytest.approx(2.0)
    assert twice.low <= 2.0 <= twice.high
    assert speedup(dense, dense).verdict == "no speed-up"
    assert speedup(dense, latency(9.9, 10.0, 9.8, 10.1, 9.7, 9.9)).verdict == "no speed-up"
    noisy = speedup(dense, latency(5.0, 12.0, 4.0, 30.0, 11.0, 8.0))
    assert noisy.ratio > 1
    assert noisy.verdict == "no speed-up"
    assert "no speed-up beyond noise" in str(noisy)
    slower = speedup(dense, latency(20.0, 20.1, 19.9, 20.2, 19.8, 20.0))
    assert slower.verdict == "slower"
    assert str(slower).startswith("2.0 times slower")


def test_speedup_refuses_other_conditions() -> None:
    with pytest.raises(ValueError, match="in one measure_latency call"):
        speedup(latency(1.0, 1.0, 1.0), latency(1.0, 1.0, 1.0, batch=1))
