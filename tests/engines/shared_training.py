"""Trainings that two ranks share, one after another: what a rank found goes into a JSON file.

    torchrun --standalone --nproc-per-node 2 shared_training.py FOLDER

Everything is in float64, in which one process and several differ by rounding alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.errors import SecateurError
from secateur.core.lookup import find
from secateur.core.world import World
from secateur.engines.joining import joined, ranks_of
from secateur.engines.parallel import fsdp
from secateur.engines.parallel.none import WHOLE
from secateur.engines.training import Parallel
from secateur.graph import trace
from secateur.masks import mask_
from secateur.train import (
    Callbacks,
    Features,
    FinetuneSettings,
    GradualSettings,
    GroupLasso,
    TensorBatches,
    accuracy,
    checkpoint,
    distilled,
    finetune,
    prune_while_training,
)

Found = dict[str, Any]
ROWS, BATCH = 70, 16  # the last batch of an epoch has six
STOP = 7
STEPS = {
    "plain": FinetuneSettings(epochs=2, lr=0.05, seed=3, clip_norm=1.0),
    "averaged": FinetuneSettings(epochs=2, lr=0.05, seed=3, accumulate=2, ema=0.9),
    "adamw": FinetuneSettings(epochs=2, lr=0.01, seed=3, optimizer="adamw", checkpoint_every=3),
}


class Stopped(BaseException):
    """Somebody killed it."""


class Net(nn.Module):
    """Convolutions with batch norm, a masked layer, one wide enough for a message of its own, and a
    parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.layers = nn.ModuleList([nn.Linear(32, 160), nn.Linear(160, 160)])
        self.drop = nn.Dropout(0.0)
        self.head = nn.Linear(160, 4)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        for layer in self.layers:
            x = layer(x).relu()
        logits: Tensor = self.head(self.drop(x))
        return logits


def net(*, masked: bool = False, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    model = Net().double()
    model.drop.p = dropout
    if masked:
        mask_(model, sparsity=0.5)
    return model


def data(rows: int = ROWS) -> TensorBatches:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(rows, 1, 6, 6, dtype=torch.float64, generator=generator)
    return TensorBatches(x, torch.randint(0, 4, (rows,), generator=generator), batch_size=BATCH)


def train(
    parallel: Parallel,
    settings: FinetuneSettings,
    *,
    model: nn.Module | None = None,
    folder: Path | None = None,
    stop: int | None = None,
    batches: TensorBatches | None = None,
    **options: Any,
) -> Found:
    """Losses by step, metrics, and the sum of the weights' absolute values."""
    model = net() if model is None else model
    batches = data() if batches is None else batches
    losses: list[tuple[int, float]] = []

    def on_step(step: int, loss: float) -> None:
        losses.append((step, loss))
        if step == stop:
            raise Stopped

    held = [batches.x.split(20), batches.y.split(20)]
    held_out = list(zip(*held, strict=True))
    options.setdefault("loss_fn", nn.CrossEntropyLoss())
    resumed, metrics = None, []
    try:
        log = finetune(
            model,
            batches,
            settings=settings,
            validate=lambda model: accuracy(model, held_out, world=parallel.world),
            callbacks=Callbacks(on_step=on_step),
            checkpoint_dir=folder,
            parallel=parallel,
            **options,
        )
        resumed, metrics = log.resumed_at, [row.metric for row in log.rows]
    except Stopped:
        pass
    weights = [float(t.detach().double().abs().sum()) for t in model.state_dict().values()]
    return {"losses": losses, "metrics": metrics, "weights": weights, "resumed": resumed}


def shrunk(parallel: Parallel) -> Found:
    """Pruning while training."""
    model, batches = net(), data()
    found = prune_while_training(
        model,
        batches,
        example_inputs=batches.x[:1],
        pruning=GradualSettings("macs=60%", cuts=2, begin=0.2, end=0.6),
        settings=FinetuneSettings(epochs=2, lr=0.05),
        loss_fn=nn.CrossEntropyLoss(),
        parallel=parallel,
    )
    assert found.plan is not None
    return {"plan": found.plan.hash, "losses": [row.loss for row in found.train]}


def followed(parallel: Parallel) -> Found:
    """Distillation with projections that are trained along."""
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(36, 50), nn.Linear(50, 4)).double()
    objective = distilled(
        nn.CrossEntropyLoss(), teacher, terms=[Features({"layers.0": "1"}, weight=0.5)]
    )
    return train(parallel, STEPS["plain"], objective=objective, loss_fn=None)


