"""Groups that stand at the same place of repeated layers, for `uniform_layers`.

Repetitions are elements of a ModuleList or Sequential: their paths differ in one integer only, as
``layers.0.mlp.fc1`` and ``layers.7.mlp.fc1``. Where a configuration has one width for all layers,
these groups must keep equal counts; those of another size (a later stage) belong to another width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from secateur.core.graph import Group


def repeated(groups: Iterable[Group]) -> list[tuple[Group, ...]]:
    """Sets of at least two groups of one size whose ids differ in one integer of their path.

    >>> from secateur.core.dims import Axis
    >>> names = ["layers.0.fc[0]", "layers.1.fc[0]", "layers.1.fc[1]", "head[0]"]
    >>> [[g.id for g in s] for s in repeated(Group(n, Axis(i, 8), ()) for i, n in enumerate(names))]
    [['layers.0.fc[0]', 'layers.1.fc[0]']]
    """
    alike: dict[tuple[str, int], list[Group]] = {}
    for group in groups:
        for pattern in _patterns(group.id):
            alike.setdefault((pattern, group.size), []).append(group)
    return [tuple(together) for together in alike.values() if len(together) > 1]


def _patterns(id: str) -> Iterator[str]:
    """The id with each integer of its module path left open in turn.

    >>> list(_patterns("stages.0.blocks.1.fc.weight[0].2"))
    ['stages.*.blocks.1.fc.weight[0].2', 'stages.0.blocks.*.fc.weight[0].2']
    """
    path, bracket, place = id.partition("[")
    words = path.split(".")
    for k, word in enumerate(words):
        if word.isdecimal():
            yield ".".join([*words[:k], "*", *words[k + 1 :]]) + bracket + place
