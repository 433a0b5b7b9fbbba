"""Cuts of many transformers families, planned as their configurations can express them.

No table of architectures is behind this: what a configuration decides is inferred from the model's
own constructor. The weights are equal to the bit; outputs may differ in the last bits, because
weights read from a file lie at other addresses.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from secateur.core.plan import Plan
from secateur.criteria.score import score
from secateur.cut.apply import cut
from secateur.cut.verify import verify
from secateur.graph import trace
from secateur.select.plan import plan as make_plan
from secateur.storage.huggingface import CannotExpressError, expressible, save_pretrained

TOKENS = torch.tensor([[1, 5, 30, 2, 7, 7, 0, 4]])
IDS = {"input_ids": TOKENS}
NO_CACHE = {**IDS, "use_cache": False}
PIXELS = {"pixel_values": torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)}
SIZES = {
    "vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40,
    "num_attention_heads": 4,
}  # fmt: skip
TEXT = {**SIZES, "max_position_embeddings": 16}
IMAGE = {"image_size": 32, "patch_size": 8}
# class, configuration class, its fields, inputs, fields that the cut must have made smaller
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], set[str]]] = {
    "BertForSequenceClassification": (
        "BertConfig", TEXT, IDS, {"hidden_size", "num_attention_heads", "intermediate_size"},
    ),
    "DistilBertForSequenceClassification": (
        "DistilBertConfig",
        {"vocab_size": 31, "dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 40,
         "max_position_embeddings": 16},
        IDS, {"dim", "n_heads", "hidden_dim"},
    ),
    "GPT2LMHeadModel": (
        "GPT2Config",
        {"vocab_size": 31, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 16,
         "bos_token_id": 1, "eos_token_id": 2},
        NO_CACHE, {"n_embd", "n_head"},
    ),
    "ViTForImageClassification": (
        "ViTConfig", {**SIZES, **IMAGE}, PIXELS, {"hidden_size", "num_attention_heads"},
    ),
    "T5ForConditionalGeneration": (
        "T5Config",
        {"vocab_size": 31, "num_layers": 2, "d_model": 24, "d_kv": 6, "num_heads": 4, "d_ff": 40,
         "decoder_start_token_id": 0},
        {**NO_CACHE, "decoder_input_ids": TOKENS}, {"d_kv", "d_ff", "num_heads"},
    ),
    "Qwen2ForCausalLM": (
        "Qwen2Config", {**SIZES, "num_key_value_heads": 4}, NO_CACHE,
        {"hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"},
    ),
    "Phi3ForCausalLM": (
        "Phi3Config", {**SIZES, "num_key_value_heads": 4, "pad_token_id": 0}, NO_CACHE,
        {"hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"},
    ),
    "ConvNextForImageClassification": (
        "ConvNextConfig", {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}, PIXELS,
        {"hidden_sizes"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    pytest.importorskip("transformers")
    sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()
    import transformers

    return transformers


def built(transformers: ModuleType, name: str) -> tuple[Any, dict[str, Any]]:
    config_name, fields, inputs, _ = CASES[name]
    config = getattr(transformers, config_name)(**fields)
    return getattr(transformers, name)(config).eval(), inputs


def cut_to(model: Any, inputs: Any, graph: Any) -> tuple[Any, Plan]:
    scores = score(graph, model, criterion="random")
    plan = make_plan(graph, scores, budget="macs=60%", include_structural=True)
    return cut(model, plan), plan


@pytest.mark.parametrize("name", CASES)
def test_cut_is_read_by_plain_transformers(
    transformers: ModuleType, tmp_path: Path, name: str
) -> None:
    model, inputs = built(transformers, name)
    small, plan = cut_to(model, inputs, expressible(trace(model, inputs), model))
    proof = verify(model, small, plan, inputs)
    assert proof.groups_checked == len(plan.keep) > 0
    save_pretrained(small, tmp_path / "out", plan=plan)
    read = type(model).from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(read(**inputs)[0], small(**inputs)[0], rtol=0, atol=1e-5)
    for field in CASES[name][3]:
        assert getattr(read.config, field) < getattr(model.config, field)


def test_a_scale_that_would_be_computed_anew_is_refused(
    transformers: ModuleType, tmp_path: Path
) -> None:
    # shapes can be expressed with smaller heads, but 1 / sqrt(head size) would change with them
    model, inputs = built(transformers, "ViTForImageClassification")
    graph = expressible(trace(model, inputs), model)
    config = type(model.config)(**{**SIZES, **IMAGE, "hidden_size": 16})
    small = type(model)(config).eval()
    small.vit.layers[0].attention.scaling = model.vit.layers[0].attention.scaling
    with pytest.raises(CannotExpressError, match=r"layers\.0\.attention\.scaling"):
        save_pretrained(small, tmp_path / "out")
    scales = [relation for relation in graph.relations if "a scale at" in relation.where]
    assert scales
