"""Errors become words and exit codes; bugs keep their traceback."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import typer

from secateur.cli.boundary import boundary
from secateur.core.budget import Budget
from secateur.core.errors import BudgetError, RecipeError


def exit_code(error: BaseException) -> int:
    with pytest.raises(typer.Exit) as caught, boundary():
        raise error
    return caught.value.exit_code


def test_a_library_error_fails_with_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(BudgetError("macs=1% cannot be met")) == 1
    assert capsys.readouterr().err == "error: macs=1% cannot be met\n"


def test_a_wrong_recipe_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(RecipeError("r.yaml:1:1: no")) == 2
    assert capsys.readouterr().err == "r.yaml:1:1: no\n"


def test_a_missing_file_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, boundary():
        Path("/nowhere/plan.json").read_text()
    assert caught.value.exit_code == 2
    assert capsys.readouterr().err == "error: No such file or directory: /nowhere/plan.json\n"


def test_an_argument_that_we_refuse_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, boundary():
        Budget.parse("macs=half")
    assert caught.value.exit_code == 2
    assert "is not understood" in capsys.readouterr().err


def test_a_bug_elsewhere_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match=r"math domain|nonnegative"), boundary():
        math.sqrt(-1)


def test_an_interrupt_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/secateur", "run", "my recipe.yaml"])
    with pytest.raises(typer.Exit) as caught, boundary(resumable=True):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert "secateur run 'my recipe.yaml'" in capsys.readouterr().err


def test_warnings_are_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with boundary():
        warnings.simplefilter("always")
        warnings.warn("group conv1 was left alone", UserWarning, stacklevel=1)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "warning: group conv1 was left alone\n")
