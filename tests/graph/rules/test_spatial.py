"""Pooling, resampling, padding and sampling: channels pass, extents stay."""

from __future__ import annotations

import pytest
import torch

ONE, TWO, THREE = (2, 4, 8), (2, 4, 6, 8), (2, 4, 4, 6, 8)

# operator, input, arguments
OVER_SPACE = [
    ("avg_pool1d", ONE, lambda x: (x, [2])),
    ("max_pool1d", ONE, lambda x: (x, [2])),
    ("adaptive_avg_pool1d", ONE, lambda x: (x, [2])),
    ("adaptive_max_pool1d", ONE, lambda x: (x, [2])),
    ("reflection_pad1d", ONE, lambda x: (x, [1, 2])),
    ("replication_pad1d", ONE, lambda x: (x, [1, 2])),
    ("upsample_nearest1d", ONE, lambda x: (x, [16])),
    ("upsample_linear1d", ONE, lambda x: (x, [16], False)),
    ("avg_pool2d", TWO, lambda x: (x, [2, 2])),
    ("avg_pool2d", TWO, lambda x: (x, [3, 3], [1, 1], [1, 1])),
    ("max_pool2d_with_indices", TWO, lambda x: (x, [2, 2])),
    ("max_pool2d", TWO, lambda x: (x, [2, 2])),
    ("_adaptive_avg_pool2d", TWO, lambda x: (x, [1, 1])),
    ("adaptive_max_pool2d", TWO, lambda x: (x, [2, 3])),
    ("reflection_pad2d", TWO, lambda x: (x, [1, 2, 0, 1])),
    ("replication_pad2d", TWO, lambda x: (x, [1, 2, 0, 1])),
    ("upsample_nearest2d", TWO, lambda x: (x, [12, 8])),
    ("_upsample_nearest_exact2d", TWO, lambda x: (x, [12, 8])),
    ("upsample_bilinear2d", TWO, lambda x: (x, [12, 8], True)),
    ("upsample_bicubic2d", TWO, lambda x: (x, [12, 8], True)),
    ("_upsample_bilinear2d_aa", TWO, lambda x: (x, [3, 4], True)),
    ("avg_pool3d", THREE, lambda x: (x, [2, 2, 2])),
    ("max_pool3d_with_indices", THREE, lambda x: (x, [2, 2, 2])),
    ("_adaptive_avg_pool3d", THREE, lambda x: (x, [1, 2, 2])),
    ("adaptive_max_pool3d", THREE, lambda x: (x, [1, 2, 2])),
    ("replication_pad3d", THREE, lambda x: (x, [1, 0, 1, 0, 1, 0])),
    ("upsample_nearest3d", THREE, lambda x: (x, [8, 6, 8])),
    ("upsample_trilinear3d", THREE, lambda x: (x, [8, 6, 8], True)),
    ("pad", TWO, lambda x: (x, [1, 1, 0, 0], "circular")),
    ("pad", ONE, lambda x: (x, [1, 1], "reflect")),
    ("_pad_circular", ONE, lambda x: (x, [1, 1])),
]  # fmt: skip


@pytest.mark.parametrize(("op", "shape", "arguments"), OVER_SPACE)
def test_channels_pass_and_extents_stay(law, op, shape, arguments):
    checked = law(op, [shape], arguments)
    padded_only = op == "pad" and shape == TWO
    assert checked.free == checked.exact == (3 if padded_only else 2)
    assert checked.pins


def test_constant_padding_in_the_general_operator(law):
    checked = law("pad", [(2, 5)], lambda x: (x, [0, 0, 1, 2]))
    assert (checked.free, checked.exact) == (2, 2)


def test_negative_padding_crops(law):
    checked = law(
        "constant_pad_nd", [(2, 9)], lambda x, s: (x, [s[0][1] - x.shape[1], 0]), [(2, 5)]
    )
    assert (checked.free, checked.exact) == (3, 3)


def test_sampling_a_grid(law):
    points = torch.rand(2, 5, 3, 2, dtype=torch.float64) * 2 - 1
    checked = law("grid_sampler_2d", [(2, 4, 6, 6), points], lambda x, g: (x, g, 0, 0, False))
    # batch, channels, and the grid's own rows and columns; zero is a point, not an absence
    assert (checked.free, checked.exact) == (4, 4)
    assert checked.pins == {"a spatial extent", "coordinates of points"}


def test_affine_grid(law):
    checked = law("affine_grid_generator", [(3, 2, 3)], lambda t: (t, [t.shape[0], 1, 4, 5], False))
    assert (checked.free, checked.exact) == (1, 1)
