"""`verify`: the cut model against the masked original, by shapes everywhere and by numbers.

Every module's outputs must have the shapes that the graph predicts. Where removing equals zeroing
(`exact` groups) the outputs must be equal. Where something runs over the cut axis (a layer norm,
an attention scale) the reference computes that over what is kept, and the proof says so; if that
does not explain the outputs, those groups are left whole in the comparison, and said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.copies import copied
from secateur.core.depth import renumbered, within, without_blocks
from secateur.core.dims import Counts, Dim, axes_of, dim_size, kept_indices, new_size
from secateur.core.errors import CutError, ProofError
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Call, Graph
from secateur.core.modes import evaluating, same_randomness, without_fast_path
from secateur.core.plan import Plan
from secateur.core.proof import Proof
from secateur.cut.apply import cut
from secateur.cut.difference import difference, has_nan
from secateur.cut.emulated import run_emulated
from secateur.cut.masked import masked
from secateur.cut.part import depth_of, part_of
from secateur.cut.passing import and_blocks, without_depth
from secateur.cut.precision import TOLERANCE, Lowest, cast_, cast_floats, computing_in
from secateur.graph import call_arguments, tensors_in, trace
from secateur.graph.trace import ExampleInputs

_MODEL_ERRORS = (
    RuntimeError, ValueError, LookupError, TypeError, AttributeError, NameError, AssertionError,
)  # fmt: skip
"""What a model's own code raises where a cut left it something that it did not expect."""


def verify(
    model: nn.Module,
    small: nn.Module,
    plan: Plan,
    example_inputs: ExampleInputs,
    *,
    graph: Graph | None = None,
    dtype: torch.dtype | None = None,
) -> Proof:
    """Compare `small` with the masked `model` on `example_inputs`.

    dtype: compute in this precision on copies (float64 makes the comparison strict); by default
    the model's own. graph: the model's graph if it is at hand, otherwise it is traced again.
    Raises: ProofError when outputs differ beyond rounding (`TOLERANCE`), CutError when a module's
    output has another shape than predicted; both name the place.
    """
    graph = graph if graph is not None else trace(model, example_inputs)
    inputs = cast_floats(example_inputs, dtype)
    small = _in_precision(small, model, plan, dtype)
    with computing_in(dtype), without_fast_path():
        outputs, calls = _checked_run(small, inputs, graph, plan)
        found = (
            None if plan.inexact else _compare_masked(outputs, model, plan, graph, inputs, dtype)
        )
        found = found or _compare_corrected(outputs, model, plan, graph, inputs, dtype)
        found = found or _compare_part(small, model, plan, graph, inputs, dtype)
    tied = "its size is tied to a group for which equality cannot hold"
    return Proof(
        max_abs_error=found.absolute,
        max_rel_error=found.relative,
        groups_checked=len(found.groups),
        groups_shape_only=len(plan.keep) - len(found.groups),
        dtype=found.dtype,
        module_calls=calls,
        reasons={id: plan.inexact.get(id, tied) for id in plan.keep if id not in found.groups},
        corrected={id: why for id, why in plan.inexact.items() if id in found.groups},
        blocks_removed=len(plan.removed),
    )


def _in_precision(
    small: nn.Module, model: nn.Module, plan: Plan, dtype: torch.dtype | None
) -> nn.Module:
    """The cut model in the precision of the comparison.

    Weights that absorbed a scale were rounded to the model's own precision: once they are known to
    be what the plan makes of the model's, they are made again in the wider one.
    """
    if dtype is None:
        return small
    if not plan.folds:
        return cast_(copied(small), dtype)
    _check_same(small, cut(model, plan))
    return cut(cast_(copied(model), dtype), plan)


@dataclass(frozen=True)
class _Comparison:
    """groups: those that the outputs depended on. precision: the lowest that was computed in."""

    absolute: float
    relative: float
    precision: torch.dtype
    dtype: str
    groups: frozenset[str]

    @property
    def equal(self) -> bool:
        return self.relative <= TOLERANCE[self.precision]


def _compare_masked(
    outputs: list[Tensor],
    model: nn.Module,
    plan: Plan,
    graph: Graph,
    inputs: Any,
    dtype: torch.dtype | None,
) -> _Comparison | None:
    """Against the original with the removed units zeroed and the removed blocks passed by; None
    where that divides zero by zero, as a weight norm does. Raises: ProofError when unequal."""
    reference = _cast(masked(model, plan), dtype)
    with without_depth(reference, graph, plan.removed) as kept:
        found = _compared(
            outputs, plan, lambda: kept(_as_cut(_run(reference, inputs), graph, plan))
        )
    if found is not None and not found.equal:
        raise ProofError(
            f"the cut model differs from the masked original by {found.absolute:.3g} "
            f"({found.relative:.3g} of the largest output, {TOLERANCE[found.precision]:g} allowed) "
            f"over {len(found.groups)} groups{and_blocks(plan)}; this is a defect of secateur: "
            "do not use the cut model, and report the model and the plan"
        )
    return found


def _compare_corrected(
    outputs: list[Tensor],
    model: nn.Module,
    plan: Plan,
    graph: Graph,
    inputs: Any,
    dtype: torch.dtype | None,
) -> _Comparison | None:
    """Against the masked original with norms, means and scales over what is kept; None where that
    reference cannot be had, or does not explain the outputs."""
    reference = _cast(masked(model, plan), dtype)
    try:
        with without_depth(reference, graph, plan.removed) as kept:
            found = _compared(
                outputs,
                plan,
                lambda: kept(_as_cut(run_emulated(reference, plan, graph, inputs), graph, plan)),
            )
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError, ProofError):
        return None
    return found if found is not None and found.equal else None


