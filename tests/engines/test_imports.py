"""Who uses one process pays for one: what `import secateur` brings along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = str(Path(__file__).parents[2] / "src")
FOR_MANY = (
    "ray",
    "torch.distributed.run",
    "torch.distributed.elastic.agent",
    "torch.distributed.launcher",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.nn.parallel.distributed",
    "secateur.engines.joining",
    "secateur.engines.process_group",
)


def loaded(module: str) -> set[str]:
    """The modules of a new process that imports one."""
    code = f"import sys, {module}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    return set(
        subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).split()
    )


def test_what_many_processes_need_is_imported_by_them_alone() -> None:
    more = loaded("secateur") - loaded("torch")
    assert not {name for name in more for prefix in FOR_MANY if f"{name}.".startswith(f"{prefix}.")}
