"""What a training asks of Slurm: the line that Snakemake's plugin makes of the recipe's one setting `nodes`."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.recipe.resources import job_resources, node_resources
from scripts.recipe.train import Launch
from scripts.train.launch import launcher_environment, start_command
from tests.conftest import ROOT

TRAINING = ("train", "pygmalion-2-13b")
SEVERAL = ("nodes", "mpi", "tasks", "tasks_per_gpu", "slurm_extra")


def graph(folder: Path, **launch: object) -> Graph:
    """The 13B recipe with another launch; half the micro-batch keeps the global batch on two nodes."""
    change = {"models": {TRAINING[1]: {"train": {"launch": launch, "pack": {"micro_batch_size": 4}}}}}
    (folder / "nodes.yaml").write_text(yaml.safe_dump(change))
    return Graph(load_recipe([ROOT / "config" / "mythalion-13b.yaml", folder / "nodes.yaml"], ROOT))


class Resources(SimpleNamespace):
    """A job's resources as the plugin reads them: by attribute and by `get`."""

    def get(self, key: str, default: object = None) -> Any:
        return getattr(self, key, default)


def needs_of(graph: Graph, gpu_model: str = "") -> dict[str, Any]:
    """What the rule hands to Snakemake."""
    return {**job_resources(graph, TRAINING), **node_resources(graph, TRAINING, gpu_model)}


def sbatch_line(needs: dict[str, Any], **profile: object) -> str:
    """Return the plugin's own submission of these resources."""
    submit = pytest.importorskip("snakemake_executor_plugin_slurm.submit_string")
    utils = pytest.importorskip("snakemake_executor_plugin_slurm.utils")
    validation = pytest.importorskip("snakemake_executor_plugin_slurm.validation")
    # As Snakemake does: what is None is no resource, and the profile wins.
    present = {key: value for key, value in needs.items() if value is not None and key != "threads"}
    job = SimpleNamespace(resources=Resources(**{**present, **profile}), threads=needs["threads"])
    names = {"run_uuid": "u", "slurm_logfile": "l", "comment_str": "c", "account": "", "partition": "-p h100"}
    validation.validate_slurm_extra(job)
    return str(submit.get_submit_command(job, {**names, "workdir": ""}) + utils.set_gres_string(job))


def test_two_nodes_are_asked_for_with_one_task_and_all_gpus_on_each(tmp_path: Path) -> None:
    needs = needs_of(graph(tmp_path, nodes=2), "h100")
    assert (needs["gpu"], needs["threads"], needs["tasks"], needs["mpi"]) == (16, 32, 2, "srun")
    line = sbatch_line(needs, gpu_model="h100")
    wanted = "--mem 400000 --nodes=2 --ntasks=2 --cpus-per-task=32"
    wanted += " --signal=TERM@600 --ntasks-per-node=1 --gpus-per-node=h100:8"
    assert line.endswith(f"-t 1440 {wanted} --gpus=h100:16"), line
    assert "ntasks-per-gpu" not in line
    untyped = sbatch_line(needs_of(graph(tmp_path, nodes=2)))
    assert untyped.endswith("--gpus-per-node=8 --gpus=16"), untyped


def test_one_node_asks_for_a_warning_before_its_end_and_nothing_else_of_that(tmp_path: Path) -> None:
    needs = needs_of(graph(tmp_path, nodes=1), "h100")
    assert [needs[key] for key in SEVERAL] == [None] * 4 + ["--signal=TERM@600"]
    line = sbatch_line(needs, gpu_model="h100")
    assert "--nodes" not in line and line.endswith("--cpus-per-task=32 --signal=TERM@600 --gpus=h100:8"), line


def test_nodes_without_gpus_are_asked_for_too(tmp_path: Path) -> None:
    launch = {"nodes": 2, "device": "cpu", "processes_per_node": 2, "threads_per_process": 1}
    needs = needs_of(graph(tmp_path, **launch))
    assert (needs["nodes"], needs["gpu"], needs["threads"]) == (2, 0, 2)
    assert needs["slurm_extra"] == "--signal=TERM@120 --ntasks-per-node=1"


def test_srun_counts_the_gpus_and_does_not_inherit_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_GPUS", "h100:16")
    monkeypatch.setenv("SLURM_GPUS_PER_NODE", "h100:8")
    launch = Launch(device="cuda", nodes=2, processes_per_node=8)
    assert {"--nodes=2", "--ntasks=2", "--gpus-per-node=8"} < set(start_command(launch, Path("task.json")))
    assert not [name for name in launcher_environment(launch) if name.startswith("SLURM_GPUS")]


@pytest.mark.slow
def test_a_dry_run_by_the_profile_asks_for_both_nodes(tmp_path: Path) -> None:
    graph(tmp_path, nodes=2)
    recipes = ["config/mythalion-13b.yaml", str(tmp_path / "nodes.yaml")]
    target = f"results/mythalion-13b/train/{TRAINING[1]}/SHA256SUMS"
    command = [sys.executable, "-m", "snakemake", "-n", "-p", target, "--profile", "slurm-h100", "--configfile"]
    done = subprocess.run(
        [*command, *recipes, "--directory", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown[-2000:]
    assert re.search(r"train pygmalion-2-13b \[16 GPUs, 32 threads, 400000 MB", shown), shown[-3000:]
