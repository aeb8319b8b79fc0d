"""GRIM test of published accuracies: a proportion of N items has only N + 1 possible values.

A value v with standard error s, both printed with 4 digits, is consistent with N items if some integer k has
k/N = v and sqrt(p(1-p)/(N-1)) = s, p = k/N, after rounding. So printed tables pin down how many items were scored.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.recipe.published import consistent_counts
from scripts.recipe.yamlfile import YamlError, load_yaml


@dataclass(frozen=True)
class Verdict:
    """The test of one printed value."""

    table: str
    task: str
    metric: str
    items: int
    counts: tuple[int, ...]
    """All numbers of right items that print like this; empty if the table is wrong about something."""
    claimed: int | None
    """The count that the file claims."""

    @property
    def passed(self) -> bool:
        """Whether some count fits, and the claimed one is among them."""
        return bool(self.counts) and (self.claimed is None or self.claimed in self.counts)


def check_published(content: dict[str, Any]) -> list[Verdict]:
    """Test every value of a file of config/published/ that claims a count of items, with its error if it has one."""
    verdicts = []
    for table_name, table in content["tables"].items():
        for task_name, task in table["tasks"].items():
            for metric, found in task["metrics"].items():
                if found.get("correct") is not None:
                    counts = consistent_counts(found["value"], found.get("stderr"), task["items"])
                    verdicts.append(Verdict(table_name, task_name, metric, task["items"], counts, found["correct"]))
    return verdicts


def main(arguments: list[str]) -> int:
    """Print the test of each value; return 1 if any fails or the file is not readable."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark grim", description="GRIM test of published values"
    )
    parser.add_argument("file", type=Path, help="a file of config/published/")
    path = parser.parse_args(arguments).file
    try:
        verdicts = check_published(load_yaml(path)[0])
    except YamlError as error:
        print(error)
        return 1
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        print(
            f"{path}: not a file of published figures: {type(error).__name__}: {error}; see config/published/README.md"
        )
        return 1
    for v in verdicts:
        counts = (
            "none" if not v.counts else f"{v.counts[0]}" if len(v.counts) == 1 else f"{v.counts[0]}..{v.counts[-1]}"
        )
        print(
            f"{'ok  ' if v.passed else 'FAIL'} {v.task:50s} {v.metric:22s} claimed {v.claimed}/{v.items}, fits {counts}"
        )
    failed = sum(not v.passed for v in verdicts)
    print(f"{len(verdicts)} values tested, {failed} inconsistent")
    return 1 if failed or not verdicts else 0
