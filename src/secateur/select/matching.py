"""Groups named by glob patterns: by their id, or by the modules whose tensors they touch.

A pattern that matches a module matches everything below it: "layer4" and "layer4.*" are the same
to `keep_modules`. A pattern that matches nothing is a `ValueError`, never a silent no.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from secateur.core.graph import Graph, Group, Member
from secateur.select.constraints import Constraints


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
    found = [g for g in graph.groups if _named(g.id, pattern) or _makes(g.members, pattern)]
    if not found:
        raise ValueError(_unknown(option, pattern, {g.id for g in graph.groups}))
    return found


def left_of(constraints: Constraints, graph: Graph, left: Graph) -> Constraints:
    """The constraints without the patterns that match only what is not in `left` any more.

    left: the graph without some of its blocks.
    Raises: ValueError for a pattern that matches nothing in the graph either.
    """

    def stays(option: str, pattern: str) -> bool:
        _match(graph, pattern, option)
        try:
            return bool(_match(left, pattern, option))
        except ValueError:
            return False

    changed: dict[str, Any] = {}
    for option in ("keep_modules", "equal", "groups"):
        patterns = getattr(constraints, option)
        if patterns is not None:
            changed[option] = tuple(pattern for pattern in patterns if stays(option, pattern))
    if isinstance(constraints.keep, Mapping):
        pairs = constraints.keep.items()
        changed["keep"] = {pattern: share for pattern, share in pairs if stays("keep", pattern)}
    return replace(constraints, **changed)


def _match(graph: Graph, pattern: str, option: str) -> Collection[object]:
    if option == "keep_modules":
        return groups_touching(graph, pattern) or {pattern}
    return groups_made_by(graph, pattern, option=option)


def _named(id: str, pattern: str) -> bool:
    """Whether an id matches; its brackets may stand in the pattern as they are.

    >>> _named("layers.0.fc.weight[0].1", "layers.*.weight[0].1"), _named("w1", "w[12]")
    (True, True)
    """
    return fnmatchcase(id, pattern) or fnmatchcase(id, pattern.replace("[", "[[]"))


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
