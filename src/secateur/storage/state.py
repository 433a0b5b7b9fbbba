"""A model's tensors as they are saved: each once, contiguous, on the CPU, in its own dtype.

A tensor that a model holds under several names (tied weights) is stored under the first; the
others are aliases. Non-persistent buffers are rebuilt by the model's own code, so they are stored
only where a cut changed them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from secateur.core.errors import StorageError
from secateur.core.fingerprint import named_tensors


@dataclass(frozen=True)
class State:
    """weights: the state dict without aliases. buffers: non-persistent buffers that a cut
    changed. aliases: other name -> name under which the tensor is in `weights`."""

    weights: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    aliases: Mapping[str, str]


def collect(model: nn.Module, *, changed: Iterable[str] = ()) -> State:
    """The state of a model; `changed` names the tensors that a cut changed.

    Raises: StorageError for state that is no tensor, or tensors without values.
    """
    weights: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_name: dict[int, str] = {}
    memory: set[int] = set()
    held = model.state_dict(keep_vars=True)
    for name, tensor in held.items():
        _check_savable(name, tensor)
        canonical = first_name.setdefault(id(tensor), name)
        if canonical == name:
            weights[name] = _packed(tensor, memory)
        else:
            aliases[name] = canonical
    present = dict(named_tensors(model))
    extra = [name for name in changed if name not in held and name in present]
    return State(weights, {name: _packed(present[name], set()) for name in extra}, aliases)


def restore_(model: nn.Module, state: State) -> None:
    """Give the model exactly the tensors of `state`, in their dtypes, on the model's devices.

    Raises: StorageError naming the tensors that are missing, unexpected or of another shape.
    """
    complete = {**state.weights, **{a: state.weights[c] for a, c in state.aliases.items()}}
    expected = model.state_dict(keep_vars=True)
    _check_same_shapes(expected, complete)
    placed = {
        name: tensor if expected[name].is_meta else tensor.to(expected[name].device)
        for name, tensor in complete.items()
    }
    model.load_state_dict(placed, strict=True, assign=True)
    for name, tensor in state.buffers.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        old = module._buffers.get(leaf)
        module._buffers[leaf] = tensor if old is None or old.is_meta else tensor.to(old.device)
    for alias, canonical in state.aliases.items():
        _tie_(model, alias, canonical)
    _check_all_filled(model)


def _check_savable(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise StorageError(
            f"state {name!r} is a {type(tensor).__name__}, not a tensor, and cannot be saved "
            "without pickle; keep it out of the model's state dict, or register it as a buffer"
        )
    if tensor.is_meta:
        raise StorageError(
            f"tensor {name!r} is on the meta device and has no values; load the model's weights "
            "before saving, or save only the plan: plan.save('plan.json')"
        )


def _packed(tensor: Tensor, memory: set[int]) -> Tensor:
    """The tensor, contiguous and on the CPU; copied where it shares memory with an earlier one."""
    packed = tensor.detach().to("cpu").contiguous()
    storage = packed.untyped_storage()
    whole = storage.nbytes() == packed.nbytes
    if storage.data_ptr() in memory or not whole:
        packed = packed.clone()
    memory.add(packed.untyped_storage().data_ptr())
    return packed


def _check_same_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    differing = [
        f"{name} is {tuple(found[name].shape)} in the file, {tuple(tensor.shape)} in the model"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    problems = [
        *(f"{name} is missing from the file" for name in missing),
        *(f"{name} is not in the model" for name in unexpected),
        *differing,
    ]
    if problems:
        raise StorageError(
            f"the saved weights do not fit the model that model_fn builds: {first_few(problems)}. "
            "Give the model_fn that built the model which was saved"
        )


def _tie_(model: nn.Module, alias: str, canonical: str) -> None:
    owner, _, leaf = canonical.rpartition(".")
    source = model.get_submodule(owner)
    owner, _, alias_leaf = alias.rpartition(".")
    target = model.get_submodule(owner)
    table = "_parameters" if leaf in source._parameters else "_buffers"
    getattr(target, table)[alias_leaf] = getattr(source, table)[leaf]


def _check_all_filled(model: nn.Module) -> None:
    empty = [name for name, tensor in named_tensors(model) if tensor.is_meta]
    if empty:
        raise StorageError(
            f"model_fn builds on the meta device, and {first_few(empty)} cannot be restored from "
            "the file because the model does not save them; build the model on the CPU"
        )


def first_few(items: list[str], *, count: int = 3) -> str:
    """The first few of a list of problems, and how many more there are.

    >>> first_few(["a", "b", "c", "d"])
    'a; b; c; and 1 more'
    """
    more = len(items) - count
    return "; ".join(items[:count]) + (f"; and {more} more" if more > 0 else "")
