"""MiniLM and SmolLM2 with their trained weights: the whole road, ended by plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import run_elsewhere
from torch import Tensor, nn

from secateur.core.plan import Plan
from secateur.criteria.score import score
from secateur.cut.apply import cut
from secateur.cut.verify import verify
from secateur.graph import trace
from secateur.select.plan import plan as make_plan
from secateur.storage import load, save
from secateur.storage.huggingface import expressible
from secateur.zoo.loaded import LoadedModel
from secateur.zoo.models import load_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*GGUF.*:UserWarning"),
]
BUDGET = "macs=70%"
WINDOW = 512


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> LoadedModel:
    pytest.importorskip("transformers")
    return load_model(f"hf:{minilm_folder}")


@pytest.fixture(scope="module")
def smollm2(smollm2_spec: str) -> LoadedModel:
    pytest.importorskip("gguf")
    return load_model(smollm2_spec)


def tokenizer_of(place: Path | str) -> Any:
    from transformers import AutoTokenizer

    folder, _, gguf = str(place).removeprefix("hf:").partition("#")
    return AutoTokenizer.from_pretrained(folder, **({"gguf_file": gguf} if gguf else {}))


def cut_and_proved(
    loaded: LoadedModel, *, data: list[Any] | None = None, **options: Any
) -> tuple[Any, Plan]:
    model, inputs = loaded.model, loaded.example_inputs
    graph = trace(model, inputs)
    assert not graph.unknown_ops
    graph = expressible(graph, model)
    scores = score(graph, model, criterion="taylor" if data else "l2", data=data)
    plan = make_plan(graph, scores, budget=BUDGET, **options)
    assert 0.67 < plan.after.macs / plan.before.macs <= 0.7
    small = cut(model, plan)
    proof = verify(model, small, plan, inputs)
    assert proof.max_rel_error <= 1e-4
    assert proof.groups_checked + proof.groups_shape_only == len(plan.keep)
    assert sum(p.numel() for p in small.parameters()) == plan.after.params
    return small, plan


def first_output(model: nn.Module, inputs: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(**inputs)[0]
    return out


def test_minilm(minilm: LoadedModel, minilm_folder: Path, tmp_path: Path) -> None:
    small, plan = cut_and_proved(minilm)
    tokenizer = tokenizer_of(minilm_folder)
    save(small, tmp_path / "out", plan=plan, tokenizer=tokenizer)
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."]
    inputs = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    expected = first_output(small, inputs)
    assert torch.equal(first_output(load(tmp_path / "out").eval(), inputs), expected)
    elsewhere = run_elsewhere("plain", tmp_path / "out", "BertModel", inputs=inputs, work=tmp_path)
    assert torch.equal(elsewhere, expected)
    again = tokenizer_of(tmp_path / "out")(texts, padding=True, return_tensors="pt")
    assert torch.equal(again["input_ids"], inputs["input_ids"])
    for name, model in (("dense", minilm.model), ("cut", small)):
        near, far = similarities(model, inputs)
        print(f"{name}: cat ~ kitten {near:.3f}, cat ~ interest rates {far:.3f}")
        assert near > far


def similarities(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[float, float]:
    """Cosine of the first text's mean embedding with the second's and with the third's."""
    hidden = first_output(model, inputs)
    mask = inputs["attention_mask"][:, :, None]
    mean = nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
    return float(mean[0] @ mean[1]), float(mean[0] @ mean[2])


def test_smollm2(smollm2: LoadedModel, smollm2_spec: str, english: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(smollm2_spec)
    tokens = tokenizer(english, return_tensors="pt")["input_ids"]
    calibration, tokens = tokens[:, -4 * WINDOW :], tokens[:, : 2 * WINDOW]
    data = [{"input_ids": ids, "labels": ids} for ids in calibration.split(WINDOW, dim=1)]
    # the width of the residual stream carries everything: it stays, the inner widths go
    small, plan = cut_and_proved(smollm2, data=data, keep_modules="model.embed_tokens")
    save(small, tmp_path / "out", plan=plan, tokenizer=tokenizer)
    inputs = {"input_ids": tokens[:, :64]}
    expected = first_output(small, inputs)
    assert torch.equal(first_output(load(tmp_path / "out").eval(), inputs), expected)
    elsewhere = run_elsewhere(
        "plain", tmp_path / "out", "AutoModelForCausalLM", inputs=inputs, work=tmp_path
    )
    assert torch.equal(elsewhere, expected)
    again = tokenizer_of(tmp_path / "out")(english[:500])["input_ids"]
    assert again == tokenizer(english[:500])["input_ids"]
    dense_ppl, cut_ppl = (perplexity(model, tokens) for model in (smollm2.model, small))
    print(f"perplexity: dense {dense_ppl:.1f}, cut without recovery {cut_ppl:.1f}")
    assert dense_ppl < 60
    assert dense_ppl < cut_ppl < 2_000  # a model that knows nothing is at 49,152


def test_smollm2_without_a_quarter_of_its_layers(
    smollm2: LoadedModel, smollm2_spec: str, english: str, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(smollm2_spec)
    tokens = tokenizer(english, return_tensors="pt")["input_ids"]
    calibration, tokens = tokens[:, -WINDOW:], tokens[:, :WINDOW]
    model, graph = smollm2.model, trace(smollm2.model, smollm2.example_inputs)
    scores = score(graph, model, criterion="block_output", data=[{"input_ids": calibration}])
    plan = make_plan(graph, scores, blocks=0.25)
    assert (len(scores), len(plan.removed)) == (30, 8)
    small: Any = cut(model, plan)
    proof = verify(model, small, plan, smollm2.example_inputs, graph=graph)
    assert proof.max_rel_error <= 1e-4
    save(small, tmp_path / "out", plan=plan, tokenizer=tokenizer)
    inputs = {"input_ids": tokens[:, :64]}
    elsewhere = run_elsewhere(
        "plain", tmp_path / "out", "AutoModelForCausalLM", inputs=inputs, work=tmp_path
    )
    assert torch.equal(elsewhere, first_output(small, inputs))
    assert small.config.num_hidden_layers == 22
    last = {f"model.layers.{k}": torch.tensor([-float(k)]) for k in range(30)}
    ours, theirs = (
        perplexity(cut(model, made), tokens) for made in (plan, make_plan(graph, last, blocks=0.25))
    )
    print(f"perplexity without 8 layers: by block_output {ours:.1f}, the last ones {theirs:.1f}")
    assert ours < theirs


def perplexity(model: nn.Module, tokens: Tensor) -> float:
    """Over windows of `WINDOW` tokens, each on its own."""
    losses = []
    for window in tokens.split(WINDOW, dim=1):
        with torch.no_grad():
            losses.append(model(input_ids=window, labels=window).loss)
    return float(torch.stack(losses).mean().exp())
