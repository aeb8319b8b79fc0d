"""Small payloads of every kind (docs/formats.md), written as finished artifacts: what the report reads."""

import json
import math
from pathlib import Path
from typing import Any

from scripts.artifact.digest import SUMS, format_sums, hash_files, payload_files, value_of
from scripts.artifact.record import write_record
from scripts.artifact.stage import Job
from scripts.recipe.report import ReportSpec, SourceFacts
from scripts.report.build import build

Tree = dict[str, dict[str, str]]
"""{artifact: {file: text}}"""

SOURCES = ("tales", "letters", "riddles")
PARTS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def clean(name: str, **more: Any) -> dict[str, str]:
    """One cleaned source."""
    episode = {
        "id": f"{name}-1",
        "label": "general",
        "source": name,
        "system": "You are the keeper of a lighthouse.",
        "turns": [
            {"role": "user", "text": "Who keeps the lamp tonight?"},
            {"role": "model", "text": "I do, as every night."},
        ],
    }
    audit = {
        "source": name,
        "rows_in": 1200,
        "rows_out": 1100,
        "rejected": {"too_short": 70, "duplicate": 30},
        "turns": 5400,
        "chars_in": 901234,
        "chars": 812345,
        "rejected_chars": {"too_short": 1400, "duplicate": 60321},
        "length_histogram": [[64, 0], [512, 900], [1024, 200]],
        "contamination": {
            "policy": "remove",
            "ngram": 13,
            "short_words": 8,
            "tasks": {
                "choices/next-line": {
                    "items": 60,
                    "items_unchecked": 4,
                    "items_touched": 2,
                    "rows_hit": 5,
                    "rows_removed": 5,
                }
            },
        },
    }
    samples = {"kept": [episode], "rejected": {"too_short": ["Hm."]}, **more}
    return {"audit.json": json.dumps(audit), "samples.json": json.dumps(samples)}


def mix(name: str, sources: tuple[str, ...] = SOURCES) -> dict[str, str]:
    """One mixture of `sources`; the last has no target."""
    table = {
        source: {
            "episodes_in": 1100,
            "rows_train": 1000 - 100 * i,
            "rows_validation": 50,
            "chars_train": 700_000 - 150_000 * i,
            "target_percent": [45.0, 30.0, None][i % 3],
        }
        for i, source in enumerate(sources)
    }
    content = {"mixture": name, "format": "metharme", "seed": 7, "missing_sources": ["private-forum"], "sources": table}
    return {"mix.json": json.dumps(content)}


def pack(model: str, mixture: str, sources: tuple[str, ...] = SOURCES) -> dict[str, str]:
    """One packed training set."""
    content = {
        "model": model,
        "mixture": mixture,
        "vocab_size": 1024,
        "bos_id": 1,
        "eos_id": 2,
        "sequence_len": 512,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "num_epochs": 2,
        "processes": 2,
        "steps": 96,
        "steps_per_epoch": 48,
        "train_rows": 2700,
        "train_tokens": 380_000,
        "validation_rows": 150,
        "validation_tokens": 21_000,
        "dropped": {"longer_than_bin": 3},
        "too_long_by_source": {"train": {SOURCES[0]: 3}},
        "efficiency": 0.9712,
        "sources": {s: {"rows": 900, "tokens": 200_000 - 60_000 * i} for i, s in enumerate(sources)},
        "boundary_label": "ignore",
    }
    return {"pack.json": json.dumps(content)}


