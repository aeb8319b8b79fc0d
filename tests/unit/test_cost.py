"""What a dry run says of GPU hours, memory, disk and cost."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.recipe.cost import Take, table, takes
from scripts.recipe.estimate import GIB
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.recipe.resources import job_resources
from tests.conftest import ROOT

MODEL = 13_015_864_320  # parameters of Llama 2 13B


def found(recipe: str, gpu: str, **changed: int) -> dict[tuple[str, str], Take]:
    graph = Graph(load_recipe([ROOT / recipe], ROOT))
    asked = {a: job_resources(graph, a) | changed for a in graph.jobs if a[0] != "release"}
    gpus = dict.fromkeys(("train", "benchmark"), gpu)
    return {take.artifact: take for take in takes(graph, asked, gpus, Path("no results"))}


def test_mythalion_on_h100() -> None:
    jobs = found("config/mythalion-13b.yaml", "h100")
    train = jobs[("train", "pygmalion-2-13b")]
    # docs/planning.md: 109 GPU hours, 43.1 GiB by the tracker; 27 checkpoints at most are ever written (6,600 / 256).
    assert (train.gpus, train.at_most) == (8, False)
    assert train.gpu_hours == pytest.approx(109, abs=1)
    assert train.gpu_bytes is not None and train.gpu_bytes / GIB == pytest.approx(43.1, rel=0.06)
    assert train.disk_bytes == 12 * MODEL * (26 + 1) + 4 * MODEL
    assert jobs[("merge", "mythalion-13b")].disk_bytes == 2 * MODEL
    assert jobs[("merge", "mythalion-13b")].gpu_hours == 0
    bench = jobs[("benchmark", "mythalion-13b/gpt4all")]
    assert (bench.gpus, bench.gpu_hours, bench.at_most, bench.gpu_bytes) == (1, 12, True, 2 * MODEL)
    assert jobs[("pack", "pygmalion-2-13b")].disk_bytes == 4 * 432_000_000
    assert jobs[("download", "hellaswag")].disk_bytes is None, "no length is pinned, so none is invented"


def test_checkpoints_to_keep_cost_disk_twice_while_a_training_runs() -> None:
    """Once to resume from, with Adam's moments, and once as the weights that are published."""
    cadence = {"keep_checkpoints": [1000, 2000]}
    changed = {"models": {"pygmalion-2-13b": {"train": {"cadence": cadence}}}}
    loaded = load_recipe([ROOT / "config/mythalion-13b.yaml"], ROOT, changed)
    graph, artifact = Graph(loaded), ("train", "pygmalion-2-13b")
    (take,) = takes(graph, {artifact: job_resources(graph, artifact)}, {"train": "h100"}, Path("no results"))
    assert take.disk_bytes == 12 * MODEL * (26 + 2 + 1) + 4 * MODEL * (1 + 2)


def test_a_gpu_without_known_speed_counts_until_its_time_limit() -> None:
    train = found("config/mythalion-13b.yaml", "", runtime=600)[("train", "pygmalion-2-13b")]
    assert (train.gpu_hours, train.at_most) == (80, True), "8 GPUs for the profile's 10 hours"


def test_a_recipe_on_cpus_costs_nothing() -> None:
    jobs = found("tests/recipes/tiny.yaml", "h100")
    assert {(take.gpus, take.gpu_hours, take.at_most) for take in jobs.values()} == {(0, 0, False)}


def test_the_table_adds_up() -> None:
    rows = [
        Take(("train", "m"), 8, 100.4, False, 43 * GIB, 400_000, 2_000_000_000),
        Take(("benchmark", "m/s"), 1, 12.0, True, None, 64_000, 1),
        Take(("report", ""), 0, 0.0, False, None, 4_000, None),
    ]
    lines = [re.split(r"  +", line) for line in table(rows, 2.5)]
    assert lines[2] == ["train m", "8", "100", "43.0", "400", "2.0", "251"]
    assert lines[3] == ["benchmark m/s", "1", "<= 12", "-", "64", "< 0.1", "<= 30"]
    assert lines[4] == ["report", "-", "-", "-", "4", "-", "-"]
    assert lines[5] == ["total of 3 jobs", "<= 112", "2.0", "<= 281"]
    assert "2.5 a GPU hour" in table(rows, 2.5)[-1]
    assert table(rows, None)[2].endswith("-") and "no price_per_gpu_hour" in table(rows, None)[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("quiet", "shown"), [([], True), (["--quiet"], False)])
def test_the_dry_run_ends_with_the_table(tmp_path: Path, quiet: list[str], shown: bool) -> None:
    command = [sys.executable, "-m", "snakemake", "-n", *quiet, "--profile", "slurm-h100", "--directory"]
    target = "results/mythalion-13b/merge/mythalion-13b/SHA256SUMS"
    done = subprocess.run(
        [*command, str(tmp_path), "--", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ("What this takes:" in done.stdout) == shown
    if shown:
        line = next(line for line in done.stdout.splitlines() if line.startswith("train pygmalion-2-13b "))
        assert re.fullmatch(r"train pygmalion-2-13b +8 +109 +43\.0 +400 +4,269\.2 +21[78]", line)
        assert re.search(r"^total of 30 jobs +109 +", done.stdout, re.M), done.stdout[-3000:]
