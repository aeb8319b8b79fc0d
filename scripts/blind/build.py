"""The stage: replies of the candidates in, a page for testers and its key out."""

import hashlib
import json
from pathlib import Path
from typing import Any

from scripts.artifact.stage import Job, StageError
from scripts.blind.choose import Comparison, choose, secret_of
from scripts.blind.page import render
from scripts.blind.replies import Turn, read_answers
from scripts.recipe.base import canonical_json
from scripts.recipe.blind import BlindSpec

PAGE, KEY = "for-testers/index.html", "key.json"
MAX_BYTES = 5_000_000
"""Largest page: opens at once on a phone and passes as an attachment."""


def build(job: Job[BlindSpec]) -> None:
    """Write `for-testers/index.html`, which goes to the testers, and `key.json`, which doesn't.

    Raises:
        StageError: the replies can't be read or compared, or the page would be larger than 5 MB.
    """
    spec, models = job.spec, job.spec.settings.models
    folders = job.of_stage("benchmark")
    benchmarks = {model: folders[f"{model}/{spec.settings.suite}"] for model in models}
    answered = read_answers(benchmarks, spec.task, job.of_stage("mix"), spec.formats)
    shown = [a for a in answered if a.source not in spec.hidden_sources]
    comparisons = choose(shown, models, spec.settings.comparisons, secret_of(benchmarks))
    content = {"comparisons": [_as_json(c) for c in comparisons]}
    test = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:16]
    page = render(spec.settings, {"test": test, **content}).encode()
    if len(page) > MAX_BYTES:
        raise StageError(
            f"the page has {len(page):,} bytes, allowed are {MAX_BYTES:,}; lower blind_test.comparisons "
            f"(now {spec.settings.comparisons})"
        )
    _write(job.out / PAGE, page)
    _write(job.out / KEY, _key(spec, test, comparisons))
    hidden = len(answered) - len(shown)
    conversations = len({(c.conversation.source, c.conversation.id) for c in comparisons})
    job.counts.update(comparisons=len(comparisons), conversations=conversations, hidden_conversations=hidden)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def _key(spec: BlindSpec, test: str, comparisons: list[Comparison]) -> bytes:
    """Return who is who, for `score`."""
    rows = {
        c.id: {"left": c.left, "right": c.right, "conversation": f"{c.conversation.source}/{c.conversation.id}"}
        for c in comparisons
    }
    key = {"recipe": spec.recipe, "test": test, "candidates": spec.settings.models, "comparisons": rows}
    return (json.dumps(key, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _as_json(comparison: Comparison) -> dict[str, Any]:
    """Return what the page may know: no name, and no id that two comparisons share."""

    def turns(found: tuple[Turn, ...]) -> list[dict[str, object]]:
        return [{"role": t.role, "text": t.text, **({"cut": True} if t.cut else {})} for t in found]

    answers = comparison.conversation.answers
    return {
        "id": comparison.id,
        "opening": turns(comparison.conversation.opening),
        "left": turns(answers[comparison.left]),
        "right": turns(answers[comparison.right]),
    }
