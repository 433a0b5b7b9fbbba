# ruff: noqa: E501, C408 - tables with one line a model
"""Models written by nobody here: code from packages that are neither torchvision, timm nor
transformers, at small sizes and with random weights.

Each line names the package to install, builds one model of it, and gives its inputs. Packages are
installed without their dependencies; a missing one is an error that says what to type.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision_ops import define_torchvision_ops

define_torchvision_ops()

Model = tuple[str, Callable[[], nn.Module], Callable[[], Any]]
"""Package on the registry, what builds the model, what makes its inputs."""


def of(module: str, name: str, *args: Any, **options: Any) -> Callable[[], nn.Module]:
    """A class or function of a module, called when the model is built."""
    return lambda: getattr(importlib.import_module(module), name)(*args, **options)


def image(size: int = 32, channels: int = 3) -> Callable[[], Tensor]:
    return lambda: torch.randn(1, channels, size, size)


def tokens(steps: int = 8, top: int = 50) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, top, (1, steps))


def series(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(*shape)


VIT: dict[str, Any] = dict(
    image_size=32, patch_size=8, num_classes=7, dim=48, depth=2, heads=6, mlp_dim=80, dim_head=10
)
SMP: dict[str, Any] = dict(encoder_weights=None, classes=5)


def _wrapper(kind: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        x = importlib.import_module("x_transformers")
        return x.TransformerWrapper(
            num_tokens=50, max_seq_len=16,
            attn_layers=getattr(x, kind)(dim=48, depth=2, heads=6, attn_dim_head=10, **options),
        )  # fmt: skip

    return make


def _sparse(count: int) -> list[Any]:
    inputs = importlib.import_module("deepctr_torch.inputs")
    return [
        *(inputs.SparseFeat(f"c{k}", 11 + k, embedding_dim=12) for k in range(count)),
        inputs.DenseFeat("d0", 1),
    ]


def _deepctr(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        columns = _sparse(3)
        models = importlib.import_module("deepctr_torch.models")
        return getattr(models, name)(columns, columns, dnn_hidden_units=(36, 20), **options)

    return make


def _categories() -> Tensor:
    return torch.cat([torch.randint(0, 11, (6, 3)).float(), torch.randn(6, 1)], 1)


def _tabnet() -> nn.Module:
    network = importlib.import_module("pytorch_tabnet.tab_network")
    return network.TabNet(
        10, 4, n_d=12, n_a=12, n_steps=2, virtual_batch_size=4,
        group_attention_matrix=torch.eye(10), cat_idxs=[], cat_dims=[], cat_emb_dim=[],
    )  # fmt: skip


def _open_clip() -> nn.Module:
    clip = importlib.import_module("open_clip.model")
    vision = clip.CLIPVisionCfg(layers=2, width=48, head_width=12, patch_size=8, image_size=32)
    text = clip.CLIPTextCfg(context_length=8, vocab_size=50, width=36, heads=6, layers=2)
    return clip.CLIP(20, vision, text)


def _demucs() -> nn.Module:
    demucs = importlib.import_module("demucs.demucs")
    return demucs.Demucs(["a", "b"], channels=8, depth=3, lstm_layers=1, resample=False, growth=1.5)


def _sam() -> nn.Module:
    sam = importlib.import_module("segment_anything.modeling")
    return sam.ImageEncoderViT(
        img_size=64, patch_size=16, embed_dim=48, depth=2, num_heads=6, out_chans=20,
        use_rel_pos=True, window_size=2, global_attn_indexes=(1,),
    )  # fmt: skip


def _efficientnet() -> nn.Module:
    efficientnet = importlib.import_module("efficientnet_pytorch")
    return efficientnet.EfficientNet.from_name("efficientnet-b0", num_classes=7)


def _mambapy() -> nn.Module:
    mamba = importlib.import_module("mambapy.mamba")
    return mamba.Mamba(mamba.MambaConfig(d_model=36, n_layers=2, d_state=6, dt_rank=5))


def _ncps(name: str) -> Callable[[], nn.Module]:
    return of("ncps.torch", name, 10, 24, proj_size=5)


MODELS: dict[str, Model] = {
    "smp_unet": ("segmentation-models-pytorch", of("segmentation_models_pytorch", "Unet", "resnet18", **SMP), image(64)),
    "smp_unetplusplus": ("segmentation-models-pytorch", of("segmentation_models_pytorch", "UnetPlusPlus", "mobilenet_v2", **SMP), image(64)),
    "smp_fpn": ("segmentation-models-pytorch", of("segmentation_models_pytorch", "FPN", "efficientnet-b0", **SMP), image(64)),
    "smp_deeplabv3plus": ("segmentation-models-pytorch", of("segmentation_models_pytorch", "DeepLabV3Plus", "resnet18", **SMP), image(64)),
    "smp_pspnet": ("segmentation-models-pytorch", of("segmentation_models_pytorch", "PSPNet", "resnet18", **SMP), image(64)),
    "smp_manet": ("segmentation-models-pytorch", of("segmentation_models_pytorch", "MAnet", "resnet18", **SMP), image(64)),
    "smp_linknet": ("segmentation-models-pytorch", of("segmentation_models_pytorch", "Linknet", "densenet121", **SMP), image(64)),
    "smp_segformer": ("segmentation-models-pytorch", of("segmentation_models_pytorch", "Segformer", "mit_b0", **SMP), image(64)),
    "x_transformers_decoder": ("x-transformers", _wrapper("Decoder"), tokens()),
    "x_transformers_rotary_glu": ("x-transformers", _wrapper("Decoder", rotary_pos_emb=True, ff_glu=True, use_rmsnorm=True), tokens()),
    "x_transformers_gqa": ("x-transformers", _wrapper("Decoder", attn_kv_heads=2, attn_qk_norm=True), tokens()),
    "x_transformers_encoder": ("x-transformers", _wrapper("Encoder", alibi_pos_bias=True), tokens()),
    "vit": ("vit-pytorch", of("vit_pytorch", "ViT", **VIT), image()),
    "simple_vit": ("vit-pytorch", of("vit_pytorch.simple_vit", "SimpleViT", **VIT), image()),
    "cait": ("vit-pytorch", of("vit_pytorch.cait", "CaiT", **VIT, cls_depth=1), image()),
    "deep_vit": ("vit-pytorch", of("vit_pytorch.deepvit", "DeepViT", **VIT), image()),
    "cct": ("vit-pytorch", of("vit_pytorch.cct", "CCT", img_size=32, embedding_dim=48, num_layers=2, num_heads=4, mlp_ratio=2.0, num_classes=7), image()),
    "levit": ("vit-pytorch", of("vit_pytorch.levit", "LeViT", image_size=64, num_classes=7, dim=(24, 36, 48), depth=1, heads=(2, 3, 4), mlp_mult=2, dim_key=8, dim_value=12), image(64)),
    "cross_vit": ("vit-pytorch", of("vit_pytorch.cross_vit", "CrossViT", image_size=32, num_classes=7, depth=1, sm_dim=24, lg_dim=36, sm_patch_size=4, lg_patch_size=8, sm_enc_depth=1, lg_enc_depth=1, sm_enc_heads=3, lg_enc_heads=4, sm_enc_mlp_dim=40, lg_enc_mlp_dim=56, sm_enc_dim_head=8, lg_enc_dim_head=8), image()),
    "nest": ("vit-pytorch", of("vit_pytorch.nest", "NesT", image_size=32, patch_size=4, dim=24, heads=3, num_hierarchies=2, block_repeats=(1, 1), num_classes=7), image()),
    "efficientnet": ("efficientnet-pytorch", _efficientnet, image(64)),
    "tabnet": ("pytorch-tabnet", _tabnet, series(8, 10)),
    "open_clip": ("open-clip-torch", _open_clip, lambda: (image()(), tokens()())),
    "demucs": ("demucs", _demucs, series(1, 2, 700)),
    "resnest": ("resnest", of("resnest.torch", "resnest50"), image(64)),
    "pretrained_nasnet": ("pretrainedmodels", of("pretrainedmodels", "nasnetamobile", num_classes=7, pretrained=None), image(224)),
    "pretrained_dpn": ("pretrainedmodels", of("pretrainedmodels", "dpn68", num_classes=7, pretrained=None), image(224)),
    "facenet": ("facenet-pytorch", of("facenet_pytorch", "InceptionResnetV1", pretrained=None, classify=True, num_classes=7), image(160)),
    "performer": ("performer-pytorch", of("performer_pytorch", "PerformerLM", num_tokens=50, max_seq_len=16, dim=48, depth=2, heads=4, dim_head=12, causal=False), tokens(16)),
    "linformer": ("linformer", of("linformer", "LinformerLM", num_tokens=50, dim=48, seq_len=8, depth=2, heads=4, k=6), tokens()),
    "g_mlp": ("g-mlp-pytorch", of("g_mlp_pytorch", "gMLPVision", image_size=32, patch_size=8, num_classes=7, dim=48, depth=2), image()),
    "mlp_mixer": ("mlp-mixer-pytorch", of("mlp_mixer_pytorch", "MLPMixer", image_size=32, channels=3, patch_size=8, dim=48, depth=2, num_classes=7), image()),
    "res_mlp": ("res-mlp-pytorch", of("res_mlp_pytorch", "ResMLP", image_size=32, patch_size=8, dim=48, depth=2, num_classes=7), image()),
    "perceiver": ("perceiver-pytorch", of("perceiver_pytorch", "Perceiver", num_freq_bands=4, depth=2, max_freq=8.0, num_latents=6, latent_dim=40, cross_dim_head=10, latent_heads=4, latent_dim_head=12, num_classes=7), lambda: torch.randn(1, 8, 8, 3)),
    "conformer": ("conformer", of("conformer", "Conformer", dim=48, depth=2, dim_head=10, heads=4, ff_mult=2, conv_expansion_factor=2, conv_kernel_size=7), series(1, 12, 48)),
    "nystromformer": ("nystrom-attention", of("nystrom_attention", "Nystromformer", dim=48, dim_head=10, heads=4, depth=2, num_landmarks=4), series(1, 8, 48)),
    "axial_attention": ("axial-attention", of("axial_attention", "AxialImageTransformer", dim=24, depth=2, reversible=False), image(8, 24)),
    "linear_attention": ("linear-attention-transformer", of("linear_attention_transformer", "LinearAttentionTransformerLM", num_tokens=50, dim=48, heads=4, depth=2, max_seq_len=16), tokens(16)),
    "local_attention": ("local-attention", of("local_attention", "LocalTransformer", num_tokens=50, dim=48, depth=2, max_seq_len=16, causal=True, local_attn_window_size=4, heads=4, dim_head=10), tokens(16)),
    "tab_transformer": ("tab-transformer-pytorch", of("tab_transformer_pytorch", "TabTransformer", categories=(10, 5, 6), num_continuous=4, dim=24, dim_out=3, depth=2, heads=4, dim_head=6, mlp_act=nn.ReLU()), lambda: (torch.randint(0, 5, (2, 3)), torch.randn(2, 4))),
    "ft_transformer": ("tab-transformer-pytorch", of("tab_transformer_pytorch", "FTTransformer", categories=(10, 5, 6), num_continuous=4, dim=24, dim_out=3, depth=2, heads=4, dim_head=6), lambda: (torch.randint(0, 5, (2, 3)), torch.randn(2, 4))),
    "lambda_layer": ("lambda-networks", of("lambda_networks", "LambdaLayer", dim=24, dim_out=20, r=5, dim_k=8, heads=4, dim_u=1), image(8, 24)),
    "halo": ("halonet-pytorch", of("halonet_pytorch", "HaloAttention", dim=24, block_size=4, halo_size=2, dim_head=8, heads=3), image(8, 24)),
    "bottleneck_transformer": ("bottleneck-transformer-pytorch", of("bottleneck_transformer_pytorch", "BottleStack", dim=24, fmap_size=8, dim_out=40, proj_factor=4, num_layers=2, heads=3, dim_head=8), image(8, 24)),
    "rtdl_mlp": ("rtdl-revisiting-models", of("rtdl_revisiting_models", "MLP", d_in=10, d_out=3, n_blocks=2, d_block=36, dropout=0.1), series(4, 10)),
    "rtdl_resnet": ("rtdl-revisiting-models", of("rtdl_revisiting_models", "ResNet", d_in=10, d_out=3, n_blocks=2, d_block=36, d_hidden=56, d_hidden_multiplier=None, dropout1=0.1, dropout2=0.0), series(4, 10)),
    "pytorchcv_condensenet": ("pytorchcv", of("pytorchcv.model_provider", "get_model", "condensenet74_c4_g4", pretrained=False), image(224)),
    "pytorchcv_shufflenet": ("pytorchcv", of("pytorchcv.model_provider", "get_model", "shufflenet_g3_wd4", pretrained=False), image(224)),
    "pytorchcv_pyramidnet": ("pytorchcv", of("pytorchcv.model_provider", "get_model", "pyramidnet110_a48_cifar10", pretrained=False), image(32)),
    "pytorchcv_lwopenpose": ("pytorchcv", of("pytorchcv.model_provider", "get_model", "lwopenpose2d_mobilenet_cmupan_coco", pretrained=False), image(64)),
    "deepctr_dcn": ("deepctr-torch", _deepctr("DCN"), _categories),
    "deepctr_xdeepfm": ("deepctr-torch", _deepctr("xDeepFM", cin_layer_size=(20, 12)), _categories),
    "deepctr_autoint": ("deepctr-torch", _deepctr("AutoInt", att_head_num=3), _categories),
    "mambapy": ("mambapy", _mambapy, series(1, 8, 36)),
    "liquid_cfc": ("ncps", _ncps("CfC"), series(1, 6, 10)),
    "liquid_ltc": ("ncps", of("ncps.torch", "LTC", 10, 24), series(1, 6, 10)),
    "segment_anything": ("segment-anything", _sam, image(64)),
    "monai_unet": ("monai", of("monai.networks.nets", "UNet", spatial_dims=3, in_channels=1, out_channels=2, channels=(12, 20, 36), strides=(2, 2), num_res_units=1), series(1, 1, 16, 16, 16)),
    "monai_unetr": ("monai", of("monai.networks.nets", "UNETR", in_channels=1, out_channels=2, img_size=(32, 32), feature_size=8, hidden_size=48, mlp_dim=80, num_heads=6, spatial_dims=2), image(32, 1)),
    "monai_swin_unetr": ("monai", of("monai.networks.nets", "SwinUNETR", in_channels=1, out_channels=2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(2, 3, 4, 6), window_size=4, spatial_dims=2), image(64, 1)),
    "monai_segresnet": ("monai", of("monai.networks.nets", "SegResNet", spatial_dims=2, init_filters=8, in_channels=1, out_channels=2), image(32, 1)),
    "monai_attention_unet": ("monai", of("monai.networks.nets", "AttentionUnet", spatial_dims=2, in_channels=1, out_channels=2, channels=(12, 20, 36), strides=(2, 2)), image(32, 1)),
    "monai_dynunet": ("monai", of("monai.networks.nets", "DynUNet", spatial_dims=2, in_channels=1, out_channels=2, kernel_size=(3, 3, 3), strides=(1, 2, 2), upsample_kernel_size=(2, 2), filters=(12, 20, 36)), image(32, 1)),
}  # fmt: skip


def names() -> list[str]:
    return list(MODELS)


def build(name: str, seed: int) -> tuple[nn.Module, Any]:
    package, make, inputs = MODELS[name]
    torch.manual_seed(seed)
    try:
        model = make()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name} needs {error.name}: pip install --no-deps {package}, or make zoo"
        ) from error
    return model.eval(), inputs()
