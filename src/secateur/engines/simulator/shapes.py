"""Published shapes by name, and the shape that a Hugging Face config.json says.

The numbers are those of each model's own config; the parameters that follow from them are checked
in `tests/engines/simulator/test_shapes.py` against the published counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.engines.simulator.transformer import Experts, Latent, Shape

SHAPES = {
    shape.name: shape
    for shape in (
        Shape("smollm2-135m", 30, 576, 9, 3, 64, 1536, 49152, tied=True),
        Shape("llama-3-8b", 32, 4096, 32, 8, 128, 14336, 128256),
        Shape("llama-3-70b", 80, 8192, 64, 8, 128, 28672, 128256),
        Shape("llama-3-405b", 126, 16384, 128, 8, 128, 53248, 128256),
        Shape(
            "kimi-k2",
            61,
            7168,
            64,
            64,
            128,
            18432,
            163840,
            latent=Latent(query_rank=1536, key_value_rank=512, plain=128, rotary=64, value=128),
            experts=Experts(routed=384, active=8, width=2048, shared=1, dense_layers=1),
        ),
    )
}


def shape_named(text: str) -> Shape:
    """A published shape, or that of a config.json (or the folder it lies in).

    Raises: ValueError that lists the names.
    """
    if text in SHAPES:
        return SHAPES[text]
    path = Path(text)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"shape {text!r}: neither a config.json nor one of {', '.join(sorted(SHAPES))}"
        )
    return shape_from_config(json.loads(path.read_text(encoding="utf-8")), name=path.parent.name)


def shape_from_config(config: Mapping[str, Any], *, name: str = "model") -> Shape:
    """The shape of a decoder with gated MLPs, in the words of Hugging Face.

    >>> shape_from_config({"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
    ...                    "intermediate_size": 96, "vocab_size": 100}).head
    16

    Raises: ValueError that names what is missing.
    """
    needed = "num_hidden_layers hidden_size num_attention_heads intermediate_size vocab_size"
    if missing := [key for key in needed.split() if not isinstance(config.get(key), int)]:
        raise ValueError(f"the config of {name} has no {', '.join(missing)}: not a decoder's")
    heads, width = config["num_attention_heads"], config["hidden_size"]
    return Shape(
        name=name,
        layers=config["num_hidden_layers"],
        width=width,
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        head=config.get("head_dim") or width // heads,
        inner=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        latent=_latent(config),
        experts=_experts(config),
    )


def _latent(config: Mapping[str, Any]) -> Latent | None:
    if config.get("kv_lora_rank") is None or config.get("q_lora_rank") is None:
        return None
    return Latent(
        query_rank=config["q_lora_rank"],
        key_value_rank=config["kv_lora_rank"],
        plain=config["qk_nope_head_dim"],
        rotary=config["qk_rope_head_dim"],
        value=config["v_head_dim"],
    )


def _experts(config: Mapping[str, Any]) -> Experts | None:
    names = ("n_routed_experts", "num_local_experts", "num_experts")
    routed = next((config[name] for name in names if config.get(name)), None)
    if routed is None:
        return None
    return Experts(
        routed=routed,
        active=config["num_experts_per_tok"],
        width=config.get("moe_intermediate_size") or config["intermediate_size"],
        shared=config.get("n_shared_experts") or 0,
        dense_layers=config.get("first_k_dense_replace") or 0,
    )
