"""Recipes: YAML files whose mistakes are told with line and column.

A recipe holds the fields of a settings dataclass, sections nested; flags given on the command line
are laid over it. Everything wrong is told at once, one line a mistake, in the form that editors
can jump to: ``recipe.yaml:7:3: unknown key 'buget', did you mean 'budget'?``
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from secateur.core.errors import RecipeError

S = TypeVar("S")
KeyPath = tuple[str | int, ...]
Position = tuple[int, int]
"""Line and column, both from 1."""

MISSING_KEY = {"missing", "missing_argument"}
NO_SECTION = {"dataclass_type", "dataclass_exact_type"}
NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}


def read_recipe(path: Path | None, settings: type[S], *, overrides: Mapping[str, Any]) -> S:
    """The settings that a recipe and the given flags say together; flags win.

    overrides: nested by section like the recipe. path: None where flags say everything.
    Raises: RecipeError that lists every mistake with line and column; FileNotFoundError.
    """
    values, written = _parse(path) if path is not None else ({}, {})
    sources = _Sources(path, written, frozenset(_paths(overrides)))
    merged = _laid_over(values, overrides)
    problems = list(_unknown_keys(merged, settings, sources))
    try:
        settled = TypeAdapter(settings).validate_python(merged)
    except ValidationError as error:
        problems += [_explain(problem, sources) for problem in error.errors()]
    if problems:
        raise RecipeError("\n".join(dict.fromkeys(problems)))
    return settled


@dataclass(frozen=True, slots=True)
class _Sources:
    """Where each key comes from: written in the file, or given as a flag."""

    path: Path | None
    written: Mapping[KeyPath, Position]
    given: frozenset[KeyPath]

    def where(self, location: KeyPath) -> str:
        """ "recipe.yaml:7:3: " or "--budget: " for a key, or for the section it would stand in."""
        location = self.known(location)
        if location and location in self.given:
            # a section is there because of its flags
            flag = max((path for path in self.given if path[: len(location)] == location), key=len)
            return f"--{_as_flag(flag[-1])}: "
        line, column = self.written.get(location, (1, 1))
        return "" if self.path is None else f"{self.path}:{line}:{column}: "

    def known(self, location: KeyPath) -> KeyPath:
        """The key, or the nearest section around it that somebody wrote."""
        while location and location not in self.written and location not in self.given:
            location = location[:-1]
        return location


class _Loader(yaml.SafeLoader):
    """YAML without numbers to the base of 60, which 1.2 dropped: `2:4` is a pattern, not 124."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        is_base_60 = tag in NUMBERS and ":" in value
        return self.DEFAULT_SCALAR_TAG if is_base_60 else tag


def _parse(path: Path) -> tuple[dict[str, Any], dict[KeyPath, Position]]:
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        written = _positions(node, (), path)
        values = loader.construct_document(node) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise RecipeError(f"{where}: this is not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}:1:1: this is not a text file in UTF-8: {error}") from error
    except RecursionError as error:
        raise RecipeError(f"{path}:1:1: this is nested too deeply") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path}:1:1: a recipe is a list of `key: value` lines")
    return values, written


def _positions(node: yaml.Node | None, at: KeyPath, path: Path) -> dict[KeyPath, Position]:
    """Where each key, or each element of a list, is written."""
    found: dict[KeyPath, Position] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            if here in found:
                first = found[here][0]
                raise RecipeError(
                    f"{path}:{line}:{column}: {key.value!r} is said twice, first in line {first}"
                )
            found[here] = (line, column)
            found |= _positions(value, here, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found[(*at, index)] = (value.start_mark.line + 1, value.start_mark.column + 1)
            found |= _positions(value, (*at, index), path)
    return found


def _laid_over(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in overrides.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            # `recover:` with nothing after it is None; a flag of the section brings it back
            merged[key] = _laid_over(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _paths(values: Mapping[str, Any], at: KeyPath = ()) -> set[KeyPath]:
    paths: set[KeyPath] = set()
    for key, value in values.items():
        paths.add((*at, key))
        if isinstance(value, Mapping):
            paths |= _paths(value, (*at, key))
    return paths


def _unknown_keys(
    values: Mapping[str, Any], settings: Any, sources: _Sources, at: KeyPath = ()
) -> Iterator[str]:
    """A line for every key that the settings do not have, with the nearest that they have."""
    known = [item.name for item in dataclasses.fields(settings)]
    for key, value in values.items():
        here = (*at, key)
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here are: {', '.join(known)}"
            yield f"{sources.where(here)}unknown key {key!r}, {hint}"
            continue
        for section in _sections(typing.get_type_hints(settings)[key]):
            entries = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, entry in entries:
                if isinstance(entry, Mapping):
                    place = here if index is None else (*here, index)
                    yield from _unknown_keys(entry, section, sources, place)


def _sections(hint: Any) -> Iterator[Any]:
    """The dataclasses in a type: of `Section | None`, of `tuple[Section, ...] | None`."""
    if dataclasses.is_dataclass(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from _sections(part)


def _explain(problem: ErrorDetails, sources: _Sources) -> str:
    location, said = problem["loc"], problem["msg"].removeprefix("Value error, ")
    # what pydantic adds to a place names an alternative of a type, not a key
    key = str(next(iter(reversed(sources.known(location) or location)), "recipe"))
    if problem["type"] in MISSING_KEY:
        return f"{sources.where(location)}{location[-1]!r} is missing; write `{location[-1]}: ...`"
    if problem["type"] in NO_SECTION:
        return (
            f"{sources.where(location)}{problem['input']!r} is no section; write a name with "
            "`key: value` lines below, for example `recover: {epochs: 5}`"
        )
    # a check over a whole section names the key that it refuses
    words = (word.rstrip(":,;") for word in said.split())
    inner = next((word for word in words if sources.known((*location, word))[-1:] == (word,)), None)
    where = sources.where(location if inner is None else (*location, inner))
    if problem["type"] == "value_error":
        return f"{where}{said}"
    return f"{where}{key}: {said[0].lower()}{said[1:]}, not {problem['input']!r}"


def _as_flag(key: str | int) -> str:
    return str(key).replace("_", "-")
