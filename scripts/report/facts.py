"""The figures of the report, computed once: `scorecard.json`, from which the page and the terminal print."""

import math
import re
from collections.abc import Sequence
from typing import Any

from scripts.recipe.report import ReportSpec
from scripts.report.benchmarks import (
    BITS,
    benchmark_digests,
    benchmark_groups,
    benchmark_pairs,
    benchmark_rows,
)
from scripts.report.correlations import rank_correlations, role_play_rows
from scripts.report.payloads import Merge, Metric, Mix, Pack, Payloads, TaskResult, Training

FORMAT = 1
OTHER = "other tensors"
# Order inside a Llama block (transformers 5); any other name follows in its own order.
PROJECTIONS = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+?)(?:\.weight)?$")


def scorecard(spec: ReportSpec, found: Payloads) -> dict[str, Any]:
    """Return all figures as plain JSON values; lists keep the recipe's order.

    Losses are nats a token, bits per byte are bits, ratios are shares of the second model, everything else
    counts or shares.
    """
    return {
        "format": FORMAT,
        "recipe": spec.recipe,
        "title": spec.title,
        "seed": spec.seed,
        "published": [{"model": p.model, "title": p.title, "source": p.source} for p in spec.published],
        "suites": {name: suite.model_dump() for name, suite in spec.suites.items()},
        "artifacts": [{"artifact": name, "value": value} for name, value in found.values.items()],
        "sources": [_source(name, found) for name in found.audits],
        "contamination": _contamination(found),
        "mixtures": [_mixture(mix, found) for mix in found.mixes.values()],
        "packs": [_pack(pack) for pack in found.packs.values()],
        "trainings": [_training(training) for training in found.trainings.values()],
        "merges": [_merge(name, merge) for name, merge in found.merges.items()],
        "benchmarks": benchmark_rows(spec, found),
        "benchmark_groups": benchmark_groups(found),
        "benchmark_pairs": benchmark_pairs(spec, found),
        "benchmark_digests": benchmark_digests(found),
        "bits_per_byte": [
            row for result in found.benchmarks.values() for row in _bits(result.model, result.suite, result.tasks)
        ],
        "role_play": role_play_rows(found.benchmarks),
        "rank_correlations": rank_correlations(found.benchmarks),
    }


def _source(name: str, found: Payloads) -> dict[str, Any]:
    audit = found.audits[name]
    rejected = sorted(audit.rejected.items(), key=lambda item: (-item[1], item[0]))
    return {
        "source": name,
        "rows_in": audit.rows_in,
        "rows_out": audit.rows_out,
        "turns": audit.turns,
        "chars_in": audit.chars_in,
        "chars": audit.chars,
        "tokens_per_char": _tokens_per_char(name, found),
        "rejected": [
            {"reason": reason, "rows": rows, "chars": audit.rejected_chars.get(reason)}
            for reason, rows in rejected
            if rows
        ],
        "compat": [{"switch": switch, **figures.model_dump()} for switch, figures in audit.compat.items()],
    }


def _tokens_per_char(name: str, found: Payloads) -> float | None:
    """Return tokens a character of a source, as measured where a fine-tune packed it; None where none did."""
    for pack in found.packs.values():
        mix = found.mixes.get(pack.mixture)
        if mix and name in pack.sources and name in mix.sources and mix.sources[name].chars_train:
            return pack.sources[name].tokens / mix.sources[name].chars_train
    return None


def _contamination(found: Payloads) -> list[dict[str, Any]]:
    """Return one row for each benchmark task: rows of all sources that quote it, and which sources these are."""
    by_source = {name: audit.contamination for name, audit in found.audits.items() if audit.contamination}
    rows = []
    for task in dict.fromkeys(task for source in by_source.values() for task in source.tasks):
        entries = {name: source.tasks[task] for name, source in by_source.items() if task in source.tasks}
        first = next(iter(entries.values()))
        rows.append(
            {
                "task": task,
                "items": first.items,
                "items_unchecked": first.items_unchecked,
                "rows_hit": sum(entry.rows_hit for entry in entries.values()),
                "rows_removed": sum(entry.rows_removed for entry in entries.values()),
                "sources": [
                    {"source": name, "rows_hit": entry.rows_hit, "items_touched": entry.items_touched}
                    for name, entry in entries.items()
                    if entry.rows_hit
                ],
            }
        )
    return rows


