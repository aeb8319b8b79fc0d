"""Early cutoff within one invocation: repairs of Snakemake 9.27.1, held by `tests/pipeline/test_reruns.py`.

In this workflow every job is a checkpoint, and inputs come through functions that wait for checkpoints. Snakemake
judges a job only once its inputs are known; three gaps remain where a job is judged wrongly or never.
"""

from typing import Any


def repair_early_cutoff() -> None:
    """Make Snakemake decide afresh, after each checkpoint, which jobs still have to run.

    1. "Input files updated by another job" stays on jobs two or more hops below a checkpoint, although the job in
       between was dropped since its input turned out the same; they then run for nothing. That reason is derived
       anew on every pass, so it is safe to forget for each job that is neither running nor done.
    2. A job that waits for a checkpoint is asked nothing ("reevaluated in a second pass"). Where that checkpoint's
       file is lost and nobody else asks for it, the second pass never comes, and a job with other settings counts as
       up to date. So a lost input is a reason to run; once it is back, the job is judged as usual.
    3. A finished checkpoint settles the jobs right below it. If one of these turns out to need no run, those below
       it are never settled, so never judged: with changes at both ends of the graph the lower one was left out.
    """
    from snakemake.dag import DAG

    if not hasattr(DAG.update_needrun, "repaired"):
        DAG.update_needrun = _judging(DAG.update_needrun)
        DAG.update_checkpoint_dependencies = _settling(DAG.update_checkpoint_dependencies)


def _judging(original: Any) -> Any:
    async def update_needrun(self: Any, *args: Any, **kwargs: Any) -> None:
        for job in self.jobs:
            if job not in self._running and not self.finished(job):
                lost = [file for file in job.input if _waited_for(file) and not await file.exists()]
                self.reason(job).updated_input_run.clear()
                self.reason(job).updated_input_run.update(lost)
        await original(self, *args, **kwargs)

    update_needrun.repaired = True  # type: ignore[attr-defined]
    return update_needrun


def _settling(original: Any) -> Any:
    async def update_checkpoint_dependencies(self: Any, jobs: Any = None) -> Any:
        updated = await original(self, jobs)
        while settled := [job for job in self.jobs if await _holds_others_up(self, job)]:
            await original(self, settled)  # one hop further down each time
            updated = True
        return updated

    return update_checkpoint_dependencies


async def _holds_others_up(dag: Any, job: Any) -> bool:
    """Whether a checkpoint was judged and needs no run, and yet a job waits to be told so."""
    if not job.is_checkpoint or dag.needrun(job) or any(map(_waited_for, job.input)):
        return False
    outputs = set(job.output)
    waiting = (file for below in dag.depending[job] for file in below.input if _waited_for(file))
    if not any(file in outputs for file in waiting):
        return False
    return all([await file.exists() for file in job.output])


def _waited_for(file: Any) -> bool:
    return bool(file.flags.get("checkpoint_target"))
