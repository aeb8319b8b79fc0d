"""lm-eval's own tasks as frozen items: its YAML, its shots, its requests, read offline from a local folder.

The folder is shaped like the hub's repository (README.md with `configs:`, Parquet files), so only `dataset_path` is
overridden. lm-eval's index of 14,683 built-in tasks takes 6 s and is never read: one YAML that includes the stock one
is the whole index. Nothing of this uses lm-eval's request or response caches, which return wrong results.
"""

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.benchmark.items import Item, make_item
from scripts.recipe.benchmark import Task

FEWSHOT_SEED = 1234
"""lm-eval's default for `--seed`, third number."""
_NAME = "atelier_native"


def render_native(task: Task, folder: Path) -> list[Item]:
    """Return the items of the task that `task.lm_eval` names, with lm-eval's own prompts.

    Raises:
        StageError: no such task, a folder that it can't read, or a task that isn't multiple choice.
    """
    # A Hugging Face cache is made anew for each task and thrown away: nothing of an earlier run can leak in.
    with tempfile.TemporaryDirectory(prefix="atelier-native-") as temporary:
        return _items(_load(task, folder, Path(temporary)), task)


def _load(task: Task, folder: Path, work: Path) -> Any:
    import datasets
    from lm_eval.tasks import TaskManager

    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations and task.lm_eval is not None
    stock = Path(spec.submodule_search_locations[0]) / "tasks" / task.lm_eval
    if not stock.is_file():
        raise StageError(f"lm_eval: this lm-eval has no task file {task.lm_eval}; the names are below lm_eval/tasks")
    index = work / "tasks"
    index.mkdir()
    # YAML is a superset of JSON; quotes keep any path one string.
    lines = [f"include: {_quoted(stock)}", f"task: {_NAME}", f"dataset_path: {_quoted(folder)}", "tag: null"]
    lines += ["dataset_kwargs:", f"  cache_dir: {_quoted(work / 'cache')}"]
    (index / "task.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    datasets.disable_progress_bars()
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        loaded = TaskManager(include_path=str(index), include_defaults=False).load([_NAME])["tasks"][_NAME]
    except (OSError, ValueError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise StageError(
            f"lm-eval can't load {task.lm_eval} from {folder.name}: {type(error).__name__}: {error}; the "
            "folder must hold README.md with `configs:` and every file that it names for this configuration"
        ) from None
    if loaded.OUTPUT_TYPE != "multiple_choice":
        raise StageError(f"{task.lm_eval} is a {loaded.OUTPUT_TYPE} task; only multiple_choice can be frozen")
    loaded.set_config("num_fewshot", task.shots)
    loaded.set_fewshot_seed(FEWSHOT_SEED)
    loaded.build_all_requests(limit=None, rank=0, world_size=1, cache_requests=False)
    return loaded


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _items(loaded: Any, task: Task) -> list[Item]:
    items = []
    for number, instances in groupby(loaded.instances, key=lambda instance: instance.doc_id):
        requests = list(instances)
        pairs = [instance.args for instance in sorted(requests, key=lambda instance: instance.idx)]
        items.append(_item(f"{task.lm_eval}[{number}]", loaded, requests[0].doc, pairs, task))
    return items


def _item(where: str, loaded: Any, doc: dict[str, Any], pairs: Sequence[tuple[str, str]], task: Task) -> Item:
    choices = [str(choice) for choice in loaded.doc_to_choice(doc)]
    delimiter = loaded.config.target_delimiter
    if task.format == "lm_eval_mc2":
        labels = [float(label) for label in doc["mc2_targets"]["labels"]]
    else:
        labels = _labels(
            where, loaded.doc_to_text(doc) if loaded.multiple_input else loaded.doc_to_target(doc), choices
        )
    if loaded.multiple_input:
        text = pairs[0][1].removeprefix(delimiter)
        contexts = [context for context, _ in pairs]
        item = make_item(where, "", choices, labels, delimiter, contexts=contexts, continuation=text, distinct=False)
    else:
        item = make_item(where, pairs[0][0], choices, labels, delimiter, distinct=False)
    if item.requests() != list(pairs):
        raise StageError(f"{where}: lm-eval's requests have another form than context and choice; they can't be frozen")
    return item


def _labels(where: str, target: object, choices: Sequence[str]) -> list[float]:
    """Return 1 for each right choice; lm-eval gives an index, a list of them, or the choice itself."""
    golds = target if isinstance(target, list) else [target]
    indices = [choices.index(gold) if isinstance(gold, str) and gold in choices else gold for gold in golds]
    if not all(isinstance(index, int) and 0 <= index < len(choices) for index in indices):
        raise StageError(f"{where}: lm-eval's target {target!r:.80} is none of the {len(choices)} choices")
    return [float(index in indices) for index in range(len(choices))]
