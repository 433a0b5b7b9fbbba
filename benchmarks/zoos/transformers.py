"""Transformers families from tiny configurations, random weights.

Widths are neither all equal nor all powers of two (48 wide, 4 or 6 heads, 80 or 72 inside), so
that two dimensions which are not the same one do not have the same size by accident. One line a
family: the model's class, its configuration, the kind of inputs it takes. Experts run as plain
matrix products: the grouped kernel exists in half and single precision only.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision_ops import define_torchvision_ops

from zoos._transformer_configs import Family, Inputs
from zoos._transformer_inputs import INPUTS
from zoos._transformer_senses import PAIRED, SPEECHES, VISION
from zoos._transformer_text import DECODERS, ENCODER_DECODERS, ENCODERS, EXPERTS

define_torchvision_ops()

import transformers  # noqa: E402

FAMILIES: dict[str, Family] = {
    **ENCODERS,
    **DECODERS,
    **EXPERTS,
    **ENCODER_DECODERS,
    **VISION,
    **SPEECHES,
    **PAIRED,
}


def names() -> list[str]:
    return list(FAMILIES)


def build(name: str, seed: int) -> tuple[nn.Module, Inputs]:
    kind, settings, inputs = FAMILIES[name]
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**settings)
    for one in (config, *(getattr(config, key) for key in config.sub_configs)):
        if one is not None:
            one._experts_implementation = "eager"
    torch.manual_seed(seed)
    model: nn.Module = model_class(config)
    if name == "dpt":  # it ends in a rectifier, below which every fresh weight leaves it
        with torch.no_grad():
            model.get_parameter("head.head.4.weight").abs_()
    return model.eval(), INPUTS[inputs](torch.Generator().manual_seed(seed))
