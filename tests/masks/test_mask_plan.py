from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from secateur.core.errors import PlanMismatchError, StorageError
from secateur.masks import MaskPlan, fold_, mask_, prune_vector, unmask_


def test_a_plan_is_saved_and_read_back(net: nn.Module, tmp_path: Path) -> None:
    plan = mask_(net, sparsity=0.8, seed=3)
    plan.save(tmp_path / "masks.safetensors")
    found = MaskPlan.load(tmp_path / "masks.safetensors")
    assert found.to_json() == plan.to_json() and found.settings["seed"] == 3
    assert all(torch.equal(found.kept[name], kept) for name, kept in plan.kept.items())
    assert found.diff(plan) == {} and found == plan
    weights = sum(kept.numel() for kept in plan.kept.values())
    assert (tmp_path / "masks.safetensors").stat().st_size < weights / 8 + 2500
    json.dumps(plan.to_json())
    assert list(tmp_path.iterdir()) == [tmp_path / "masks.safetensors"]


def test_a_plan_stays_as_it_was(net: nn.Module) -> None:
    first = mask_(net, sparsity=0.5)
    before = first.to_json()
    mask_(net, sparsity=0.9)
    with torch.no_grad():
        for buffer in net.buffers():
            buffer.fill_(1)
    assert first.to_json() == before and first.sparsity == pytest.approx(0.5, abs=0.01)


def test_a_plan_is_applied_to_the_same_model(net: nn.Module) -> None:
    torch.manual_seed(5)
    other = type(net)()
    plan = mask_(net, sparsity=0.8)
    plan.apply_(other)
    assert torch.equal(other.conv.weight == 0, ~plan.kept["conv.weight"])
    assert other.conv.parametrizations.weight[0].kept.stride() == other.conv.weight.stride()
    plan.apply_(net)  # on one that has masks already
    with pytest.raises(PlanMismatchError, match="another model than this Linear"):
        plan.apply_(nn.Linear(4, 4))
    assert torch.equal(fold_(other).first.weight == 0, ~plan.kept["first.weight"])


def test_plans_differ_by_counts(net: nn.Module) -> None:
    first = mask_(net, sparsity={"fc.weight": 0.5, "conv.weight": 0.5})
    unmask_(net)
    second = mask_(net, sparsity={"fc.weight": 0.75, "conv.weight": 0.5})
    assert first.diff(second) == {"fc.weight": (6, 0)}
    unmask_(net)
    third = mask_(net, sparsity={"conv.weight": 0.5})
    assert first.diff(third) == {"fc.weight": (0, 12)}
    other = mask_(nn.Linear(4, 4), sparsity=0.5)
    with pytest.raises(PlanMismatchError, match="different models"):
        first.diff(other)


def test_damaged_plans_are_refused(net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "masks.safetensors"
    mask_(net, sparsity=0.8).save(path)
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[-1] ^= 1
    for content in (whole[:-10], bytes(changed), b"not a plan", b""):
        path.write_bytes(content)
        with pytest.raises(StorageError, match="not a whole mask plan"):
            MaskPlan.load(path)
    with pytest.raises(FileNotFoundError):
        MaskPlan.load(tmp_path / "nothing")


def test_vectors() -> None:
    vector = torch.tensor([0.3, -0.05, 0.1, -2.0, 0.0])
    naive = torch.tensor([w if abs(w) > 0.1 else 0.0 for w in vector])
    assert torch.equal(prune_vector(vector, threshold=0.1), naive)
    assert torch.equal(prune_vector(vector, sparsity=0.6), prune_vector(vector, threshold=0.1))
    assert vector[1] == torch.tensor(-0.05)  # a copy was pruned
    assert prune_vector(torch.empty(0), sparsity=0.5).shape == (0,)
    assert prune_vector(torch.ones(3), sparsity=1.0).tolist() == [0, 0, 0]
    for wrong in ({}, {"threshold": 0.1, "sparsity": 0.5}, {"threshold": -1}, {"sparsity": 2}):
        with pytest.raises(ValueError):
            prune_vector(vector, **wrong)
