"""The GPU bench works before a GPU is at hand: the same script at toy size, and what it says without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

COMMAND = [sys.executable, "-m", "tests.bench.bench_gpu"]


@pytest.mark.slow
def test_without_a_gpu_it_says_so_and_runs_at_toy_size_to_the_same_bits(tmp_path: Path) -> None:
    output, gpu = tmp_path / "bench.json", torch.cuda.is_available()
    options = ["--steps", "2", "--warm", "1", "--accumulation", "2", "--output", str(output), *["--toy"] * gpu]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = "bench-gpu: no GPU on this machine, nothing is measured: a trial of the script at toy size follows\n"
    assert gpu or done.stdout.startswith(said)
    assert done.stdout.endswith("bench-gpu: the script works here; its times mean nothing\n")
    result = json.loads(output.read_text())
    runs = result["runs"]
    assert {name for name, run in runs.items() if "failed" in run} == set(), runs
    assert result["bitwise_rerun"] and result["toy"] and result["times_hf_trainer"] > 0
    # Same size and data: untrained models of both start near the loss of a uniform guess, ln(500).
    assert runs["ours"]["losses"][0] == pytest.approx(runs["hf_trainer"]["first_loss"], abs=0.1)
    assert runs["ours"]["losses"][0] == pytest.approx(6.21, abs=0.2)
