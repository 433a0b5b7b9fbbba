"""One training with one way to write checkpoints, in a process of its own: a line of JSON.

    python benchmarks/checkpoints_run.py MODEL WAY FOLDER

A checkpoint is asked for some steps after the one before it is there, so that none waits.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from secateur.engines.parallel.none import WHOLE
from secateur.train.shared_checkpoint import Shelf
from secateur.train.snapshot import tensors_of
from secateur.train.staging import Staging
from secateur.train.step import optimizer_state
from secateur.train.writer import Writer

SAVES, PLAIN, APART, MOST = 3, 3, 1, 60
"""Checkpoints; steps before the first, and between them at least; steps in all at most."""
Task = tuple[nn.Module, Optimizer, Callable[[], Tensor]]


def importable_torchvision() -> None:
    from torchvision_ops import define_torchvision_ops  # only children have it on their path

    define_torchvision_ops()


def resnet50() -> Task:
    importable_torchvision()
    from torchvision.models import resnet50 as make

    model = make()
    x, y = torch.randn(8, 3, 64, 64), torch.randint(0, 1000, (8,))
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    return model, optimizer, lambda: nn.functional.cross_entropy(model(x), y)


def gpt2() -> Task:
    importable_torchvision()  # transformers imports it
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config())
    ids = torch.randint(0, 50_000, (1, 32))
    return model, AdamW(model.parameters(), lr=1e-5), lambda: model(ids, labels=ids).loss


MODELS = {"resnet50": resnet50, "gpt2": gpt2}


class Way(Protocol):
    """How checkpoints are written."""

    def save(self, number: int) -> None: ...

    def busy(self) -> bool:
        """Whether one is under way, asked after every step."""

    def end(self) -> None: ...


class Ours:
    """What `finetune` does, without its best weights."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, folder: Path, *, beside: bool):
        self.model, self.optimizer = model, optimizer
        self.shelf = Shelf(folder, WHOLE, Staging() if beside else None)
        self.writer = Writer(WHOLE.world, beside)

    def save(self, number: int) -> None:
        self.writer.finish_()
        tree = {"model": tensors_of(self.model), "optimizer": optimizer_state(self.optimizer)}
        self.writer.begin_(self.shelf.held(tree, number=number))

    def busy(self) -> bool:
        self.writer.look_()
        return self.writer._write is not None

    def end(self) -> None:
        self.writer.finish_()


class TorchSave:
    """One pickle over the other, neither flushed to the disk nor checked."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, folder: Path):
        self.model, self.optimizer, self.path = model, optimizer, folder / "checkpoint.pt"

    def save(self, number: int) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, self.path)

    def busy(self) -> bool:
        return False

    def end(self) -> None: ...


class Dcp:
    """`torch.distributed.checkpoint.async_save`, as its recipe has it, in a world of one."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, folder: Path):
        import torch.distributed as dist

        self.model, self.optimizer, self.folder = model, optimizer, folder
        store = dist.FileStore(str(folder / "store"), 1)
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        self.future: Future[Any] | None = None

    def save(self, number: int) -> None:
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import get_state_dict

        model, optimizer = get_state_dict(self.model, self.optimizer)
        where = str(self.folder / f"checkpoint-{number}")
        self.future = dcp.async_save({"model": model, "optim": optimizer}, checkpoint_id=where)

    def busy(self) -> bool:
        return self.future is not None and not self.future.done()

    def end(self) -> None:
        import torch.distributed as dist

        if self.future is not None:
            self.future.result()
        dist.destroy_process_group()


WAYS: dict[str, Callable[[nn.Module, Optimizer, Path], Way | None]] = {
    "none": lambda *_: None,
    "secateur, at once": partial(Ours, beside=False),
    "secateur, beside": partial(Ours, beside=True),
    "torch.save": TorchSave,
    "dcp.async_save": Dcp,
}


def measured(task: Task, way: Way | None) -> dict[str, Any]:
    """Of each checkpoint how long the training stood still for it, by the clock and in processor
    time of its thread, when it was there and after how many steps; processor time and memory."""
    model, optimizer, loss = task
    model.train()
    for _ in range(2):
        step_(optimizer, loss)
    gc.collect()
    found: dict[str, list[float]] = {name: [] for name in ("plain", "held", "held_cpu", "until")}
    number = since = meanwhile = steps = 0
    asked_at: float | None = None
    begun = time.process_time()
    with peak() as extra:
        while steps < MOST:
            began = time.process_time()
            step_(optimizer, loss)
            if asked_at is None:
                found["plain"].append(time.process_time() - began)
            steps, since, meanwhile = steps + 1, since + 1, meanwhile + (asked_at is not None)
            if way is not None and asked_at is not None and not way.busy():
                found["until"].append(time.perf_counter() - asked_at)
                asked_at, since = None, 0
            if (number == SAVES and asked_at is None) or (way is None and steps > 2 * PLAIN):
                break
            if way is not None and asked_at is None and since >= (APART if number else PLAIN):
                number, asked_at, own = number + 1, time.perf_counter(), time.thread_time()
                way.save(number)
                found["held"].append(time.perf_counter() - asked_at)
                found["held_cpu"].append(time.thread_time() - own)
                if not way.busy():
                    found["until"].append(time.perf_counter() - asked_at)
                    asked_at, since = None, 0
        if way is not None:
            way.end()
    step_cpu = statistics.median(found["plain"])
    tensors = [*tensors_of(model).values()]
    tensors += [t for s in optimizer.state.values() for t in s.values() if isinstance(t, Tensor)]
    return {
        **{f"{name}_ms": [round(s * 1e3, 2) for s in times] for name, times in found.items()},
        "steps": steps,
        "meanwhile": meanwhile,
        "cpu_ms": round((time.process_time() - begun - steps * step_cpu) * 1e3, 1),
        "peak_bytes": extra["bytes"],
        "checkpoint_bytes": sum(t.numel() * t.element_size() for t in tensors),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def step_(optimizer: Optimizer, loss: Callable[[], Tensor]) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    optimizer.step()


@contextmanager
def peak() -> Iterator[dict[str, int]]:
    """The most memory that the process has in the block, in bytes."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    found = {"bytes": 0}
    yield found
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    found["bytes"] = int(line.split()[1]) * 1024


def main() -> None:
    model, way, folder = sys.argv[1:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = MODELS[model]()
    found = measured(task, WAYS[way](task[0], task[1], Path(folder)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
