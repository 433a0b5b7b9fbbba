"""A model made ready to run in a runtime and a precision, as a call without arguments.

`prepare` finds the runtime by its name. What it is made of is stated in the values here, which
runtimes, measuring and search share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

import torch
from torch import nn

from secateur.core import lookup

RUNTIMES = "secateur.cost.runtimes"


@dataclass(frozen=True)
class How:
    """How a model is to run. threads: of the runtime. calibration: batches of inputs for int8."""

    threads: int
    precision: str = "fp32"
    calibration: Sequence[Any] = ()


@dataclass(frozen=True)
class Prepared:
    """A model and one forward of it in a runtime.

    own_times: where the runtime tells, what measures the milliseconds of each module in a forward.
    repeats: forwards that last long enough to be timed, known of one that is warm. on: the forward
    on other inputs of the same shapes.
    """

    model: nn.Module
    run: Callable[[], Any]
    runtime: str = "eager"
    precision: str = "fp32"
    own_times: Callable[[], dict[str, float]] | None = None
    repeats: int | None = None
    on: Callable[[Any], Any] | None = None


def prepare(
    model: nn.Module,
    inputs: Any,
    *,
    runtime: str = "eager",
    precision: str = "fp32",
    threads: int | None = None,
    calibration: Sequence[Any] = (),
) -> Prepared:
    """The forward of a model in evaluation mode on inputs: a tensor, a tuple, or a dict by keyword.

    threads: of a runtime other than torch, torch's present number where None; torch itself is told
    by `torch.set_num_threads`. calibration: batches that int8 takes its ranges from, each such
    inputs; the inputs themselves where there are none, which is enough to measure a time, but not
    to keep an accuracy. Raises: ValueError for an unknown runtime, one that is not installed, a
    precision that it lacks, or a model that it cannot take, with the reason.
    """
    check(runtime, precision)
    how = How(threads or torch.get_num_threads(), precision, tuple(calibration))
    made: Prepared = lookup.find(RUNTIMES, runtime, kind="runtime").ready(model, inputs, how)
    return made


def prepare_all(
    models: Mapping[str, nn.Module | Prepared], inputs: Any, **how: Any
) -> dict[str, Prepared]:
    """Every model by its name, see `prepare`; one that is prepared already as it is."""
    return {
        name: model if isinstance(model, Prepared) else prepare(model, inputs, **how)
        for name, model in models.items()
    }


def check(runtime: str, precision: str) -> None:
    """Raises: ValueError for an unknown runtime, or a precision that it does not have."""
    own: tuple[str, ...] = lookup.find(RUNTIMES, runtime, kind="runtime").PRECISIONS
    if precision not in own:
        others = {n: lookup.find(RUNTIMES, n, kind="runtime") for n in lookup.names(RUNTIMES)}
        having = [name for name, module in others.items() if precision in module.PRECISIONS]
        hint = f"; {precision} is in {', '.join(having)}" if having else ""
        raise ValueError(f"runtime {runtime!r} has {', '.join(own)}, not {precision!r}{hint}")


def version_of(runtime: str) -> str:
    """Of the package that a runtime is; empty where it is not installed."""
    package: str = lookup.find(RUNTIMES, runtime, kind="runtime").PACKAGE
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def call_of(model: Callable[..., Any], inputs: Any) -> Callable[[], Any]:
    """A forward on example inputs: a tensor, a tuple of arguments or a dict of keyword ones."""
    if isinstance(inputs, Mapping):
        return partial(model, **inputs)
    return partial(model, *(inputs if isinstance(inputs, tuple | list) else (inputs,)))
