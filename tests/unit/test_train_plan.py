"""The plan: memory against whole tracks, closed forms and a real run; refusals; out-of-memory messages."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from scripts.recipe.estimate import GIB, Assumptions, Workload, closed_form_peak, flops_per_token, plan_figures
from scripts.recipe.fits import fits, nearest_fits
from scripts.recipe.gpus import GPUS, RESERVE_GIB
from scripts.recipe.pack import PackSettings
from scripts.recipe.shapes import KNOWN, ModelShape
from scripts.recipe.train import Cadence, Launch, Numerics, Optimizer
from scripts.train import worker
from scripts.train.handover import FAILURE, Task
from scripts.train.metrics import line_flops
from scripts.train.model import materialize, sharded_model
from scripts.train.optimizer import build_optimizer, moments
from scripts.train.plan import main, moment
from scripts.train.reader import Line
from scripts.train.track import peak_memory, track_segments
from tests.conftest import ROOT
from tests.unit.train_fixtures import alone, make_base, make_pack, make_spec

SMALL = ModelShape(1000, 256, 688, 4, 8, 8)
GROUPED = ModelShape(4000, 256, 896, 9, 8, 2)
LLAMA_7B, LLAMA_13B = KNOWN["meta-llama/llama-2-7b-hf"], KNOWN["meta-llama/llama-2-13b-hf"]
SETTINGS: list[Any] = [
    ({}, 1),
    pytest.param({"gradient_checkpointing": False}, 1, marks=pytest.mark.slow),
    pytest.param({"fsdp_offload_params": True}, 2, marks=pytest.mark.slow),
    pytest.param({"precision": "pure_bf16"}, 2, marks=pytest.mark.slow),
    ({"precision": "fp32", "gradient_checkpointing": False, "attention": "sdpa"}, 1),
]


def _pack(accumulation: int = 1, tokens: int = 256) -> PackSettings:
    return PackSettings(sequence_len=tokens, micro_batch_size=2, gradient_accumulation_steps=accumulation)


@pytest.mark.parametrize(("changed", "accumulation"), SETTINGS)
def test_two_small_depths_say_what_all_the_layers_take(changed: dict[str, Any], accumulation: int) -> None:
    """Nine layers, extrapolated from four and five, against a whole track of nine: the same to the byte."""
    numerics, pack = Numerics(**changed), _pack(accumulation)
    planned = peak_memory(GROUPED.config(), numerics, pack, 4)
    whole = track_segments(GROUPED.config(), numerics, pack, 4)
    assert planned.peak_bytes == max(peak["used"] for peak in whole.values())


def test_the_static_part_is_the_closed_form() -> None:
    """params * 16 B / ranks in fp32, 8 B in pure bf16: at the end of the backward pass all of it is there."""
    for precision, width in (("fp32_master", 16), ("pure_bf16", 8)):
        numerics = Numerics(precision=precision)
        end = track_segments(SMALL.config(), numerics, _pack(), 4)["gradient norm"]
        static = sum(end[kind] for kind in ("Sharded Param", "Sharded Grad", "OptState"))
        # Every shape here divides by four; the optimizer's step counts are 4 B a tensor.
        assert 0 <= static - SMALL.params * width // 4 <= 4 * 100
        settings = (_pack(), numerics, Cadence(), Launch(processes_per_node=4))
        figures = plan_figures(SMALL, settings, Workload(None, 256.0), Assumptions(None))
        assert figures.static_bytes == SMALL.params * width // 4


@pytest.mark.parametrize("checkpointing", [True, False])
def test_the_plan_is_what_a_real_run_allocates(checkpointing: bool) -> None:
    """Within 3 % of what torch's profiler counts at the CPU allocator in a real step of one process."""
    numerics = Numerics(precision="fp32", attention="sdpa", gradient_checkpointing=checkpointing)
    pack = _pack(tokens=512)
    planned = peak_memory(SMALL.config(), numerics, pack, 1)
    with alone() as mesh:
        model = sharded_model(SMALL.config(), numerics, mesh)
        materialize(model, numerics, mesh)
        optimizer = build_optimizer(model, Optimizer())
        before = sum(b.numel() * b.element_size() for b in model.buffers())
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
            before += 3 * 4 * parameter.numel()
            moments(optimizer, parameter)
        ids = torch.arange(1024) % SMALL.vocab_size
        line = Line(ids, ids, torch.arange(512).repeat(2), [512, 512], [0, 1], 1024)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            (model(line) * 0.5).backward()
        assert seen.profiler is not None and seen.profiler.kineto_results is not None
        events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    real = before + max(itertools.accumulate(sizes))
    print(f"plan {planned.peak_bytes:,} B, real {real:,} B: {planned.peak_bytes / real - 1:+.2%}")
    assert planned.peak_bytes == pytest.approx(real, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [LLAMA_7B, LLAMA_13B], ids=["7b", "13b"])
def test_the_closed_form_agrees_with_the_tracker(shape: ModelShape) -> None:
    for changed, size, accumulation in (({}, 8, 1), ({"gradient_checkpointing": False}, 1, 8)):
        numerics = Numerics(**changed)
        pack = PackSettings(micro_batch_size=size, gradient_accumulation_steps=accumulation)
        tracked = peak_memory(shape.config(), numerics, pack, 8).peak_bytes
        assert closed_form_peak(shape, pack, numerics, 8) == pytest.approx(tracked, rel=0.1)


