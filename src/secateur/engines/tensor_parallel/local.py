"""`parallelize_`: this rank's model, with hooks where the ranks meet.

The model is cut to the rank's units, as by any other plan; the hooks then add up what contractions
over shared axes leave, and the gradients of what enters them. Nothing else of the model is changed:
DDP or FSDP2 may stand around it, over the other dimension of a mesh.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from secateur.core.errors import EngineError
from secateur.core.fingerprint import named_modules, named_tensors
from secateur.core.world import World
from secateur.cut.apply import cut_
from secateur.engines.tensor_parallel.meeting import added, entered, portion
from secateur.engines.tensor_parallel.regions import Reading
from secateur.engines.tensor_parallel.streams import Streams
from secateur.engines.tensor_parallel.tape import Place
from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.masks.parametrization import masks_of


def parallelize_(model: nn.Module, plan: TensorParallelPlan, world: World) -> nn.Module:
    """Make of the whole model, in place, what this rank holds of it; returns the model.

    world: of the ranks that share the model out (the tensor-parallel dimension of a mesh). Their
    random generators must have been seeded alike. Called by all of them.
    Raises: EngineError when the plan is for another number of ranks, or another on some rank;
    PlanMismatchError when it is another model's.
    """
    check_agreed(plan, world)
    cut_(model, plan.rank_plan(world.rank))
    hook_(model, plan, world)
    return model


def check_agreed(plan: TensorParallelPlan, world: World) -> None:
    """Raises: EngineError when a rank has another plan, or the plan has other ranks."""
    if plan.size != world.size:
        raise EngineError(
            f"the plan shares the model out over {plan.size} ranks, and there are {world.size}; "
            f"make a plan with tensor_parallel_plan(..., size={world.size})"
        )
    hashes = world.gather(plan.hash, what="the tensor-parallel plan")
    other = [rank for rank, one in enumerate(hashes) if one != hashes[0]]
    if other:
        raise EngineError(
            f"rank {other[0]} has another tensor-parallel plan than rank 0: make it on every rank "
            "with the same model, example_inputs and options, or send it as JSON"
        )


def hook_(model: nn.Module, plan: TensorParallelPlan, world: World) -> None:
    """Put the plan's hooks on a model that is already a rank's; hooks of an earlier plan go."""
    unhook_(model)
    modules = dict(named_modules(model, repeated=True))
    streams = Streams(world.rank)
    for path, hooks in _hooks(model, plan, world).items():
        module = modules[path]
        handles = [
            module.register_forward_pre_hook(hooks.before, with_kwargs=True),
            module.register_forward_hook(hooks.after, with_kwargs=True),
        ]
        if hooks.read:
            handles.append(module.register_forward_hook(hooks.put_back, always_call=True))
        if path in plan.meetings.own_random:
            handles.append(module.register_forward_pre_hook(streams.own))
            handles.append(module.register_forward_hook(streams.common_again, always_call=True))
        if path in plan.meetings.common_random:
            handles.append(module.register_forward_pre_hook(streams.common))
            handles.append(module.register_forward_hook(streams.own_again, always_call=True))
        vars(module)[_HANDLES] = handles


def unhook_(model: nn.Module) -> None:
    """Take the hooks off again; the model stays the rank's, and its outputs partial."""
    for module in model.modules():
        for handle in vars(module).pop(_HANDLES, ()):
            handle.remove()


_HANDLES = "_secateur_meetings"


@dataclass(frozen=True)
class _Read:
    """A parameter that a module reads: where it hangs below the module, and what is read of it."""

    owner: str
    name: str
    once: bool
    """Whether a rank reads its portion; else all of it, with its gradient summed."""

    def within(self, module: nn.Module) -> tuple[nn.Module, str]:
        """Where the parameter stands now: below a mask, if it has one by now."""
        owner = module.get_submodule(self.owner)
        if self.name not in masks_of(owner):
            return owner, self.name
        return owner.get_submodule(f"parametrizations.{self.name}"), "original"


