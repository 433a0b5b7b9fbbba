"""torchvision's compiled operators, for a CPU build of torch (tests only).

The registry's torchvision is built against CUDA, and on a CPU build of torch its import stops
because its operators cannot load. Its models are plain Python and need only the names to exist;
the two that detectors run, `nms` and `roi_align`, are written in plain PyTorch, so that a trace
sees ordinary operators. Call `define_torchvision_ops` before the first import of torchvision, timm
or transformers.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys

import torch
from torch import Tensor

_ONE = "Tensor input, Tensor rois, float scale, int height, int width"
_BACK = "int batch, int channels, int rows, int columns) -> Tensor"
_OFFSETS = "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias"
_STEPS = ", ".join(
    f"int {name}_{side}" for name in ("stride", "pad", "dilation") for side in ("h", "w")
)
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({_ONE}, int sampling_ratio, bool aligned) -> Tensor",
    f"qroi_align({_ONE}, int sampling_ratio, bool aligned) -> Tensor",
    "_roi_align_backward(Tensor grad, Tensor rois, float scale, int height, int width, "
    "int batch, int channels, int rows, int columns, int sampling_ratio, bool aligned) -> Tensor",
    f"ps_roi_align({_ONE}, int sampling_ratio) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor mapping, float scale, int height, "
    f"int width, int sampling_ratio, {_BACK}",
    f"roi_pool({_ONE}) -> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float scale, int height, "
    f"int width, {_BACK}",
    f"ps_roi_pool({_ONE}) -> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor mapping, float scale, int height, "
    f"int width, {_BACK}",
    f"deform_conv2d({_OFFSETS}, {_STEPS}, int groups, int offset_groups, bool use_mask) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, {_OFFSETS}, {_STEPS}, int groups, int offset_groups, "
    "bool use_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@functools.cache
def define_torchvision_ops() -> object:
    """Define the names if torchvision cannot import without; the result keeps them defined."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    else:
        return None
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    ops = importlib.import_module("torchvision.ops")
    boxes = importlib.import_module("torchvision.ops.boxes")
    rois = importlib.import_module("torchvision.ops.roi_align")
    ops.nms = boxes.nms = nms  # type: ignore[attr-defined]
    # torchvision's own plain version, which it otherwise compiles before it runs
    rois._roi_align = inspect.unwrap(rois._roi_align)  # type: ignore[attr-defined]
    return library


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that no better one overlaps by more than the threshold, best first."""
    top_left = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    overlaps = (shared / (area[:, None] + area[None, :] - shared) > iou_threshold).tolist()
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if not any(overlaps[better][index] for better in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)
