"""A YOLO pruned by half trains an epoch in Ultralytics' own trainer and exports to ONNX.

The data are real pictures that scikit-learn and matplotlib carry, with boxes drawn by hand.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from torch import nn

import secateur as sc

pytestmark = pytest.mark.slow
PX = 160
IMAGES = Path(sklearn.datasets.__file__).parent / "images"
# class, centre x, centre y, width, height, as shares of the picture
SCENES = {
    IMAGES / "flower.jpg": "0 0.52 0.50 0.55 0.75",
    IMAGES / "china.jpg": "1 0.44 0.48 0.75 0.60",
}
PORTRAIT = "2 0.50 0.32 0.45 0.40"  # of Grace Hopper, among matplotlib's sample data
NAMES = ["flower", "temple", "face"]


@pytest.fixture
def yolo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Ultralytics without its network: settings and runs in a folder of this test."""
    for name, value in {
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    yield pytest.importorskip("ultralytics", exc_type=ImportError)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A YOLO data folder of three pictures, the same for training and validation."""
    matplotlib = pytest.importorskip("matplotlib")
    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    for picture, label in {**SCENES, portrait: PORTRAIT}.items():
        for folder in ("images", "labels"):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / "data" / "images")
        (tmp_path / "data" / "labels" / f"{picture.stem}.txt").write_text(label + "\n")
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(NAMES))
    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"path: {tmp_path / 'data'}\ntrain: images\nval: images\nnames:\n{names}")
    return yaml


def trainer_of(model: nn.Module) -> type:
    """Ultralytics' trainer for a module that is there already, as `docs/ultralytics.md` has it."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    class Trainer(DetectionTrainer):  # type: ignore[misc]
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return model

    return Trainer


@contextmanager
def exported_paths(model: nn.Module) -> Iterator[None]:
    """The forwards that Ultralytics' exporter takes, so that the trace sees the sizes they read."""
    split = [module for module in model.modules() if hasattr(module, "forward_split")]
    for module in split:
        module.forward = module.forward_split
    try:
        yield
    finally:
        for module in split:
            del module.forward


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["yolov8n", "yolo11n"])
def test_pruned_yolo_trains_and_exports(yolo: Any, data: Path, tmp_path: Path, name: str) -> None:
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    dense = DetectionModel(f"{name}.yaml", nc=len(NAMES), verbose=False)
    dense.names = dict(enumerate(NAMES))
    picture = torch.rand(1, 3, PX, PX)
    with exported_paths(dense):
        graph = sc.trace(dense, picture)
        plan = sc.plan(graph, sc.score(graph, dense, criterion="l2"), budget="macs=50%")
    small = sc.cut(dense, plan)
    proof = sc.verify(dense, small, plan, picture, graph=graph, dtype=torch.float64)
    assert 0.48 * plan.before.macs < plan.after.macs <= 0.5 * plan.before.macs
    assert proof.groups_checked == len(plan.keep) and proof.max_rel_error < 1e-9

    wrapped = yolo.YOLO(f"{name}.yaml", task="detect", verbose=False)
    wrapped.model = small
    params = sum(p.numel() for p in small.parameters())
    before = small.model[0].conv.weight.detach().clone()
    wrapped.train(
        trainer=trainer_of(small), data=str(data), epochs=1, imgsz=PX, batch=3, workers=0,
        project=str(tmp_path), name="train", plots=False, verbose=False, device="cpu", amp=False,
    )  # fmt: skip
    trained = wrapped.model
    assert sum(p.numel() for p in trained.parameters()) == params
    assert not torch.equal(before, trained.model[0].conv.weight.detach().float())

    path = wrapped.export(format="onnx", imgsz=PX, simplify=False, device="cpu")
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: picture.numpy()})[:1]
    with torch.no_grad():
        expected = wrapped.model.float().eval().fuse(verbose=False)(picture)
    expected = expected[0] if isinstance(expected, (tuple, list)) else expected
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-3)
    assert os.path.getsize(path) < 4 * dense_bytes(dense)


def dense_bytes(model: nn.Module) -> int:
    """Bytes of a quarter of the dense weights' storage in float32: the export is smaller."""
    return sum(p.numel() for p in model.parameters())
