# ruff: noqa: E501, C408 - tables with one line a model
"""Diffusers' networks from tiny configurations: U-Nets, diffusion transformers, autoencoders.

One line a network: its class, what its configuration differs by from the class's own, and the
inputs. Widths are neither all equal nor all powers of two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision_ops import define_torchvision_ops

define_torchvision_ops()

import diffusers  # noqa: E402

Inputs = dict[str, Any]
BLOCKS = dict(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4)
DOWN_UP = dict(
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)
CROSS = dict(
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=20, attention_head_dim=8,
)  # fmt: skip
VAE = dict(
    BLOCKS, latent_channels=4,
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
)  # fmt: skip
HEADS = dict(num_attention_heads=4, attention_head_dim=12, num_layers=2)


def _noisy(channels: int, size: int = 16, **more: Any) -> Callable[[], Inputs]:
    return lambda: {
        "sample": torch.randn(1, channels, size, size), "timestep": torch.tensor([7]),
        **{name: make() for name, make in more.items()},
    }  # fmt: skip


def _latent(channels: int, size: int = 8, **more: Any) -> Callable[[], Inputs]:
    return lambda: {
        "hidden_states": torch.randn(1, channels, size, size), "timestep": torch.tensor([7]),
        **{name: make() for name, make in more.items()},
    }  # fmt: skip


def _text(width: int = 20, steps: int = 5) -> Callable[[], Tensor]:
    return lambda: torch.randn(1, steps, width)


def _flux() -> Inputs:
    return {
        "hidden_states": torch.randn(1, 16, 12), "encoder_hidden_states": torch.randn(1, 5, 20),
        "pooled_projections": torch.randn(1, 28), "timestep": torch.tensor([0.5]),
        "img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(5, 3),
    }  # fmt: skip


def _sdxl() -> Inputs:
    return {
        **_noisy(4, encoder_hidden_states=_text())(),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(1, 12), "time_ids": torch.randn(1, 6)
        },
    }  # fmt: skip


NETWORKS: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "unet": ("UNet2DModel", dict(BLOCKS, **DOWN_UP, sample_size=16, attention_head_dim=8), _noisy(3)),
    "unet_classes": (
        "UNet2DModel",
        dict(BLOCKS, **DOWN_UP, sample_size=16, attention_head_dim=8, num_class_embeds=5,
             resnet_time_scale_shift="scale_shift"),
        _noisy(3, class_labels=lambda: torch.tensor([2])),
    ),
    "unet_1d": (
        "UNet1DModel",
        dict(block_out_channels=(32, 64), layers_per_block=1, in_channels=3, out_channels=3,
             extra_in_channels=64, sample_size=16,
             down_block_types=("DownBlock1DNoSkip", "AttnDownBlock1D"),
             up_block_types=("AttnUpBlock1D", "UpBlock1DNoSkip")),
        lambda: {"sample": torch.randn(1, 3, 16), "timestep": torch.tensor([7])},
    ),
    "unet_conditional": (
        "UNet2DConditionModel", dict(BLOCKS, **CROSS, sample_size=16),
        _noisy(4, encoder_hidden_states=_text()),
    ),
    "unet_linear_projection": (
        "UNet2DConditionModel",
        dict(BLOCKS, **CROSS, sample_size=16, use_linear_projection=True, transformer_layers_per_block=2),
        _noisy(4, encoder_hidden_states=_text()),
    ),
    "unet_sdxl": (
        "UNet2DConditionModel",
        dict(BLOCKS, **CROSS, sample_size=16, use_linear_projection=True, addition_embed_type="text_time",
             addition_time_embed_dim=8, projection_class_embeddings_input_dim=60),
        _sdxl,
    ),
    "controlnet": (
        "ControlNetModel",
        dict(BLOCKS, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=20,
             attention_head_dim=8, conditioning_embedding_out_channels=(8, 12)),
        _noisy(4, encoder_hidden_states=_text(), controlnet_cond=lambda: torch.randn(1, 3, 32, 32)),
    ),
    "autoencoder": ("AutoencoderKL", dict(VAE, sample_size=16), lambda: torch.randn(1, 3, 16, 16)),
    "autoencoder_tiny": (
        "AutoencoderTiny",
        dict(encoder_block_out_channels=(12, 12), decoder_block_out_channels=(20, 20),
             num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), upsampling_scaling_factor=2),
        lambda: torch.randn(1, 3, 16, 16),
    ),
    "vq_model": ("VQModel", dict(VAE, sample_size=16, num_vq_embeddings=30), lambda: torch.randn(1, 3, 16, 16)),
    "dit": (
        "DiTTransformer2DModel", dict(HEADS, in_channels=4, sample_size=8, patch_size=2),
        _latent(4, class_labels=lambda: torch.tensor([3])),
    ),
    "pixart": (
        "PixArtTransformer2DModel",
        dict(HEADS, in_channels=4, out_channels=8, sample_size=8, patch_size=2, caption_channels=20,
             cross_attention_dim=48, use_additional_conditions=False),
        _latent(4, encoder_hidden_states=_text()),
    ),
    "sd3": (
        "SD3Transformer2DModel",
        dict(HEADS, in_channels=4, out_channels=4, sample_size=8, patch_size=2, joint_attention_dim=20,
             caption_projection_dim=48, pooled_projection_dim=28, pos_embed_max_size=8),
        _latent(4, encoder_hidden_states=_text(), pooled_projections=lambda: torch.randn(1, 28)),
    ),
    "flux": (
        "FluxTransformer2DModel",
        dict(HEADS, num_single_layers=2, in_channels=12, joint_attention_dim=20, pooled_projection_dim=28,
             axes_dims_rope=(4, 4, 4), guidance_embeds=False),
        _flux,
    ),
    "sana": (
        "SanaTransformer2DModel",
        dict(HEADS, in_channels=4, out_channels=4, num_cross_attention_heads=3, cross_attention_head_dim=16,
             cross_attention_dim=48, caption_channels=20, sample_size=8, patch_size=1),
        _latent(4, encoder_hidden_states=_text()),
    ),
    "transformer_2d": (
        "Transformer2DModel",
        dict(num_attention_heads=4, attention_head_dim=12, in_channels=48, num_layers=2,
             norm_num_groups=4, cross_attention_dim=20),
        lambda: {"hidden_states": torch.randn(1, 48, 8, 8), "encoder_hidden_states": torch.randn(1, 5, 20)},
    ),
    "prior": (
        "PriorTransformer",
        dict(HEADS, embedding_dim=20, num_embeddings=5, additional_embeddings=4),
        lambda: {"hidden_states": torch.randn(1, 20), "timestep": torch.tensor([7]),
                 "proj_embedding": torch.randn(1, 20), "encoder_hidden_states": torch.randn(1, 5, 20)},
    ),
    "uvit": (
        "UVit2DModel",
        dict(hidden_size=48, cond_embed_dim=20, micro_cond_encode_dim=4, micro_cond_embed_dim=24,
             encoder_hidden_size=20, vocab_size=30, codebook_size=24, in_channels=24, block_out_channels=24,
             num_res_blocks=1, num_hidden_layers=2, num_attention_heads=4, block_num_heads=4,
             intermediate_size=72, sample_size=8, downsample=True, upsample=True),
        lambda: {"input_ids": torch.randint(0, 24, (1, 8, 8)), "encoder_hidden_states": torch.randn(1, 5, 20),
                 "pooled_text_emb": torch.randn(1, 20), "micro_conds": torch.randn(1, 6)},
    ),
}  # fmt: skip


def names() -> list[str]:
    return list(NETWORKS)


def build(name: str, seed: int) -> tuple[nn.Module, Any]:
    kind, settings, inputs = NETWORKS[name]
    torch.manual_seed(seed)
    return getattr(diffusers, kind)(**settings).eval(), inputs()
