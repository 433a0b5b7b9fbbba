"""The table of commands, and how one is called: flags in, a value out, shown on stdout.

A command is a public function from a settings value to a result. What surrounds it is the same for
all of them: the flags, `--json`, the error boundary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli import settings
from secateur.cli.auto_settings import AutoRunSettings
from secateur.cli.boundary import UNMET, boundary
from secateur.cli.flags import describe, from_flags, nested, signature
from secateur.cli.output import Judged, show
from secateur.cli.search_settings import SearchSettings
from secateur.cli.simulate_settings import SimulateSettings


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `function` stands in `secateur.cli.<name>`; recipe: its settings come from a
    recipe over which the flags are laid, and the same command typed again goes on."""

    name: str
    function: str
    settings: type
    help: str
    recipe: bool = False


COMMANDS = (
    Command(
        "inspect",
        "inspect_model",
        settings.InspectSettings,
        "Show what can be removed from a model, and what is pinned and why.",
    ),
    Command(
        "plan",
        "make_plan",
        settings.PlanSettings,
        "Decide which units go, to a budget, and write the plan; the model stays as it is.",
    ),
    Command(
        "sensitivity",
        "measure",
        settings.SensitivitySettings,
        "Measure what the loss rises by when units of each group go, for `plan --sensitivities`.",
    ),
    Command(
        "apply",
        "apply_plan",
        settings.ApplySettings,
        "Cut a model as a plan says, prove the cut, and save the smaller model.",
    ),
    Command(
        "verify",
        "verify_plan",
        settings.VerifySettings,
        "Prove a plan: the cut model equals the original with the same units zeroed.",
    ),
    Command(
        "run",
        "run",
        settings.RunSettings,
        "The whole road: plan, cut, prove, recover, measure, save, report. Resumes by itself.",
        recipe=True,
    ),
    Command(
        "auto",
        "auto",
        AutoRunSettings,
        "Prune to a target as far as a floor of accuracy holds, by itself. Resumes by itself.",
        recipe=True,
    ),
    Command(
        "search",
        "search",
        SearchSettings,
        "Search criteria, allocations and recoveries for the front of accuracy and cost.",
        recipe=True,
    ),
    Command(
        "simulate",
        "simulate",
        SimulateSettings,
        "Predict what each of many ranks sends, takes and needs in a training step.",
    ),
    Command(
        "report",
        "report",
        settings.ReportSettings,
        "Write the page of a finished run anew, and print its table.",
    ),
)

RECIPE = Annotated[
    Path | None, typer.Argument(help="a recipe (YAML); flags win over it", show_default=False)
]
JSON = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def make_app() -> typer.Typer:
    """The command line."""
    app = typer.Typer(
        name="secateur",
        help="Prune neural networks for real, on any architecture, with proof.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global_flags)
    for command in COMMANDS:
        app.command(command.name, help=command.help)(_callable(command))
    return app


def describe_flags() -> list[str]:
    """Every flag of every command, one a line; frozen by a test."""
    lines = []
    for command in COMMANDS:
        lines += describe(command.name, command.settings)
    return lines


def _callable(command: Command) -> Callable[..., None]:
    def call(**given: Any) -> None:
        as_json = given.pop("json")
        with boundary(resumable=command.recipe):
            function = getattr(import_module(f"secateur.cli.{command.name}"), command.function)
            result = function(_settled(command, given))
            show(result, as_json=as_json)
        if isinstance(result, Judged) and not result.met:
            raise typer.Exit(UNMET)

    flags = signature(command.settings, overrides=command.recipe)
    parameters = list(flags.parameters.values())
    if command.recipe:
        parameters.insert(0, _keyword("recipe", RECIPE, None))
    parameters.append(_keyword("json", JSON, False))
    call.__signature__ = flags.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def _settled(command: Command, given: dict[str, Any]) -> Any:
    if not command.recipe:
        return from_flags(command.settings, given)
    from secateur.cli.recipe import read_recipe

    recipe = given.pop("recipe")
    return read_recipe(recipe, command.settings, overrides=nested(command.settings, given))


def _keyword(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _print_version(wanted: bool) -> bool:
    if wanted:
        import secateur

        print(secateur.__version__)
        raise typer.Exit
    return wanted


def _global_flags(
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Flags that stand before any command; each acts by itself."""
