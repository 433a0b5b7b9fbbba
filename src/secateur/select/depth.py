"""Which residual blocks go: those with the lowest scores, so many, or until the budget is met.

Depth comes before width: the blocks are chosen first, and the units of what is left after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from secateur.core.blocks import Block, inside
from secateur.core.budget import Budget
from secateur.core.depth import without_blocks
from secateur.core.errors import BudgetError
from secateur.core.graph import Graph
from secateur.core.plan import Scores
from secateur.cost.counted import CostModel
from secateur.select.constraints import Constraints

_TYPE = "score(graph, model, criterion='block_output', data=...)"


@dataclass(frozen=True)
class Depth:
    """The blocks that go, in the order of the forward, and what the user should know."""

    removed: tuple[Block, ...]
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of all that go."""
        return tuple(block.path for block in self.removed)

    @property
    def identity(self) -> tuple[str, ...]:
        """Paths of those whose place an identity takes."""
        return tuple(block.path for block in self.removed if block.identity)


def split_scores(graph: Graph, scores: Scores) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The scores of units, and the scores of blocks, which are keyed by the block's path."""
    groups = {group.id for group in graph.groups}
    if scores.keys() <= groups:
        return dict(scores), {}
    blocks = {block.path for block in graph.blocks} - groups
    return (
        {id: values for id, values in scores.items() if id not in blocks},
        {id: values for id, values in scores.items() if id in blocks},
    )


def choose_blocks(
    graph: Graph,
    scores: Mapping[str, Tensor],
    *,
    budget: Budget | None,
    constraints: Constraints,
) -> Depth:
    """The blocks with the lowest scores: as many as `constraints.blocks` says, or, where it says
    nothing, as few as meet the budget. Ties go to the earlier block.

    Raises: BudgetError when there are not so many, or the budget is not met without any of them;
    ValueError without scores.
    """
    if not scores:
        raise ValueError(f"blocks={constraints.blocks:g} needs scores of blocks; type {_TYPE}")
    candidates = [b for b in graph.blocks if b.pinned is None and b.path in scores]
    free = [b for b in candidates if not _kept(graph, b, constraints.keep_modules)]
    order = sorted(free, key=lambda block: float(scores[block.path].sum()))
    if constraints.blocks is not None:
        count = _number(constraints.blocks, len(graph.blocks))
        if count > len(order):
            raise BudgetError(_too_few(graph, count, order))
    else:
        count = _fewest(graph, order, budget)
    gone = {block.path for block in order[:count]}
    removed = tuple(block for block in graph.blocks if block.path in gone)
    pinned = [f"{b.path}: block stays, {b.pinned}" for b in graph.blocks if b.pinned is not None]
    return Depth(removed, tuple(pinned))


def _number(blocks: float, total: int) -> int:
    """How many blocks a share or a number means; half a block is rounded up.

    >>> _number(0.25, 30), _number(6, 30)
    (8, 6)
    """
    return int(blocks * total + 0.5) if blocks < 1 else int(blocks)


def _fewest(graph: Graph, order: Sequence[Block], budget: Budget | None) -> int:
    """How many of the first blocks have to go for the budget to be met."""
    assert budget is not None
    dense = CostModel(graph).cost({})

    def meets(count: int) -> bool:
        left = without_blocks(graph, [block.path for block in order[:count]])
        return budget.met(CostModel(left).cost({}), dense)

    if not meets(len(order)):
        raise BudgetError(
            f"budget {budget} is not met without any of the {len(order)} removable blocks; score "
            "units as well, to cut the width of what is left, or allow more"
        )
    low, high = -1, len(order)  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high


def _kept(graph: Graph, block: Block, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the block, something that holds it, or something in it."""
    parts = block.path.split(".")
    names = [".".join(parts[:k]) for k in range(1, len(parts) + 1)]
    names += [call.module for call in graph.calls if inside(call.module, block.path)]
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _too_few(graph: Graph, count: int, order: Sequence[Block]) -> str:
    reasons = [f"{b.path}: {b.pinned}" for b in graph.blocks if b.pinned is not None]
    shown = "; ".join(reasons[:3]) + ("; .." if len(reasons) > 3 else "")
    return (
        f"{count} blocks should go and {len(order)} of {len(graph.blocks)} may"
        + (f" ({shown})" if shown else "")
        + f"; ask for at most blocks={len(order)}"
    )
