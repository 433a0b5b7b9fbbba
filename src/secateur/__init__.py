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
from secateur.core.sensitivities import Sensitivities
from secateur.cost.latency import measure_latency
from secateur.cost.peak_memory import measure_peak_memory
from secateur.cost.timed import TimedCosts, Timings
from secateur.criteria.score import score
from secateur.cut import cut, cut_, verify
from secateur.graph import trace
from secateur.masks import MaskPlan, fold_, mask_
from secateur.oneshot import reconstruct_
from secateur.pipeline import PruneResult, prune
from secateur.search.auto import auto
from secateur.search.auto_result import AutoResult
from secateur.search.auto_values import AutoData
from secateur.search.sensitivity import measure_sensitivities
from secateur.search.timing import Device, time_device
from secateur.search.within import plan_within
from secateur.select.plan import plan
from secateur.storage import load, save
from secateur.train import (
    FinetuneSettings,
    GradualSettings,
    distilled,
    finetune,
    prune_iteratively,
    prune_while_training,
)

__version__ = "0.1.0"

__all__ = [
    "AutoData",
    "AutoResult",
    "Budget",
    "BudgetError",
    "Cost",
    "CutError",
    "Device",
    "FinetuneSettings",
    "GradualSettings",
    "Graph",
    "Group",
    "MaskPlan",
    "Plan",
    "PlanMismatchError",
    "Proof",
    "ProofError",
    "PruneResult",
    "ScoreError",
    "SecateurError",
    "Sensitivities",
    "StorageError",
    "TimedCosts",
    "Timings",
    "TraceError",
    "TrainError",
    "UnsupportedOpError",
    "auto",
    "cut",
    "cut_",
    "distilled",
    "finetune",
    "fold_",
    "load",
    "mask_",
    "measure_latency",
    "measure_peak_memory",
    "measure_sensitivities",
    "plan",
    "plan_within",
    "prune",
    "prune_iteratively",
    "prune_while_training",
    "reconstruct_",
    "save",
    "score",
    "time_device",
    "trace",
    "verify",
]
