"""The names of torchvision's compiled operators, for a CPU build of torch (tests only).

The registry's torchvision is built against CUDA, and on a CPU build of torch its import stops
because its operators cannot load. Its models are plain Python and need only the names to exist.
Call `define_torchvision_ops` before the first import of torchvision, timm or transformers.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys

import torch

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
    return library
