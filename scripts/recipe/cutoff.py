"""Early cutoff within one invocation: a repair of Snakemake 9.27.1, held by `tests/pipeline/test_reruns.py`."""

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