def test_figures_of_the_reference_table() -> None:
    """7B at 8 x 4,096 on 8 GPUs: 26.9 GiB with logits in chunks, 12.55 GiB static (the reference measured both)."""
    memory = peak_memory(LLAMA_7B.config(), Numerics(), PackSettings(), 8)
    assert memory.peak_bytes / GIB == pytest.approx(26.9, abs=0.1)
    settings = (PackSettings(), Numerics(), Cadence(), Launch())
    work = Workload(432_000_000, 4096.0)
    figures = plan_figures(LLAMA_7B, settings, work, Assumptions(GPUS["a40"]), memory.peak_bytes)
    assert figures.static_bytes / GIB == pytest.approx(12.55, abs=0.01)
    assert figures.flops_per_token == pytest.approx(42.9e9, rel=2e-3)
    assert figures.gpu_hours is not None and figures.run_s is not None
    assert figures.gpu_hours == pytest.approx(figures.run_s / 3600 * 8)
    assert figures.energy_kwh == pytest.approx(figures.gpu_hours * 0.3)
    assert flops_per_token(LLAMA_13B, 4096.0) == pytest.approx(82.1e9, rel=2e-3)


def test_flops_are_those_of_the_trainer() -> None:
    config = type("Config", (), GROUPED.config())
    assert flops_per_token(GROUPED, 100.0) * 1000 == pytest.approx(line_flops(config, 1000, 100_000))


def test_what_is_named_instead_of_a_recipe_that_does_not_fit_does_fit() -> None:
    gpu, pack, launch = GPUS["a40"], PackSettings(), Launch()
    numerics = Numerics(gradient_checkpointing=False)
    ways = nearest_fits(LLAMA_7B, pack, numerics, launch, gpu)
    assert not fits(closed_form_peak(LLAMA_7B, pack, numerics, 8), gpu)
    assert ways[0] == "numerics.gradient_checkpointing: true"
    assert "pack.micro_batch_size: 1 with gradient_accumulation_steps: 8" in ways
    on = numerics.model_copy(update={"gradient_checkpointing": True})
    assert fits(closed_form_peak(LLAMA_7B, pack, on, 8), gpu)
    # The global batch stays: 13B on a card of 24 GB needs more of everything.
    for way in nearest_fits(LLAMA_13B, pack, numerics, launch, GPUS["rtx4090"]):
        assert "fsdp_offload_params" in way or "GPUs" in way, way


def test_a_refused_recipe_ends_with_status_1_and_the_nearest_settings(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(ROOT / "config" / "pygmalion-2-13b.yaml")
    assert main([recipe, "--gpu", "a40", "--json"]) == 1
    shown = capsys.readouterr()
    (plan,) = json.loads(shown.out)
    assert plan["gpus"]["a40"]["fits"] is False
    assert plan["memory"]["peak_bytes"] / GIB > 45 - RESERVE_GIB
    assert "pygmalion-2-13b.train does not fit" in shown.err
    assert "pack.micro_batch_size: 4 with gradient_accumulation_steps: 2" in shown.err
    assert "another GPU: a6000, " in shown.err


def test_wrong_arguments_are_named_before_anything_is_tracked(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(ROOT / "config" / "demo.yaml")
    assert main([recipe, "--gpu", "h10"]) == 1
    assert 'did you mean "h100"' in capsys.readouterr().err
    assert main([recipe, "--model", "tiny-roleply"]) == 1
    assert 'did you mean "tiny-roleplay"' in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_shows_memory_with_and_without_checkpointing_and_offloading(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT / "config" / "pygmalion-2-7b.yaml"), "--gpu", "a40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    tracked = float(next(line for line in lines if line.startswith("  peak ")).split()[1])
    with_it, without = ([float(x) for x in line.split()[2:]] for line in lines if line.startswith("  checkpointing o"))
    assert with_it[0] == pytest.approx(tracked, rel=0.1)
    # Offloading takes the static 12.55 GiB off; activations of a whole line without recomputation are beyond 48 GB.
    assert with_it[0] - with_it[1] > 8 and without[0] - without[1] > 8
    assert without[1] > 48


def test_a_recipe_for_processors_is_planned_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(ROOT / "config" / "demo.yaml"), "--model", "tiny-roleplay", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "tokens not known yet" in out and "2 processes" in out
    assert moment("backward of layer -2", 32) == "the backward of layer 31"
    assert moment("forward of layer 0", 32) == "the forward of layer 1"


def test_out_of_memory_names_the_plan_and_the_knobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, pack = make_base(tmp_path / "base"), make_pack(tmp_path / "pack", processes=1)
    spec = make_spec(launch={"processes_per_node": 1})
    work = tmp_path / "work"
    work.mkdir()
    Task(spec, base, pack, tmp_path / "out", work, {}, tmp_path / "curves").write(tmp_path / "task.json")

    def exhausted(_: Task) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore words")

    monkeypatch.setattr(worker, "train", exhausted)
    assert worker.main(tmp_path / "task.json") == 1
    text = (work / FAILURE).read_text(encoding="utf-8")
    assert "the plan's figure is " in text and "Tried to allocate 2.00 GiB)" in text
    assert "\n  - pack.micro_batch_size: 4 with gradient_accumulation_steps: 4" in text
    assert "more words" not in text


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "scripts.train", "plan", "config/demo.yaml", "--tokens", "1000"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""
