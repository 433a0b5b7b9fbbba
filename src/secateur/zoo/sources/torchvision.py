"""`torchvision:NAME`: any model that `torchvision.models.list_models()` lists."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from secateur.zoo.loaded import (
    ExampleInputs,
    LoadedModel,
    LoadOptions,
    example_image,
    require,
    unknown,
)

_IMAGE = (3, 224, 224)
_CLIPS = {"mvit": (3, 16, 224, 224), "swin3d": (3, 16, 224, 224)}
_SMALL_CLIP = (3, 16, 112, 112)


def load(rest: str, options: LoadOptions) -> LoadedModel:
    """Build the model; with `weights="default"` its best published weights."""
    models = require("torchvision.models", package="torchvision", extra="vision")
    if rest not in models.list_models():
        raise unknown("torchvision model", rest, models.list_models())
    weights = "DEFAULT" if options.weights == "default" else options.weights

    def build(weights: str | None = None) -> nn.Module:
        builder = models.get_model_builder(rest)
        extra: dict[str, Any] = {}
        if weights is None and "weights_backbone" in inspect.signature(builder).parameters:
            extra["weights_backbone"] = None
        if weights is None and builder.__name__ in ("googlenet", "inception_v3"):
            extra["init_weights"] = True  # their default is to warn that it will change
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model: nn.Module = models.get_model(rest, weights=weights, **extra)
        return model.eval()

    return LoadedModel(build(weights), _example(models, rest, options), build, rest)


def _example(models: Any, name: str, options: LoadOptions) -> ExampleInputs:
    module = models.get_model_builder(name).__module__.split(".")
    if "detection" in module:
        raise ValueError(
            f"torchvision:{name} is a detector: its forward takes a list of images, and what it "
            "runs depends on them. Write a function that returns (model.backbone, example_inputs) "
            "and give it as python.module:function"
        )
    if "video" in module:
        family = name.split("_")[0]
        return example_image(_CLIPS.get(family, _SMALL_CLIP), options)
    if "optical_flow" in module:
        return (example_image((3, 128, 128), options), example_image((3, 128, 128), options))
    return example_image(_IMAGE, options)
