"""Activations that a backward needs, from the recorded forward: what each operator keeps.

An operator keeps what its derivative reads: a product its factors, an exponential its result, a
sum nothing. A storage counts once however many keep it; weights don't count. What an operator that
is not listed keeps is taken to be its inputs. Dropout is not in a forward that was recorded in
evaluation mode, and neither are its masks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod

from secateur.core.dims import Counts, new_size
from secateur.core.graph import Graph, Op, Value

FACTORS = frozenset("mul mul_ div div_ mm bmm addmm baddbmm matmul linear convolution".split())
"""Each input is kept if the other one needs a gradient."""
RESULTS = frozenset(
    "relu relu_ sigmoid sigmoid_ tanh tanh_ exp rsqrt sqrt softmax _softmax log_softmax "
    "_log_softmax reciprocal".split()
)
NOTHING = frozenset(
    "add add_ sub sub_ rsub neg sum mean view _unsafe_view reshape t transpose permute expand "
    "slice select squeeze unsqueeze flatten unflatten cat stack split split_with_sizes chunk "
    "unbind clone contiguous detach alias _to_copy to constant_pad_nd adaptive_avg_pool2d "
    "_adaptive_avg_pool2d copy_ repeat arange full zeros ones zeros_like ones_like "
    "upsample_nearest2d unfold".split()
)
ATTENTION = "scaled_dot_product_attention"
BOTH = frozenset({ATTENTION, "max_pool2d_with_indices", "native_layer_norm"})
"""Inputs, and every result but the first as well; of attention the first too."""
COPIED = frozenset("hardtanh_ hardswish_ silu_ gelu_ mish_ elu_ hardsigmoid_".split())
"""In place, and the derivative reads what was there before: a copy of it is kept."""


def saved_by_op(graph: Graph, *, counts: Counts | None = None) -> Iterator[tuple[Op, int]]:
    """For each operator the bytes that are kept because of it and were not kept before.

    counts: how many units each axis has, on a rank that holds not all of them.
    """
    counts = counts or {}
    needs, same = need_gradients(graph), _same_memory(graph)
    sizes: dict[int, int] = {}
    seen = weight_storages(graph)
    for op in graph.ops:
        for value in (*op.inputs, *op.outputs):
            sizes.setdefault(value.storage, _bytes(value, counts))
        kept = {same.get(value.storage, value.storage) for value in _kept(op, needs)} - seen
        seen |= kept
        yield op, sum(sizes[storage] for storage in kept) + _unseen(op, needs, counts)


def _kept(op: Op, needs: Collection[int]) -> Iterator[Value]:
    """The values whose memory an operator holds on to."""
    if op.name in NOTHING or not any(value.storage in needs for value in op.inputs):
        return
    if op.name in RESULTS:
        yield from op.outputs
    elif op.name in FACTORS:
        for index, value in enumerate(op.inputs):
            others = (*op.inputs[:index], *op.inputs[index + 1 :])
            if any(other.storage in needs for other in others):
                yield value
    elif op.name == "embedding":
        yield from op.inputs[1:]
    elif op.name not in COPIED:
        yield from op.inputs
        if op.name in BOTH:
            yield from op.outputs[0 if op.name == ATTENTION else 1 :]


def _unseen(op: Op, needs: Collection[int], counts: Counts) -> int:
    """What an operator keeps that is no value of the graph: attention the logarithm of its sums,
    one number for each query and head, in float32; batch norm in training two numbers a channel,
    in float32; some of those in place a copy."""
    if not op.inputs or op.inputs[0].storage not in needs:
        return 0
    first = op.inputs[0]
    if op.name == ATTENTION:
        return prod(new_size(dim, counts) for dim in first.dims[:-1]) * 4
    if op.name == "batch_norm":
        return 2 * new_size(first.dims[1], counts) * 4
    return _bytes(first, counts) if op.name in COPIED else 0


def _same_memory(graph: Graph) -> dict[int, int]:
    """Attention writes its result in the order in which the next layer reads it, so that what was
    recorded as a copy into that order is none."""
    results = {v.storage for op in graph.ops if op.name == ATTENTION for v in op.outputs}
    return {
        op.outputs[0].storage: op.inputs[0].storage
        for op in graph.ops
        if op.name == "clone" and op.inputs[0].storage in results
    }


def weight_storages(graph: Graph) -> set[int]:
    """Storages of parameters and buffers: read before any operator made them, and no input."""
    made: set[int] = set()
    found: set[int] = set()
    inputs = set(graph.inputs)
    for op in graph.ops:
        for value in op.inputs:
            if value.storage not in made and value.dims not in inputs:
                found.add(value.storage)
        made.update(value.storage for value in op.outputs)
    return found


def need_gradients(graph: Graph) -> set[int]:
    """Storages through which the loss reaches a parameter, parameters among them."""
    shapes = {tensor.dims for tensor in graph.tensors.values() if tensor.trainable}
    shapes |= {tuple(reversed(dims)) for dims in shapes}
    parameters = weight_storages(graph)
    needs: set[int] = set()
    for op in graph.ops:
        for value in op.inputs:
            if value.storage in parameters and value.dims in shapes and value.itemsize != 8:
                needs.add(value.storage)
        if any(value.storage in needs for value in op.inputs):
            needs.update(value.storage for value in op.outputs)
    return needs


def _bytes(value: Value, counts: Counts) -> int:
    return prod(new_size(dim, counts) for dim in value.dims) * value.itemsize
