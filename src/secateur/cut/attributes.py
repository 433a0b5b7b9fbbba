"""Rewriting a model's integer attributes after a cut: `in_features`, `num_heads`, `config.width`.

The plan names each attribute by its module's path, a dotted name below it and, for tuples and
lists, the element. A property that follows from other attributes cannot be set; it is checked.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.core.errors import CutError
from secateur.core.expressions import Field
from secateur.core.plan import FieldChange


def read_field(model: nn.Module, field: Field) -> int:
    """Present value of an attribute. Raises: AttributeError, IndexError when it is not there."""
    value = _holder(model, field)
    value = getattr(value, field.name.rpartition(".")[2])
    return int(value if field.index is None else value[field.index])


def rewrite_attributes_(model: nn.Module, changes: tuple[FieldChange, ...]) -> None:
    """Give every attribute its new value.

    Raises: CutError when an attribute can neither be set nor follows from the others.
    """
    for change in changes:
        _write(model, change.field, change.after)
    for change in changes:
        if read_field(model, change.field) != change.after:
            raise CutError(
                f"{change.field} of {type(model).__name__} is {read_field(model, change.field)} "
                f"after the cut and should be {change.after}; it is a property that cannot be "
                "set. Keep its module out of the plan with keep_modules=..."
            )
    _decide_again_(model)


def _decide_again_(model: nn.Module) -> None:
    """What torch's constructors decide from sizes: nested tensors need an even number of heads."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor:
            attention = (m for m in module.modules() if isinstance(m, nn.MultiheadAttention))
            module.use_nested_tensor = all(m.num_heads % 2 == 0 for m in attention)


def _holder(model: nn.Module, field: Field) -> Any:
    holder: Any = model.get_submodule(field.owner)
    for name in field.name.split(".")[:-1]:
        holder = getattr(holder, name)
    return holder


def _write(model: nn.Module, field: Field, value: int) -> None:
    holder, name = _holder(model, field), field.name.rpartition(".")[2]
    new: Any = value
    if field.index is not None:
        old = getattr(holder, name)
        items = list(old)
        items[field.index] = value
        new = items if isinstance(old, list) else type(old)(items)
    try:
        setattr(holder, name, new)
    except (AttributeError, TypeError):
        # a read-only property: what it follows from is set on its own, and the check comes after;
        # a frozen dataclass: its __dict__ is still writable
        if name in vars(holder):
            vars(holder)[name] = new
