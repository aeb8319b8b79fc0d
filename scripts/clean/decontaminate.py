"""Decontamination: rows that quote an item of one of the recipe's benchmarks.

A row is contaminated by an item if they share 13 words in a row (`Decontamination.ngram`). A question that is shorter
counts where all of it stands in the row, if it has 8 words (`short_words`); shorter ones and short answers are
anybody's words and can't be told from chance, so items made of nothing else are only counted, as `unchecked`.

Words, not token ids: an id sequence changes with white space, capitals and quotation marks, and at the start and the
end of a passage with what stands beside it, so copies would be missed; and this stage knows no tokenizer.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.artifact.stage import StageError
from scripts.clean.benchmarks import Item, read_items
from scripts.clean.ngrams import GramSet, grams
from scripts.recipe.base import keyed_hash
from scripts.recipe.clean import Decontamination
from scripts.recipe.words import Hashes, Words

TEMPLATE_ITEMS = 32
"""An n-gram of more items of one task is its template, not an item. At most 8 items of AGIEval share a passage, while
the templates of BIG-bench stand in 52 to 448 items (measured on the published files)."""


@dataclass(frozen=True)
class Match:
    """What one row quotes."""

    items: tuple[tuple[str, int], ...]
    """(task, number of the item from 1), sorted."""
    overlaps: int
    """n-grams and short questions found."""

    def detail(self) -> str:
        """Return it in words for the reject file."""
        task, number = self.items[0]
        more = f" and {len(self.items) - 1} more" if len(self.items) > 1 else ""
        return f"{self.overlaps} overlaps with item {number} of {task}{more}"


class Decontaminator:
    """Searches rows for the items of benchmarks and keeps the table by task."""

    def __init__(self, settings: Decontamination, tasks: Mapping[str, list[Item]]) -> None:
        """Index the items of each task, by name."""
        self._settings = settings
        self._words = Words(keyed_hash("decontamination.words"))
        self._tasks = tasks
        self._names = [(task, number) for task, items in tasks.items() for number in range(1, len(items) + 1)]
        self._unchecked: Counter[str] = Counter()
        self._hit: Counter[str] = Counter()
        self._touched = np.zeros(len(self._names), dtype=np.bool_)
        self._short: list[tuple[Hashes, int]] = []
        """Words of a short question, and its item."""
        self._index()

    def _index(self) -> None:
        long: list[tuple[Hashes, NDArray[np.int64]]] = []
        first = 0
        for task, items in self._tasks.items():
            pairs = [self._item(task, item, first + i) for i, item in enumerate(items)]
            keys = np.concatenate(pairs) if pairs else np.empty(0, dtype=np.uint64)
            of_item = np.repeat(np.arange(first, first + len(items)), [len(p) for p in pairs])
            _, inverse, count = np.unique(keys, return_inverse=True, return_counts=True)
            own = count[inverse] <= TEMPLATE_ITEMS
            long.append((keys[own], of_item[own]))
            first += len(items)
        self._long = GramSet(self._settings.ngram, *map(np.concatenate, zip(*long, strict=True)))
        size = self._settings.short_words
        heads = np.empty(len(self._short), dtype=np.uint64)
        for number, (words, _) in enumerate(self._short):
            grams(words[:size], size, heads[number : number + 1])
        self._heads = GramSet(size, heads, np.arange(len(heads)))

    def _item(self, task: str, item: Item, number: int) -> Hashes:
        """Return the distinct n-grams of one item, and keep its short questions."""
        found, checked = [], False
        size, short = self._settings.ngram, self._settings.short_words
        for passage in item:
            words = self._words.of(passage.text)
            if len(words) >= size:
                runs = np.empty(len(words) - size + 1, dtype=np.uint64)
                grams(words, size, runs)
                found.append(runs)
            elif passage.question and len(words) >= short:
                self._short.append((words.copy(), number))
                checked = True
        if not found and not checked:
            self._unchecked[task] += 1
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.uint64)

    def search(self, text: str) -> Match | None:
        """Return what `text` quotes, and count it."""
        words = self._words.of(text)
        items: set[int] = set()
        overlaps = 0
        for _, targets in self._long.search(words):
            overlaps += 1
            items.update(targets)
        for first, targets in self._heads.search(words):
            for target in targets:
                question, item = self._short[target]
                if np.array_equal(words[first : first + len(question)], question):
                    overlaps += 1
                    items.add(item)
        if not items:
            return None
        self._touched[list(items)] = True
        names = tuple(sorted(self._names[item] for item in items))
        self._hit.update({task for task, _ in names})
        return Match(names, overlaps)

    def table(self) -> dict[str, Any]:
        """Return what `audit.json` says of it: for each task its items, how many of them rows quote, and the rows."""
        tasks, first = {}, 0
        for task, items in self._tasks.items():
            rows = self._hit[task]
            tasks[task] = {
                "items": len(items),
                "items_unchecked": self._unchecked[task],
                "items_touched": int(self._touched[first : first + len(items)].sum()),
                "rows_hit": rows,
                "rows_removed": rows if self._settings.policy == "remove" else 0,
            }
            first += len(items)
        return {**self._settings.model_dump(), "tasks": tasks}


def load_decontaminator(
    settings: Decontamination, suites: Mapping[str, Mapping[str, str]], folders: Mapping[str, Path]
) -> Decontaminator:
    """Return the decontaminator of a recipe's suites.

    Args:
        settings: the recipe's.
        suites: {suite: {task: file}}.
        folders: the suites' downloads, by name.

    Raises:
        StageError: a file that is missing or no benchmark file.
    """
    read: dict[Path, list[Item]] = {}
    tasks = {}
    for suite, files in sorted(suites.items()):
        for task, file in sorted(files.items()):
            path = folders[suite] / file
            if not path.is_file():
                raise StageError(f"{path}: is missing, though task {task} of suite {suite} names it; mend the suite")
            # Two tasks may score one file in two ways.
            tasks[f"{suite}/{task}"] = read[path] = read.get(path) or read_items(path)
    return Decontaminator(settings, tasks)
