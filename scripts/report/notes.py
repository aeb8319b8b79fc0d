"""What is said below a task: notes of the suite, and which model's requests were cut, by model where they differ."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_CUT = re.compile(r"\s*(?:In \d+ of its tasks )?\b(\d+) requests lost the left end of their context at (\d+) tokens\.$")
"""The sentence that the benchmark stage adds to a task's note."""


@dataclass(frozen=True)
class Remark:
    """One sentence, and the models it is about: none where it is about all."""

    text: str
    models: tuple[str, ...] = ()
    kind: str = ""
    """`bug` (of data or of a published figure), `prompts` (text is their digest), or nothing."""


def remarks(rows: Sequence[Mapping[str, Any]]) -> list[Remark]:
    """Return what there is to say about a task; what holds for some of the models only names them.

    Args:
        rows: the scorecard's rows of one task, of all models.
    """
    everyone = list(dict.fromkeys(row["model"] for row in rows))
    said: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for kind, text in _sentences(row):
            models = said.setdefault((kind, text), [])
            models += [row["model"]] if row["model"] not in models else []
    kinds = ["bug", "note", "cut", "protocol", "prompts"]
    ordered = sorted(said.items(), key=lambda item: kinds.index(item[0][0]))
    return [
        Remark(text, () if len(models) == len(everyone) else tuple(models), kind if kind in ("bug", "prompts") else "")
        for (kind, text), models in ordered
    ]


def _sentences(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    note, cut = _split(row["note"])
    shots, bos = row.get("shots"), row.get("bos")
    found = [("bug", row.get("upstream_bug") or ""), ("note", note), ("cut", cut)]
    found += [("protocol", f"{shots} shot{'' if shots == 1 else 's'}.")] if shots else []
    found += [("protocol", "With BOS." if bos else "Without BOS.")] if bos is not None else []
    found += [("prompts", row.get("prompts_sha256") or "")]
    return [(kind, text) for kind, text in found if text]


def _split(note: str) -> tuple[str, str]:
    match = _CUT.search(note)
    return (note[: match.start()].strip(), match[0].strip()) if match else (note, "")


def joined_notes(notes: Iterable[tuple[str, str]]) -> str:
    """Return the notes of a group's tasks as one: equal ones once, cut requests as a sum.

    Args:
        notes: (task, note) of each member.
    """
    tasks_of: dict[str, list[str]] = {}
    cuts: dict[str, list[int]] = {}
    total = 0
    for task, note in notes:
        total += 1
        rest, cut = _split(note)
        if rest:
            tasks_of.setdefault(rest, []).append(task)
        if match := _CUT.search(cut):
            cuts.setdefault(match[2], []).append(int(match[1]))
    parts = [rest if len(tasks) == total else f"{', '.join(tasks)}: {rest}" for rest, tasks in tasks_of.items()]
    # In the words of a single task, so that `remarks` knows it among the others.
    parts += [
        f"In {len(counts)} of its tasks {sum(counts)} requests lost the left end of their context at {length} tokens."
        for length, counts in cuts.items()
    ]
    return " ".join(parts)
