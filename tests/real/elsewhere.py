"""Run a saved model in a process that has nothing of this one: `python elsewhere.py ...`.

`plain FOLDER CLASS INPUTS OUT` uses transformers alone, where secateur cannot be imported;
`sharded ...` the same, by transformers' own tensor parallelism on the processes that run it;
`secateur FOLDER MODULE:FUNCTION INPUTS OUT` uses `secateur.storage.load`. INPUTS and OUT are
safetensors files.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

HERE = Path(__file__).parent


def run_elsewhere(
    kind: str,
    folder: Path,
    name: str,
    *,
    inputs: Mapping[str, Tensor],
    work: Path,
    devices: int = 1,
) -> Tensor:
    """The first output of the saved model, computed in a new process (in `devices` of them)."""
    save_file(dict(inputs), work / "inputs.safetensors")
    places = [str(HERE.parents[1] / "src"), str(HERE), str(HERE.parent / "zoo")]
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={devices}", "--standalone"]
    first = [sys.executable, *(launcher if devices > 1 else [])]
    command = [*first, __file__, kind, str(folder), name]
    subprocess.run(
        [*command, str(work / "inputs.safetensors"), str(work / "out.safetensors")],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )
    return load_file(work / "out.safetensors")["out"]


def _model(kind: str, folder: str, name: str) -> Any:
    if kind != "secateur":
        sys.modules["secateur"] = None  # type: ignore[assignment]  # any import of it fails
        from torchvision_ops import define_torchvision_ops

        define_torchvision_ops()
        import transformers

        sharding = {"tp_plan": "auto"} if kind == "sharded" else {}
        return getattr(transformers, name).from_pretrained(folder, **sharding)
    from secateur.storage import load

    module, _, function = name.partition(":")
    return load(folder, getattr(importlib.import_module(module), function))


def main(kind: str, folder: str, name: str, inputs: str, out: str) -> None:
    torch.set_num_threads(1)
    model = _model(kind, folder, name).eval()
    tensors = load_file(inputs)
    with torch.no_grad():
        result = model(*tensors.values()) if kind == "secateur" else model(**tensors)
    first = result if isinstance(result, Tensor) else result[0]
    if kind == "sharded":
        query: Any = model.model.layers[0].self_attn.q_proj.weight
        assert len(query.to_local()) * torch.distributed.get_world_size() == len(query)
        if torch.distributed.get_rank() > 0:
            return
    save_file({"out": first.contiguous()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
