"""How long the end of a job may go unseen on a cluster: a limit on the pause of Snakemake's executor plugins.

The Slurm plugin (2.8.0) asks 10 s later each time nothing has ended, up to every 180 s, and has no setting for it: a
training that fails in its tenth hour would be noticed three minutes later.
"""

from typing import Any

LONGEST_PAUSE_S = 40
"""One `squeue` for all jobs of a run; what is noticed within a minute must be asked for more often than that."""


def limit_pauses() -> None:
    """Make every executor plugin ask for the state of its jobs at least each LONGEST_PAUSE_S seconds."""
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    pause: Any = RemoteExecutor.next_seconds_between_status_checks
    if hasattr(pause.fset, "limited"):
        return

    def limited(self: Any, seconds: float) -> None:
        pause.fset(self, min(seconds, LONGEST_PAUSE_S))

    limited.limited = True  # type: ignore[attr-defined]
    RemoteExecutor.next_seconds_between_status_checks = pause.setter(limited)
