"""Early cutoff within one invocation: two repairs of Snakemake 9.27.1, held by `tests/pipeline/test_reruns.py`."""

from typing import Any


def forget_derived_reasons() -> None:
    """Make Snakemake decide afresh, after each checkpoint, which jobs still have to run.

    Snakemake 9.27.1 keeps "input files updated by another job" on jobs two or more hops below a checkpoint, although
    the job in between was dropped since its input turned out the same; they then run for nothing. That reason is
    derived anew on every pass, so it is safe to forget for each job that is neither running nor done.
    """
    from snakemake.dag import DAG

    if hasattr(DAG.update_needrun, "forgets"):
        return
    update_needrun = DAG.update_needrun

    async def update(self: Any, *args: Any, **kwargs: Any) -> None:
        for job in self.jobs:
            if job not in self._running and not self.finished(job):
                self.reason(job).updated_input_run.clear()
        await update_needrun(self, *args, **kwargs)

    update.forgets = True  # type: ignore[attr-defined]
    DAG.update_needrun = update


def look_below_kept_artifacts() -> None:
    """Make Snakemake ask every job below a kept artifact for its own reasons to run, in the same invocation.

    Snakemake 9.27.1 asks a job about changed code and parameters only once its input checkpoints are settled, and
    settles only the jobs right below a checkpoint that has just run. If one of these turns out to be up to date, nobody
    looks further: after a change of `download` and `train` at once, it built the downloads and ended with success.
    """
    from snakemake.dag import DAG
    from snakemake.io import is_flagged

    if hasattr(DAG.update_checkpoint_dependencies, "looks"):
        return
    settle = DAG.update_checkpoint_dependencies

    def waits(job: Any, output: Any = None) -> bool:
        return any(is_flagged(f, "checkpoint_target") and (output is None or f in output) for f in job.input)

    async def update(self: Any, jobs: Any = None) -> Any:
        updated = await settle(self, jobs)
        while kept := [
            job
            for job in self.jobs
            if job.is_checkpoint
            and not self.needrun(job)
            and not waits(job)
            and any(waits(below, job.output) for below in self.depending[job])
            and all([await f.exists() for f in job.output])
        ]:
            updated |= await settle(self, kept)
        return updated

    update.looks = True  # type: ignore[attr-defined]
    DAG.update_checkpoint_dependencies = update
