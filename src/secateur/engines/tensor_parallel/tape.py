"""A forward on tape: every operator with the tensors themselves, and what modules handed over.

A graph says what dimensions are; where a hook can stand is another matter: which object a module
was given or returned, and who else reads it. The forward runs as it does for a trace, with the
graph's axes on the model's tensors; in training mode more happens than in evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from secateur.core.dims import Dim
from secateur.core.fingerprint import NamedModules, distinct, named_modules
from secateur.core.graph import Graph
from secateur.core.modes import without_fast_path
from secateur.engines.tensor_parallel.axes import LiveAxes
from secateur.graph import call_arguments, tensors_in
from secateur.graph.arrivals import Arrivals, visible_functionals
from secateur.graph.attributes import tagged_reads
from secateur.graph.call import OpCall, dims_of, set_dims
from secateur.graph.dispatch import Recorder, Recording
from secateur.graph.scales import tagged_roots
from secateur.graph.sized_ints import Ledger, sized_number
from secateur.graph.snapshot import evaluate_, leaves_of, on_meta, restored, swap_in
from secateur.graph.types import fresh_all

Place = int | str | None
"""Where a tensor stands among what a module is given or returns: a position, a name, or None for
a single returned tensor."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operator, and the modules that were running: numbers of their calls, outermost first."""

    call: OpCall
    running: tuple[int, ...]
    outs: tuple[Tensor, ...]

    @property
    def name(self) -> str:
        """The operator's, without the underscore of those that write in place."""
        name = self.call.name
        return name[:-1] if name.endswith("_") and not name.endswith("__") else name

    @property
    def ins(self) -> list[Tensor]:
        """The tensors that it read."""
        return self.call.tensors


@dataclass(slots=True)
class Called:
    """One module call: the steps from `start` up to `stop`, the tensors that it was given and
    returned, by their place."""

    module: str
    start: int
    given: dict[Place, Tensor]
    stop: int = -1
    returned: dict[Place, Tensor] = field(default_factory=dict)

    def holds(self, step: int) -> bool:
        """Whether a step ran inside."""
        return self.start <= step < self.stop


class Tape:
    """What one forward did. Tensors are known by their `id`, and held here so that these last."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.calls: list[Called] = []
        self.names: dict[int, str] = {}
        """Of the model's parameters and buffers."""
        self.trained: set[int] = set()
        """Parameters with gradients, and what they went into."""
        self.inputs: set[int] = set()
        """The model's inputs, and what they went into."""
        self.finals: set[int] = set()
        self.read_by: dict[int, list[int]] = {}
        self.made_by: dict[int, list[int]] = {}
        self.dims: dict[int, tuple[Dim, ...]] = {}
        self.given_to: dict[int, list[int]] = {}
        self.returned_by: dict[int, list[int]] = {}
        self.lost: frozenset[int] = frozenset()
        """Axes of the graph of which this forward knows nothing."""
        self.held: Any = None

    def tensors(self) -> Iterator[tuple[int, tuple[Dim, ...]]]:
        """Every tensor by its `id`, with its dimensions."""
        return iter(self.dims.items())

    def close_(self, axes: LiveAxes, out: Any) -> None:
        """Once the forward is over: who reads what, and what every dimension turned out to be."""
        self.lost = axes.settle_()
        self.finals = {id(tensor) for tensor in tensors_in(out)}
        for number, step in enumerate(self.steps):
            for one in step.ins:
                _add(self.read_by, id(one), number)
            for one in step.outs:
                _add(self.made_by, id(one), number)
            for origin in (self.trained, self.inputs):
                if any(id(one) in origin for one in step.ins):
                    origin.update(id(one) for one in step.outs if _differentiable(one))
            for one in (*step.ins, *step.outs):
                if id(one) not in self.dims:
                    self.dims[id(one)] = tuple(axes.dim(product) for product in dims_of(one))
        for number, call in enumerate(self.calls):
            for one in call.given.values():
                _add(self.given_to, id(one), number)
            for one in call.returned.values():
                _add(self.returned_by, id(one), number)


def _add(table: dict[int, list[int]], key: int, number: int) -> None:
    known = table.setdefault(key, [])
    if not known or known[-1] != number:
        known.append(number)


def _differentiable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def record(model: nn.Module, graph: Graph, example_inputs: Any, *, training: bool) -> Tape:
    """The tape of one forward; the model is unchanged afterwards.

    Raises: whatever the forward raises when it can run neither without values nor with them.
    """
    try:
        return _run(model, graph, example_inputs, training=training, meta=True)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError):
        if any(tensor.is_meta for tensor in model.parameters()):
            raise
    return _run(model, graph, example_inputs, training=training, meta=False)


