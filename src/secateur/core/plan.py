"""The plan: which units stay, and all that is needed to rebuild the smaller model anywhere.

A plan is a value like an infrastructure plan: computed, read, diffed, reviewed, then applied. Its
JSON is deterministic, holds no weights and no pickle, and carries the fingerprint of the model it
was made for and the hash of that model's graph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.core.atomic import write_text
from secateur.core.cost import Cost
from secateur.core.depth import renumbered, within
from secateur.core.dims import Axis, Dim, Keep, axes_of, dim_from_json, dim_to_json, new_size
from secateur.core.errors import PlanMismatchError
from secateur.core.expressions import Field
from secateur.core.graph import Graph
from secateur.core.scales import Fold, Rows, folds_of

FORMAT = 1


@dataclass(frozen=True, slots=True)
class FieldChange:
    """An integer attribute of the model and its value before and after the cut."""

    field: Field
    before: int
    after: int


@dataclass(frozen=True)
class Plan:
    """Which units of which groups stay.

    axes: the groups that lose units, by id. keep: their kept units, ascending. tensors: the
    dimensions of every tensor that changes. changes: the attributes to rewrite. settings: how the
    plan was made (criterion, budget, selector, seed, constraints). notes: what the user should
    know, for example groups that could not be cut as asked. exact: ids of groups for which
    cutting must equal masking; inexact: the others that lose units, with the reason. folds: rows
    that are multiplied, so that a scale made of a size stays as it was. removed: paths
    of the blocks that go as a whole; identity: those among them in whose place `nn.Identity`
    stands; the others leave their lists, which count their elements anew.
    """

    fingerprint: str
    graph_hash: str
    axes: Mapping[str, Axis]
    keep: Mapping[str, tuple[int, ...]]
    tensors: Mapping[str, tuple[Dim, ...]]
    changes: tuple[FieldChange, ...]
    before: Cost
    after: Cost
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    inexact: Mapping[str, str] = field(default_factory=dict)
    folds: tuple[Fold, ...] = ()
    removed: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        graph: Graph,
        keep: Mapping[str, tuple[int, ...]],
        fields: Mapping[Field, int],
        *,
        before: Cost,
        after: Cost,
        settings: Mapping[str, Any],
        notes: tuple[str, ...] = (),
    ) -> Plan:
        """The plan that keeps these units of a graph's groups and all of the others.

        fields: values of the model's attributes after the cut, where they change.
        """
        cut = [group for group in graph.groups if group.id in keep]
        counts = {group.axis.index: len(keep[group.id]) for group in cut}
        return cls(
            fingerprint=graph.fingerprint,
            graph_hash=graph.hash,
            axes={group.id: group.axis for group in cut},
            keep={group.id: keep[group.id] for group in cut},
            tensors={
                name: tensor.dims
                for name, tensor in graph.tensors.items()
                if any(axis.index in counts for dim in tensor.dims for axis in axes_of(dim))
            },
            changes=tuple(
                FieldChange(field, value, fields[field])
                for field, value in graph.fields.items()
                if fields.get(field, value) != value
            ),
            before=before,
            after=after,
            settings=settings,
            notes=notes,
            exact=tuple(sorted(group.id for group in cut if group.exact)),
            inexact={group.id: "; ".join(group.notes) for group in cut if not group.exact},
            folds=folds_of(graph.scales, counts, graph.fields, {**graph.fields, **fields}),
        )

    def kept_units(self) -> Keep:
        """Kept units by axis index, for `dims.kept_indices`."""
        return {
            self.axes[id].index: torch.from_numpy(np.array(units, dtype=np.int64))
            for id, units in self.keep.items()
        }

    def counts(self) -> dict[int, int]:
        """Number of kept units by axis index, for `dims.new_size`."""
        return {self.axes[id].index: len(units) for id, units in self.keep.items()}

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape after the cut of a tensor that changes."""
        counts = self.counts()
        return tuple(new_size(dim, counts) for dim in self.tensors[tensor])

    @property
    def taken_out(self) -> frozenset[str]:
        """The removed blocks that leave their lists."""
        return frozenset(self.removed) - frozenset(self.identity)

    def renamed(self) -> Plan:
        """The plan in the names that tensors and modules have in the cut model."""
        if not self.removed:
            return self
        gone = self.taken_out
        return replace(
            self,
            tensors={
                renumbered(name, gone): dims
                for name, dims in self.tensors.items()
                if not within(name, self.removed)
            },
            changes=tuple(
                replace(change, field=replace(change.field, owner=owner))
                for change in self.changes
                if not within(change.field.owner, self.removed)
                for owner in (renumbered(change.field.owner, gone),)
            ),
            removed=(),
            identity=(),
        )

    @property
    def hash(self) -> str:
        """SHA-256 of the plan's JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Deterministic JSON text, keys sorted."""
        body = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "graph_hash": self.graph_hash,
            "groups": {
                id: {
                    "axis": axis.index,
                    "size": axis.size,
                    "keep": list(self.keep[id]),
                    "exact": id in self.exact,
                    **({"inexact": self.inexact[id]} if id in self.inexact else {}),
                }
                for id, axis in self.axes.items()
            },
            "tensors": {
                name: [dim_to_json(dim) for dim in dims] for name, dims in self.tensors.items()
            },
            "changes": [
                [c.field.owner, c.field.name, c.field.index, c.before, c.after]
                for c in self.changes
            ],
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "folds": [[f.rows.tensor, f.rows.dim, f.rows.ranges, f.factor] for f in self.folds],
            "settings": dict(self.settings),
            "notes": list(self.notes),
            **({"removed": list(self.removed)} if self.removed else {}),
            **({"identity": list(self.identity)} if self.identity else {}),
        }
        return json.dumps(body, sort_keys=True, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Inverse of `to_json`.

        Raises: PlanMismatchError when the text is no plan, or one of a newer format.
        """
        try:
            body = json.loads(text)
            if body["format"] != FORMAT:
                raise PlanMismatchError(
                    f"plan has format {body['format']}, this secateur reads format {FORMAT}; "
                    "make the plan again, or install the secateur that wrote it"
                )
            groups = body["groups"]
            return cls(
                fingerprint=body["fingerprint"],
                graph_hash=body["graph_hash"],
                axes={id: Axis(g["axis"], g["size"]) for id, g in groups.items()},
                keep={id: tuple(g["keep"]) for id, g in groups.items()},
                tensors={
                    name: tuple(dim_from_json(dim) for dim in dims)
                    for name, dims in body["tensors"].items()
                },
                changes=tuple(
                    FieldChange(Field(owner, name, index), before, after)
                    for owner, name, index, before, after in body["changes"]
                ),
                before=Cost(**body["before"]),
                after=Cost(**body["after"]),
                settings=body["settings"],
                notes=tuple(body["notes"]),
                removed=tuple(body.get("removed", ())),
                identity=tuple(body.get("identity", ())),
                exact=tuple(id for id, g in groups.items() if g["exact"]),
                inexact={id: g["inexact"] for id, g in groups.items() if "inexact" in g},
                folds=tuple(
                    Fold(Rows(tensor, dim, tuple((a, b) for a, b in ranges)), factor)
                    for tensor, dim, ranges, factor in body.get("folds", ())
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanMismatchError(
                f"this is not a secateur plan ({type(error).__name__}: {error}); "
                "make one with `secateur plan MODEL --budget macs=50% -o plan.json`"
            ) from error

    def save(self, path: str | Path) -> None:
        """Write the JSON beside `path`, then rename it into place."""
        write_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a saved plan. Raises: PlanMismatchError, FileNotFoundError."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


Scores = Mapping[str, Tensor]
"""One float64 number per unit for each free group, by group id: higher is more important."""
