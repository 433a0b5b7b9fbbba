"""`secateur simulate` as a person types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Type = Callable[..., Any]


def test_a_model_that_is_loaded(secateur: Type) -> None:
    typed = secateur("simulate", "my_models:cnn", "--ranks", "4", "--backend", "gloo")
    assert typed.exit_code == 0, typed.stderr
    parameters = 8 * 9 + 8 + 16 + 16 * 8 * 9 + 16 + 10 * 64 + 10
    found = secateur("simulate", "my_models:cnn", "--ranks", "4", "--json").json
    assert found["parameters"] == parameters
    assert found["ranks"][0]["sent_bytes"]["gradients"] == 2 * 3 * parameters
    assert found["ranks"][0]["memory_bytes"]["buffers"] == 2 * 8 * 4 + 8
    assert found["ranks"][0]["sent_bytes"]["batch_norm"] == 2 * 3 / 4 * 8 * (1 + 4 * 8)
    assert "ranks 0 to 3" in typed.stdout
    assert "sent a step: gradients" in typed.stdout and "assumed: 200 T" in typed.stdout


def test_the_batch_decides_activations_and_not_gradients(secateur: Type) -> None:
    one, four = (
        secateur("simulate", "my_models:cnn", "--batch-size", size, "--json").json
        for size in ("1", "4")
    )
    memory = [each["ranks"][0]["memory_bytes"] for each in (one, four)]
    statistics = 2 * 8 * 4  # of batch norm, one of each channel whatever the batch
    kept = [each["activations"] - statistics for each in memory]
    assert kept[1] == 4 * kept[0]
    assert memory[1]["gradients"] == memory[0]["gradients"]


def test_a_shape_that_is_never_made(secateur: Type) -> None:
    mesh = ("--ranks", "64", "--parallel", "fsdp=8,tp=8", "--recompute")
    found = secateur("simulate", "shape:llama-3-70b", *mesh, "--json").json
    assert found["parameters"] == 70_553_706_496
    assert found["mesh"] == {"dp": 1, "fsdp": 8, "tp": 8}
    assert found["step_s"]["full_overlap"] < found["step_s"]["no_overlap"]
    assert [each["ranks"] for each in found["ranks"]] == [[0, 63]]


def test_the_fastest_mesh_that_fits(secateur: Type) -> None:
    typed = secateur("simulate", "shape:llama-3-8b", "--ranks", "16", "--parallel", "auto")
    assert typed.exit_code == 0, typed.stderr
    assert "16 ranks as " in typed.stdout
    small = ("--parallel", "auto", "--memory-gib", "8")
    typed = secateur("simulate", "shape:llama-3-8b", "--ranks", "16", *small)
    assert typed.exit_code == 1
    assert "does not fit 16 ranks of 8 GiB" in typed.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shape:llama-9",), "llama-3-70b"),
        (("shape:llama-3-8b", "--parallel", "dp=3"), "places 3 ranks and there are 8"),
        (("shape:llama-3-8b", "--parallel", "pp=8"), "write sizes of dp, fsdp, tp"),
        (("shape:llama-3-8b", "--bandwidth", "0"), "greater than zero"),
    ],
)
def test_mistakes_are_said(secateur: Type, words: tuple[str, ...], said: str) -> None:
    typed = secateur("simulate", *words)
    assert typed.exit_code == 2
    assert said in typed.stderr
    assert "Traceback" not in typed.stderr


def test_a_config_of_ones_own(secateur: Type) -> None:
    config = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
    config |= {"intermediate_size": 96, "vocab_size": 100}
    Path("config.json").write_text(json.dumps(config), encoding="utf-8")
    found = secateur("simulate", "shape:config.json", "--length", "128", "--json").json
    assert found["parameters"] == 2 * (4 * 64**2 + 3 * 64 * 96 + 128) + 2 * 100 * 64 + 64
