"""Faults that the recipe alone shows, hours before the job that would trip over them; and what is lacking here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from scripts.artifact.code import ROOT
from scripts.recipe.benchmark import MIX_FORMATS
from scripts.recipe.create import LlamaShape
from scripts.recipe.fetch import Fetch
from scripts.recipe.models import Recipe
from scripts.recipe.problems import nearest
from scripts.recipe.yamlfile import KeyPath

if TYPE_CHECKING:
    from scripts.recipe.load import Loaded  # which imports this module

Say = Callable[[KeyPath, str], None]

SUFFIXES = {
    "pippa": (".jsonl", ".json"),
    "openorca": (".parquet",),
    "sharegpt": (".json", ".jsonl"),
    "airoboros": (".jsonl", ".json"),
    "aidungeon": (".txt",),
    "alpaca": (".jsonl", ".json"),
    "guess_instruction": (".jsonl", ".json"),
    "floyd": (".json", ".jsonl"),
    "forum": (".csv",),
    "stories": (".csv",),
    "sillytavern": (".jsonl",),
    "generic": (".jsonl", ".ndjson", ".json", ".parquet"),
}
"""Files that each adapter reads, by the end of their names in lower case; it passes over others."""


def check_faults(loaded: Loaded, say: Say) -> None:
    """Tell what can't work whatever the files hold: shapes, context lengths, files that no table names."""
    for name, model in loaded.recipe.models.items():
        if model.create is not None:
            _check_shape(model.create.architecture, ("models", name, "create", "architecture"), say)
        if model.train is not None:
            positions, given = _positions(loaded.recipe, model.train.base), model.train.pack.sequence_len
            if positions is not None and given > positions[0]:
                at: KeyPath = ("models", name, "train", "pack", "sequence_len")
                say(at, f"found {given}, but base {model.train.base} has {positions[0]} positions ({positions[1]})")
    for name, source in loaded.sources.items():
        known = SUFFIXES[source.read.adapter]
        if source.fetch is not None and not any(file.lower().endswith(known) for file in source.fetch.files):
            text = f"adapter {source.read.adapter} reads {' or '.join(known)} files, and fetch.files names none"
            say(("sources", name, "fetch", "files"), f"{text}; name such a file, or take the adapter that reads these")
    _check_tasks(loaded, say)


def _check_shape(shape: LlamaShape, at: KeyPath, say: Say) -> None:
    heads, groups = shape.num_attention_heads, shape.num_key_value_heads
    if shape.hidden_size % heads or shape.hidden_size // heads % 2:
        text = f"hidden_size {shape.hidden_size} over num_attention_heads {heads} must give an even whole number"
        say(at, f"{text}, the width of a head; change one of the two")
    if heads % groups:
        say(at, f"num_attention_heads {heads} must be a multiple of num_key_value_heads {groups}; change one of them")


def _positions(recipe: Recipe, name: str) -> tuple[int, str] | None:
    """Return the longest context of a model made here and the key that says so; None for a downloaded one."""
    seen = set()
    while name in recipe.models and name not in seen:
        seen.add(name)
        model = recipe.models[name]
        if model.create is not None:
            key = f"models.{name}.create.architecture.max_position_embeddings"
            return model.create.architecture.max_position_embeddings, key
        if model.train is not None:
            name = model.train.base
        elif model.merge is not None:
            name = model.merge.models[0]
    return None


def _check_tasks(loaded: Loaded, say: Say) -> None:
    for suite, name, task in loaded.tasks():
        at: KeyPath = ("suites", suite, "tasks", name)
        if task.dataset is not None and task.dataset not in loaded.datasets:
            continue  # told already
        fetch = loaded.fetch_of(suite, task)
        where = f"datasets.{task.dataset}.fetch.files" if task.dataset else f"suites.{suite}.fetch.files"
        for key, file in (("file", task.file), ("shots_file", task.shots_file)):
            if file is not None and fetch is None:
                say((*at, key), f"file {file!r} lies nowhere: give the suite a fetch, or the task a dataset")
            elif file is not None and fetch is not None and file not in fetch.files:
                known = f"it names: {', '.join(fetch.files)}{nearest(file, fetch.files)}"
                say((*at, key), f"file {file!r} is not among {where}; {known}")
        if task.file is None and task.lm_eval is None and task.format not in MIX_FORMATS:
            say(at, f"format {task.format} reads a file; add file: NAME, one of {where}")


def lacking_here(fetch: Fetch) -> Iterator[str]:
    """Yield what of a local folder this machine lacks; another one may well have it, so these are no problems.

    A changed file is told by its length alone: reading all of it is the download's work.
    """
    if fetch.folder is None:
        return
    try:
        folder = ROOT / fetch.folder_path()
    except ValueError as error:
        yield str(error)
        return
    if not folder.is_dir():
        yield f"no folder {fetch.folder} on this machine"
        return
    for name, pin in fetch.files.items():
        path = folder / name
        if not path.is_file():
            yield f"no file {name} in {fetch.folder}"
        elif pin is not None and pin.bytes is not None and path.stat().st_size != pin.bytes:
            found = f"{name} has {path.stat().st_size:,} bytes, its pin says {pin.bytes:,}"
            yield f"{found}; if you changed it, `python -m scripts.recipe pin {fetch.folder} {name}` prints the new pin"
