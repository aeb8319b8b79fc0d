"""The GPU bench works before a GPU is at hand: the same script at toy size, and its one line without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

COMMAND = [sys.executable, "-m", "tests.bench.bench_gpu"]


@pytest.mark.slow
def test_the_script_runs_at_toy_size_and_repeats_to_the_bit(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    options = ["--toy", "--steps", "2", "--warm", "1", "--accumulation", "2", "--output", str(output)]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    runs = result["runs"]
    assert {name for name, run in runs.items() if "failed" in run} == set(), runs
    assert result["bitwise_rerun"] and result["toy"] and result["times_hf_trainer"] > 0
    # Same size and data: untrained models of both start near the loss of a uniform guess, ln(500).
    assert runs["ours"]["losses"][0] == pytest.approx(runs["hf_trainer"]["first_loss"], abs=0.1)
    assert runs["ours"]["losses"][0] == pytest.approx(6.21, abs=0.2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    output = ["--output", str(tmp_path / "bench.json")]
    done = subprocess.run([*COMMAND, *output], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "bench-gpu: no GPU on this machine, nothing was measured (--toy tries the script on a CPU)"
    )
    assert not (tmp_path / "bench.json").exists()
