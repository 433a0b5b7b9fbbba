"""Following a teacher's outputs: softened class probabilities, or embeddings and other numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from secateur.core.errors import TrainError
from secateur.train.distil_terms import (
    FollowsOutputs,
    Seen,
    Select,
    output_tensor,
    real_positions,
    target,
)

KINDS = ("mse", "cosine")


@dataclass(frozen=True, slots=True)
class Logits(FollowsOutputs):
    """``T^2 KL(softmax(t / T) || softmax(s / T))``, the mean over samples, tokens or pixels.

    temperature: T. class_dim: which dimension holds the classes, None for the last one of mapping
    batches' three-dimensional logits (token by token) and else dimension 1, as in torch's losses.
    select: the logits among the outputs. Padded tokens do not count.
    Source: Hinton, Vinyals & Dean 2015, section 2, arXiv 1503.02531.
    """

    weight: float = 0.5
    temperature: float = 4.0
    class_dim: int | None = None
    select: Select = output_tensor
    projects: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")

    def loss(self, seen: Seen) -> Tensor:
        s, t = _both(seen, self.select)
        dim = self.class_dim
        if dim is None:
            tokens = isinstance(seen.batch, Mapping) and s.ndim == 3
            dim = -1 if tokens or s.ndim == 1 else 1
        _check_classes(s, t, dim)
        s, t = s.movedim(dim, -1), t.movedim(dim, -1)
        s, t = (real_positions(part, seen.batch).flatten(0, -2) for part in (s, t))
        log_s = F.log_softmax(s / self.temperature, dim=-1)
        log_t = F.log_softmax(t / self.temperature, dim=-1)
        kl = F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
        return kl * self.temperature**2


@dataclass(frozen=True, slots=True)
class Outputs(FollowsOutputs):
    """The outputs' own numbers, for embeddings and regression: "mse", or one minus the "cosine".

    select: what is compared, for example the mean over tokens of a sentence encoder. The cosine is
    taken over the last dimension. Padded tokens do not count.
    """

    weight: float = 1.0
    kind: str = "mse"
    select: Select = output_tensor
    projects: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}; there are: {', '.join(KINDS)}")

    def loss(self, seen: Seen) -> Tensor:
        s, t = _both(seen, self.select)
        if s.shape != t.shape:
            raise TrainError(
                f"the student's output has shape {tuple(s.shape)} and the teacher's "
                f"{tuple(t.shape)}; select equal ones with select=, or follow features of other "
                'widths through a projection: terms=(Features({"student.path": "teacher.path"}),)'
            )
        s, t = real_positions(s, seen.batch), real_positions(t, seen.batch)
        if self.kind == "cosine":
            return 1 - F.cosine_similarity(s, t, dim=-1).mean()
        return F.mse_loss(s, t)


def _both(seen: Seen, select: Select) -> tuple[Tensor, Tensor]:
    student = select(seen.student, seen.batch)
    return student.float(), target(select(seen.teacher, seen.batch), student)


def _check_classes(student: Tensor, teacher: Tensor, dim: int) -> None:
    if student.shape == teacher.shape:
        return
    if student.ndim == teacher.ndim and student.shape[dim] != teacher.shape[dim]:
        raise TrainError(
            f"the teacher tells {teacher.shape[dim]} classes apart and the student "
            f"{student.shape[dim]} (outputs of shapes {tuple(teacher.shape)} and "
            f"{tuple(student.shape)}); soft targets need the same classes, or vocabulary, in the "
            'same order. Take a teacher trained on them, or follow features: terms=(Features("same"'
            "),)"
        )
    raise TrainError(
        f"the student's logits have shape {tuple(student.shape)} and the teacher's "
        f"{tuple(teacher.shape)}; select equal ones with select=lambda outputs, batch: ..."
    )
