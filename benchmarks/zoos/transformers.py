# ruff: noqa: E501, C408 - tables with one line a model
"""Transformers families from tiny configurations, random weights.

Widths are neither all equal nor all powers of two (48 wide, 4 or 6 heads, 80 or 72 inside), so
that two dimensions which are not the same one do not have the same size by accident. One line a
family: the model's class, its configuration, the kind of inputs it takes. Experts run as plain
matrix products: the grouped kernel exists in half and single precision only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torchvision_ops import define_torchvision_ops

define_torchvision_ops()

import transformers  # noqa: E402

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


def _gqa(heads: int, kv: int, **extra: Any) -> Config:
    """A Llama-shaped decoder with these heads, each 8 wide."""
    return dict(LLAMA, num_attention_heads=heads, num_key_value_heads=kv, head_dim=8, **extra)


def _only(config: Config, *without: str, **changes: Any) -> Config:
    return {k: v for k, v in {**config, **changes}.items() if k not in without}


ENCODERS: dict[str, Family] = {
    "bert": ("BertForMaskedLM", BERT, "text"),
    "bert_generation": ("BertGenerationEncoder", BERT, "text"),
    "roberta": ("RobertaForSequenceClassification", BERT, "text"),
    "roberta_prelayernorm": ("RobertaPreLayerNormModel", BERT, "text"),
    "xlm_roberta": ("XLMRobertaForTokenClassification", BERT, "text"),
    "xlm_roberta_xl": ("XLMRobertaXLModel", BERT, "text"),
    "camembert": ("CamembertForMaskedLM", BERT, "text"),
    "data2vec_text": ("Data2VecTextModel", BERT, "text"),
    "distilbert": (
        "DistilBertForSequenceClassification",
        dict(vocab_size=96, dim=48, n_heads=4, n_layers=2, hidden_dim=80),
        "text",
    ),
    "albert": ("AlbertModel", dict(TEXT, embedding_size=20), "text"),
    "electra": ("ElectraForPreTraining", dict(TEXT, embedding_size=20), "text"),
    "convbert": ("ConvBertModel", dict(BERT, embedding_size=48), "text"),
    "deberta": ("DebertaModel", dict(BERT, relative_attention=False), "text"),
    "deberta_relative": (
        "DebertaModel",
        dict(BERT, relative_attention=True, pos_att_type=["c2p", "p2c"]),
        "text",
    ),
    "deberta_v2": ("DebertaV2Model", BERT, "text"),
    "deberta_v2_relative": (
        "DebertaV2Model",
        dict(
            TEXT,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_buckets=8,
            share_att_key=True,
            norm_rel_ebd="layer_norm",
        ),
        "text",
    ),
    "mobilebert": (
        "MobileBertModel",
        dict(BERT, intra_bottleneck_size=24, embedding_size=20, true_hidden_size=24),
        "text",
    ),
    "mpnet": ("MPNetModel", BERT, "text"),
    "megatron_bert": ("MegatronBertModel", BERT, "text"),
    "rembert": (
        "RemBertModel",
        dict(BERT, input_embedding_size=20, output_embedding_size=28),
        "text",
    ),
    "roformer": ("RoFormerModel", dict(BERT, embedding_size=48), "text"),
    "nystromformer": ("NystromformerModel", dict(BERT, num_landmarks=2, segment_means_seq_len=8), "text8"),
    "squeezebert": ("SqueezeBertModel", dict(BERT, embedding_size=48), "text"),
    "splinter": ("SplinterModel", BERT, "text"),
    "ibert": ("IBertModel", BERT, "text"),
    "layoutlm": ("LayoutLMModel", dict(BERT, max_2d_position_embeddings=32), "text"),
    "lilt": ("LiltModel", dict(BERT, max_2d_position_embeddings=32), "text"),
    "ernie": ("ErnieModel", BERT, "text"),
    "esm": ("EsmModel", dict(BERT, pad_token_id=0, position_embedding_type="rotary"), "text"),
    "fnet": ("FNetModel", dict(_only(BERT, "num_attention_heads"), tpu_short_seq_length=7), "text"),
    "canine": ("CanineModel", dict(WIDE, max_position_embeddings=64, num_hash_buckets=32), "text16"),
    "funnel": (
        "FunnelModel",
        dict(vocab_size=96, block_sizes=[1, 1], d_model=48, n_head=4, d_head=10, d_inner=80),
        "text8",
    ),
    "xlnet": ("XLNetModel", dict(vocab_size=96, d_model=48, n_layer=2, n_head=4, d_inner=80), "text"),
    "xlm": ("XLMModel", dict(vocab_size=96, emb_dim=48, n_layers=2, n_heads=4, max_position_embeddings=32), "text"),
    "flaubert": ("FlaubertModel", dict(vocab_size=96, emb_dim=48, n_layers=2, n_heads=4, max_position_embeddings=32), "text"),
    "longformer": ("LongformerModel", dict(BERT, attention_window=4, pad_token_id=0), "text8"),
    "big_bird": ("BigBirdModel", dict(BERT, attention_type="original_full"), "text"),
    "modernbert": ("ModernBertModel", dict(TEXT, **SPECIAL, cls_token_id=1, sep_token_id=2, local_attention=4), "text"),
    "nomic_bert": ("NomicBertModel", BERT, "text"),
    "eurobert": ("EuroBertModel", LLAMA, "text"),
    "perceiver": (
        "PerceiverForMaskedLM",
        dict(vocab_size=96, d_model=48, d_latents=40, num_latents=6, num_self_attends_per_block=2,
             num_self_attention_heads=4, num_cross_attention_heads=2, max_position_embeddings=16,
             qk_channels=32, v_channels=40),
        "text16",
    ),
}  # fmt: skip

DECODERS: dict[str, Family] = {
    "gpt2": ("GPT2LMHeadModel", dict(vocab_size=96, n_embd=48, n_layer=2, n_head=4, n_positions=32), "causal"),
    "openai_gpt": ("OpenAIGPTLMHeadModel", dict(vocab_size=96, n_embd=48, n_layer=2, n_head=4, n_positions=32), "text"),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        dict(vocab_size=96, hidden_size=48, num_layers=2, num_heads=4, intermediate_size=80,
             max_position_embeddings=32, attention_types=[[["global", "local"], 1]], window_size=4),
        "causal",
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", dict(TEXT), "causal"),
    "gptj": ("GPTJForCausalLM", dict(vocab_size=96, n_embd=48, n_layer=2, n_head=4, rotary_dim=4), "causal"),
    "gpt_bigcode_mqa": ("GPTBigCodeForCausalLM", dict(vocab_size=96, n_embd=48, n_layer=2, n_head=4, n_positions=32), "causal"),
    "gpt_bigcode_mha": (
        "GPTBigCodeForCausalLM",
        dict(vocab_size=96, n_embd=48, n_layer=2, n_head=4, n_positions=32, multi_query=False),
        "causal",
    ),
    "codegen": ("CodeGenForCausalLM", dict(vocab_size=96, n_embd=48, n_layer=2, n_head=4, rotary_dim=4, n_positions=32, n_ctx=32), "causal"),
    "ctrl": ("CTRLLMHeadModel", dict(vocab_size=96, n_embd=48, n_layer=2, n_head=4, n_positions=32, dff=80), "causal"),
    "bloom": ("BloomForCausalLM", dict(vocab_size=96, hidden_size=48, n_layer=2, n_head=4), "causal"),
    "falcon_mqa": ("FalconForCausalLM", dict(_only(TEXT, "intermediate_size")), "causal"),
    "falcon_gqa": ("FalconForCausalLM", dict(_only(TEXT, "intermediate_size"), new_decoder_architecture=True, num_kv_heads=2), "causal"),
    "falcon_alibi": ("FalconForCausalLM", dict(_only(TEXT, "intermediate_size"), alibi=True, multi_query=False), "causal"),
    "mpt": ("MptForCausalLM", dict(vocab_size=96, d_model=48, n_heads=4, n_layers=2, expansion_ratio=2, max_seq_len=32), "causal"),
    "opt": (
        "OPTForCausalLM",
        dict(vocab_size=96, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, ffn_dim=80,
             word_embed_proj_dim=20, max_position_embeddings=32),
        "causal",
    ),
    "xglm": ("XGLMForCausalLM", dict(vocab_size=96, d_model=48, num_layers=2, attention_heads=4, ffn_dim=80, max_position_embeddings=32), "causal"),
    "biogpt": ("BioGptForCausalLM", BERT, "causal"),
    "imagegpt": ("ImageGPTForCausalImageModeling", dict(vocab_size=96, n_embd=48, n_layer=2, n_head=4, n_positions=32), "causal"),
    "llama_mha": ("LlamaForCausalLM", _gqa(6, 6), "causal"),
    "llama_gqa_2": ("LlamaForCausalLM", _gqa(4, 2), "causal"),
    "llama_gqa_3": ("LlamaForCausalLM", _gqa(6, 2), "causal"),
    "llama_gqa_4": ("LlamaForCausalLM", _gqa(8, 2), "causal"),
    "llama_mqa_8": ("LlamaForCausalLM", _gqa(8, 1), "causal"),
    "llama_tied": ("LlamaForCausalLM", _gqa(6, 3, tie_word_embeddings=True), "causal"),
    "llama_yarn": (
        "LlamaForCausalLM",
        _gqa(4, 2, rope_parameters=dict(rope_type="yarn", factor=2.0, rope_theta=1e4, original_max_position_embeddings=16)),
        "causal",
    ),
    "mistral": ("MistralForCausalLM", _gqa(4, 2, sliding_window=4), "causal"),
    "qwen2": ("Qwen2ForCausalLM", LLAMA, "causal"),
    "qwen3": ("Qwen3ForCausalLM", _gqa(6, 3), "causal"),
    "gemma": ("GemmaForCausalLM", _gqa(4, 1), "causal"),
    "gemma2": ("Gemma2ForCausalLM", _gqa(4, 2, query_pre_attn_scalar=8), "causal"),
    "gemma3": ("Gemma3ForCausalLM", _gqa(4, 2, query_pre_attn_scalar=8), "causal"),
    "phi": ("PhiForCausalLM", LLAMA, "causal"),
    "phi3": ("Phi3ForCausalLM", LLAMA, "causal"),
    "olmo": ("OlmoForCausalLM", LLAMA, "causal"),
    "olmo2": ("Olmo2ForCausalLM", LLAMA, "causal"),
    "olmo3": ("Olmo3ForCausalLM", LLAMA, "causal"),
    "stablelm": ("StableLmForCausalLM", dict(LLAMA, rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)), "causal"),
    "granite": ("GraniteForCausalLM", LLAMA, "causal"),
    "cohere": ("CohereForCausalLM", LLAMA, "causal"),
    "cohere2": ("Cohere2ForCausalLM", _gqa(4, 2), "causal"),
    "starcoder2": ("Starcoder2ForCausalLM", LLAMA, "causal"),
    "glm": ("GlmForCausalLM", _gqa(4, 2), "causal"),
    "glm4": ("Glm4ForCausalLM", _gqa(4, 2), "causal"),
    "exaone4": ("Exaone4ForCausalLM", LLAMA, "causal"),
    "diffllama": ("DiffLlamaForCausalLM", _gqa(4, 2), "causal"),
    "helium": ("HeliumForCausalLM", dict(LLAMA, head_dim=12), "causal"),
    "nemotron": ("NemotronForCausalLM", _gqa(4, 2), "causal"),
    "persimmon": ("PersimmonForCausalLM", _only(LLAMA, "num_key_value_heads"), "causal"),
    "smollm3": ("SmolLM3ForCausalLM", LLAMA, "causal"),
    "arcee": ("ArceeForCausalLM", LLAMA, "causal"),
    "apertus": ("ApertusForCausalLM", LLAMA, "causal"),
    "ernie4_5": ("Ernie4_5ForCausalLM", _gqa(4, 2), "causal"),
    "bitnet": ("BitNetForCausalLM", LLAMA, "causal"),
    "minicpm3": ("MiniCPM3ForCausalLM", dict(LLAMA, **LATENT, num_key_value_heads=4), "causal"),
    "xlnet_lm": ("XLNetLMHeadModel", dict(vocab_size=96, d_model=48, n_layer=2, n_head=4, d_inner=80), "text"),
    "doge": ("DogeForCausalLM", LLAMA, "causal"),
    "mamba": ("MambaForCausalLM", dict(vocab_size=96, hidden_size=48, num_hidden_layers=2, state_size=6, time_step_rank=5), "causal"),
    "falcon_mamba": ("FalconMambaForCausalLM", dict(vocab_size=96, hidden_size=48, num_hidden_layers=2, state_size=6, time_step_rank=5), "causal"),
    "mamba2": (
        "Mamba2ForCausalLM",
        dict(vocab_size=96, hidden_size=48, num_hidden_layers=2, state_size=6, num_heads=8,
             head_dim=12, n_groups=2, chunk_size=8),
        "causal",
    ),
    "rwkv": ("RwkvForCausalLM", dict(vocab_size=96, hidden_size=48, num_hidden_layers=2), "causal"),
    "recurrent_gemma": (
        "RecurrentGemmaForCausalLM",
        dict(_gqa(4, 1), lru_width=48, block_types=["recurrent", "attention"], attention_window_size=8),
        "causal",
    ),
    "lfm2": ("Lfm2ForCausalLM", dict(LLAMA, layer_types=["conv", "full_attention"]), "causal"),
    "bamba": (
        "BambaForCausalLM",
        dict(LLAMA, attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=12, mamba_n_groups=2,
             mamba_d_state=6, mamba_chunk_size=8),
        "causal",
    ),
    "falcon_h1": (
        "FalconH1ForCausalLM",
        dict(LLAMA, mamba_d_ssm=96, mamba_n_heads=8, mamba_d_head=12, mamba_n_groups=2,
             mamba_d_state=6, mamba_chunk_size=8),
        "causal",
    ),
    "xlstm": (
        "xLSTMForCausalLM",
        dict(vocab_size=96, hidden_size=48, num_hidden_layers=2, num_heads=4, chunk_size=8,
             autocast_kernel_dtype="float32"),
        "causal",
    ),
}  # fmt: skip

EXPERTS: dict[str, Family] = {
    "mixtral": ("MixtralForCausalLM", dict(LLAMA, num_local_experts=4), "causal"),
    "qwen2_moe": ("Qwen2MoeForCausalLM", dict(MOE, shared_expert_intermediate_size=28), "causal"),
    "qwen3_moe": ("Qwen3MoeForCausalLM", dict(MOE, head_dim=12), "causal"),
    "qwen3_next": (
        "Qwen3NextForCausalLM",
        dict(MOE, head_dim=12, shared_expert_intermediate_size=28, linear_key_head_dim=10,
             linear_value_head_dim=14, linear_num_key_heads=2, linear_num_value_heads=4,
             layer_types=["linear_attention", "full_attention"]),
        "causal",
    ),
    "olmoe": ("OlmoeForCausalLM", dict(_only(MOE, "moe_intermediate_size")), "causal"),
    "deepseek_v2": (
        "DeepseekV2ForCausalLM",
        dict(_only(MOE, "num_experts"), **LATENT, n_routed_experts=4, first_k_dense_replace=1,
             n_group=1, topk_group=1, num_key_value_heads=4),
        "causal",
    ),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        dict(_only(MOE, "num_experts"), **LATENT, n_routed_experts=4, first_k_dense_replace=1,
             n_group=2, topk_group=1, num_key_value_heads=4),
        "causal",
    ),
    "gpt_oss": ("GptOssForCausalLM", dict(_gqa(4, 2), num_local_experts=4, num_experts_per_tok=2, sliding_window=4), "causal"),
    "granite_moe": ("GraniteMoeForCausalLM", dict(LLAMA, num_local_experts=4), "causal"),
    "granite_moe_hybrid": (
        "GraniteMoeHybridForCausalLM",
        dict(LLAMA, num_local_experts=4, shared_intermediate_size=28, mamba_n_heads=8,
             mamba_d_head=12, mamba_n_groups=2, mamba_d_state=6, mamba_chunk_size=8,
             layer_types=["mamba", "attention"]),
        "causal",
    ),
    "phimoe": ("PhimoeForCausalLM", dict(LLAMA, num_local_experts=4), "causal"),
    "jetmoe": ("JetMoeForCausalLM", dict(_only(LLAMA, "num_attention_heads"), num_local_experts=4, kv_channels=10), "causal"),
    "glm4_moe": (
        "Glm4MoeForCausalLM",
        dict(_only(MOE, "num_experts"), n_routed_experts=4, first_k_dense_replace=1, head_dim=12),
        "causal",
    ),
    "ernie4_5_moe": ("Ernie4_5_MoeForCausalLM", dict(_only(MOE, "num_experts", "num_experts_per_tok"), moe_num_experts=4, moe_k=2, moe_layer_start_index=1), "causal"),
    "dbrx": (
        "DbrxForCausalLM",
        dict(vocab_size=96, d_model=48, n_heads=4, n_layers=2, max_seq_len=32,
             attn_config=dict(kv_n_heads=2, clip_qkv=8.0, rope_theta=1e4),
             ffn_config=dict(ffn_hidden_size=40, moe_num_experts=4, moe_top_k=2, hidden_size=48)),
        "causal",
    ),
    "jamba": (
        "JambaForCausalLM",
        dict(_only(MOE, "moe_intermediate_size"), attn_layer_period=2, attn_layer_offset=1,
             expert_layer_period=2, expert_layer_offset=1, mamba_d_state=6, mamba_dt_rank=5,
             use_mamba_kernels=False),
        "causal",
    ),
    "minimax": ("MiniMaxForCausalLM", dict(_gqa(4, 2), num_local_experts=4, block_size=8, layer_types=["linear_attention", "full_attention"]), "causal"),
    "llama4": (
        "Llama4ForCausalLM",
        dict(_gqa(4, 2), num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=72,
             interleave_moe_layer_step=2, attention_chunk_size=4),
        "causal",
    ),
    "hunyuan_moe": ("HunYuanMoEV1ForCausalLM", dict(_gqa(4, 2), num_experts=4, moe_topk=2), "causal"),
    "switch_transformers": (
        "SwitchTransformersForConditionalGeneration",
        dict(T5, num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, expert_capacity=8),
        "seq2seq",
    ),
}  # fmt: skip

ENCODER_DECODERS: dict[str, Family] = {
    "t5": ("T5ForConditionalGeneration", T5, "seq2seq"),
    "t5_gated": ("T5ForConditionalGeneration", dict(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False), "seq2seq"),
    "mt5": ("MT5ForConditionalGeneration", T5, "seq2seq"),
    "umt5": ("UMT5ForConditionalGeneration", T5, "seq2seq"),
    "longt5": ("LongT5ForConditionalGeneration", dict(T5, local_radius=3), "seq2seq"),
    "bart": ("BartForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "mbart": ("MBartForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "marian": ("MarianMTModel", SEQ2SEQ, "seq2seq"),
    "pegasus": ("PegasusForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "pegasus_x": ("PegasusXForConditionalGeneration", dict(SEQ2SEQ, num_global_tokens=4, block_size=4), "seq2seq"),
    "blenderbot": ("BlenderbotForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "blenderbot_small": ("BlenderbotSmallForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "m2m_100": ("M2M100ForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "plbart": ("PLBartForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "mvp": ("MvpForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "bigbird_pegasus": ("BigBirdPegasusForConditionalGeneration", dict(SEQ2SEQ, attention_type="original_full"), "seq2seq"),
    "led": ("LEDForConditionalGeneration", dict(_only(SEQ2SEQ, "max_position_embeddings"), attention_window=4, max_encoder_position_embeddings=32, max_decoder_position_embeddings=32), "seq2seq8"),
    "prophetnet": (
        "ProphetNetForConditionalGeneration",
        dict(vocab_size=96, hidden_size=48, num_encoder_layers=2, num_decoder_layers=2,
             num_encoder_attention_heads=4, num_decoder_attention_heads=6, encoder_ffn_dim=80,
             decoder_ffn_dim=72, max_position_embeddings=32, pad_token_id=0),
        "seq2seq",
    ),
    "fsmt": ("FSMTForConditionalGeneration", dict(_only(SEQ2SEQ, "vocab_size"), src_vocab_size=96, tgt_vocab_size=90, langs=["en", "de"]), "seq2seq"),
}  # fmt: skip

VISION: dict[str, Family] = {
    "vit": ("ViTForImageClassification", VIT, "image"),
    "deit": ("DeiTForImageClassificationWithTeacher", VIT, "image"),
    "vit_msn": ("ViTMSNModel", VIT, "image"),
    "vit_mae": ("ViTMAEModel", dict(VIT, decoder_hidden_size=24), "image"),
    "beit": ("BeitForImageClassification", dict(VIT, use_relative_position_bias=True), "image"),
    "data2vec_vision": ("Data2VecVisionForImageClassification", VIT, "image"),
    "dinov2": ("Dinov2ForImageClassification", dict(_only(VIT, "intermediate_size"), mlp_ratio=2), "image"),
    "dinov2_swiglu": ("Dinov2Model", dict(_only(VIT, "intermediate_size"), use_swiglu_ffn=True), "image"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", dict(_only(VIT, "intermediate_size"), mlp_ratio=2), "image"),
    "dinov3_vit": ("DINOv3ViTModel", VIT, "image"),
    "dinov3_convnext": ("DINOv3ConvNextModel", STAGES, "image64"),
    "ijepa": ("IJepaModel", VIT, "image"),
    "hiera": ("HieraForImageClassification", dict(embed_dim=24, image_size=[32, 32], patch_size=[7, 7], patch_stride=[4, 4], patch_padding=[3, 3], depths=[1, 1], num_heads=[2, 4], masked_unit_size=[4, 4], query_stride=[2, 2], mlp_ratio=2.0, num_query_pool=1), "image"),
    "swin": ("SwinForImageClassification", dict(embed_dim=24, depths=[2, 2], num_heads=[2, 4], image_size=32, patch_size=4, window_size=4), "image"),
    "swinv2": ("Swinv2ForImageClassification", dict(embed_dim=24, depths=[2, 2], num_heads=[2, 4], image_size=32, patch_size=4, window_size=4), "image"),
    "swin2sr": ("Swin2SRForImageSuperResolution", dict(embed_dim=24, depths=[1, 1], num_heads=[2, 2], image_size=32, window_size=4), "image"),
    "segformer": ("SegformerForSemanticSegmentation", dict(hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1], decoder_hidden_size=24, num_labels=7), "image64"),
    "pvt": ("PvtForImageClassification", dict(hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1], image_size=64), "image64"),
    "pvt_v2": ("PvtV2ForImageClassification", dict(hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1], image_size=64), "image64"),
    "cvt": ("CvtForImageClassification", dict(embed_dim=[16, 24, 36], num_heads=[1, 2, 3], depth=[1, 2, 3]), "image64"),
    "levit": ("LevitForImageClassification", dict(hidden_sizes=[16, 24, 40], num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8, 8, 8], image_size=64), "image64"),
    "mobilevit": ("MobileViTForImageClassification", dict(hidden_sizes=[24, 28, 32], neck_hidden_sizes=[8, 12, 16, 20, 24, 28, 40], image_size=64, num_attention_heads=2), "image64"),
    "mobilevitv2": ("MobileViTV2ForImageClassification", dict(image_size=64, width_multiplier=0.5), "image64"),
    "mobilenet_v1": ("MobileNetV1ForImageClassification", dict(depth_multiplier=0.25), "image64"),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", dict(depth_multiplier=0.35), "image64"),
    "efficientnet": ("EfficientNetForImageClassification", dict(width_coefficient=0.5, depth_coefficient=0.3, hidden_dim=640, image_size=64), "image64"),
    "resnet": ("ResNetForImageClassification", dict(embedding_size=16, hidden_sizes=[24, 32, 48, 64], depths=[1, 1, 2, 1]), "image64"),
    "regnet": ("RegNetForImageClassification", dict(embedding_size=16, hidden_sizes=[24, 32, 48, 64], depths=[1, 1, 2, 1], groups_width=8), "image64"),
    "bit": ("BitForImageClassification", dict(embedding_size=32, hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 1, 1], num_groups=8), "image64"),
    "convnext": ("ConvNextForImageClassification", STAGES, "image64"),
    "convnextv2": ("ConvNextV2ForImageClassification", STAGES, "image64"),
    "focalnet": ("FocalNetForImageClassification", dict(embed_dim=16, depths=[1, 1], hidden_sizes=[24, 40], focal_levels=[2, 2], focal_windows=[3, 3], image_size=32), "image"),
    "poolformer": ("PoolFormerForImageClassification", dict(hidden_sizes=[16, 24, 40, 56], depths=[1, 1, 1, 1]), "image64"),
    "swiftformer": ("SwiftFormerForImageClassification", dict(embed_dims=[16, 24, 40, 56], depths=[1, 1, 1, 1]), "image64"),
    "textnet": ("TextNetForImageClassification", dict(stem_out_channels=16, hidden_sizes=[16, 24, 32, 40, 48]), "image64"),
    "hgnet_v2": ("HGNetV2ForImageClassification", dict(stem_channels=[3, 16, 24], stage_in_channels=[24, 32, 48, 64], stage_mid_channels=[12, 16, 20, 24], stage_out_channels=[32, 48, 64, 80], stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[2, 2, 2, 2], hidden_sizes=[32, 48, 64, 80], depths=[1, 1, 1, 1]), "image64"),
    "dpt": ("DPTForDepthEstimation", dict(WIDE, num_hidden_layers=4, image_size=32, patch_size=8, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[12, 20, 28, 36], fusion_hidden_size=24), "image"),
    "yolos": ("YolosForObjectDetection", dict(WIDE, image_size=[32, 32], patch_size=8, num_detection_tokens=5), "image"),
    "vitdet": ("VitDetModel", dict(_only(VIT, "intermediate_size"), mlp_ratio=2, pretrain_image_size=32, window_block_indices=[0], window_size=2), "image"),
    "detr": ("DetrForObjectDetection", DETR, "image64"),
    "conditional_detr": ("ConditionalDetrForObjectDetection", dict(DETR, decoder_attention_heads=4), "image64"),
    "table_transformer": ("TableTransformerForObjectDetection", DETR, "image64"),
    "deformable_detr": ("DeformableDetrForObjectDetection", dict(DETR, d_model=96, num_feature_levels=3), "image64"),
    "rt_detr_backbone": ("RTDetrResNetBackbone", dict(embedding_size=16, hidden_sizes=[32, 48, 64, 80], depths=[1, 1, 1, 1]), "image64"),
    "mask2former": ("Mask2FormerForUniversalSegmentation", dict(backbone_config=SWIN, feature_size=64, mask_feature_size=64, hidden_dim=64, encoder_feedforward_dim=40, dim_feedforward=56, num_attention_heads=4, encoder_layers=1, decoder_layers=3, num_queries=6), "image64"),
    "maskformer": ("MaskFormerForInstanceSegmentation", dict(backbone_config=SWIN, fpn_feature_size=64, mask_feature_size=40, decoder_config=dict(DETR, model_type="detr")), "image64"),
    "upernet": ("UperNetForSemanticSegmentation", dict(backbone_config=dict(RESNET, model_type="convnext", hidden_sizes=[16, 24, 40, 56], out_features=["stage1", "stage2", "stage3", "stage4"]), hidden_size=24, pool_scales=[1, 2], auxiliary_in_channels=40, auxiliary_channels=20, auxiliary_loss_weight=0.4, num_labels=7), "image64"),
    "glpn": ("GLPNForDepthEstimation", dict(hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1], decoder_hidden_size=24), "image64"),
    "vitmatte_free_sam": ("SamVisionModel", dict(_only(VIT, "intermediate_size"), mlp_dim=80, output_channels=24, global_attn_indexes=[1], window_size=2, num_pos_feats=24), "image"),
    "superpoint": ("SuperPointForKeypointDetection", dict(encoder_hidden_sizes=[16, 24, 32, 40], decoder_hidden_size=48, keypoint_decoder_dim=65, descriptor_decoder_dim=56), "image64"),
    "videomae": ("VideoMAEForVideoClassification", dict(VIT, num_frames=4), "video"),
    "timesformer": ("TimesformerForVideoClassification", dict(VIT, num_frames=4), "video"),
    "vivit": ("VivitForVideoClassification", dict(VIT, num_frames=4, tubelet_size=[2, 8, 8]), "video"),
}  # fmt: skip

SPEECHES: dict[str, Family] = {
    "wav2vec2": ("Wav2Vec2ForCTC", SPEECH, "wave"),
    "wav2vec2_stable": ("Wav2Vec2Model", dict(SPEECH, do_stable_layer_norm=True, feat_extract_norm="layer"), "wave"),
    "wav2vec2_conformer": ("Wav2Vec2ConformerModel", SPEECH, "wave"),
    "hubert": ("HubertForCTC", SPEECH, "wave"),
    "wavlm": ("WavLMModel", dict(SPEECH, num_buckets=16), "wave"),
    "unispeech": ("UniSpeechModel", SPEECH, "wave"),
    "unispeech_sat": ("UniSpeechSatModel", SPEECH, "wave"),
    "sew": ("SEWModel", dict(SPEECH, squeeze_factor=2), "wave"),
    "data2vec_audio": ("Data2VecAudioModel", dict(SPEECH, conv_pos_kernel_size=5), "wave"),
    "whisper": ("WhisperForConditionalGeneration", dict(_only(SEQ2SEQ, "max_position_embeddings"), max_source_positions=30, max_target_positions=20, num_mel_bins=16), "whisper"),
    "speech_to_text": ("Speech2TextForConditionalGeneration", dict(_only(SEQ2SEQ, "max_position_embeddings"), max_source_positions=60, max_target_positions=20, input_feat_per_channel=16, conv_channels=40), "mel"),
    "audio_spectrogram_transformer": ("ASTForAudioClassification", dict(WIDE, max_length=32, num_mel_bins=16, patch_size=8, frequency_stride=4, time_stride=4), "ast"),
    "moonshine": ("MoonshineForConditionalGeneration", dict(vocab_size=96, hidden_size=48, intermediate_size=80, encoder_num_hidden_layers=2, decoder_num_hidden_layers=2, encoder_num_attention_heads=4, decoder_num_attention_heads=4, **SPECIAL, decoder_start_token_id=1), "moonshine"),
    "encodec": ("EncodecModel", dict(num_filters=8, hidden_size=24, codebook_size=16, codebook_dim=24, num_residual_layers=1, upsampling_ratios=[4, 2], num_lstm_layers=1, norm_type="weight_norm"), "codec"),
    "dac": ("DacModel", dict(encoder_hidden_size=8, downsampling_ratios=[2, 4], decoder_hidden_size=32, n_codebooks=2, codebook_size=16, codebook_dim=6, upsampling_ratios=[4, 2]), "codec"),
    "univnet": ("UnivNetModel", dict(model_in_channels=16, model_hidden_channels=16, num_mel_bins=10, resblock_kernel_sizes=[3], resblock_stride_sizes=[4], resblock_dilation_sizes=[[1, 3]], kernel_predictor_hidden_channels=16), "univnet"),
    "vits": ("VitsModel", dict(vocab_size=96, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, ffn_dim=40, flow_size=24, spectrogram_bins=33, upsample_initial_channel=32, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8], posterior_encoder_num_wavenet_layers=2, prior_encoder_num_flows=2, prior_encoder_num_wavenet_layers=2, duration_predictor_num_flows=2, wavenet_kernel_size=3, resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], noise_scale=0.0, noise_scale_duration=0.0), "text"),
}  # fmt: skip

PAIRED: dict[str, Family] = {
    "clip": ("CLIPModel", dict(text_config=CLIP_TEXT, vision_config=CLIP_VISION, projection_dim=20), "clip"),
    "clip_vision": ("CLIPVisionModelWithProjection", CLIP_VISION, "image"),
    "siglip": ("SiglipModel", dict(text_config=_only(CLIP_TEXT, "projection_dim", hidden_size=40, num_attention_heads=5), vision_config=_only(CLIP_VISION, "projection_dim")), "clip"),
    "siglip2_vision": ("SiglipVisionModel", _only(CLIP_VISION, "projection_dim"), "image"),
    "chinese_clip": ("ChineseCLIPModel", dict(text_config=BERT, vision_config=CLIP_VISION, projection_dim=20), "clip"),
    "altclip_vision": ("AltCLIPVisionModel", CLIP_VISION, "image"),
    "clipseg": ("CLIPSegForImageSegmentation", dict(text_config=CLIP_TEXT, vision_config=dict(CLIP_VISION), projection_dim=20, extract_layers=[0, 1], reduce_dim=16, decoder_num_attention_heads=2, decoder_intermediate_size=28), "clip"),
    "groupvit": ("GroupViTModel", dict(text_config=CLIP_TEXT, vision_config=dict(CLIP_VISION, hidden_size=40, depths=[1, 1], num_group_tokens=[4, 0], num_output_groups=[4, 2], num_hidden_layers=2), projection_dim=20, projection_intermediate_dim=28), "clip"),
    "owlvit": ("OwlViTModel", dict(text_config=CLIP_TEXT, vision_config=CLIP_VISION, projection_dim=20), "clip"),
    "xclip": ("XCLIPModel", dict(text_config=CLIP_TEXT, vision_config=dict(CLIP_VISION, mit_hidden_size=20, mit_num_attention_heads=4, mit_num_hidden_layers=1, mit_intermediate_size=56, num_frames=2), projection_dim=20, prompt_layers=1, prompt_num_attention_heads=4), "xclip"),
    "blip": ("BlipForConditionalGeneration", dict(text_config=dict(CLIP_TEXT, encoder_hidden_size=40), vision_config=CLIP_VISION, projection_dim=20), "captioning"),
    "blip_itm": ("BlipForImageTextRetrieval", dict(text_config=dict(CLIP_TEXT, encoder_hidden_size=40), vision_config=CLIP_VISION, projection_dim=20), "clip"),
    "git": ("GitForCausalLM", dict(BERT, **SPECIAL, vision_config=CLIP_VISION), "captioning"),
    "vilt": ("ViltModel", dict(BERT, image_size=32, patch_size=8), "vilt"),
    "flava_image": ("FlavaImageModel", VIT, "image"),
    "bridgetower": ("BridgeTowerModel", dict(hidden_size=48, num_attention_heads=4, num_hidden_layers=2, text_config=BERT, vision_config=dict(hidden_size=64, num_hidden_layers=2, image_size=32, patch_size=8)), "vilt"),
    "llava": ("LlavaForConditionalGeneration", dict(vision_config=dict(_only(CLIP_VISION), model_type="clip_vision_model"), text_config=dict(LLAMA, model_type="llama"), image_token_id=95, vision_feature_layer=-1), "llava"),
    "paligemma": ("PaliGemmaForConditionalGeneration", dict(vision_config=dict(_only(CLIP_VISION, "projection_dim"), model_type="siglip_vision_model", vision_use_head=False), text_config=dict(_gqa(4, 1), model_type="gemma"), projection_dim=48, image_token_id=95), "llava"),
    "idefics3": ("Idefics3ForConditionalGeneration", dict(vision_config=dict(_only(CLIP_VISION, "projection_dim")), text_config=dict(LLAMA, model_type="llama"), image_token_id=95, scale_factor=2), "idefics3"),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", dict(text_config=dict(LLAMA, rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 2, 2])), vision_config=dict(depth=2, embed_dim=40, hidden_size=48, num_heads=5, mlp_ratio=2, patch_size=4, temporal_patch_size=2, spatial_merge_size=2), image_token_id=95, vision_start_token_id=94, video_token_id=93), "qwen2_vl"),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", dict(text_config=dict(LLAMA, rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 2, 2])), vision_config=dict(depth=2, hidden_size=40, out_hidden_size=48, num_heads=5, intermediate_size=56, patch_size=4, temporal_patch_size=2, spatial_merge_size=2, window_size=8, fullatt_block_indexes=[1]), image_token_id=95, vision_start_token_id=94, video_token_id=93), "qwen2_vl"),
    "trocr": ("TrOCRForCausalLM", dict(vocab_size=96, d_model=48, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=80, max_position_embeddings=32), "causal"),
    "pix2struct": ("Pix2StructVisionModel", dict(hidden_size=48, d_ff=80, d_kv=10, num_hidden_layers=2, num_attention_heads=4, patch_embed_hidden_size=768, seq_len=16), "patches"),
    "time_series": ("TimeSeriesTransformerModel", dict(prediction_length=4, context_length=8, d_model=24, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=40, decoder_ffn_dim=28, lags_sequence=[1, 2], num_time_features=2), "series"),
    "patchtst": ("PatchTSTForPrediction", dict(num_input_channels=3, context_length=16, patch_length=4, patch_stride=4, d_model=24, num_hidden_layers=2, num_attention_heads=4, ffn_dim=40, prediction_length=6), "past"),
    "patchtsmixer": ("PatchTSMixerForPrediction", dict(num_input_channels=3, context_length=16, patch_length=4, patch_stride=4, d_model=24, num_layers=2, prediction_length=6), "past"),
}  # fmt: skip

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
    return model.eval(), INPUTS[inputs](torch.Generator().manual_seed(seed))


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
