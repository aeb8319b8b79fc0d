"""The profiles: what a user edits, and the two that lead to other engines than Slurm."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.recipe.polling import LONGEST_PAUSE_S, limit_pauses
from tests.conftest import ROOT
from tests.pipeline.bench import Bench
from tests.unit.test_train_resources import graph, needs_of, sbatch_line

SLURM = ("slurm-a40", "slurm-h100")


def text_of(profile: str) -> str:
    return (ROOT / "profiles" / profile / "profile.yaml").read_text()


def edited(profile: str) -> dict[str, Any]:
    """The profile with every line of its block that is commented out put to use, as a user would."""
    head, block, rest = re.split(r"^# -{3}.*\n", text_of(profile), flags=re.M)
    content: dict[str, Any] = yaml.safe_load(head + re.sub(r"^( +)# (\w+: )", r"\1\2", block, flags=re.M) + rest)
    return content


@pytest.mark.parametrize("profile", SLURM)
def test_a_slurm_profile_has_what_clusters_ask_for(profile: str) -> None:
    content = yaml.safe_load(text_of(profile))
    wanted = {
        "executor": "slurm",
        "retries": 2,
        "keep-going": True,
        "rerun-incomplete": True,
        "latency-wait": 120,
        "slurm-status-command": "squeue",
        "slurm-requeue": True,
        "slurm-logdir": "results/slurm-logs",
    }
    assert {key: content.get(key) for key in wanted} == wanted
    name = profile.removeprefix("slurm-")
    for rule in ("train_model", "benchmark_model"):
        assert content["set-resources"][rule] == {"slurm_partition": name, "gpu_model": name}


@pytest.mark.parametrize("profile", SLURM)
def test_every_line_of_the_block_reaches_sbatch(profile: str, tmp_path: Path) -> None:
    content = edited(profile)
    resources = {**content["default-resources"], **content["set-resources"]["train_model"]}
    assert resources.keys() >= {"slurm_account", "qos", "constraint", "runtime", "mem_mb", "gpu_model"}
    needs = {**needs_of(graph(tmp_path), resources["gpu_model"]), **resources}
    line = sbatch_line(needs)
    for option in ("--qos=normal", "-C infiniband", "-t 1440", "--mem 480000", f"--gpus={resources['gpu_model']}:8"):
        assert option in line, line
    assert resources["slurm_account"] == "my-project", "the plugin itself looks up partition and account"


def test_no_plugin_pauses_longer_than_it_may() -> None:
    """The Slurm plugin's own pauses grow to 180 s."""
    from snakemake_executor_plugin_slurm import Executor

    limit_pauses()
    limit_pauses()
    executor: Any = Executor.__new__(Executor)
    for seconds, wanted in ((2, 2), (30, 30), (180, LONGEST_PAUSE_S)):
        executor.next_seconds_between_status_checks = seconds
        assert executor.next_seconds_between_status_checks == wanted


def dry_run(folder: Path, *arguments: str) -> str:
    """Return what `snakemake -n ...` prints."""
    command = [sys.executable, "-m", "snakemake", "-n", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_kubernetes_runs_the_whole_workflow_in_one_pod(tmp_path: Path) -> None:
    job = yaml.safe_load((ROOT / "profiles/kubernetes/job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    program, *arguments = container["command"]
    assert program == "snakemake"
    shown = dry_run(Bench.fresh(tmp_path / "clone").folder, *arguments)
    assert "train pygmalion-2-13b [1 GPUs" in shown, "one place for GPU jobs, whatever a job uses"
    assert re.search(r"^train pygmalion-2-13b +8 +<= 192 ", shown, re.M), "the table has the GPUs themselves"


def test_another_scheduler_by_its_submit_command(built: Bench, tmp_path: Path) -> None:
    """The profile's own line, with a `qsub` that starts what it gets: one job goes out and comes back."""
    bench = built.copy(tmp_path / "copy")
    qsub = tmp_path / "bin" / "qsub"
    qsub.parent.mkdir()
    record = shlex.quote(str(tmp_path / "calls"))
    qsub.write_text(f'#!/bin/bash\necho "$@" >> {record}\nbash "${{@: -1}}" > {record}.out 2>&1 &\necho 4711.pbs\n')
    qsub.chmod(0o755)
    profile = yaml.safe_load(text_of("cluster-generic"))
    (tmp_path / "generic").mkdir()
    (tmp_path / "generic" / "config.yaml").write_text(yaml.safe_dump({**profile, "latency-wait": 20}))
    (bench.folder / "results/tiny/merge/grafted/SHA256SUMS").unlink()
    target = "results/tiny/merge/grafted/SHA256SUMS"
    command = [sys.executable, "-m", "snakemake", target, "--profile", str(tmp_path / "generic"), "--nocolor"]
    done = subprocess.run(
        [*command, "--configfile", bench.recipe],
        cwd=bench.folder,
        env=bench.environment(PATH=f"{qsub.parent}:/usr/bin:/bin"),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert "-N merge_models -o results/cluster-logs/ -j oe" in call
    assert "-l select=1:ncpus=2:mem=4000mb:ngpus=0 -l walltime=00:60:00" in call
    assert bench.sums() == built.sums()
    assert "train pygmalion-2-13b [8 GPUs" in dry_run(
        ROOT,
        "--profile",
        "profiles/cluster-generic",
        "--directory",
        str(tmp_path / "empty"),
        "--configfile",
        "config/mythalion-13b.yaml",
    )
