"""Matrix products, convolutions and attention: the law, and their multiply-accumulates."""

from __future__ import annotations

import pytest
import torch

PRODUCTS = [
    # operator, inputs, arguments, free axes, multiply-accumulates
    ("mm", [(3, 4), (4, 5)], None, 3, 60),
    ("bmm", [(2, 3, 4), (2, 4, 5)], None, 4, 120),
    ("matmul", [(6, 2, 3, 4), (2, 4, 5)], None, 5, 720),
    ("matmul", [(4,), (2, 4, 5)], None, 3, 40),
    ("matmul", [(2, 3, 4), (4,)], None, 3, 24),
    ("addmm", [(5,), (3, 4), (4, 5)], None, 3, 60),
    ("addmm", [(3, 1), (3, 4), (4, 5)], None, 3, 60),
    ("baddbmm", [(2, 1, 5), (2, 3, 4), (2, 4, 5)], None, 4, 120),
    ("addbmm", [(3, 5), (2, 3, 4), (2, 4, 5)], None, 4, 120),
    ("mv", [(3, 4), (4,)], None, 2, 12),
    ("addmv", [(3,), (3, 4), (4,)], None, 2, 12),
    ("dot", [(4,), (4,)], None, 1, 4),
    ("vdot", [(4,), (4,)], None, 1, 4),
    ("outer", [(3,), (4,)], None, 2, 12),
    ("addr", [(3, 4), (3,), (4,)], None, 2, 12),
    ("inner", [(2, 3, 4), (5, 4)], None, 4, 120),
    ("linear", [(2, 3, 4), (5, 4), (5,)], None, 4, 120),
    ("linear", [(2, 4), (4,)], None, 2, 8),
    ("bilinear", [(2, 3), (2, 4), (5, 3, 4), (5,)], None, 4, 120),
    ("cdist", [(2, 3, 4), (2, 5, 4)], None, 4, 0),
    ("_euclidean_dist", [(3, 4), (5, 4)], None, 3, 0),
    ("_trilinear", [(2, 3), (5, 3, 4), (2, 4)],
     lambda a, w, b: (a, w, b, [1, 3], [0], [1, 2], [2, 3]), 4, 120),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "arguments", "free", "macs"), PRODUCTS)
def test_product(law, op, inputs, arguments, free, macs):
    checked = law(op, inputs, arguments)
    assert (checked.free, checked.exact, checked.macs) == (free, free, macs)
    assert checked.pins == set()


OFFSETS = torch.tensor([2, 8], dtype=torch.int32)


@pytest.mark.parametrize(
    ("inputs", "free", "macs"),
    [
        ([(8, 8), (2, 8, 16)], 2, 8 * 8 * 16),
        ([(2, 8, 8), (8, 8)], 2, 8 * 8 * 8),
        ([(8, 8), (8, 16)], 2, 8 * 8 * 16),
    ],
)
def test_grouped_mm_pins_the_experts_and_what_they_share(law, inputs, free, macs):
    # the kernel takes floats of 32 bits in rows of 16 bytes; sums of small integers are exact
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randint(-4, 5, shape, generator=generator).float() for shape in inputs]
    checked = law("_grouped_mm", [*tensors, OFFSETS], units=4)
    assert (checked.free, checked.exact, checked.macs) == (free, free, macs)
    assert len(checked.pins) == 2


CONVOLUTIONS = [
    # inputs, groups, transposed, padding, free axes, multiply-accumulates
    ([(2, 4, 5, 5), (6, 4, 3, 3), (6,)], False, 1, 3, 2 * 6 * 25 * 36),
    ([(2, 6, 5), (8, 3, 1), (8,)], False, 0, 5, 2 * 8 * 5 * 3),
    ([(2, 6, 5), (12, 1, 3), (12,)], False, 1, 3, 2 * 12 * 5 * 3),
    ([(2, 4, 5), (4, 6, 2), (6,)], True, 0, 3, 2 * 4 * 5 * 6 * 2),
    ([(2, 4, 5), (4, 6, 2), (12,)], True, 0, 4, 2 * 4 * 5 * 6 * 2),
]


