"""What every model source returns, what it is asked for, and how it says that it cannot.

A source builds the model, and knows how to build it again without weights: that is what loading
a saved cut needs.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

ExampleInputs = Tensor | tuple[Any, ...] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """weights: None for random ones, "default" for the source's published ones, or a name that
    the source knows. seed: of random weights and example inputs. batch: of the example inputs.
    image_size: in pixels, None for the model's own."""

    weights: str | None = None
    seed: int = 0
    batch: int = 1
    image_size: int | None = None


@dataclass(frozen=True)
class LoadedModel:
    """model: in evaluation mode. example_inputs: as `secateur.trace` takes them. model_fn: builds
    the same architecture again, weights undefined. name: for reports."""

    model: nn.Module
    example_inputs: ExampleInputs
    model_fn: Callable[[], nn.Module]
    name: str


def require(module: str, *, package: str, extra: str) -> ModuleType:
    """Import an optional package. Raises: ValueError with the pip command when it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ValueError(
            f"this needs {package}, which is not installed: pip install 'secateur[{extra}]' "
            f"(or pip install {package})"
        ) from error
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"{package} is installed but cannot be imported: {error}; install the build of "
            f"{package} that belongs to torch {torch.__version__}"
        ) from error


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that a source does not have, with the nearest spellings.

    >>> str(unknown("torchvision model", "resnet81", ["resnet18", "vgg11"]))
    "unknown torchvision model 'resnet81'; did you mean 'resnet18'?"
    """
    listed = list(known)
    near = difflib.get_close_matches(name, listed, n=3)
    hint = " or ".join(repr(name) for name in near)
    shown = f"did you mean {hint}?" if hint else f"there are {len(listed)}, such as {listed[:5]}"
    return ValueError(f"unknown {kind} {name!r}; {shown}")


def example_image(shape: tuple[int, ...], options: LoadOptions) -> Tensor:
    """A random image batch of `shape` without the batch dimension."""
    generator = torch.Generator().manual_seed(options.seed)
    if options.image_size is not None:
        shape = (*shape[:-2], options.image_size, options.image_size)
    return torch.randn(options.batch, *shape, generator=generator)
