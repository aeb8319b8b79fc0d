"""`config/README.md`, written from the typed models: every key with its type, default and meaning."""

import ast
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scripts.recipe.models import Recipe
from scripts.recipe.problems import models_in

PATH = Path("config") / "README.md"
_SCALARS = {str: "text", int: "integer", float: "number", bool: "true or false"}
_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "at least", "max_length": "at most"}
_HEAD = """# Recipes

A recipe names mixtures of data and a table of models; what has to be made, and in which order, is read off it. Unknown
keys are errors. Written from the typed models in `scripts/recipe/` by `python -m scripts.recipe docs`: change it there.

| file | what it makes |
|---|---|
{recipes}

    snakemake --cores 8 --configfile config/my-recipe.yaml            # run a recipe
    snakemake --cores 8 release --configfile config/my-recipe.yaml    # one target of it
    python -m scripts.recipe check config/my-recipe.yaml              # OK, or every problem with file, line and key
    python -m scripts.recipe pin FOLDER FILE...                       # digests of your files, to paste below `files:`

A target stands before `--configfile`, which takes all words behind it for recipes.

After each edit of a file of yours pin it again and put the new line into the recipe: the pin alone tells that the data
is other data. With the old pin a changed file goes unnoticed as long as its download lies in `results/`; the next
download stops at it. `check` notices another length, and a folder or file that this machine lacks.

A second file after `--configfile` is laid over the first, key by key: a place to name your own copy of a private source
(`sources: {{rp_forums: {{fetch: {{folder: $FORUMS, files: {{...}}}}}}}}`) without touching a recipe.

`sources/` holds one file for each data source, `suites/` one for each benchmark suite, `datasets/` one for
each benchmark data set, `presets/` the defaults that `train.preset` names, `published/` figures to compare with. A
source, suite or data set may also stand in the recipe itself. If it has the name of one of these files, single keys are
laid over the file; with all needed keys it takes the file's place.
"""


def document(root: Path) -> str:
    """Return the text of `config/README.md`."""
    recipes = "\n".join(f"| `{path.name}` | {_title(path)} |" for path in sorted((root / "config").glob("*.yaml")))
    parts = [_HEAD.format(recipes=recipes)]
    for model, where in _sections(Recipe, ""):
        parts.append(_section(model, where))
    return "\n".join(parts)


def _title(path: Path) -> str:
    title = yaml.safe_load(path.read_text(encoding="utf-8")).get("title", "")
    return str(title).replace("|", "\\|")


def _sections(model: type[BaseModel], where: str) -> Iterator[tuple[type[BaseModel], str]]:
    """Yield each model below `model` once, with the first key path that leads to it, parents before children."""
    seen: set[type[BaseModel]] = set()
    waiting = [(model, where)]
    while waiting:
        current, at = waiting.pop(0)
        if current in seen:
            continue
        seen.add(current)
        yield current, at
        children = []
        for name, field in current.model_fields.items():
            step = f"{at}.{name}".lstrip(".") + (".<name>" if _is_table(field.annotation) else "")
            children += [(child, step) for child in models_in(field.annotation)]
        waiting = children + waiting


def _is_table(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_is_table(part) for part in get_args(annotation))


def _section(model: type[BaseModel], where: str) -> str:
    told = meanings(model)
    rows = [
        f"| `{name}` | {_type(field.annotation, field)} | {_default(field)} | {_plain(told.get(name))} |"
        for name, field in model.model_fields.items()
    ]
    title = f"## `{where}`" if where else "## The recipe file"
    tag = model.model_fields.get("adapter")
    if tag is not None:
        title += f", adapter `{get_args(tag.annotation)[0]}`"
    head = [title, "", _plain(model.__doc__), "", "| key | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the text below each key of a model, read from its source.

    pydantic could keep these texts itself, but at the price of 0.2 s for every start of every stage.
    """
    found: dict[str, str] = {}
    for owner in reversed([c for c in model.__mro__ if c.__module__.startswith("scripts.")]):
        before: ast.AST | None = None
        for node in ast.parse(inspect.getsource(owner)).body[0].body:  # type: ignore[attr-defined]
            text = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else None
            if isinstance(text, str) and isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
                found[before.target.id] = text
            before = node
    return found


def _plain(text: str | None) -> str:
    """Return a docstring as one line that can stand in a table."""
    return re.sub(r"\s+", " ", text or "").strip().replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None or value in ("", [], {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(annotation: Any, field: FieldInfo | None = None) -> str:
    """Return a type in words that a user of YAML knows."""
    limits = _limits(getattr(field, "metadata", None) or [])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0]) + _limits(_flat(arguments[1:]))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in {Union, types.UnionType}:
        if all(models_in(part) for part in arguments) and len(arguments) > 2:
            return "keys of one of the adapters"
        return " or ".join(_type(part) for part in arguments if part is not type(None)) + limits
    if origin is list:
        return f"list of {_type(arguments[0])}" + limits
    if origin is dict:
        return f"table of {_type(arguments[1])}" + limits
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"keys of {annotation.__name__}"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(
        annotation, str(annotation)
    ) + limits


def _flat(metadata: Any) -> list[Any]:
    return [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _limits(metadata: list[Any]) -> str:
    """Return ` >= 1, <= 5` and the like."""
    found = [(sign, getattr(item, key, None)) for item in metadata for key, sign in _LIMITS.items()]
    shown = [f"{sign} {value}" for sign, value in found if value is not None]
    return f" {', '.join(shown)}" if shown else ""
