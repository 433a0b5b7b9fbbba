"""Which weights can absorb a change of a scale: rows that nothing but the scaled product reads.

From each `Site` the recorded operators are followed back, through what is linear in its input, to
the weights that make it: the query's rows of a projection, the weight of a norm. Every tensor on
the way may be read by the way alone; where a fused projection is taken apart, the other pieces
must be other rows. Which rows those are is found by running the views on row numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter

from secateur.core.scales import Rows
from secateur.graph.call import OpCall
from secateur.graph.scales import Conversion, Site

_VIEWS = frozenset(
    "view _unsafe_view reshape permute transpose t unbind select slice split split_with_sizes "
    "chunk squeeze unsqueeze expand alias detach narrow unfold".split()
)
_COPIES = frozenset("clone contiguous _to_copy lift_fresh".split())
_LINEAR = frozenset("neg view_as_complex view_as_real index_select gather roll flip".split())
_SUMS = frozenset("cat stack add sub".split())
_FACTORS = frozenset("mul div".split())
_PRODUCTS = frozenset("mm bmm matmul".split())
_BATCH_NORMS = frozenset(
    "_native_batch_norm_legit_no_training native_batch_norm batch_norm cudnn_batch_norm".split()
)


class _CannotFold(Exception):
    """Something on the way is not linear, or is read by something else."""


def fold_sites(
    conversions: Iterable[Conversion],
    calls: Sequence[OpCall],
    names: Mapping[int, str],
    finals: Iterable[Tensor],
) -> dict[Site, tuple[Rows, ...]]:
    """The weights of every site that can be folded; marks conversions all of whose sites are.

    names: of the model's parameters, by the id of their stand-in. finals: outputs of the forward.
    """
    found: dict[Site, tuple[Rows, ...]] = {}
    wanted = [c for c in conversions if c.followed and c.sites]
    if not wanted or not calls:
        return found
    forward = _Forward(calls, names, {id(tensor) for tensor in finals})
    for conversion in wanted:
        own = {site: forward.weights(site) for site in conversion.sites}
        complete = {site: rows for site, rows in own.items() if rows is not None}
        if len(complete) == len(own):
            conversion.folded = True
            found.update(complete)
    return found


@dataclass
class _Way:
    """What was passed from a site back to its weights."""

    passed: set[int] = field(default_factory=set)
    tensors: list[Tensor] = field(default_factory=list)
    sources: list[_Source] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Source:
    """Weights whose rows number the indices of dimension `dim` of `out`: tensor, dimension, and
    the index at which its rows begin."""

    out: Tensor
    dim: int
    weights: tuple[tuple[Tensor, int, int], ...]


class _Forward:
    """The recorded operators, by what they read and write."""

    def __init__(self, calls: Sequence[OpCall], names: Mapping[int, str], finals: set[int]) -> None:
        self.names = names
        self.finals = finals
        self.made_by: dict[int, OpCall] = {}
        self.read_by: dict[int, list[OpCall]] = {}
        self.mutated: set[int] = set()
        for call in calls:
            ins = {id(t) for t in tree_iter((call.args, call.kwargs)) if isinstance(t, Tensor)}
            for key in ins:
                self.read_by.setdefault(key, []).append(call)
            for out in call.out if call.returns_many else (call.out,):
                self.mutated.update(ins & {id(out)})
                self.made_by[id(out)] = call

    def weights(self, site: Site) -> tuple[Rows, ...] | None:
        """The rows that scale one of the site's operands and nothing else; None if there are
        none."""
        for operand in site.operands:
            way = _Way()
            try:
                self._back(operand, way)
                return self._rows(operand, way)
            except _CannotFold:
                continue
        return None

    def _back(self, tensor: Tensor, way: _Way) -> None:
        """Follow a tensor back to weights. Raises: _CannotFold."""
        if any(tensor is known for known in way.tensors):
            return
        if id(tensor) in self.mutated:
            raise _CannotFold
        way.tensors.append(tensor)
        if id(tensor) in self.names:
            way.sources.append(_Source(tensor, 0, ((tensor, 0, 0),)))
            return
        call = self.made_by.get(id(tensor))
        if call is None:
            raise _CannotFold
        way.passed.add(id(call))
        name = call.name.removesuffix("_")
        source = self._source(call, name)
        if source is not None:
            for weight, _, _ in source.weights:
                self._only_reader(weight)
            way.sources.append(source)
        elif name in _VIEWS or name in _COPIES or name in _LINEAR:
            self._back(call.args[0], way)
        elif name in _SUMS and (isinstance(call.args[0], list) or isinstance(call.args[1], Tensor)):
            for term in tree_iter(call.args):
                if isinstance(term, Tensor):
                    self._back(term, way)
        elif name in _FACTORS or name in _PRODUCTS:
            # a divisor is no factor
            self._back_one(call.args[: 1 if name == "div" else 2], way)
        else:
            raise _CannotFold

    def _back_one(self, factors: Sequence[Any], way: _Way) -> None:
        """Follow the first factor that leads to weights."""
        for factor in factors:
            attempt = _Way(set(way.passed), list(way.tensors), list(way.sources))
            try:
                if not isinstance(factor, Tensor):
                    continue
                self._back(factor, attempt)
            except _CannotFold:
                continue
            way.passed, way.tensors, way.sources = attempt.passed, attempt.tensors, attempt.sources
            return
        raise _CannotFold

    def _source(self, call: OpCall, name: str) -> _Source | None:
        """The weights in which the output is linear and whose rows are its indices."""
        found: Sequence[tuple[Any, int]] = ()
        dim, args = -1, call.args
        if name == "linear":
            found = [(args[1], 0), *((b, 0) for b in args[2:3])]
        elif name == "addmm" and not call.kwargs:
            found = [(args[0], 0), self._matrix(args[2])]
        elif name in ("mm", "matmul"):
            found = [self._matrix(args[1])]
        elif name == "embedding":
            found = [(args[0], 1)]
        elif name == "convolution":
            found, dim = [(args[1], 0), (args[2], 0)], 1
            if args[6]:  # transposed: [in, out / groups, ...]
                found = [(args[1], 1), (args[2], 0)] if args[8] == 1 else []
        elif name in ("native_layer_norm", "_fused_rms_norm") and len(args[1]) == 1:
            found = [(args[2], 0), *((b, 0) for b in args[3:4] if isinstance(b, Tensor))]
        elif name in _BATCH_NORMS:
            found, dim = [(args[1], 0), (args[2], 0)], 1
        pieces = [
            (*piece, start)
            for weight, row in found
            if weight is not None
            for piece, start in self._pieces(weight, row)
        ]
        if not any(id(weight) in self.names for weight, _, _ in pieces):
            return None
        return _Source(call.first_out, dim, tuple(pieces))

    def _pieces(self, weight: Tensor, row: int) -> Iterator[tuple[tuple[Tensor, int], int]]:
        """A weight, or the vectors that the forward joins to one (query, key and value biases)."""
        call = self.made_by.get(id(weight))
        if call is None or call.name != "cat" or weight.dim() != 1:
            yield (weight, row), 0
            return
        start = 0
        for piece in call.args[0]:
            yield (piece, 0), start
            start += len(piece)

    def _matrix(self, operand: Any) -> tuple[Any, int]:
        """The weight behind the second operand of a matrix product, and the dimension of its rows
        that are the product's columns."""
        call = self.made_by.get(id(operand))
        if call is not None and call.name in ("t", "transpose") and operand.dim() == 2:
            self._only_reader(operand)
            return call.args[0], 0
        return operand, 1

    def _only_reader(self, tensor: Tensor) -> None:
        """Raises: _CannotFold when a tensor is read a second time."""
        if len(self.read_by.get(id(tensor), [])) != 1:
            raise _CannotFold

    def _rows(self, operand: Tensor, way: _Way) -> tuple[Rows, ...]:
        """The rows of every source. Raises: _CannotFold when something off the way reads what
        they make."""
        self._check_products(operand, way)
        rows = {id(source): self._rows_of(source, operand, way) for source in way.sources}
        return tuple(
            Rows(self._name(weight), dim, within)
            for source in way.sources
            for weight, dim, start in source.weights
            if (within := _clipped(rows[id(source)], start, weight.shape[dim]))
        )

    def _name(self, weight: Tensor) -> str:
        if id(weight) not in self.names:
            raise _CannotFold  # a buffer, or something computed
        return self.names[id(weight)]

    def _readers(self, tensor: Tensor, operand: Tensor, way: _Way) -> tuple[int, int]:
        """How many operators other than views read a tensor on the way and off it. The operand's
        own reader, which multiplies it by the number, is on the way."""
        readers = [c for c in self.read_by.get(id(tensor), []) if not _is_view(c)]
        known = any(tensor is passed for passed in way.tensors)
        inside = sum(id(call) in way.passed for call in readers) if known else 0
        outside = len(readers) - inside
        if tensor is operand and outside == 1:
            inside, outside = inside + 1, 0
        leaves = not self.read_by.get(id(tensor)) or id(tensor) in self.finals
        return inside, outside + leaves

    def _check_products(self, operand: Tensor, way: _Way) -> None:
        """What was computed on the way, and its views, may be read by the way alone."""
        sources = {id(source.out) for source in way.sources}
        pending = [
            tensor
            for tensor in way.tensors
            if id(tensor) not in sources and not _is_view(self.made_by[id(tensor)])
        ]
        while pending:
            tensor = pending.pop()
            if self._readers(tensor, operand, way)[1]:
                raise _CannotFold
            for call in self.read_by.get(id(tensor), []):
                if _is_view(call):
                    pending += call.out if call.returns_many else [call.out]

    def _rows_of(self, source: _Source, operand: Tensor, way: _Way) -> tuple[tuple[int, int], ...]:
        """The rows of one source that the way takes, and that nothing off it reads."""
        taken, others = [], []
        pending = [(source.out, _row_numbers(source))]
        while pending:
            tensor, numbers = pending.pop()
            inside, outside = self._readers(tensor, operand, way)
            taken += [numbers] * bool(inside)
            others += [numbers] * bool(outside)
            for call in self.read_by.get(id(tensor), []):
                if _is_view(call):
                    pending += _viewed(call, numbers)
        size = source.out.shape[source.dim]
        ours, theirs = _marked(taken, size), _marked(others, size)
        if not ours.any() or (ours & theirs).any():
            raise _CannotFold
        return _ranges(ours)


