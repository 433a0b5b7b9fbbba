"""Transformers models without some layers: the configuration follows, plain transformers loads."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import secateur as sc
from secateur.criteria.blocks import score_blocks
from secateur.cut.layer_counts import configuration_changes
from secateur.storage.huggingface import expressible

TOKENS = torch.tensor([[1, 5, 30, 2, 7, 9]])
SIZES = {"vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 6, "intermediate_size": 40}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 4}
CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    # six heads and six layers: which integer counts the layers is not told by its value
    "LlamaForCausalLM": ("LlamaConfig", {**SIZES, **HEADS}, ("input_ids",)),
    # a list says for each layer which attention it has
    "Gemma3ForCausalLM": (
        "Gemma3TextConfig", {**SIZES, **HEADS, "sliding_window": 4}, ("input_ids",),
    ),
    # two lists, each with a field of its own
    "T5ForConditionalGeneration": (
        "T5Config",
        {"vocab_size": 31, "d_model": 24, "d_kv": 4, "d_ff": 40, "num_layers": 6, "num_heads": 6},
        ("input_ids", "decoder_input_ids"),
    ),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    pytest.importorskip("transformers")
    sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()
    import transformers

    return transformers


def built(transformers: ModuleType, kind: str) -> tuple[Any, dict[str, torch.Tensor]]:
    config, settings, inputs = CASES[kind]
    model = getattr(transformers, kind)(getattr(transformers, config)(**settings)).eval()
    return model, dict.fromkeys(inputs, TOKENS)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("budget", [None, "macs=60%"])
def test_plain_from_pretrained_loads_it(
    transformers: ModuleType, kind: str, budget: str | None, tmp_path: Path
) -> None:
    model, inputs = built(transformers, kind)
    graph = sc.trace(model, inputs)
    graph = graph if budget is None else expressible(graph, model)
    scores = dict(score_blocks(graph, model, criterion="random", seed=3))
    scores |= {} if budget is None else sc.score(graph, model)
    plan = sc.plan(graph, scores, blocks=0.3, budget=budget)
    small = sc.cut(model, plan)
    proof = sc.verify(model, small, plan, inputs, graph=graph, dtype=torch.float64)
    assert proof.max_rel_error <= 1e-9 and proof.blocks_removed == len(plan.removed)
    sc.save(small, tmp_path / "out", plan=plan)
    again = type(model).from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert torch.equal(again(**inputs)[0], small(**inputs)[0])
    layers = [name for name, _ in again.named_modules() if name.rpartition(".")[2].isdecimal()]
    assert len(layers) < sum(
        name.rpartition(".")[2].isdecimal() for name, _ in model.named_modules()
    )


def test_entries_of_removed_layers_leave_their_lists(transformers: ModuleType) -> None:
    model, inputs = built(transformers, "Gemma3ForCausalLM")
    before = list(model.config.layer_types)
    assert before[5] == "full_attention" != before[4]
    graph = sc.trace(model, inputs)
    scores = {f"model.layers.{k}": torch.tensor([float(k)]) for k in (1, 3)}
    plan = sc.plan(graph, scores, blocks=2)
    small: Any = sc.cut(model, plan)
    assert small.config.layer_types == [before[k] for k in (0, 2, 4, 5)]
    assert small.config.num_hidden_layers == 4
    assert [layer.self_attn.layer_idx for layer in small.model.layers] == [0, 1, 2, 3]
    assert model.config.num_hidden_layers == 6 and model.config.layer_types == before


def test_the_field_that_counts_is_found_by_building(transformers: ModuleType) -> None:
    model, inputs = built(transformers, "T5ForConditionalGeneration")
    graph = sc.trace(model, inputs)
    scores = {"decoder.block.2": torch.tensor([0.0])}
    plan = sc.plan(graph, scores, blocks=1)
    changes = configuration_changes(model, plan)
    assert {(change.owner, change.name, change.value) for change in changes} >= {
        ("", "config.num_decoder_layers", 5)
    }
    assert not any(c.owner == "" and c.name == "config.num_layers" for c in changes)
