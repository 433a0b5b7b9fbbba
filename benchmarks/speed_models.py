"""The models that speed is measured on, and what Torch-Pruning has to be told about each.

Names say where a model comes from: ``torchvision:resnet50``, ``timm:...``, ``shape:...`` for a
transformers architecture of a stated size with random weights. Torch-Pruning needs attention heads
declared by hand and sizes kept in attributes rewritten by hand after the cut, as its examples do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

TORCHVISION = (
    "alexnet convnext_large convnext_tiny densenet121 densenet201 efficientnet_b0 "
    "efficientnet_v2_l efficientnet_v2_s googlenet inception_v3 mnasnet1_0 mobilenet_v2 "
    "mobilenet_v3_large regnet_x_8gf regnet_y_400mf resnet18 resnet50 resnet152 "
    "resnext50_32x4d squeezenet1_1 vgg11_bn vgg16 vit_b_16 vit_l_16 wide_resnet50_2"
).split()
TIMM = (
    "darknet53 deit_small_patch16_224 dla34 dpn68 ecaresnet50t efficientnet_lite0 "
    "ese_vovnet19b_dw fbnetc_100 gernet_s ghostnet_100 hrnet_w18_small inception_v4 lcnet_100 "
    "legacy_xception mixnet_s mobilenetv2_100 mobilenetv3_large_100 regnetx_040 repvgg_a0 "
    "resnest14d resnet50d seresnet50 selecsls42b skresnet50 tf_efficientnet_b0 tinynet_a "
    "vgg11 vit_base_patch16_224 vit_small_patch16_224 wide_resnet50_2 xception41"
).split()
SHAPES = ("bert-base", "vit-base", "llama-1b", "llama-1b-gqa", "llama-7b-meta")
NAMES = (
    *(f"torchvision:{name}" for name in TORCHVISION),
    *(f"timm:{name}" for name in TIMM),
    *(f"shape:{name}" for name in SHAPES),
)
CAPTURED = (
    "torchvision:alexnet",
    "torchvision:densenet121",
    "torchvision:efficientnet_b0",
    "torchvision:mobilenet_v2",
    "torchvision:resnet18",
    "torchvision:squeezenet1_1",
    "torchvision:vgg11_bn",
    "torchvision:convnext_tiny",
    "torchvision:vit_b_16",
    "timm:lcnet_100",
)
"""Models on which torch-kirigami is measured as well."""
META = "shape:llama-7b-meta"
"""On the meta device: no weights, so it is planned to half its MACs with random scores."""


def build(name: str) -> tuple[nn.Module, Any]:
    """A model with random weights in evaluation mode, and its example inputs."""
    torch.manual_seed(0)
    source, _, kind = name.partition(":")
    if source == "shape":
        return _shape(kind)
    if source == "timm":
        import timm

        model: nn.Module = timm.create_model(kind, pretrained=False).eval()
        return model, torch.randn(1, *model.pretrained_cfg["input_size"])  # type: ignore[misc]
    import torchvision

    side = 299 if kind == "inception_v3" else 224
    return torchvision.models.get_model(kind, weights=None).eval(), torch.randn(1, 3, side, side)


def _shape(kind: str) -> tuple[nn.Module, Any]:
    import transformers as hf

    if kind == "vit-base":
        return hf.ViTForImageClassification(hf.ViTConfig()).eval(), torch.randn(1, 3, 224, 224)
    tokens = torch.ones(1, 128, dtype=torch.long)
    if kind == "bert-base":
        return hf.BertModel(hf.BertConfig()).eval(), {"input_ids": tokens}
    inputs = {"input_ids": tokens, "use_cache": False}
    if kind == "llama-7b-meta":
        with torch.device("meta"):
            return hf.LlamaForCausalLM(hf.LlamaConfig()).eval(), inputs
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8 if kind.endswith("gqa") else 32}
    layers = 22 if kind.endswith("gqa") else 16
    config = hf.LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=layers, **heads
    )
    return hf.LlamaForCausalLM(config).eval(), inputs


def declared_heads(model: nn.Module) -> dict[nn.Module, int]:
    """What Torch-Pruning wants as `num_heads`: projections and how many heads they hold."""
    heads: dict[nn.Module, int] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            heads[module] = module.num_heads
            continue
        own = vars(module)
        children = own["_modules"]
        if isinstance(children.get("qkv"), nn.Linear) and "num_heads" in own:
            heads[children["qkv"]] = own["num_heads"]
        if "num_attention_heads" in own:
            for name in ("query", "key", "value", "q_proj", "k_proj", "v_proj"):
                if isinstance(children.get(name), nn.Linear):
                    heads[children[name]] = own["num_attention_heads"]
        config = own.get("config")
        if "q_proj" in children and "layer_idx" in own and config is not None:
            heads[children["q_proj"]] = config.num_attention_heads
            for name in ("k_proj", "v_proj"):
                heads[children[name]] = config.num_key_value_heads
    return heads


def heads_rewritten_(model: nn.Module) -> None:
    """Give attention modules the head width that Torch-Pruning left them with."""
    for module in model.modules():
        own = vars(module)
        children = own["_modules"]
        if isinstance(children.get("qkv"), nn.Linear) and "num_heads" in own:
            own["head_dim"] = children["qkv"].out_features // (3 * own["num_heads"])
            own["attn_dim"] = own["num_heads"] * own["head_dim"]
        projection = children.get("query", children.get("q_proj"))
        if "num_attention_heads" not in own or not isinstance(projection, nn.Linear):
            continue  # a Llama's heads go whole, and their width stays
        width = projection.out_features // own["num_attention_heads"]
        for attribute in {"attention_head_size", "head_dim"} & own.keys():
            own[attribute] = width
        if "all_head_size" in own:
            own["all_head_size"] = projection.out_features


def ignored_layers(model: nn.Module) -> list[nn.Module]:
    """The classifier, which keeps its classes."""
    last: Callable[[str], bool] = lambda name: name in ("lm_head", "classifier", "pooler")  # noqa: E731
    return [
        module
        for name, module in model.named_modules()
        if getattr(module, "out_features", getattr(module, "out_channels", 0)) in (1000, 32000)
        or (isinstance(module, nn.Linear) and last(name))
        or name == "pooler"
    ]
