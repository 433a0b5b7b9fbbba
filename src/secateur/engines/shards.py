"""What a rank holds of the parameters of FSDP2 and of tensor parallelism, as `core.shards` has it.

A DTensor says on which mesh it lies and how each mesh dimension splits it. Two splits of the same
dimension are nested: where FSDP2 shards what tensor parallelism has split, the outer split is that
of tensor parallelism, whatever the order of the mesh dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from secateur.core.errors import EngineError
from secateur.core.shards import Part, Shard
from secateur.core.world import World


def settle_(model: nn.Module) -> None:
    """Every module of FSDP2 holds its shards again, as between two steps."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def parts_of(tensors: Mapping[str, Tensor], world: World) -> dict[str, Part]:
    """What lies here of each tensor, each element counted by one rank.

    Of a tensor that no mesh splits every rank has all, and the first counts it. A mesh may be
    smaller than the world: copies of it hold the same, and the one with the first rank counts.
    Raises: EngineError for a tensor whose parts are sums yet to be made.
    """
    sharded = [tensor for tensor in tensors.values() if isinstance(tensor, DTensor)]
    distinct = list(dict.fromkeys(_ranks(tensor.device_mesh) for tensor in sharded))
    lowest = [min(ranks) for ranks in distinct]
    first = lowest
    if any(len(ranks) < world.size for ranks in distinct):
        everywhere = world.gather(lowest, what="which ranks hold which shards")
        first = [min(found) for found in zip(*everywhere, strict=True)]
    counting = {
        ranks: own == least for ranks, own, least in zip(distinct, lowest, first, strict=True)
    }
    found = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            ranks = _ranks(tensor.device_mesh)
            meshes_alike = world.size // len(ranks)
            found[name] = _part(name, tensor, counting[ranks], meshes_alike)
        else:
            shard = Shard.whole(tuple(tensor.shape))
            found[name] = Part(tensor.detach(), shard, world.rank == 0, world.size)
    return found


def local_of(tensor: Tensor) -> Tensor:
    """The memory of what lies here of a tensor."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def _ranks(mesh: Any) -> tuple[int, ...]:
    return tuple(mesh.mesh.flatten().tolist())


def _part(name: str, tensor: DTensor, counted: bool, copies: int) -> Part:
    local = local_of(tensor)
    mesh, shape = tensor.device_mesh, tuple(tensor.shape)
    at = mesh.get_coordinate()
    assert at is not None, "a tensor of a mesh that this rank is not on"
    for placement, index, size in zip(tensor.placements, at, mesh.shape, strict=True):
        if placement.is_partial():
            raise EngineError(
                f"{name} lies as {tensor.placements}: its parts are sums that are yet to be made; "
                "redistribute it first, tensor.redistribute(placements=[Replicate()])"
            )
        if placement.is_replicate():
            counted, copies = counted and index == 0, copies * size
    start, extent = _box(shape, tensor.placements, at, tuple(mesh.shape))
    if extent != tuple(local.shape):
        raise EngineError(
            f"{name} has {tuple(local.shape)} of {shape} on the rank at {tuple(at)} of the mesh, "
            f"and {tensor.placements} says {extent}: it is split in a way that has no name here; "
            "split it with distribute_tensor or fully_shard"
        )
    return Part(local, Shard(shape, start, extent), counted, copies)


def _box(
    shape: tuple[int, ...], placements: Sequence[Any], at: Sequence[int], mesh: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First index and number of indices of each dimension on the rank at a place of the mesh.

    >>> from torch.distributed.tensor import Shard as Split
    >>> _box((5, 4), [Split(0), Split(1)], (1, 0), (2, 2))  # chunks of 5 are 3 and 2
    ((3, 0), (2, 2))
    """
    start, size = [0] * len(shape), list(shape)
    for k in _outer_first(placements):
        dim = placements[k].dim % len(shape)
        chunk = -(-size[dim] // mesh[k])
        first = min(chunk * at[k], size[dim])
        start[dim] += first
        size[dim] = min(chunk, size[dim] - first)
    return tuple(start), tuple(size)


def _outer_first(placements: Sequence[Any]) -> list[int]:
    """The mesh dimensions that split, in the order in which they do."""
    splits = [k for k, placement in enumerate(placements) if not placement.is_replicate()]
    # FSDP2 over tensor parallelism: `_StridedShard` says that what stands to its right came first
    return sorted(splits, key=lambda k: "Strided" in type(placements[k]).__name__)
