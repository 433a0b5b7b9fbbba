"""Recording: every ATen operator of one forward, with the types of what it reads and writes.

Floats live on the meta device, integers and booleans are computed for real on the CPU, because
masks and `.item()` need values. Each operator's rule couples the types as it runs; an operator
without a rule pins what it touches and is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from secateur.core.errors import UnsupportedOpError
from secateur.graph.call import NoRule, OpCall, Rule, dims_of, set_dims, tensors_of, typed
from secateur.graph.meta_kernels import QUICK, MetaKernels
from secateur.graph.numbering import copy_roles, follow_numbers
from secateur.graph.rules import all_rules
from secateur.graph.rules.pointwise import pointwise
from secateur.graph.rules.zeros import follow_zeros
from secateur.graph.shortcuts import taken
from secateur.graph.snapshot import empty_like_on_meta
from secateur.graph.types import Dims, Product, SizeMismatch, fresh_all, pin, size_of

_CREATORS = frozenset(
    "arange zeros ones full empty rand randn linspace scalar_tensor eye randint empty_strided "
    "tril_indices triu_indices randperm hann_window empty_permuted logspace".split()
)
_SIZED = frozenset(
    "view reshape _unsafe_view expand slice narrow split split_with_sizes chunk select unfold "
    "as_strided repeat unflatten group_norm".split()
)
"""Operators that are told of sizes."""
_WITHOUT_TENSORS = frozenset(
    "_local_scalar_dense is_same_size equal item _assert_async sym_size set_ resize_ "
    "is_nonzero _assert_tensor_metadata".split()
)


@dataclass(slots=True)
class LiveValue:
    """A tensor as an operator saw it: its memory, types, and bytes per element."""

    storage: int
    dims: Dims
    itemsize: int


_VALUE = "_secateur_value"


@dataclass(slots=True)
class LiveOp:
    """One recorded operator, types still being inferred."""

    name: str
    module: str
    inputs: list[LiveValue]
    outputs: list[LiveValue]
    macs: list[tuple[Product, ...]]


@dataclass
class Recording:
    """What a forward did. `stack` holds the paths of the modules that are running; `calls` the
    last forward's operators with their tensors, on meta alone, where they weigh nothing."""

    ops: list[LiveOp] = field(default_factory=list)
    calls: list[OpCall] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    used: set[int] = field(default_factory=set)
    stack: list[str] = field(default_factory=list)
    storages: dict[int, tuple[int, Any]] = field(default_factory=dict)
    keep_ops: bool = True


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs operators and infers their types. `stand_ins` are the ids of the model's tensors."""

    def __init__(
        self, recording: Recording, stand_ins: set[int], *, meta: bool, strict: bool
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = recording
        self.stand_ins = stand_ins
        self.meta = meta
        self.strict = strict
        self.converted: dict[int, tuple[Tensor, Tensor]] = {}
        self.kernels = MetaKernels()
        self._paused = False
        self._asked = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled, so torch need not guard each operator against that."""
        return False

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self._paused:
            return func(*args, **(kwargs or {}))
        if self._asked:
            return self._run(func, args, kwargs or {})
        with torch._C.DisableTorchFunction():  # called by TorchScript: what follows is our own
            return self._run(func, args, kwargs or {})

    def _run(
        self, func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.meta:
            ins = tensors_of(args, kwargs)
            settled = ins and all(tensor.is_meta for tensor in ins) and "device" not in kwargs
            if not settled:
                args, kwargs = self._place(func, args, kwargs)
                ins = tensors_of(args, kwargs)
            if ins and all(tensor.is_meta for tensor in ins):
                out = self.kernels.run(func, args, kwargs)
            else:
                out = func(*args, **kwargs)
        else:
            ins, out = tensors_of(args, kwargs), func(*args, **kwargs)
        self.record(OpCall(func, args, kwargs, out, ins))
        return out

    def directly(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Tensor | None:
        """What a function returns, without the way through torch, where there is a shortcut."""
        found = taken(func, args) if self.meta else None
        if found is None:
            return None
        operator, operands = found
        with torch._C._DisableTorchDispatch():  # what is done here is not the model's
            out = QUICK[operator](*operands)
            if out is None:
                return None
            call = OpCall(operator, operands, {}, out)
            self.record(call)
        return call.first_out

    def record(self, call: OpCall) -> None:
        """Infer the types of a finished call's outputs and keep it."""
        outs = [t for t in (call.out if call.returns_many else [call.out]) if isinstance(t, Tensor)]
        if not outs:
            return
        self._infer(call, call.tensors, outs)
        if call.name in _SIZED and not self._asked:
            for product in chain.from_iterable(map(dims_of, (*call.tensors, *outs))):
                pin(product, f"{call.name} in TorchScript takes its sizes as numbers")
        follow_zeros(call)
        follow_numbers(call, call.tensors, outs)
        if self.meta:
            self.recording.calls.append(call)
        self.keep(call.name, call.tensors, outs, call.macs)

    def keep(
        self,
        name: str,
        ins: Sequence[Tensor],
        outs: Sequence[Tensor],
        macs: list[tuple[Product, ...]],
    ) -> None:
        """Add an operator, whose tensors have their types, to the recording."""
        recording = self.recording
        for tensor in ins:
            if id(tensor) in self.stand_ins:
                recording.used.add(id(tensor))
        if recording.keep_ops:
            where = recording.stack[-1] if recording.stack else ""
            read, made = [self._value(t) for t in ins], [self._value(t) for t in outs]
            recording.ops.append(LiveOp(name, where, read, made, macs))

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Run a function that the model's Python code called, whose sizes were seen."""
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run operators without recording them."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _value(self, tensor: Tensor) -> LiveValue:
        """What a graph says of a tensor."""
        value: LiveValue | None = getattr(tensor, _VALUE, None)
        dims = dims_of(tensor)
        if value is None or value.dims is not dims:
            storage, storages = tensor.untyped_storage(), self.recording.storages
            # the storage object is kept, so that its address is not used again during the trace
            number, _ = storages.setdefault(storage._cdata, (len(storages), storage))
            value = LiveValue(number, dims, tensor.element_size())
            setattr(tensor, _VALUE, value)
        return value

    def _place(
        self, func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Move arguments so that floats are computed on meta and integers on the CPU."""
        if not tensors_of(args, kwargs) and not any(isinstance(a, torch.device) for a in args):
            asked = kwargs.get("device")
            integers = asked is not None and _creates_integers(func, args, kwargs)
            return args, ({**kwargs, "device": torch.device("cpu")} if integers else kwargs)
        flat, spec = tree_flatten((args, kwargs))
        tensors = [item for item in flat if isinstance(item, Tensor)]
        if any(tensor.is_meta for tensor in tensors):
            target, moved = torch.device("meta"), True
        elif not tensors and _creates_integers(func, args, kwargs):
            target, moved = torch.device("cpu"), False
        else:
            return args, kwargs
        changed = False
        for k, item in enumerate(flat):
            if isinstance(item, torch.device) and item != target:
                flat[k], changed = target, True
            elif moved and isinstance(item, Tensor) and not item.is_meta:
                flat[k], changed = self._to_meta(item), True
        return tree_unflatten(flat, spec) if changed else (args, kwargs)

    def _to_meta(self, tensor: Tensor) -> Tensor:
        known = self.converted.get(id(tensor))
        if known is not None and known[0] is tensor:
            set_dims(known[1], dims_of(tensor))
            return known[1]
        converted = empty_like_on_meta(tensor)
        set_dims(converted, dims_of(tensor))
        copy_roles(tensor, converted)
        self.converted[id(tensor)] = (tensor, converted)
        if id(tensor) in self.stand_ins:
            self.recording.used.add(id(tensor))
        return converted

    def _infer(self, call: OpCall, ins: list[Tensor], outs: list[Tensor]) -> None:
        rule, reason = rule_for(call.func), ""
        if rule is not None:
            try:
                dims = _checked(rule(call), call)
            except (NoRule, SizeMismatch) as error:
                reason = str(error)
            else:
                for tensor, one in zip(_outputs(call), dims, strict=True):
                    if isinstance(tensor, Tensor):
                        set_dims(tensor, one)
                return
        self._pin_unknown(call, ins, outs, reason)

    def _pin_unknown(
        self, call: OpCall, ins: list[Tensor], outs: list[Tensor], reason: str
    ) -> None:
        where = self.recording.stack[-1] if self.recording.stack else "the model"
        if self.strict:
            raise UnsupportedOpError(
                f"operator {call.func} in {where} has no rule{f' ({reason})' if reason else ''}; "
                "trace without strict=True to pin what it touches, or add a rule for it in a "
                "file of secateur/graph/rules"
            )
        name = str(call.func)
        self.recording.unknown[name] += 1
        why = f"the operator {name} has no rule"
        for tensor in ins:
            for product in dims_of(tensor):
                pin(product, why)
        for tensor in outs:
            if not typed(tensor) or not any(tensor is t for t in ins):
                set_dims(tensor, fresh_all(tensor.shape, why))


def _outputs(call: OpCall) -> list[Any]:
    return list(call.out) if call.returns_many else [call.out]


def _checked(result: Dims | list[Dims | None], call: OpCall) -> list[Dims]:
    """The rule's answer, one type an output. Raises: NoRule when it does not fit the shapes."""
    if not isinstance(result, list) and not call.returns_many:
        return [_fitting(result, call.out)]
    outs = _outputs(call)
    answers = result if isinstance(result, list) else [result]
    if len(answers) < len(outs):
        answers = [*answers, *[None] * (len(outs) - len(answers))]
    dims: list[Dims] = []
    for tensor, answer in zip(outs, answers, strict=True):
        if not isinstance(tensor, Tensor):
            dims.append(())
            continue
        if answer is None:
            answer = fresh_all(tensor.shape, f"a by-product of {call.name}")
        dims.append(_fitting(answer, tensor))
    return dims


def _fitting(answer: Dims, tensor: Tensor) -> Dims:
    sizes = tuple([size_of(product) for product in answer])
    if sizes != tensor.shape:
        raise NoRule(f"its rule predicts {sizes}, it returned {tuple(tensor.shape)}")
    return tuple(answer)


def _creates_integers(
    func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    name = func._schema.name.rpartition("::")[2]
    if name not in _CREATORS:
        return True
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return not (dtype.is_floating_point or dtype.is_complex)
    if name == "arange":
        return all(isinstance(item, int) for item in args)
    if name == "full":
        return isinstance(args[1], (bool, int))
    return name in ("randint", "randperm", "tril_indices", "triu_indices")


_RULES = all_rules()


@cache
def rule_for(func: torch._ops.OpOverload) -> Rule | None:
    """The rule of an operator: by name, by the name of its functional form, or pointwise."""
    rules, name = _RULES, func._schema.name.rpartition("::")[2]
    if name in _WITHOUT_TENSORS:
        return None
    functional = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    found: Callable[..., Any] | None = rules.get(name) or rules.get(functional)
    if found is None and _is_pointwise(func, functional):
        found = pointwise
    return found


def _is_pointwise(func: torch._ops.OpOverload, functional: str) -> bool:
    if torch.Tag.pointwise in func.tags:
        return True
    packet = getattr(torch.ops.aten, functional, None) if "aten" in func._schema.name else None
    return packet is not None and any(
        torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads()
    )
