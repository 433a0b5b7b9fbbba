"""Views, copies, joins and slices: nothing is computed, so every free axis is exact."""

from __future__ import annotations

import pytest
import torch

from secateur.graph.call import OpCall, dims_of, set_dims
from secateur.graph.dispatch import rule_for
from secateur.graph.types import fresh_all, resolve, show, size_of

# operator, input shapes, arguments(*inputs, shapes), output shapes, free axes
SIZED = [
    ("view", [(2, 3, 12)], lambda x, s: (x, s[0]), [(2, 3, 4, 3)], 4),
    ("view", [(2, 3, 12)], lambda x, s: (x, s[0]), [(6, 12)], 3),
    ("view", [(4, 6, 5)], lambda x, s: (x, s[0]), [(2, 12, 5)], 4),
    ("view", [(2, 1, 5)], lambda x, s: (x, s[0]), [(2, 5, 1)], 2),
    ("_unsafe_view", [(6, 4)], lambda x, s: (x, s[0]), [(2, 3, 4)], 3),
    ("reshape", [(2, 3, 4)], lambda x, s: (x, s[0]), [(2, 12)], 3),
    ("expand", [(3, 1)], lambda x, s: (x, s[0]), [(2, 3, 5)], 3),
    ("repeat", [(3, 4)], lambda x, s: (x, [s[0][0], 1, s[0][2] // x.shape[1]]), [(5, 3, 12)], 4),
    ("tile", [(3, 4)], lambda x, s: (x, [s[0][1] // x.shape[1]]), [(3, 12)], 3),
    ("repeat_interleave.self_int", [(2, 4)],
     lambda x, s: (x, s[0][1] // x.shape[1], 1), [(2, 12)], 3),
    ("repeat_interleave.self_int", [(2, 4)], lambda x, s: (x, s[0][0] // x.numel()), [(24,)], 3),
    ("split_with_sizes", [(2, 9)], lambda x, s: (x, [t[1] for t in s], 1), [(2, 4), (2, 5)], 3),
    ("split.Tensor", [(2, 8)], lambda x, s: (x, [t[1] for t in s], 1), [(2, 4), (2, 4)], 3),
    ("slice.Tensor", [(9, 2)], lambda x, s: (x, 0, x.shape[0] - s[0][0]), [(5, 2)], 3),
    ("constant_pad_nd", [(2, 5)], lambda x, s: (x, [1, 2], 0.0), [(2, 8)], 2),
    ("constant_pad_nd", [(2, 5)], lambda x, s: (x, [0, 0, 0, 2], 1.0), [(4, 5)], 2),
    ("zeros", [], lambda s: (s[0],), [(3, 4)], 2),
    ("full", [], lambda s: (s[0], 2.0), [(3, 4)], 2),
    ("new_zeros", [(2,)], lambda x, s: (x, s[0]), [(3, 4)], 3),
    ("as_strided", [(3, 4)],
     lambda x, s: (x, s[0], [1, 0, x.shape[1]]), [(4, 5, 3)], 3),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "arguments", "shapes", "free"), SIZED)
def test_sizes_among_the_arguments_follow_the_types(law, op, inputs, arguments, shapes, free):
    if op.startswith("split"):
        op = "split_with_sizes"
    checked = law(op, inputs, arguments, shapes)
    assert (checked.free, checked.exact) == (free, free)


# operator, inputs, arguments, free axes
PLAIN = [
    ("permute", [(2, 3, 4)], lambda x: (x, [2, 0, 1]), 3),
    ("permute", [(2, 3, 4)], lambda x: (x, [-1, 0, 1]), 3),
    ("transpose.int", [(2, 3, 4)], lambda x: (x, -1, 0), 3),
    ("transpose_", [(2, 3, 4)], lambda x: (x, -1, 0), 3),
    ("swapaxes", [(2, 3, 4)], lambda x: (x, 1, 2), 3),
    ("t", [(2, 3)], None, 2),
    ("numpy_T", [(2, 3)], None, 2),
    ("mT", [(2, 3, 4)], None, 3),
    ("adjoint", [(2, 3, 4)], None, 3),
    ("movedim.int", [(2, 3, 4)], lambda x: (x, 0, -1), 3),
    ("movedim.intlist", [(2, 3, 4)], lambda x: (x, [0, 2], [1, 0]), 3),
    ("unsqueeze", [(2, 3)], lambda x: (x, -1), 2),
    ("unsqueeze", [(2, 3)], lambda x: (x, 1), 2),
    ("unsqueeze_", [(2, 3)], lambda x: (x, 0), 2),
    ("squeeze", [(1, 3, 1, 5)], None, 2),
    ("squeeze.dim", [(1, 3, 1, 5)], lambda x: (x, -2), 2),
    ("squeeze.dim", [(3, 5)], lambda x: (x, 0), 2),
    ("squeeze.dims", [(1, 3, 1, 5)], lambda x: (x, [0, 1]), 2),
    ("squeeze_.dim", [(1, 3, 5)], lambda x: (x, 0), 2),
    ("atleast_3d", [(2, 3)], None, 2),
    ("atleast_3d", [(4,)], None, 1),
    ("atleast_2d", [(4,)], None, 1),
    ("flatten.using_ints", [(2, 3, 4)], lambda x: (x, 1), 3),
    ("ravel", [(2, 3)], None, 2),
    ("view_as", [(6, 4), (2, 3, 4)], None, 3),
    ("expand_as", [(1, 4), (3, 4)], None, 2),
    ("broadcast_tensors", [(3, 1), (1, 4)], lambda a, b: ([a, b],), 2),
    ("diagonal", [(4, 3, 4)], lambda x: (x, 0, 0, 2), 2),
    ("diag_embed", [(3, 4)], None, 2),
    ("diag_embed", [(3, 4)], lambda x: (x, 0, 0, 2), 2),
    ("trace", [(4, 4)], None, 1),
    ("cat", [(2, 3), (2, 4)], lambda a, b: ([a, b], 1), 3),
    ("cat", [(2, 3), (5, 3)], lambda a, b: ([a, b],), 3),
    ("cat", [(0,), (2, 3), (4, 3)], lambda e, a, b: ([e, a, b],), 3),
    ("stack", [(2, 3), (2, 3)], lambda a, b: ([a, b], -1), 2),
    ("unbind.int", [(2, 3, 4)], lambda x: (x, 1), 2),
    ("slice.Tensor", [(3, 4)], lambda x: (x, 1), 2),
    ("slice.Tensor", [(3, 8)], lambda x: (x, 1, 1, None, 2), 2),
    ("slice.Tensor", [(3, 8)], lambda x: (x, -1, 0, 9, 4), 2),
    ("narrow", [(3, 8)], lambda x: (x, 1, 0, x.shape[1]), 2),
    ("select.int", [(3, 4)], lambda x: (x, 1, 2), 1),
    ("select_scatter", [(3, 4), (3,)], lambda x, y: (x, y, 1, 2), 1),
    ("slice_scatter", [(3, 8), (3, 4)], lambda x, y: (x, y, 1, 1, None, 2), 2),
    ("unfold", [(3, 8)], lambda x: (x, 1, 4, 2), 1),
    ("pixel_shuffle", [(2, 12, 3, 3)], lambda x: (x, 2), 2),
    ("pixel_unshuffle", [(2, 3, 4, 4)], lambda x: (x, 2), 2),
    ("view_as_complex", [(3, 2)], None, 1),
    ("view_as_real", [torch.ones(3, 4, dtype=torch.complex128)], None, 2),
    ("view.dtype", [(3, 4)], lambda x: (x, torch.float32), 1),
    ("fill_diagonal_", [(3, 3)], lambda x: (x, 1.0), 0),
    ("arange", [], lambda: (5,), 0),
    ("eye", [], lambda: (5,), 0),
]


@pytest.mark.parametrize(("op", "inputs", "arguments", "free"), PLAIN)
def test_views_are_exact(law, op, inputs, arguments, free):
    checked = law(op, inputs, arguments)
    assert (checked.free, checked.exact) == (free, free)


def infer(op, inputs, *arguments):
    for tensor in inputs:
        set_dims(tensor, fresh_all(tensor.shape))
    rule = rule_for(op)
    assert rule is not None
    return rule(OpCall(op, (*inputs, *arguments), {}, op(*inputs, *arguments)))


def test_a_shuffle_of_channels_swaps_groups_and_within():
    x = torch.arange(12.0).reshape(1, 12, 1)
    shuffled = infer(torch.ops.aten.channel_shuffle.default, [x], 3)[1]
    groups, within = resolve(dims_of(x)[1])
    assert (groups.size, within.size) == (3, 4)
    assert resolve(shuffled) == (within, groups)


def test_chunks_are_pieces_of_the_dimension():
    x = torch.zeros(2, 10)
    pieces = infer(torch.ops.aten.chunk.default, [x], 3, 1)
    assert [size_of(piece[1]) for piece in pieces] == [4, 4, 2]
    assert show(dims_of(x)[1]) == "[4|4|2]"


@pytest.mark.parametrize(
    ("op", "inputs", "arguments", "reason"),
    [
        ("select.int", [(3, 4)], lambda x: (x, 1, 2), "single indices of it are selected"),
        ("unbind.int", [(3, 4)], lambda x: (x, 1), "single indices of it are selected"),
        ("stack", [(3,), (3,)], lambda a, b: ([a, b],), "stacked"),
        ("unfold", [(8,)], lambda x: (x, 0, 4, 2), "windows are taken along it"),
        ("arange", [], lambda: (5,), "positions along it"),
        ("constant_pad_nd", [(5,)], lambda x: (x, [2, 0]), "constant padding"),
    ],
)
def test_pins_say_why(law, op, inputs, arguments, reason):
    assert reason in law(op, inputs, arguments).pins
