"""What a run prunes: the dense model, its graph, the data and the settings, fetched once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.cli.output import say
from secateur.cli.plan import trace_model
from secateur.cli.settings import RunSettings
from secateur.cli.sources import (
    Batches,
    check_fits,
    fetch_data,
    fetch_model,
    make_batches,
)
from secateur.core.graph import Graph
from secateur.core.world import ALONE, World

if TYPE_CHECKING:
    from secateur.zoo.data import Data
    from secateur.zoo.loaded import LoadedModel


@dataclass(frozen=True)
class Subject:
    """data and batches are None where no data was named. world: of the ranks that prune it."""

    settings: RunSettings
    loaded: LoadedModel
    graph: Graph
    data: Data | None
    batches: Batches | None
    world: World = ALONE


def fetch_subject(settings: RunSettings, *, world: World = ALONE) -> Subject:
    """Load model and data, and trace. Raises: ValueError, StorageError, TraceError."""
    loaded = fetch_model(settings, seed=settings.seed, device=settings.device)
    data = fetch_data(settings.data)
    check_fits(loaded, data)
    batches = None
    if data is None:
        say("no data was named: nothing is recovered, and accuracy is not measured")
    else:
        size, seed = settings.batch_size, settings.seed
        batches = make_batches(data, batch_size=size, seed=seed, world=world)
    say(f"tracing {settings.model}")
    graph = trace_model(loaded, huggingface=settings.huggingface)
    return Subject(settings, loaded, graph, data, batches, world)
