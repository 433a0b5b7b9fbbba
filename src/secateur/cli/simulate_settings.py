"""What can be said to `secateur simulate`: a model, how ranks stand, and how fast they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from secateur.cli.flags import argument, flag
from secateur.cli.settings import MODEL, Source


@dataclass(frozen=True, kw_only=True)
class SimulateSettings(Source):
    """Everything but the model has a default; what those stand for is printed with the result."""

    model: str = argument(f"{MODEL}; or shape:NAME, shape:CONFIG.JSON for one that is never made")
    ranks: int = flag(8, "how many processes")
    parallel: str = flag(
        "ddp", "ranks along dp, fsdp and tp, such as dp=4,tp=2; auto for the fastest that fits"
    )
    batch_size: int = flag(1, "samples in the batch of one rank, sequences for a shape")
    length: int = flag(4096, "tokens of a sequence, for a shape")
    precision: Literal["float32", "bfloat16", "bfloat16-gathered"] = flag(
        "float32", "of the computation, under autocast, or with fsdp's own mixed precision"
    )
    optimizer: Literal["sgd", "adamw", "none"] = flag("adamw", "whose state is kept")
    accumulate: int = flag(1, "batches for one optimizer step")
    recompute: bool = flag(False, "run forwards again in the backward, to keep fewer activations")
    backend: Literal["nccl", "gloo"] = flag("nccl", "what carries the bytes")
    macs_per_second: float = flag(200e12, "multiply-accumulates that a rank reaches in training")
    bandwidth: float = flag(50.0, "GB/s that a rank sends to other hosts")
    host_bandwidth: float = flag(450.0, "GB/s that a rank sends within its host")
    latency_us: float = flag(5.0, "microseconds of a message to another host")
    host_latency_us: float = flag(2.0, "microseconds of a message within a host")
    ranks_per_host: int = flag(8, "ranks of one host")
    memory_gib: float = flag(74.5, "GiB of a rank, for --parallel auto: 80 GB")