def refused(work: Callable[[], Any]) -> str:
    try:
        work()
    except SecateurError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def full_disk(make: Callable[[], Parallel], world: World, folder: Path) -> Found:
    """The second checkpoint cannot be written by the last rank that writes any, and the first one's
    part comes late: what each rank says after which step, and what is left."""
    parallel, write, steps, count = make(), checkpoint.save_file, list[int](), iter(range(9))
    failing = 0 if parallel.files is None else world.size - 1

    def save_file(*args: Any) -> None:
        if next(count) == 1:
            if world.rank == failing:
                raise OSError(28, "No space left on device")
            time.sleep(0.1)
        write(*args)

    checkpoint.save_file = save_file
    callbacks = Callbacks(on_step=lambda step, loss: steps.append(step))
    try:
        said = refused(
            lambda: finetune(
                net(),
                data(),
                settings=STEPS["adamw"],
                loss_fn=nn.CrossEntropyLoss(),
                callbacks=callbacks,
                checkpoint_dir=folder,
                parallel=parallel,
            )
        )
    finally:
        checkpoint.save_file = write
    world.wait(what="the end of it")
    left = sorted(path.name for path in folder.iterdir() if "checkpoint" in path.name)
    return {"said": said, "steps": steps, "left": left}


def everything(world: World, kinds: dict[str, Parallel], folder: Path) -> Found:
    """What this rank found."""
    found: Found = {}
    make = {name: lambda name=name: kind(world, name) for name in kinds}
    for name in kinds:
        for case, settings in STEPS.items():
            found[f"{name} {case}"] = train(make[name](), settings)
        found[f"{name} masked"] = train(make[name](), STEPS["plain"], model=net(masked=True))
        found[f"{name} few rows"] = train(make[name](), STEPS["plain"], batches=data(17))
        at = folder / name
        laid = net(masked=True).to(memory_format=torch.channels_last)
        train(make[name](), STEPS["plain"], model=laid, folder=folder / f"{name}-masked")
        train(make[name](), STEPS["adamw"], folder=at, stop=STOP)
        found[f"{name} beside"] = train(
            make[name](), STEPS["adamw"], folder=folder / f"{name}-beside"
        )
        found[f"{name} full disk"] = full_disk(make[name], world, folder / f"{name}-full")
    world.wait(what="the checkpoints")
    other = {"ddp": "fsdp", "fsdp": "ddp"}
    for name in kinds:
        where = folder / f"{name}-on"
        if world.rank == 0:
            (folder / name).rename(where)
        world.wait(what="a folder")
        if world.rank == 0:  # for one process to go on from
            import shutil

            shutil.copytree(where, folder / f"{name}-alone")
        world.wait(what="a copy")
        found[f"{name} goes on"] = train(make[other[name]](), STEPS["adamw"], folder=where)
    found["ddp shrunk"], found["ddp followed"] = shrunk(make["ddp"]()), followed(make["ddp"]())
    found |= _refusals(make, world)
    dropped = [train(make["ddp"](), STEPS["plain"], model=net(dropout=0.5)) for _ in range(2)]
    found["dropout"] = dropped
    model = net()
    train(make["ddp"](), STEPS["plain"], model=model)
    model.train()(data().x[: 4 + world.rank]).sum().backward()  # nothing is sent any more
    found["alone afterwards"] = float(model.head.weight.grad.abs().sum())
    unsynced = find("secateur.engines.parallel", "ddp", kind="parallel")
    found["own statistics"] = train(
        unsynced.make(world, sync_batch_norm=False), STEPS["plain"], model=(model := net())
    )
    found["own statistics"]["mean"] = model.features[1].running_mean.tolist()
    return found


def _refusals(make: dict[str, Callable[[], Parallel]], world: World) -> Found:
    x = data().x[:1]
    lasso = GroupLasso(trace(net(), x), 0.1)
    broken = data()
    broken.x[-20:] = torch.nan  # in the rows of some rank
    own = net()
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
    return {
        "penalty": refused(lambda: train(make["fsdp"](), STEPS["plain"], companions=[lasso])),
        "optimizer": refused(
            lambda: train(make["fsdp"](), STEPS["plain"], model=own, optimizer=optimizer)
        ),
        "nan": refused(lambda: train(make["ddp"](), STEPS["plain"], batches=broken)),
    }


def kind(world: World, name: str) -> Parallel:
    made: Parallel = find("secateur.engines.parallel", name, kind="parallel").make(world)
    return made


def alone() -> Found:
    """The same in one process."""
    found: Found = {case: train(WHOLE, settings) for case, settings in STEPS.items()}
    found["masked"] = train(WHOLE, STEPS["plain"], model=net(masked=True))
    found["few rows"] = train(WHOLE, STEPS["plain"], batches=data(17))
    found["shrunk"], found["followed"] = shrunk(WHOLE), followed(WHOLE)
    return found


def main(folder: Path) -> None:
    ranks = ranks_of(os.environ)
    assert ranks is not None
    torch.set_num_threads(1)
    fsdp.SMALL = 2**14  # the wide layer gets a message of its own
    with joined(ranks, timeout_s=50) as world:
        kinds = dict.fromkeys(("ddp", "fsdp"))
        found = everything(world, kinds, folder)  # type: ignore[arg-type]
        (folder / f"rank{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