def _run(model: nn.Module, graph: Graph, inputs: Any, *, training: bool, meta: bool) -> Tape:
    tape, axes, ledger, recording = Tape(), LiveAxes(), Ledger(), Recording(keep_ops=False)
    args, kwargs = call_arguments(inputs)
    args, kwargs = tree_map_only(Tensor, on_meta if meta else Tensor.detach, (args, kwargs))
    if training:  # batch norm refuses a single value for each channel
        args, kwargs = tree_map_only(Tensor, _doubled, (args, kwargs))
    everywhere = named_modules(model, repeated=True)
    modules = distinct(everywhere)
    with ExitStack() as stack:
        stack.enter_context(restored(modules))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stand_ins = _stand_ins(everywhere, graph, tape, axes, meta=meta)
        if training:
            model.train()
        else:
            evaluate_(modules)
        for tensor in tensors_in((args, kwargs)):
            set_dims(tensor, fresh_all(tensor.shape))
            if _differentiable(tensor):
                tape.inputs.add(id(tensor))
        recorder = _Taping(tape, recording, stand_ins, meta)
        stack.enter_context(without_fast_path())
        stack.enter_context(tagged_reads(modules, ledger))
        stack.enter_context(visible_functionals())
        stack.enter_context(tagged_roots(sized_number))
        stack.enter_context(_calls_kept(recorder, modules))
        stack.enter_context(recorder)
        stack.enter_context(Arrivals(ledger, recorder))
        out = model(*args, **kwargs)
    ledger.open = False
    tape.held = (args, kwargs, out, recorder)
    tape.close_(axes, out)
    return tape


def _doubled(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor]) if tensor.dim() else tensor


def _stand_ins(
    everywhere: NamedModules, graph: Graph, tape: Tape, axes: LiveAxes, *, meta: bool
) -> set[int]:
    """Put tensors with the graph's axes in the place of the model's own."""
    leaves = leaves_of(everywhere, meta=meta)
    for leaf in leaves.values():
        if not meta and not leaf.is_parameter:
            leaf.stand_in = leaf.stand_in.clone()  # running statistics are written to
        set_dims(leaf.stand_in, axes.thawed(graph.tensors[leaf.names[0]].dims))
        tape.names[id(leaf.stand_in)] = leaf.names[0]
        if leaf.is_parameter and leaf.original.requires_grad:
            tape.trained.add(id(leaf.stand_in))
    swap_in(distinct(everywhere), leaves)
    return {id(leaf.stand_in) for leaf in leaves.values()}


class _Taping(Recorder):  # type: ignore[no-untyped-call]
    """Infers types as a trace does, and keeps every operator."""

    def __init__(self, tape: Tape, recording: Recording, stand_ins: set[int], meta: bool) -> None:
        super().__init__(recording, stand_ins, meta=meta, strict=False)
        self.tape = tape
        self.running: list[int] = []

    def record(self, call: OpCall) -> None:
        super().record(call)
        outs = call.out if call.returns_many else (call.out,)
        made = tuple(out for out in outs if isinstance(out, Tensor))
        self.tape.steps.append(Step(call, tuple(self.running), made))


@contextmanager
def _calls_kept(recorder: _Taping, modules: NamedModules) -> Iterator[None]:
    """Every call of a module is kept with what it was given and what it returned."""
    names = {id(module): name for name, module in reversed(modules)}
    plain: Any = nn.Module._call_impl
    tape, stack = recorder.tape, recorder.recording.stack

    def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        name = names.get(id(module))
        if name is None:
            return plain(module, *args, **kwargs)
        call = Called(name, len(tape.steps), _tensors_at({**dict(enumerate(args)), **kwargs}))
        recorder.running.append(len(tape.calls))
        tape.calls.append(call)
        stack.append(name)
        try:
            out = plain(module, *args, **kwargs)
        finally:
            stack.pop()
            recorder.running.pop()
        call.stop, call.returned = len(tape.steps), _tensors_at(_returned(out))
        return out

    nn.Module._call_impl = watched  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module._call_impl = plain  # type: ignore[method-assign]


def _returned(out: Any) -> dict[Place, Any]:
    if isinstance(out, Tensor):
        return {None: out}
    if isinstance(out, Mapping):
        return dict(out)
    return dict(enumerate(out)) if isinstance(out, (tuple, list)) else {}


def _tensors_at(values: Mapping[Any, Any]) -> dict[Place, Tensor]:
    return {place: value for place, value in values.items() if isinstance(value, Tensor)}
