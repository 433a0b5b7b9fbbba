"""Groups named by glob patterns: by their id, or by the modules whose tensors they touch.

A pattern that matches a module matches everything below it: "layer4" and "layer4.*" are the same
to `keep_modules`. A pattern that matches nothing is a `ValueError`, never a silent no.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from secateur.core.graph import Graph, Group, Member


def groups_touching(graph: Graph, pattern: str) -> set[str]:
    """Ids of groups with a member in a module that matches.

    Raises: ValueError when no module of the graph's tensors matches.
    """
    owners = {_module(name) for name in graph.tensors}
    matched = {owner for owner in owners if _within(owner, pattern)}
    if not matched:
        raise ValueError(_unknown("keep_modules", pattern, owners))
    return {g.id for g in graph.groups if any(_module(m.tensor) in matched for m in g.members)}


def groups_made_by(graph: Graph, pattern: str, *, option: str) -> list[Group]:
    """Groups whose id matches, or that a matching module makes (its tensor is the first member).

    Raises: ValueError when there is none.
    """
    found = [g for g in graph.groups if fnmatchcase(g.id, pattern) or _makes(g.members, pattern)]
    if not found:
        raise ValueError(_unknown(option, pattern, {g.id for g in graph.groups}))
    return found


def _makes(members: tuple[Member, ...], pattern: str) -> bool:
    return bool(members) and _within(_module(members[0].tensor), pattern)


def _module(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _within(module: str, pattern: str) -> bool:
    """Whether the module or one that contains it matches.

    >>> _within("layer4.0.conv1", "layer4"), _within("layer40", "layer4")
    (True, False)
    """
    parts = module.split(".")
    return any(fnmatchcase(".".join(parts[:k]), pattern) for k in range(1, len(parts) + 1))


def _unknown(option: str, pattern: str, known: Iterable[str]) -> str:
    names = sorted(name for name in known if name)
    near = difflib.get_close_matches(pattern, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = ", ".join(names[:8]) + (", .." if len(names) > 8 else "")
    return f"{option}: {pattern!r} matches nothing; {hint}there are: {shown}"
