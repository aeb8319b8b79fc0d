"""`python -m scripts.train plan RECIPE`: memory, time, disk and energy of each training, on a machine without a GPU."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.artifact.code import ROOT
from scripts.artifact.stage import StageError
from scripts.recipe.estimate import ASSUMED_MFU, GIB, Assumptions, PlanFigures, Workload, closed_form_peak, plan_figures
from scripts.recipe.fits import fits, nearest_fits
from scripts.recipe.gpus import GPUS, RESERVE_GIB, Gpu, gpu_named
from scripts.recipe.load import Loaded, load_recipe
from scripts.recipe.models import TrainModel
from scripts.recipe.problems import RecipeError, nearest
from scripts.recipe.shapes import ModelShape, UnknownShapeError, shape_of

SHOWN_GPUS = ("a40", "a100", "h100", "h200")
"""Compared where no GPU is named."""


@dataclass(frozen=True)
class Plan:
    """One training on one kind of GPU."""

    model: str
    base: str
    shape: ModelShape
    train: TrainModel
    workload: Workload
    memory: dict[str, Any]
    """The tracker's peak by kind, bytes."""
    figures: dict[str, PlanFigures]
    """By name of the GPU; `cpu` for a training on CPUs."""
    asked: Gpu | None

    @property
    def refusal(self) -> str:
        """Why the training can't run on the GPU that was named, and what would fit; empty where it can."""
        peak = int(self.memory["peak_bytes"])
        if self.asked is None or fits(peak, self.asked):
            return ""
        train, gpu = self.train, self.asked
        ways = nearest_fits(self.shape, train.pack, train.numerics, train.launch, gpu)
        needs = f"{peak / GIB:.1f} GiB and {RESERVE_GIB:g} GiB for context and NCCL"
        text = f"models.{self.model}.train does not fit: needs {needs}, {gpu.name} has {gpu.memory_gib:g} GiB"
        others = [g.name for g in sorted(GPUS.values(), key=lambda g: g.memory_gib) if fits(peak, g)]
        listed = [f"\n  - {way}" for way in ways] + ([f"\n  - another GPU: {', '.join(others)}"] if others else [])
        return f"{text}; nearest settings that fit:{''.join(listed) or ' none with up to 8 times the GPUs'}"


