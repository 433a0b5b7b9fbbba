"""Whole blocks out of a model: lists close their gaps, and what numbers or counts layers follows.

A list (`ModuleList`, `Sequential`) loses the element and counts the others anew, so the state
dict's keys are those of a model that was built shorter. An attribute of every element that equals
the element's position (`layer_idx`) follows, and so does the configuration (`layer_counts`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from secateur.core.depth import renumbered, within
from secateur.core.graph import Graph
from secateur.core.plan import Plan


@dataclass(frozen=True)
class Following:
    """An attribute that follows: its module's path before the removal, a dotted name, a value."""

    owner: str
    name: str
    value: Any


def numbered_attributes(model: nn.Module, plan: Plan) -> Iterator[Following]:
    """Integers that number the elements of a list which loses some, with their new values.

    Such an integer is found in at least two elements, and equals the position in all that have it.
    """
    for path in sorted({path.rpartition(".")[0] for path in plan.taken_out}):
        places: dict[tuple[str, str], dict[int, int]] = {}
        elements = dict(model.get_submodule(path).named_children())
        numbers = {int(name): name for name in elements if name.isdecimal()}
        for number, name in numbers.items():
            for inner, module in elements[name].named_modules():
                for attribute, value in vars(module).items():
                    if type(value) is int:
                        places.setdefault((inner, attribute), {})[number] = value
        for (inner, attribute), values in places.items():
            if len(values) < 2 or any(number != value for number, value in values.items()):
                continue
            for number in values:
                element = f"{path}.{numbers[number]}" if path else numbers[number]
                new = int(renumbered(element, plan.taken_out).rpartition(".")[2])
                if element not in plan.taken_out and new != number:
                    yield Following(f"{element}.{inner}" if inner else element, attribute, new)


def keeping_places(plan: Plan, graph: Graph) -> Plan | None:
    """The plan with an identity in the place of every removed block, for a model that counts on the
    number of its layers; None where a block takes or returns more than one tensor."""
    plain = {call.module for call in graph.calls if call.plain}
    if not plan.taken_out or not plan.taken_out <= plain:
        return None
    return replace(plan, identity=plan.removed)


def follow_(model: nn.Module, followings: Collection[Following]) -> None:
    """Give the attributes their values; the names are those before the removal."""
    for following in followings:
        holder: Any = model.get_submodule(following.owner)
        *outer, name = following.name.split(".")
        for part in outer:
            holder = getattr(holder, part)
        # past the holder's own setter, which may compare with what has not followed yet
        vars(holder)[name] = following.value


def remove_blocks_(model: nn.Module, plan: Plan) -> None:
    """Take the plan's blocks out of their lists, or put an identity in their place."""
    lists: list[tuple[nn.Module, dict[str, nn.Module]]] = []
    for path in dict.fromkeys(path.rpartition(".")[0] for path in plan.removed):
        container = model.get_submodule(path)
        left: dict[str, nn.Module] = {}
        for name, module in container.named_children():
            full = f"{path}.{name}" if path else name
            if full in plan.identity:
                left[name] = nn.Identity()
            elif full not in plan.removed:
                left[renumbered(full, plan.taken_out).rpartition(".")[2]] = module
        lists.append((container, left))
    for container, left in lists:
        container._modules.clear()
        container._modules.update(left)


def tensors_of_blocks(model: nn.Module, plan: Plan) -> Mapping[int, Tensor]:
    """Parameters and buffers that go with the blocks, by `id`; none that others share."""
    inner: dict[int, Tensor] = {}
    outer: set[int] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        gone = within(path, plan.removed)
        for registry in (module._parameters, module._buffers):
            for tensor in registry.values():
                if tensor is None:
                    continue
                if gone:
                    inner[id(tensor)] = tensor
                else:
                    outer.add(id(tensor))
    return {number: tensor for number, tensor in inner.items() if number not in outer}