@pytest.mark.parametrize(("inputs", "transposed", "padding", "free", "macs"), CONVOLUTIONS)
def test_convolution(law, inputs, transposed, padding, free, macs):
    n = len(inputs[0]) - 2

    def arguments(x, w, bias):
        groups = bias.shape[0] // w.shape[1] if transposed else x.shape[1] // w.shape[1]
        steps = [1] * n, [padding] * n, [1] * n
        return (x, w, bias, *steps, transposed, [0] * n, groups)

    checked = law("convolution", inputs, arguments)
    assert (checked.free, checked.exact, checked.macs) == (free, free, macs)


def test_unfolding_columns(law):
    args = lambda x: (x, [2, 2], [1, 1], [0, 0], [2, 2])  # noqa: E731
    assert law("im2col", [(2, 3, 4, 4)], args).free == 2
    args = lambda x: (x, [4, 4], [2, 2], [1, 1], [0, 0], [2, 2])  # noqa: E731
    assert law("col2im", [(2, 12, 4)], args).free == 2


ATTENTION = [
    # operator, query, key, value
    ("scaled_dot_product_attention", (2, 4, 3, 6), (2, 4, 5, 6), (2, 4, 5, 8)),
    ("_scaled_dot_product_attention_math", (2, 4, 3, 6), (2, 4, 5, 6), (2, 4, 5, 8)),
    # this kernel wants one size for both heads, which `scaled_dot_product_attention` looks after
    ("_scaled_dot_product_flash_attention_for_cpu", (2, 4, 3, 6), (2, 4, 5, 6), (2, 4, 5, 6)),
]


@pytest.mark.parametrize(("op", "query", "key", "value"), ATTENTION)
def test_attention_flags_the_head_and_the_keys(law, op, query, key, value):
    checked = law(op, [query, key, value], types_only="flash" in op)
    # batch, heads, queries, keys, head, value's head
    assert checked.free == 6
    assert checked.exact == 4
    assert checked.flags == {
        "renormalised": "softmax over it",
        "scaled": "attention is scaled by 1/sqrt of it",
    }
    assert checked.macs == 2 * 4 * 3 * 5 * (6 + value[-1])


def test_attention_with_a_given_scale_is_exact_in_the_head(law):
    checked = law(
        "scaled_dot_product_attention",
        [(2, 4, 3, 6), (2, 4, 5, 6), (2, 4, 5, 8), (3, 5)],
        lambda q, k, v, mask: (q, k, v, mask, {"scale": 0.3}),
    )
    assert (checked.free, checked.exact) == (6, 5)


def test_grouped_query_heads_are_kv_heads_times_repeat(law):
    checked = law(
        "scaled_dot_product_attention",
        [(2, 12, 3, 6), (2, 4, 5, 6), (2, 4, 5, 6)],
        lambda q, k, v: (q, k, v, {"enable_gqa": True}),
    )
    # batch, kv heads, repeat, queries, keys, head, value's head
    assert (checked.free, checked.exact) == (7, 5)


def test_causal_attention_pins_positions(law):
    checked = law(
        "scaled_dot_product_attention",
        [(2, 4, 5, 6), (2, 4, 5, 6), (2, 4, 5, 8)],
        lambda q, k, v: (q, k, v, None, 0.0, True),
    )
    assert checked.free == 4
    assert checked.pins == {"a causal mask compares positions along it"}


def test_scaled_product_of_8_bit_matrices(law):
    # the kernel wants multiples of 16, so types alone are checked
    x, w = (torch.ones(16, 32).to(torch.float8_e4m3fn) for _ in range(2))
    checked = law(
        "_scaled_mm",
        [x, w.t(), torch.tensor(1.0), torch.tensor(1.0)],
        lambda a, b, sa, sb: (a, b, sa, sb, {"out_dtype": torch.float32}),
        types_only=True,
    )
    assert (checked.free, checked.exact, checked.macs) == (3, 3, 16 * 32 * 16)