def main(arguments: Sequence[str]) -> int:
    """Print the plan of each trained model; return 1 where the recipe is wrong or does not fit."""
    parser = argparse.ArgumentParser(prog="python -m scripts.train plan", description=__doc__)
    parser.add_argument("recipe", type=Path, nargs="+", help="recipe file; later ones are laid over earlier ones")
    parser.add_argument("--model", help="one trained model of the recipe (default: all)")
    parser.add_argument("--gpu", default="", help=f"kind of GPU: {', '.join(GPUS)} (default: compare some)")
    parser.add_argument("--mfu", type=float, default=ASSUMED_MFU, help="share of the bf16 peak (default: %(default)s)")
    parser.add_argument("--tokens", type=int, help="training tokens of one epoch (default: pack artifact or recipe)")
    parser.add_argument("--price", type=float, help="price of one GPU hour, any currency (default: the recipe's)")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="where finished artifacts lie")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    args = parser.parse_args(arguments)
    try:
        gpu = gpu_named(args.gpu) if args.gpu else None
        loaded = load_recipe(args.recipe, ROOT)
        assumed = Assumptions(gpu, args.mfu, args.price or loaded.recipe.price_per_gpu_hour)
        chosen = _chosen(loaded, args.model)
        results = args.results / loaded.recipe.name
        plans = [make_plan(loaded, name, results, assumed, args.tokens) for name in chosen]
    except (RecipeError, UnknownShapeError, StageError, ValueError) as error:
        print(f"plan: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps([as_json(plan, args.mfu) for plan in plans], indent=1))
    else:
        print("\n\n".join(as_text(plan, args.mfu) for plan in plans))
    refusals = [plan.refusal for plan in plans if plan.refusal]
    for text in refusals:
        print(f"plan: {text}", file=sys.stderr)
    return 1 if refusals else 0


def _chosen(loaded: Loaded, model: str | None) -> list[str]:
    trained = [name for name, entry in loaded.recipe.models.items() if entry.train is not None]
    if model is not None and model not in trained:
        known = f"trained here: {', '.join(trained) or 'none'}{nearest(model, trained)}"
        raise ValueError(f"{loaded.path}: model {model!r} is not trained by this recipe; {known}")
    if not trained:
        raise ValueError(f"{loaded.path}: trains no model, there is nothing to plan")
    return [model] if model is not None else trained


def make_plan(loaded: Loaded, name: str, results: Path, assumed: Assumptions, tokens: int | None) -> Plan:
    """Return the plan of one trained model.

    Raises:
        UnknownShapeError: the architecture of the base is not known yet.
    """
    from scripts.train.track import peak_memory  # torch and transformers: seconds, so only once the recipe is sound

    train = loaded.recipe.models[name].train
    assert train is not None
    shape = shape_of(loaded.recipe, train.base, results)
    memory = peak_memory(shape.config(), train.numerics, train.pack, train.launch.processes)
    work = workload_of(loaded, name, train, results / "pack" / name, tokens)
    settings = (train.pack, train.numerics, train.cadence, train.launch)
    if train.launch.device == "cpu":
        gpus: dict[str, Gpu | None] = {"cpu": None}
    else:
        gpus = {g.name: g for g in ([assumed.gpu] if assumed.gpu else map(GPUS.__getitem__, SHOWN_GPUS))}
    figures = {
        label: plan_figures(
            shape, settings, work, Assumptions(g, assumed.mfu, assumed.price_per_gpu_hour), memory.peak_bytes
        )
        for label, g in gpus.items()
    }
    asked = assumed.gpu if train.launch.device == "cuda" else None
    facts = {**asdict(memory), "static_bytes": memory.static_bytes}
    return Plan(name, train.base, shape, train, work, facts, figures, asked)


def workload_of(loaded: Loaded, name: str, train: TrainModel, pack: Path, tokens: int | None) -> Workload:
    """Return tokens and rows: of the pack artifact where it is of these settings, else as the recipe expects."""
    mixture = loaded.recipe.mixtures[train.mixture]
    share = mixture.val_set_size / (1 - mixture.val_set_size)
    try:
        facts = json.loads((pack / "pack.json").read_text(encoding="utf-8"))
        same = all(facts.get(key) == value for key, value in train.pack.model_dump().items() if key in facts)
        if tokens is None and same and facts["processes"] == train.launch.processes:
            lengths = np.diff(np.load(pack / "train_rows.npy", mmap_mode="r", allow_pickle=False)).astype(np.float64)
            span = float(np.square(lengths).sum() / lengths.sum())
            return Workload(int(facts["train_tokens"]), span, int(facts["validation_tokens"]), int(facts["steps"]))
    except (OSError, ValueError, KeyError):
        pass  # not packed yet, or from another version: the recipe's own words are used
    tokens = tokens or mixture.expected_tokens
    # Rows as long as a bin: the upper bound of attention's share, 3 % above real mixtures.
    return Workload(tokens, float(train.pack.sequence_len), int((tokens or 0) * share))


def as_json(plan: Plan, mfu: float) -> dict[str, Any]:
    """Return all figures of a plan, units in the names."""
    return {
        "model": plan.model,
        "base": plan.base,
        "shape": plan.shape.config(),
        "parameters": plan.shape.params,
        "processes": plan.train.launch.processes,
        "memory": plan.memory,
        "reserve_gib": RESERVE_GIB,
        "assumed_mfu": mfu,
        "workload": asdict(plan.workload),
        "gpus": {
            name: {**asdict(f), "fits": name == "cpu" or fits(f.peak_bytes, GPUS[name])}
            for name, f in plan.figures.items()
        },
        "refusal": plan.refusal,
    }


def as_text(plan: Plan, mfu: float) -> str:
    """Return a plan as people read it: memory by kind, then a line for each GPU."""
    memory, train, any_figures = plan.memory, plan.train, next(iter(plan.figures.values()))
    pack, count = train.pack, train.launch.processes
    device = "GPU" if train.launch.device == "cuda" else "process"
    layers = plan.shape.num_hidden_layers
    unit, label = (GIB, "GiB") if memory["peak_bytes"] >= GIB else (2**20, "MiB")
    lines = [
        f"{plan.model}: {plan.shape.params / 1e9:.2f} B parameters ({layers} layers), {count} processes, "
        f"{pack.sequence_len} x {pack.micro_batch_size} tokens a line, {any_figures.tokens_per_step:,} a step",
        f"  {train.numerics.precision}, checkpointing {_on(train.numerics.gradient_checkpointing)}, "
        f"offload {_on(train.numerics.fsdp_offload_params)}, attention {train.numerics.attention}",
        "",
        f"memory of one {device} ({label})",
    ]
    kinds = ("params", "grads", "optimizer", "unsharded", "activations")
    lines += [f"  {kind:<12}{memory[f'{kind}_bytes'] / unit:8.2f}" for kind in kinds]
    lines += [
        f"  {'peak':<12}{memory['peak_bytes'] / unit:8.2f}   in {moment(memory['where'], layers)}",
        f"  {'loss':<12}{memory['loss_bytes'] / unit:8.2f}   of it or below it: chunked logits, gradients of the head",
        f"  {'static':<12}{any_figures.static_bytes / unit:8.2f}   closed form: params * bytes / ranks",
    ]
    if memory["host_bytes"]:
        lines.append(f"  {'host':<12}{any_figures.host_bytes / unit:8.2f}   a node, for offloaded state")
    if train.launch.device == "cuda":
        lines += ["", *_other_settings(plan.shape, train)]
    lines += ["", *_table(plan)]
    lines += [
        f"  checkpoint {any_figures.checkpoint_bytes / 1e9:,.1f} GB, disk {any_figures.disk_bytes / 1e9:,.0f} GB "
        f"(base, at most {train.cadence.save_total_limit} checkpoints{_kept(train)} and the one being written, "
        "weights)",
        f"  assumed: MFU {mfu:g} (--mfu), board power all the time, {RESERVE_GIB:g} GiB for context and NCCL",
    ]
    if plan.workload.tokens is None:
        lines.append("  tokens not known yet: set mixtures.<name>.expected_tokens, give --tokens, or pack first")
    return "\n".join(lines)


def _table(plan: Plan) -> list[str]:
    lines = [
        f"{'':<12}{'GiB':>7}{'fits':>6}{'s/step':>9}{'steps':>8}{'hours':>8}{'GPU hours':>11}{'kWh':>8}{'cost':>10}"
    ]
    for name, f in plan.figures.items():
        gpu = GPUS.get(name)
        hours = None if f.run_s is None else f.run_s / 3600
        size, fit = (f"{gpu.memory_gib:g}", "yes" if fits(f.peak_bytes, gpu) else "NO") if gpu else ("-", "-")
        cells = (_cell(f.step_s, 9, 2), _cell(f.steps, 8, 0), _cell(hours, 8, 1), _cell(f.gpu_hours, 11, 0))
        lines.append(f"  {name:<10}{size:>7}{fit:>6}{''.join(cells)}{_cell(f.energy_kwh, 8, 0)}{_cell(f.cost, 10, 0)}")
    return lines


def _kept(train: TrainModel) -> str:
    wanted = len(train.cadence.keep_checkpoints)
    return f", {wanted} more to keep" if wanted else ""


def _other_settings(shape: ModelShape, train: TrainModel) -> list[str]:
    """Return the peak with and without checkpointing and offloading: by closed form, so that it costs no time."""
    lines = [f"{'peak by closed form (GiB, within a tenth)':<40}{'offload off':>12}{'offload on':>12}"]
    for checkpointing in (True, False):
        cells = ""
        for offload in (False, True):
            changed = {"gradient_checkpointing": checkpointing, "fsdp_offload_params": offload}
            numerics = train.numerics.model_copy(update=changed)
            cells += f"{closed_form_peak(shape, train.pack, numerics, train.launch.processes) / GIB:12.1f}"
        lines.append(f"{'  checkpointing ' + _on(checkpointing):<40}{cells}")
    return lines


def moment(where: str, layers: int) -> str:
    """Return the tracker's segment in people's words: layers counted from 1."""
    start, _, index = where.rpartition(" ")
    if not start.endswith("layer"):
        return f"the {where}"
    number = int(index)
    return f"the {start} {number + 1 if number >= 0 else layers + number + 1}"


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'-' if value is None else f'{value:,.{digits}f}':>{width}}"


def _on(flag: bool) -> str:
    return "on" if flag else "off"