def _clipped(
    ranges: Sequence[tuple[int, int]], start: int, size: int
) -> tuple[tuple[int, int], ...]:
    """The part of the ranges within `size` rows from `start`, counted from there.

    >>> _clipped([(0, 4), (8, 12)], 2, 8)
    ((0, 2), (6, 8))
    """
    clipped = [(max(a - start, 0), min(b - start, size)) for a, b in ranges]
    return tuple((a, b) for a, b in clipped if a < b)


def _is_view(call: OpCall) -> bool:
    return call.name in _VIEWS or call.name in _COPIES


def _row_numbers(source: _Source) -> Tensor:
    """The index along the source's dimension of every element, without memory for the others."""
    shape = source.out.shape
    dim = source.dim % len(shape)
    alone = [-1 if k == dim else 1 for k in range(len(shape))]
    return torch.arange(shape[dim]).reshape(alone).expand(shape)


def _viewed(call: OpCall, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The view's outputs and their row numbers."""
    if call.name in _COPIES:
        return [(call.first_out, numbers)]
    run: Callable[..., Any] = call.func
    if call.name in ("view", "_unsafe_view"):
        run = torch.ops.aten.reshape.default  # numbers are expanded, which a view may not merge
    out = run(numbers, *call.args[1:], **call.kwargs)
    if not call.returns_many:
        return [(call.out, out)]
    return list(zip(call.out, out, strict=True))


def _marked(found: Sequence[Tensor], size: int) -> Tensor:
    mark = torch.zeros(size, dtype=torch.bool)
    for numbers in found:
        for dim, stride in enumerate(numbers.stride()):
            if stride == 0 and numbers.numel():
                numbers = numbers.narrow(dim, 0, 1)
        mark[numbers.reshape(-1)] = True
    return mark


def _ranges(mark: Tensor) -> tuple[tuple[int, int], ...]:
    """Half-open ranges of the true elements.

    >>> _ranges(torch.tensor([True, True, False, True]))
    ((0, 2), (3, 4))
    """
    padded = [False, *mark.tolist(), False]
    edges = [k for k, (before, after) in enumerate(pairwise(padded)) if before != after]
    return tuple(zip(edges[::2], edges[1::2], strict=True))
