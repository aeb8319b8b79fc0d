"""What stands below a task: each model's own notes, also of groups, conversations and held-out rows."""

import json
from pathlib import Path
from typing import Any

from scripts.report.notes import Remark, joined_notes, remarks
from tests.unit.report_fixtures import Tree, whole_spec, whole_tree
from tests.unit.test_report import Page, made

CUT = "{} requests lost the left end of their context at 2048 tokens."


def row(model: str, note: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "note": note, **more}


def test_what_holds_for_some_models_names_them() -> None:
    kept = "Other items than in print."
    rows = [row("a", f"{kept} {CUT.format(17)}"), row("b", f"{kept} {CUT.format(18)}"), row("c", kept)]
    assert remarks(rows) == [Remark(kept), Remark(CUT.format(17), ("a",)), Remark(CUT.format(18), ("b",))]
    assert remarks([row("a", ""), row("b", "")]) == []
    more = {"shots": 5, "bos": False, "upstream_bug": "swapped", "prompts_sha256": "ab"}
    found = remarks([row("a", "", **more), row("b", "", **{**more, "bos": True})])
    assert found == [
        Remark("swapped", kind="bug"),
        Remark("5 shots."),
        Remark("Without BOS.", ("a",)),
        Remark("With BOS.", ("b",)),
        Remark("ab", kind="prompts"),
    ]


def test_a_groups_notes_are_those_of_its_tasks() -> None:
    notes = [("law", f"Old. {CUT.format(17)}"), ("art", "Old."), ("chess", CUT.format(3))]
    said = "law, art: Old. In 2 of its tasks 20 requests lost the left end of their context at 2048 tokens."
    assert joined_notes(notes) == said
    assert joined_notes([("law", "Old."), ("art", "Old.")]) == "Old." and joined_notes([("law", "")]) == ""
    mean = "Plain mean of 3 tasks."
    assert [r.text for r in remarks([row("a", f"{mean} {said}"), row("b", mean)])] == [
        mean + " law, art: Old.",
        mean,
        "In 2 of its tasks 20 requests lost the left end of their context at 2048 tokens.",
    ]


def cut_tree() -> Tree:
    """A recipe of whose last model requests of every kind of task were cut."""
    tree = whole_tree()
    for model, number in (("base", 0), ("blend", 4)):
        for suite in ("choices", "held-out"):
            content = json.loads(tree[f"benchmark/{model}/{suite}"]["results.json"])
            tasks = content["tasks"]
            if suite == "held-out":
                metrics = {"refusal_margin": {"value": -1.0, "stderr": 0.1, "chance": None}}
                tasks["refusal"] = {"format": "refusal", "items": 5, "metrics": metrics, "correct": None}
            else:
                content["groups"] = {"all": {"tasks": ["next-line"], "items": 60, "metrics": {"acc": {"value": 0.5}}}}
            for place, task in enumerate(("next-line", "truths", "bits", "refusal")):
                if task in tasks and number:
                    tasks[task]["note"] = CUT.format(number + place)
            tree[f"benchmark/{model}/{suite}"]["results.json"] = json.dumps(content)
    return {name: files for name, files in tree.items() if not name.startswith(("benchmark/tales", "benchmark/lett"))}


def test_the_page_shows_cut_requests_of_every_kind_of_task(tmp_path: Path) -> None:
    page, _ = made(tmp_path, cut_tree(), whole_spec())
    found = Page(page)
    text = " ".join(found.text.split())
    for sentence in (CUT.format(5), CUT.format(6), CUT.format(7), f"In 1 of its tasks {CUT.format(4)}"):
        assert f"blend: {sentence}" in text, sentence
    assert found.wrong == []
