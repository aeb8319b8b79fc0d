"""What a job asks of the machine: threads, memory, minutes, GPUs. Account and partition come from the profile."""

from scripts.recipe.benchmark import BenchmarkSpec
from scripts.recipe.graph import Artifact, Graph
from scripts.recipe.train import TrainSpec

# Largest need seen of a stage that reads no weights, in MB: interpreter, pyarrow and a buffer.
_SMALL_MB = 4_000
_HOUR = 60
_WARNING_S = {"cuda": 600, "cpu": 120}
"""How long before its time limit a training is warned (Slurm may do it a minute earlier): the step in progress (7 s at
13B on 8 H100) and a checkpoint (156 GB, 160 s at 1 GB/s) must fit."""


def job_resources(graph: Graph, artifact: Artifact, attempt: int = 1) -> dict[str, int]:
    """Return `threads` and `mem_mb` (of a node), `runtime` (minutes) and `gpu` (in all) of one job.

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


def node_resources(graph: Graph, artifact: Artifact, gpu_model: str = "") -> dict[str, int | str | None]:
    """Return what Snakemake's Slurm plugin must be told of a training: its warning, and how it is spread over nodes.

    The warning goes to all processes of the job's steps; `scripts.train.requeue` says what comes of it. The rest is
    None on one node. `gpu_model` is the GPU's name in Slurm as the profile gives it: Slurm refuses a job that has it in
    one place only. `mpi` keeps the plugin from wrapping the job in a one-node `srun` of its own, `tasks_per_gpu: 0`
    from making `tasks` tasks of each GPU. Without the GPUs of a node Slurm deals out the sum as it likes: of 4 GPUs on
    two nodes it gave 3 and 1.
    """
    spec = graph.jobs[artifact].spec
    told: dict[str, int | str | None] = dict.fromkeys(("nodes", "mpi", "tasks", "tasks_per_gpu", "slurm_extra"))
    if not isinstance(spec, TrainSpec):
        return told
    launch = spec.launch
    extra = f"--signal=TERM@{_WARNING_S[launch.device]}"
    if launch.nodes == 1:
        return told | {"slurm_extra": extra}
    extra += " --ntasks-per-node=1"
    if launch.device == "cuda":
        extra += f" --gpus-per-node={gpu_model}{':' if gpu_model else ''}{launch.processes_per_node}"
    return {"nodes": launch.nodes, "mpi": "srun", "tasks": launch.nodes, "tasks_per_gpu": 0, "slurm_extra": extra}


def _training(spec: TrainSpec) -> dict[str, int]:
    launch = spec.launch
    threads = launch.processes_per_node * launch.threads_per_process
    if launch.device == "cpu":
        return {"threads": threads, "mem_mb": 2 * _SMALL_MB, "runtime": _HOUR}
    # 8 processes load, gather and save a 13B model in fp32 (52 GB) through the host.
    return {"threads": threads, "mem_mb": 400_000, "runtime": 24 * _HOUR, "gpu": launch.processes}