@dataclass
class _Hooks:
    """What one module does before and after its forward."""

    world: World
    path: str
    given: set[Place] = field(default_factory=set)
    returned: set[Place] = field(default_factory=set)
    sums: set[Place] = field(default_factory=set)
    read: list[_Read] = field(default_factory=list)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hooks:
        return self  # a copy of the model meets the same ranks

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Parameters and arguments whose gradients are summed."""
        for one in self.read:
            owner, name = one.within(module)
            tensor = owner._parameters.get(name, owner._buffers.get(name))
            assert tensor is not None
            # found before the parameter itself, which stays registered as it is
            owner.__dict__[name] = (
                portion(tensor, self.world)
                if one.once
                else entered(tensor, self.world, what=f"{self.path}.{one.name}")
            )
        if not self.given:
            return None
        places = {**dict(enumerate(args)), **kwargs}
        known: dict[int, Tensor] = {}
        for place in self.given:
            tensor = places.get(place)
            if not isinstance(tensor, Tensor):
                raise EngineError(
                    f"{self.path or 'the model'} was called without tensor {place}, which it was "
                    "given when the tensor-parallel plan was made; make the plan with "
                    "example_inputs like those that the model is called with"
                )
            if tensor.requires_grad:
                # one tensor at several places stays one: attention asks whether they are the same
                if id(tensor) not in known:
                    known[id(tensor)] = entered(tensor, self.world, what=self._what(place))
                places[place] = known[id(tensor)]
        args = tuple(places[k] for k in range(len(args)))
        return args, {name: places[name] for name in kwargs}

    def after(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        """Outputs that are summed, and outputs whose gradients are."""
        for place in sorted(self.sums, key=str):
            out = self._replaced(out, place, added)
        for place in sorted(self.returned, key=str):
            out = self._replaced(out, place, entered)
        return out

    def put_back(self, module: nn.Module, args: Any, out: Any) -> None:
        """The parameters themselves stand where they stood."""
        for one in self.read:
            owner, name = one.within(module)
            owner.__dict__.pop(name, None)

    def _replaced(self, out: Any, place: Place, meet: Any) -> Any:
        if place is None and isinstance(out, Tensor):
            return meet(out, self.world, what=self.path)
        if isinstance(out, Mapping) and place in out:
            out[place] = meet(out[place], self.world, what=self._what(place))  # type: ignore[index]
            return out
        if isinstance(out, (tuple, list)) and isinstance(place, int) and place < len(out):
            items = list(out)
            items[place] = meet(items[place], self.world, what=self._what(place))
            return type(out)(items) if not hasattr(out, "_fields") else type(out)(*items)
        raise EngineError(
            f"{self.path or 'the model'} returned {type(out).__name__} without output {place}, "
            "which it returned when the tensor-parallel plan was made; make the plan with "
            "example_inputs like those that the model is called with"
        )

    def _what(self, place: Place) -> str:
        return f"{self.path}, {'argument' if place in self.given else 'output'} {place}"


def _hooks(model: nn.Module, plan: TensorParallelPlan, world: World) -> dict[str, _Hooks]:
    """By module, in the order of the model's modules."""
    meetings = plan.meetings
    found: OrderedDict[str, _Hooks] = OrderedDict()
    wanted = {spot.module for spot in (*meetings.sums, *meetings.copies)}
    wanted |= {reading.module for reading in (*meetings.gradients, *meetings.portions)}
    wanted |= meetings.own_random | meetings.common_random
    for path, _ in named_modules(model):
        if path in wanted:
            found[path] = _Hooks(world, path)
    for spot in meetings.sums:
        found[spot.module].sums.add(spot.place)
    for spot in meetings.copies:
        hooks = found[spot.module]
        (hooks.returned if spot.returned else hooks.given).add(spot.place)
    for once, readings in ((True, meetings.portions), (False, meetings.gradients)):
        for reading in sorted(readings, key=lambda one: (one.module, one.tensor)):
            owner, name = _below(model, reading)
            found[reading.module].read.append(_Read(owner, name, once))
    return found


def _below(model: nn.Module, reading: Reading) -> tuple[str, str]:
    """Where a tensor hangs below the module that reads it, by any name. Raises: EngineError."""
    tensor = next(one for name, one in named_tensors(model) if name == reading.tensor)
    for name, one in named_tensors(model.get_submodule(reading.module)):
        if one is tensor:
            owner, _, attribute = name.rpartition(".")
            return owner, attribute
    raise EngineError(
        f"{reading.module} reads {reading.tensor}, which hangs elsewhere in the model, so no hook "
        "can stand between them; share out with another framework's layers, or replicate with DDP"
    )
