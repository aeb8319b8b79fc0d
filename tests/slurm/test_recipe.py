"""The whole recipe by the real profiles on a running Slurm, and what it costs there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.artifact.digest import sha256_file
from scripts.artifact.lock import entries_of, read_lock
from tests.conftest import ROOT
from tests.pipeline.bench import Bench
from tests.slurm.bench import SlurmBench
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import fresh

LONGER = ("pack/", "train/", "merge/", "benchmark/", "report")
"""What another number of epochs changes."""


def weights(bench: Bench) -> str:
    """Return the digest of the trained weights."""
    return sha256_file(bench.folder / "results/tiny/train/sapling/model.safetensors")


def states(slurm: SlurmBench) -> set[str]:
    """Return the states of this run's jobs: other runs share the cluster, and cancel theirs. squeue would forget."""
    told = slurm.cluster.call("sacct", "-X", "-n", "-P", "-S", "now-1day", "-o", "State,WorkDir").splitlines()
    lines = (line.split("|", 1) for line in told)
    return {state for state, folder in lines if Path(folder) == slurm.bench.folder}


def facts_of_training(bench: Bench) -> dict[str, object]:
    """Return what was asserted while it trained."""
    path = bench.folder / "results/tiny/train/sapling/provenance.json"
    asserted: dict[str, object] = json.loads(path.read_text())["asserted"]
    return asserted


def test_the_whole_recipe_has_the_digests_of_a_local_run(quiet: SlurmBench, built: Bench) -> None:
    there, here = quiet.bench.sums(), built.sums()
    assert there.keys() == here.keys()
    for name in here:
        # Its training is longer than the local one: what comes before it is the same to the bit.
        if not name.removeprefix("tiny/").startswith(LONGER):
            assert there[name] == here[name], name
    assert states(quiet) == {"COMPLETED"}


def test_two_nodes_train_the_bytes_of_one(untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]) -> None:
    untrained.bench.overlays = (*untrained.bench.overlays, "tests/slurm/two-nodes.yaml")
    untrained.nodes = 2
    run = untrained.run("train")
    assert run.code == 0, untrained.report()
    (job,) = untrained.jobs("train_model", "COMPLETED")
    told = untrained.cluster.call("sacct", "-X", "-n", "-P", "-j", job, "-o", "NNodes,AllocTRES")
    assert told.startswith("2|") and "gres/gpu=4" in told, told
    assert weights(untrained.bench) == weights(quiet.bench)
    facts = facts_of_training(untrained.bench)
    assert (facts["nodes"], facts["world_size"]) == (2, 2)


@pytest.mark.matrix
@pytest.mark.parametrize(("profile", "nodes"), [("slurm-a40", 1), ("slurm-h100", 2)])
def test_both_profiles_run_the_whole_recipe(
    cluster: Cluster, tmp_path: Path, built: Bench, measured: dict[str, float], profile: str, nodes: int
) -> None:
    """Two ranks a node on one node and on two; the reference has as many ranks on this machine, without Slurm."""
    bench = fresh(tmp_path / "atelier")
    bench.overlays = ("tests/slurm/two-by-two.yaml",) if nodes == 2 else ()
    slurm = SlurmBench(bench, cluster, profile=profile, nodes=nodes)
    run = slurm.run(timeout=1800)
    assert run.code == 0, slurm.report()
    assert states(slurm) == {"COMPLETED"}
    reference = built
    if nodes == 2:
        reference = fresh(tmp_path / "reference")
        reference.overlays = ("tests/slurm/four-ranks.yaml",)
        assert reference.run("train").code == 0
    assert weights(bench) == weights(reference)
    assert facts_of_training(bench)["world_size"] == 2 * nodes
    if nodes == 1:
        assert bench.sums() == reference.sums()


@pytest.mark.matrix
def test_the_mythalion_demo_equals_its_lock(cluster: Cluster, tmp_path: Path, measured: dict[str, float]) -> None:
    """The worked example in small, as `make demo` makes it, by Slurm: the values of locks/demo.lock."""
    slurm = SlurmBench(Bench.fresh(tmp_path / "atelier", "config/demo.yaml"), cluster)
    run = slurm.run(timeout=1800)
    assert run.code == 0, slurm.report()
    locked = {(e.stage, e.name): e.value for e in read_lock(ROOT / "locks" / "demo.lock")}
    built = {(e.stage, e.name): e.value for e in entries_of(slurm.bench.folder / "results" / "demo")}
    assert built == locked
    assert states(slurm) == {"COMPLETED"}


@pytest.mark.matrix
def test_efficiency_from_slurms_accounting(quiet: SlurmBench) -> None:
    """`make efficiency` after a run: what each job asked for and used, by Slurm where it knows the job."""
    arguments = ["-m", "scripts.report", "efficiency", quiet.bench.recipe, *quiet.bench.overlays]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=quiet.bench.folder,
        env=quiet.bench.environment(**quiet.cluster.environment(), PYTHONPATH=str(quiet.bench.folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (train,) = [line for line in lines if line.startswith("train sapling")]
    assert "slurm" in train.split(), "Slurm's accounting knows the job"
    local = [line for line in lines if line.startswith(("download", "report"))]
    assert local and all("records" in line.split() for line in local)


def test_overhead_of_a_job(quiet: SlurmBench, measured: dict[str, float]) -> None:
    """CPU seconds of each Slurm job beyond its work: two starts of Snakemake, one of the stage. Printed, not judged."""
    found = []
    for path in quiet.bench.folder.glob("results/tiny/*/**/provenance.json"):
        facts = json.loads(path.read_text())
        job = str(facts["slurm_job_id"])
        if job:
            told = quiet.cluster.call("sacct", "-n", "-P", "-j", job, "-o", "JobID,TotalCPU").splitlines()
            steps = (line.split("|")[1] for line in told if "." in line.split("|")[0])
            found.append(sum(map(seconds, steps)) - float(facts["cpu_seconds"]))
    assert found and min(found) > 0
    measured.update(least=min(found), middle=sorted(found)[len(found) // 2], most=max(found))


def seconds(told: str) -> float:
    """Return the seconds of sacct's `[hours:]minutes:seconds`."""
    total = 0.0
    for part in told.split(":"):
        total = 60 * total + float(part)
    return total
