"""Checkpoints of a training whose ranks share the model out: parts of whole tensors, by name.

Each rank writes what it holds under the whole model's names, with where it begins in the whole
tensor, in the format of torch's distributed checkpoint (safetensors whose header has the offsets).
So any number of ranks, of this or another kind, and a single process go on from it. A rank whose
units of a tensor are several runs (the parts of a fused projection) writes a file for each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from secateur.core.errors import StorageError
from secateur.core.shards import Part
from secateur.core.world import World
from secateur.engines.shards import parts_of
from secateur.engines.tensor_parallel.layout import Layout
from secateur.engines.training import OFFSETS, FilePart, ShardFiles, header

_Box = tuple[tuple[int, ...], Tensor]
"""Where a part begins in the whole tensor, and what lies there."""


@dataclass(frozen=True, slots=True)
class PartFiles:
    """world: all ranks. inner: those that share the model out. across: those that hold the same
    units. layout: None until the model is laid out. shards: where the outer kind shards again."""

    world: World
    inner: World
    across: World
    layout: Layout | None
    shards: ShardFiles | None = None

    def parts(self, tensors: Mapping[str, Tensor]) -> list[FilePart]:
        """What this rank holds and no rank before it, in as many files as it needs."""
        return [
            FilePart(
                f"rank-{self.world.rank:05d}-{number:02d}.safetensors",
                {name: tensor for name, (_, tensor) in boxes},
                header({name: start for name, (start, _) in boxes}),
            )
            for number, boxes in enumerate(self._files(tensors))
        ]

    def read(self, folder: Path, sharded: Iterable[str]) -> dict[str, Tensor]:
        """What this rank holds of the tensors that any ranks wrote, one whole tensor at a time.

        Raises: StorageError when it cannot be read.
        """
        wanted = set(sharded)
        try:
            return {
                name: self.lay_out(name, tensor, of_parameter=name in wanted)
                for name, tensor in _joined(folder)
            }
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"could not read {folder}: {error}; restore it from a backup, or remove it to go "
                "on from the checkpoint before it"
            ) from error

    def lay_out(self, name: str, tensor: Tensor, *, of_parameter: bool) -> Tensor:
        """What this rank holds of a whole tensor."""
        tensor = self._laid_out.part(name, tensor, rank=self.inner.rank)
        if self.shards is None:
            return tensor
        return self.shards.lay_out(name, tensor, of_parameter=of_parameter)

    def is_sharded(self, name: str, tensor: Tensor) -> bool:
        """Whether it is of a parameter, whose rows FSDP2 would share."""
        return self._laid_out.is_of_parameter(name, tensor)

    @property
    def _laid_out(self) -> Layout:
        assert self.layout is not None, "the model is laid out first"
        return self.layout

    def _files(self, tensors: Mapping[str, Tensor]) -> Iterator[list[tuple[str, _Box]]]:
        """The boxes that this rank writes, each tensor at most once to a file."""
        runs = {
            name: self._boxes(name, part)
            for name, part in parts_of(tensors, self.across).items()
            if part.counted
        }
        for number in range(max(map(len, runs.values()), default=0)):
            yield [(name, boxes[number]) for name, boxes in runs.items() if number < len(boxes)]

    def _boxes(self, name: str, part: Part) -> list[_Box]:
        """What of a tensor lies here and not on a rank before this one."""
        start, local = part.shard.start, part.tensor
        split = self._laid_out.split(name, local)
        if split is None:
            some = part.shard.own or not part.shard.weights
            return [(start, local)] if self.inner.rank == 0 and some else []
        first = start[split.dim]
        held = split.held[self.inner.rank][first : first + local.shape[split.dim]].tolist()
        return [
            (
                (*start[: split.dim], held[run.start], *start[split.dim + 1 :]),
                local.narrow(split.dim, run.start, len(run)),
            )
            for run in _runs(held)
            if local.numel()
        ]


def _runs(indices: Sequence[int]) -> list[range]:
    """Where indices follow each other one by one.

    >>> _runs([0, 1, 2, 6, 7])
    [range(0, 3), range(3, 5)]
    """
    breaks = [k for k in range(1, len(indices)) if indices[k] != indices[k - 1] + 1]
    ends = [0, *breaks, len(indices)]
    return [range(*pair) for pair in pairwise(ends) if pair[0] < pair[1]]


def _joined(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The whole tensors of a folder, one after another. Raises: StorageError when one has gaps."""
    with ExitStack() as stack:
        places: dict[str, list[tuple[safe_open, tuple[int, ...]]]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            begins = json.loads((file.metadata() or {}).get(OFFSETS, "{}"))
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                start = begins[name]["saved_offsets"] if name in begins else ()
                places.setdefault(name, []).append((file, tuple(start)))
        for name, parts in places.items():
            yield name, _whole(name, [(_read(file, name), start) for file, start in parts])


def _read(file: safe_open, name: str) -> Tensor:
    tensor: Tensor = file.get_tensor(name)  # type: ignore[no-untyped-call]
    return tensor


def _whole(name: str, parts: Sequence[tuple[Tensor, tuple[int, ...]]]) -> Tensor:
    first = parts[0][0]
    if len(parts) == 1 and not any(parts[0][1]):
        return first
    ends = [[at + n for at, n in zip(start, t.shape, strict=True)] for t, start in parts]
    size = [max(along) for along in zip(*ends, strict=True)]
    if sum(tensor.numel() for tensor, _ in parts) != math.prod(size):
        raise StorageError(f"parts of {name} are missing, or written twice")
    whole = first.new_empty(size)
    for tensor, start in parts:
        places = [slice(at, at + n) for at, n in zip(start, tensor.shape, strict=True)]
        whole[tuple(places)] = tensor
    return whole
