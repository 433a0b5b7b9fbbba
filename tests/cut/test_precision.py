"""A proof computes in the precision asked for, and compares what is defined."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import secateur as sc
from secateur.core.copies import copied
from secateur.core.errors import ProofError
from secateur.cut.difference import difference
from secateur.cut.precision import computing_in


def proved(model: nn.Module, inputs: Tensor) -> float:
    """Largest error over all groups, half of each cut."""
    graph = sc.trace(model, inputs)
    plan = sc.plan(graph, sc.score(graph, model, criterion="random", seed=0), keep=0.5)
    small = sc.cut(model, plan)
    proof = sc.verify(model, small, plan, inputs, graph=graph, dtype=torch.float64)
    assert plan.keep and proof.groups_checked == len(plan.keep)
    assert proof.dtype == "float64"
    return proof.max_rel_error


class Single(nn.Module):
    """Casts to float32 inside, and keeps a constant in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 12), nn.Linear(12, 3)
        self.scale = torch.rand(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.into(x)).float() * self.scale
        return self.out(hidden.softmax(-1, dtype=torch.float32).to(self.out.weight.dtype))


class Noisy(nn.Module):
    """Draws numbers in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.into(x + torch.rand(1, 6, dtype=x.dtype))))


@pytest.mark.parametrize("kind", [Single, Noisy])
def test_own_casts_and_own_noise_do_not_blur_a_proof(kind: type[nn.Module]) -> None:
    assert proved(kind(), torch.randn(5, 6)) < 1e-12


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_weight_norm_of_a_removed_unit_is_zero_by_zero(old: bool) -> None:
    norm = nn.utils.weight_norm if old else parametrizations.weight_norm
    model = nn.Sequential(norm(nn.Linear(6, 12)), nn.ReLU(), norm(nn.Linear(12, 3)))
    assert proved(model, torch.randn(5, 6)) < 1e-12


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_a_module_that_torch_does_not_copy_is_copied() -> None:
    model = nn.utils.weight_norm(nn.Linear(6, 12))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    x = torch.randn(2, 6)
    torch.testing.assert_close(copied(model)(x), model(x))


def test_narrower_types_are_widened_only_inside_the_block() -> None:
    x = torch.zeros(2, dtype=torch.float64)
    with computing_in(torch.float64):
        assert x.half().dtype == torch.zeros(1, dtype=torch.float32).dtype == torch.float64
    assert x.float().dtype == torch.float32 and torch.zeros(1).dtype == torch.float32


def test_equal_infinities_are_equal_and_nan_is_refused() -> None:
    masked = torch.tensor([1.0, -torch.inf])
    assert difference([masked], [masked.clone()]) == (0.0, 0.0)
    assert difference([masked], [torch.tensor([1.0, 0.0])])[1] == torch.inf
    with pytest.raises(ProofError, match="NaN"):
        difference([torch.tensor([torch.nan])], [torch.zeros(1)])


def test_what_a_forward_kept_is_not_copied_into_the_cut_model() -> None:
    class Biased(nn.Module):
        """Keeps an expanded bias while in evaluation mode, as LeViT does."""

        def __init__(self) -> None:
            super().__init__()
            self.bias, self.kept = nn.Parameter(torch.randn(12)), dict[str, Tensor]()
            self.into, self.out = nn.Linear(6, 12), nn.Linear(12, 3)

        def train(self, mode: bool = True) -> Biased:
            super().train(mode)
            if mode:
                self.kept = {}
            return self

        def forward(self, x: Tensor) -> Tensor:
            if "cpu" not in self.kept:
                self.kept["cpu"] = self.bias * 2
            return self.out(torch.relu(self.into(x) + self.kept["cpu"]))

    model, inputs = Biased().eval(), torch.randn(4, 6)
    graph = sc.trace(model, inputs)
    with torch.no_grad():
        model(inputs)
    plan = sc.plan(graph, sc.score(graph, model, criterion="random", seed=0), keep=0.5)
    small = sc.cut(model, plan)
    assert small(inputs).shape == (4, 3) and not small.training
    assert model.kept["cpu"].shape == (12,)
