"""torchvision's operators, with plain kernels where its compiled ones are missing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

torchvision_ops = pytest.importorskip("torchvision_ops")
LIBRARY = torchvision_ops.define_torchvision_ops()
torchvision = pytest.importorskip("torchvision")

REGIONS = torch.tensor([[0.0, 0.5, 0.0, 5.0, 4.0], [1.0, 1.0, 1.0, 6.0, 7.0]], dtype=torch.float64)


@pytest.fixture(scope="module", autouse=True)
def kernels() -> Iterator[None]:
    """On a CPU build of torch the operators are names alone."""
    if LIBRARY is None:
        yield
        return
    from torchvision.ops import roi_align

    plain = inspect.unwrap(inspect.getmodule(roi_align)._roi_align)  # type: ignore[union-attr]
    library = torch.library.Library("torchvision", "IMPL")
    library.impl("roi_align", plain, "CPU")
    library.impl("deform_conv2d", deform_conv2d, "CPU")
    library.impl("nms", torchvision_ops.nms, "CPU")
    yield
    library._destroy()


def deform_conv2d(x, weight, offset, mask, bias, sh, sw, ph, pw, dh, dw, groups, moved, use_mask):
    """Dai et al. 2017, eq. 2, and Zhu et al. 2019, eq. 1: samples at moved positions, then the
    weights."""
    (n, c, height, width), (rows, columns) = x.shape, weight.shape[2:]
    out_h, out_w = offset.shape[2:]
    offset = offset.reshape(n, moved, rows * columns, 2, out_h, out_w)
    taken = []
    for k in range(rows * columns):
        y = torch.arange(out_h)[:, None] * sh - ph + k // columns * dh + offset[:, :, k, 0]
        z = torch.arange(out_w)[None, :] * sw - pw + k % columns * dw + offset[:, :, k, 1]
        grid = torch.stack([2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
        one = torch.nn.functional.grid_sample(
            x.reshape(n * moved, c // moved, height, width), grid.flatten(0, 1), align_corners=True
        )
        if use_mask:
            one = one * mask.reshape(n * moved, -1, out_h, out_w)[:, k : k + 1]
        taken.append(one.reshape(n, groups, c // groups, out_h, out_w))
    samples = torch.stack(taken, 3)
    w = weight.reshape(groups, -1, c // groups, rows * columns)
    return torch.einsum("ngckhw,gock->ngohw", samples, w).flatten(1, 2) + bias[:, None, None]


@pytest.mark.parametrize(
    ("groups", "moved", "use_mask"), [(1, 1, True), (1, 3, False), (2, 1, True)]
)
def test_moving_convolution(law, groups: int, moved: int, use_mask: bool) -> None:
    kernel, out = 4, (4, 5)
    specs = [(2, 6, 5, 6), (8, 6 // groups, 2, 2), (2, 2 * moved * kernel, *out)]
    specs += [(2, moved * kernel, *out), (8,)]

    def arguments(*tensors: Tensor) -> tuple[object, ...]:
        group = groups if tensors[1].shape[1] * groups == tensors[0].shape[1] else 1
        return (*tensors, 1, 1, 0, 0, 1, 1, group, moved, use_mask)

    checked = law("torchvision::deform_conv2d", specs, arguments)
    assert checked.macs == 2 * 8 * 20 * 6 // groups * 4
    # batch, output channels, and input channels where groups leave them free
    assert checked.free == checked.exact >= 3


def test_regions_of_feature_maps(law) -> None:
    checked = law(
        "torchvision::roi_align",
        [(2, 4, 8, 8), REGIONS],
        lambda x, regions: (x, regions, 0.5, 2, 3, 2, True),
    )
    assert (checked.free, checked.exact) == (2, 2)  # channels and regions
    assert "regions of it are read" in checked.pins


def test_suppressed_boxes_keep_their_positions(law) -> None:
    boxes = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 3.9], [5, 5, 7, 7]], dtype=torch.float64)
    checked = law("torchvision::nms", [boxes, (3,)], lambda b, s: (b, s, 0.5))
    assert checked.free == 0
