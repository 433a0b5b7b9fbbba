"""Models by specification: `torchvision:resnet18`, `timm:vit_tiny_patch16_224`, `hf:ID`,
`python.module:callable`, or a saved folder.

The word before the colon is the file in `sources/` that loads it; a dotted one, or one that names
no source, is a Python module.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from secateur.core import lookup
from secateur.zoo.loaded import LoadedModel, LoadOptions

SOURCES = "secateur.zoo.sources"


def load_model(
    spec: str,
    *,
    weights: str | None = None,
    seed: int = 0,
    batch: int = 1,
    image_size: int | None = None,
) -> LoadedModel:
    """The model that `spec` names, in evaluation mode, with example inputs.

    weights: None for random ones (except where the specification is of trained ones: a folder, a
    Hugging Face id), "default" for the source's published ones. seed: of random weights and example
    inputs. batch, image_size: of the example inputs.
    Raises: ValueError for a name that nothing answers to, with the nearest spelling, and for a
    missing package, with the pip command.
    """
    if not isinstance(spec, str) or not spec:
        raise ValueError(f"model {spec!r}: {_known_forms()}")
    options = LoadOptions(weights, seed, batch, image_size)
    source, rest = _parse(spec)
    loaded: LoadedModel = lookup.find(SOURCES, source, kind="model source").load(rest, options)
    loaded.model.eval()
    return loaded


def build_model(spec: str, *, seed: int = 0) -> nn.Module:
    """Only the model, as `load_model`; what `storage.load` takes as `model_fn`."""
    return load_model(spec, seed=seed).model


def _parse(spec: str) -> tuple[str, str]:
    """Source and rest of a specification.

    >>> _parse("torchvision:resnet18"), _parse("my_code.models:small")
    (('torchvision', 'resnet18'), ('python', 'my_code.models:small'))
    """
    if Path(spec).is_dir():
        return "folder", spec
    word, colon, rest = spec.partition(":")
    if not colon:
        raise ValueError(f"model {spec!r} is no folder here and has no source: {_known_forms()}")
    if word in lookup.names(SOURCES) and word not in ("python", "folder"):
        return word, rest
    return "python", spec


def _known_forms() -> str:
    return (
        "write torchvision:NAME, timm:NAME, hf:ID_OR_FOLDER, python.module:callable, or the path "
        "of a saved folder"
    )
