"""Following where a teacher looks: attention of transformers, and attention maps of CNNs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from secateur.core.errors import TrainError
from secateur.train.distil_features import same_resolution
from secateur.train.distil_terms import FollowsLayers, FollowsOutputs, Seen, target

TINY = 1e-12


@dataclass(frozen=True, slots=True)
class AttentionMaps(FollowsOutputs):
    """``KL(A_t || A_s)`` over the rows of a transformer's attention, the mean over what is real.

    For models with `output_attentions`. layers: "all" of the student's, each with the teacher's at
    the same relative depth, or "last". Where head counts differ, the mean over heads is followed.
    Source: Wang et al., MiniLM, NeurIPS 2020, eq. 2, arXiv 2002.10957 (the last layer); layers at
    the same relative depth as in Jiao et al., TinyBERT, arXiv 1909.10351.
    """

    weight: float = 1.0
    layers: str = "all"
    projects: bool = False

    def __post_init__(self) -> None:
        if self.layers not in ("all", "last"):
            raise ValueError(f'layers must be "all" or "last", not {self.layers!r}')

    @property
    def asks(self) -> Mapping[str, Any]:
        return {"output_attentions": True}

    def loss(self, seen: Seen) -> Tensor:
        ours, theirs = _attentions(seen.student, "student"), _attentions(seen.teacher, "teacher")
        chosen = range(len(ours)) if self.layers == "all" else range(len(ours) - 1, len(ours))
        # layer k of n stands with layer ceil((k + 1) m / n) - 1 of m: the last with the last
        with_ = [-(-(k + 1) * len(theirs) // len(ours)) - 1 for k in chosen]
        pairs = zip(chosen, with_, strict=True)
        return torch.stack([_kl(ours[k], theirs[m], seen.batch) for k, m in pairs]).mean()


@dataclass(frozen=True, slots=True)
class AttentionTransfer(FollowsLayers):
    """``|| Q_s / |Q_s| - Q_t / |Q_t| ||`` with ``Q = sum_c f_c^2`` over the channels of a CNN's
    feature maps; the mean over samples and pairs. Needs no projection, whatever the widths.

    layers: as in `Features`.
    Source: Zagoruyko & Komodakis, Paying More Attention to Attention, ICLR 2017, eq. 2, arXiv
    1612.03928, with p = 2; deviation: the mean over pairs stands for half of the sum.
    """

    layers: str | Sequence[str] | Mapping[str, str] = "same"
    weight: float = 1.0
    projects: bool = False

    def loss(self, seen: Seen) -> Tensor:
        return torch.stack([_transfer(s, t) for s, t in seen.features]).mean()


def _transfer(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = student.float(), target(teacher, student)
    if s.ndim < 3 or s.ndim != t.ndim:
        raise TrainError(
            f"attention transfer compares feature maps [samples, channels, ...], not shapes "
            f"{tuple(s.shape)} and {tuple(t.shape)}; name layers that give such, for example "
            'AttentionTransfer(["layer1", "layer2"])'
        )
    s, t = same_resolution(s, t)
    maps = [F.normalize(part.square().sum(1).flatten(1), dim=1) for part in (s, t)]
    # the root's slope at 0 is infinite: a student equal to its teacher must still have a gradient
    return ((maps[0] - maps[1]).square().sum(1) + TINY).sqrt().mean()


def _attentions(outputs: Any, role: str) -> tuple[Tensor, ...]:
    found = getattr(outputs, "attentions", None)
    if isinstance(found, tuple | list) and found and all(isinstance(a, Tensor) for a in found):
        return tuple(found)
    raise TrainError(
        f"the {role} gave no attention maps; load it with attn_implementation='eager', or call "
        "model.set_attn_implementation('eager'), and give batches that are mappings"
    )


def _kl(student: Tensor, teacher: Tensor, batch: Any) -> Tensor:
    """Over rows of [samples, heads, from, to]."""
    s, t = student.float(), target(teacher, student)
    if s.shape[1] != t.shape[1]:
        s, t = s.mean(1, keepdim=True), t.mean(1, keepdim=True)
    if s.shape != t.shape:
        raise TrainError(
            f"attention maps of shapes {tuple(student.shape)} (student) and "
            f"{tuple(teacher.shape)} (teacher) do not compare; both must read the same tokens"
        )
    rows = (t * (t.clamp_min(TINY).log() - s.clamp_min(TINY).log())).sum(-1).mean(1)
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if isinstance(mask, Tensor) and mask.shape == rows.shape:
        rows = rows[mask.to(rows.device) != 0]
    return rows.mean()
