"""Which counts N devices must divide when column- and row-sharded layers share them.

A matrix is sharded along the outermost axis of a dimension: of ``heads * head_dim`` each device
holds whole heads, of a fused query, key and value it holds its part of each. So the outermost axis
of every dimension of every parameter with two dimensions or more must be a multiple of N, and an
axis that stands behind another (a head's width, the queries of one key and value head) need not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import lcm

from secateur.core.dims import Axis, Dim, axes_of
from secateur.core.errors import BudgetError
from secateur.core.graph import Graph, Group


def sharded_groups(graph: Graph) -> list[Group]:
    """The groups whose counts N must divide, in the graph's order.

    A pinned group that is a whole dimension (the vocabulary, classes, pixels, positions) is not
    among them: it is not sharded, or padded. A pinned one with others behind it, such as heads, is.
    """
    groups = {group.axis.index: group for group in graph.groups}
    dims = [dims for name in graph.tensors if len(dims := _matrix(graph, name)) > 1]
    owners = Counter(axis for each in dims for axis in {a.index for d in each for a in axes_of(d)})
    # the three of a fused query, key and value: fixed by the code, and known to one matrix alone
    fixed = {n for n, count in owners.items() if count == 1 and _pinned(groups, n)}
    outer: dict[int, bool] = {}
    inner: set[int] = set()
    for dim in (dim for each in dims for dim in each):
        front = dict(_outermost(dim, fixed))
        for index, followed in front.items():
            outer[index] = outer.get(index, False) or followed
        inner |= {axis.index for axis in axes_of(dim)} - front.keys()
    return [
        group
        for index, group in groups.items()
        if index in outer and index not in inner and (group.pinned is None or outer[index])
    ]


def check_whole(groups: Iterable[Group], notes: Sequence[str], devices: int) -> None:
    """Refuse sharded groups that stay whole and that the devices cannot share.

    notes: why groups were left whole, each beginning with the group's id.
    Raises: BudgetError.
    """
    for group in sorted(groups, key=lambda group: group.axis.index):
        if group.size % devices:
            said = [note for note in notes if note.startswith(f"{group.id}: ")]
            why = group.pinned or (said[0].partition(": ")[2] if said else "not among those to cut")
            fitting = [n for n in range(1, devices) if group.size % n == 0]
            raise BudgetError(
                f"tensor_parallel={devices}: group {group.id} keeps all of its {group.size} units "
                f"({why}), which {devices} devices cannot share equally; {_ask(fitting)}"
            )


def no_count(group: Group, devices: int, *, lowest: int, multiple_of: int) -> str:
    """The error's text for a group that may not keep any multiple of `devices`.

    lowest: the fewest units that other rules let it keep.
    """
    limits = [f"keeps at least {lowest} of them"] if lowest > 1 else []
    limits += [f"keeps multiples of {multiple_of} or all"] if multiple_of > 1 else []
    fitting = [n for n in range(1, devices) if _could_share(group.size, n, lowest, multiple_of)]
    return (
        f"tensor_parallel={devices}: group {group.id} has {group.size} units"
        f"{''.join(f' and {limit}' for limit in limits)}, of which {devices} devices cannot hold "
        f"an equal number each; {_ask(fitting)}"
    )


def _could_share(size: int, devices: int, lowest: int, multiple_of: int) -> bool:
    return size % devices == 0 or size // (step := lcm(devices, multiple_of)) * step >= lowest


def _ask(fitting: Sequence[int]) -> str:
    """What to type instead: the largest numbers of devices that would do."""
    *others, last = map(str, fitting[:-4:-1])
    return f"ask for tensor_parallel={', '.join(others)}{' or ' if others else ''}{last}"


def _matrix(graph: Graph, name: str) -> tuple[Dim, ...]:
    """Dimensions of a parameter without those of size one; none for a buffer."""
    tensor = graph.tensors[name]
    return tuple(dim for dim in tensor.dims if dim) if tensor.is_parameter else ()


def _pinned(groups: dict[int, Group], index: int) -> bool:
    return index in groups and groups[index].pinned is not None


def _outermost(dim: Dim, fixed: set[int]) -> list[tuple[int, bool]]:
    """The axes along which a dimension is sharded, and whether another axis stands behind.

    Each part of a concatenation is sharded on its own; a concatenation of single indices is no
    axis but a choice.
    """
    for position, factor in enumerate(dim):
        followed = position + 1 < len(dim)
        if isinstance(factor, Axis):
            if factor.index not in fixed or not followed:
                return [(factor.index, followed)]
        elif any(part for part in factor.parts):
            found = [entry for part in factor.parts for entry in _outermost(part, fixed)]
            return [(index, followed or behind) for index, behind in found]
    return []
