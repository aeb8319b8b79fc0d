"""Digest of a stage's code: the syntax trees of all that it imports from `scripts`, nothing else.

Comments, formatting and docstrings don't count; a changed helper does. Own dump instead of `ast.dump`, whose
text differs from Python 3.13 on (python/cpython#116023).
"""

import ast
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "scripts"
# The door between Snakemake and a stage moves and hashes bytes but never decides them: a better error message
# in it must not retrain a model. What a stage imports beside the door counts as usual.
DOOR = ROOT / PACKAGE / "artifact" / "stage.py"
_IGNORED_SUFFIXES = frozenset({".pyc", ".md"})


def stage_code(stage: str, root: Path = ROOT) -> str:
    """Return the SHA-256 over the import closure of `scripts/<stage>/` and the data files beside its code."""
    digest = hashlib.sha256()
    for path in closure(stage, root):
        content = _tree_digest(path) if path.suffix == ".py" else hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def closure(stage: str, root: Path = ROOT) -> list[Path]:
    """Return the files that a stage's result can depend on, sorted."""
    folder = root / PACKAGE / stage
    found: set[Path] = set()
    waiting = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in _IGNORED_SUFFIXES]
    door = root / DOOR.relative_to(ROOT)
    while waiting:
        path = waiting.pop()
        if path in found or path == door:
            continue
        found.add(path)
        if path.suffix == ".py":
            waiting.extend(_imported_files(path, root))
    return sorted(found)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imported_files(path: Path, root: Path) -> tuple[Path, ...]:
    files: list[Path] = []
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == PACKAGE:
            files += _module_files(node.module or "", root)
            for alias in node.names:
                files += _module_files(f"{node.module}.{alias.name}", root)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    files += _module_files(alias.name, root)
    return tuple(files)


def _module_files(module: str, root: Path) -> list[Path]:
    """Return the file of a module and the __init__ files above it, as far as they exist."""
    parts = module.split(".")
    inits = [root.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts) + 1)]
    return [p for p in (*inits, root.joinpath(*parts).with_suffix(".py")) if p.is_file()]


@cache
def _tree_digest(path: Path) -> str:
    digest = hashlib.sha256()
    _dump(_parsed(path), digest.update)
    return digest.hexdigest()


def _dump(node: object, put: Callable[[bytes], object]) -> None:
    """Write a canonical text of a syntax tree; bare strings (docstrings) and empty fields are left out."""
    if isinstance(node, ast.AST):
        put(f"({type(node).__name__}".encode())
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name in {"ctx", "type_comment", "kind"}:
                continue
            put(f" {name}=".encode())
            _dump(value, put)
        put(b")")
    elif isinstance(node, list):
        for item in node:
            if not _is_docstring(item):
                _dump(item, put)
                put(b",")
    else:
        put(repr(node).encode("utf-8", "surrogatepass"))


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
