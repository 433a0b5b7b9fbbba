"""Synaptic flow: the gradient of ``R = sum of f(1; |theta|)`` for an input of ones, without data.

It is taken on a copy of the model in float64, in evaluation mode: the product of the weights of all
layers leaves the range of float32 in deep nets. Of the buffers only the running means of batch
norms become absolute, since they are the only ones that a trained net subtracts; masks, positions
and tables stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.core.copies import copied
from secateur.core.dims import dim_size
from secateur.core.errors import ScoreError
from secateur.core.graph import Graph
from secateur.core.modes import without_fast_path
from secateur.criteria.gradients import Gradients
from secateur.criteria.running import inputs_of
from secateur.criteria.shares import first_of

_RUNNING_MEAN = "running_mean"
_MODEL_ERRORS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError)
"""What a model's own code raises for inputs that it did not expect."""


def synaptic_gradients(model: nn.Module, data: Iterable[Any]) -> Gradients:
    """The gradient of R by the magnitude of every parameter, also of frozen ones; float64.

    data: of the first batch, floating-point inputs become ones and numbers of tokens stay.
    Raises: ScoreError when there is no batch, or the model does not run on it.
    """
    first = first_of(data)
    if not first:
        raise ScoreError("the calibration data holds no batch; leave data out, or pass inputs")
    twin = copied(model).double().eval().requires_grad_(True)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.abs_()
        for name, buffer in twin.named_buffers():
            if name.rpartition(".")[2] == _RUNNING_MEAN:
                buffer.abs_()
    args, kwargs = pytree.tree_map_only(Tensor, _ones, inputs_of(twin, first[0]))
    parameters = dict(twin.named_parameters())
    with torch.enable_grad(), without_fast_path():
        flow = _summed(twin, args, kwargs)
        found = torch.autograd.grad(flow, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters, found, strict=True)
    return {name: gradient for name, gradient in pairs if gradient is not None}


def ones_for(graph: Graph) -> list[Any]:
    """One batch of ones with the shapes of the inputs that the graph was traced with."""
    inputs = tuple(torch.ones([dim_size(dim) for dim in dims]) for dims in graph.inputs)
    return [(inputs, None)]


def _ones(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return torch.ones_like(tensor, dtype=torch.float64)


def _summed(model: nn.Module, args: Any, kwargs: Any) -> Tensor:
    try:
        outputs = model(*args, **kwargs)
    except _MODEL_ERRORS as error:
        raise ScoreError(
            f"the model does not run on ones in float64: {type(error).__name__}: {error}. Pass a "
            "batch of its real inputs, data=[inputs], of which only the shapes and the numbers of "
            "tokens count; or use a criterion such as 'l2'"
        ) from error
    leaves = [t for t in pytree.tree_leaves(outputs) if isinstance(t, Tensor) and t.requires_grad]
    if not leaves:
        raise ScoreError(
            "no output of the model depends on its parameters, so nothing flows; "
            "use a criterion such as 'l2'"
        )
    return torch.stack([leaf.real.sum() for leaf in leaves]).sum()
