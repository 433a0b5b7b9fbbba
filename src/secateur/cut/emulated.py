"""The reference for groups whose removal is not zeroing: norms, means and scales over what is kept.

The original runs at its full size with the removed units zeroed, and wherever an operator runs
over a cut axis in a way that zeros would disturb (a layer norm, a mean, a softmax), that operator
alone is computed over the kept indices and its result put back among zeros. A number made of a
size, such as `1/sqrt(head_dim)`, gets the size after the cut. Everything else is the original's
own arithmetic on the original's own shapes, so a wrong index anywhere still shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from secateur.core.dims import Axis, axes_of, kept_indices, new_size
from secateur.core.expressions import Binary, Expression, Field, Size, evaluate
from secateur.core.fingerprint import distinct, named_modules
from secateur.core.graph import Graph
from secateur.core.modes import same_randomness
from secateur.core.plan import Plan
from secateur.graph import call_arguments, tensors_in
from secateur.graph.arrivals import Arrivals, visible_functionals
from secateur.graph.attributes import tagged_reads
from secateur.graph.call import OpCall, dims_of, set_dims
from secateur.graph.dispatch import Recorder, Recording
from secateur.graph.sized_ints import Ledger, LiveSize
from secateur.graph.snapshot import evaluate_, leaves_of, restored, swap_in
from secateur.graph.thaw import Thawing
from secateur.graph.types import Atom, Dims, Product, fresh_all, leading

_RENORMALISING = frozenset(
    "native_layer_norm _fused_rms_norm native_group_norm mean var std var_mean std_mean _softmax "
    "_log_softmax _safe_softmax amax amin prod logsumexp topk "
    # sums of activations, which a zeroed parameter does not always make zero: elu(x) + 1
    "sum bmm baddbmm cumsum linalg_vector_norm "
    # norms of weights: zero by zero at a removed unit
    "_weight_norm _weight_norm_interface".split()
)
_BATCH_NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _batch_norm_with_update cudnn_batch_norm".split()
)
"""Renormalising where they take the batch's statistics, as for standardised weights."""


def run_emulated(reference: nn.Module, plan: Plan, graph: Graph, inputs: Any) -> list[Tensor]:
    """Outputs of `reference`, the original with removed units zeroed, with norms, means and scales
    over what the plan keeps. In evaluation mode and without gradients; the module is unchanged."""
    types = _Types(graph, plan)
    # types are written on tensors, and these are the caller's
    args, kwargs = tree_map_only(Tensor, Tensor.detach, call_arguments(inputs))
    ledger = _NewSizes(types=types, folded=frozenset(s.number for s in graph.scales))
    everywhere = named_modules(reference, repeated=True)
    modules = distinct(everywhere)
    with ExitStack() as stack:
        stack.enter_context(restored(modules))
        stack.enter_context(torch.no_grad())
        stack.enter_context(same_randomness())
        leaves = leaves_of(everywhere, meta=False)
        for leaf in leaves.values():
            set_dims(leaf.stand_in, types.thawed(graph.tensors[leaf.names[0]].dims))
        swap_in(modules, leaves)
        evaluate_(modules)
        for tensor in tensors_in((args, kwargs)):
            set_dims(tensor, fresh_all(tensor.shape))
        recorder = _Renormalising(types, {id(leaf.stand_in) for leaf in leaves.values()})
        stack.enter_context(tagged_reads(modules, ledger))
        stack.enter_context(visible_functionals())
        stack.enter_context(recorder)
        stack.enter_context(Arrivals(ledger, recorder))
        out = list(tensors_in(reference(*args, **kwargs)))
    ledger.open = False
    return out


