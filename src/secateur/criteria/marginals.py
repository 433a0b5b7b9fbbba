"""Sums over all of a tensor but one dimension, for every dimension at once, in one pass.

Criteria whose units' scores are sums of one term for each weight (`TERM`, such as its square) need
nothing else: what a unit of any group weighs in a tensor is a sum of these. The weights are read
once, in blocks that stay in the processor's cache, and nothing of a tensor's size is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import torch
from jaxtyping import Float64
from torch import Tensor

Term = Callable[..., Tensor]
"""A pointwise function of a tensor that takes ``out=``."""
Sums = dict[int, Float64[Tensor, " indices"]]
"""By dimension, on the CPU."""
_BLOCK = {"cpu": 1 << 18}
"""Elements of a block: a megabyte of float32."""
_ELSEWHERE = 1 << 24
_WIDEST = 1 << 20
"""Rows of more elements are walked one by one."""
_SHORT = 1 << 17
"""Elements that are read in less time than a call takes."""


class Marginals:
    """Sums the terms of tensors one after another, with one piece of memory for all of them."""

    def __init__(self, term: Term) -> None:
        self._term = term
        self._scratch: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def __call__(self, tensor: Tensor, dims: Collection[int]) -> Sums:
        """For each of these dimensions of a tensor: the sum of the terms of each index.

        >>> of = Marginals(torch.square)
        >>> {k: v.tolist() for k, v in of(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), {0, 1}).items()}
        {0: [5.0, 25.0], 1: [10.0, 20.0]}
        """
        tensor = tensor.detach()
        if tensor.dim() < 2:
            return {k: _terms(tensor, self._term).double().cpu() for k in dims}
        shape = tensor.shape
        if tensor.dim() > 2 and math.prod(shape[1:]) > _WIDEST:
            inner = {0, *(k - 1 for k in dims if k)}
            parts = [self(part, inner) for part in tensor]
            first = torch.stack([part[0].sum() for part in parts])
            others = {k + 1: torch.stack([part[k] for part in parts]).sum(0) for k in inner}
            return {k: others[k] if k else first for k in dims}
        first, rest = self._two_sums(tensor)
        rest = rest.view(shape[1:])
        return {k: (_all_but(k - 1, rest) if k else first).cpu() for k in dims}

    def _two_sums(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the terms of each row, and of each column, of a tensor seen as a matrix."""
        rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
        height = max(1, _BLOCK.get(tensor.device.type, _ELSEWHERE) // max(columns, 1))
        if rows <= height:
            terms = self._of(tensor.reshape(rows, columns))
            return terms.sum(1).double(), terms.sum(0).double()
        dtype, device = _wide(tensor.dtype), tensor.device
        first = torch.empty(rows, dtype=dtype, device=device)
        row = torch.empty(columns, dtype=dtype, device=device)
        rest = torch.zeros(columns, dtype=torch.float64, device=device)
        for block, own in zip(torch.split(tensor, height), torch.split(first, height), strict=True):
            terms = self._of(block.reshape(len(block), columns))
            torch.sum(terms, 1, out=own)
            rest += torch.sum(terms, 0, out=row)
        return first.double(), rest

    def _of(self, block: Tensor) -> Tensor:
        """The terms of a block, in memory that the next block takes over."""
        key = block.device, _wide(block.dtype)
        memory = self._scratch.get(key)
        if memory is None or memory.numel() < block.numel():
            memory = torch.empty(block.numel(), dtype=key[1], device=key[0])
            self._scratch[key] = memory
        return _terms(block, self._term, memory[: block.numel()].view(block.shape))


def is_short(tensor: Tensor) -> bool:
    """Whether a tensor is floating and takes so little that a call costs more than its elements."""
    return tensor.is_floating_point() and tensor.numel() <= _SHORT


def terms_of(vectors: Mapping[str, Tensor], term: Term) -> dict[str, Float64[Tensor, " indices"]]:
    """The terms of many tensors of one dimension, by name, on the CPU; those of a kind at once.

    >>> {k: v.tolist() for k, v in terms_of({"a": torch.tensor([2.0, 3.0])}, torch.square).items()}
    {'a': [4.0, 9.0]}
    """
    kinds: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, vector in vectors.items():
        kinds.setdefault((vector.device, vector.dtype), []).append(name)
    found: dict[str, Tensor] = {}
    for names in kinds.values():
        flat = torch.cat([vectors[name].detach() for name in names])
        sizes = [len(vectors[name]) for name in names]
        parts = torch.split(_terms(flat, term).double().cpu(), sizes)
        found.update(zip(names, parts, strict=True))
    return found


def _all_but(k: int, sums: Tensor) -> Tensor:
    others = [other for other in range(sums.dim()) if other != k]
    return sums.sum(others) if others else sums


def _terms(tensor: Tensor, term: Term, out: Tensor | None = None) -> Tensor:
    """The terms, in float32 at least."""
    if tensor.dtype is not _wide(tensor.dtype):
        tensor = tensor.to(_wide(tensor.dtype)) if out is None else out.copy_(tensor)
    return term(tensor) if out is None else term(tensor, out=out)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.itemsize >= 4 else torch.float32
