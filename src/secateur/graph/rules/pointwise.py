"""Pointwise operators: inputs broadcast, equal dimensions are one.

torch tags most of them (`torch.Tag.pointwise`) and the tracer sends those here; the names below
are pointwise too but carry no tag. A pointwise operator that makes something of zero is exact all
the same: what reads the unit afterwards has its weights zeroed too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from secateur.graph.call import NoRule, OpCall, broadcast, dims_of, handles
from secateur.graph.types import Dims


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a nest of lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


@handles(
    "_assert_tensor_metadata",
    "_autocast_to_full_precision",
    "_autocast_to_reduced_precision",
    "_conj",
    "_fused_dropout",
    "_lazy_clone",
    "_neg_view",
    "_pin_memory",
    "_prelu_kernel",
    "_to_copy",
    "_to_cpu",
    "alias",
    "alpha_dropout",
    "bernoulli",
    "binomial",
    "cauchy",
    "complex",
    "conj",
    "contiguous",
    "copy",
    "detach",
    "dropout",
    "empty_like",
    "exponential",
    "feature_alpha_dropout",
    "feature_dropout",
    "fill",
    "floor_divide",
    "full_like",
    "geometric",
    "hardswish",
    "isclose",
    "isreal",
    "lift",
    "lift_fresh",
    "lift_fresh_copy",
    "log_normal",
    "log_sigmoid",
    "log_sigmoid_forward",
    "multiply",
    "native_dropout",
    "ones_like",
    "pin_memory",
    "poisson",
    "polar",
    "rand_like",
    "randint_like",
    "randn_like",
    "random",
    "real",
    "imag",
    "resolve_conj",
    "resolve_neg",
    "rrelu_with_noise",
    "subtract",
    "divide",
    "to",
    "type_as",
    "uniform",
    "zero",
    "zeros_like",
)
def pointwise(call: OpCall) -> Dims | list[Dims | None]:
    inputs = [dims_of(tensor) for tensor in _tensors([*call.args, *call.kwargs.values()])]
    if not inputs:
        raise NoRule("no tensor among the inputs")
    shape = tuple(call.first_out.shape)
    if any(len(dims) > len(shape) for dims in inputs):
        raise NoRule("the output has fewer dimensions than an input")
    result = broadcast(inputs, shape, call.where)
    if not call.returns_many:
        return result
    return [result if tuple(out.shape) == shape else None for out in call.out]
