"""A pruned folder with grouped queries: plain `from_pretrained`, and shared by two devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from elsewhere import run_elsewhere

import secateur as sc

pytest.importorskip("transformers", reason="pip install transformers")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("devices", [1, 2])
def test_a_llama_that_a_server_can_share(devices: int, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="pip install accelerate")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=8,
        max_position_embeddings=128,
    )
    model = LlamaForCausalLM(config).eval()
    inputs = {"input_ids": torch.randint(0, 512, (1, 19))}
    legal = {"huggingface": True, "tensor_parallel": 2, "multiple_of": 8}
    result = sc.prune(model, inputs, budget="macs=30%", **legal)  # type: ignore[arg-type]
    pruned = result.model.config
    assert pruned.num_key_value_heads % 2 == 0 and pruned.num_key_value_heads < 8
    assert pruned.num_attention_heads == 2 * pruned.num_key_value_heads
    assert pruned.hidden_size % 8 == pruned.intermediate_size % 8 == 0
    assert 0.28 * result.before.macs <= result.after.macs <= 0.3 * result.before.macs
    sc.save(result.model, tmp_path / "out", plan=result.plan)
    kind = "plain" if devices == 1 else "sharded"
    elsewhere = run_elsewhere(
        kind,
        tmp_path / "out",
        "LlamaForCausalLM",
        inputs=inputs,
        work=tmp_path,
        devices=devices,
    )
    with torch.no_grad():
        expected = result.model(**inputs).logits
    # two devices add their halves in another order
    torch.testing.assert_close(elsewhere, expected, rtol=0, atol=0 if devices == 1 else 1e-5)
