"""The ten tasks of `examples/tasks` run, are short, and come out as they say."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "examples" / "tasks"
TASKS = sorted(FOLDER.glob("[0-9]*.py"))
LINES_ALLOWED = 15
DENSE_AT_LEAST = 95.0
RECOVERED_WITHIN = 4.0
"""Points of the 450 test images' accuracy."""

Run = Callable[[str], dict[str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a task in an empty folder; what it printed, by each line's first word."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def printed(name: str) -> dict[str, str]:
        runpy.run_path(str(next(FOLDER.glob(f"{name}_*.py"))))
        torch.set_num_threads(threads)
        pairs = (
            re.split(r"[:\s]", line, maxsplit=1) for line in capsys.readouterr().out.splitlines()
        )
        return dict(pairs)

    return printed


def numbers(line: str) -> list[int]:
    """Every whole number of at least four digits, which are written with commas."""
    return [int(found.replace(",", "")) for found in re.findall(r"\d+(?:,\d{3})+", line)]


def percents(line: str) -> list[float]:
    return [float(found) for found in re.findall(r"([\d.]+)%", line)]


def test_there_are_ten() -> None:
    assert [path.name[:2] for path in TASKS] == [f"{k:02}" for k in range(1, 11)]


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_it_has_under_15_lines(path: Path) -> None:
    """After the docstring and the imports, blank lines and comments not counted."""
    source = path.read_text("utf-8")
    body = [n for n in ast.parse(source).body if not isinstance(n, ast.Import | ast.ImportFrom)]
    assert isinstance(body[0], ast.Expr), "a task starts with a docstring"
    lines = source.splitlines()[body[1].lineno - 1 :]
    code = [line for line in lines if line.strip() and not line.strip().startswith("#")]
    assert len(code) < LINES_ALLOWED


def test_weight_vector(run: Run) -> None:
    out = run("01")
    kept = {name: int(line.split()[0]) for name, line in out.items()}
    right = {name: percents(line)[0] for name, line in out.items()}
    assert kept["dense"] == 30
    assert kept["pruned"] == kept["random"] <= 20
    assert right["dense"] > DENSE_AT_LEAST
    assert right["pruned"] > right["dense"] - RECOVERED_WITHIN
    assert right["pruned"] > right["random"]


def check_recovery(out: dict[str, str], *, criteria: str, share: float) -> None:
    """Each criterion's line: what there was and what is left, then accuracies, recovered last."""
    dense = percents(out["dense"])[-1]
    assert dense > DENSE_AT_LEAST
    for criterion in criteria.split():
        before, after = numbers(out[criterion])[-2:]
        assert after <= share * before
        assert percents(out[criterion])[-1] > dense - RECOVERED_WITHIN


def test_structured(run: Run) -> None:
    out = run("02")
    check_recovery(out, criteria="l2 random", share=0.5)
    for criterion in ("l2", "random"):
        proof = re.search(r"proof: (\d+) groups, ([\d.e+-]+),", out[criterion])
        assert proof is not None
        assert int(proof[1]) >= 2
        assert float(proof[2]) < 1e-4


def test_layers(run: Run) -> None:
    out = run("03")
    assert out["dense"].startswith(" 10 layers")
    assert out["block_output"].startswith(" 6 layers")
    check_recovery(out, criteria="block_output random", share=0.51)


def test_filters(run: Run) -> None:
    out = run("04")
    for criterion in ("l1", "random"):
        assert "filters [8, 16, 32]" in out[criterion]
        assert percents(out[criterion])[-1] > percents(out["dense"])[0] - RECOVERED_WITHIN


def test_activations(run: Run) -> None:
    out = run("05")
    check_recovery(out, criteria="activation_mean apoz random", share=0.9)


def test_importance(run: Run) -> None:
    out = run("06")
    check_recovery(out, criteria="taylor fisher random", share=0.5)


def test_sparsity(run: Run) -> None:
    out = run("07")
    lasso, plain = percents(out["group"]), percents(out["without"])
    assert lasso[1] > plain[1], "what the lasso made small is missed less"
    assert min(lasso[0], lasso[2], plain[2]) > DENSE_AT_LEAST - RECOVERED_WITHIN
    assert numbers(out["group"])[1] < 0.5 * numbers(out["group"])[0]
    assert numbers(out["masks"])[0] == round(0.8 * 25_744)
    assert percents(out["masks"])[0] > DENSE_AT_LEAST - RECOVERED_WITHIN


def test_whole_model(run: Run) -> None:
    out = run("08")
    for line in out.values():
        before, after, size = numbers(line)
        assert after <= 0.25 * before
        assert size < 0.3 * 4 * before
        assert percents(line)[1] > percents(line)[0] - RECOVERED_WITHIN


def test_distillation(run: Run) -> None:
    out = run("09")
    check_recovery(out, criteria="l2 random", share=0.3)
    assert all("distilled" in out[criterion] for criterion in ("l2", "random"))


def test_quantization(run: Run) -> None:
    out = run("10")
    for line in out.values():
        dense_bytes, pruned_bytes, int8_bytes = numbers(line)
        assert pruned_bytes <= 0.4 * dense_bytes
        assert int8_bytes < 0.5 * pruned_bytes
        dense, pruned, quantized = percents(line)
        assert pruned > dense - RECOVERED_WITHIN
        assert abs(quantized - pruned) <= 1.0
