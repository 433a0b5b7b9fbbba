"""Which outputs of a dense model's layer the cut model's layer still makes, and by what factor.

Told from the weights alone: element by element, where in the dense parameter an element of the cut
one came from. So parts, transposes and stacks of parameters need no case of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from secateur.core.plan import Plan
from secateur.criteria.activations import dim_of
from secateur.criteria.contractions import Use
from secateur.cut.apply import kept_of


@dataclass(frozen=True)
class Kept:
    """For each output of the cut layer: its number in the dense one, and what the plan multiplies
    it with."""

    indices_M: Int64[Tensor, " outputs"]
    factors_M: Float64[Tensor, " outputs"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """The same parameter in both models."""

    dense: Tensor
    cut: Tensor


def kept_outputs(plan: Plan, name: str, dense: Use, cut: Use, *, of: Parameters) -> Kept | None:
    """For a product; None where the cut layer makes something that the dense one does not."""
    where = torch.full((of.dense.numel(),), -1)
    spots_MF = _spots(dense, of.dense)
    where[spots_MF.flatten()] = torch.arange(len(spots_MF)).repeat_interleave(spots_MF.shape[1])
    firsts_M = sources(plan, name, of=of)[_spots(cut, of.cut)[:, 0]]
    indices_M = where[firsts_M]
    if bool((indices_M < 0).any()):
        return None
    dim = 0 if dense.window is not None else dim_of(dense.weight, 1, of.dense)
    factors_M = torch.ones(len(indices_M), dtype=torch.float64)
    for fold in plan.folds:
        if fold.rows.tensor == name and fold.rows.dim == dim:
            along_M = (firsts_M // of.dense.stride(dim)) % of.dense.shape[dim]
            for start, stop in fold.rows.ranges:
                factors_M[(along_M >= start) & (along_M < stop)] *= fold.factor
    return Kept(indices_M, factors_M)


def sources(plan: Plan, name: str, *, of: Parameters) -> Int64[Tensor, " elements"]:
    """Where in the dense parameter's memory every element of the cut one's memory came from."""
    kept = _places(of.dense)
    if name in plan.tensors:
        for dim, indices in enumerate(kept_of(plan)(name)):
            kept = kept if indices is None else kept.index_select(dim, indices)
    found = torch.empty(of.cut.numel(), dtype=torch.int64)
    found[_places(of.cut).flatten()] = kept.flatten()
    return found


def _places(parameter: Tensor) -> Tensor:
    """Where in its memory each element of a parameter lies."""
    return torch.arange(parameter.numel()).as_strided(parameter.shape, parameter.stride())


def _spots(use: Use, whole: Tensor) -> Int64[Tensor, "outputs features"]:
    """Where in the parameter's memory the weights lie that make each output."""
    offset = int(use.weight.storage_offset() - whole.storage_offset())
    flat = torch.arange(whole.numel()).as_strided(use.weight.shape, use.weight.stride(), offset)
    return flat.flatten(1) if use.window is not None else flat.T
