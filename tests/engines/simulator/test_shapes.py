"""Published shapes have their published numbers of parameters; configs become shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from secateur.engines.simulator.shapes import SHAPES, shape_from_config, shape_named

PARAMETERS = {
    "smollm2-135m": 134_515_008,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3-405b": 405_853_388_800,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert SHAPES[name].workload().elements == PARAMETERS[name]


def test_a_trillion_parameters_of_which_a_token_sees_32_billion() -> None:
    work = SHAPES["kimi-k2"].workload(length=1)
    assert work.elements == pytest.approx(1.03e12, rel=0.01)
    assert work.macs == pytest.approx(32.5e9, rel=0.03)


def test_a_config_file_says_a_shape(tmp_path: Path) -> None:
    config = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 100,
        "tie_word_embeddings": True,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    work = shape_named(str(tmp_path)).workload()
    attention = 2 * 64 * 64 + 2 * 32 * 64
    dense, experts = 3 * 64 * 96, 8 * 3 * 64 * 16 + 8 * 64
    assert work.elements == 2 * (attention + 2 * 64) + dense + experts + 100 * 64 + 64


def test_what_is_no_decoder_is_said() -> None:
    with pytest.raises(ValueError, match="vocab_size"):
        shape_from_config({"hidden_size": 64})
    with pytest.raises(ValueError, match="llama-3-70b"):
        shape_named("llama-9")


@pytest.mark.slow
def test_a_shape_is_what_a_trace_of_the_same_model_says() -> None:
    """Parameters, multiply-accumulates and activations of a small Llama, counted both ways."""
    hf = pytest.importorskip("transformers")
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()  # transformers imports torchvision where it is installed
    from secateur.engines.simulator.graph_workload import workload_of
    from secateur.graph import trace

    config = hf.LlamaConfig(
        num_hidden_layers=2,
        hidden_size=48,
        intermediate_size=80,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=300,
        use_cache=False,
        tie_word_embeddings=True,
    )
    model = hf.LlamaForCausalLM(config)
    length = 64
    ids = torch.randint(0, 300, (3, length))
    traced = workload_of(trace(model.eval(), {"input_ids": ids}))
    said = shape_from_config(config.to_dict()).workload(sequences=3, length=length)
    assert said.elements == traced.elements
    assert said.macs == pytest.approx(traced.macs, rel=1e-3)
    layer, ends = said.units[0][0], said.units[-1][0]
    kept = [unit.kept_elements * 4 + unit.kept_bytes for unit, _ in traced.units]
    assert layer.kept_elements * 4 + layer.kept_bytes == pytest.approx(kept[0], rel=0.02)
    # the loss, which the trace has not, keeps the probabilities
    probabilities = 3 * length * 300 * 4
    assert ends.kept_elements * 4 + ends.kept_bytes - probabilities == pytest.approx(
        kept[-1], rel=0.1
    )
