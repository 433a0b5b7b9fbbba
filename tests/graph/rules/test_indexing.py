"""Indexing by tensors: what is indexed is pinned, the index's own dimensions come through."""

from __future__ import annotations

import pytest
import torch

ROWS = torch.tensor([[0, 2, 1], [3, 3, 0]])
PICKS = torch.tensor([0, 2, 3])
MASK = torch.tensor([True, False, True, True])

# operator, inputs, arguments, free axes
INDEXING = [
    ("embedding", [(4, 5), ROWS], None, 3),
    ("embedding_bag", [(4, 5), torch.tensor([0, 2, 1, 3]), torch.tensor([0, 2])], None, 1),
    ("index_select", [(4, 5), PICKS], lambda x, i: (x, 0, i), 2),
    ("index.Tensor", [(4, 5), ROWS], lambda x, i: (x, [i]), 3),
    ("index.Tensor", [(5, 4, 6), PICKS], lambda x, i: (x, [None, i]), 3),
    ("index.Tensor", [(4, 5, 4), PICKS, PICKS], lambda x, i, j: (x, [i, None, j]), 2),
    ("index.Tensor", [(4, 4, 5), PICKS, PICKS], lambda x, i, j: (x, [i, j]), 2),
    ("index.Tensor", [(4, 4, 5), ROWS[:, :1], PICKS], lambda x, i, j: (x, [i, j]), 3),
    ("index.Tensor", [(4, 5), MASK], lambda x, m: (x, [m]), 1),
    ("index.Tensor", [(3, 4, 5), MASK], lambda x, m: (x, [None, m]), 2),
    ("index_put", [(4, 5), PICKS, (3, 5)], lambda x, i, v: (x, [i], v), 1),
    ("index_put_", [(4, 5), PICKS, (5,)], lambda x, i, v: (x, [i], v), 1),
    ("index_put", [(4, 5), PICKS, (3, 5)], lambda x, i, v: (x, [i], v, True), 2),
    ("index_put", [(4, 5), MASK, (1,)], lambda x, m, v: (x, [m], v), 2),
    ("index_put", [(4, 5), MASK, (5,)], lambda x, m, v: (x, [m], v), 2),
    ("index_put", [(4, 5), MASK, (1, 5)], lambda x, m, v: (x, [m], v), 2),
    ("index_put", [(4,), MASK, ()], lambda x, m, v: (x, [m], v), 1),
    ("index_put", [(4, 5), MASK, (3, 5)], lambda x, m, v: (x, [m], v), 1),
    ("gather", [(2, 4, 5), torch.zeros(2, 3, 5, dtype=torch.int64)], lambda x, i: (x, 1, i), 3),
    ("gather", [(4, 5), torch.zeros(3, 2, dtype=torch.int64)], lambda x, i: (x, 0, i), 1),
    ("take_along_dim", [(4, 5), torch.zeros(3, 1, dtype=torch.int64)],
     lambda x, i: (x, i, 0), 2),
    ("take_along_dim", [(4, 5), torch.zeros(3, dtype=torch.int64)], None, 0),
    ("scatter.src", [(4, 5), torch.tensor([[0] * 5, [2] * 5]), (2, 5)],
     lambda x, i, v: (x, 0, i, v), 1),
    ("scatter.value", [(4, 5), torch.tensor([[0] * 5, [2] * 5])], lambda x, i: (x, 0, i, 1.0), 1),
    ("scatter.reduce", [(4, 5), torch.tensor([[0] * 5, [2] * 5]), (2, 5)],
     lambda x, i, v: (x, 0, i, v, {"reduce": "add"}), 2),
    ("scatter_reduce.two", [(4, 5), torch.tensor([[0] * 5, [2] * 5]), (2, 5)],
     lambda x, i, v: (x, 0, i, v, "amax"), 1),
    ("scatter_add", [(4, 5), torch.tensor([[0] * 5, [0] * 5]), (2, 5)],
     lambda x, i, v: (x, 0, i, v), 2),
    ("index_add", [(4, 5), PICKS, (3, 5)], lambda x, i, v: (x, 0, i, v), 2),
    ("index_copy", [(4, 5), PICKS, (3, 5)], lambda x, i, v: (x, 0, i, v), 1),
    ("index_fill.int_Scalar", [(4, 5), PICKS], lambda x, i: (x, 0, i, 1.0), 1),
    ("take", [(4, 5), ROWS], None, 2),
    ("masked_select", [(4,), MASK], None, 0),
    ("masked_scatter", [(4,), MASK, (3,)], None, 0),
    ("nonzero", [(4, 5)], None, 0),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "arguments", "free"), INDEXING)
def test_indexing(law, op, inputs, arguments, free):
    checked = law(op, inputs, arguments)
    assert (checked.free, checked.exact) == (free, free)
    assert checked.flags == {}


@pytest.mark.parametrize(
    ("op", "inputs", "arguments", "pins"),
    [
        ("embedding", [(4, 5), ROWS], None, {"indexed by position"}),
        ("masked_select", [(4,), MASK], None, {"selected by a mask"}),
        ("index.Tensor", [(4, 5), MASK], lambda x, m: (x, [m]),
         {"indexed by position", "selected by a mask"}),
    ],
)  # fmt: skip
def test_reasons(law, op, inputs, arguments, pins):
    assert law(op, inputs, arguments).pins == pins
