"""Reductions, norms, scans and sorts: what is exact, what is flagged, what is pinned."""

from __future__ import annotations

import pytest
import torch

FLOAT = torch.float64
NEGATIVE = -torch.arange(1.0, 13.0, dtype=FLOAT).reshape(3, 4)

# operator, inputs, arguments, free axes, exact axes
REDUCTIONS = [
    ("sum", [(3, 4)], None, 2, 2),
    ("sum.dim_IntList", [(3, 4, 5)], lambda x: (x, [1, -1]), 3, 3),
    ("sum.dim_IntList", [(3, 4)], lambda x: (x, [1], True), 2, 2),
    ("sum.dim_IntList", [(3, 4)], lambda x: (x, []), 2, 2),
    ("nansum", [(3, 4)], lambda x: (x, [0]), 2, 2),
    ("any.dim", [torch.ones(3, 4, dtype=torch.bool)], lambda x: (x, 1), 2, 2),
    ("count_nonzero.dim_IntList", [(3, 4)], lambda x: (x, [1]), 2, 2),
    ("linalg_vector_norm", [(3, 4)], lambda x: (x, 2, [1], True), 2, 2),
    ("linalg_vector_norm", [(3, 4)], lambda x: (x, 1, [0]), 2, 2),
    ("linalg_vector_norm", [(3, 4)], lambda x: (x, float("inf"), [1]), 2, 2),
    ("linalg_vector_norm", [(3, 4)], lambda x: (x, -1, [1]), 2, 1),
    ("norm.ScalarOpt_dim", [(3, 4)], lambda x: (x, 2, [1]), 2, 2),
    ("norm.Scalar", [(3, 4)], lambda x: (x, 2), 2, 2),
    ("mean", [(3, 4)], None, 2, 0),
    ("mean.dim", [(3, 4, 5)], lambda x: (x, [1]), 3, 2),
    ("mean.dim", [(3, 4)], lambda x: (x, [-1], True), 2, 1),
    ("var.correction", [(3, 4)], lambda x: (x, [1]), 2, 1),
    ("std.dim", [(3, 4)], lambda x: (x, [1]), 2, 1),
    ("var", [(3, 4)], lambda x: (x, False), 2, 0),
    ("var_mean.correction", [(3, 4)], lambda x: (x, [1]), 2, 1),
    ("prod.dim_int", [(3, 4)], lambda x: (x, 1), 2, 1),
    ("amax", [NEGATIVE], lambda x: (x, [1]), 2, 1),
    ("amin", [(3, 4)], lambda x: (x, [1]), 2, 1),
    ("aminmax", [(3, 4)], lambda x: (x, {"dim": 1}), 2, 1),
    ("logsumexp", [(3, 4)], lambda x: (x, [1]), 2, 1),
    ("min", [(3, 4)], None, 2, 0),
    ("max.dim", [(3, 4)], lambda x: (x, 1), 1, 1),
    ("min.dim", [(3, 4)], lambda x: (x, 0, True), 1, 1),
    ("max.other", [(3, 4), (4,)], None, 2, 2),
    ("argmax", [(3, 4)], lambda x: (x, 1), 1, 1),
    ("argmin", [(3, 4)], None, 0, 0),
    ("median.dim", [(3, 4)], lambda x: (x, 1), 1, 1),
    ("mode", [(3, 4)], None, 1, 1),
    ("kthvalue", [(3, 4)], lambda x: (x, 2), 1, 1),
    ("quantile", [(3, 4), torch.tensor([0.2, 0.7], dtype=FLOAT)], lambda x, q: (x, q, 1), 3, 2),
    ("quantile.scalar", [(3, 4)], lambda x: (x, 0.5, 1), 2, 1),
    ("cumsum", [(3, 4)], lambda x: (x, 1), 2, 2),
    ("cumprod", [(3, 4)], lambda x: (x, 1), 1, 1),
    ("cummax", [(3, 4)], lambda x: (x, 1), 1, 1),
    ("logcumsumexp", [(3, 4)], lambda x: (x, 0), 1, 1),
    ("diff", [(3, 4)], None, 1, 1),
    ("flip", [(3, 4)], lambda x: (x, [0]), 1, 1),
    ("fliplr", [(3, 4)], None, 1, 1),
    ("roll", [(3, 4)], lambda x: (x, [1], [-1]), 1, 1),
    ("roll", [(3, 4)], lambda x: (x, [1]), 0, 0),
    ("tril", [(3, 4, 4)], None, 1, 1),
    ("triu", [(3, 4, 4)], None, 1, 1),
    ("sort", [(3, 4)], None, 1, 1),
    ("sort.stable", [(3, 4)], lambda x: (x, {"stable": True, "dim": 0}), 1, 1),
    ("argsort", [(3, 4)], lambda x: (x, 0), 1, 1),
    ("msort", [(3, 4)], None, 1, 1),
    ("topk", [(3, 4)], lambda x: (x, 2), 1, 1),
    ("searchsorted.Tensor", [torch.arange(12.0).reshape(3, 4), (3, 2)], None, 2, 2),
    ("searchsorted.Tensor", [torch.arange(4.0), (3, 2)], None, 2, 2),
    ("bucketize.Tensor", [(3, 4), torch.arange(3.0)], None, 2, 2),
    ("histc", [(8,)], lambda x: (x, 4), 0, 0),
    ("bincount", [torch.tensor([0, 1, 2, 2])], None, 0, 0),
    ("_unique2", [torch.tensor([0, 1, 2, 2])], None, 0, 0),
    ("linalg_cross", [(4, 3), (4, 3)], None, 1, 1),
    ("cross", [(4, 3), (4, 3)], lambda a, b: (a, b, 1), 1, 1),
    ("_softmax", [(3, 4)], lambda x: (x, 1, False), 2, 1),
    ("_log_softmax", [(3, 4)], lambda x: (x, -1, False), 2, 1),
    ("softmax.int", [(3, 4)], lambda x: (x, 0), 2, 1),
    ("_safe_softmax", [(3, 4)], lambda x: (x, 1), 2, 1),
]