def _mixture(mix: Mix, found: Payloads) -> dict[str, Any]:
    """Shares are of tokens where a fine-tune packed this mixture (targets are shares of tokens), else of characters."""
    pack = next((p for p in found.packs.values() if p.mixture == mix.mixture), None)
    tokens = {name: pack.sources[name].tokens if name in pack.sources else 0 for name in mix.sources} if pack else None
    chars = {name: source.chars_train for name, source in mix.sources.items()}
    amounts = tokens or chars
    total = sum(amounts.values())
    return {
        "mixture": mix.mixture,
        "prompt_format": mix.format,
        "missing_sources": mix.missing_sources,
        "share_of": "tokens" if tokens else "characters",
        "sources": [
            {
                "source": name,
                "episodes_in": source.episodes_in,
                "rows_train": source.rows_train,
                "rows_validation": source.rows_validation,
                "chars_train": source.chars_train,
                "tokens_train": tokens[name] if tokens else None,
                "share_percent": 100 * amounts[name] / total if total else 0.0,
                "target_percent": source.target_percent,
            }
            for name, source in mix.sources.items()
        ],
    }


def _pack(pack: Pack) -> dict[str, Any]:
    rows = pack.micro_batch_size * pack.gradient_accumulation_steps * pack.processes
    long = pack.too_long_by_source.get("train", {})
    kept = {name: source.rows for name, source in pack.sources.items()}
    return {
        **pack.model_dump(exclude={"sources", "too_long_by_source"}),
        "tokens_per_step": rows * pack.sequence_len,
        "too_long": {name: [found, found + kept.get(name, 0)] for name, found in long.items()},
    }


def _training(training: Training) -> dict[str, Any]:
    """Return the summary, with the loss of the published weights as `published_eval_loss`."""
    summary = training.summary
    at_step = {line.step: line.eval_loss for line in training.evaluations}
    published = at_step.get(summary.published_step)
    if published is None:
        is_best = summary.published_step == summary.best_eval_step
        published = summary.best_eval_loss if is_best else summary.last_eval_loss
    return {**summary.model_dump(), "published_eval_loss": published}


def split_tensor(name: str) -> tuple[int | None, str]:
    """Return (layer, projection) of a tensor's name: (3, "mlp.up_proj"), or (None, "lm_head")."""
    match = _LAYER.search(name)
    if match:
        return int(match[1]), match[2]
    return None, name.removeprefix("model.").removesuffix(".weight")


def projection_order(names: Sequence[str]) -> list[str]:
    """Return the distinct names in order of a Llama block, unknown ones last, as they came."""
    unique = list(dict.fromkeys(names))
    return sorted(unique, key=lambda n: PROJECTIONS.index(n) if n in PROJECTIONS else len(PROJECTIONS))


def _merge(name: str, merge: Merge) -> dict[str, Any]:
    placed = [(*split_tensor(tensor), facts) for tensor, facts in merge.tensors.items()]
    groups = []
    # Tensors inside layers first, then those outside; `layer` stays out of the name, so that no two groups mix.
    for inside in (True, False):
        here = [(layer, group, facts) for layer, group, facts in placed if (layer is not None) == inside]
        for group in projection_order([g for _, g, _ in here]):
            members = sorted(((layer or 0, facts) for layer, g, facts in here if g == group), key=lambda m: m[0])
            tensors = [facts for _, facts in members]
            groups.append(
                {
                    "projection": group,
                    "layers": len(members) if inside else 0,
                    "first_ratio": tensors[0].ratio,
                    "last_ratio": tensors[-1].ratio,
                    **{key: _mean([getattr(t, key) for t in tensors]) for key in _DISTANCES},
                }
            )
    facts = {
        "model": name,
        "models": merge.models,
        "method": merge.method,
        "tensors": len(merge.tensors),
        "projections": groups,
    }
    return {**facts, "overflowed": merge.overflowed, "flushed": merge.flushed}


_DISTANCES = ("norm_c_minus_a", "norm_c_minus_b", "cosine_a", "cosine_b")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _interval(metric: Metric | None) -> list[float] | None:
    return None if metric is None or metric.low is None or metric.high is None else [metric.low, metric.high]


def _bits(model: str, suite: str, tasks: dict[str, TaskResult]) -> list[dict[str, Any]]:
    rows = []
    for task, result in tasks.items():
        if result.format == BITS:
            whole = result.metrics.get(BITS)
            by_source = {n.removeprefix(f"{BITS}/"): m for n, m in result.metrics.items() if n.startswith(f"{BITS}/")}
            row: dict[str, Any] = {"model": model, "suite": suite, "task": task}
            row |= {"value": whole.value, "stderr": whole.stderr} if whole else {"value": None, "stderr": None}
            row |= {"interval": _interval(whole), "sources": {name: m.value for name, m in by_source.items()}}
            row["intervals"] = {name: _interval(m) for name, m in by_source.items()}
            rows.append({**row, "note": result.note or ""})
    return rows
