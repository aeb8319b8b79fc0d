"""The real files, through the same rules (tests/recipes/real.yaml, cut down for time; `make real` runs all of it)."""

import json
import os
from pathlib import Path

import pytest

from tests.pipeline.bench import Bench
from tests.pipeline.conftest import logs

CUT_DOWN = """
mixtures:
  real-mix:
    val_set_size: 0.1
    sources:
      real-aidungeon: {max_rows: 20}
      real-multiround: {max_rows: 40}
      real-seed-tasks: {max_rows: 60}
suites:
  real-truthfulqa: {tasks: {truthfulqa_mc1: {limit: 6}, truthfulqa_mc2: {limit: 6}}}
  real-big-bench: {tasks: {ruin_names: {limit: 6}, snarks: {limit: 6}}}
models:
  small-llama: {create: {architecture: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2}}}
  small-pygmalion: {train: {optimizer: {warmup_steps: 1}}}
benchmark:
  suites: [real-truthfulqa, real-big-bench]
  models: [small-mythalion]
"""


@pytest.mark.slow
def test_real_files_end_to_end(tmp_path: Path) -> None:
    data = Path(os.environ["ATELIER_REAL_DATA"])
    if not (data / "llama2_tokenizer.model").is_file():
        pytest.skip(f"no real files in {data}: set ATELIER_REAL_DATA to the folder that holds them")
    bench = Bench.fresh(tmp_path / "real", "tests/recipes/real.yaml")
    (bench.folder / "smaller.yaml").write_text(CUT_DOWN)
    bench.overlays = ("smaller.yaml",)
    run = bench.run()
    assert run.code == 0, run.output + logs(bench)
    results = bench.folder / "results" / "real"
    assert bench.python("-m", "scripts.artifact", "verify", str(results)).returncode == 0
    packed = json.loads((results / "pack/small-pygmalion/pack.json").read_text())
    assert packed["vocab_size"] == 32000
    scores = json.loads((results / "benchmark/small-mythalion/real-truthfulqa/results.json").read_text())
    assert scores["tasks"]["truthfulqa_mc1"]["items"] == 6
    trained = json.loads((results / "train/small-pygmalion/train.json").read_text())
    assert trained["last_eval_loss"] < trained["first_eval_loss"]
    audit = json.loads((results / "clean/real-aidungeon/audit.json").read_text())
    assert audit["rows_in"] == audit["rows_out"] + sum(audit["rejected"].values()) == 600
