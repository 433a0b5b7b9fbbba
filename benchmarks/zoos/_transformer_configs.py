# ruff: noqa: C408 - tables with one line a model
"""Configurations that many transformers families share, tiny, of widths that are not alike."""

from __future__ import annotations

from typing import Any

Inputs = dict[str, Any]
Config = dict[str, Any]
Family = tuple[str, Config, str]
"""Class of the model, what its configuration differs by from the class's own, kind of inputs."""

WIDE: Config = dict(
    hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80
)
TEXT: Config = dict(WIDE, vocab_size=96)
BERT: Config = dict(TEXT, max_position_embeddings=40)
SPECIAL: Config = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
LLAMA: Config = dict(TEXT, **SPECIAL, num_key_value_heads=2)
MOE: Config = dict(LLAMA, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=40)
LATENT: Config = dict(
    kv_lora_rank=20, q_lora_rank=28, qk_rope_head_dim=6, v_head_dim=10, qk_nope_head_dim=8
)
SEQ2SEQ: Config = dict(
    vocab_size=96,
    d_model=48,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=6,
    encoder_ffn_dim=80,
    decoder_ffn_dim=72,
    max_position_embeddings=32,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=2,
    forced_eos_token_id=None,
)
T5: Config = dict(
    vocab_size=96, d_model=48, d_kv=10, d_ff=80, num_layers=2, num_heads=4, decoder_start_token_id=0
)
VIT: Config = dict(WIDE, image_size=32, patch_size=8)
SPEECH: Config = dict(
    WIDE,
    vocab_size=32,
    conv_dim=(24, 20, 28),
    conv_stride=(5, 2, 2),
    conv_kernel=(10, 3, 2),
    num_feat_extract_layers=3,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
RESNET: Config = dict(
    model_type="resnet",
    embedding_size=16,
    hidden_sizes=[24, 32, 48, 64],
    depths=[1, 1, 1, 1],
    out_features=["stage2", "stage3", "stage4"],
)
DETR: Config = dict(
    {k: v for k, v in SEQ2SEQ.items() if k not in ("vocab_size", "max_position_embeddings")},
    num_queries=6,
    backbone_config=RESNET,
    use_timm_backbone=False,
    backbone=None,
)
SWIN: Config = dict(
    model_type="swin",
    embed_dim=24,
    depths=[1, 1, 2, 1],
    num_heads=[2, 4, 3, 4],
    image_size=64,
    patch_size=2,
    window_size=4,
    out_features=["stage1", "stage2", "stage3", "stage4"],
)
STAGES: Config = dict(hidden_sizes=[16, 24, 40, 56], depths=[1, 1, 2, 1])
CLIP_TEXT: Config = dict(TEXT, max_position_embeddings=16, projection_dim=20, **SPECIAL)
CLIP_VISION: Config = dict(
    hidden_size=40,
    num_hidden_layers=2,
    num_attention_heads=5,
    intermediate_size=72,
    image_size=32,
    patch_size=8,
    projection_dim=20,
)


def gqa(heads: int, kv: int, **extra: Any) -> Config:
    """A Llama-shaped decoder with these heads, each 8 wide."""
    return dict(LLAMA, num_attention_heads=heads, num_key_value_heads=kv, head_dim=8, **extra)


def only(config: Config, *without: str, **changes: Any) -> Config:
    return {k: v for k, v in {**config, **changes}.items() if k not in without}
