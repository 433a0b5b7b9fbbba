"""Network namespaces joined by a bridge: hosts on one machine, each with its own counters.

Needs root and the `ip` command. What a process sends is read from the counters of its interface,
headers and acknowledgements included.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERFACE = "eth0"


@contextmanager
def hosts(count: int) -> Iterator[list[list[str]]]:
    """For each host what to put before a command that shall run there."""
    tag = f"s{os.getpid() % 100_000}"
    bridge = f"{tag}b"
    names = [f"{tag}n{k}" for k in range(count)]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        for k, name in enumerate(names):
            _ip("netns", "add", name)
            outside = f"{tag}v{k}"
            _ip("link", "add", outside, "type", "veth", "peer", "name", INTERFACE, "netns", name)
            _ip("link", "set", outside, "master", bridge, "up")
            _ip("-n", name, "addr", "add", f"10.77.0.{k + 1}/24", "dev", INTERFACE)
            _ip("-n", name, "link", "set", INTERFACE, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in names:
            _ip("netns", "del", name, check=False)
        _ip("link", "del", bridge, check=False)


def sent_bytes() -> int:
    """What this process's host has sent so far over its interface."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == INTERFACE:
            return int(counters.split()[8])
    raise OSError(f"no interface {INTERFACE} in this namespace")


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=not check)
