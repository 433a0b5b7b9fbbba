"""The configuration of a model that loses layers: how many there are, and what each is.

Which integer counts the layers of a list is found by trying: the model's class is built on the
meta device from its configuration with that integer changed, and the list must come out shorter
and everything else as it was. Lists that hold one entry for each layer lose the entries of the
layers that go. No names of architectures or of their fields are known here.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from secateur.core.plan import Plan
from secateur.cut.depth import Following

_DEEPEST = 3
_BUILD_ERRORS = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ImportError,
)  # fmt: skip


def configuration_changes(model: nn.Module, plan: Plan) -> list[Following]:
    """What the configurations of the model and of its parts have to say after the removal."""
    found: list[Following] = []
    for container in sorted({path.rpartition(".")[0] for path in plan.taken_out}):
        names = [name for name, _ in model.get_submodule(container).named_children()]
        kept = [
            k
            for k, name in enumerate(names)
            if (f"{container}.{name}" if container else name) not in plan.taken_out
        ]
        for owner in _configured(model, container):
            changes = _changes(model, owner, container, len(names), kept)
            if changes:
                found += _everywhere(model, owner, changes)
                break
    return found


def _configured(model: nn.Module, container: str) -> Iterator[str]:
    """Paths of the modules around a list that hold a configuration, outermost first."""
    parts = container.split(".")
    for k in range(len(parts) + 1):
        path = ".".join(parts[:k])
        config = vars(model.get_submodule(path)).get("config")
        if isinstance(getattr(config, "__dict__", None), dict):
            yield path


def _changes(
    model: nn.Module, owner: str, container: str, before: int, kept: Sequence[int]
) -> dict[str, Any]:
    """New values by dotted name that make the owner's class build the list as long as it will be;
    empty where none does."""
    module: Any = model.get_submodule(owner)
    inner = container[len(owner) :].lstrip(".")
    wanted = _lengths(module) | {inner: len(kept)}
    for name in _counting(module.config, before):
        for changes in (
            {name: len(kept), **_shorter_lists(module.config, name, before, kept)},
            {name: len(kept)},
        ):
            config = copy.deepcopy(module.config)
            _write(config, changes)
            built = _built(type(module), config)
            if built is not None and _lengths(built, but=inner) == {
                path: n for path, n in wanted.items() if path == inner or not _under(path, inner)
            }:
                return changes
    return {}


def _built(kind: type[nn.Module], config: Any) -> nn.Module | None:
    try:
        with warnings.catch_warnings(), torch.device("meta"), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            return kind(config)
    except _BUILD_ERRORS:
        return None


def _lengths(model: nn.Module, *, but: str | None = None) -> dict[str, int]:
    """How many elements each list of a model has; not those below the list `but`."""
    return {
        path: len(module)
        for path, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
        and (but is None or not _under(path, but))
    }


def _under(path: str, outer: str) -> bool:
    return path.startswith(f"{outer}.")


def _holders(config: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    yield prefix, config
    for name, value in vars(config).items():
        nested = isinstance(getattr(value, "__dict__", None), dict) and not callable(value)
        if nested and not name.startswith("_") and depth < _DEEPEST:
            yield from _holders(value, f"{prefix}{name}.", depth + 1)


def _counting(config: Any, count: int) -> Iterator[str]:
    """Dotted names of integers that equal `count`."""
    for prefix, holder in _holders(config):
        for name, value in vars(holder).items():
            if type(value) is int and value == count:
                yield f"{prefix}{name}"


def _shorter_lists(
    config: Any, counting: str, before: int, kept: Sequence[int]
) -> dict[str, list[Any]]:
    """Lists beside the counting integer with one entry for each layer, without those that go."""
    beside = counting.rpartition(".")[0]
    return {
        f"{prefix}{name}": type(value)(value[k] for k in kept)
        for prefix, holder in _holders(config)
        if prefix.rstrip(".") == beside
        for name, value in vars(holder).items()
        if type(value) in (list, tuple) and len(value) == before
    }


def _write(config: Any, changes: dict[str, Any]) -> None:
    for dotted, value in changes.items():
        *outer, name = dotted.split(".")
        holder = config
        for part in outer:
            holder = getattr(holder, part)
        vars(holder)[name] = value


def _everywhere(model: nn.Module, owner: str, changes: dict[str, Any]) -> Iterator[Following]:
    """The changes for the owner's configuration, and what follows for those that its parts hold.

    A part may hold a copy: what its constructor makes of the changed configuration says so.
    """
    module = model.get_submodule(owner)
    config = copy.deepcopy(vars(module)["config"])
    _write(config, changes)
    shell = _built(type(module), config)
    assert shell is not None
    seen: set[int] = set()
    for inner, part in shell.named_modules():
        path = f"{owner}.{inner}" if owner and inner else owner or inner
        own, theirs = vars(model.get_submodule(path)).get("config"), vars(part).get("config")
        if own is None or type(own) is not type(theirs):
            continue
        held = dict(_holders(own))
        for prefix, holder in _holders(theirs):
            if prefix not in held or id(held[prefix]) in seen:
                continue
            seen.add(id(held[prefix]))
            for name, value in vars(holder).items():
                counts = type(value) in (int, list, tuple) and not name.startswith("_")
                if counts and vars(held[prefix]).get(name) != value:
                    yield Following(path, f"config.{prefix}{name}", value)
