"""What a job asks of the machine: threads, memory, minutes, GPUs. Account and partition come from the profile."""

from scripts.recipe.benchmark import BenchmarkSpec
from scripts.recipe.graph import Artifact, Graph
from scripts.recipe.train import TrainSpec

# Largest need seen of a stage that reads no weights, in MB: interpreter, pyarrow and a buffer.
_SMALL_MB = 4_000
_HOUR = 60


def job_resources(graph: Graph, artifact: Artifact, attempt: int = 1) -> dict[str, int]:
    """Return `threads`, `mem_mb`, `runtime` (minutes) and `gpu` of one job.

    Time and memory of jobs without a GPU grow with the attempt.
    """
    job = graph.jobs[artifact]
    needs = {"threads": 1, "mem_mb": _SMALL_MB, "runtime": _HOUR, "gpu": 0}
    if job.stage == "merge":
        needs.update(threads=2)
    if job.stage in {"clean", "mix", "pack"}:
        needs.update(mem_mb=2 * _SMALL_MB)
    if job.stage == "release":
        needs.update(threads=2, mem_mb=2 * _SMALL_MB)  # one tensor at a time: 655 MB as fp32 at 13B
    if isinstance(job.spec, TrainSpec):
        needs.update(_training(job.spec))
    if isinstance(job.spec, BenchmarkSpec) and job.spec.device == "cuda" and not job.spec.combines:
        # One GPU holds a 13B model in 16 bits (26 GB) with its activations; the host loads it shard by shard.
        needs.update(threads=4, mem_mb=64_000, runtime=12 * _HOUR, gpu=1)
    # A GPU job fills its node already and resumes where it was stopped: more of anything would only not be granted.
    growth = 1 if needs["gpu"] else attempt
    return {**needs, "mem_mb": needs["mem_mb"] * growth, "runtime": needs["runtime"] * growth}


def _training(spec: TrainSpec) -> dict[str, int]:
    launch = spec.launch
    if launch.device == "cpu":
        return {"threads": launch.processes * launch.threads_per_process, "mem_mb": 2 * _SMALL_MB, "runtime": _HOUR}
    # 8 processes load, gather and save a 13B model in fp32 (52 GB) through the host.
    return {
        "threads": launch.processes_per_node * launch.threads_per_process,
        "mem_mb": 400_000,
        "runtime": 24 * _HOUR,
        "gpu": launch.processes_per_node,
    }
