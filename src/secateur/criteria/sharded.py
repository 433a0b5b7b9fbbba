"""Scores of units whose weights lie on many ranks: partial sums of shards, added up exactly.

For criteria that sum one term for each weight (`TERM`). A term is split over bins of 22 bits at
places that the largest term of the model decides; what falls into a bin is a whole number, and
whole numbers add up to the same bits in any order. So the scores do not depend on how the model is
sharded, nor over how many ranks, and nothing of a parameter's size is sent: four numbers a unit.
What is dropped of a term is less than 2**-87 of the largest one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import ModuleType

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from secateur.core.dims import unit_rows
from secateur.core.errors import ScoreError
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Graph, Member
from secateur.core.lookup import find, names
from secateur.core.plan import Scores
from secateur.core.shards import Part, ShardedWorld
from secateur.core.world import World
from secateur.criteria.marginals import Term
from secateur.criteria.matrices import parameter_members
from secateur.criteria.score import check_model
from secateur.criteria.sound import check_present

WIDTH = 22
"""Bits of a bin: a billion whole numbers of so many bits are a sum that float64 holds."""
BINS = 4
_LEAST = -900
"""Bins of smaller terms would need factors that float64 does not have."""
_CHUNK = {"cpu": 1 << 16}
_ELSEWHERE = 1 << 22
PACKAGE = "secateur.criteria"


def score_shards(
    graph: Graph, model: nn.Module, world: ShardedWorld, *, criterion: str = "l2"
) -> Scores:
    """As `score` for a model whose parameters are sharded over the ranks of `world`.

    The scores are the same on every rank, bit for bit, and for any number of ranks; those of
    `score` in one process are these within rounding.
    Raises: ValueError for a criterion that does not sum over single weights; ScoreError for NaN
    and infinite weights, on every rank; PlanMismatchError when the graph is another model's.
    """
    rule = find(PACKAGE, criterion, kind="criterion")
    if vars(rule).get("TERM") is None:
        known = [name for name in names(PACKAGE) if _has_term(name)]
        raise ValueError(
            f"criterion {criterion!r} is no sum over single weights, and shards of them cannot be "
            f"scored by it; those that are: {', '.join(known)}"
        )
    world.settle_(model)
    check_model(graph, model)
    tensors = dict(named_tensors(model))
    check_present(graph, tensors, criterion)
    members = {
        group.id: [
            m for m in parameter_members(graph, group) if tensors[m.tensor].is_floating_point()
        ]
        for group in graph.free
    }
    wanted = dict.fromkeys(member.tensor for own in members.values() for member in own)
    parts = world.parts({name: tensors[name] for name in wanted})
    return _scores(rule, graph, members, parts, world)


def _has_term(name: str) -> bool:
    return vars(find(PACKAGE, name, kind="criterion")).get("TERM") is not None


def _scores(
    rule: ModuleType,
    graph: Graph,
    members: Mapping[str, Sequence[Member]],
    parts: Mapping[str, Part],
    world: World,
) -> Scores:
    exponent = _exponent(parts, rule.TERM, world)
    dims: dict[str, set[int]] = {}
    for own in members.values():
        for member in own:
            dims.setdefault(member.tensor, set()).add(member.dim)
    known: dict[str, dict[int, Tensor]] = {}
    totals = {}
    for group in graph.free:
        if not members[group.id]:
            continue
        total_BU = torch.zeros(BINS, group.size, dtype=torch.float64)
        for member in members[group.id]:
            name = member.tensor
            if name not in known:
                known[name] = partial_sums(parts[name], rule.TERM, dims[name], exponent=exponent)
            dim = graph.tensors[name].dims[member.dim]
            for total_U, sums in zip(total_BU, known[name][member.dim], strict=True):
                for rows in unit_rows(sums, 0, dim, group.axis):
                    total_U += rows.sum(1)
        totals[group.id] = total_BU
    if not totals:
        return {}
    together_BU = torch.cat(list(totals.values()), dim=1)
    world.sum_([together_BU], what="what the units' weights add up to")
    sizes = [total_BU.shape[1] for total_BU in totals.values()]
    values = _value(together_BU, exponent) ** (1 / rule.POWER)
    return dict(zip(totals, values.split(sizes), strict=True))


def partial_sums(
    part: Part, term: Term, dims: Collection[int], *, exponent: int
) -> dict[int, Float64[Tensor, "bins indices"]]:
    """For each of these dimensions: what the terms of each of its indices add up to here, in bins;
    zeros for the indices that lie elsewhere. The largest of all terms is below 2**exponent."""
    shard = part.shard
    found = {k: torch.zeros(BINS, shard.shape[k], dtype=torch.float64) for k in dims}
    if not part.counted or not shard.own:
        return found
    for top, block in _blocks(part.tensor):
        rest = _terms(block, term).mul_(2.0 ** (WIDTH - exponent))
        for bin in range(BINS):
            whole = rest.round()
            for k, sums_BK in found.items():
                others = [other for other in range(whole.dim()) if other != k]
                own = whole.sum(others) if others else whole
                first = shard.start[k] + (top if k == 0 else 0)
                sums_BK[bin, first : first + len(own)] += own.cpu()
            rest.sub_(whole).mul_(2.0**WIDTH)
    return found


def _blocks(tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    """A tensor in blocks of its first dimension, each with its first index."""
    elements = _CHUNK.get(tensor.device.type, _ELSEWHERE)
    height = max(1, elements * len(tensor) // max(tensor.numel(), 1))
    return ((top, tensor[top : top + height]) for top in range(0, len(tensor), height))


def _terms(block: Tensor, term: Term) -> Tensor:
    """In float64, in which the square of a float32 is exact; a new tensor."""
    terms: Tensor = term(block.detach().double())
    return terms


def _exponent(parts: Mapping[str, Part], term: Term, world: World) -> int:
    """Of a power of two above all terms of all ranks. Raises: ScoreError, on every rank."""
    most, wrong = 0.0, ""
    for name, part in parts.items():
        for _, block in _blocks(part.tensor):
            largest = float(_terms(block, term).max()) if block.numel() else 0.0
            most, wrong = max(most, largest), wrong or ("" if math.isfinite(largest) else name)
    for name in world.gather(wrong, what="whether all weights are finite"):
        if name:
            raise ScoreError(
                f"{name} holds NaN or infinite values, and a score computed from them means "
                "nothing; load a sound checkpoint, or set them with torch.nan_to_num_"
            )
    return max(world.gather(max(math.frexp(most)[1], _LEAST), what="how large the weights are"))


def _value(sums_BU: Tensor, exponent: int) -> Tensor:
    """What sums in bins stand for, the smallest first."""
    total_U = torch.zeros_like(sums_BU[0])
    for bin in reversed(range(BINS)):
        total_U += sums_BU[bin] * 2.0 ** (exponent - WIDTH * (bin + 1))
    return total_U
