"""secateur: prune neural networks from a laptop to a cluster, with proof.

The pipeline, each step a function from values to values::

    graph  = trace(model, example_inputs)
    scores = score(graph, model, criterion="l2")
    plan   = plan(graph, scores, budget="macs=50%")
    small  = cut(model, plan)
    proof  = verify(model, small, plan, example_inputs)
    save(small, "out/", plan=plan)

or in one call: ``prune(model, example_inputs, budget="macs=50%")``.
"""

from secateur.core.budget import Budget
from secateur.core.cost import Cost
from secateur.core.errors import (
    BudgetError,
    CutError,
    PlanMismatchError,
    ProofError,
    ScoreError,
    SecateurError,
    StorageError,
    TraceError,
    TrainError,
    UnsupportedOpError,
)
from secateur.core.graph import Graph, Group
from secateur.core.plan import Plan
from secateur.core.proof import Proof
from secateur.criteria.score import score
from secateur.cut import cut, cut_, verify
from secateur.graph import trace
from secateur.pipeline import PruneResult, prune
from secateur.select.plan import plan
from secateur.storage import load, save
from secateur.train import FinetuneSettings, finetune, prune_iteratively

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "BudgetError",
    "Cost",
    "CutError",
    "FinetuneSettings",
    "Graph",
    "Group",
    "Plan",
    "PlanMismatchError",
    "Proof",
    "ProofError",
    "PruneResult",
    "ScoreError",
    "SecateurError",
    "StorageError",
    "TraceError",
    "TrainError",
    "UnsupportedOpError",
    "cut",
    "cut_",
    "finetune",
    "load",
    "plan",
    "prune",
    "prune_iteratively",
    "save",
    "score",
    "trace",
    "verify",
]
