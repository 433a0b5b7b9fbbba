"""Tensors of which every rank holds a part, in a folder that any number of ranks can read.

The format is that of torch's distributed checkpoint for Hugging Face: safetensors with the place of
every part in their headers, and never a pickle. Torch reads it. It does not write it here, because
it would meet the other ranks while it does, and a checkpoint is written beside the training.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, empty

from secateur.core.errors import StorageError
from secateur.engines.process_group import ProcessGroup
from secateur.engines.shards import parts_of
from secateur.engines.training import FilePart, header

NAME = "shard-{:05d}-model-00001-of-00001.safetensors"
"""Of a rank's file, as torch has it."""


@dataclass(frozen=True, slots=True)
class DcpFiles:
    """Of tensors that are sharded along their first dimension over a mesh of one dimension."""

    world: ProcessGroup
    mesh: DeviceMesh

    def lay_out(self, name: str, tensor: Tensor, *, of_parameter: bool) -> Tensor:
        """A tensor that every rank has whole, as one of which each has its part."""
        if not of_parameter:
            return tensor
        return distribute_tensor(tensor, self.mesh, [Shard(0)], src_data_rank=None)

    def is_sharded(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor is one of several ranks."""
        return isinstance(tensor, DTensor)

    def parts(self, tensors: Mapping[str, Tensor]) -> list[FilePart]:
        """One with what this rank holds; what every rank has whole is the first one's."""
        lies = {
            name: part
            for name, part in parts_of(tensors, self.world).items()
            if part.counted and (part.shard.own or not part.shard.weights)
        }
        own = {name: part.tensor for name, part in lies.items()}
        starts = {name: part.shard.start for name, part in lies.items()}
        return [FilePart(NAME.format(self.world.rank + 1), own, header(starts))]

    def read(self, folder: Path, sharded: Iterable[str]) -> dict[str, Tensor]:
        """See `ShardFiles`. Raises: StorageError."""
        wanted, found = set(sharded), dict[str, Tensor]()
        for name, size, dtype in _kinds(folder):
            if name in wanted:
                how: dict[str, Any] = {"device_mesh": self.mesh, "placements": [Shard(0)]}
                found[name] = empty(*size, dtype=dtype, **how)
            else:
                found[name] = torch.empty(size, dtype=dtype)
        reader = HuggingFaceStorageReader(str(folder))
        with self.world.meeting("the reading of a checkpoint"), _told(f"read {folder}"):
            load(found, storage_reader=reader, process_group=self.world.group)
        return found


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of torch's checkpoints, which are no `Exception`, as ours."""
    try:
        yield
    except CheckpointException as error:
        rank, (cause, _) = min(error.failures.items(), key=lambda failure: failure[0])
        raise StorageError(
            f"rank {rank} could not {what}: {cause}; the checkpoints before it are still there. "
            "Free some space or choose another place, then run the same command again"
        ) from error


def read_whole(folder: Path) -> dict[str, Tensor]:
    """What ranks wrote by `DcpFiles`, put together in one process."""
    found = {name: torch.empty(size, dtype=dtype) for name, size, dtype in _kinds(folder)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(found, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return found


def _kinds(folder: Path) -> list[tuple[str, torch.Size, torch.dtype]]:
    kinds = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return [
        (name, kind.size, kind.properties.dtype)
        for name, kind in kinds.items()
        if isinstance(kind, TensorStorageMetadata)
    ]
