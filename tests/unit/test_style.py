"""The house's hard bounds; its aims are in CONTRIBUTING.md."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = sorted((ROOT / "scripts").rglob("*.py"))
FOUNDATIONS = {"artifact", "recipe"}
BANNED_NAMES = {"eval", "exec", "compile", "__import__"}
BANNED_ATTRIBUTES = {("os", "system"), ("os", "popen"), ("yaml", "load"), ("pickle", "load"), ("pickle", "loads")}
BANNED_MODULES = {"pickle", "shelve", "marshal", "dill", "joblib"}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def relative(path: Path) -> str:
    """Return a path as people write it."""
    return path.relative_to(ROOT).as_posix()


def test_files_and_functions_fit_their_bounds() -> None:
    bad = []
    for path in SOURCES:
        text = path.read_text()
        if len(text.splitlines()) > 400:
            bad.append(f"{relative(path)}: {len(text.splitlines())} lines")
        for node in functions(ast.parse(text)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > 60:
                bad.append(f"{relative(path)}:{node.lineno} {node.name}: {length} lines")
    assert bad == []


def test_everything_is_typed_and_public_functions_are_documented() -> None:
    bad = []
    for path in SOURCES:
        for node in functions(ast.parse(path.read_text())):
            if node.returns is None:
                bad.append(f"{relative(path)}:{node.lineno} {node.name}: no return type")
            if not node.name.startswith("_") and not ast.get_docstring(node) and not _nested(path, node):
                bad.append(f"{relative(path)}:{node.lineno} {node.name}: no docstring")
    assert bad == []


def _nested(path: Path, node: ast.AST) -> bool:
    """Whether a function is defined inside another one."""
    for outer in functions(ast.parse(path.read_text())):
        if outer.lineno < node.lineno <= (outer.end_lineno or 0):  # type: ignore[attr-defined]
            return True
    return False


def test_no_stage_imports_another_stage() -> None:
    crossing = []
    stages = {p.name for p in (ROOT / "scripts").iterdir() if p.is_dir() and p.name != "__pycache__"}
    for path in SOURCES:
        room = path.relative_to(ROOT / "scripts").parts[0]
        for other in re.findall(r"^\s*(?:from|import) scripts\.(\w+)", path.read_text(), re.M):
            if other in stages - FOUNDATIONS and other != room:
                crossing.append(f"{relative(path)} -> {other}")
    assert crossing == []


def test_nothing_that_runs_foreign_code() -> None:
    """Rules R1 and R2: no pickle, no eval, no shell, no remote code."""
    bad = []
    for path in SOURCES:
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            at = f"{relative(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                bad += [f"{at} imports {name}" for name in names if name.split(".")[0] in BANNED_MODULES]
            if isinstance(node, ast.Call):
                called = node.func
                if isinstance(called, ast.Name) and called.id in BANNED_NAMES:
                    bad.append(f"{at} calls {called.id}")
                dotted = isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)
                if dotted and (called.value.id, called.attr) in BANNED_ATTRIBUTES:  # type: ignore[attr-defined]
                    bad.append(f"{at} calls {ast.unparse(called)}")
                for word in node.keywords:
                    is_true = isinstance(word.value, ast.Constant) and word.value.value is True
                    if is_true and word.arg in {"shell", "trust_remote_code"}:
                        bad.append(f"{at} passes {word.arg}=True")
                    if word.arg == "weights_only" and not is_true:
                        bad.append(f"{at} passes weights_only other than True")
    assert bad == []


def test_no_unfinished_work_and_no_paths_of_a_machine() -> None:
    bad = []
    words = re.compile(
        "|".join(["TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error", r"/home/\w", r"/work" + "/", "/tmp" + r"/\w"])
    )
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    for name in filter(None, listed):
        path = ROOT / name
        if (
            path.suffix in {".py", ".smk", ".yaml", ".md", ".toml", ".html", ".j2", ""}
            and path.is_file()
            and not path.is_symlink()
        ):
            text = path.read_text(encoding="utf-8", errors="replace")
            bad += [f"{name}: {match[0]}" for match in words.finditer(text)]
    assert bad == []


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."]], ids=["check", "format"]
)
def test_ruff(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_mypy_strict() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