def _check_same(small: nn.Module, expected: nn.Module) -> None:
    """Raises: ProofError when `small` does not hold the weights that the plan keeps."""
    ours = dict(named_tensors(small))
    for name, tensor in named_tensors(expected):
        if name not in ours or not torch.equal(ours[name], tensor.to(ours[name])):
            raise ProofError(
                f"{name} of the cut model is not what the plan keeps of the original; verify the "
                "model as `cut` returned it, before any training"
            )


def _compare_part(
    small: nn.Module,
    model: nn.Module,
    plan: Plan,
    graph: Graph,
    inputs: Any,
    dtype: torch.dtype | None,
) -> _Comparison:
    """The exact groups alone, the others whole, against the masked original."""
    _check_same(small, cut(model, plan))
    part = part_of(plan, without_blocks(graph, plan.removed), plan.exact)
    if part is None and plan.removed:
        part = depth_of(plan)
    if part is None:
        return _Comparison(0.0, 0.0, torch.float64, "nothing", frozenset())
    outputs = _run(_in_precision(cut(model, part), model, part, dtype), inputs)
    found = _compare_masked(outputs, model, part, graph, inputs, dtype)
    found = found or _compare_corrected(outputs, model, part, graph, inputs, dtype)
    if found is None:
        raise ProofError(
            "the masked original divides zero by zero, and leaving the removed units out of that "
            "does not explain the outputs of the cut model: do not use it, and report the model "
            "and the plan"
        )
    return found


def _compared(
    outputs: list[Tensor], plan: Plan, reference: Callable[[], list[Tensor]]
) -> _Comparison | None:
    """The comparison with a reference; None where the reference alone is undefined."""
    with Lowest() as precision:  # type: ignore[no-untyped-call]
        expected = reference()
    if has_nan(expected) and not has_nan(outputs):
        return None
    absolute, relative = difference(outputs, expected)
    name = str(expected[0].dtype).removeprefix("torch.") if expected else "nothing"
    return _Comparison(absolute, relative, precision.dtype, name, frozenset(plan.keep))


def _as_cut(outputs: list[Tensor], graph: Graph, plan: Plan) -> list[Tensor]:
    """Outputs of the reference at the kept indices: a cache that a model returns gets smaller
    with its heads."""
    keep = plan.kept_units()
    if len(outputs) != len(graph.outputs) or not keep:
        return outputs
    found = []
    for tensor, dims in zip(outputs, graph.outputs, strict=True):
        for k, dim in enumerate(dims if tensor.dim() == len(dims) else ()):
            cut_here = any(axis.index in keep for axis in axes_of(dim))
            if cut_here and tensor.shape[k] == dim_size(dim):
                tensor = tensor.index_select(k, kept_indices(dim, keep).to(tensor.device))
        found.append(tensor)
    return found


def _cast(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    return model if dtype is None else cast_(model, dtype)


def _run(model: nn.Module, inputs: Any) -> list[Tensor]:
    args, kwargs = call_arguments(inputs)
    with evaluating(model), torch.no_grad(), same_randomness():
        return list(tensors_in(model(*args, **kwargs)))


def _checked_run(
    small: nn.Module, inputs: Any, graph: Graph, plan: Plan
) -> tuple[list[Tensor], int]:
    """Outputs of the cut model, and how many module calls had the predicted shapes."""
    names = {id(module): name for name, module in reversed(list(small.named_modules()))}
    counts, matched, last = plan.counts(), 0, ""
    expected: dict[str, deque[Call]] = {}
    for call in graph.calls:
        if not within(call.module, plan.taken_out):
            expected.setdefault(renumbered(call.module, plan.taken_out), deque()).append(call)

    def compare(module: nn.Module, args: Any, out: Any) -> None:
        nonlocal matched, last
        last = names.get(id(module), last)
        if out is None or not expected.get(last) or id(module) not in names:
            return  # a module that the trace did not call: another path, decided by data
        call = expected[last].popleft()
        for tensor, dims in zip(tensors_in(out), call.outputs, strict=False):
            if tensor.is_nested or len(dims) != tensor.dim():
                continue
            if any(_unlike(dim, n, counts) for dim, n in zip(dims, tensor.shape, strict=True)):
                predicted = tuple(new_size(dim, counts) for dim in dims)
                raise CutError(
                    f"the output of {call.module or 'the model'} ({call.kind}) has shape "
                    f"{tuple(tensor.shape)} after the cut, predicted {predicted}; keep that "
                    f"module out of the plan: keep_modules=({call.module!r},)"
                )
        matched += 1

    hook = nn.modules.module.register_module_forward_hook(compare)
    try:
        outputs = _run(small, inputs)
    except _MODEL_ERRORS as error:
        raise CutError(
            f"the cut model does not run: {type(error).__name__}: {error}"
            + (f" (after {last!r})" if last else "")
        ) from error
    finally:
        hook.remove()
    return outputs, matched


def _unlike(dim: Dim, size: int, counts: Counts) -> bool:
    """Whether a dimension that loses units has another size than predicted. One that loses none
    may follow from values: how many tokens an expert is given, how many boxes are found."""
    return new_size(dim, counts) != size and any(axis.index in counts for axis in axes_of(dim))
