"""Following a teacher's features: a hidden layer each, through a learnt projection where needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.core.errors import TrainError
from secateur.train.distil_terms import FollowsLayers, Seen, real_positions, target


@dataclass(frozen=True, slots=True)
class Features(FollowsLayers):
    """``|| r(f_s) - f_t ||^2 / || f_t ||^2``, the mean over pairs of hidden layers.

    layers: "same" for the blocks at equal paths in both models, patterns of such paths, or a
    mapping from the student's path to the teacher's; after whole blocks were removed paths are
    renumbered, and only a mapping is right. r is learnt where widths differ, a linear map of the
    width in every position (FitNets' regressor with a kernel of 1), and else the identity.
    Source: Romero et al., FitNets, ICLR 2015, eq. 3, arXiv 1412.6550. Deviation: relative to the
    teacher's own size, so that a weight means the same for every layer and model.
    """

    layers: str | Sequence[str] | Mapping[str, str] = "same"
    weight: float = 1.0
    projects: bool = True

    def loss(self, seen: Seen) -> Tensor:
        return torch.stack([_relative(s, t, seen.batch) for s, t in seen.features]).mean()


@dataclass(frozen=True, slots=True)
class Width:
    """Where the widths of two features differ: the dimension, and how wide each is."""

    dim: int
    student: int
    teacher: int


def width_between(student: Tensor, teacher: Tensor, pair: tuple[str, str]) -> Width | None:
    """The dimension that must be projected; None where the features compare as they are.

    Pictures of another resolution are no hindrance. Raises: TrainError for other shapes.
    """
    a, b = tuple(student.shape), tuple(teacher.shape)
    if len(a) == len(b):
        resized = (2, 3) if len(a) == 4 and a[1] != b[1] else ()
        wrong = [k for k in range(len(a)) if a[k] != b[k] and k not in resized]
        if not wrong:
            return None
        if len(wrong) == 1 and wrong[0] > 0:
            return Width(wrong[0], a[wrong[0]], b[wrong[0]])
        if len(a) == 4 and wrong == [2, 3]:
            return None
    raise TrainError(
        f"features of {pair[0]!r} (student, shape {a}) and {pair[1]!r} (teacher, shape {b}) differ "
        "in more than their width; pair layers of the same stage"
    )


def projected(feature: Tensor, width: Width, projection: nn.Linear) -> Tensor:
    """The student's feature in the teacher's width.

    Raises: TrainError when the student's width changed since the projection was made.
    """
    if feature.shape[width.dim] != projection.in_features:
        raise TrainError(
            f"a feature of the student is {feature.shape[width.dim]} wide and was "
            f"{projection.in_features}: the model was cut while it trained. Follow what needs no "
            "projection meanwhile: Logits(), Outputs() or AttentionTransfer()"
        )
    moved: Tensor = projection(feature.movedim(width.dim, -1))
    return moved.movedim(-1, width.dim)


def same_resolution(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two pictures' features at the smaller of their resolutions."""
    if student.ndim != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    height, width = (min(student.shape[k], teacher.shape[k]) for k in (2, 3))
    pool = F.adaptive_avg_pool2d
    return pool(student, (height, width)), pool(teacher, (height, width))


def _relative(student: Tensor, teacher: Tensor, batch: Any) -> Tensor:
    s, t = same_resolution(student.float(), target(teacher, student))
    if s.shape != t.shape:
        raise TrainError(
            f"features of shapes {tuple(s.shape)} and {tuple(t.shape)} do not compare: the model "
            "was cut while it trained. Follow Logits(), Outputs() or AttentionTransfer() meanwhile"
        )
    s, t = real_positions(s, batch), real_positions(t, batch)
    return F.mse_loss(s, t) / t.square().mean().clamp_min(1e-12)
