"""Pointwise operators, activations, creation, Fourier transforms."""

from __future__ import annotations

import pytest
import torch

MASK = torch.tensor([True, False, True, True])

# operator, inputs, arguments, free axes
POINTWISE = [
    ("add.Tensor", [(3, 4), (4,)], None, 2),
    ("mul.Tensor", [(3, 1), (1, 4)], None, 2),
    ("div.Tensor", [(3, 4), (3, 1)], None, 2),
    ("add_.Tensor", [(3, 4), (4,)], None, 2),
    ("sigmoid", [(3, 4)], None, 2),
    ("relu_", [(3, 4)], None, 2),
    ("gelu", [(3, 4)], None, 2),
    ("hardswish", [(3, 4)], None, 2),
    ("elu", [(3, 4)], None, 2),
    ("lerp.Tensor", [(3, 4), (3, 4), (4,)], None, 2),
    ("addcmul", [(3, 4), (4,), (3, 1)], None, 2),
    ("where.self", [MASK, (3, 4), (3, 1)], None, 2),
    ("masked_fill.Scalar", [(3, 4), MASK], lambda x, m: (x, m, 0.0), 2),
    ("clamp.Tensor", [(3, 4), (4,)], None, 2),
    ("clone", [(3, 4)], None, 2),
    ("copy_", [(3, 4), (4,)], None, 2),
    ("_to_copy", [(3, 4)], lambda x: (x, {"dtype": torch.float32}), 2),
    ("detach", [(3, 4)], None, 2),
    ("zeros_like", [(3, 4)], None, 2),
    ("full_like", [(3, 4)], lambda x: (x, 2.0), 2),
    ("fill.Scalar", [(3, 4)], lambda x: (x, 2.0), 2),
    ("native_dropout", [(3, 4)], lambda x: (x, 0.0, False), 2),
    ("log_sigmoid_forward", [(3, 4)], None, 2),
    ("complex", [(3, 4), (3, 4)], None, 2),
    ("polar", [(3, 4), (3, 4)], None, 2),
    ("floor_divide", [(3, 4), (4,)], None, 2),
    ("_prelu_kernel", [(2, 3, 4), (3, 1)], None, 3),
    ("prelu", [(2, 3, 4), (3,)], None, 3),
    ("prelu", [(2, 3, 4), (1,)], None, 3),
    ("glu", [(3, 8)], None, 2),
    ("glu", [(8, 3)], lambda x: (x, 0), 2),
    ("_fft_r2c", [(3, 8)], lambda x: (x, [1], 0, True), 1),
    ("_fft_c2c", [torch.ones(3, 8, dtype=torch.complex128)], lambda x: (x, [1], 0, True), 1),
    ("_fft_c2r", [torch.ones(3, 5, dtype=torch.complex128)], lambda x: (x, [1], 0, 8), 1),
    ("normal.Tensor_float", [(3, 4)], lambda x: (x, 0.0), 2),
]


@pytest.mark.parametrize(("op", "inputs", "arguments", "free"), POINTWISE)
def test_pointwise(law, op, inputs, arguments, free):
    checked = law(op, inputs, arguments)
    assert (checked.free, checked.exact) == (free, free)


def test_a_gate_takes_unit_i_of_both_halves(law):
    checked = law("glu", [(8,)])
    assert (checked.free, checked.pins) == (1, set())
