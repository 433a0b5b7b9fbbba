"""Every model that torchvision lists, at its real widths and small inputs; quantized ones excluded.

Detectors get thresholds of zero, so that random weights find something, and few proposals. Where
a builder takes no image size, the smallest is one at which no stage runs out of pixels.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torchvision_ops import define_torchvision_ops

define_torchvision_ops()

from torchvision import models  # noqa: E402

IMAGE_PX = 96
# windows, pooled grids and auxiliary heads with fixed extents need the size they were made for
NATIVE_PX = {"swin": 224, "maxvit": 224, "inception": 299}
CLIP = (3, 16, 64, 64)
NATIVE_CLIPS = {"mvit": (3, 16, 224, 224), "s3d": (3, 16, 224, 224)}
FLOW_PX = 128
PATCHES = 4
"""Patches along an image's side for vision transformers."""

FEW = 8
PROPOSALS = {
    "rpn_pre_nms_top_n_test": 64, "rpn_post_nms_top_n_test": FEW, "rpn_score_thresh": 0.0,
    "box_score_thresh": 0.0, "box_detections_per_img": FEW,
}  # fmt: skip
ANCHORS = {"score_thresh": 0.0, "topk_candidates": 32, "detections_per_img": FEW}
DETECTION_PX = 128


def names() -> list[str]:
    return [name for name in models.list_models() if not name.startswith("quantized_")]


def build(name: str, seed: int) -> tuple[nn.Module, Any]:
    kind = models.get_model_builder(name).__module__.split(".")
    options: dict[str, Any] = {}
    parameters = inspect.signature(models.get_model_builder(name)).parameters
    if "weights_backbone" in parameters:
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # their default is to warn that it will change
    torch.manual_seed(seed)
    if "detection" in kind:
        return _detector(name, options)
    if name.startswith("vit_"):
        options["image_size"] = PATCHES * int(name.split("_")[-1])
    model = models.get_model(name, weights=None, **options).eval()
    if "video" in kind:
        return model, torch.randn(1, *NATIVE_CLIPS.get(name.split("_")[0], CLIP))
    if "optical_flow" in kind:
        return model, (_image(FLOW_PX), _image(FLOW_PX))
    size = NATIVE_PX.get(name.split("_")[0], IMAGE_PX)
    return model, _image(options.get("image_size", size))


def _detector(name: str, options: dict[str, Any]) -> tuple[nn.Module, Any]:
    if name.startswith("ssd"):
        size = 300 if name.startswith("ssd300") else 320  # their heads are made for it
        options |= ANCHORS
    else:
        size = DETECTION_PX
        options |= {"min_size": size, "max_size": size}
        options |= PROPOSALS if "rcnn" in name else ANCHORS
    model = models.get_model(name, weights=None, **options).eval()
    if "resnet50_fpn" in name:
        _quieten_(model)
    return model, ([torch.rand(3, size, size)],)


@torch.no_grad()
def _quieten_(model: nn.Module) -> None:
    """Pyramid features of about one. Those of an untrained ResNet are near a thousand, which makes
    every score 0 or 1 and every box the whole picture: outputs that no wrong cut would change."""
    for block in model.get_submodule("backbone.fpn.layer_blocks").children():
        next(block.parameters()).mul_(1e-3)


def _image(size: int) -> Tensor:
    return torch.randn(1, 3, size, size)
