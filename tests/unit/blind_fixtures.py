"""Held-out rows and the replies of three candidates, written as the artifacts that the blind test reads."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.artifact.stage import Job
from scripts.recipe.blind import BlindSpec, BlindTest
from scripts.recipe.prompt_format import FORMATS

CANDIDATES = ["oak-base", "oak-tuned", "oak-merged"]
ROWS = 6
HOSTILE = '</script><script>alert("hi")</script> & <!-- "quoted" \u2028 it'


def conversation(index: int, layout: str = "metharme") -> list[dict[str, Any]]:
    """The segments of one held-out row: a scene, then two exchanges."""
    form = FORMATS[layout]  # type: ignore[index]
    scene = {"text": f"{form.system[0]}You keep lamp {index}. {HOSTILE}{form.system[1]}", "trained": False}
    found = [scene]
    for turn in range(2):
        between = form.between if turn else ""
        said = f"{between}{form.user[0]}Question {turn} to keeper {index}?{form.user[1]}"
        found += [{"text": said, "trained": False}, {"text": form.model[0], "trained": False}]
        found.append({"text": f"True answer {turn}.{form.model[1]}", "trained": True})
    return found


def given(segments: list[dict[str, Any]]) -> str:
    """All text that stands before the last reply, without the true replies: what the benchmark records."""
    return "".join(s["text"] for s in segments if not s["trained"])


def answer(model: str, index: int, turn: int) -> dict[str, str]:
    """What a candidate says; the tuned and the merged one agree on the last conversation."""
    same = index == ROWS - 1 and model != "oak-base"
    said = "As ever." if same else f"{CANDIDATES.index(model) + 1} lamps, I count ({index}, {turn})."
    return {"text": said, "end": "length" if model == "oak-base" else "eos"}


def make_job(root: Path, layout: str = "metharme", **settings: Any) -> Job[BlindSpec]:
    """A job over finished artifacts."""
    results = root / "results"
    inputs: dict[str, Path] = {}
    rows = [
        {"id": f"r{i}", "source": "secret-logs" if i == 0 else "tales", "segments": conversation(i, layout)}
        for i in range(ROWS)
    ]
    for model in CANDIDATES:
        inputs[f"benchmark/{model}/talk"] = folder = results / "benchmark" / model / "talk"
        folder.mkdir(parents=True)
        made = [
            {
                "task": "replies",
                "item": i,
                "context": given(row["segments"]),
                "replies": [answer(model, i, turn) for turn in range(2)],
            }
            for i, row in enumerate(rows)
        ]
        pq.write_table(pa.Table.from_pylist(made), folder / "generations.parquet")
        scores = [{"task": "loss", "item": 0, "loglikelihoods": [-1.0 - CANDIDATES.index(model) / 7]}]
        pq.write_table(pa.Table.from_pylist(scores), folder / "samples.parquet")
        value = {"value": 3.0 - CANDIDATES.index(model)}
        content = {"model": model, "suite": "talk", "tasks": {"loss": {"metrics": {"bits_per_byte": value}}}}
        (folder / "results.json").write_text(json.dumps(content))
    inputs["mix/chats"] = results / "mix" / "chats"
    inputs["mix/chats"].mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), inputs["mix/chats"] / "validation.parquet")
    spec = BlindSpec(
        recipe="oak",
        settings=BlindTest(models=CANDIDATES, suite="talk", **settings),
        task="replies",
        formats={"chats": layout},  # type: ignore[dict-item]
        hidden_sources=[] if settings.get("show_private") else ["secret-logs"],
    )
    out = results / "blind"
    out.mkdir()
    return Job(spec, inputs, out, results / ".work", 1)
