"""From a frozen dataclass to command-line flags, and back.

A command is a function of one settings value; this file makes the flags from the value's fields,
so that names, types, defaults and help are written once. A field that is itself a dataclass is a
section: its fields become flags of their own, beside the others. Recipes hold the same fields.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import PurePath
from typing import Annotated, Any

import typer

ARGUMENT, OPTION, SECTION = "argument", "option", "section"


def flag(default: Any, help: str, *, short: str = "") -> Any:
    """A settings field that becomes the option `--its-name` (and `short`, for example "-o")."""
    metadata = {"help": help, "kind": OPTION, "short": short}
    return field(default=default, metadata=metadata)


def required(help: str) -> Any:
    """A settings field without a default that becomes a required option."""
    return field(metadata={"help": help, "kind": OPTION, "short": ""})


def argument(help: str, *, default: Any = MISSING) -> Any:
    """A settings field that becomes a positional argument."""
    metadata = {"help": help, "kind": ARGUMENT, "short": ""}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def section(settings: type, *, help: Mapping[str, str] | None = None, absent: bool = False) -> Any:
    """A settings field that holds another settings dataclass, by default all its defaults.

    help: for a dataclass of another package, the fields that become flags and what they do; its
    other fields can be set in a recipe only, except for sections of its own; an empty mapping for
    no flags at all. absent: by default there is no such section, and any of its flags brings it in.
    """
    metadata = {"help": help, "kind": SECTION}
    if absent:
        return field(default=None, metadata=metadata)
    return field(default_factory=settings, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: the path of its field in the settings, its type without None, and its default."""

    path: tuple[str, ...]
    type: Any
    default: Any
    help: str
    kind: str
    short: str

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def option(self) -> str:
        """As typed: `--learning-rate`, or `--verify/--no-verify`."""
        word = self.name.replace("_", "-")
        return f"--{word}/--no-{word}" if self.type is bool else f"--{word}"


def flags_of(settings: type, *, path: tuple[str, ...] = ()) -> Iterator[Flag]:
    """Every flag of a settings dataclass, sections flattened, in the order of the fields."""
    hints = typing.get_type_hints(settings)
    for item in dataclasses.fields(settings):
        hint, here = _without_none(hints[item.name]), (*path, item.name)
        if item.metadata["kind"] == SECTION:
            if item.metadata["help"] != {}:
                yield from _section_flags(hint, item.metadata["help"], here)
        else:
            keys = ("help", "kind", "short")
            yield Flag(here, hint, item.default, *(item.metadata[key] for key in keys))


def signature(settings: type, *, overrides: bool = False) -> inspect.Signature:
    """The signature that typer reads: one keyword parameter a flag.

    overrides: for laying over a recipe; nothing is required and what is not given is None.
    """
    return inspect.Signature([_parameter(flag, overrides) for flag in flags_of(settings)])


def from_flags(settings: type, given: Mapping[str, Any]) -> Any:
    """The settings value for what typer parsed; lists become tuples."""
    return _build(settings, nested(settings, given))


def nested(settings: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given (not None, not empty) as nested sections, to be laid over a recipe."""
    sections: dict[str, Any] = {}
    for item in flags_of(settings):
        if (value := given.get(item.name)) is None or value == []:
            continue
        section = sections
        for key in item.path[:-1]:
            section = section.setdefault(key, {})
        section[item.name] = tuple(value) if isinstance(value, list) else value
    return sections


def describe(command: str, settings: type) -> list[str]:
    """One line a flag, frozen by a test: command, flag, type and default."""
    lines = []
    for item in flags_of(settings):
        shown = item.name.upper() if item.kind == ARGUMENT else item.option
        shown += f" {item.short}" if item.short else ""
        default = "required" if item.default is MISSING else _shown(item.default)
        lines.append(f"{command} {shown}: {_type_name(item.type)} = {default}")
    return lines


def _section_flags(
    settings: type, help: Mapping[str, str] | None, path: tuple[str, ...]
) -> Iterator[Flag]:
    if help is None:
        yield from flags_of(settings, path=path)
        return
    hints = typing.get_type_hints(settings)
    fields = {item.name: item for item in dataclasses.fields(settings)}
    for name, text in help.items():
        kind = _scalar(_without_none(hints[name]))
        yield Flag((*path, name), kind, fields[name].default, text, OPTION, "")
    for name, item in fields.items():
        if item.metadata.get("kind") == SECTION:
            kind = _without_none(hints[name])
            yield from _section_flags(kind, item.metadata["help"], (*path, name))


def _parameter(item: Flag, overrides: bool) -> inspect.Parameter:
    repeated = typing.get_origin(item.type) is tuple
    kind = list[str] if repeated else item.type
    optional = overrides or item.default is None
    default = None if overrides else item.default
    if isinstance(default, tuple):
        default = list(default)
    if item.kind == ARGUMENT:
        info = typer.Argument(help=item.help, show_default=False)
    else:
        names = [item.option, *([item.short] if item.short else [])]
        known = item.default not in (MISSING, None, (), False)
        help = f"{item.help} (default: {item.default})" if known else item.help
        info = typer.Option(*names, help=help, show_default=False)
    return inspect.Parameter(
        item.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[kind | None if optional else kind, info],
    )


def _build(settings: type, values: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(settings)
    built = {
        key: _build(_without_none(hints[key]), value) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }
    return settings(**built)


def _without_none(hint: Any) -> Any:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    is_optional = type(None) in typing.get_args(hint) and len(options) == 1
    return options[0] if is_optional else hint


def _scalar(hint: Any) -> Any:
    """The type of a flag whose field may be a mapping too, which only a recipe can say."""
    options = [
        option
        for option in typing.get_args(hint)
        if option is not type(None) and typing.get_origin(option) is not Mapping
    ]
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return options[0] if is_union and len(options) == 1 else hint


def _shown(value: Any) -> str:
    return repr(str(value) if isinstance(value, PurePath) else value)


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
