"""The house rules that no linter knows: import order, file sizes, names, no pickle, golden API."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "secateur"
GOLDEN = ROOT / "tests" / "golden"
FILES = sorted(SOURCE.rglob("*.py"))

ORDER = (
    "core graph cost criteria select cut storage masks oneshot engines "
    "train search quantize export serve zoo report cli"
).split()
TOP = {"__init__", "pipeline", "demo"}  # may import any package except cli
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "base", "manager", "factory"}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# the names that an `import secateur` must not load: each is imported where it is used
LAZY = (
    "transformers torchvision timm matplotlib sklearn pandas typer rich jinja2 optuna ray torchao "
    "onnx onnxruntime openvino keras tensorboard wandb mlflow datasets gguf torch_pruning "
    "lightning pytorch_lightning"
).split()
LINES_ALLOWED = 400
# 30 lines and six parameters are the norm; these are the bounds that nothing may pass
FUNCTION_LINES_ALLOWED = 60
PARAMETERS_ALLOWED = 10

by_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_names(path: Path) -> Iterator[str]:
    """Every absolute module or member name that a file imports, anywhere in it."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(name: str) -> str | None:
    """The package of secateur that a dotted name lies in: 'cut' for 'secateur.cut.slicing'."""
    first, _, rest = name.partition(".")
    return (rest.split(".")[0] or "__init__") if first == "secateur" else None


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@by_file
def test_imports_run_one_way(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    allowed = set(ORDER[:-1]) | TOP if own in TOP else set(ORDER[: ORDER.index(own) + 1])
    if own == "cli":
        allowed |= TOP
    wrong = {name for name in imported_names(path) if (package_of(name) or own) not in allowed}
    assert not wrong, f"{own} may import only packages before it in {ORDER}"


def test_every_package_has_its_place() -> None:
    found = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES}
    assert found <= set(ORDER) | TOP


@by_file
def test_file_is_short_and_well_named(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_ALLOWED
    words = {word for part in path.relative_to(SOURCE).parts for word in part[:-3].split("_")}
    words |= set(path.relative_to(SOURCE).parts)
    assert not words & FORBIDDEN_NAMES


@by_file
def test_functions_are_small_and_have_no_mutable_default(path: Path) -> None:
    for function in functions(path):
        where = f"{path}:{function.lineno}: {function.name}"
        arguments = function.args
        defaults = [*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)]
        assert not any(isinstance(d, ast.List | ast.Dict | ast.Set) for d in defaults), where
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        assert count <= PARAMETERS_ALLOWED, f"{where} has {count} parameters"
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= FUNCTION_LINES_ALLOWED, f"{where} has {lines} lines"


@by_file
def test_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parse(path)), f"{path} has no module docstring"


@by_file
def test_no_pickle(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported_names(path)} & PICKLES
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "torch.save", f"{path}:{node.lineno}: save tensors as safetensors"
            safe = any(
                keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True"
                for keyword in node.keywords
            )
            assert called != "torch.load" or safe, f"{path}:{node.lineno}: weights_only=True"


@by_file
def test_no_bare_except(path: Path) -> None:
    for node in ast.walk(parse(path)):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), (
            f"{path}:{node.lineno}: name the exceptions"
        )


def test_import_loads_no_optional_dependency() -> None:
    code = f"import sys, secateur; print(*sorted(set({LAZY!r}) & set(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.split() == []


TESTS = sorted((ROOT / "tests").rglob("*.py"))
IN_EVERY_ENVIRONMENT = {
    *sys.stdlib_module_names,
    *"secateur torch numpy safetensors yaml pydantic typer rich jinja2 sklearn jaxtyping".split(),
    *"pytest hypothesis beartype".split(),
    *(path.stem for path in TESTS),
    *(path.stem for path in (ROOT / "benchmarks").rglob("*.py")),
}


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_test_module_imports_without_optional_packages(path: Path) -> None:
    """What `make test` does not install is imported in the test, by `pytest.importorskip`."""
    for node in parse(path).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.partition(".")[0] in IN_EVERY_ENVIRONMENT, f"{path}: {name}"


def test_public_api_is_frozen() -> None:
    import secateur

    expected = (GOLDEN / "public_api.txt").read_text(encoding="utf-8").split()
    assert sorted(secateur.__all__) == expected, "if this change is wanted: make golden"
    assert all(hasattr(secateur, name) for name in expected)


def test_command_line_is_frozen() -> None:
    from secateur.cli import describe_flags

    expected = (GOLDEN / "cli_flags.txt").read_text(encoding="utf-8").splitlines()
    assert describe_flags() == expected, "if this change is wanted: make golden"


def test_every_public_name_is_documented() -> None:
    documented = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = (GOLDEN / "public_api.txt").read_text(encoding="utf-8").split()
    missing = [name for name in names if f".{name}\n" not in documented]
    assert [name for name in missing if not name.endswith("Error")] == []
