"""Recipe errors for people: file, line, key path, what was found, what is allowed, nearest spelling."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from scripts.recipe.base import Name, Sha256
from scripts.recipe.clean import Language
from scripts.recipe.fetch import RelativePath
from scripts.recipe.yamlfile import KeyPath, Place, dotted

# pydantic writes the branch of a discriminated union into the location; no user wrote these words.
_BRANCHES = {"pippa", "openorca", "sharegpt", "airoboros", "aidungeon", "alpaca", "guess_instruction"}
_BRANCHES |= {"floyd", "forum", "stories", "sillytavern", "generic"}


_PATTERNS = {
    get_args(kind)[1].pattern: words
    for kind, words in (
        (Name, "letters, digits, `.`, `_` and `-`, with a letter or digit first"),
        (Sha256, "64 lower-case hex digits; `python -m scripts.recipe pin FOLDER FILE...` prints them"),
        (
            RelativePath,
            "letters, digits, `.`, `_`, `-` and `/`, with a letter or digit first in each part; rename the file",
        ),
        (Language, "two or three lower-case letters, such as en"),
    )
}
"""What a regex of the models asks for, in words."""
PATH_WORDS = _PATTERNS[get_args(RelativePath)[1].pattern]


class RecipeError(Exception):
    """All problems of one recipe, one line each; nothing has been run."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean "x"?` for the closest allowed spelling, or nothing."""
    for found in difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6):
        matched = sum(block.size for block in difflib.SequenceMatcher(None, found, word).get_matching_blocks())
        # A common stem is no typing error: `openai` is not `openorca`.
        if len(word) + len(found) - 2 * matched <= max(2, len(word) // 2):
            return f'; did you mean "{found}"?'
    return ""


def problem(path: Path, places: Mapping[KeyPath, Place], key_path: KeyPath, text: str) -> str:
    """Return one message, with file and line of the deepest key that was really written; else only `path`."""
    known = key_path
    while known and known not in places:
        known = known[:-1]
    file, line = places[known] if known else (path, 0)
    where = f"{file}:{line}" if line else f"{file}"
    return f"{where}: {dotted(key_path)}: {text}"


def from_validation(
    error: ValidationError, model: type[BaseModel], path: Path, places: Mapping[KeyPath, Place], prefix: KeyPath = ()
) -> list[str]:
    """Translate pydantic's errors into one message each."""
    messages = []
    for item in error.errors():
        written = [part for part in item["loc"] if part != "[key]"]
        location: KeyPath = tuple(p for i, p in enumerate(written) if not (p in _BRANCHES and written[i - 1] == "read"))
        branch = next((str(p) for i, p in enumerate(written) if p in _BRANCHES and written[i - 1] == "read"), "")
        messages.append(problem(path, places, prefix + location, _explain(item, model, location, branch)))
    return messages


def _explain(item: Any, model: type[BaseModel], location: KeyPath, branch: str) -> str:
    kind, found = item["type"], item.get("input")
    if kind == "extra_forbidden":
        allowed = sorted(fields_at(model, location[:-1], branch))
        hint = nearest(str(location[-1]), allowed)
        return f"unknown key; allowed: {', '.join(allowed)}{hint}" if allowed else "unknown key"
    if kind == "missing":
        return "missing; add this key"
    if kind in {"literal_error", "union_tag_invalid"}:
        expected = str(item["ctx"].get("expected") or item["ctx"].get("expected_tags", ""))
        shown = item["ctx"].get("tag", found)
        choices = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
        own = "; for your own data take generic" if "generic" in choices else ""
        return f"found {shown!r}; allowed: {', '.join(choices)}{nearest(str(shown), choices) or own}"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind in {"too_long", "too_short"}:
        limits = item["ctx"]
        bound = f"at most {limits['max_length']}" if kind == "too_long" else f"at least {limits['min_length']}"
        return f"found {limits['actual_length'] or 'no'} entries; {bound} needed"
    shown_found = repr(found) if not isinstance(found, dict | list) else f"a {type(found).__name__}"
    return f"found {shown_found}; {_needed(kind, found, item)}"


def _needed(kind: str, found: Any, item: Any) -> str:
    """Return what is needed instead of a value of the wrong form."""
    limits = item.get("ctx", {})
    if kind == "string_pattern_mismatch" and limits["pattern"] in _PATTERNS:
        return f"needed: {_PATTERNS[limits['pattern']]}"
    if kind == "list_type":
        return f"a list is needed: write [{found}]" if isinstance(found, str | int | float) else "a list is needed"
    if kind in {"dict_type", "model_type", "model_attributes_type"}:
        return "a table of keys is needed"
    if kind in {"float_type", "int_type"} and isinstance(found, str) and _is_number(found):
        return "a number, not a text, is needed: leave the quotes away"
    return f"{item['msg'][:1].lower()}{item['msg'][1:]}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def fields_at(model: type[BaseModel], location: KeyPath, branch: str = "") -> dict[str, FieldInfo]:
    """Return the fields allowed at a key path, following tables, lists and optional sections.

    Of the adapters only `branch`, where it names one.
    """
    current: list[type[BaseModel]] = [model]
    for part in location:
        following: list[type[BaseModel]] = []
        for candidate in current:
            field = candidate.model_fields.get(str(part))
            following += models_in(field.annotation) if field is not None else []
        following = [found for found in following if not branch or _adapter(found) in ("", branch)]
        # The name of a table's entry (models.<name>) or a list index is no field: stay at the same models.
        current = following or current
    return {name: field for candidate in current for name, field in candidate.model_fields.items()}


def _adapter(model: type[BaseModel]) -> str:
    field = model.model_fields.get("adapter")
    return str(get_args(field.annotation)[0]) if field is not None else ""


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the pydantic models inside `dict[str, X]`, `X | None`, `list[X]` or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]