@pytest.mark.parametrize(("op", "inputs", "arguments", "free", "exact"), REDUCTIONS)
def test_reduction(law, op, inputs, arguments, free, exact):
    checked = law(op, inputs, arguments)
    assert (checked.free, checked.exact) == (free, exact)


NORMS = [
    ("native_layer_norm", [(2, 3, 4), (4,), (4,)], lambda x, w, b: (x, w.shape, w, b, 1e-5), 3, 2),
    (
        "native_layer_norm",
        [(2, 3, 4), (3, 4), (3, 4)],
        lambda x, w, b: (x, w.shape, w, b, 1e-5),
        3,
        1,
    ),
    ("layer_norm", [(2, 3, 4)], lambda x: (x, x.shape[-1:]), 3, 2),
    ("rms_norm", [(2, 3, 4), (4,)], lambda x, w: (x, w.shape, w), 3, 2),
    ("_fused_rms_norm", [(2, 3, 4), (4,)], lambda x, w: (x, w.shape, w, 1e-5), 3, 2),
    (
        "native_batch_norm",
        [(2, 3, 4), (3,), (3,), (3,), (3,)],
        lambda *t: (*t, False, 0.1, 1e-5),
        3,
        3,
    ),
    (
        "native_batch_norm",
        [(3, 5, 4), (5,), (5,), (5,), (5,)],
        lambda *t: (*t, True, 0.1, 1e-5),
        3,
        1,
    ),
    (
        "_native_batch_norm_legit_no_training",
        [(2, 3, 4), (3,), (3,), (3,), (3,)],
        lambda *t: (*t, 0.1, 1e-5),
        3,
        3,
    ),
    (
        "_native_batch_norm_legit.no_stats",
        [(3, 5, 4), (5,), (5,)],
        lambda *t: (*t, True, 0.1, 1e-5),
        3,
        1,
    ),
    (
        "batch_norm",
        [(2, 3, 4), (3,), (3,), (3,), (3,)],
        lambda *t: (*t, False, 0.1, 1e-5, False),
        3,
        3,
    ),
    (
        "instance_norm",
        [(3, 5, 4), (5,), (5,)],
        lambda x, w, b: (x, w, b, None, None, True, 0.1, 1e-5, False),
        3,
        2,
    ),
]


@pytest.mark.parametrize(("op", "inputs", "arguments", "free", "exact"), NORMS)
def test_norm(law, op, inputs, arguments, free, exact):
    checked = law(op, inputs, arguments)
    assert (checked.free, checked.exact) == (free, exact)
    assert set(checked.flags) <= {"renormalised"}


def test_group_norm_averages_within_groups_only(law):
    def arguments(x, w, b, shapes):
        n, groups = shapes[1]
        return (x, w, b, n, x.shape[1], x.shape[2], groups, 1e-5)

    shapes = [(2, 12, 5), (2, 3), (2, 3)]
    checked = law("native_group_norm", [(2, 12, 5), (12,), (12,)], arguments, shapes)
    # batch and groups are exact; channels within a group and positions are averaged over
    assert (checked.free, checked.exact) == (4, 2)
    assert checked.flags == {"renormalised": "group norm over it"}


def test_group_norm_in_one_call(law):
    checked = law(
        "group_norm", [(2, 12, 5), (12,), (12,)], lambda x, w, b: (x, 3, w, b), types_only=True
    )
    assert (checked.free, checked.exact) == (4, 2)


def test_weight_norm_flags_what_its_norm_runs_over(law):
    arguments = lambda v, g: (v, g, 0)  # noqa: E731
    checked = law("_weight_norm_interface", [(3, 4), (3, 1)], arguments, types_only=True)
    assert (checked.free, checked.exact) == (2, 1)
    assert checked.flags == {"renormalised": "weight norm over it"}


@pytest.mark.parametrize(
    ("op", "inputs", "arguments", "flags", "pins"),
    [
        ("mean", [(4,)], None, {"renormalised": "mean over it"}, set()),
        ("sort", [(4,)], None, {}, {"sorted along it"}),
        ("argmax", [(4,)], None, {}, {"argmax over it"}),
        ("cumprod", [(4,)], lambda x: (x, 0), {}, {"cumprod along it"}),
        ("multinomial", [(4,)], lambda x: (x, 2), {}, {"positions along it are drawn", "draws"}),
    ],
)
def test_reasons(law, op, inputs, arguments, flags, pins):
    checked = law(op, inputs, arguments)
    assert (checked.flags, checked.pins) == (flags, pins)
