"""Read a recipe with all that it names (sources, suites, presets) and check it as a whole."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from scripts.recipe.base import STAGES, Name
from scripts.recipe.benchmark import MIX_FORMATS, DataSet, Task
from scripts.recipe.checkpoints import parts
from scripts.recipe.faults import check_faults
from scripts.recipe.fetch import Fetch
from scripts.recipe.models import Recipe, Source, Suite, TrainModel
from scripts.recipe.problems import RecipeError, from_validation, nearest, problem
from scripts.recipe.published import Published
from scripts.recipe.yamlfile import KeyPath, Place, YamlError, load_yaml

PRESET_SECTIONS = ("pack", "optimizer", "numerics", "cadence")


@dataclass
class Loaded:
    """A checked recipe beside the sources and suites that it uses, and where each key was written."""

    recipe: Recipe
    path: Path
    places: dict[KeyPath, Place]
    sources: dict[str, Source] = field(default_factory=dict)
    suites: dict[str, Suite] = field(default_factory=dict)
    datasets: dict[str, DataSet] = field(default_factory=dict)
    published: list[Published] = field(default_factory=list)
    missing_sources: list[str] = field(default_factory=list)
    blind_suite: Suite | None = None
    """The suite of the blind test, which need not be one of the benchmark's."""

    def tasks(self) -> Iterator[tuple[str, str, Task]]:
        """Yield (suite, task, settings) of every row of a benchmark table, sorted."""
        for suite_name, suite in sorted(self.suites.items()):
            for task_name, task in sorted(suite.tasks.items()):
                yield suite_name, task_name, task

    def fetch_of(self, suite: str, task: Task) -> Fetch | None:
        """Return where a task's files come from: its data set, or its suite."""
        return self.datasets[task.dataset].fetch if task.dataset else self.suites[suite].fetch


