"""Digest of a stage's code: the syntax trees of all that it imports from `scripts`, nothing else.

Comments, formatting and docstrings don't count; a changed helper does. Own dump instead of `ast.dump`, whose
text differs from Python 3.13 on (python/cpython#116023).
"""

import ast
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.artifact.digest import ArtifactError

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "scripts"
# The door between Snakemake and a stage moves and hashes bytes but never decides them: a better error message
# in it must not retrain a model. What a stage imports beside the door counts as usual.
DOOR = ROOT / PACKAGE / "artifact" / "stage.py"
_UNSEEN = frozenset({"ctx", "type_comment", "kind"})
_IGNORED_SUFFIXES = frozenset({".pyc", ".md"})


def stage_code(stage: str, root: Path = ROOT) -> str:
    """Return the SHA-256 over the import closure of `scripts/<stage>/` and the data files beside its code."""
    digest = hashlib.sha256()
    for name, content in module_digests(stage, root).items():
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def module_digests(stage: str, root: Path = ROOT) -> dict[str, str]:
    """Return the digest of each file of the closure by its path below `root`: tells which of them changed."""
    return {path.relative_to(root).as_posix(): _digest(path) for path in closure(stage, root)}


def _digest(path: Path) -> str:
    return _source(path).digest if path.suffix == ".py" else hashlib.sha256(path.read_bytes()).hexdigest()


def closure(stage: str, root: Path = ROOT) -> list[Path]:
    """Return the files that a stage's result can depend on, sorted.

    Raises:
        ArtifactError: the stage, or a module that it needs, is missing from the checkout.
    """
    folder = root / PACKAGE / stage
    if not (folder / "__main__.py").is_file():
        lost = (folder / "__main__.py").relative_to(root)
        raise ArtifactError(f"{lost}: missing; restore the checkout: git checkout -- {lost}")
    found: set[Path] = set()
    waiting = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in _IGNORED_SUFFIXES]
    door = root / DOOR.relative_to(ROOT)
    while waiting:
        path = waiting.pop()
        if path in found or path == door:
            continue
        found.add(path)
        if path.suffix == ".py":
            imports = _source(path).imports
            waiting.extend(file for module in imports for file in _module_files(module, root))
            _require_present(path, imports, root)
    return sorted(found)


def _require_present(path: Path, imports: tuple[str, ...], root: Path) -> None:
    """Refuse half a checkout by name: a lost module would else only change the digest, or fail in the job's log.

    Raises:
        ArtifactError: a module of the package that `path` imports, or takes from a package, is not there.
    """
    for module in imports:
        parts = module.split(".")
        if root.joinpath(*parts).is_dir() or root.joinpath(*parts).with_suffix(".py").is_file():
            continue
        above = root.joinpath(*parts[:-1])
        inside = above.with_suffix(".py") if above.with_suffix(".py").is_file() else above / "__init__.py"
        if not inside.is_file() or parts[-1] not in _words(inside):
            lost = root.joinpath(*parts).with_suffix(".py").relative_to(root)
            by = path.relative_to(root)
            raise ArtifactError(f"{lost}: missing, but {by} imports it; restore the checkout: git checkout -- {lost}")


@cache
def _words(path: Path) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class _Source:
    """What one pass over a module's syntax tree finds."""

    digest: str
    imports: tuple[str, ...]
    """Dotted names of modules of the package, and of what is taken from them."""


@cache
def _source(path: Path) -> _Source:
    text: list[str] = []
    imports: list[str] = []
    _dump(ast.parse(path.read_text(encoding="utf-8")), text, imports)
    return _Source(hashlib.sha256("".join(text).encode("utf-8", "surrogatepass")).hexdigest(), tuple(imports))


@cache
def _module_files(module: str, root: Path) -> tuple[Path, ...]:
    """Return the file of a module and the __init__ files above it, as far as they exist."""
    parts = module.split(".")
    inits = [root.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts) + 1)]
    return tuple(p for p in (*inits, root.joinpath(*parts).with_suffix(".py")) if p.is_file())


def _dump(node: ast.AST, text: list[str], imports: list[str]) -> None:
    """Append a canonical text of a syntax tree; bare strings (docstrings) and empty fields are left out."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        imports += _imported(node)
    text.append(f"({type(node).__name__}")
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in _UNSEEN:
            continue
        text.append(f" {name}=")
        if isinstance(value, ast.AST):
            _dump(value, text, imports)
        elif isinstance(value, list):
            for item in value:
                if not isinstance(item, ast.AST):
                    text.append(f"{item!r},")
                elif not _is_docstring(item):
                    _dump(item, text, imports)
        else:
            text.append(repr(value))
    text.append(")")


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the package's own modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE]
    if node.level or (node.module or "").split(".")[0] != PACKAGE:
        return []
    return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
