"""What a run prunes: the dense model, its graph, the data and the settings, fetched once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from secateur.cli.output import say
from secateur.cli.plan import trace_model
from secateur.cli.settings import RunSettings
from secateur.cli.sources import (
    Batches,
    check_fits,
    fetch_data,
    fetch_model,
    loss_fn,
    make_batches,
)
from secateur.core.graph import Graph
from secateur.train.finetune import finetune
from secateur.train.log import TrainLog
from secateur.train.settings import FinetuneSettings

if TYPE_CHECKING:
    from secateur.zoo.data import Data
    from secateur.zoo.loaded import LoadedModel


@dataclass(frozen=True)
class Subject:
    """data and batches are None where no data was named."""

    settings: RunSettings
    loaded: LoadedModel
    graph: Graph
    data: Data | None
    batches: Batches | None


def fetch_subject(settings: RunSettings) -> Subject:
    """Load model and data, and trace. Raises: ValueError, StorageError, TraceError."""
    loaded = fetch_model(settings, seed=settings.seed, device=settings.device)
    data = fetch_data(settings.data)
    check_fits(loaded, data)
    batches = None
    if data is None:
        say("no data was named: nothing is recovered, and accuracy is not measured")
    else:
        batches = make_batches(data, batch_size=settings.batch_size, seed=settings.seed)
    say(f"tracing {settings.model}")
    return Subject(settings, loaded, trace_model(settings, loaded), data, batches)


def finetune_(
    model: nn.Module, batches: Batches, settings: FinetuneSettings, *, seed: int, folder: Path
) -> TrainLog:
    """Recover a model in place, from its newest checkpoint in `folder` if there is one.

    seed: the run's, used where the settings have none of their own. Raises: TrainError.
    """
    if settings.seed == 0:
        settings = replace(settings, seed=seed)
    return finetune(
        model,
        batches.train,
        settings=settings,
        loss_fn=loss_fn,
        validate=batches.validate,
        checkpoint_dir=folder,
    )
