"""Where a run happens: in this process, or in several that an engine starts or that stand ready."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.cli.flags import flag, section
from secateur.core.lookup import names
from secateur.engines.kinds import parse_kind

SINGLE, RAY = "single", "ray"
LAUNCHERS = "secateur.engines.launchers"
ADDRESS = "HOST:PORT of a Ray cluster that runs, or auto; without it one is started here"


@dataclass(frozen=True, kw_only=True)
class Processes:
    """timeout: seconds that a rank waits for another before it is an error. restarts: how often
    all are started again when one is lost. sync_batch_norm: statistics of batch norm are those of
    the whole batch, as in one process."""

    timeout: float = 600.0
    restarts: int = 0
    sync_batch_norm: bool = True

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ValueError(f"timeout is a number of seconds above 0, not {self.timeout}")
        if self.restarts < 0:
            raise ValueError(f"restarts is at least 0, not {self.restarts}")


@dataclass(frozen=True, kw_only=True)
class Engines:
    """Which engine, with how many processes, and how they share a training."""

    engine: str = flag(SINGLE, "where it runs: single, or several processes by torchrun or ray")
    nproc: int | None = flag(None, "processes that the engine starts")
    address: str | None = flag(None, ADDRESS)
    parallel: str = flag(
        "ddp", "how several processes share a training: ddp, fsdp, tp, none, or fsdp=2,tp=2"
    )
    processes: Processes = section(Processes, help={})

    def check_engine(self) -> None:
        """Raises: ValueError for names that there are not, and for what does not fit together."""
        known = (SINGLE, *names(LAUNCHERS))
        if self.engine not in known:
            raise ValueError(f"unknown engine {self.engine!r}; there are: {', '.join(known)}")
        parse_kind(self.parallel, ranks=self.nproc)
        if self.nproc is not None and self.nproc < 1:
            raise ValueError(f"nproc is at least 1, not {self.nproc}")
        if self.nproc is not None and self.engine == SINGLE:
            raise ValueError("nproc is of an engine of several processes; add engine: torchrun")
        if self.address is not None and self.engine != RAY:
            raise ValueError("address is of a Ray cluster; add engine: ray")
