"""Hugging Face folders: what a configuration can express is found, and what it cannot is said."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from secateur.core.errors import StorageError
from secateur.storage import load, save
from secateur.storage.huggingface import CannotExpressError, expressing_config, save_pretrained

SIZES = {"vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40}
LLAMA = {**SIZES, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 4}
BERT = {**SIZES, "num_attention_heads": 4, "max_position_embeddings": 16}
TOKENS = torch.tensor([[1, 5, 30, 2]])


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    pytest.importorskip("transformers")
    sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()
    import transformers

    return transformers


def shrunk(kind: Any, config: Any, **changes: int) -> Any:
    """A small model that still carries the dense configuration, as after a cut."""
    small = copy.deepcopy(config)
    for name, value in changes.items():
        setattr(small, name, value)
    model = kind(small).eval()
    for name, value in vars(config).items():
        if isinstance(value, int):
            vars(model.config)[name] = value
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"intermediate_size": 12},
        {"num_attention_heads": 4, "num_key_value_heads": 2},
        {"hidden_size": 18, "intermediate_size": 7},
    ],
)
def test_llama_is_read_by_plain_transformers(
    transformers: ModuleType, tmp_path: Path, changes: dict[str, int]
) -> None:
    kind, config = transformers.LlamaForCausalLM, transformers.LlamaConfig(**LLAMA)
    config.tie_word_embeddings = True
    model = shrunk(kind, config, **changes)
    save(model, tmp_path / "out")
    read = kind.from_pretrained(tmp_path / "out").eval()
    for name, value in {**LLAMA, **changes}.items():
        assert getattr(read.config, name) == value
    expected = dict(model.state_dict())
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert read.lm_head.weight is read.model.embed_tokens.weight
    assert torch.equal(read(TOKENS).logits, load(tmp_path / "out").eval()(TOKENS).logits)


def test_bert_head_size_follows_from_the_width(transformers: ModuleType, tmp_path: Path) -> None:
    model = shrunk(
        transformers.BertModel,
        transformers.BertConfig(**BERT),
        hidden_size=18,
        num_attention_heads=3,
        intermediate_size=11,
    )
    save(model, tmp_path / "out")
    read = transformers.BertModel.from_pretrained(tmp_path / "out").eval()
    assert read.config.hidden_size == 18
    assert read.config.intermediate_size == 11
    assert torch.equal(
        read.embeddings.word_embeddings.weight, model.embeddings.word_embeddings.weight
    )


def test_bfloat16_stays(transformers: ModuleType, tmp_path: Path) -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).to(torch.bfloat16)
    save(model, tmp_path / "out")
    assert load(tmp_path / "out").model.norm.weight.dtype == torch.bfloat16  # type: ignore[union-attr]


def unequal_layers(transformers: ModuleType) -> Any:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
    mlp = model.model.layers[1].mlp
    for linear in (mlp.gate_proj, mlp.up_proj):
        linear.weight = nn.Parameter(linear.weight[:17])
    mlp.down_proj.weight = nn.Parameter(mlp.down_proj.weight[:, :17])
    return model


def test_layers_of_unequal_width_are_named_with_the_constraint(
    transformers: ModuleType, tmp_path: Path
) -> None:
    model = unequal_layers(transformers)
    with pytest.raises(
        CannotExpressError,
        match=r"layers\.1\.mlp\.\w+\.weight needs config\.intermediate_size = 17, not 40.*"
        r"expressible\(graph, model\)",
    ):
        save_pretrained(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_inexpressible_cut_is_saved_for_secateur_with_a_warning(
    transformers: ModuleType, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="saved for secateur.load only"):
        save(unequal_layers(transformers), tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_check_of_the_architecture_is_a_condition(transformers: ModuleType) -> None:
    # head_dim is its own field, but LlamaConfig refuses widths that heads do not divide
    model = shrunk(transformers.LlamaForCausalLM, transformers.LlamaConfig(**LLAMA))
    for name, tensor in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        dims = [slice(0, 23 if size == 24 and not ("q_proj" in name and dim == 0)
                      and not ("o_proj" in name and dim == 1) else size)
                for dim, size in enumerate(tensor.shape)]  # fmt: skip
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor[tuple(dims)].clone()))
    with pytest.raises(CannotExpressError, match=r"% config\.num_attention_heads"):
        expressing_config(model)


def test_buffers_that_code_computes_must_agree(transformers: ModuleType, tmp_path: Path) -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq * 2
    with pytest.raises(CannotExpressError, match=r"rotary_emb\.inv_freq.*other values"):
        save_pretrained(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_changed_weight_file_is_found(transformers: ModuleType, tmp_path: Path) -> None:
    save(transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)), tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(StorageError, match=r"config\.json is changed"):
        load(tmp_path / "out")


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "T5ForConditionalGeneration", "ViTModel"])
def test_other_architectures_need_no_table(transformers: ModuleType, name: str) -> None:
    configs = {
        "GPT2LMHeadModel": (transformers.GPT2Config(n_layer=2, n_embd=24, n_head=4), "n_embd"),
        "T5ForConditionalGeneration": (
            transformers.T5Config(num_layers=2, d_model=20, d_kv=4, num_heads=3, d_ff=30),
            "d_ff",
        ),
        "ViTModel": (
            transformers.ViTConfig(hidden_size=24, num_attention_heads=4, intermediate_size=30),
            "intermediate_size",
        ),
    }
    config, field = configs[name]
    smaller = getattr(config, field) - 4
    model = shrunk(getattr(transformers, name), config, **{field: smaller})
    assert getattr(expressing_config(model), field) == smaller