def train(model: str, base: str, steps: int = 96, sources: tuple[str, ...] = SOURCES) -> dict[str, str]:
    """One fine-tune whose loss falls smoothly; a fixed wave stands for noise."""
    lines: list[dict[str, Any]] = []
    for step in range(steps + 1):
        loss = 2.1 + 4.8 * math.exp(-step / 22) + 0.08 * math.sin(step * 2.1) + 0.05 * math.sin(step * 5.3)
        if step % 16 == 0:
            by_source = {s: round(loss + 0.25 * i, 6) for i, s in enumerate(sources)}
            lines.append(
                {
                    "step": step,
                    "eval_loss": round(loss + 0.2, 6),
                    "eval_loss_by_source": by_source,
                    "eval_tokens": 21_000,
                }
            )
        if step:
            rate = 2e-3 * ((step / 8) ** 2 if step < 8 else 0.5 + 0.5 * math.cos(math.pi * (step - 8) / (steps - 8)))
            norm = 0.4 + 2 * math.exp(-step / 10)
            line = {"step": step, "epoch": 1, "loss": round(loss, 6), "learning_rate": rate, "grad_norm": norm}
            lines.append({**line, "tokens": 4000, "rows_digest": "ab"})
    evaluations = [line["eval_loss"] for line in lines if "eval_loss" in line]
    content = {
        "model": model,
        "base": base,
        "steps": steps,
        "processes": 2,
        "parameters": 1_049_856,
        "train_tokens": 760_000,
        "first_eval_loss": evaluations[0],
        "last_eval_loss": evaluations[-1],
        "best_eval_loss": min(evaluations),
        "best_eval_step": 16 * evaluations.index(min(evaluations)),
        "published_step": steps,
        "settings": {},
    }
    return {"metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines), "train.json": json.dumps(content)}


def merge(first: str, second: str, layers: int = 4) -> dict[str, str]:
    """One gradient merge with Mythalion's ratios."""
    names = [f"model.layers.{n}.{part}.weight" for n in range(layers) for part in PARTS]
    attention = [n for n in names if "self_attn" in n]
    feed = [n for n in names if "mlp" in n]
    ratios = {n: 0.2 + 0.6 * i / (len(attention) - 1) for i, n in enumerate(attention)}
    ratios |= {n: 0.8 - 0.6 * i / (len(feed) - 1) for i, n in enumerate(feed)}
    ratios |= {f"model.layers.{n}.input_layernorm.weight": 0.5 for n in range(layers)}
    ratios |= {"model.embed_tokens.weight": 0.5, "model.norm.weight": 0.5, "lm_head.weight": 0.5}
    tensors = {
        name: {
            "ratio": ratio,
            "operation": "gradient",
            "norm_c_minus_a": 3 * ratio,
            "norm_c_minus_b": 3 * (1 - ratio),
            "cosine_a": 1 - ratio / 10,
            "cosine_b": 0.9 + ratio / 10,
        }
        for name, ratio in ratios.items()
    }
    content = {"models": [first, second], "operations": [], "tensors": tensors, "overflowed": 0, "flushed": 2}
    return {"merge.json": json.dumps(content)}


def suite(model: str, name: str, correct: int = 31) -> dict[str, str]:
    """One suite with a task far from chance, one at chance, and one that isn't right-or-wrong."""

    def shares(k: int, n: int, chance: float) -> dict[str, Any]:
        value = k / n
        return {"value": value, "stderr": math.sqrt(value * (1 - value) / (n - 1)), "chance": chance}

    tasks = {
        "next-line": {
            "format": "multiple_choice",
            "items": 60,
            "metrics": {"acc": shares(correct + 14, 60, 0.25)},
            "correct": correct + 14,
        },
        "true-turn": {
            "format": "multiple_choice",
            "items": 60,
            "metrics": {"acc": shares(correct, 60, 0.5)},
            "correct": correct,
        },
        "truths": {
            "format": "truthfulqa_mc2",
            "items": 80,
            "metrics": {"mc2": {"value": 0.4351, "stderr": 0.0143, "chance": 0.4}},
            "correct": None,
        },
    }
    for task in tasks.values():
        task |= {"prompts_sha256": "0" * 64, "note": ""}
    tasks["true-turn"]["note"] = "the published file holds other items"
    return {"results.json": json.dumps({"model": model, "suite": name, "tasks": tasks})}


def held_out(model: str, level: float, sources: tuple[str, ...] = SOURCES) -> dict[str, str]:
    """Held-out bits per byte by source."""
    metrics: dict[str, Any] = {"bits_per_byte": {"value": level, "stderr": 0.01, "chance": None}}
    metrics |= {
        f"bits_per_byte/{s}": {"value": level + 0.1 * i, "stderr": None, "chance": None} for i, s in enumerate(sources)
    }
    task = {
        "format": "bits_per_byte",
        "items": 150,
        "prompts_sha256": None,
        "metrics": metrics,
        "correct": None,
        "note": "",
    }
    return {"results.json": json.dumps({"model": model, "suite": "held-out", "tasks": {"bits": task}})}


def whole_tree() -> Tree:
    """A recipe with everything: three sources, two fine-tunes of one base, their merge, two suites."""
    models = ("base", "tales-model", "letters-model", "blend")
    tree: Tree = {f"clean/{s}": clean(s) for s in SOURCES}
    tree["mix/evening"] = mix("evening")
    for model in models[1:3]:
        tree[f"pack/{model}"] = pack(model, "evening")
        tree[f"train/{model}"] = train(model, "base")
    tree["merge/blend"] = merge(*models[1:3])
    for i, model in enumerate(models):
        tree[f"benchmark/{model}/choices"] = suite(model, "choices", 28 + i)
        tree[f"benchmark/{model}/held-out"] = held_out(model, 3.4 - 0.4 * i)
    return tree


def whole_spec(**changes: Any) -> ReportSpec:
    """The spec that belongs to `whole_tree`."""
    facts = SourceFacts(title="Sample tales", license="CC0-1.0", redistributable=True, known_problems=["short"])
    lineage: dict[str, list[str]] = {f"clean/{s}": [f"download/{s}"] for s in SOURCES}
    lineage |= {"mix/evening": [f"clean/{s}" for s in SOURCES], "create/base": ["mix/evening"]}
    for model in ("tales-model", "letters-model"):
        lineage |= {f"pack/{model}": ["mix/evening", "create/base"], f"train/{model}": ["create/base", f"pack/{model}"]}
    lineage["merge/blend"] = ["train/tales-model", "train/letters-model"]
    lineage["benchmark/blend/choices"] = ["merge/blend"]
    fields: dict[str, Any] = {
        "recipe": "evening",
        "title": "Evening tales",
        "seed": 7,
        "sources": dict.fromkeys(SOURCES, facts),
        "missing_sources": ["private-forum"],
        "models": {
            "base": ["create"],
            "tales-model": ["train", "base"],
            "letters-model": ["train", "base"],
            "blend": ["merge", "tales-model", "letters-model"],
        },
        "published": [],
        "lineage": lineage,
    }
    return ReportSpec(**{**fields, **changes})


def write_tree(root: Path, tree: Tree) -> dict[str, Path]:
    """Write `tree` as finished artifacts below `root`; return their folders."""
    folders = {}
    for name, files in tree.items():
        folder = root / name
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        finish(folder, name)
        folders[name] = folder
    return folders


def finish(folder: Path, name: str, seconds: float = 2.5, more: dict[str, Any] | None = None) -> None:
    """Write the records of an artifact whose payload is there."""
    payload = payload_files(folder)
    (folder / SUMS).write_text(format_sums(hash_files(folder, payload)), encoding="utf-8")
    size = sum((folder / f).stat().st_size for f in payload)
    record = {
        "name": name,
        "stage": name.split("/")[0],
        "key": "c" * 64,
        "value": value_of(folder),
        "counts": {},
        "bytes": size,
    }
    write_record(
        folder / "artifact.json", {**record, "packages": {"torch": "2.13.0", "numpy": "2.4.6"}, **(more or {})}
    )
    facts = {"seconds": seconds, "cpu_seconds": 2 * seconds, "peak_rss_bytes": 450_000_000, "host": "somewhere"}
    facts |= {"machine": "x86_64", "cpus": 2, "python": "3.11.7", "unpinned": {}}
    write_record(folder / "provenance.json", facts | (speed() if name.startswith("train/") else {}))


def speed(steps: int = 40) -> dict[str, Any]:
    """What a trainer notes of its speed, as on a GPU."""
    series = [
        {
            "step": n,
            "seconds": 0.5,
            "tokens_per_s": 9000.0 + 10 * n,
            "mfu": 0.4 + n / 1000,
            "peak_gpu_bytes": 60 * 10**9,
        }
        for n in range(1, steps + 1)
    ]
    means = {"tokens_per_s": 9123.4, "mfu": 0.417, "peak_gpu_bytes": 61_234_000_000, "resumed_at_step": 0}
    return {**means, "asserted": {"world_size": 8}, "speed": series}


def make_job(root: Path, tree: Tree | None = None, spec: ReportSpec | None = None) -> Job[ReportSpec]:
    """Return a job over artifacts written below `root/results`, with an empty output folder."""
    folders = write_tree(root / "results", whole_tree() if tree is None else tree)
    out = root / "out"
    out.mkdir()
    return Job(spec or whole_spec(), folders, out, root / "work", threads=1)


def make_results(root: Path, tree: Tree | None = None, spec: ReportSpec | None = None) -> Path:
    """Return a finished `results/<recipe>` below `root`, its report included."""
    results, spec = root / "results" / "evening", spec or whole_spec()
    folders = write_tree(results, whole_tree() if tree is None else tree)
    download = results / "download" / "tales"
    download.mkdir(parents=True)
    (download / "tales.json").write_text("[]\n", encoding="utf-8")
    finish(download, "download/tales")
    out = results / "report"
    out.mkdir()
    build(Job(spec, folders, out, root / "work", threads=1))
    inputs = [[name, value_of(folder)] for name, folder in folders.items()]
    finish(out, "report", more={"spec": spec.identity(), "inputs": inputs})
    return results