class _Types(Thawing):
    """Between the graph's frozen dimensions and the live ones of this run, and what is kept."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        super().__init__()
        self.keep, self.counts = plan.kept_units(), plan.counts()
        self.fields = {**graph.fields, **{c.field: c.after for c in plan.changes}}

    def axis(self, atom: Atom) -> Axis:
        """Also while the run goes on."""
        if atom not in self.axes:
            # a rule may have bound an atom of the graph to a fresh one of the same size
            self.axes |= {root: axis for axis, root in self.roots().items()}
        return super().axis(atom)

    def kept(self, product: Product) -> Tensor | None:
        """Kept indices of a live dimension; None where all are kept."""
        dim = self.dim(product)
        cut = any(axis.index in self.keep for axis in axes_of(dim))
        return kept_indices(dim, self.keep) if cut else None

    def new_size(self, product: Product) -> int:
        """Size of a live dimension after the cut."""
        return new_size(self.dim(product), self.counts)


class _Renormalising(Recorder):  # type: ignore[no-untyped-call]
    """Infers types on real tensors, and computes norms, means and softmaxes over what is kept."""

    def __init__(self, types: _Types, stand_ins: set[int]) -> None:
        super().__init__(Recording(keep_ops=False), stand_ins, meta=False, strict=False)
        self.types = types

    def record(self, call: OpCall) -> None:
        super().record(call)
        if call.name in _RENORMALISING or (call.name in _BATCH_NORMS and call.get("training")):
            with self.paused():
                self._redo_(call, call.args[0])
        elif call.name == "scaled_dot_product_attention":
            with self.paused():
                self._redo_attention_(call)
        elif torch.Tag.pointwise in call.func.tags and isinstance(call.out, Tensor):
            with self.paused():
                self._clear_undefined_(call.out)

    def _clear_undefined_(self, out: Tensor) -> None:
        """Zero divided by zero at a removed unit is a unit that is not there: zero."""
        if not out.is_floating_point() or not bool(out.isnan().any()):
            return
        for k, dim in enumerate(dims_of(out)):
            kept = self.types.kept(dim)
            if kept is not None:
                removed = torch.ones(out.shape[k], dtype=torch.bool)
                removed[kept] = False
                out.index_fill_(k, removed.nonzero().flatten(), 0)

    def _redo_attention_(self, call: OpCall) -> None:
        """Only where positions go, over which its softmax runs: zeroed heads and widths stay."""
        key = call.get("key")
        if self.types.kept(dims_of(key)[-2]) is not None:
            self._redo_(call, key)

    def _redo_(self, call: OpCall, source: Tensor) -> None:
        kept = [self.types.kept(dim) for dim in dims_of(source)]
        if all(indices is None for indices in kept):
            return
        args = [self._compact(arg) if isinstance(arg, Tensor) else arg for arg in call.args]
        _resize_(call, args, dims_of(source), self.types)
        kwargs = {
            k: self._compact(v) if isinstance(v, Tensor) else v for k, v in call.kwargs.items()
        }
        compact = call.func(*args, **kwargs)
        if call.name == "topk":
            compact = _numbered_as_before(call, kept, compact)
        many = call.returns_many
        for full, part in zip(
            call.out if many else [call.out], compact if many else [compact], strict=True
        ):
            if isinstance(full, Tensor) and full.numel():
                self._expand_(full, part)

    def _compact(self, tensor: Tensor) -> Tensor:
        for k, dim in enumerate(dims_of(tensor)):
            indices = self.types.kept(dim)
            if indices is not None:
                tensor = tensor.index_select(k, indices)
        return tensor

    def _expand_(self, full: Tensor, part: Tensor) -> None:
        index = [self.types.kept(dim) for dim in dims_of(full)]
        full.zero_()
        if all(indices is None for indices in index):
            full.copy_(part)
            return
        grid = [
            (torch.arange(size) if indices is None else indices).reshape(
                [-1 if j == k else 1 for j in range(full.dim())]
            )
            for k, (size, indices) in enumerate(zip(full.shape, index, strict=True))
        ]
        full[tuple(grid)] = part


def _numbered_as_before(call: OpCall, kept: Sequence[Tensor | None], compact: Any) -> list[Tensor]:
    """The largest few of what is kept, with their indices in the original."""
    values, indices = compact
    along = kept[call.get("dim", -1)]
    return [values, indices if along is None else along[indices]]


def _resize_(call: OpCall, args: list[Any], dims: Dims, types: _Types) -> None:
    """Sizes among the arguments after the cut."""
    if call.name in ("native_layer_norm", "_fused_rms_norm"):
        args[1] = [types.new_size(dim) for dim in dims[len(dims) - len(args[1]) :]]
    elif call.name == "native_group_norm":
        # input, weight, bias, N, C, HxW, groups, eps
        groups = leading(dims[1], args[6])
        args[4] = types.new_size(dims[1])
        args[6] = args[6] if groups is None else types.new_size(groups)


@dataclass
class _NewSizes(Ledger):
    """A ledger whose integers, used as numbers, are those of the cut model."""

    types: _Types = field(kw_only=True)
    folded: frozenset[int] = field(kw_only=True)
    made: int = 0

    def scale(self, value: int, expression: Any, where: str) -> float:
        number, self.made = self.made, self.made + 1
        if number in self.folded:
            return value  # the cut model's weights keep the scale as it was
        after = evaluate(self._frozen(expression), self.types.counts, self.types.fields)
        return value if after is None else after

    def _frozen(self, expression: Any) -> Expression:
        if isinstance(expression, LiveSize):
            return Size(self.types.dim(expression.product))
        if isinstance(expression, Binary):
            left, right = self._frozen(expression.left), self._frozen(expression.right)
            return Binary(expression.op, left, right)
        assert isinstance(expression, (int, Field))
        return expression
