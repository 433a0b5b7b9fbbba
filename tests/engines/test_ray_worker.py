"""What a worker of a Ray cluster does is checked without Ray: its lines, its module, its code."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from secateur.engines.ray_worker import Call, Lines, line_key, run_module


class Memory:
    """A store in this process."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value


def test_lines_are_numbered_and_come_whole() -> None:
    store = Memory()
    print("one\ntw", file=Lines(store, 3), end="")
    assert store.kept == {line_key(3, 0): "one"}
    lines = Lines(store, 4)
    for part in ("a", "b\n", "\nc"):
        assert lines.write(part) == len(part)
    assert [store.kept[line_key(4, count)] for count in range(2)] == ["ab", ""]
    assert line_key(4, 2) not in store.kept


@pytest.mark.parametrize(
    ("ending", "code"),
    [("", 0), ("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('no')", 1), ("1 / 0", 1)],
)
def test_a_module_is_run_as_the_main_one(
    ending: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["before"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", [PathFinder])  # pytest's own loader has no code to run
    said = tmp_path / "said"
    write = "pathlib.Path(sys.argv[2]).write_text(__name__ + sys.argv[1])"
    text = f"import pathlib, sys\n{write}\n{ending}\n"
    (tmp_path / "a_called_module.py").write_text(text, encoding="utf-8")
    call = Call("a_called_module", ("1", str(said)), str(tmp_path))
    assert run_module(call) == code
    assert said.read_text("utf-8") == "__main__1"
