"""Flags made from dataclasses: names, defaults, sections, and the way back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from secateur.cli.app import COMMANDS
from secateur.cli.flags import (
    argument,
    describe,
    flag,
    flags_of,
    from_flags,
    nested,
    section,
    signature,
)


@dataclass(frozen=True)
class Inner:
    lr: float = 0.1
    hidden: int = 7


@dataclass(frozen=True, kw_only=True)
class Outer:
    model: str = argument("which model")
    keep: tuple[str, ...] = flag((), "what stays")
    only: tuple[str, ...] | None = flag(None, "what goes")
    inner: Inner = section(Inner, help={"lr": "how fast"})
    out: Path = flag(Path("here"), "where to", short="-o")
    verify: bool = flag(True, "whether to prove")


def parse(*arguments: str) -> Outer:
    settled = []

    def call(**given: object) -> None:
        settled.append(from_flags(Outer, given))

    call.__signature__ = signature(Outer)  # type: ignore[attr-defined]
    call.__annotations__ = {
        name: each.annotation for name, each in signature(Outer).parameters.items()
    }
    app = typer.Typer()
    app.command()(call)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return settled[0]


def test_defaults_are_those_of_the_dataclass() -> None:
    assert parse("m") == Outer(model="m")


def test_every_kind_of_flag() -> None:
    settled = parse("m", "--keep", "a", "--keep", "b", "--lr", "1e-3", "-o", "x", "--no-verify")
    assert settled == Outer(
        model="m", keep=("a", "b"), inner=Inner(lr=0.001), out=Path("x"), verify=False
    )


def test_only_what_was_given_goes_over_a_recipe() -> None:
    given = {"model": None, "keep": [], "only": ["a"], "lr": 0.5, "out": None, "verify": False}
    assert nested(Outer, given) == {"only": ("a",), "inner": {"lr": 0.5}, "verify": False}


def test_description() -> None:
    assert describe("go", Outer) == [
        "go MODEL: str = required",
        "go --keep: tuple[str, ...] = ()",
        "go --only: tuple[str, ...] = None",
        "go --lr: float = 0.1",
        "go --out -o: Path = 'here'",
        "go --verify/--no-verify: bool = True",
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_sections_do_not_share_names(command: object) -> None:
    names = Counter(item.name for item in flags_of(command.settings))  # type: ignore[attr-defined]
    assert [name for name, count in names.items() if count > 1] == []
