"""Every rank computes the plan by itself; before anything is done by it, they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secateur.core.errors import EngineError
from secateur.core.plan import Plan
from secateur.core.world import World


def agree_on(plan: Plan, world: World) -> Plan:
    """The plan, when every rank has the same one.

    Raises: EngineError that names the ranks, and the first group of which they keep other units.
    """
    if world.size == 1:
        return plan
    hashes = world.gather(plan.hash, what="the plan")
    if len(set(hashes)) == 1:
        return plan
    plans = world.gather({id: list(kept) for id, kept in plan.keep.items()}, what="the units kept")
    different = [rank for rank, own in enumerate(hashes) if own != hashes[0]]
    ranks = ", ".join(map(str, different))
    raise EngineError(
        f"the ranks computed different plans: that of rank {ranks} is not that of rank 0; "
        f"{_where(plans, different[0])}. The ranks must see the same weights and data, and run on "
        "the same kind of processor with the same versions; compare `python -m torch.utils."
        "collect_env` between them"
    )


def _where(plans: Sequence[Mapping[str, Sequence[int]]], rank: int) -> str:
    """
    >>> _where([{"a": [0, 1], "b": [0]}, {"a": [0, 1], "b": [2]}], 1)
    'of group b rank 0 keeps units 0 (1 in all) and rank 1 keeps 2 (1 in all)'
    """
    ours, theirs = plans[0], plans[rank]
    for id in sorted(ours.keys() | theirs.keys()):
        if ours.get(id) != theirs.get(id):
            own, other = (_units(plan.get(id)) for plan in (ours, theirs))
            return f"of group {id} rank 0 keeps {own} and rank {rank} keeps {other}".replace(
                "keeps ", "keeps units ", 1
            )
    return "they keep the same units, and differ in what is said beside them"


def _units(kept: Sequence[int] | None, *, shown: int = 8) -> str:
    if kept is None:
        return "all of them"
    first = ", ".join(map(str, kept[:shown]))
    return f"{first}{', ...' if len(kept) > shown else ''} ({len(kept)} in all)"
