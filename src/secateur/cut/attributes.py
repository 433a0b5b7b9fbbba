"""Rewriting a model's integer attributes after a cut: `in_features`, `num_heads`, `config.width`.

The plan names each attribute by its module's path, a dotted name below it and, for tuples and
lists, the element. A property that follows from other attributes cannot be set; it is checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from secateur.core.errors import CutError
from secateur.core.expressions import Field
from secateur.core.fingerprint import named_modules
from secateur.core.plan import FieldChange


def read_field(model: nn.Module, field: Field) -> int:
    """Present value of an attribute. Raises: AttributeError, IndexError when it is not there."""
    return _read(model.get_submodule(field.owner), field)


def rewrite_attributes_(model: nn.Module, changes: tuple[FieldChange, ...]) -> None:
    """Give every attribute its new value.

    Raises: CutError when an attribute can neither be set nor follows from the others.
    """
    owners = dict(named_modules(model, repeated=True))
    for change in changes:
        _write(owners[change.field.owner], change.field, change.after)
    for change in changes:
        found = _read(owners[change.field.owner], change.field)
        if found != change.after:
            raise CutError(
                f"{change.field} of {type(model).__name__} is {found} "
                f"after the cut and should be {change.after}; it is a property that cannot be "
                "set. Keep its module out of the plan with keep_modules=..."
            )
    _decide_again_(owners.values())


def _decide_again_(modules: Iterable[nn.Module]) -> None:
    """What torch's constructors decide from sizes: nested tensors need an even number of heads."""
    for module in modules:
        if isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor:
            attention = (m for m in module.modules() if isinstance(m, nn.MultiheadAttention))
            module.use_nested_tensor = all(m.num_heads % 2 == 0 for m in attention)


def _holder(owner: nn.Module, field: Field) -> tuple[Any, str]:
    """The object that has the attribute, and the attribute's own name."""
    holder: Any = owner
    *path, name = field.name.split(".")
    for part in path:
        holder = getattr(holder, part)
    return holder, name


def _read(owner: nn.Module, field: Field) -> int:
    value = getattr(*_holder(owner, field))
    return int(value if field.index is None else value[field.index])


def _write(owner: nn.Module, field: Field, value: int) -> None:
    holder, name = _holder(owner, field)
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
