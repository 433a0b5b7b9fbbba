"""One way to mask one model, in a process of its own: prints one JSON object.

    python benchmarks/masks_run.py TOOL MODEL [--threads 1] [--repeats 3]

80 % of all weights of two or more dimensions go by magnitude, from the scores to the masks on the
modules. Seconds are of one run each, after one on a small layer; memory is the peak of the
resident set above the loaded model, of the first run. Torch's masks are compared with ours after
the clock has stopped.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from speed_run import peak_mib, resident_mib
from torch import Tensor, nn
from torch.nn.utils import prune

from secateur.masks import mask_
from secateur.masks.keys import CHUNK, Source
from secateur.masks.selection import Threshold, kept_by
from secateur.masks.targets import Target, targets

SPARSITY = 0.8
BILLION = 16  # square matrices of 8,192, 1.07 billion weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=tuple(TOOLS))
    parser.add_argument("model", choices=tuple(MODELS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    dense = MODELS[arguments.model]()
    _warm(arguments.tool)
    wall, cpu, extra = [], [], None
    for _ in range(arguments.repeats):
        model = dense if arguments.model == "billion" else copy.deepcopy(dense)
        wanted = targets(model)
        gc.collect()
        before = resident_mib()
        clock = time.perf_counter(), time.process_time()
        TOOLS[arguments.tool](model, wanted)
        wall.append(round(time.perf_counter() - clock[0], 4))
        cpu.append(round(time.process_time() - clock[1], 4))
        if extra is None:
            extra = peak_mib() - before
    weights = sum(target.parameter.numel() for target in wanted)
    size_bytes = sum(t.parameter.numel() * t.parameter.element_size() for t in wanted)
    found = {
        "wall_s": wall,
        "cpu_s": cpu,
        "extra_mib": round(extra or 0, 1),
        "extra_share": round((extra or 0) * 2**20 / size_bytes, 3),
        "weights": weights,
        "size_mib": round(size_bytes / 2**20, 1),
        **(compared(model, dense) if arguments.tool == "torch" else {}),
    }
    print(json.dumps(found))


def resnet50() -> nn.Module:
    return _torchvision("resnet50")


def vit_b_16() -> nn.Module:
    return _torchvision("vit_b_16")


def billion() -> nn.Module:
    """Linear layers in bfloat16, made one by one."""
    layers = []
    for _ in range(BILLION):
        layer = nn.Linear(8192, 8192, bias=False, dtype=torch.bfloat16)
        nn.init.normal_(layer.weight, std=0.02)
        layers.append(layer)
    return nn.Sequential(*layers)


def _torchvision(name: str) -> nn.Module:
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()
    import torchvision

    model: nn.Module = getattr(torchvision.models, name)(weights=None)
    return model


def secateur(model: nn.Module, wanted: list[Target]) -> None:
    mask_(model, sparsity=SPARSITY)


def torch_prune(model: nn.Module, wanted: list[Target]) -> None:
    """As torch's own documentation has it, on the same tensors."""
    prune.global_unstructured(
        [target.places[0] for target in wanted],
        pruning_method=prune.L1Unstructured,
        amount=SPARSITY,
    )


def histogram(model: nn.Module, wanted: list[Target]) -> None:
    """The other exact way without a copy: two passes of 2^16 and 2^15 counters, then the masks
    (float32, ties not shared out)."""
    sources = [Source(t.name, t.parameter, t.parameter.dtype) for t in wanted]
    left = round(SPARSITY * sum(map(len, sources)))
    prefix = -1
    for bits in (16, 15):
        counts = np.zeros(1 << bits, dtype=np.int64)
        for source in sources:
            for k in range(0, len(source), CHUNK):
                keys = source.keys(k, min(k + CHUNK, len(source)))
                if prefix >= 0:
                    keys = keys[keys >> 15 == prefix] & 0x7FFF
                    counts += np.bincount(keys, minlength=1 << bits)
                else:
                    counts += np.bincount(keys >> 15, minlength=1 << bits)
        found = int(np.searchsorted(np.cumsum(counts), left))
        left -= int(counts[:found].sum())
        prefix = found if prefix < 0 else prefix << 15 | found
    limit = Threshold((prefix + 1,) * len(sources), (0,) * len(sources))
    for k, (source, target) in enumerate(zip(sources, wanted, strict=True)):
        module, leaf = target.places[0]
        module.register_buffer(f"{leaf}_mask", kept_by(source, limit, k))


def compared(model: nn.Module, dense: nn.Module) -> dict[str, Any]:
    """Where torch's masks differ from ours, and whether only among equal magnitudes."""
    plan = mask_(dense, sparsity=SPARSITY)
    differing, magnitudes = 0, set()
    for target in targets(dense):
        module, leaf = _place(model, target.name)
        theirs: Tensor = getattr(module, f"{leaf}_mask").bool()
        other = theirs != plan.kept[target.name]
        differing += int(other.sum())
        magnitudes |= set(target.parameter.detach()[other].abs().tolist())
    return {"differing": differing, "magnitudes_where_differing": sorted(magnitudes)}


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _warm(tool: str) -> None:
    """Each tool once on a small layer: what is loaded when first used is not measured."""
    layer = nn.Linear(512, 512)
    TOOLS[tool](layer, targets(layer))


Run = Callable[[nn.Module, list[Target]], None]
TOOLS: dict[str, Run] = {"secateur": secateur, "torch": torch_prune, "histogram": histogram}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet50": resnet50,
    "vit_b_16": vit_b_16,
    "billion": billion,
}

if __name__ == "__main__":
    main()
