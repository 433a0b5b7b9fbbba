"""Ultralytics' models, built from the YAML files in its package, at their smallest scale.

Detectors, segmenters, pose estimators, oriented boxes and classifiers of YOLOv3 to YOLO26, and
RT-DETR; small pictures, random weights. Nothing is downloaded.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import torch
from torch import nn
from torchvision_ops import define_torchvision_ops

define_torchvision_ops()
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())

from ultralytics.nn import tasks  # noqa: E402

IMAGE_PX = 128
KINDS = {
    "seg": tasks.SegmentationModel,
    "pose": tasks.PoseModel,
    "obb": tasks.OBBModel,
    "cls": tasks.ClassificationModel,
}
NAMES = """
yolov3-tiny yolov5n yolov5n-p6 yolov6n
yolov8n yolov8n-seg yolov8n-pose yolov8n-obb yolov8n-cls yolov8n-p2 yolov8n-ghost
yolov9t yolov9c-seg yolov10n yolov10s
yolo11n yolo11n-seg yolo11n-pose yolo11n-obb yolo11n-cls
yolo12n yolo12n-seg yolo12n-cls
yolo26n yolo26n-seg yolo26n-pose yolo26n-obb yolo26n-cls
rtdetr-resnet50
""".split()


def names() -> list[str]:
    return list(NAMES)


def build(name: str, seed: int) -> tuple[nn.Module, Any]:
    task = name.rpartition("-")[2]
    kind = tasks.RTDETRDetectionModel if name.startswith("rtdetr") else tasks.DetectionModel
    torch.manual_seed(seed)
    model = KINDS.get(task, kind)(f"{name}.yaml", verbose=False).eval()
    return model, torch.rand(1, 3, IMAGE_PX, IMAGE_PX)
