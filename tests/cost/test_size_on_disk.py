"""The size that a plan predicts is that of the file that is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import secateur as sc


def subject() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 128, 3), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 256, 3)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 100)).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_predicted_is_saved(tmp_path: Path, dtype: torch.dtype):
    model, example = subject().to(dtype), torch.randn(2, 3, 8, 8, dtype=dtype)
    result = sc.prune(model, example, budget="size=50%", verify=False)
    sc.save(result.model, tmp_path, plan=result.plan)
    (file,) = tmp_path.rglob("*.safetensors")
    assert file.stat().st_size == pytest.approx(result.after.size_bytes, rel=0.01)
    assert result.after.size_bytes <= 0.5 * result.before.size_bytes
    dense = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert result.before.size_bytes == dense
