# ruff: noqa: E501, C408 - tables with one line a model
"""Example inputs of transformers families, by kind."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from zoos._transformer_configs import Inputs


def _ids(g: Generator, count: int = 7) -> Tensor:
    return torch.randint(3, 90, (1, count), generator=g)


def _image(g: Generator, size: int = 32) -> Tensor:
    return torch.randn(1, 3, size, size, generator=g)


def _waves(g: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


def _around(g: Generator, image: int, count: int) -> Tensor:
    """Token ids with `count` image tokens after the second."""
    ids = _ids(g, 4)
    return torch.cat([ids[:, :2], torch.full((1, count), image), ids[:, 2:]], 1)


def _patches(g: Generator) -> Tensor:
    """Flattened patches with their row and column in front."""
    places = torch.arange(1, 13)[None, :, None].expand(1, 12, 2).float()
    return torch.cat([places, _waves(g, 1, 12, 768)], -1)


def _series(g: Generator) -> Inputs:
    return dict(
        past_values=torch.rand(1, 10, generator=g), past_time_features=_waves(g, 1, 10, 2),
        past_observed_mask=torch.ones(1, 10), future_values=torch.rand(1, 4, generator=g),
        future_time_features=_waves(g, 1, 4, 2),
    )  # fmt: skip


def _grid(g: Generator) -> Inputs:
    return dict(
        input_ids=_around(g, 95, 4), pixel_values=_waves(g, 16, 96), use_cache=False,
        image_grid_thw=torch.tensor([[1, 4, 4]]),
        mm_token_type_ids=torch.tensor([[0, 0, 1, 1, 1, 1, 0, 0]]),
    )  # fmt: skip


def _ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.long)


INPUTS: dict[str, Callable[[Generator], Inputs]] = {
    "text": lambda g: dict(input_ids=_ids(g)),
    "text8": lambda g: dict(input_ids=_ids(g, 8)),
    "text16": lambda g: dict(input_ids=_ids(g, 16)),
    "causal": lambda g: dict(input_ids=_ids(g), use_cache=False),
    "seq2seq": lambda g: dict(input_ids=_ids(g), decoder_input_ids=_ids(g, 5), use_cache=False),
    "seq2seq8": lambda g: dict(input_ids=_ids(g, 8), decoder_input_ids=_ids(g, 5), use_cache=False),
    "image": lambda g: dict(pixel_values=_image(g)),
    "image64": lambda g: dict(pixel_values=_image(g, 64)),
    "video": lambda g: dict(pixel_values=_waves(g, 1, 4, 3, 32, 32)),
    "wave": lambda g: dict(input_values=_waves(g, 1, 800)),
    "codec": lambda g: dict(input_values=_waves(g, 1, 1, 64)),
    "whisper": lambda g: dict(input_features=_waves(g, 1, 16, 60), decoder_input_ids=_ids(g, 5), use_cache=False),
    "mel": lambda g: dict(input_features=_waves(g, 1, 40, 16), decoder_input_ids=_ids(g, 5), use_cache=False),
    "ast": lambda g: dict(input_values=_waves(g, 1, 32, 16)),
    "moonshine": lambda g: dict(input_values=_waves(g, 1, 2000), decoder_input_ids=_ids(g, 5), use_cache=False),
    "univnet": lambda g: dict(input_features=_waves(g, 1, 8, 10), noise_sequence=_waves(g, 1, 8, 16)),
    "clip": lambda g: dict(input_ids=_ids(g), pixel_values=_image(g), attention_mask=_ones(1, 7)),
    "xclip": lambda g: dict(input_ids=_ids(g), pixel_values=_waves(g, 1, 2, 3, 32, 32)),
    "captioning": lambda g: dict(input_ids=_ids(g), pixel_values=_image(g)),
    "vilt": lambda g: dict(input_ids=_ids(g), pixel_values=_image(g), attention_mask=_ones(1, 7), pixel_mask=_ones(1, 32, 32)),
    "llava": lambda g: dict(input_ids=_around(g, 95, 16), pixel_values=_image(g), use_cache=False),
    "idefics3": lambda g: dict(input_ids=_around(g, 95, 4), pixel_values=_image(g)[:, None], use_cache=False),
    "qwen2_vl": _grid,
    "patches": lambda g: dict(flattened_patches=_patches(g)),
    "series": _series,
    "past": lambda g: dict(past_values=_waves(g, 1, 16, 3)),
}  # fmt: skip
