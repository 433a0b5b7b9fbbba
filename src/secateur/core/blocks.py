"""Residual blocks: modules that add what they compute to the stream they were given.

A convolution or a matrix product makes dimensions of its own, so where a module's output has
exactly the dimensions of its input, a residual sum made them equal. A block is such a module in
which that sum happens: a way without products leads from its input into a sum with something that
products made of the same input. No rule about architectures is needed, and without the block the
stream simply goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.core.dims import Dim, dim_size

if TYPE_CHECKING:
    from secateur.core.graph import Call, Graph, Op

_SUMS = frozenset({"add", "add_", "sub", "sub_", "rsub", "addcmul", "addcmul_"})
_CARRIED, _COMPUTED, _SUMMED = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Block:
    """A residual block.

    path: of the module. kind: its class. container: the list that holds it, None for a named
    attribute. params, macs: its own; parameters that others share are not counted. stream: which
    of the tensors given to it is carried on. identity: whether `nn.Identity` takes its place, as
    it is called with one tensor alone; otherwise it is taken out of its list. pinned: why it
    cannot be removed, or None.
    """

    path: str
    kind: str
    container: str | None
    params: int
    macs: int
    stream: int
    identity: bool
    pinned: str | None = None


def find_blocks(graph: Graph) -> tuple[Block, ...]:
    """The residual blocks of a graph, the largest that are no stacks of others, in call order."""
    calls: dict[str, list[Call]] = {}
    for call in graph.calls:
        calls.setdefault(call.module, []).append(call)
    streams = {
        path: (own[0], stream)
        for path, own in calls.items()
        if path and (stream := _stream(own[0], graph.ops)) is not None
    }
    chosen = _outermost(streams, graph)
    found = sorted(chosen, key=lambda path: streams[path][0].span)
    return tuple(_block(graph, *streams[path], len(calls[path])) for path in found)


def inside(path: str, outer: str) -> bool:
    """Whether a path is `outer` or below it.

    >>> inside("layers.1.mlp", "layers.1"), inside("layers.10", "layers.1")
    (True, False)
    """
    return path == outer or path.startswith(f"{outer}.")


def _stream(call: Call, ops: tuple[Op, ...]) -> int | None:
    """Which input is carried on to the first output; None where the module is no block."""
    if not call.storages or not call.outputs:
        return None
    start, end = call.span
    for number, value in enumerate(call.inputs):
        if value.dims == call.outputs[0] and _sums(ops[start:end], value.storage, call.storages[0]):
            return number
    return None


def _sums(ops: Iterable[Op], given: int, returned: int) -> bool:
    """Whether `returned` holds a sum of `given`, carried there, and of what products made of it."""
    state = {given: _CARRIED}
    for op in ops:
        read = [state.get(value.storage, 0) for value in op.inputs]
        bits = 0
        for one in read:
            bits |= one
        if not bits:
            continue
        if op.macs:
            bits = _COMPUTED
        elif op.name in _SUMS and _joins(read):
            bits |= _SUMMED
        for value in op.outputs:
            state[value.storage] = state.get(value.storage, 0) | bits
    return bool(state.get(returned, 0) & _SUMMED)


def _joins(read: list[int]) -> bool:
    return any(
        first & _CARRIED and second & _COMPUTED
        for k, first in enumerate(read)
        for j, second in enumerate(read)
        if j != k
    )


def _outermost(streams: Mapping[str, tuple[Call, int]], graph: Graph) -> list[str]:
    """The largest modules that are no stack of blocks, and that are not one block alone."""
    below = {
        path: [other for other in streams if other != path and inside(other, path)]
        for path in streams
    }
    whole = {path for path in streams if not _is_stack(path, below[path], streams, graph)}
    names = {path: _own_parameters(graph, path) for path in whole}
    whole -= {
        path
        for path in whole
        if any(o in whole and _listed(o, graph) and names[o] == names[path] for o in below[path])
    }
    return [path for path in whole if not any(o != path and inside(path, o) for o in whole)]


def _is_stack(
    path: str, below: list[str], streams: Mapping[str, tuple[Call, int]], graph: Graph
) -> bool:
    """A Sequential with blocks in it, or two blocks of one class in one list."""
    if below and streams[path][0].kind == "Sequential":
        return True
    listed = [other for other in below if _listed(other, graph)]
    kinds = {(other.rpartition(".")[0], streams[other][0].kind) for other in listed}
    return len(kinds) < len(listed)


def _listed(path: str, graph: Graph) -> bool:
    return path.rpartition(".")[0] in graph.containers


def _block(graph: Graph, call: Call, stream: int, times: int) -> Block:
    path, (start, end) = call.module, call.span
    container = path.rpartition(".")[0] if _listed(path, graph) else None
    walked = container is not None and not graph.containers[container]
    identity = call.plain and not (walked and _read_in_one_place(graph, call, container))
    pinned = None
    if times > 1:
        pinned = f"it runs {times} times in one forward"
    else:
        pinned = _needed_elsewhere(graph, call) or _fixed(graph, call, container, walked)
    return Block(
        path=path,
        kind=call.kind,
        container=container,
        params=sum(_numel(graph, name) for name in _own_parameters(graph, path)),
        macs=sum(_product(term) for op in graph.ops[start:end] for term in op.macs),
        stream=stream,
        identity=identity,
        pinned=pinned,
    )


def _needed_elsewhere(graph: Graph, call: Call) -> str | None:
    """Who reads what the block computes besides its stream, or runs a part of it."""
    start, end = call.span
    born = made_by(graph.ops[start:end]) - {call.storages[0]}
    for op in graph.ops[end:]:
        if any(value.storage in born for value in op.inputs):
            where = op.module or "the model itself"
            return f"{where} reads what it computes besides the stream"
    for op in (*graph.ops[:start], *graph.ops[end:]):
        if inside(op.module, call.module):
            return f"{op.module} runs outside of it as well"
    return None


def _fixed(graph: Graph, call: Call, container: str | None, walked: bool) -> str | None:
    """Why the block can neither leave its list nor give way to an identity."""
    if call.plain:
        return None
    if container is None:
        return "it is an attribute that takes or returns more than one tensor"
    if not walked:
        return f"the forward picks the elements of {container} by number"
    if not _read_in_one_place(graph, call, container):
        return "what it returns is read in several places, which count on its number"
    return None


def _read_in_one_place(graph: Graph, call: Call, container: str | None) -> bool:
    """Whether all readers of the output stand in one element of the list, or all behind it."""
    siblings = [
        (other.span, other.module)
        for other in graph.calls
        if container is not None
        and other.module.rpartition(".")[0] == container
        and other.span[0] >= call.span[1]
    ]
    places: set[str | None] = {None} if call.storages[0] in graph.output_storages else set()
    for number, op in enumerate(graph.ops[call.span[1] :], start=call.span[1]):
        if any(value.storage == call.storages[0] for value in op.inputs):
            places.add(
                next((name for (begin, end), name in siblings if begin <= number < end), None)
            )
    return len(places) <= 1


def made_by(ops: Iterable[Op]) -> set[int]:
    """Memory that these operators make; what they read first was there before."""
    seen: set[int] = set()
    made: set[int] = set()
    for op in ops:
        seen |= {value.storage for value in op.inputs}
        made |= {value.storage for value in op.outputs} - seen
        seen |= made
    return made


def _own_parameters(graph: Graph, path: str) -> frozenset[str]:
    """Parameters that no module outside shares."""
    return frozenset(
        name
        for name, tensor in graph.tensors.items()
        if tensor.is_parameter and all(inside(alias, path) for alias in (name, *tensor.aliases))
    )


def _numel(graph: Graph, name: str) -> int:
    return _product(graph.tensors[name].dims)


def _product(dims: Iterable[Dim]) -> int:
    return math.prod(dim_size(dim) for dim in dims)
