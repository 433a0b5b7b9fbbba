"""The tensor-parallel plan: which rank holds which units, and where the ranks meet. A value.

As a cut plan it is deterministic JSON without weights; `rank_plan` is the cut that makes a rank's
model of the whole one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from secateur.core.cost import Cost
from secateur.core.dims import Axis, Dim, dim_from_json, dim_to_json
from secateur.core.errors import PlanMismatchError
from secateur.core.expressions import Field
from secateur.core.plan import FieldChange, Plan
from secateur.engines.tensor_parallel.regions import Meetings, Reading, Spot

FORMAT = 1


@dataclass(frozen=True)
class TensorParallelPlan:
    """How `size` ranks share a model out.

    bounds: for each group that is shared out, where the ranks' units begin and where the last ones
    end: rank r holds the units from ``bounds[r]`` up to ``bounds[r + 1]``. replicated: the other
    groups with the reason. tensors: the dimensions of what is shared out. changes: the attributes
    that differ in each rank's model. parameters, macs: the share of the model's that is shared out.
    """

    size: int
    fingerprint: str
    graph_hash: str
    axes: Mapping[str, Axis]
    bounds: Mapping[str, tuple[int, ...]]
    tensors: Mapping[str, tuple[Dim, ...]]
    changes: tuple[tuple[FieldChange, ...], ...]
    meetings: Meetings
    replicated: Mapping[str, str]
    parameters: float
    macs: float

    def units(self, group: str, rank: int) -> range:
        """The units of a group that a rank holds."""
        return range(*self.bounds[group][rank : rank + 2])

    def rank_plan(self, rank: int) -> Plan:
        """The cut from the whole model to a rank's."""
        nothing = Cost(0, 0, 0)
        return Plan(
            fingerprint=self.fingerprint,
            graph_hash=self.graph_hash,
            axes=self.axes,
            keep={group: tuple(self.units(group, rank)) for group in self.bounds},
            tensors=self.tensors,
            changes=self.changes[rank],
            before=nothing,
            after=nothing,
            exact=tuple(sorted(self.axes)),
        )

    @property
    def hash(self) -> str:
        """SHA-256 of the plan's JSON: equal on all ranks that agree."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Deterministic JSON text."""
        body = {
            "format": FORMAT,
            "size": self.size,
            "fingerprint": self.fingerprint,
            "graph_hash": self.graph_hash,
            "groups": {
                id: {"axis": [axis.index, axis.size], "bounds": list(self.bounds[id])}
                for id, axis in self.axes.items()
            },
            "tensors": {
                name: [dim_to_json(d) for d in dims] for name, dims in self.tensors.items()
            },
            "changes": [
                [[c.field.owner, c.field.name, c.field.index, c.before, c.after] for c in own]
                for own in self.changes
            ],
            "meetings": {
                kind.name: sorted(map(_plain, getattr(self.meetings, kind.name)), key=json.dumps)
                for kind in fields(self.meetings)
            },
            "replicated": dict(self.replicated),
            "parameters": self.parameters,
            "macs": self.macs,
        }
        return json.dumps(body, sort_keys=True, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TensorParallelPlan:
        """Inverse of `to_json`. Raises: PlanMismatchError when the text is no such plan."""
        try:
            body = json.loads(text)
            if body["format"] != FORMAT:
                raise PlanMismatchError(
                    f"the tensor-parallel plan has format {body['format']}, this secateur reads "
                    f"{FORMAT}; make the plan again with tensor_parallel_plan"
                )
            return _from_body(body)
        except (KeyError, TypeError, ValueError) as error:
            raise PlanMismatchError(
                f"this is no tensor-parallel plan ({type(error).__name__}: {error}); "
                "make one with tensor_parallel_plan"
            ) from error


def _plain(item: Spot | Reading | str) -> Any:
    return item if isinstance(item, str) else list(asdict(item).values())


def _from_body(body: Mapping[str, Any]) -> TensorParallelPlan:
    meets = body["meetings"]
    groups = body["groups"]
    return TensorParallelPlan(
        size=body["size"],
        fingerprint=body["fingerprint"],
        graph_hash=body["graph_hash"],
        axes={id: Axis(*group["axis"]) for id, group in groups.items()},
        bounds={id: tuple(group["bounds"]) for id, group in groups.items()},
        tensors={
            name: tuple(dim_from_json(dim) for dim in dims)
            for name, dims in body["tensors"].items()
        },
        changes=tuple(
            tuple(FieldChange(Field(c[0], c[1], c[2]), c[3], c[4]) for c in own)
            for own in body["changes"]
        ),
        meetings=Meetings(
            sums=frozenset(Spot(*item) for item in meets["sums"]),
            copies=frozenset(Spot(*item) for item in meets["copies"]),
            gradients=frozenset(Reading(*item) for item in meets["gradients"]),
            portions=frozenset(Reading(*item) for item in meets["portions"]),
            own_random=frozenset(meets["own_random"]),
            common_random=frozenset(meets["common_random"]),
        ),
        replicated=body["replicated"],
        parameters=body["parameters"],
        macs=body["macs"],
    )


def shares(units: int, size: int, *, step: int = 1) -> tuple[int, ...]:
    """Bounds of nearly equal shares in multiples of `step`, the larger ones first; what is left
    over stands with the last.

    >>> shares(9, 2), shares(20, 2, step=8)
    ((0, 5, 9), (0, 8, 20))
    """
    blocks, extra = divmod(units // step, size)
    ends = [step * (rank * blocks + min(rank, extra)) for rank in range(size + 1)]
    return (*ends[:-1], units)
