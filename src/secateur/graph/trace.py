"""`trace`: one recorded forward, and the graph that it teaches.

The model runs once on the meta device (on the CPU where an operator has no meta kernel) and is
left as it was. In evaluation mode first; if parameters stayed unused, once more in training mode,
so that what only runs in training (auxiliary heads) is coupled as well.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from secateur.core.collecting import uncollected
from secateur.core.dims import Dim
from secateur.core.errors import SecateurError, TraceError
from secateur.core.expressions import Field
from secateur.core.fingerprint import distinct, fingerprint, named_modules
from secateur.core.graph import Call, Graph, Op, TensorType, Value
from secateur.core.scales import Rows, Scale
from secateur.graph.arrivals import Arrivals, visible_functionals
from secateur.graph.attributes import tagged_reads
from secateur.graph.call import dims_of, set_dims
from secateur.graph.calls import CallWatch, LiveCall, picked_by_number, tensors_in, value_of
from secateur.graph.dispatch import LiveValue, Recorder, Recording
from secateur.graph.folding import fold_sites
from secateur.graph.freeze import Freezer, make_groups, make_relations, relevant, settle
from secateur.graph.numbering import pin_numbers
from secateur.graph.scales import Site, tagged_roots
from secateur.graph.sized_ints import Ledger, sized_number
from secateur.graph.snapshot import Leaf, evaluate_, leaves_of, on_meta, restored, swap_in
from secateur.graph.types import Dims, fresh_all, pin
from secateur.graph.unreached import pin_unreached

ExampleInputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


class _NeedsValues(Exception):
    """The forward asks for what a meta tensor does not have."""


def trace(model: nn.Module, example_inputs: ExampleInputs, *, strict: bool = False) -> Graph:
    """The graph of a model: what can be removed, what is pinned and why, what it costs.

    example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments, as
    the model takes them. The model is unchanged afterwards.

    Raises: TraceError when the forward fails on these inputs; UnsupportedOpError for an operator
    without a rule under `strict=True` (otherwise what it touches is pinned and it is named in
    `Graph.unknown_ops`).

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [(g.id, g.size) for g in trace(model, torch.zeros(1, 4)).free]
    [('0.weight[0]', 8)]
    """
    args, kwargs = call_arguments(example_inputs)
    try:
        with uncollected():
            return _Trace(model, strict, meta=True).run(args, kwargs)
    except _NeedsValues as needs:
        if any(tensor.is_meta for tensor in model.parameters()):
            raise TraceError(
                f"the forward of {type(model).__name__} needs values, but its weights are on the "
                f"meta device ({needs}); load the weights and trace again"
            ) from needs.__cause__
    return _Trace(model, strict, meta=False).run(args, kwargs)


def call_arguments(example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a forward.

    >>> call_arguments({"x": 1})
    ((), {'x': 1})
    """
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


