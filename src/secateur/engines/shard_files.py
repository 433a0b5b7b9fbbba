"""Tensors of which every rank holds a part, in a folder that any number of ranks can read.

Written and read by torch's distributed checkpoint in its Hugging Face format: safetensors with the
place of every part in their headers, and never a pickle.
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
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, empty

from secateur.core.errors import StorageError
from secateur.engines.process_group import ProcessGroup


@dataclass(frozen=True, slots=True)
class DcpFiles:
    """Of tensors that are sharded along their first dimension over a mesh of one dimension."""

    world: ProcessGroup
    mesh: DeviceMesh

    def lay_out(self, tensor: Tensor) -> Tensor:
        """A tensor that every rank has whole, as one of which each has its part."""
        return distribute_tensor(tensor, self.mesh, [Shard(0)], src_data_rank=None)

    def is_sharded(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of several ranks."""
        return isinstance(tensor, DTensor)

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors, each rank those parts that it holds; whole ones once.

        Raises: StorageError on every rank when one of them could not.
        """
        plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        with self.world.meeting("the parts of a checkpoint"), _told(f"write its part of {folder}"):
            save(
                plain,
                storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
                process_group=self.world.group,
            )

    def read(self, folder: Path, sharded: Iterable[str]) -> dict[str, Tensor]:
        """Inverse of `write`, by any number of ranks. Raises: StorageError."""
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
    """What `DcpFiles` wrote, put together in one process."""
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
