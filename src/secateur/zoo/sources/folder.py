"""A folder: one that `secateur.save` wrote, or one that transformers reads."""

from __future__ import annotations

from pathlib import Path

from secateur.core.errors import StorageError
from secateur.storage import load as load_saved
from secateur.storage import manifest
from secateur.storage.layout import load_example
from secateur.zoo.loaded import LoadedModel, LoadOptions


def load(rest: str, options: LoadOptions) -> LoadedModel:
    """Load a saved cut by building its dense model from the source named in the manifest."""
    folder = Path(rest)
    if not manifest.is_ours(folder):
        if (folder / "config.json").is_file():
            return _transformers(rest, options)
        raise StorageError(
            f"{folder} is neither a folder that secateur saved (no {manifest.NAME}) nor one that "
            "transformers reads (no config.json)"
        )
    saved = manifest.read(folder)
    if saved.kind == "huggingface":
        return _transformers(rest, options)
    if saved.source is None:
        raise StorageError(
            f"{folder} does not say how its dense model is built; load it in Python with "
            "secateur.load(folder, model_fn), or save it with source='python.module:callable'"
        )
    from secateur.zoo.models import load_model

    dense = load_model(saved.source, seed=options.seed, image_size=options.image_size)
    model = load_saved(folder, dense.model_fn)
    example = load_example(folder)
    return LoadedModel(
        model,
        dense.example_inputs if example is None else example,
        lambda: load_saved(folder, dense.model_fn),
        folder.name,
    )


def _transformers(rest: str, options: LoadOptions) -> LoadedModel:
    from secateur.zoo.sources import hf

    return hf.load(rest, options)