class _Trace:
    """One attempt at tracing: the state that its steps share."""

    def __init__(self, model: nn.Module, strict: bool, *, meta: bool) -> None:
        self.model = model
        self.everywhere = named_modules(model, repeated=True)
        self.modules = distinct(self.everywhere)
        self.strict = strict
        self.meta = meta
        self.ledger = Ledger()
        self.recording = Recording()
        self.calls: list[LiveCall] = []
        self.containers: dict[str, bool] = {}
        self.inputs: list[Dims] = []
        self.outputs: list[LiveValue] = []
        self.read: dict[Field, int] = {}
        self.warnings: list[str] = []
        self.finals: list[Tensor] = []
        self.evaluated = 0
        self.folded: dict[Site, tuple[Rows, ...]] = {}

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        started = time.perf_counter()
        with restored(self.modules), torch.no_grad():
            leaves = leaves_of(self.everywhere, meta=self.meta)
            for leaf in leaves.values():
                set_dims(leaf.stand_in, fresh_all(leaf.stand_in.shape))
            swap_in(self.modules, leaves)
            evaluate_(self.modules)
            stand_ins = {id(leaf.stand_in) for leaf in leaves.values()}
            names = {id(le.stand_in): le.names[0] for le in leaves.values() if le.is_parameter}
            self._forward(args, kwargs, stand_ins)
            self.folded = self._fold(names)
            unused = _unused(leaves, self.recording)
            if self.meta and any(leaf.is_parameter for leaf in unused):
                self._train_forward(args, kwargs, stand_ins)
                self._fold_again(names)
                unused = _unused(leaves, self.recording)
            self.recording.calls.clear()
            ran = time.perf_counter()
            self.ledger.open = False
            settle(self.ledger, [dims_of(leaf.stand_in) for leaf in unused])
        graph = self._freeze(leaves)
        graph.seconds.update(forward=ran - started, solve=time.perf_counter() - ran)  # type: ignore[attr-defined]
        return graph

    def _forward(self, args: tuple[Any, ...], kwargs: dict[str, Any], stand_ins: set[int]) -> None:
        place = on_meta if self.meta else Tensor.detach
        args, kwargs = tree_map_only(Tensor, place, (args, kwargs))
        for tensor in tensors_in((args, kwargs)):
            if id(tensor) not in stand_ins:
                set_dims(tensor, fresh_all(tensor.shape, "an input of the model"))
        self.recording.calls.clear()
        recorder = Recorder(self.recording, stand_ins, meta=self.meta, strict=self.strict)
        try:
            with (
                tagged_reads(self.modules, self.ledger) as read,
                visible_functionals(),
                tagged_roots(sized_number),
                self._module_hooks() as watch,
                warnings.catch_warnings(),
                recorder,
                Arrivals(self.ledger, recorder),
            ):
                warnings.simplefilter("ignore")
                out = self.model(*args, **kwargs)
        except SecateurError:
            raise
        except Exception as error:
            raise self._explained(error) from error
        self.read.update(read)
        self.finals = list(tensors_in(out))
        if self.recording.keep_ops:
            self.inputs = [dims_of(tensor) for tensor in tensors_in((args, kwargs))]
        pin_numbers(self.finals)
        for tensor in tensors_in(out, outside=watch.carried):
            for product in dims_of(tensor):
                pin(product, "an output of the model")
        if self.recording.keep_ops:
            self.outputs += [value_of(tensor, self.recording) for tensor in self.finals]

    def _fold(self, names: Mapping[int, str]) -> dict[Site, tuple[Rows, ...]]:
        """The weights that absorb the scales of the last forward."""
        made = self.ledger.conversions[self.evaluated :]
        return fold_sites(made, self.recording.calls, names, self.finals)

    def _fold_again(self, names: Mapping[int, str]) -> None:
        """Keep what the evaluated forward taught only if the one in training mode agrees."""
        again = set(self._fold(names).values())
        if len(self.ledger.conversions) > self.evaluated and again != set(self.folded.values()):
            self.folded = {}
            for conversion in self.ledger.conversions:
                conversion.folded = False

    def _scale(self, site: Site, weights: tuple[Rows, ...], freezer: Freezer) -> Scale:
        expression = freezer.expression(site.conversion.expression)
        return Scale(expression, site.power, weights, site.conversion.number)

    def _train_forward(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], stand_ins: set[int]
    ) -> None:
        self.recording.keep_ops = False
        self.evaluated = len(self.ledger.conversions)
        self.model.train()
        twice = tree_map_only(Tensor, _doubled, (args, kwargs))
        for own_args, own_kwargs in ((args, kwargs), twice):  # batch norm refuses a single value
            try:
                self._forward(own_args, own_kwargs, stand_ins)
                return
            except (_NeedsValues, TraceError) as error:
                reason = str(error)
                del self.ledger.conversions[self.evaluated :]
        self.warnings.append(f"the forward in training mode could not be traced: {reason}")

    def _explained(self, error: Exception) -> Exception:
        where = self.recording.stack[-1] if self.recording.stack else ""
        about_meta = isinstance(error, NotImplementedError) or "meta" in str(error).lower()
        if self.meta and (about_meta or not isinstance(error, TypeError)):
            return _NeedsValues(str(error))
        return TraceError(
            f"the forward of {type(self.model).__name__} failed{f' in {where}' if where else ''}: "
            f"{type(error).__name__}: {error}; call the model with the same example_inputs first, "
            "and pass what works there"
        )

    @contextmanager
    def _module_hooks(self) -> Iterator[CallWatch]:
        names = {id(module): name for name, module in reversed(self.modules)}
        watch = CallWatch(self.recording, names, self.calls)
        if self.recording.keep_ops:
            with watch, picked_by_number(self.modules, names) as self.containers:
                yield watch
        else:
            with watch:
                yield watch

    def _freeze(self, leaves: Mapping[int, Leaf]) -> Graph:
        freezer = Freezer()
        tensors = {leaf.names[0]: _tensor_type(leaf, freezer) for leaf in leaves.values()}
        ops = tuple(_op(op, freezer) for op in self.recording.ops)
        groups = pin_unreached(make_groups(freezer, tensors), tensors, ops)
        relations, fields = make_relations(
            freezer, self.ledger.notes, self.modules, tensors, self.read
        )
        free = {group.axis.index for group in groups if group.pinned is None}
        kept = relevant(relations, free)
        return Graph(
            groups=tuple(groups),
            tensors=tensors,
            ops=ops,
            calls=tuple(_call(call, freezer) for call in self.calls),
            relations=tuple(kept),
            fields=fields,
            inputs=tuple(freezer.dims(dims) for dims in self.inputs),
            outputs=tuple(freezer.dims(live.dims) for live in self.outputs),
            output_storages=tuple(live.storage for live in self.outputs),
            containers=self.containers,
            unknown_ops=dict(self.recording.unknown),
            fingerprint=fingerprint(self.model),
            warnings=tuple(self.warnings),
            scales=tuple(self._scale(site, rows, freezer) for site, rows in self.folded.items()),
        )


def _doubled(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor]) if tensor.dim() else tensor


def _unused(leaves: Mapping[int, Leaf], recording: Recording) -> list[Leaf]:
    return [leaf for leaf in leaves.values() if id(leaf.stand_in) not in recording.used]


def _tensor_type(leaf: Leaf, freezer: Freezer) -> TensorType:
    return TensorType(
        dims=freezer.dims(dims_of(leaf.stand_in)),
        itemsize=leaf.original.element_size(),
        trainable=leaf.original.requires_grad,
        is_parameter=leaf.is_parameter,
        aliases=tuple(leaf.names[1:]),
        persistent=leaf.persistent,
    )


def _call(call: LiveCall, freezer: Freezer) -> Call:
    return Call(
        call.module,
        call.kind,
        tuple(freezer.dims(dims) for dims in call.outputs),
        tuple(_value(live, freezer) for live in call.inputs),
        call.storages,
        call.span,
        call.plain,
    )


def _value(live: LiveValue, freezer: Freezer) -> Value:
    known = freezer.values.get(id(live))
    if known is None:
        known = Value(live.storage, freezer.dims(live.dims), live.itemsize)
        freezer.values[id(live)] = known
    return known


def _op(op: Any, freezer: Freezer) -> Op:
    macs: list[tuple[Dim, ...]] = [tuple(freezer.dim(p) for p in term) for term in op.macs]
    return Op(
        op.name,
        op.module,
        tuple(_value(live, freezer) for live in op.inputs),
        tuple(_value(live, freezer) for live in op.outputs),
        tuple(macs),
    )
