"""What the READMEs tell people to type works, and both tell the same story."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh.md"


def blocks(path: Path, language: str) -> list[str]:
    """Fenced blocks of a language, in order; every second fence ends one."""
    parts = re.split(r"^```(.*)$\n?", path.read_text(encoding="utf-8"), flags=re.M)
    fenced = zip(parts[1::4], parts[2::4], strict=True)
    return [body for tag, body in fenced if tag == language]


def test_both_languages_have_the_same_code_and_figures() -> None:
    for language in ("", "python", "console"):
        assert blocks(ENGLISH, language) == blocks(CHINESE, language) != []
    tables = [sorted(re.findall(r"\d+(?:[.,]\d+)*", table(path))) for path in (ENGLISH, CHINESE)]
    assert tables[0] == tables[1] != []


def table(path: Path) -> str:
    return "\n".join(line for line in path.read_text(encoding="utf-8").split("\n") if "|" in line)


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(ENGLISH, "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "smaller" / "model.safetensors").is_file()
    assert (tmp_path / "plan.json").is_file()
    assert names["proof"].max_rel_error < 1e-4  # type: ignore[attr-defined]


def test_commands(tmp_path: Path) -> None:
    lines = [line for block in blocks(ENGLISH, "console") for line in block.splitlines()]
    for line in lines:
        prompt, program, *arguments = line.split()
        assert (prompt, program) == ("$", "secateur")
        command = [sys.executable, "-m", "secateur.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert done.stdout.strip()
    assert (tmp_path / "smaller-cnn" / "model.safetensors").is_file()


def test_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for block in blocks(ENGLISH, ""):
        for line in block.strip().splitlines():
            target = line.split()[1]
            assert re.search(rf"^{target}:", makefile, re.M), target


def test_links_lead_somewhere() -> None:
    for path in (ENGLISH, CHINESE):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), target
