"""Counted cost: small graphs checked by hand, random dimensions against the plain recursion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.core.cost import Cost
from secateur.core.dims import Axis, Concat, Dim, dim_size, new_size
from secateur.core.graph import Graph, Op, TensorType, Value
from secateur.cost.counted import CostModel, cost
from secateur.cost.sizes import SizeTable

N, A, B, C = Axis(0, 2), Axis(1, 8), Axis(2, 4), Axis(3, 16)
X, Y, Z = ((N,), (A,)), ((N,), (B,)), ((N,), (C,))


def graph(ops: tuple[Op, ...], tensors: dict[str, TensorType]) -> Graph:
    return Graph(
        groups=(),
        tensors=tensors,
        ops=ops,
        calls=(),
        relations=(),
        fields={},
        inputs=(X,),
        outputs=(Z,),
        unknown_ops={},
        fingerprint="",
    )


def weight(*dims: Dim, itemsize: int = 4, is_parameter: bool = True) -> TensorType:
    return TensorType(dims, itemsize, trainable=is_parameter, is_parameter=is_parameter)


@pytest.fixture
def two_linears() -> Graph:
    """x [2, 8] -> w1 -> relu -> w2 -> [2, 16], one buffer of 4 int64."""
    x, w1, w2 = Value(0, X, 4), Value(1, ((B,), (A,)), 4), Value(2, ((C,), (B,)), 4)
    h, r, y = Value(3, Y, 4), Value(4, Y, 4), Value(5, Z, 4)
    ops = (
        Op("t", "", (w1,), (Value(1, ((A,), (B,)), 4),)),
        Op("mm", "", (x, w1), (h,), macs=(((N,), (A,), (B,)),)),
        Op("relu", "", (h,), (r,)),
        Op("mm", "", (r, w2), (y,), macs=(((N,), (B,), (C,)),)),
    )
    tensors = {
        "w1": weight((B,), (A,)),
        "w2": weight((C,), (B,)),
        "steps": weight((B,), itemsize=8, is_parameter=False),
    }
    return graph(ops, tensors)


def test_dense_cost_by_hand(two_linears: Graph) -> None:
    # weights 32 + 64; macs 2*8*4 + 2*4*16; bytes 4*96 + 8*4
    # alive at most: h and r (2*4 each), or r and y (2*4 and 2*16): 40 floats; the input: 16 floats
    assert cost(two_linears) == Cost(
        params=96, macs=64 + 128, size_bytes=416, peak_memory_bytes=416 + 4 * 40 + 4 * 16
    )


def test_cut_cost_by_hand(two_linears: Graph) -> None:
    # B keeps 1 of 4
    assert cost(two_linears, {B.index: 1}) == Cost(
        params=8 + 16,
        macs=2 * 8 + 2 * 16,
        size_bytes=4 * 24 + 8,
        peak_memory_bytes=104 + 4 * (2 + 32) + 4 * 16,
    )


def test_single_figures_agree_with_the_whole(two_linears: Graph) -> None:
    model = CostModel(two_linears)
    for kept in range(1, 5):
        whole = model.cost({B.index: kept})
        assert model.params({B.index: kept}) == whole.params
        assert model.macs({B.index: kept}) == whole.macs


def test_axes_that_the_graph_lacks_do_not_matter(two_linears: Graph) -> None:
    assert cost(two_linears, {99: 1}) == cost(two_linears)


def test_storage_lives_until_its_last_view_is_read() -> None:
    # a is made, viewed, and the view is read last: b and c come and go meanwhile
    a, view = Value(1, ((A,),), 4), Value(1, ((Axis(7, 2), Axis(8, 4)),), 4)
    b, c, d = Value(2, ((C,),), 4), Value(3, ((B,),), 4), Value(4, ((B,),), 4)
    ops = (
        Op("make", "", (), (a,)),
        Op("view", "", (a,), (view,)),
        Op("make", "", (), (b,)),
        Op("relu", "", (b,), (c,)),
        Op("add", "", (view, c), (d,)),
    )
    assert cost(graph(ops, {})).peak_memory_bytes == 4 * (8 + 16 + 4)


def test_expanded_view_takes_no_memory() -> None:
    small, expanded = Value(1, ((), (A,)), 4), Value(1, ((C,), (A,)), 4)
    ops = (Op("make", "", (), (small,)), Op("expand", "", (small,), (expanded,)))
    assert cost(graph(ops, {})).peak_memory_bytes == 4 * 8


def test_graph_without_operators_costs_its_tensors() -> None:
    tensors = {"w": weight((A,), (Concat(((B,), (C,))),))}
    assert cost(graph((), tensors), {C.index: 3}) == Cost(56, 0, 224, 224)


def test_equal_products_are_summed_as_often_as_they_occur() -> None:
    tensors = {name: weight((A,), (B,)) for name in "abc"}
    assert cost(graph((), tensors)).params == 3 * 32


SIZES = (3, 4, 5, 2)
axes = st.integers(0, 3).map(lambda index: Axis(index, SIZES[index]))
dims = st.recursive(
    st.lists(axes, max_size=3).map(tuple),
    lambda inner: st.lists(
        axes | st.lists(inner, min_size=1, max_size=3).map(lambda parts: Concat(tuple(parts))),
        max_size=2,
    ).map(tuple),
    max_leaves=6,
)
counts = st.dictionaries(st.integers(0, 3), st.integers(1, 2))


@given(st.lists(dims, min_size=1, max_size=5), counts)
def test_size_table_equals_the_recursion(some: list[Dim], kept: dict[int, int]) -> None:
    table = SizeTable()
    slots = [table.add(dim) for dim in some]
    product = table.add_product(some)
    full, cut = table.evaluate({}), table.evaluate(kept)
    assert [full[slot] for slot in slots] == [dim_size(dim) for dim in some]
    assert [cut[slot] for slot in slots] == [new_size(dim, kept) for dim in some]
    expected = 1
    for dim in some:
        expected *= new_size(dim, kept)
    assert cut[product] == expected
