"""Faults that are no kill: a rank that hangs, a full disk, a damaged checkpoint, a host cut off.

    python scenarios.py FOLDER hung damaged full_disk cut_off

Each prints one JSON line about what was said and how the run ended. The last two need root: a small
file system is mounted, hosts are network namespaces joined by a bridge.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from striking import LONGEST_S, Blow, Ending, Workplace, curve, differences
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from namespaces import INTERFACE, hosts

from secateur.cli import make_app

PORT = 29_400
"""Within the namespaces, which no other process shares."""
CLONE_NEWNET = 0x40000000


def last(ending: Ending) -> str:
    """The last line that is the command's own."""
    lines = [line for line in ending.said.splitlines() if line.startswith("error:")]
    return lines[-1] if lines else ending.said[-2000:]


def hung(place: Workplace) -> dict[str, Any]:
    """A rank is stopped in the recovery: the others say who does not answer."""
    place = Workplace(place.folder, timeout=8.0, spent=place.spent)
    undisturbed = place.undisturbed("ddp")
    blow = Blow("recovery", 1, after_s=0.3, signal="SIGSTOP")
    endings = place.struck("hung", "ddp", blow)
    differ = differences(undisturbed, place.folder / "hung")
    return {"said": last(endings[0]), "codes": [e.code for e in endings], "differ": differ}


def damaged(place: Workplace) -> dict[str, Any]:
    """After a kill the newest checkpoint is damaged: the one before it is used."""
    found = {}
    for kind in ("ddp", "fsdp"):
        undisturbed = place.undisturbed(kind)
        out, mark = place.folder / f"damaged-{kind}", place.folder / f"{kind}.mark"
        recipe = place.recipe(kind)
        half = 0.7 * place.spent[kind][0]["recovery"]
        first = place.forked(recipe, out, **Blow("recovery", 0, half).environment(mark))
        newest = sorted(out.glob("stages/*/checkpoints/checkpoint-*"))[-1]
        file = max(newest.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
        body = bytearray(file.read_bytes())
        body[-100] ^= 0xFF
        file.write_bytes(body)
        second = place.forked(recipe, out)
        warned = [line for line in second.said.splitlines() if "damaged" in line]
        found[kind] = {
            "said": warned[0] if warned else "",
            "codes": [first.code, second.code],
            "differ": differences(undisturbed, out),
        }
    return found


def full_disk(place: Workplace) -> dict[str, Any]:
    """The disk is full when a checkpoint is written: said, and the same command goes on later."""
    found = {}
    for kind in ("ddp", "fsdp"):
        undisturbed, out = place.undisturbed(kind), place.folder / f"small-{kind}"
        newest = [path.stat().st_size for path in undisturbed.rglob("*") if path.is_file()]
        with small_disk(out, kib=sum(newest) // 1024 // 2) as enlarge:
            first = place.forked(place.recipe(kind), out / "run")
            enlarge()
            second = place.forked(place.recipe(kind), out / "run")
            found[kind] = {
                "said": last(first),
                "codes": [first.code, second.code],
                "differ": differences(undisturbed, out / "run"),
            }
    return found


@contextmanager
def small_disk(path: Path, *, kib: int) -> Iterator[Callable[[], object]]:
    """A file system of so many KiB, and what makes it large enough."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*mount, f"size={kib}k", "tmpfs", str(path)], check=True)
    try:
        yield lambda: subprocess.run([*mount[:1], "-o", "remount,size=64m", str(path)], check=True)
    finally:
        subprocess.run(["umount", str(path)], check=True)


def cut_off(place: Workplace) -> dict[str, Any]:
    """Two hosts of two ranks; one host's link goes down in the recovery. The other goes on."""
    place = Workplace(place.folder, timeout=8.0, steps=24, spent={})
    recipe, out = place.recipe("ddp"), place.folder / "cut-off"
    with hosts(2) as prefixes:
        names = [prefix[-1] for prefix in prefixes]
        agents = [agent(place, recipe, out, host, name) for host, name in enumerate(names)]
        begun = wait_for(lambda: any(out.glob("stages/*/checkpoints/checkpoint-*")))
        subprocess.run(["ip", "-n", names[1], "link", "set", INTERFACE, "down"], check=True)
        cut = time.monotonic()
        done, status = os.waitpid(agents[0], 0)
        seconds = time.monotonic() - cut
        os.killpg(agents[1], signal.SIGKILL)
        os.waitpid(agents[1], 0)
    said = [path.read_text("utf-8") for path in sorted(place.folder.glob("said-h0-*"))]
    errors = [line for text in said for line in text.splitlines() if line.startswith("error:")]
    assert done and begun
    log = next(iter(out.glob("stages/*recover/log.jsonl")), None)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "said": errors[:1],
        "voices": len(errors),
        "seconds": seconds,
        "epochs": [] if log is None else [line["loss"] for line in curve(log)],
    }


def agent(place: Workplace, recipe: str, out: Path, host: int, namespace: str) -> int:
    """A host's torchrun agent, with ranks that are forked from it; its process."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    signal.alarm(LONGEST_S)
    with open(f"/var/run/netns/{namespace}") as file:
        assert ctypes.CDLL(None).setns(file.fileno(), CLONE_NEWNET) == 0
    os.environ["GLOO_SOCKET_IFNAME"] = INTERFACE
    os.chdir(place.folder)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=2,
        nproc_per_node=2,
        run_id="hosts",
        rdzv_backend="c10d",
        rdzv_endpoint=f"10.77.0.1:{PORT}",
        rdzv_configs={"is_host": host == 0, "last_call_timeout": 5},
        max_restarts=3,
        start_method="fork",
        local_addr=f"10.77.0.{host + 1}",
    )
    try:
        elastic_launch(config, rank)(recipe, str(out), host)
        os._exit(0)
    except BaseException as error:
        print(repr(error)[:2000], file=sys.stderr)
        os._exit(1)


def rank(recipe: str, out: str, host: int) -> None:
    """What a rank does."""
    number, again = os.environ["LOCAL_RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
    with open(f"said-h{host}-{again}-{number}", "w", encoding="utf-8") as said:
        os.dup2(said.fileno(), 2)
        os.dup2(said.fileno(), 1)
    code = make_app()(["run", recipe, "--out", out], standalone_mode=False) or 0
    sys.stderr.flush()
    if code:
        os._exit(code)


def wait_for(there: Callable[[], bool]) -> bool:
    """Whether something came to be."""
    end = time.monotonic() + LONGEST_S
    while not there() and time.monotonic() < end:
        time.sleep(0.02)
    return there()


SCENARIOS = {"hung": hung, "damaged": damaged, "full_disk": full_disk, "cut_off": cut_off}


def main() -> None:
    folder, *names = sys.argv[1:]
    place = Workplace(Path(folder).resolve())
    place.warm_()
    for name in names:
        print(json.dumps({name: SCENARIOS[name](place)}), flush=True)


if __name__ == "__main__":
    main()
