"""Module calls of one forward: which module ran, on what, what came out, and what ran inside.

The stack of paths that operators are filed under is kept here. Of a module with children the call
also says what a residual block is found by (`core.blocks`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.core.fingerprint import NamedModules
from secateur.graph.call import dims_of
from secateur.graph.dispatch import LiveValue, Recording
from secateur.graph.types import Dims


@dataclass
class LiveCall:
    """One module call, types still being inferred; the fields of `core.graph.Call`."""

    module: str
    kind: str
    outputs: list[Dims]
    inputs: tuple[LiveValue, ...] = ()
    storages: tuple[int, ...] = ()
    span: tuple[int, int] = (0, 0)
    plain: bool = False


def tensors_in(value: Any, *, outside: Container[int] = ()) -> Iterator[Tensor]:
    """Tensors of a nested output: tuples, lists, dicts and objects with attributes; not those in
    objects whose `id` is in `outside`."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item, outside=outside)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item, outside=outside)
    elif id(value) not in outside and _has_attributes(value):
        for item in vars(value).values():
            if isinstance(item, (Tensor, tuple, list)):
                yield from tensors_in(item, outside=outside)


def _has_attributes(value: Any) -> bool:
    held = getattr(value, "__dict__", None)
    return isinstance(held, dict) and not isinstance(value, (nn.Module, type))


_PLAIN = frozenset({Tensor, nn.Parameter, tuple, list, dict, bool, int, float, str, type(None)})


def _is_state(value: Any) -> bool:
    """Whether an object is neither a tensor, nor a collection, nor a dataclass of results."""
    collection = isinstance(value, (Tensor, Mapping, tuple, list))
    return not collection and not is_dataclass(value) and _has_attributes(value)


def given_to(args: Any, kwargs: Any) -> Iterator[Tensor]:
    """Tensors that a call is given as they are: not those in a cache that it may fill."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, (Tensor, tuple, list, dict)):
            yield from (item for item in tree_leaves(value) if isinstance(item, Tensor))


def value_of(tensor: Tensor, recording: Recording) -> LiveValue:
    """What a graph says of a tensor."""
    storage = tensor.untyped_storage()
    known = recording.storages
    # the storage object is kept, so that its address is not used again during the trace
    number, _ = known.setdefault(storage._cdata, (len(known), storage))
    return LiveValue(number, dims_of(tensor), tensor.element_size())


class CallWatch:
    """Appends every finished call of a module in `names` (by `id`) to `calls` while it stands."""

    def __init__(
        self, recording: Recording, names: Mapping[int, str], calls: list[LiveCall]
    ) -> None:
        self.recording, self.names, self.calls = recording, names, calls
        self.carried: dict[int, Any] = {}
        """Objects that modules hand on to each other, by `id`: caches that a forward fills. What
        they hold is the model's own state, whatever it returns."""

    def __enter__(self) -> None:
        plain: Any = nn.Module._call_impl
        stack, ops = self.recording.stack, self.recording.ops

        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            begun = len(ops)
            stack.append(self.names.get(id(module), stack[-1] if stack else ""))
            try:
                out = plain(module, *args, **kwargs)
                self._leave(module, (args, kwargs), out, begun)
            finally:
                stack.pop()
            return out

        self._plain = plain
        # as light as can be: hooks would send each of a thousand calls the long way through torch
        nn.Module._call_impl = watched  # type: ignore[assignment, method-assign]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        nn.Module._call_impl = self._plain  # type: ignore[method-assign]

    def _leave(self, module: nn.Module, given: Any, out: Any, begun: int) -> None:
        name = self.names.get(id(module))
        if name != "":  # what the caller hands to the model itself is the caller's
            for value in (*given[0], *given[1].values()):
                if type(value) not in _PLAIN and _is_state(value):
                    self.carried[id(value)] = value
        if out is not None and self.recording.keep_ops and name is not None:
            with torch._C.DisableTorchFunction():  # none of its reads is the model's
                self.calls.append(self._finished(module, given, out, begun))

    def _finished(self, module: nn.Module, given: Any, out: Any, begun: int) -> LiveCall:
        tensors = list(tensors_in(out))
        call = LiveCall(
            self.names[id(module)], type(module).__name__, [dims_of(tensor) for tensor in tensors]
        )
        if module._modules:
            args, kwargs = given
            call.inputs = tuple(value_of(t, self.recording) for t in given_to(args, kwargs))
            call.storages = tuple(value_of(t, self.recording).storage for t in tensors)
            call.span = begun, len(self.recording.ops)
            call.plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
            call.plain = call.plain and isinstance(out, Tensor)
        return call


@contextmanager
def picked_by_number(named: NamedModules, names: Mapping[int, str]) -> Iterator[dict[str, bool]]:
    """The model's ModuleLists and Sequentials by path; True once `container[3]` was asked for.

    A forward that walks through its list does not mind a missing element; one that numbers the
    elements does.
    """
    kinds = (nn.ModuleList, nn.Sequential)
    found = {path: False for path, module in named if isinstance(module, kinds)}
    plain = {kind: kind.__dict__["__getitem__"] for kind in kinds}

    def watched(own: Any) -> Any:
        def pick(self: Any, index: Any) -> Any:
            path = names.get(id(self))
            if path in found and not isinstance(index, slice):
                found[path] = True
            return own(self, index)

        return pick

    try:
        for kind in kinds:
            kind.__getitem__ = watched(plain[kind])  # type: ignore[method-assign]
        yield found
    finally:
        for kind in kinds:
            kind.__getitem__ = plain[kind]  # type: ignore[method-assign]
