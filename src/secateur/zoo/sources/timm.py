"""`timm:NAME`: any model that `timm.list_models()` lists, a pretrained tag included."""

from __future__ import annotations

import torch
from torch import nn

from secateur.zoo.loaded import LoadedModel, LoadOptions, example_image, require, unknown


def load(rest: str, options: LoadOptions) -> LoadedModel:
    """Build the model; with `weights="default"` its published weights."""
    timm = require("timm", package="timm", extra="vision")
    if not timm.is_model(rest):
        raise unknown("timm model", rest, timm.list_models())

    def build(pretrained: bool = False) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model: nn.Module = timm.create_model(rest, pretrained=pretrained)
        return model.eval()

    model = build(options.weights is not None)
    shape = tuple(timm.data.resolve_model_data_config(model)["input_size"])
    return LoadedModel(model, example_image(shape, options), build, rest)
