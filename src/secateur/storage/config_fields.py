"""The integers of a configuration: every one as a `Field`, read and written by path.

A configuration is a plain Python object with integer attributes, lists of integers and nested
configurations. `Field("", "config.vision.width")` is the attribute as the model's root holds it,
the same name that tracing gives it, so a plan's changes and these fields are one vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from secateur.core.expressions import Field

ROOT = "config"
_LONGEST_LIST = 64


def integer_fields(config: Any, *, nested: type) -> dict[Field, int]:
    """Every integer of 2 or more in a configuration and those nested in it, with its value.

    nested: the class that marks a value as a configuration of its own. Token ids are names of
    words, not sizes, and are left out.
    """
    return {
        Field("", f"{path}.{name}", index): value
        for path, holder in _holders(ROOT, config, nested)
        for name, index, value in _integers(holder)
    }


def replace_integers_(
    config: Any, *, nested: type, new: Callable[[Field, int], int | None]
) -> None:
    """Rewrite integers in place: `new(field, value)` is the new value, None to leave it.

    Values are put past the configuration's own setters, which may refuse an int subclass.
    """
    for path, holder in _holders(ROOT, config, nested):
        for name, index, value in list(_integers(holder)):
            replacement = new(Field("", f"{path}.{name}", index), value)
            if replacement is None:
                continue
            if index is None:
                vars(holder)[name] = replacement
            else:
                items = list(vars(holder)[name])
                items[index] = replacement
                vars(holder)[name] = type(vars(holder)[name])(items)


def with_values(config: Any, *, nested: type, values: Mapping[Field, int]) -> None:
    """Write `values` into a configuration, in place."""
    replace_integers_(config, nested=nested, new=lambda field, _: values.get(field))


def _holders(path: str, config: Any, nested: type) -> Iterator[tuple[str, Any]]:
    yield path, config
    for name, value in vars(config).items():
        if isinstance(value, nested) and not name.startswith("_"):
            yield from _holders(f"{path}.{name}", value, nested)


def _integers(holder: Any) -> Iterator[tuple[str, int | None, int]]:
    for name, value in vars(holder).items():
        if name.startswith("_") or name.endswith(("_token_id", "_token_index")):
            continue
        if _is_size(value):
            yield name, None, value
        elif type(value) in (list, tuple) and len(value) <= _LONGEST_LIST:
            yield from ((name, k, item) for k, item in enumerate(value) if _is_size(item))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 1