def load_recipe(paths: Sequence[Path], root: Path, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Load recipe files (later ones win key by key) and everything that they name under `root/config`.

    Args:
        paths: recipe files; usually one.
        root: the repository, which holds `config/sources`, `config/suites`, `config/presets`.
        overrides: values of the command line (`--config key=value`).

    Raises:
        RecipeError: with one message for each problem found.
    """
    merged: dict[str, Any] = {}
    places: dict[KeyPath, Place] = {}
    for path in paths:
        data, found_places = _read(path)
        merged = overlay(merged, data)
        places.update(found_places)
    merged = overlay(merged, dict(overrides or {}))
    places.update(dict.fromkeys(_key_paths(overrides or {}), (Path("on the command line (--config)"), 0)))
    path = paths[-1]
    _apply_files(merged, root, places)
    _apply_presets(merged, root, path, places)
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        raise RecipeError(from_validation(error, Recipe, path, places)) from None
    loaded = Loaded(recipe, path, places)
    problems = _resolve(loaded, root)
    check_faults(loaded, lambda key_path, text: problems.append(problem(path, places, key_path, text)))
    if problems:
        raise RecipeError(problems)
    return loaded


def _key_paths(values: Mapping[str, Any], at: KeyPath = ()) -> Iterator[KeyPath]:
    for key, value in values.items():
        yield (*at, str(key))
        if isinstance(value, Mapping):
            yield from _key_paths(value, (*at, str(key)))


def recipe_name(paths: Sequence[Path], root: Path) -> str:
    """Return the name of a recipe, and so of its folder below `results/`, even where the rest of it has problems.

    Raises:
        RecipeError: unreadable, or without a sound name.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = overlay(merged, _read(path)[0])
    try:
        return TypeAdapter(Name).validate_python(merged.get("name"), strict=True)
    except ValidationError:
        return load_recipe(paths, root).recipe.name


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above` laid over it, tables merged key by key."""
    result = copy.deepcopy(dict(below))
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = overlay(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _read(path: Path) -> tuple[dict[str, Any], dict[KeyPath, Place]]:
    if not path.exists():
        raise RecipeError([f"no recipe {path}{nearest(path.stem, (p.stem for p in path.parent.glob('*.yaml')))}"])
    try:
        data, places = load_yaml(path)
    except YamlError as error:
        raise RecipeError([str(error)]) from None
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise RecipeError([f"{path}: {found}; a table of keys is needed, such as `name: my-recipe`"])
    return data, places


def _apply_files(data: dict[str, Any], root: Path, places: dict[KeyPath, Place]) -> None:
    """Lay the recipe's own entries over the files of the same name: a private source needs only `fetch`.

    One that is whole by itself takes the file's place: whoever writes all of it means his own thing, and the file's
    purpose, filters or known problems would slip into it unseen.
    """
    for table, model in (("sources", Source), ("suites", Suite), ("datasets", DataSet)):
        needed = {key for key, field in model.model_fields.items() if field.is_required()}
        entries = data.get(table)
        if not isinstance(entries, dict):
            continue
        files = {p.stem: p for p in (root / "config" / table).glob("*.yaml")}
        for name, own in entries.items():
            if isinstance(own, dict) and name in files and not needed <= own.keys():
                below, below_places = _read(files[name])
                if _other_adapter(own, below):
                    del below["read"]
                entries[name] = overlay(below, own)
                for key_path, place in below_places.items():
                    places.setdefault((table, name, *key_path), place)


def _other_adapter(own: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    """Whether both name an adapter, and not the same: the settings of one mean nothing to the other."""
    chosen = [entry["read"].get("adapter") for entry in (own, below) if isinstance(entry.get("read"), dict)]
    return len(chosen) == 2 and chosen[0] is not None and chosen[0] != chosen[1]


def _apply_presets(data: dict[str, Any], root: Path, path: Path, places: dict[KeyPath, Place]) -> None:
    """Lay each training's own keys over its preset file."""
    models = data.get("models")
    for name, model in models.items() if isinstance(models, dict) else ():
        train = model.get("train") if isinstance(model, dict) else None
        if not isinstance(train, dict):
            continue
        preset = train.get("preset", "corrected")
        known = sorted(p.stem for p in (root / "config" / "presets").glob("*.yaml"))
        if preset not in known:
            text = f"found {preset!r}; allowed: {', '.join(known) or 'none'}{nearest(str(preset), known)}"
            raise RecipeError([problem(path, places, ("models", name, "train", "preset"), text)])
        preset_path = root / "config" / "presets" / f"{preset}.yaml"
        defaults, preset_places = _read(preset_path)
        try:
            TrainModel.model_validate({"base": "x", "mixture": "x", **defaults})
        except ValidationError as error:
            raise RecipeError(from_validation(error, TrainModel, preset_path, preset_places)) from None
        for section in PRESET_SECTIONS:
            own = train.get(section, {})
            if isinstance(own, dict):
                train[section] = overlay(defaults.get(section, {}), own)


def _resolve(loaded: Loaded, root: Path) -> list[str]:
    """Load the named sources and suites; check every reference and the chain of models."""
    recipe = loaded.recipe
    problems: list[str] = []

    def say(key_path: KeyPath, text: str) -> None:
        problems.append(problem(loaded.path, loaded.places, key_path, text))

    for mixture_name, mixture in recipe.mixtures.items():
        for source_name, share in mixture.sources.items():
            at: KeyPath = ("mixtures", mixture_name, "sources", source_name)
            source = _named(source_name, recipe.sources, Source, root / "config" / "sources", at, say)
            if source is None:
                continue
            loaded.sources[source_name] = source
            if source.fetch is None and share.missing == "stop":
                percent = f", {share.target_percent:g} % of this mixture" if share.target_percent else ""
                say(
                    at,
                    f"private source without a file{percent}; name the file under sources.{source_name}.fetch, "
                    "or set missing: reweight to go on without it",
                )
            elif source.fetch is None and source_name not in loaded.missing_sources:
                loaded.missing_sources.append(source_name)
    for index, suite_name in enumerate(recipe.benchmark.suites):
        at = ("benchmark", "suites", index)
        suite = _named(suite_name, recipe.suites, Suite, root / "config" / "suites", at, say)
        if suite is not None:
            loaded.suites[suite_name] = suite
            for data_name in dict.fromkeys(task.dataset for task in suite.tasks.values() if task.dataset):
                data = _named(data_name, recipe.datasets, DataSet, root / "config" / "datasets", at, say)
                if data is not None:
                    loaded.datasets[data_name] = data
    for index, name in enumerate(recipe.published):
        figures = _named(name, {}, Published, root / "config" / "published", ("published", index), say)
        if figures is not None:
            loaded.published.append(figures)
    _check_references(recipe, say)
    _check_cycles(recipe, say)
    _check_releases(recipe, say)
    _check_blind_test(loaded, root, say)
    _check_names(loaded, say)
    return problems


def _named(name: str, inline: Mapping[str, Any], model: type[BaseModel], folder: Path, at: KeyPath, say: Any) -> Any:
    """Return the named entry from the recipe itself or from its file in `folder`."""
    if name in inline:
        return inline[name]
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted({*inline, *(p.stem for p in folder.glob("*.yaml"))})
        say(at, f"unknown {model.__name__.lower()} {name!r}; known: {', '.join(known) or 'none'}{nearest(name, known)}")
        return None
    data, places = _read(path)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise RecipeError(from_validation(error, model, path, places)) from None


def references(recipe: Recipe, name: str) -> list[tuple[KeyPath, str]]:
    """Return the models that model `name` is made from, each with the key path that names it."""
    model, at = recipe.models[name], ("models", name)
    if model.train is not None:
        return [((*at, "train", "base"), model.train.base)]
    if model.merge is not None:
        return [((*at, "merge", "models", i), parent) for i, parent in enumerate(model.merge.models)]
    if model.create is not None and model.create.tokenizer.download is not None:
        return [((*at, "create", "tokenizer", "download"), model.create.tokenizer.download)]
    return []


def _check_references(recipe: Recipe, say: Any) -> None:
    models, mixtures = sorted(recipe.models), sorted(recipe.mixtures)
    for name, model in recipe.models.items():
        for at, parent in references(recipe, name):
            if parent not in recipe.models:
                known = f"known: {', '.join(models)}{nearest(parent, models)}"
                say(at, f"model {parent!r} is not in the table of models; {known}")
        mixture_uses: list[tuple[KeyPath, str]] = []
        if model.train is not None:
            mixture_uses.append((("models", name, "train", "mixture"), model.train.mixture))
        if model.create is not None:
            choice, at = model.create.tokenizer, ("models", name, "create", "tokenizer")
            if (choice.mixture is None) == (choice.download is None):
                say(at, "needs exactly one of mixture, download")
            elif choice.mixture is not None:
                mixture_uses.append(((*at, "mixture"), choice.mixture))
                if choice.vocab_size is None:
                    say(at, "vocab_size is missing; a tokenizer trained on a mixture needs it")
        for at, mixture in mixture_uses:
            if mixture not in recipe.mixtures:
                known = ", ".join(mixtures) or "none"
                say(
                    at,
                    f"mixture {mixture!r} is not in the table of mixtures; known: {known}{nearest(mixture, mixtures)}",
                )
    for index, name in enumerate(recipe.benchmark.models):
        if name not in recipe.models:
            say(
                ("benchmark", "models", index),
                f"model {name!r} is not in the table of models; known: {', '.join(models)}{nearest(name, models)}",
            )


def _check_releases(recipe: Recipe, say: Any) -> None:
    """Whoever releases a model must know it; a name given twice would be two jobs of one name."""
    models, chosen = sorted(recipe.models), recipe.release.models or []
    for index, name in enumerate(chosen):
        at: KeyPath = ("release", "models", index)
        if name not in recipe.models:
            say(at, f"model {name!r} is not in the table of models; known: {', '.join(models)}{nearest(name, models)}")
        elif name in chosen[:index]:
            say(at, f"model {name!r} is named twice")


def _check_blind_test(loaded: Loaded, root: Path, say: Any) -> None:
    """Its candidates must be models, its suite must write replies, and must need nothing that no benchmark loads."""
    recipe, test = loaded.recipe, loaded.recipe.blind_test
    if test is None:
        return
    models, at = sorted(recipe.models), ("blind_test", "suite")
    for index, name in enumerate(test.models):
        where: KeyPath = ("blind_test", "models", index)
        model, step = parts(name)
        if model not in recipe.models:
            say(
                where,
                f"model {model!r} is not in the table of models; known: {', '.join(models)}{nearest(model, models)}",
            )
        elif name in test.models[:index]:
            say(where, f"model {name!r} is named twice")
        elif step is not None and (fault := _lacks_checkpoint(recipe, model, step)):
            say(where, f"checkpoint {name!r}: {fault}")
    suite = _named(test.suite, recipe.suites, Suite, root / "config" / "suites", at, say)
    if suite is None:
        return
    if not recipe.mixtures:
        say(
            ("blind_test",), "testers see held-out conversations of a mixture, and this recipe has none; add `mixtures`"
        )
    elif not any(task.format == "generation" for task in suite.tasks.values()):
        say(at, f"suite {test.suite!r} has no task of format generation, so nothing in it writes replies; add one")
    elif test.suite not in loaded.suites and not all(task.format in MIX_FORMATS for task in suite.tasks.values()):
        say(
            at,
            f"suite {test.suite!r} reads files; name it in benchmark.suites too, or take one that reads mixtures only",
        )
    else:
        loaded.blind_suite = suite


def _lacks_checkpoint(recipe: Recipe, model: str, step: int) -> str:
    """Return why there is no checkpoint of this step, and what to do; empty where there is one."""
    train = recipe.models[model].train
    if train is None:
        trained = ", ".join(name for name, other in recipe.models.items() if other.train is not None) or "none"
        return f"only a trained model has checkpoints; trained here: {trained}"
    kept = train.cadence.keep_checkpoints
    if step in kept:
        return ""
    key = f"models.{model}.train.cadence.keep_checkpoints"
    return f"is not kept; {key} keeps: {', '.join(map(str, kept)) or 'none'}; add {step} to it (this trains again)"


def _check_cycles(recipe: Recipe, say: Any) -> None:
    settled: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in settled or name not in recipe.models:
            return
        if name in trail:
            circle = " -> ".join((*trail[trail.index(name) :], name))
            say(("models", name), f"is made from itself: {circle}; break the circle")
        else:
            for _, parent in references(recipe, name):
                visit(parent, (*trail, name))
        settled.add(name)

    for name in recipe.models:
        visit(name, ())


def _check_names(loaded: Loaded, say: Any) -> None:
    """Downloads of sources, suites and models share one folder: their names must differ, also from the stages'."""
    tables: dict[str, Mapping[str, object]] = {
        "sources": loaded.sources,
        "suites": loaded.suites,
        "datasets": loaded.datasets,
        "models": loaded.recipe.models,
    }
    first: dict[str, str] = {}
    for table, names in tables.items():
        for name in names:
            if name in STAGES:
                say((table, name), f"is the name of a stage; choose another one than {', '.join(STAGES)}")
            if name in first:
                say((table, name), f"the name is used under {first[name]} too; rename one")
            first.setdefault(name, table)
