"""Torch-Pruning's criteria at a budget of MACs, for `criteria_table.py`.

Each is its own `Importance` with its own defaults, inside its own `BasePruner`, locally (the same
share of every group) or globally (one threshold). Channels go in small steps, group by group as its
interactive mode yields them, importances estimated anew in each step, until the MACs are within the
budget; the classifier's outputs are ignored. Gradients, where a criterion needs them, are of the
same images as ours.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn

STEPS = 400  # from nothing to everything: a quarter of a per cent of the channels each
SAMPLES = 256  # of which the squared gradients are taken one by one
LEAST = 0.9  # at most so much of any layer goes, so that a global threshold empties none

IMPORTANCES = {
    "magnitude": tp.importance.GroupMagnitudeImportance,
    "BN scale": tp.importance.BNScaleImportance,
    "LAMP": tp.importance.LAMPImportance,
    "FPGM": tp.importance.FPGMImportance,
    "Taylor": tp.importance.GroupTaylorImportance,
    "Hessian": tp.importance.GroupHessianImportance,
    "random": tp.importance.RandomImportance,
}


def cut_by_torch_pruning(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    importance: str,
    whole: bool,
    macs: float,
    seed: int,
) -> nn.Module:
    """A copy of the model with at most the share `macs` of its MACs.

    whole: one threshold for the whole model in place of the same share of every group.
    """
    small, scorer = copy.deepcopy(model).eval(), IMPORTANCES[importance]()
    example = torch.zeros(1, 1, 28, 28)
    torch.manual_seed(seed)
    if importance == "Taylor":
        _leave_gradients_(small, batches)
    elif importance == "Hessian":
        _leave_squares_(small, scorer, batches)
    pruner = tp.pruner.BasePruner(
        small,
        example,
        scorer,
        global_pruning=whole,
        pruning_ratio=1.0,
        max_pruning_ratio=LEAST,
        iterative_steps=STEPS,
        ignored_layers=[small.get_submodule("fc")],
    )
    limit = macs * counted(small, example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a scope that has nothing left to give
        for _ in range(STEPS):
            for group in pruner.step(interactive=True):
                group.prune()
                if counted(small, example) <= limit:
                    small.zero_grad()
                    return small.to(memory_format=torch.channels_last)
    raise RuntimeError(f"{importance} does not get to {macs:.1%} of the MACs")


def counted(model: nn.Module, example: Tensor) -> float:
    """Multiply-accumulates of convolutions and linear layers in one forward."""
    total = 0.0

    def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * output.numel() / output.shape[1]

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        model(example)
    for handle in handles:
        handle.remove()
    return total


def _leave_gradients_(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Of the loss over all batches, where `GroupTaylorImportance` looks for them."""
    for x, y in batches:
        F.cross_entropy(model(x), y).backward()


def _leave_squares_(
    model: nn.Module, scorer: Any, batches: Iterable[tuple[Tensor, Tensor]]
) -> None:
    """The mean of squared gradients of single images, as the documentation describes it.

    Its own `accumulate_grad` looks for a parameter by name among parameters, so that only the last
    image would count; the sums are made here and handed over.
    """
    parameters = list(model.parameters())
    images = [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(x))][:SAMPLES]
    squares = [torch.zeros_like(p) for p in parameters]
    for x, y in images:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        for square, parameter in zip(squares, parameters, strict=True):
            assert parameter.grad is not None
            square += parameter.grad.square()
    scorer._accu_grad = dict(zip(parameters, squares, strict=True))
    scorer._counter = dict.fromkeys(parameters, len(images))
